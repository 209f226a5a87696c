//! Ports of asyncio's `test_timeouts.py`. `timeout` is `fail_after`, or a scope with a deadline.

use std::future::{pending, ready};
use std::time::Duration;

use futures_util::FutureExt;
use testudo::{CancelScope, CauseKind, FinalizeExt, catch_cancelled, checkpoint, fail_after, move_on_after, nursery};
use tokio::time::{Instant, advance, sleep};

use crate::read::{End, errors, note_cancel};
use crate::support::{Log, S, turns};

/// The time is over: an error, and nothing is cancelled after it.
#[testudo::test(start_paused = true)]
async fn test_timeout_basic() {
    let began = Instant::now();
    assert_eq!(fail_after(S, sleep(10 * S)).await.unwrap_err().timeout(), S);
    assert_eq!(began.elapsed(), S);
    checkpoint().await;
}

/// The same with a point in time.
#[testudo::test(start_paused = true)]
async fn test_timeout_at_basic() {
    let at = Instant::now() + S;
    let scope = CancelScope::new().deadline(at);
    let handle = scope.handle();
    assert!(scope.run(sleep(10 * S)).await.is_err());
    assert_eq!((Instant::now(), handle.deadline()), (at, Some(at)));
    assert!(handle.cancel_requested());
}

/// Two with the same end: only the outer one tells.
#[testudo::test(start_paused = true)]
async fn test_nested_timeouts() {
    let log = Log::default();
    let outer = fail_after(S, async {
        fail_after(S, sleep(10 * S)).await.ok();
        log.push("too far");
    });
    assert!(outer.await.is_err());
    assert!(log.seen().is_empty());
}

/// A foreign waiter inside is dropped when the time is over.
#[testudo::test(start_paused = true)]
async fn test_waiter_cancelled() {
    let (send, receive) = tokio::sync::oneshot::channel::<()>();
    assert!(fail_after(S, receive).await.is_err());
    assert!(send.is_closed());
}

/// Done in time: the scope was never cancelled.
#[testudo::test(start_paused = true)]
async fn test_timeout_not_called() {
    let scope = CancelScope::new().timeout(10 * S);
    let handle = scope.handle();
    scope.run(sleep(S)).await.unwrap();
    assert!(!handle.cancel_requested());
}

/// Without a length there is no end.
#[testudo::test(start_paused = true)]
async fn test_timeout_disabled() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    scope.run(sleep(1_000 * S)).await.unwrap();
    assert!(handle.deadline().is_none() && !handle.cancel_requested());
}

/// Without a point in time neither.
#[testudo::test(start_paused = true)]
async fn test_timeout_at_disabled() {
    let scope = CancelScope::new().deadline(Instant::now() + S);
    let handle = scope.handle();
    handle.set_deadline(None);
    scope.run(sleep(1_000 * S)).await.unwrap();
    assert!(!handle.cancel_requested());
}

