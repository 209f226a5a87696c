//! L11, L20 to L27: cancels, and who waits for them.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use testudo::testing::Sweep;
use testudo::{CancelScope, FinalizeExt, Outcome, Task, cancelled, checkpoint, drain, nursery, shield};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::exec::{Cut, What};
use crate::program::{ALL, CALM, Grammar, P};
use crate::reference::{MORE, agree, between, check, check_of, each, hidden, same};

const S: Duration = Duration::from_secs(1);

/// L11. No value disappears: what an operation has taken is given to the code, wherever that is cut off. For cancels, by M1; what a
/// drop loses, each operation has to say itself (`recv` loses nothing).
#[test]
fn l11_what_was_taken_is_delivered() {
    struct World {
        queue: std::sync::Mutex<Option<mpsc::UnboundedReceiver<u8>>>,
        rest: std::sync::Mutex<Vec<u8>>,
    }
    let setup = || {
        let (sender, receiver) = mpsc::unbounded_channel();
        drop(testudo::spawn(async move {
            for value in 0..5 {
                sleep(S).await;
                sender.send(value).unwrap_or_default();
                checkpoint().await;
            }
            pending::<()>().await;
        }));
        World { queue: std::sync::Mutex::new(Some(receiver)), rest: std::sync::Mutex::default() }
    };
    /// Whatever is not delivered can be seen in the queue.
    struct Back<'a>(&'a World, Option<mpsc::UnboundedReceiver<u8>>);
    impl Drop for Back<'_> {
        fn drop(&mut self) {
            let mut queue = self.1.take();
            let rest = std::iter::from_fn(|| queue.as_mut()?.try_recv().ok());
            self.0.rest.lock().expect("alive").extend(rest);
            *self.0.queue.lock().expect("alive") = queue;
        }
    }
    let run = async |world: &World| {
        let mut back = Back(world, world.queue.lock().expect("alive").take());
        for _ in 0..5 {
            let value = match &mut back.1 {
                Some(queue) => queue.recv().await,
                None => None,
            };
            world.rest.lock().expect("alive").extend(value);
        }
    };
    let swept = Sweep::new().pairs().check(setup, run, |world| {
        let mut queue = world.queue.lock().expect("alive");
        let mut all = world.rest.lock().expect("alive").clone();
        all.extend(std::iter::from_fn(|| queue.as_mut()?.try_recv().ok()));
        if all == [0, 1, 2, 3, 4] { Ok(()) } else { Err(format!("{all:?}")) }
    });
    assert_eq!(swept.suspensions(), 5);
}

/// L20. A second request is none: `cancel c ; cancel c ≡ cancel c`.
#[test]
fn l20_two_cancels_are_one() {
    fn doubled(mut p: P) -> P {
        p.parts().into_iter().for_each(|part| *part = doubled(part.clone()));
        match p {
            P::Cancel(_) | P::CancelChild(_) => P::seq([p.clone(), p]),
            other => other,
        }
    }
    check(200, ALL, |p| same(p, &doubled(p.clone()), &[Cut::Cancel, Cut::Drop]));
}

/// L20. A request is never taken back, whatever shields are raised and lowered; that holds for `cancel_requested`.
#[test]
fn l20_a_request_stays() {
    check_of(100, proptest::collection::vec(any::<(bool, bool)>(), 1..12), |toggles| {
        let outer = CancelScope::new();
        let handle = outer.handle();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it needs nothing");
        let body = async {
            let inner = CancelScope::new();
            let seen = inner.handle();
            let inside = inner.run(async {
                let mut requested = false;
                for (up, cancel) in toggles {
                    seen.set_shielded(up);
                    requested |= cancel && seen.cancel("law") | true;
                    if seen.cancel_requested() != requested || (requested && !seen.is_cancelled()) {
                        return false;
                    }
                }
                true
            });
            inside.await
        };
        let held = runtime.block_on(outer.run(body));
        prop_assert!(matches!(held, Ok(Ok(true))), "{:?}", held);
        prop_assert!(!handle.cancel_requested());
        Ok(())
    });
}

