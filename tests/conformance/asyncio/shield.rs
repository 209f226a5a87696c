//! Ports of asyncio's tests of `shield` (`test_tasks.py`, `test_waitfor.py`). Ours runs in place, and becomes a task when it is dropped.

use std::future::{pending, ready};
use std::time::Duration;

use futures_util::FutureExt;
use testudo::{CancelScope, Outcome, catch_cancelled, checkpoint, fail_after, nursery, run, shield};
use tokio::time::{Instant, sleep, timeout};

use crate::read::{run_heard, run_quietly};
use crate::support::{Count, Log, S, Work, is_pending, plain_task, turns};

/// The value of what is shielded.
#[testudo::test]
async fn test_shield_result() {
    assert_eq!(shield(ready(42)).await, 42);
}

/// Its error.
#[testudo::test]
async fn test_shield_exception() {
    assert_eq!(shield(ready(Err::<(), _>("expected"))).await, Err("expected"));
}

/// What is shielded is cancelled itself: its caller is told.
#[testudo::test]
async fn test_shield_cancel_inner() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let shielded = shield(scope.run(pending::<()>()));
    let (end, ()) = tokio::join!(shielded, async { assert!(handle.cancel("inner")) });
    assert!(end.is_err());
}

/// The caller is cancelled. Differs (S13): it stays in the shield until that ends; in asyncio it goes on at once and the rest is detached.
#[testudo::test(start_paused = true)]
async fn test_shield_cancel_outer() {
    let (log, began) = (Log::default(), Instant::now());
    let run = CancelScope::new().timeout(S).run(async {
        shield(sleep(5 * S)).await;
        log.push("the shield has ended");
        checkpoint().await;
        log.push("too far");
    });
    assert!(run.await.is_err());
    assert_eq!((log.seen(), began.elapsed()), (vec!["the shield has ended"], 5 * S));
}

/// Newer: the caller is gone, the value comes: nobody is bothered.
#[test]
fn test_shield_cancel_outer_result() {
    let (finished, said) = run_heard(async {
        let mut shielded = Box::pin(shield(async {
            turns().await;
            1
        }));
        assert!(is_pending(shielded.as_mut()).await);
        drop(shielded);
    });
    finished.outcome.unwrap();
    assert!(said.is_empty() && finished.report.is_clean());
}

/// Drops shields that fail later.
fn failing_shields(count: usize, reported: bool) -> Vec<String> {
    let (finished, said) = run_heard(async move {
        for _ in 0..count {
            let failing = shield(async {
                turns().await;
                Err::<(), _>("foo")
            })
            .name("shielded");
            let mut failing = Box::pin(if reported { failing.report_err() } else { failing });
            assert!(is_pending(failing.as_mut()).await);
        }
    });
    finished.outcome.unwrap();
    said
}

/// Newer: the caller is gone, an error comes: reported once. Differs (S17): if it was asked for with `report_err`.
#[test]
fn test_shield_cancel_outer_exception() {
    assert_eq!(failing_shields(1, true), ["failed shielded: foo"]);
    assert!(failing_shields(1, false).is_empty());
}

/// Newer: two shields, each reports its own error once. Differs (S12): two shields never share one future.
#[test]
fn test_shield_duplicate_log_once() {
    assert_eq!(failing_shields(2, true), ["failed shielded: foo"; 2]);
}

/// What is done already costs no suspension.
#[testudo::test]
async fn test_shield_shortcut() {
    assert_eq!(shield(ready(42)).now_or_never(), Some(42));
}

/// The caller of a shield is lost, the work goes on to its end.
#[testudo::test]
async fn test_shield_effect() {
    let work = Work::new();
    let inner = work.clone();
    let run = nursery(|n| async move {
        let caller = plain_task(shield(inner.run()));
        inner.has_begun().await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert_eq!(inner.done(), 0);
        inner.allow(1);
        n.spawn(turns());
    });
    run.await.unwrap();
    turns().await;
    assert_eq!(work.done(), 1);
}