/// A length of zero ends at the first suspension.
#[testudo::test(start_paused = true)]
async fn test_timeout_zero() {
    let began = Instant::now();
    assert!(fail_after(Duration::ZERO, sleep(10 * S)).await.is_err());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// Also at a mere yield.
#[testudo::test(start_paused = true)]
async fn test_timeout_zero_sleep_zero() {
    assert!(fail_after(Duration::ZERO, checkpoint()).await.is_err());
}

/// A point in the past ends at the first suspension, also at a mere yield.
#[testudo::test(start_paused = true)]
async fn test_timeout_in_the_past_sleep_zero() {
    assert!(CancelScope::new().deadline(Instant::now() - S).run(checkpoint()).await.is_err());
}

/// An error of the body passes.
#[testudo::test(start_paused = true)]
async fn test_foreign_exception_passed() {
    assert_eq!(fail_after(S, ready(Err::<(), _>("KeyError"))).await.unwrap(), Err("KeyError"));
}

/// The end of the time while the body handles an error. Differs (S4): `Elapsed` has no context; the body is gone with what it held.
#[testudo::test(start_paused = true)]
async fn test_timeout_exception_context() {
    let run = fail_after(S, async {
        let failed = Err::<(), _>("ValueError");
        sleep(10 * S).await;
        failed
    });
    assert_eq!(run.await.unwrap_err().to_string(), "not done within 1s");
}

/// An error that the body makes of the cancel passes. Ours catches it first.
#[testudo::test(start_paused = true)]
async fn test_foreign_exception_on_timeout() {
    let run = fail_after(S, async { catch_cancelled(sleep(10 * S)).await.map_err(|_| "ValueError") });
    assert_eq!(run.await.unwrap(), Err("ValueError"));
}

/// The same out of clean-up. Differs (S19): a finalizer has no value, so the end of the time stays what it is.
#[testudo::test(start_paused = true)]
async fn test_foreign_exception_on_timeout_2() {
    let run = fail_after(S, sleep(10 * S).finally(async {}));
    assert!(run.await.is_err());
}

/// A cancel from outside before the time is over is not taken for its end.
#[testudo::test(start_paused = true)]
async fn test_foreign_cancel_doesnt_timeout_if_not_expired() {
    let scope = CancelScope::new();
    scope.handle().cancel("foreign");
    let log = Log::default();
    let run = scope.run(async {
        fail_after(S, sleep(10 * S)).await.ok();
        log.push("too far");
    });
    assert_eq!(run.await.unwrap_err().cause().reason(), Some("foreign"));
    assert!(log.seen().is_empty());
}

/// The task around is not cancelled by the end of the time.
#[testudo::test(start_paused = true)]
async fn test_outer_task_is_not_cancelled() {
    let run = nursery(|n| async move {
        let outer = n.spawn(async {
            assert!(fail_after(S / 1_000, sleep(10 * S)).await.is_err());
            checkpoint().await;
        });
        assert!(outer.await.is_ok());
    });
    run.await.unwrap();
}

/// An inner one that ends in time, under an outer one that does not.
#[testudo::test(start_paused = true)]
async fn test_nested_timeouts_concurrent() {
    let log = Log::default();
    let outer = fail_after(2 * S, async {
        assert!(fail_after(S, sleep(10 * S)).await.is_err());
        log.push("inner");
        sleep(10 * S).await;
        log.push("too far");
    });
    assert!(outer.await.is_err());
    assert_eq!(log.seen(), ["inner"]);
}

/// Both pass while the thread is busy. Differs (S3): the outermost takes it at once; in asyncio the inner one tells first and the
/// outer one interrupts later.
#[testudo::test(start_paused = true)]
async fn test_nested_timeouts_loop_busy() {
    let log = Log::default();
    let outer = fail_after(2 * S, async {
        let inner = fail_after(S, async {
            let _ = advance(10 * S).now_or_never();
            sleep(S).await;
        });
        inner.await.ok();
        log.push("between");
        sleep(10 * S).await;
        log.push("too far");
    });
    assert!(outer.await.is_err());
    assert!(log.seen().is_empty());
}

/// It can be moved while it runs.
#[testudo::test(start_paused = true)]
async fn test_reschedule() {
    let (began, scope) = (Instant::now(), CancelScope::new().timeout(1_000 * S));
    let handle = scope.handle();
    let run = scope.run(async {
        assert_eq!(handle.deadline(), Some(began + 1_000 * S));
        handle.set_deadline(Some(began + S));
        pending::<()>().await;
    });
    assert!(run.await.is_err());
    assert_eq!(began.elapsed(), S);
    handle.set_deadline(Some(began + 9 * S)); // after the end: on nothing
    assert!(handle.cancel_requested());
}

async fn shown(scope: CancelScope) -> (String, String) {
    let handle = scope.handle();
    let shown = catch_cancelled(scope.run(async {
        let inside = format!("{handle:?}");
        sleep(2 * S).await;
        inside
    }))
    .await;
    (shown.map(|end| end.unwrap_or_default()).unwrap_or_default(), format!("{handle:?}"))
}

/// The text of one that runs.
#[testudo::test(start_paused = true)]
async fn test_repr_active() {
    assert!(shown(CancelScope::new().timeout(10 * S)).await.0.contains("active"));
}

/// The text of one whose time is over.
#[testudo::test(start_paused = true)]
async fn test_repr_expired() {
    assert!(shown(CancelScope::new().timeout(S)).await.1.contains("cancelled"));
}

/// The text of one that has ended.
#[testudo::test(start_paused = true)]
async fn test_repr_finished() {
    assert!(shown(CancelScope::new().timeout(10 * S)).await.1.contains("exited"));
}

/// The text of one without an end.
#[testudo::test(start_paused = true)]
async fn test_repr_disabled() {
    assert!(shown(CancelScope::new()).await.0.contains("active"));
}

/// A timeout in the clean-up of another one: it has its full time. Clean-up that awaits is shielded.
#[testudo::test(start_paused = true)]
async fn test_nested_timeout_in_finally() {
    let (log, began) = (Log::default(), Instant::now());
    let inner = log.clone();
    let run = fail_after(
        S,
        sleep(10 * S).finally(async move {
            assert!(fail_after(2 * S, sleep(10 * S)).await.is_err());
            inner.push("clean-up had its time");
        }),
    );
    assert!(run.await.is_err());
    assert_eq!((log.seen(), began.elapsed()), (vec!["clean-up had its time"], 3 * S));
}

/// A timeout after a cancel that was caught, in code that a shield covers.
#[testudo::test(start_paused = true)]
async fn test_timeout_after_cancellation() {
    let scope = CancelScope::new();
    scope.handle().cancel("now");
    let run = scope.run(async {
        assert!(catch_cancelled(sleep(S)).await.is_err());
        let timed = testudo::shield(fail_after(S, sleep(10 * S))).await;
        assert!(timed.is_err());
    });
    run.await.unwrap();
}

/// A cancel in such a timeout. Differs (S7): it is level-triggered, so without the shield the timeout does not even begin to wait.
#[testudo::test(start_paused = true)]
async fn test_cancel_in_timeout_after_cancellation() {
    let (scope, log, began) = (CancelScope::new(), Log::default(), Instant::now());
    scope.handle().cancel("now");
    let run = scope.run(async {
        assert!(catch_cancelled(sleep(S)).await.is_err());
        fail_after(S, sleep(10 * S)).await.ok();
        log.push("too far");
    });
    assert!(run.await.is_err());
    assert!(log.seen().is_empty() && began.elapsed() == Duration::ZERO);
}

/// One that is over cannot be moved back.
#[testudo::test(start_paused = true)]
async fn test_timeout_expired() {
    let scope = CancelScope::new().timeout(S);
    let handle = scope.handle();
    assert!(scope.run(pending::<()>()).await.is_err());
    handle.set_deadline(None);
    assert_eq!(handle.cause().unwrap().kind(), CauseKind::Deadline);
}

/// Nor one that is about to end.
#[testudo::test(start_paused = true)]
async fn test_timeout_expiring() {
    let scope = CancelScope::new().timeout(S);
    let handle = scope.handle();
    let run = scope.run(async {
        testudo::cancelled().await;
        handle.set_deadline(Some(Instant::now() + 10 * S));
        assert!(testudo::is_cancelled());
        checkpoint().await;
    });
    assert!(run.await.is_err());
}

/// One that has ended: moving it does nothing.
#[testudo::test(start_paused = true)]
async fn test_timeout_finished() {
    let scope = CancelScope::new().timeout(S);
    let handle = scope.handle();
    scope.run(async {}).await.unwrap();
    handle.set_deadline(Some(Instant::now() - S));
    turns().await;
    checkpoint().await;
}

/// One that is not entered can be moved. Differs (S1): a handle works before the run.
#[testudo::test(start_paused = true)]
async fn test_timeout_not_entered() {
    let (began, scope) = (Instant::now(), CancelScope::new().deadline(Instant::now() + 10 * S));
    scope.handle().set_deadline(Some(began + S));
    assert!(scope.run(pending::<()>()).await.is_err());
    assert_eq!(began.elapsed(), S);
}

/// Outside of a task. Differs (S33): it works on any Tokio runtime.
#[test]
fn test_timeout_without_task() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    assert_eq!(runtime.block_on(move_on_after(S, pending::<()>())), None);
}

/// A group in a timeout, with errors in the clean-up of both. Differs (S20, L31): the timeout wins; the errors are reported.
#[test]
fn test_timeout_taskgroup() {
    let (finished, said) = crate::read::run_heard(async {
        tokio::time::pause();
        let log = Log::default();
        let noted = log.clone();
        let run = fail_after(
            S,
            nursery(|n| async move {
                n.spawn(note_cancel(noted, "sibling", pending::<()>()));
                n.task().name("child").spawn(async {
                    drop(catch_cancelled(pending::<()>()).await);
                    Err::<(), _>("ZeroDivisionError")
                });
                Ok(())
            }),
        );
        let end: Result<End, _> = run.await;
        assert!(end.is_err());
        assert_eq!(log.seen(), ["sibling"]);
        let inside = nursery(|n| async move {
            n.spawn(async { fail_after(S, pending::<()>()).await.map_err(|_| "elapsed") });
            Ok(())
        });
        assert_eq!(errors(inside.await), ["elapsed"]);
    });
    finished.outcome.unwrap();
    assert_eq!(said, ["failed child: ZeroDivisionError"]);
}