/// L21. Cancelling and waiting for what has ended is no more than waiting.
#[testudo::test(start_paused = true)]
async fn l21_a_cancel_of_what_has_ended_is_nothing() {
    let run = nursery(|n| async move {
        let mut done = n.spawn(async { Ok::<_, std::io::Error>(7) });
        assert!(matches!(done.outcome().await, Outcome::Ok(7)));
        assert!(!done.cancel("too late"));
        let other = n.spawn(async { Ok::<_, std::io::Error>(8) });
        sleep(S).await;
        assert!(matches!(other.cancel_and_wait("too late").await, Outcome::Ok(8)));
        Ok(())
    });
    run.await.expect("nothing fails");
}

/// L22. Whoever cancels and waits, waits for the finalizers: also the second, also when they run already.
#[test]
fn l22_everybody_waits_for_the_finalizers() {
    check_of(60, (1..9_u64, 1..9_u64, 1..9_u64), |(first, second, length)| {
        let ends = start_paused(async move {
            let start = Instant::now();
            let task: Arc<std::sync::Mutex<Vec<u64>>> = Arc::default();
            let ends = Arc::clone(&task);
            let run = nursery(|n| async move {
                let child: Task<(), String> =
                    n.spawn(pending::<()>().on_cancel(async move { sleep(100 * S * to32(length)).await }));
                let other = child.as_ref();
                let late = Arc::clone(&ends);
                n.spawn(async move {
                    sleep(S * to32(second)).await;
                    other.cancel("second");
                    while !other.is_finished() {
                        sleep(S / 2).await;
                    }
                    late.lock().expect("alive").push(start.elapsed().as_secs());
                });
                sleep(S * to32(first)).await;
                drop(child.cancel_and_wait("first").await);
                ends.lock().expect("alive").push(start.elapsed().as_secs());
                Ok(())
            });
            run.await.expect("nothing fails");
            let mut ends = task.lock().expect("alive").clone();
            ends.sort_unstable();
            ends
        });
        let due = first.min(second) + 100 * length;
        prop_assert_eq!(ends, vec![due, due]);
        Ok(())
    });
}

/// L23. A second cancel never shortens what the first one has begun.
#[test]
fn l23_a_second_cancel_changes_nothing() {
    check(150, ALL, |p| {
        each(p, &[Cut::Cancel], |cut, once| {
            let Some((at, _)) = cut else { return Ok(()) };
            for then in between(once).into_iter().filter(|then| *then > at) {
                prop_assert_eq!(once, &agree(p, &[(at, Cut::Cancel), (then, Cut::Cancel)])?, "{}, {}", at, then);
            }
            Ok(())
        })
    });
}

/// L24. The first cause counts, all are kept in their order, and what is inside has the cause of what is around it.
#[test]
fn l24_the_first_cause_counts_and_all_are_kept() {
    check_of(60, (1..5_usize, 1..5_usize), |(outer, inner)| {
        start_paused(async move {
            let (around, scope) = (CancelScope::new(), CancelScope::new());
            let (far, near) = (around.handle(), scope.handle());
            let why = around.run(scope.run(async {
                for n in 0..outer {
                    assert_eq!(far.cancel(format!("outer {n}")), n == 0);
                }
                for n in 0..inner {
                    assert_eq!(near.cancel(format!("inner {n}")), n == 0);
                }
                cancelled().await
            }));
            drop(why.await);
            let reasons = |causes: Vec<testudo::Cause>| -> Vec<String> {
                causes.iter().map(|cause| cause.reason().unwrap_or_default().to_owned()).collect()
            };
            let of_outer: Vec<String> = (0..outer).map(|n| format!("outer {n}")).collect();
            let of_inner = (0..inner).map(|n| format!("inner {n}"));
            assert_eq!(reasons(far.causes()), of_outer);
            assert_eq!(reasons(near.causes()), std::iter::once("outer 0".into()).chain(of_inner).collect::<Vec<_>>());
            assert_eq!(reasons(near.cause().into_iter().collect()), ["outer 0"]);
        });
        Ok(())
    });
}

