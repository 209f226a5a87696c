//! L28 to L36: nurseries.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use testudo::{
    CancelScope, Event, FinalizeExt, NurseryError, Outcome, Policy, Task, all_tasks, checkpoint, drain, nursery, shield,
};
use tokio::time::{Instant, sleep};

use crate::cancel::{start_paused, to32};
use crate::exec::{Fault, Obs, What};
use crate::program::{ALL, Grammar, Id, P};
use crate::reference::{BOTH, check, check_of, each};

const S: Duration = Duration::from_secs(1);

/// The nursery of each child.
fn homes(p: &P) -> BTreeMap<Id, Id> {
    let children = p.all(|p| if let P::Spawn(id, ..) = p { Some(*id) } else { None });
    let home = |child| {
        let found = p.all(|p| if let P::Spawn(id, nursery, _) = p { (*id == child).then_some(*nursery) } else { None });
        (child, found.into_iter().next().unwrap_or(Id::MAX))
    };
    children.into_iter().map(home).collect()
}

/// L28. When a nursery has said how it has ended, its children and their children have ended.
#[test]
fn l28_nothing_of_a_nursery_happens_after_its_end() {
    fn late(p: &P, obs: &Obs) -> Option<String> {
        let (homes, said) = (homes(p), [What::Done, What::Cut, What::Failed]);
        let nurseries = p.all(|p| if let P::Nursery(id, _) = p { Some(*id) } else { None });
        let ends: Vec<_> = obs.trace.iter().filter(|e| nurseries.contains(&e.id) && said.contains(&e.what)).collect();
        let late =
            ends.into_iter().find(|end| obs.trace.iter().any(|e| homes.get(&e.task) == Some(&end.id) && e.at > end.at));
        late.map(|end| format!("{} ended at {}: {obs:?}", end.id, end.at))
    }
    check(400, Grammar { never: false, ..ALL }, |p| {
        each(p, &BOTH, |cut, obs| match late(p, obs) {
            None => Ok(()),
            Some(late) => Err(TestCaseError::fail(format!("cut: {cut:?}: {late}"))),
        })
    });
}

/// How a child of the tests below ends, and when.
type Plan = Vec<(u64, bool)>;

fn plans() -> impl Strategy<Value = Plan> {
    // No two at the same time.
    let lengths = proptest::sample::subsequence((1..20_u64).collect::<Vec<_>>(), 1..6);
    lengths.prop_flat_map(|lengths| {
        let ends = proptest::collection::vec(any::<bool>(), lengths.len());
        (Just(lengths), ends)
            .prop_map(|(lengths, ends)| lengths.into_iter().zip(ends).collect::<Vec<_>>())
            .prop_shuffle()
    })
}

/// Runs children, each with a finalizer of half a second. Gives the result, its time in half seconds, and how many have ended well.
fn family(plan: &Plan, policy: Policy) -> (Result<(), NurseryError<Fault>>, u64, usize) {
    let (plan, well) = (plan.clone(), Arc::new(AtomicUsize::new(0)));
    start_paused(async {
        let (start, count) = (Instant::now(), Arc::clone(&well));
        let run = nursery(|n| async move {
            for (length, fails) in plan {
                let well = Arc::clone(&count);
                let work = async move {
                    sleep(S * to32(length)).await;
                    well.fetch_add(usize::from(!fails), Ordering::SeqCst);
                    if fails { Err(Fault) } else { Ok(()) }
                };
                n.spawn(work.on_cancel(async { sleep(S / 2).await }));
            }
            Ok(())
        });
        let result = run.policy(policy).await;
        let halves = u64::try_from(start.elapsed().as_millis() / 500).expect("it is small");
        (result, halves, well.load(Ordering::SeqCst))
    })
}

