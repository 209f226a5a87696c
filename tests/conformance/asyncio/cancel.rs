//! Ports of asyncio's tests of `Task.cancel` (`test_tasks.py`). A request is never taken back, and code is cut off where it waits.

use std::convert::Infallible;
use std::future::{pending, ready};

use futures_util::FutureExt;
use testudo::{CancelScope, FinalizeExt, Outcome, TaskRef, catch_cancelled, checkpoint, current_task, nursery, shield};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::read::{End, errors, note_cancel, run_quietly};
use crate::support::{Count, Log, OnDrop, S, blow_up, turns};

/// Each request says that it was still possible. Differs (S1): they are not counted; the first wins, later ones are kept as causes.
#[testudo::test]
async fn test_cancelling() {
    let run = nursery(|n| async move {
        let task = n.spawn(pending::<()>());
        assert!(task.cancel("one") && task.cancel("two"));
        let Outcome::Cancelled(cause) = task.await else { panic!("it went on") };
        assert_eq!(cause.reason(), Some("one"));
    });
    run.await.unwrap();
}

/// Taking a cancel back. Differs (S5): there is no `uncancel`; a shield that is raised takes it from what is not cut off yet.
#[testudo::test]
async fn test_uncancel_basic() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let (outer_handle, inner_handle) = (outer.handle(), inner.handle());
    let run = outer.run(inner.run(async {
        outer_handle.cancel("now");
        assert!(testudo::is_cancelled());
        inner_handle.set_shielded(true);
        assert!(!testudo::is_cancelled());
        checkpoint().await;
        7
    }));
    assert_eq!(run.await.unwrap().unwrap(), 7);
}

/// Two structured blocks, a cancel from outside in the middle: each block takes its own and leaves the other's.
#[testudo::test(start_paused = true)]
async fn test_uncancel_structured_blocks() {
    let (log, began) = (Log::default(), Instant::now());
    let inner = log.clone();
    let run = nursery(|n| async move {
        let task = n.spawn(async move {
            for _ in 0..2 {
                let own = CancelScope::new().timeout(S).run(sleep(10 * S)).await;
                assert!(own.is_err());
                inner.push("timed out");
            }
            drop(CancelScope::new().timeout(10 * S).run(pending::<()>()).await);
            inner.push("too far");
        });
        sleep(5 * S).await;
        assert!(task.cancel_and_wait("outside").await.is_cancelled());
    });
    run.await.unwrap();
    assert_eq!((log.seen(), began.elapsed()), (vec!["timed out", "timed out"], 5 * S));
}

/// A cancel that was not delivered yet is withdrawn. Differs (S5): by a shield only, and only one from outside of it.
#[testudo::test]
async fn test_uncancel_resets_must_cancel() {
    let inner = CancelScope::new();
    let (handle, log) = (inner.handle(), Log::default());
    let noted = log.clone();
    let run = nursery(|n| async move {
        n.spawn(
            inner
                .run(async move {
                    turns().await;
                    noted.push("went on");
                })
                .map(drop),
        );
        checkpoint().await;
        n.cancel("before it is seen");
        handle.set_shielded(true);
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["went on"]);
}

/// A task that waits is cancelled, and says so.
#[testudo::test]
async fn test_cancel() {
    let run = nursery(|n| async move {
        let task = n.spawn(sleep(10 * S));
        turns().await;
        assert!(task.cancel("now"));
        assert!(task.cancel_and_wait("again").await.is_cancelled());
    });
    run.await.unwrap();
}

/// The reason arrives, with the task that gave it.
#[testudo::test]
async fn test_cancel_with_message_then_future_result() {
    let run = nursery(|n| async move {
        let task = n.spawn(pending::<()>());
        task.cancel("my message");
        let Outcome::Cancelled(cause) = task.await else { panic!("it went on") };
        assert_eq!(
            (cause.reason(), cause.task()),
            (Some("my message"), Some("test_cancel_with_message_then_future_result"))
        );
    });
    run.await.unwrap();
}

/// The same seen from the inside.
#[testudo::test]
async fn test_cancel_with_message_then_future_exception() {
    let run = nursery(|n| async move {
        let task = n.spawn(async { Ok::<_, Infallible>(catch_cancelled(pending::<()>()).await.unwrap_err()) });
        turns().await;
        task.cancel("my message");
        assert_eq!(task.await.unwrap().cause().reason(), Some("my message"));
        Ok(())
    });
    run.await.unwrap();
}

/// What the cause says through two levels of tasks.
#[testudo::test]
async fn test_cancellation_exception_context() {
    let run = nursery(|n| async move {
        let task = n.spawn(
            nursery(|n| async move {
                n.spawn(async {
                    let cause = testudo::cancelled().await;
                    assert_eq!(cause.reason(), Some("from the top"));
                });
                pending::<()>().await;
            })
            .map(drop),
        );
        turns().await;
        assert!(task.cancel_and_wait("from the top").await.is_cancelled());
    });
    run.await.unwrap();
}

/// Cancelled before it has begun. Differs (S7): it runs to its first suspension; asyncio's body never runs.
#[testudo::test]
async fn test_cancel_with_message_before_starting_task() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let task = n.spawn(async move {
            inner.push("begun");
            checkpoint().await;
            inner.push("too far");
        });
        task.cancel("my message");
        assert!(task.await.is_cancelled());
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["begun"]);
}

