//! Ports of trio's `_core/_tests/test_mock_clock.py`, on Tokio's paused clock.

use std::future::pending;
use std::time::Duration;

use testudo::{CancelScope, checkpoint, move_on_after, nursery};
use tokio::time::{Instant, advance, sleep, sleep_until};

use crate::support::{Log, S};

/// The clock stands until it is moved, and deadlines follow it. Differs (S2): Tokio's has no rate.
#[testudo::test(start_paused = true)]
async fn test_mock_clock() {
    let began = Instant::now();
    let scope = CancelScope::new().deadline(began + 2 * S);
    let handle = scope.handle();
    checkpoint().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    advance(S).await;
    assert!(!handle.cancel_requested());
    advance(S).await;
    assert!(handle.cancel_requested() && began.elapsed() == 2 * S);
    drop(scope);
}

/// It jumps to the next deadline of ours when everything waits, and to that one only.
#[testudo::test(start_paused = true)]
async fn test_mock_clock_autojump() {
    let began = Instant::now();
    for seconds in 1..5 {
        assert_eq!(move_on_after(seconds * S, pending::<()>()).await, None);
    }
    assert_eq!(began.elapsed(), 10 * S);
    assert_eq!(move_on_after(10_000 * S, checkpoint()).await, Some(()));
    assert_eq!(began.elapsed(), 10 * S);
}

/// Somebody else who waits, too, does not hold the jump up.
#[testudo::test(start_paused = true)]
async fn test_mock_clock_autojump_interference() {
    let began = Instant::now();
    let run = nursery(|n| async move {
        n.task().daemon().spawn(pending::<()>());
        n.spawn(sleep_until(began + 3 * S));
        assert!(CancelScope::new().deadline(began + 2 * S).run(pending::<()>()).await.is_err());
        assert_eq!(began.elapsed(), 2 * S);
    });
    run.await.unwrap();
    assert_eq!(began.elapsed(), 3 * S);
}

/// A clock that is paused before the run begins is so inside.
#[test]
fn test_mock_clock_autojump_preset() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let real = std::time::Instant::now();
    assert_eq!(runtime.block_on(move_on_after(3600 * S, pending::<()>())), None);
    assert!(real.elapsed() < 60 * S);
}

/// Everything that can run has run before time goes on.
#[testudo::test(start_paused = true)]
async fn test_mock_clock_autojump_0_and_wait_all_tasks_blocked_0() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let busy = inner.clone();
        n.spawn(async move {
            for _ in 0..10 {
                checkpoint().await;
            }
            busy.push("all are blocked");
        });
        assert_eq!(move_on_after(S, pending::<()>()).await, None);
        inner.push("time goes on");
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["all are blocked", "time goes on"]);
}

/// Who waits a little longer than "all are blocked" comes after them, and before what is due later.
#[testudo::test(start_paused = true)]
async fn test_mock_clock_autojump_0_and_wait_all_tasks_blocked_nonzero() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        for (at, what) in [(10, "sleeper"), (5, "cushion")] {
            let log = inner.clone();
            n.spawn(async move {
                sleep(at * S).await;
                log.push(what);
            });
        }
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["cushion", "sleeper"]);
}

/// Making what has a deadline changes nothing in the runtime; it needs none.
#[test]
fn test_initialization_doesnt_mutate_runner() {
    let scope = CancelScope::new().timeout(S);
    assert!(!scope.handle().cancel_requested());
    drop((move_on_after(S, pending::<()>()), scope));
}