/// L29. The first failure cancels the others, all are awaited, and it is in the error; under supervision it concerns nobody.
#[test]
fn l29_the_first_failure_cancels_its_siblings() {
    check_of(150, plans(), |plan| {
        let last = plan.iter().map(|(length, _)| *length).max().unwrap_or(0);
        let first = plan.iter().filter(|(_, fails)| *fails).map(|(length, _)| *length).min();
        let end = first.unwrap_or(last);
        let before = plan.iter().filter(|(length, _)| *length < end || (*length == end && first.is_none())).count();
        let (result, halves, well) = family(&plan, Policy::FailFast);
        let failures = result.as_ref().err().and_then(NurseryError::failures).map_or(0, testudo::Failures::len);
        prop_assert_eq!((failures, well), (usize::from(first.is_some()), before));
        prop_assert_eq!(halves, 2 * end + u64::from(first.is_some() && end < last), "the finalizers are awaited");
        let (result, halves, well) = family(&plan, Policy::Supervise);
        prop_assert!(result.is_ok());
        prop_assert_eq!((halves, well), (2 * last, plan.iter().filter(|(_, fails)| !fails).count()));
        let (result, _, _) = family(&plan, Policy::Collect);
        let failures = result.as_ref().err().and_then(NurseryError::failures).map_or(0, testudo::Failures::len);
        prop_assert_eq!(failures, plan.iter().filter(|(_, fails)| *fails).count(), "none is lost");
        Ok(())
    });
}

/// L30. A cancel is not an error: without a failure in the program, no nursery has failed.
#[test]
fn l30_a_cancel_is_not_an_error() {
    check(300, Grammar { failures: false, ..ALL }, |p| {
        each(p, &BOTH, |cut, obs| {
            prop_assert!(obs.trace.iter().all(|e| e.what != What::Failed), "cut: {:?}: {:?}", cut, obs);
            Ok(())
        })
    });
}

/// L31. No failure is lost because a cancel came: one that comes out of a shield after it is in the result, or reported.
#[test]
fn l31_a_failure_behind_a_cancel_is_not_lost() {
    check_of(80, (1..9_u64, 10..20_u64, any::<bool>()), |(cancel, fails, outside)| {
        let (found, reported) = start_paused(async move {
            let children = nursery(|n| async move {
                n.spawn(shield(async move {
                    sleep(S * to32(fails)).await;
                    Err::<(), _>(Fault)
                }));
                if !outside {
                    sleep(S * to32(cancel)).await;
                    n.cancel("law");
                }
                pending::<Result<(), Fault>>().await
            });
            let result =
                CancelScope::new().timeout(if outside { S * to32(cancel) } else { 100 * S }).run(children).await;
            let found = match result {
                Ok(Err(NurseryError::Failed(failures))) => failures.len(),
                Ok(_) | Err(_) => 0,
            };
            let report = drain(S).await;
            (found, report.events().iter().filter(|event| matches!(event, Event::Failed(..))).count())
        });
        prop_assert_eq!((found, reported), (usize::from(!outside), usize::from(outside)));
        Ok(())
    });
}

/// L32. A child belongs to its nursery: one outside of the shield of its parent is cancelled with that nursery, one inside is
/// covered, except from the cancel of the nursery itself.
#[test]
fn l32_a_child_is_shielded_iff_its_nursery_is() {
    check_of(60, (any::<bool>(), 1..9_u64, 10..20_u64), |(inside, cancel, length)| {
        let (cut_off, ended) = start_paused(async move {
            let start = Instant::now();
            let ends = Arc::new(AtomicUsize::new(0));
            let end = Arc::clone(&ends);
            let child = async move {
                sleep(S * to32(length)).await;
                end.store(1, Ordering::SeqCst);
            };
            let body = nursery(|outer| async move {
                let covered = shield(async move {
                    if inside {
                        nursery(|inner| async move { drop::<Task<(), Fault>>(inner.spawn(child)) }.map_ok()).await
                    } else {
                        drop::<Task<(), Fault>>(outer.spawn(child));
                        Ok(())
                    }
                });
                covered.await.map_err(|_| Fault)
            });
            drop(CancelScope::new().timeout(S * to32(cancel)).run(body).await);
            (ends.load(Ordering::SeqCst) == 0, start.elapsed().as_secs())
        });
        prop_assert_eq!((cut_off, ended), (!inside, if inside { length } else { cancel }));
        Ok(())
    });
}

