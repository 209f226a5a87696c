//! Ports of asyncio's `test_waitfor.py`. `wait_for` is `fail_after`: it cancels, and waits until the inside has ended.

use std::future::{pending, ready};
use std::time::Duration;

use futures_util::FutureExt;
use testudo::{CancelScope, FinalizeExt, catch_cancelled, fail_after, nursery, shield};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::read::note_cancel;
use crate::support::{Count, Log, S, turns};

/// Waits for work that cleans up for a while after its cancel.
async fn with_clean_up(length: Duration) -> (bool, Duration) {
    let began = Instant::now();
    let end = fail_after(length, sleep(10 * S).on_cancel(async { sleep(2 * S).await })).await;
    (end.is_err(), began.elapsed())
}

/// The wait ends after the clean-up.
#[testudo::test(start_paused = true)]
async fn test_wait_for_waits_for_task_cancellation() {
    assert_eq!(with_clean_up(S).await, (true, 3 * S));
}

/// Also with no length at all.
#[testudo::test(start_paused = true)]
async fn test_wait_for_waits_for_task_cancellation_w_timeout_0() {
    assert_eq!(with_clean_up(Duration::ZERO).await, (true, 2 * S));
}

/// An error in the clean-up comes out, in place of the end of the time.
#[testudo::test(start_paused = true)]
async fn test_wait_for_reraises_exception_during_cancellation() {
    let inner = async {
        drop(catch_cancelled(pending::<()>()).await);
        Err::<(), _>("FooException")
    };
    assert_eq!(fail_after(S, inner).await, Ok(Err("FooException")));
}

/// A wait that is cancelled: the inside is cancelled, and awaited.
#[testudo::test(start_paused = true)]
async fn test_cancel_blocking_wait_for() {
    let (log, began) = (Log::default(), Instant::now());
    let inner = note_cancel(log.clone(), "inside", pending::<()>()).on_cancel(async { sleep(2 * S).await });
    let outer = CancelScope::new().timeout(S).run(fail_after(10 * S, inner));
    assert!(outer.await.is_err());
    assert_eq!((log.seen(), began.elapsed()), (vec!["inside"], 3 * S));
}

/// The same where the inside is a task of its own. Differs (S21): a task that is only awaited goes on.
#[testudo::test(start_paused = true)]
async fn test_cancel_wait_for() {
    let log = Log::default();
    let (child, done) = (log.clone(), log.clone());
    let run = nursery(|n| async move {
        let task = n.spawn(async move {
            sleep(5 * S).await;
            child.push("the task has ended");
        });
        assert!(CancelScope::new().timeout(S).run(fail_after(10 * S, task)).await.is_err());
        done.push("the wait was cancelled");
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["the wait was cancelled", "the task has ended"]);
}

/// An inside that takes the cancel for an answer and returns: its value wins.
#[testudo::test(start_paused = true)]
async fn test_wait_for_cancel_suppressed() {
    let inner = catch_cancelled(pending::<()>()).map(|end| end.map_or(7, |()| 0));
    assert_eq!(fail_after(S, inner).await, Ok(7));
}

/// Cancelled in the very turn in which it is done: the value is not lost.
#[testudo::test(start_paused = true)]
async fn test_wait_for_issue86296() {
    let (send, receive) = oneshot::channel();
    let scope = CancelScope::new();
    let handle = scope.handle();
    let run = scope.run(fail_after(10 * S, receive));
    let (end, ()) = tokio::join!(run, async {
        turns().await;
        send.send(1).unwrap();
        handle.cancel("in the same turn");
    });
    assert_eq!(end.unwrap(), Ok(Ok(1)));
}

/// Done in the very instant in which the time is over: who could still send is heard.
#[testudo::test(start_paused = true)]
async fn test_wait_for_race_condition() {
    let (send, receive) = oneshot::channel();
    let wait = fail_after(S, receive);
    let (end, sent) = tokio::join!(wait, async {
        sleep(S).await;
        send.send(())
    });
    assert_eq!(end.is_ok(), sent.is_ok());
}

/// Cancelled by two sides in the same instant: one of them is the cause, and the wait ends once.
#[testudo::test(start_paused = true)]
async fn test_wait_for_cancellation_race_condition() {
    let ended = Count::default();
    let inner = ended.clone();
    let outer = CancelScope::new().timeout(S).run(fail_after(S, pending::<()>().on_cancel(async move { inner.add() })));
    drop(outer.await);
    assert_eq!(ended.get(), 1);
}

/// A length of zero, and something that is done.
#[testudo::test(start_paused = true)]
async fn test_wait_for_timeout_less_then_0_or_0_future_done() {
    assert_eq!(fail_after(Duration::ZERO, ready("done")).await, Ok("done"));
}

/// A length of zero. Differs (S7): the inside runs to its first suspension; asyncio does not begin it.
#[testudo::test(start_paused = true)]
async fn test_wait_for_timeout_less_then_0_or_0_coroutine_do_not_started() {
    let log = Log::default();
    let run = fail_after(Duration::ZERO, async {
        log.push("begun");
        sleep(S).await;
        log.push("too far");
    });
    assert!(run.await.is_err());
    assert_eq!(log.seen(), ["begun"]);
}

/// A length of zero, and something that is not done.
#[testudo::test(start_paused = true)]
async fn test_wait_for_timeout_less_then_0_or_0() {
    let began = Instant::now();
    assert!(fail_after(Duration::ZERO, sleep(S)).await.is_err());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// The time is over: the inside is cut off.
#[testudo::test(start_paused = true)]
async fn test_wait_for() {
    let log = Log::default();
    assert!(fail_after(S, note_cancel(log.clone(), "inside", pending::<()>())).await.is_err());
    assert_eq!(log.seen(), ["inside"]);
}

/// Without an end it waits for the value.
#[testudo::test(start_paused = true)]
async fn test_wait_for_blocking() {
    assert_eq!(CancelScope::new().run(sleep(100 * S).map(|()| "done")).await.unwrap(), "done");
}

/// A wait for several that is cancelled leaves the tasks alone: the handles are only dropped.
#[testudo::test(start_paused = true)]
async fn test_asyncio_wait_for_cancelled() {
    let done = Count::default();
    let inner = done.clone();
    let run = nursery(|n| async move {
        let counted = inner.clone();
        let task = n.spawn(async move {
            sleep(5 * S).await;
            counted.add();
        });
        let waiting = n.spawn(task.map(drop));
        sleep(S).await;
        assert!(waiting.cancel_and_wait("the wait").await.is_cancelled());
    });
    run.await.unwrap();
    assert_eq!(done.get(), 1);
}

/// A wait with an end that leaves the task alone.
#[testudo::test(start_paused = true)]
async fn test_asyncio_wait_for_timeout() {
    let run = nursery(|n| async move {
        let mut task = n.spawn(sleep(5 * S));
        assert!(fail_after(S, task.outcome()).await.is_err());
        assert!(!task.is_finished());
        assert!(shield(task).await.is_ok());
    });
    run.await.unwrap();
}
