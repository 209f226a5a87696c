//! L2 to L10, L13: shields, and what they expose.

use proptest::prelude::*;

use crate::exec::{Cut, What};
use crate::program::{ALL, CALM, Grammar, P, ROOT};
use crate::reference::{BOTH, MORE, agree, check, each, hidden, mask, poll, same, then_more};

const CANCEL: [Cut; 1] = [Cut::Cancel];

/// L2. A shield that is open everywhere is none: `mask(x. poll x P) ≡ P`.
#[test]
fn l02_a_mask_that_is_polled_is_none() {
    check(200, ALL, |p| same(&then_more(mask(1, poll(1, p.clone()))), &then_more(p.clone()), &CANCEL));
}

/// L3. Two shields are one: `mask(mask P) ≡ mask P`.
#[test]
fn l03_two_masks_are_one() {
    check(200, ALL, |p| same(&then_more(mask(1, mask(2, p.clone()))), &then_more(mask(1, p.clone())), &BOTH));
}

/// L4. `poll` opens its own shield only, and only where that is the innermost closed one.
#[test]
fn l04_poll_opens_only_its_own_mask() {
    check(150, ALL, |p| {
        let p = || p.clone();
        let masked = then_more(mask(1, p()));
        same(&then_more(mask(1, mask(2, poll(1, poll(2, p()))))), &masked, &BOTH)?;
        same(&then_more(mask(1, mask(2, poll(2, poll(1, p()))))), &then_more(p()), &CANCEL)?;
        let twice = P::Expose(hidden(201), hidden(1), Box::new(poll(1, p())));
        same(&then_more(mask(1, twice)), &then_more(mask(1, poll(1, p()))), &CANCEL)
    });
}

/// L5. A callee can not unmask its caller: whatever is inside a shield, cancels and drops outside change nothing in it.
#[test]
fn l05_a_callee_can_not_unmask_its_caller() {
    check(200, ALL, |p| {
        let masked = mask(1, p.clone());
        let plain = agree(&masked, &[])?;
        each(&masked, &BOTH, |cut, obs| {
            // A program may cancel what is around it; that is seen at the end of the shield, as any other cancel.
            prop_assert_eq!(obs.clone().seen().trace, plain.clone().seen().trace, "cut: {:?}", cut);
            prop_assert_eq!(obs.idle, plain.idle);
            Ok(())
        })
    });
}

/// L5b. Nor can its argument: with `g(Q) = mask(Q)`, `mask(x. g(poll x P)) ≡ mask(P)`.
#[test]
fn l05b_an_argument_can_not_unmask_a_callee() {
    check(200, ALL, |p| same(&mask(1, mask(2, poll(1, p.clone()))), &mask(1, p.clone()), &BOTH));
}

/// L6. After a shield the code is as cancellable as before, however the shield has ended.
#[test]
fn l06_a_mask_leaves_nothing_behind() {
    check(200, CALM, |p| {
        let p = P::seq([mask(1, p.clone()), P::Sleep(MORE, 77_777_777)]);
        let begins = agree(&p, &[])?.trace.iter().find(|e| e.id == hidden(1) && e.what == What::Done).map(|e| e.at);
        each(&p, &CANCEL, |cut, obs| {
            let (Some((at, _)), Some(begins)) = (cut, begins) else { return Ok(()) };
            prop_assert_eq!(obs.count(MORE, What::Emit), 0);
            prop_assert_eq!(obs.ended, at.max(begins));
            Ok(())
        })
    });
}

/// L7. Without a shield a cancel is seen at once: nothing goes on after it.
#[test]
fn l07_without_a_mask_a_cancel_is_seen_at_once() {
    check(200, Grammar { masks: false, ..ALL }, |p| {
        each(p, &CANCEL, |cut, obs| {
            let Some((at, _)) = cut else { return Ok(()) };
            prop_assert_eq!(obs.idle.map(|idle| idle <= at), Some(true), "{:?}", obs);
            Ok(())
        })
    });
}

/// L8. In a shield there is nothing to clean up: `mask(on_cancel P f) ≡ mask(P)`.
#[test]
fn l08_inside_a_mask_on_cancel_is_nothing() {
    check(200, ALL, |p| {
        let clean = P::OnCancel(hidden(5), Box::new(p.clone()), Box::new(P::Emit(MORE)));
        same(&mask(1, clean), &mask(1, p.clone()), &BOTH)
    });
}

/// L9. Where nothing is cancelled, shields and what they expose are nothing.
#[test]
fn l09_without_a_cancel_masks_are_nothing() {
    fn bare(mut p: P) -> P {
        p.parts().into_iter().for_each(|part| *part = bare(part.clone()));
        match p {
            P::Mask(_, inner) | P::Expose(_, _, inner) => *inner,
            other => other,
        }
    }
    let grammar = Grammar { cancels: false, failures: false, drops: false, ..ALL };
    check(300, grammar, |p| {
        let masks = p.all(|p| if let P::Mask(id, _) | P::Expose(id, ..) = p { Some(*id) } else { None });
        let mut with = agree(p, &[])?;
        with.trace.retain(|event| !masks.contains(&event.id));
        prop_assert_eq!(with, agree(&bare(p.clone()), &[])?);
        Ok(())
    });
}

/// L10. The value of a shield is not thrown away: what follows up to the next suspension runs.
#[test]
fn l10_the_value_of_a_mask_is_not_lost() {
    check(200, CALM, |p| {
        let p = P::seq([mask(1, p.clone()), P::Emit(MORE), P::Yield(hidden(7))]);
        each(&p, &CANCEL, |_, obs| {
            prop_assert_eq!(obs.count(MORE, What::Emit), obs.count(hidden(1), What::Done), "{:?}", obs);
            Ok(())
        })
    });
}

/// L13. A shield and a finalizer may change places: `mask(on_cancel P f) ≡ on_cancel (mask P) f`. For cancels: a drop of
/// the right side runs `f`, because the caller is gone.
#[test]
fn l13_mask_and_on_cancel_change_places() {
    check(200, ALL, |p| {
        let clean = |p| P::OnCancel(hidden(5), Box::new(p), Box::new(P::Emit(MORE)));
        same(&mask(1, clean(p.clone())), &clean(mask(1, p.clone())), &CANCEL)
    });
}

/// L1. A cancel that is held off is not lost: it is seen at the first suspension after the shield.
#[test]
fn l01_a_deferred_cancel_is_seen_later() {
    check(200, CALM, |p| {
        let whole = then_more(mask(1, p.clone()));
        each(&whole, &CANCEL, |cut, obs| {
            // Later than main it finds nothing to cancel: only what is rescued is left.
            if cut.is_some_and(|(at, _)| at <= obs.ended) {
                prop_assert_eq!((obs.count(MORE, What::Emit), obs.count(ROOT, What::Cut)), (0, 1), "{:?}", obs);
            }
            Ok(())
        })
    });
}

/// The equation that cats-effect's laws leave open: a request just before an exposed part is one in it.
#[test]
fn a_request_before_an_exposed_part_is_one_in_it() {
    check(100, ALL, |p| {
        let before = mask(1, P::seq([P::Cancel(ROOT), poll(1, p.clone()), P::Emit(MORE)]));
        let inside = mask(1, P::seq([poll(1, P::seq([P::Cancel(ROOT), p.clone()])), P::Emit(MORE)]));
        same(&before, &inside, &BOTH)
    });
}
