//! L12, L14 to L17: finalizers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use testudo::testing::Sweep;
use testudo::{Event, FinalizeExt, bracket, drain};
use tokio::time::sleep;

use crate::exec::{self, Obs, What};
use crate::program::{ALL, Grammar, P, programs};
use crate::reference::{BOTH, MORE, check, check_of, each, hidden, mask, poll, same};

fn finalizers(p: &P) -> [Vec<u16>; 2] {
    let on_cancel = p.all(|p| if let P::OnCancel(id, ..) = p { Some(*id) } else { None });
    let always = p.all(|p| if let P::Finally(id, ..) = p { Some(*id) } else { None });
    [on_cancel, always].map(|ids| ids.into_iter().collect())
}

fn once(p: &P, obs: &Obs) -> Result<(), String> {
    let [on_cancel, always] = finalizers(p);
    for id in on_cancel.iter().chain(&always) {
        let [begun, runs, ends] = [What::Begun, What::Finalizing, What::Finalized].map(|what| obs.count(*id, what));
        let due = if always.contains(id) { begun } else { runs.min(begun) };
        if runs != due || ends != runs {
            return Err(format!("{id}: body begun {begun}, finalizer begun {runs}, ended {ends}: {obs:?}"));
        }
    }
    Ok(())
}

/// L12. `release` runs exactly once iff `acquire` took effect, wherever it is cut off, also twice.
#[test]
fn l12_what_was_acquired_is_released_once() {
    #[derive(Default)]
    struct World {
        acquired: AtomicUsize,
        released: AtomicUsize,
    }
    let grammar = Grammar { never: false, drops: false, ..ALL };
    check_of(40, (programs(grammar, 6), 0..3_u64, 0..3_u64), |(p, wait, release)| {
        let run = async |world: &Arc<World>| {
            let (acquiring, releasing) = (Arc::clone(world), Arc::clone(world));
            let acquire = move |exposed: testudo::Exposed| async move {
                drop(exposed.run(sleep(Duration::from_millis(wait))).await);
                sleep(Duration::from_millis(wait)).await;
                acquiring.acquired.fetch_add(1, Ordering::SeqCst);
            };
            let using = |()| exec::part(&p);
            bracket(acquire, using, move |()| async move {
                releasing.released.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_millis(release)).await;
            })
            .await
        };
        let swept = Sweep::new().pairs().try_check(Arc::<World>::default, run, |world| {
            let [acquired, released] = [&world.acquired, &world.released].map(|count| count.load(Ordering::SeqCst));
            if acquired == released { Ok(()) } else { Err(format!("acquired {acquired}, released {released}")) }
        });
        // A panic of the program is no flaw of the bracket.
        match swept {
            Err(flaw)
                if !flaw.to_string().contains("a panic of the program") || flaw.to_string().contains("acquired") =>
            {
                Err(TestCaseError::fail(flaw.to_string()))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    });
}

/// L14. A finalizer runs exactly once if it has to, and to its end, for every end of its body.
#[test]
fn l14_a_finalizer_runs_once() {
    check(400, Grammar { never: false, ..ALL }, |p| {
        each(p, &BOTH, |cut, obs| once(p, obs).map_err(|wrong| TestCaseError::fail(format!("cut: {cut:?}: {wrong}"))))
    });
}

/// L14, at every poll that ends pending, also twice: finer than moments.
#[test]
fn l14_a_finalizer_runs_once_wherever_its_task_is_cut_off() {
    check(60, Grammar { never: false, failures: false, ..ALL }, |p| {
        let swept = Sweep::new().pairs().try_check(
            || exec::World::new(p),
            async |world| drop(exec::whole(world, p).await),
            |world| {
                let obs = Obs::new(exec::Outcome::Ok, 0, None, world.trace());
                once(p, &obs)?;
                let masks = p.all(|p| if let P::Mask(id, _) = p { Some(*id) } else { None });
                let cut = masks.into_iter().find(|id| obs.count(*id, What::Begun) != obs.count(*id, What::Done));
                cut.map_or(Ok(()), |id| Err(format!("shield {id} was cut off: {obs:?}")))
            },
        );
        swept.map(drop).map_err(|flaw| TestCaseError::fail(flaw.to_string()))
    });
}

/// L15. Finalizers run from the inside outwards, one after the other, after a cancel and after a drop.
#[test]
fn l15_finalizers_run_from_the_inside_outwards() {
    check(150, Grammar { never: false, failures: false, ..ALL }, |p| {
        let clean =
            |n, p| P::OnCancel(hidden(n), Box::new(p), Box::new(P::Sleep(hidden(10 + n), 1_000 + u64::from(n))));
        let nested = clean(3, P::seq([clean(2, clean(1, p.clone())), P::Emit(MORE)]));
        each(&nested, &BOTH, |cut, obs| {
            let order: Vec<_> =
                obs.trace.iter().filter(|e| (1001..=1003).contains(&e.id) && e.what != What::Begun).collect();
            let order: Vec<_> = order.iter().map(|e| (e.id, e.what)).collect();
            let full: Vec<_> =
                (1..=3).flat_map(|n| [(hidden(n), What::Finalizing), (hidden(n), What::Finalized)]).collect();
            // Cut off after some bodies have ended, only those outside of them are due.
            prop_assert!(full.ends_with(&order), "cut: {:?}: {:?}", cut, order);
            Ok(())
        })
    });
}

/// L16. A finalizer is shielded: a shield around it changes nothing.
#[test]
fn l16_a_finalizer_is_masked() {
    check_of(150, (programs(ALL, 10), 1..4_u64), |(p, n)| {
        let clean = |fin| P::OnCancel(hidden(5), Box::new(p.clone()), Box::new(fin));
        let fin = P::seq([P::Sleep(901, 1_000 * n + 7), P::Yield(902)]);
        same(&clean(fin.clone()), &clean(mask(6, fin)), &BOTH)
    });
}

/// L16b. No `poll`, of a shield around or elsewhere, makes a finalizer that runs cancellable.
#[test]
fn l16b_nothing_exposes_a_finalizer() {
    check(150, Grammar { never: false, failures: false, ..ALL }, |p| {
        let fin = poll(1, P::Sleep(MORE, 999));
        let body = P::seq([poll(1, p.clone()), P::Cancel(hidden(2)), P::Sleep(900, 77_777)]);
        let clean = P::OnCancel(hidden(3), Box::new(body), Box::new(fin));
        let whole = mask(1, P::Scope(hidden(2), None, Box::new(clean)));
        each(&whole, &BOTH, |cut, obs| {
            prop_assert_eq!(obs.count(hidden(3), What::Finalizing), 1, "cut: {:?}: {:?}", cut, obs);
            prop_assert_eq!(obs.count(MORE, What::Emit), 1, "cut: {:?}: {:?}", cut, obs);
            Ok(())
        })
    });
}

/// L17. A panic of a finalizer does not replace the end of its body, is reported once, and the other finalizers run.
#[testudo::test(start_paused = true)]
async fn l17_a_panic_of_a_finalizer_is_reported_and_replaces_nothing() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (outer, inner) = (Arc::clone(&seen), Arc::clone(&seen));
    let body = async { 7 }.finally(async move { inner.lock().expect("alive").push("inner") });
    let body = body.finally(async { std::panic::resume_unwind(Box::new("boom")) });
    let body = body.finally(async move { outer.lock().expect("alive").push("outer") });
    assert_eq!(body.await, 7);
    assert_eq!(*seen.lock().expect("alive"), ["inner", "outer"]);
    let report = drain(Duration::from_secs(1)).await;
    assert!(matches!(report.events(), [Event::Panicked(_, message)] if &**message == "boom"), "{report}");
}