/// L25. What is cancelled before its first poll runs up to its first suspension (S7): always, and no further.
#[test]
fn l25_cancelled_before_the_first_poll_is_cut_at_the_first_suspension() {
    check(150, CALM, |p| {
        let child = P::seq([P::Emit(901), P::Yield(902), p.clone()]);
        let spawn = P::Spawn(hidden(2), hidden(1), Box::new(child.clone()));
        let nursery = P::Nursery(hidden(1), Box::new(P::seq([P::Cancel(hidden(1)), spawn])));
        let scope = P::seq([P::Cancel(hidden(3)), P::Scope(hidden(3), None, Box::new(child))]);
        for whole in [nursery, scope] {
            let obs = agree(&whole, &[])?.seen();
            let seen: Vec<_> = obs.trace.iter().map(|event| (event.at, event.id)).collect();
            prop_assert_eq!(seen, vec![(0, 901)]);
            prop_assert_eq!(obs.idle, Some(0));
        }
        Ok(())
    });
}

/// L26. What never ends behind a shield ends with its budget, counted from the cancel.
#[test]
fn l26_a_budget_ends_a_shield_that_never_ends() {
    check_of(80, (1..50_u64, 1..50_u64, any::<bool>(), any::<bool>()), |(cancel, budget, nested, dropped)| {
        let ended = start_paused(async move {
            let start = Instant::now();
            let inner = shield(pending::<()>());
            let held = shield(async move { if nested { inner.await } else { pending().await } });
            let held = held.budget(S * to32(budget));
            if dropped {
                drop(tokio::time::timeout(S * to32(cancel), held).await);
            } else {
                drop(CancelScope::new().timeout(S * to32(cancel)).run(held).await);
            }
            let report = drain(1_000 * S).await;
            assert_eq!((report.lost(), report.left().len()), (1, 0), "{report}");
            start.elapsed().as_secs()
        });
        prop_assert_eq!(ended, cancel + budget);
        Ok(())
    });
}

/// L27. Who is cut off while it cancels and waits, has cancelled all the same.
#[test]
fn l27_a_cancel_is_delivered_by_who_is_cut_off() {
    check_of(40, 1..20_u64, |length| {
        let ended = start_paused(async move {
            let start = Instant::now();
            let run = nursery(|n| async move {
                let target: Task<(), String> =
                    n.spawn(pending::<()>().on_cancel(async move { sleep(S * to32(length)).await }));
                let wait = CancelScope::new();
                let handle = wait.handle();
                let mut waiting = Box::pin(wait.run(target.cancel_and_wait("law")));
                drop(tokio::time::timeout(Duration::ZERO, &mut waiting).await);
                handle.cancel("enough");
                assert!(waiting.await.is_err());
                assert_eq!(start.elapsed(), Duration::ZERO, "who waits is cut off at once");
                Ok(())
            });
            run.await.expect("nothing fails");
            start.elapsed().as_secs()
        });
        prop_assert_eq!(ended, length);
        Ok(())
    });
}

/// A cancel of a program that has no suspension left finds nothing to cut off.
#[test]
fn l21_a_cancel_after_the_last_suspension_is_nothing() {
    check(100, Grammar { never: false, ..ALL }, |p| {
        let whole = P::seq([p.clone(), P::Cancel(0), P::Emit(MORE)]);
        let (plain, obs) = (agree(p, &[])?, agree(&whole, &[])?);
        let ended_well = plain.count(0, What::Done) == 1 && plain.outcome == crate::exec::Outcome::Ok;
        prop_assert_eq!(obs.count(MORE, What::Emit) == 1, ended_well);
        Ok(())
    });
}

pub(crate) fn to32(n: u64) -> u32 {
    u32::try_from(n).expect("it is small")
}

/// Runs something on paused time.
pub(crate) fn start_paused<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    // What waits for ever fails here, and does not hang.
    let bounded = async { tokio::time::timeout(1_000_000 * S, body).await };
    runtime.expect("it needs nothing").block_on(bounded).expect("it ends")
}