/// At a mere yield, too.
#[testudo::test]
async fn test_cancel_yield() {
    let run = nursery(|n| async move {
        let task = n.spawn(async {
            checkpoint().await;
            checkpoint().await;
            pending::<()>().await;
        });
        checkpoint().await;
        task.cancel("now");
        assert!(task.await.is_cancelled());
    });
    run.await.unwrap();
}

/// What the task waits for ends by itself being cancelled: the task is told and may go on.
#[testudo::test]
async fn test_cancel_inner_future() {
    let run = nursery(|n| async move {
        let (send, receive) = oneshot::channel::<()>();
        let task = n.spawn(async {
            assert!(receive.await.is_err());
            Ok::<_, Infallible>(42)
        });
        turns().await;
        drop(send);
        assert_eq!(task.await, Outcome::Ok(42));
        Ok(())
    });
    run.await.unwrap();
}

/// Both at once: what came is delivered to the code, which ends at its next suspension.
#[testudo::test]
async fn test_cancel_both_task_and_inner_future() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let (send, receive) = oneshot::channel::<()>();
        let task = n.spawn(async move {
            assert!(receive.await.is_err());
            inner.push("delivered");
            checkpoint().await;
            inner.push("too far");
        });
        turns().await;
        drop(send);
        task.cancel("both");
        assert!(task.await.is_cancelled());
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["delivered"]);
}

/// A task that catches its cancel and returns has a value.
#[testudo::test]
async fn test_cancel_task_catching() {
    let run = nursery(|n| async move {
        let task = n.spawn(async { Ok::<_, Infallible>(catch_cancelled(pending::<()>()).await.map_or(42, |()| 0)) });
        turns().await;
        task.cancel("caught");
        assert_eq!(task.await, Outcome::Ok(42));
        Ok(())
    });
    run.await.unwrap();
}

/// A task that ignores its cancel. Differs (S7): the next suspension is the end, unless it is shielded.
#[testudo::test]
async fn test_cancel_task_ignoring() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let task = n.spawn(async move {
            assert!(catch_cancelled(pending::<()>()).await.is_err());
            shield(turns()).await;
            inner.push("under a shield");
            turns().await;
            inner.push("too far");
        });
        turns().await;
        assert!(task.cancel_and_wait("ignored").await.is_cancelled());
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["under a shield"]);
}

/// A task cancels itself.
#[testudo::test]
async fn test_cancel_current_task() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let task = n.spawn(async move {
            assert!(current_task().unwrap().cancel("myself"));
            inner.push("runs on to its next suspension");
            checkpoint().await;
            inner.push("too far");
        });
        assert!(task.await.is_cancelled());
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["runs on to its next suspension"]);
}

/// A task that cancels itself and then returns, with nothing left to await. Differs (S3): it was not cut off, so it has its value.
#[testudo::test]
async fn test_cancel_at_end() {
    let run = nursery(|n| async move {
        let task = n.spawn(async {
            assert!(current_task().unwrap().cancel("myself"));
            Ok::<_, Infallible>(42)
        });
        assert_eq!(task.await, Outcome::Ok(42));
        Ok(())
    });
    run.await.unwrap();
}

/// Who waits for a task is cancelled. Differs (S21): the task goes on; asyncio forwards the cancel into it.
#[testudo::test(start_paused = true)]
async fn test_cancel_awaited_task() {
    let run = nursery(|n| async move {
        let mut awaited = n.spawn(async {
            sleep(5 * S).await;
            Ok::<_, Infallible>(42)
        });
        assert!(CancelScope::new().timeout(S).run(awaited.outcome()).await.is_err());
        assert_eq!(awaited.await, Outcome::Ok(42));
        Ok(())
    });
    run.await.unwrap();
}

/// A panic while a cancel is handled wins, and comes out of the nursery.
#[testudo::test]
async fn test_baseexception_during_cancel() {
    let run = nursery(|n| async move {
        let task = n.spawn(async {
            drop(catch_cancelled(pending::<()>()).await);
            blow_up("SystemExit");
        });
        turns().await;
        task.cancel("now");
    });
    let payload = std::panic::AssertUnwindSafe(run).catch_unwind().await.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"SystemExit"));
}