/// A shield around several.
#[testudo::test(start_paused = true)]
async fn test_shield_gather() {
    let began = Instant::now();
    let run = CancelScope::new()
        .timeout(S)
        .run(shield(async { tokio::join!(sleep(2 * S).map(|()| 1), sleep(3 * S).map(|()| 2)) }));
    assert_eq!(run.await.unwrap(), (1, 2));
    assert_eq!(began.elapsed(), 3 * S);
}

/// Several shields beside each other; one branch that is none. Differs (S10): it is held as long as a shield in a sibling branch is live.
#[testudo::test(start_paused = true)]
async fn test_gather_shield() {
    let (done, began) = (Count::default(), Instant::now());
    let (one, two) = (done.clone(), done.clone());
    let run = CancelScope::new().timeout(S).run(async {
        tokio::join!(
            shield(async move {
                sleep(2 * S).await;
                one.add()
            }),
            shield(async move {
                sleep(3 * S).await;
                two.add()
            }),
            sleep(100 * S)
        );
    });
    assert!(run.await.is_err());
    assert_eq!((done.get(), began.elapsed()), (2, 3 * S));
}

/// Made outside of a loop: it begins at its first poll, wherever that is.
#[test]
fn test_shield_coroutine_without_loop() {
    assert_eq!(shield(ready(42)).now_or_never(), Some(42));
}

/// Inside of a run.
#[test]
fn test_shield_coroutine_use_running_loop() {
    assert_eq!(run(shield(async { Ok::<_, std::convert::Infallible>(42) })), Outcome::Ok(42));
}

/// Made before the run, used in it; `run(shield(main()))` simply works.
#[test]
fn test_shield_coroutine_use_global_loop() {
    let made_before = shield(ready(Ok::<_, std::convert::Infallible>(42)));
    assert_eq!(run_quietly(made_before).outcome, Outcome::Ok(42));
}

/// Waiting for a task shields nothing: the task is cancelled when it is, and the waiter is told.
#[testudo::test]
async fn test_yield_wait_does_not_shield_cancel() {
    let run = nursery(|n| async move {
        let inner = n.spawn(pending::<()>());
        turns().await;
        inner.cancel("inner");
        let scope = CancelScope::new();
        assert!(scope.run(inner).await.unwrap().is_cancelled());
    });
    run.await.unwrap();
}

/// A wait of no length for a shield that is not done: the caller goes on, and so does the work.
#[testudo::test(start_paused = true)]
async fn test_zero_timeout() {
    let done = Count::default();
    let inner = done.clone();
    let run = nursery(|_| async move {
        let work = shield(async move {
            sleep(S).await;
            inner.add();
        });
        assert!(timeout(Duration::ZERO, work).await.is_err());
    });
    run.await.unwrap();
    assert_eq!(done.get(), 1);
}

/// A wait without end gives the value.
#[testudo::test(start_paused = true)]
async fn test_none_timeout() {
    assert_eq!(CancelScope::new().run(shield(sleep(S).map(|()| 42))).await.unwrap(), 42);
}

/// A wait that is too short for a shield. Differs (S13): ours waits for it and gives its value; Tokio's `timeout` goes on at once.
#[testudo::test(start_paused = true)]
async fn test_shielded_timeout() {
    let began = Instant::now();
    let waited = fail_after(S, shield(sleep(3 * S).map(|()| 42))).await;
    assert_eq!((waited, began.elapsed()), (Ok(42), 3 * S));
    let began = Instant::now();
    assert!(timeout(S, shield(sleep(3 * S))).await.is_err());
    assert_eq!(began.elapsed(), S);
    assert!(testudo::drain(10 * S).now_or_never().is_none());
    sleep(3 * S).await;
    assert!(catch_cancelled(checkpoint()).await.is_ok());
}