/// Gives a body without a value the error type of the test.
trait MapOk: Future<Output = ()> + Sized {
    async fn map_ok(self) -> Result<(), Fault> {
        self.await;
        Ok(())
    }
}

impl<F: Future<Output = ()>> MapOk for F {}

/// L33. A nursery that has ended gives the future back, without a poll; one that ends takes none that it does not wait for.
#[testudo::test(start_paused = true)]
async fn l33_a_closed_nursery_gives_the_future_back() {
    let mut kept = None;
    let run = nursery(|n| {
        kept = Some(n);
        async { Ok::<(), Fault>(()) }
    });
    run.await.expect("nothing fails");
    let closed = kept.expect("it was given");
    let polls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&polls);
    let refused = closed.try_spawn(async move {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let given_back = refused.map(drop).expect_err("it is closed").into_future();
    assert_eq!(polls.load(Ordering::SeqCst), 0);
    given_back.await;
    assert_eq!(polls.load(Ordering::SeqCst), 1);
}

/// L34. A race is a nursery with the policy of the first success: the losers are cancelled and awaited before it returns, and
/// one against something that never ends is none.
#[test]
fn l34_the_losers_of_a_race_are_awaited() {
    check_of(100, plans(), |plan| {
        let winner = plan.iter().filter(|(_, fails)| !fails).map(|(length, _)| *length).min();
        let (result, halves, well) = family(&plan, Policy::FirstSuccess);
        let last = plan.iter().map(|(length, _)| *length).max().unwrap_or(0);
        let end = winner.unwrap_or(last);
        prop_assert_eq!((result.is_ok(), well), (winner.is_some(), usize::from(winner.is_some())));
        prop_assert_eq!(halves, 2 * end + u64::from(winner.is_some() && end < last));
        Ok(())
    });
}

/// L35. A nursery with only daemons left ends; a daemon that fails fails it.
#[test]
fn l35_daemons_do_not_keep_a_nursery_open() {
    check_of(60, (1..9_u64, 1..9_u64, any::<bool>()), |(child, daemon, fails)| {
        prop_assume!(child != daemon);
        let (failed, ended) = start_paused(async move {
            let start = Instant::now();
            let run = nursery(|n| async move {
                n.task().daemon().spawn(async move {
                    sleep(S * to32(daemon)).await;
                    if fails { Err::<(), _>(Fault) } else { pending().await }
                });
                n.spawn(sleep(S * to32(child)));
                Ok::<(), Fault>(())
            });
            (run.await.is_err(), start.elapsed().as_secs())
        });
        let fails = fails && daemon < child;
        prop_assert_eq!((failed, ended), (fails, if fails { daemon } else { child }));
        Ok(())
    });
}

/// L36. Nothing is kept of children that have ended.
#[testudo::test(start_paused = true)]
async fn l36_children_that_have_ended_leave_nothing_behind() {
    let token = Arc::new(());
    let seen = Arc::clone(&token);
    let run = nursery(|n| async move {
        for _ in 0..1_000 {
            let kept = Arc::clone(&token);
            let task: Task<(), Fault> = n.spawn(async move { drop(kept) });
            assert!(matches!(task.await, Outcome::Ok(())));
        }
        assert_eq!((Arc::strong_count(&token), n.len(), all_tasks().len()), (2, 0, 1));
        checkpoint().await;
        Ok::<(), Fault>(())
    });
    run.await.expect("nothing fails");
    assert_eq!(Arc::strong_count(&seen), 1);
}