/// A cancel passes through what the code waits for: the inside is dropped first, then the outside.
#[testudo::test]
async fn test_yield_future_passes_cancel() {
    let log = Log::default();
    let (inside, outside) = (log.clone(), log.clone());
    let inner = pending::<()>().on_cancel(async move { inside.push("inside") });
    let run = nursery(|n| async move {
        let task = n.spawn(inner.on_cancel(async move { outside.push("outside") }));
        turns().await;
        assert!(task.cancel_and_wait("now").await.is_cancelled());
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["inside", "outside"]);
}

/// A cancel of what waits for several drops all of them.
async fn cancel_gather(children: usize) -> usize {
    let dropped = Count::default();
    let inner = dropped.clone();
    let run = nursery(|n| async move {
        let task = n.spawn(async move {
            let waits = (0..children).map(|_| {
                let local = OnDrop(inner.clone());
                async move {
                    let _local = local;
                    pending::<()>().await;
                }
            });
            futures_util::future::join_all(waits).await;
        });
        turns().await;
        assert!(task.cancel_and_wait("now").await.is_cancelled());
    });
    run.await.unwrap();
    dropped.get()
}

/// A gather of one that is cancelled.
#[testudo::test]
async fn test_cancel_gather_1() {
    assert_eq!(cancel_gather(1).await, 1);
}

/// A gather of several that is cancelled.
#[testudo::test]
async fn test_cancel_gather_2() {
    assert_eq!(cancel_gather(3).await, 3);
}

/// A task that sleeps.
#[testudo::test(start_paused = true)]
async fn test_task_cancel_sleeping_task() {
    let began = Instant::now();
    let run = nursery(|n| async move {
        let task = n.spawn(sleep(5_000 * S));
        sleep(S).await;
        assert!(task.cancel_and_wait("now").await.is_cancelled());
    });
    run.await.unwrap();
    assert_eq!(began.elapsed(), S);
}

/// A task that waits for a foreign future: that is dropped.
#[testudo::test]
async fn test_task_cancel_waiter_future() {
    let run = nursery(|n| async move {
        let (send, receive) = oneshot::channel::<()>();
        let task = n.spawn(receive.map(drop));
        turns().await;
        assert!(task.cancel_and_wait("now").await.is_cancelled());
        assert!(send.is_closed());
    });
    run.await.unwrap();
}

/// A sleep that is cancelled leaves no timer behind that would hold the clock.
#[testudo::test(start_paused = true)]
async fn test_sleep_cancel() {
    let began = Instant::now();
    let scope = CancelScope::new();
    scope.handle().cancel("now");
    assert!(scope.run(sleep(10 * S)).await.is_err());
    sleep(S).await;
    assert_eq!(began.elapsed(), S);
}

/// Of several children one is cancelled: the others have their values.
async fn one_cancelled(failing: bool) -> (usize, usize) {
    let run = nursery(|n| async move {
        let mut tasks: Vec<_> = (0..4)
            .map(|at| {
                n.spawn(async move {
                    turns().await;
                    Ok::<_, &str>(at)
                })
            })
            .collect();
        tasks.push(n.spawn(pending::<Result<usize, &str>>()));
        if failing {
            tasks.push(n.spawn(ready(Err("error"))));
        }
        tasks[4].cancel("alone");
        let ends = futures_util::future::join_all(tasks).await;
        let values = ends.iter().filter(|end| end.is_ok()).count();
        Ok((values, ends.iter().filter(|end| end.is_cancelled()).count()))
    });
    run.policy(testudo::Policy::Supervise).await.unwrap()
}

/// A gather in which one is cancelled.
#[testudo::test]
async fn test_one_cancellation() {
    assert_eq!(one_cancelled(false).await, (4, 1));
}

/// A gather with values, an error and a cancel.
#[testudo::test]
async fn test_result_exception_one_cancellation() {
    assert_eq!(one_cancelled(true).await, (4, 1));
}

/// A cancel of the outside goes to all children.
#[testudo::test]
async fn test_cancellation_broadcast() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        for _ in 0..2 {
            n.spawn(note_cancel(inner.clone(), "child", pending::<()>()));
        }
        turns().await;
        n.cancel("all");
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["child", "child"]);
}

/// An error out of a task that was cancelled is an error.
#[testudo::test]
async fn test_cancel_traceback_for_future_exception() {
    let run = nursery(|n| async move {
        let task = n.spawn(async {
            drop(catch_cancelled(pending::<()>()).await);
            Err::<(), _>("ValueError")
        });
        turns().await;
        task.cancel("now");
        drop(task.await);
        Ok(())
    });
    let end: End = run.await;
    assert_eq!(errors(end), ["ValueError"]);
}

/// The cancel of a task shows where it came from: the cause names the task that asked. Differs (S22): there are no tracebacks.
#[test]
fn test_cancel_traceback_for_future_result() {
    let mut kept: Option<TaskRef> = None;
    let finished = run_quietly(async {
        kept = current_task();
        testudo::spawn(async { assert!(testudo::cancel("main", "by a task").unwrap()) });
        pending::<()>().await;
    });
    let Outcome::Cancelled(cause) = finished.outcome else { panic!("main went on") };
    assert!(cause.task().unwrap().starts_with("Task-") && kept.unwrap().is_finished());
}
