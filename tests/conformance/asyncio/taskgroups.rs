//! Ports of asyncio's `test_taskgroups.py`. A task group is a nursery.

use std::convert::Infallible;
use std::future::{Future, pending, ready};

use futures_util::FutureExt;
use testudo::{CancelScope, FinalizeExt, Nursery, NurseryError, Outcome, catch_cancelled, checkpoint, nursery, shield};
use tokio::time::{Instant, sleep};

use crate::read::{End, errors, first_text, note_cancel, panic_of};
use crate::support::{Count, Log, OnDrop, S, blow_up, turns};

type Num = Result<u32, &'static str>;

async fn later(seconds: u32, value: u32) -> Num {
    sleep(seconds * S).await;
    Ok(value)
}

/// Clean-up that fails with another error after the cancel.
async fn fails_in_clean_up(error: &'static str) -> Result<(), &'static str> {
    drop(catch_cancelled(pending::<()>()).await);
    Err(error)
}

/// Results of children that end after the body.
#[testudo::test(start_paused = true)]
async fn test_taskgroup_01() {
    let run = nursery(|n| async move { Ok((n.spawn(later(1, 42)), n.spawn(later(2, 11)))) });
    let (one, two) = run.await.unwrap();
    assert!(one.is_finished() && two.is_finished());
    assert_eq!((one.await.unwrap(), two.await.unwrap()), (42, 11));
}

/// The same where one of them ends in the body.
#[testudo::test(start_paused = true)]
async fn test_taskgroup_02() {
    let run = nursery(|n| async move {
        let one = n.spawn(later(1, 42));
        sleep(2 * S).await;
        assert!(one.is_finished());
        Ok((one, n.spawn(later(2, 11))))
    });
    let (one, two) = run.await.unwrap();
    assert_eq!((one.await.unwrap(), two.await.unwrap()), (42, 11));
}

/// A child that is cancelled alone does not disturb.
#[testudo::test(start_paused = true)]
async fn test_taskgroup_03() {
    let run = nursery(|n| async move {
        let (one, two) = (n.spawn(later(10, 42)), n.spawn(later(2, 11)));
        one.cancel("alone");
        Ok((one, two))
    });
    let (one, two) = run.await.unwrap();
    assert!(one.await.is_cancelled());
    assert_eq!(two.await.unwrap(), 11);
}

/// An error cancels a sibling and the body.
#[testudo::test]
async fn test_taskgroup_04() {
    let log = Log::default();
    let (one, body) =
        (note_cancel(log.clone(), "sibling", pending::<()>()), note_cancel(log.clone(), "body", pending::<()>()));
    let run = nursery(|n| async move {
        n.spawn(one);
        n.spawn(ready(Err::<(), _>("ZeroDivisionError")));
        body.await;
        Ok(())
    });
    assert_eq!(errors(run.await), ["ZeroDivisionError"]);
    let mut seen = log.seen();
    seen.sort_unstable();
    assert_eq!(seen, ["body", "sibling"]);
}

/// The same when the body has ended; what the children do in their clean-up is awaited.
#[testudo::test(start_paused = true)]
async fn test_cancel_children_on_child_error() {
    let cleaned = Count::default();
    let counted = cleaned.clone();
    let began = Instant::now();
    let run = nursery(|n| async move {
        n.spawn(async {
            sleep(S).await;
            Err::<(), _>("ZeroDivisionError")
        });
        for _ in 0..5 {
            let cleaned = counted.clone();
            n.spawn(pending::<()>().finally(async move {
                sleep(S).await;
                cleaned.add();
            }));
        }
        Ok(())
    });
    assert_eq!(errors(run.await), ["ZeroDivisionError"]);
    assert_eq!((cleaned.get(), began.elapsed()), (5, 2 * S));
}

/// A cancel from outside reaches the child, once.
#[testudo::test]
async fn test_cancellation() {
    let log = Log::default();
    let child = note_cancel(log.clone(), "child", pending::<()>());
    let scope = CancelScope::new();
    let handle = scope.handle();
    let run = scope.run(nursery(|n| async move {
        n.spawn(child);
    }));
    let (end, ()) = tokio::join!(run, async {
        turns().await;
        assert!(handle.cancel("one") && !handle.cancel("two"));
    });
    assert!(end.is_err());
    assert_eq!(log.seen(), ["child"]);
}

/// The same while the body runs: both are cancelled.
#[testudo::test]
async fn test_taskgroup_07() {
    let log = Log::default();
    let (child, body) =
        (note_cancel(log.clone(), "both", pending::<()>()), note_cancel(log.clone(), "both", pending::<()>()));
    let scope = CancelScope::new();
    let handle = scope.handle();
    let run = scope.run(nursery(|n| async move {
        n.spawn(child);
        body.await;
    }));
    let (end, ()) = tokio::join!(run, async {
        turns().await;
        handle.cancel("outer");
    });
    assert!(end.is_err());
    assert_eq!(log.seen(), ["both", "both"]);
}

/// A group that is cancelled from outside while it waits for a child, whose clean-up fails.
async fn failing_clean_up(group: impl Future<Output = End>) -> Vec<&'static str> {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let (end, ()) = tokio::join!(scope.run(group), async {
        turns().await;
        handle.cancel("outer");
    });
    errors(end.unwrap())
}

fn group_that_fails_in_clean_up() -> impl Future<Output = End> + Send + 'static {
    nursery(|n| async move {
        n.spawn(fails_in_clean_up("ZeroDivisionError"));
        Ok(())
    })
}

/// An error in clean-up wins over the cancel from outside: nothing was cut off, so the group comes out.
#[testudo::test]
async fn test_taskgroup_08() {
    assert_eq!(failing_clean_up(group_that_fails_in_clean_up()).await, ["ZeroDivisionError"]);
}

/// An error of the body cancels the children.
#[testudo::test]
async fn test_taskgroup_09() {
    let log = Log::default();
    let child = note_cancel(log.clone(), "child", pending::<()>());
    let run = nursery(|n| async move {
        n.spawn(child);
        checkpoint().await;
        Err::<(), _>("MyExc")
    });
    assert_eq!(errors(run.await), ["MyExc"]);
    assert_eq!(log.seen(), ["child"]);
}

/// The same where the body fails before the child has begun: it still runs to its first suspension.
#[testudo::test]
async fn test_taskgroup_10() {
    let log = Log::default();
    let (begun, child) = (log.clone(), note_cancel(log.clone(), "cancelled", pending::<()>()));
    let run = nursery(|n| async move {
        n.spawn(async move {
            begun.push("begun");
            child.await;
        });
        Err::<(), _>("MyExc")
    });
    assert_eq!(errors(run.await), ["MyExc"]);
    assert_eq!(log.seen(), ["begun", "cancelled"]);
}

/// The same in a nested group.
#[testudo::test]
async fn test_taskgroup_11() {
    let outer = nursery(|n| async move {
        n.spawn(async { group_that_fails_in_clean_up().await.map_err(|group| errors(Err::<(), _>(group))[0]) });
        Ok(())
    });
    assert_eq!(failing_clean_up(outer).await, ["ZeroDivisionError"]);
}

/// Nested, with an error inside and one in the clean-up outside: both are in the groups, no cancel is.
#[testudo::test]
async fn test_taskgroup_12() {
    let run = nursery(|outer| async move {
        outer.spawn(fails_in_clean_up("outer clean-up"));
        let inner: End = nursery(|n| async move {
            n.spawn(fails_in_clean_up("inner clean-up"));
            checkpoint().await;
            Err("inner")
        })
        .await;
        assert_eq!(errors(inner), ["inner", "inner clean-up"]);
        Err::<(), _>("outer")
    });
    assert_eq!(errors(run.await), ["outer", "outer clean-up"]);
}

/// An error of the outer group cancels the inner one, whose clean-up fails: both come out, the inner one as a group.
#[testudo::test]
async fn test_taskgroup_13() {
    let run = nursery(|outer| async move {
        outer.spawn(async {
            turns().await;
            Err::<(), _>("outer")
        });
        let inner: End = nursery(|n| async move {
            n.spawn(fails_in_clean_up("inner"));
            Ok(())
        })
        .await;
        assert_eq!(errors(inner), ["inner"]);
        Err::<(), _>("the inner group")
    });
    assert_eq!(errors(run.await), ["outer", "the inner group"]);
}

/// An error of the inner group comes out of it, and then of the outer one.
#[testudo::test]
async fn test_taskgroup_14() {
    let run = nursery(|_| async move {
        let inner: End = nursery(|n| async move {
            n.spawn(ready(Err::<(), _>("inner")));
            Ok(())
        })
        .await;
        inner.map_err(
            |group| if first_text(Err::<(), _>(group)).ends_with("inner") { "a group with inner" } else { "other" },
        )
    });
    assert_eq!(errors(run.await), ["a group with inner"]);
}

/// An error that comes while the group waits, after a cancel from outside.
async fn late_error(seen_by_body: bool) -> Vec<&'static str> {
    let scope = CancelScope::new();
    scope.handle().cancel("outer");
    let group = scope.run(nursery(|n| async move {
        n.spawn(async {
            shield(turns()).await;
            Err::<(), _>("late")
        });
        if seen_by_body {
            assert!(catch_cancelled(pending::<()>()).await.is_err());
        }
        Ok(())
    }));
    errors(group.await.unwrap())
}

/// An error during the wait after a cancel from outside gives the group, since nothing was cut off.
#[testudo::test]
async fn test_taskgroup_15() {
    assert_eq!(late_error(false).await, ["late"]);
}

/// The same where the body was told of the cancel and went on.
#[testudo::test]
async fn test_taskgroup_16() {
    assert_eq!(late_error(true).await, ["late"]);
}

/// The body is cancelled from outside.
#[testudo::test]
async fn test_taskgroup_17() {
    let log = Log::default();
    let body = note_cancel(log.clone(), "body", pending::<()>());
    let end = CancelScope::new().timeout(std::time::Duration::ZERO).run(nursery(|_| body)).await;
    assert!(end.is_err());
    assert_eq!(log.seen(), ["body"]);
}

/// The body is cancelled and turns that into an error.
#[testudo::test]
async fn test_taskgroup_18() {
    let scope = CancelScope::new();
    scope.handle().cancel("outer");
    let end = scope.run(nursery(|_| fails_in_clean_up("MyExc"))).await;
    assert_eq!(errors(end.unwrap()), ["MyExc"]);
}

/// The clean-up of the body fails after a child did.
#[testudo::test]
async fn test_taskgroup_19() {
    let run = nursery(|n| async move {
        n.spawn(ready(Err::<(), _>("child")));
        fails_in_clean_up("body").await
    });
    assert_eq!(errors(run.await), ["body", "child"]);
}

/// A child fails, the body panics: Python's `KeyboardInterrupt` comes out bare, and so does a panic of ours.
#[testudo::test]
async fn test_taskgroup_20() {
    let run: futures_util::future::BoxFuture<'_, End> = nursery(|n| async move {
        n.spawn(ready(Err::<(), _>("child")));
        drop(catch_cancelled(pending::<()>()).await);
        blow_up("interrupt");
        Ok(())
    })
    .boxed();
    let payload = std::panic::AssertUnwindSafe(run).catch_unwind().await.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"interrupt"));
}

/// A base exception and an error in one group: ours are values of one kind.
#[testudo::test]
async fn test_taskgroup_20a() {
    let run = nursery(|n| async move {
        n.spawn(fails_in_clean_up("MyBaseExc"));
        checkpoint().await;
        Err::<(), _>("ZeroDivisionError")
    });
    assert_eq!(errors(run.await), ["MyBaseExc", "ZeroDivisionError"]);
}

/// The child panics, the body fails in its clean-up: the panic goes on.
#[testudo::test]
async fn test_taskgroup_21a() {
    let run: futures_util::future::BoxFuture<'_, End> = nursery(|n| async move {
        n.spawn(async { blow_up("interrupt") });
        fails_in_clean_up("body").await
    })
    .boxed();
    let payload = std::panic::AssertUnwindSafe(run).catch_unwind().await.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"interrupt"));
}

/// A cancel of the task that holds the group.
#[testudo::test]
async fn test_taskgroup_22() {
    let log = Log::default();
    let (body, child) =
        (note_cancel(log.clone(), "both", pending::<()>()), note_cancel(log.clone(), "both", pending::<()>()));
    let run = nursery(|n| async move {
        let task = n.spawn(
            nursery(|n| async move {
                n.spawn(child);
                body.await;
            })
            .map(drop),
        );
        turns().await;
        assert!(task.cancel_and_wait("the task").await.is_cancelled());
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["both", "both"]);
}

/// Children that have ended are not kept.
#[testudo::test]
async fn test_taskgroup_23() {
    let dropped = Count::default();
    let inner = dropped.clone();
    let run = nursery(|n| async move {
        for _ in 0..10 {
            let local = OnDrop(inner.clone());
            n.spawn(async move { drop(local) });
        }
        assert_eq!(n.len(), 10);
        turns().await;
        assert_eq!((n.len(), inner.get()), (0, 10));
    });
    run.await.unwrap();
}

/// A child spawns a child.
#[testudo::test]
async fn test_taskgroup_24() {
    let done = Count::default();
    let inner = done.clone();
    let run = nursery(|n| async move {
        let own = n.clone();
        n.spawn(async move {
            own.spawn(async move { inner.add() });
        });
    });
    run.await.unwrap();
    assert_eq!(done.get(), 1);
}

/// One that spawns for ever is stopped by the error of a sibling.
#[testudo::test]
async fn test_taskgroup_25() {
    let run = nursery(|n| async move {
        let own = n.clone();
        n.spawn(async move {
            loop {
                own.spawn(checkpoint());
                checkpoint().await;
            }
        });
        n.spawn(async {
            turns().await;
            Err::<(), _>("MyExc")
        });
        Ok(())
    });
    assert_eq!(errors(run.await), ["MyExc"]);
}

/// A task of a group has the name that it was given.
#[testudo::test]
async fn test_taskgroup_task_name() {
    let run = nursery(|n| async move {
        let task = n.task().name("yolo").spawn(async {});
        assert_eq!(&*task.name(), "yolo");
    });
    run.await.unwrap();
}

tokio::task_local! {
    static VALUE: &'static str;
}

/// A context for a task is a future around it.
#[testudo::test]
async fn test_taskgroup_task_context() {
    let run = nursery(|n| async move {
        let task = n.spawn(VALUE.scope("value", async { Ok::<_, Infallible>(VALUE.get()) }));
        assert_eq!(task.await.unwrap(), "value");
        Ok(())
    });
    run.await.unwrap();
}

/// Spawning after a failure. Differs (S7, S20): as in trio it is allowed, and the child runs to its first suspension.
#[testudo::test]
async fn test_taskgroup_no_create_task_after_failure() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        n.spawn(ready(Err::<(), _>("first")));
        testudo::cancelled().await;
        n.spawn(async move {
            inner.push("begun");
            checkpoint().await;
            inner.push("too far");
        });
        Ok(())
    });
    assert_eq!(errors(run.await), ["first"]);
    assert_eq!(log.seen(), ["begun"]);
}

/// The end of a group raises, and the task around is not cancelled by that.
#[testudo::test]
async fn test_taskgroup_context_manager_exit_raises() {
    let run = nursery(|n| async move {
        n.spawn(ready(Err::<(), _>("exit")));
        Ok(())
    });
    assert_eq!(errors(run.await), ["exit"]);
    assert!(!testudo::is_cancelled());
    checkpoint().await;
}

async fn closed() -> Nursery<Infallible> {
    nursery(|n| async move { Ok::<_, Infallible>(n) }).await.unwrap()
}

/// A group that has ended takes nothing.
#[testudo::test]
async fn test_taskgroup_finished() {
    let n = closed().await;
    assert!(panic_of(|| n.spawn(async {})).contains("closed"));
}

/// What is refused is not run; it is given back, and dropped as its owner likes.
#[testudo::test]
async fn test_coro_closed_when_tg_closed() {
    let (n, dropped, polled) = (closed().await, Count::default(), Count::default());
    let (local, inner) = (OnDrop(dropped.clone()), polled.clone());
    let refused = n.try_spawn(async move {
        inner.add();
        drop(local);
    });
    drop(refused.err().unwrap().into_future());
    assert_eq!((dropped.get(), polled.get()), (1, 0));
}

/// A group outside of any task of ours.
#[test]
fn test_taskgroup_without_parent_task() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let run = nursery(|n| async move { Ok::<_, Infallible>(n.spawn(async { Ok(7) })) });
    let task = runtime.block_on(run).unwrap();
    assert_eq!(runtime.block_on(task).unwrap(), 7);
    assert!(
        panic_of(|| futures_util::FutureExt::now_or_never(nursery(|n| async move { drop(n.spawn(async {})) })))
            .contains("untime")
    );
}

/// A group that ends by an error leaves requests around it as they were.
#[testudo::test]
async fn test_cancelling_level_preserved() {
    let outer = CancelScope::new();
    let handle = outer.handle();
    let run = outer.run(async {
        let inner = nursery(|n| async move {
            n.spawn(ready(Err::<(), _>("error")));
            Ok(())
        });
        assert_eq!(errors(inner.await), ["error"]);
        assert!(!handle.cancel_requested() && !testudo::is_cancelled());
    });
    run.await.unwrap();
}

/// Both of two nested groups fail. The outer request is there, and gone after the outer end.
#[testudo::test]
async fn test_nested_groups_both_cancelled() {
    let run = nursery(|outer| async move {
        outer.spawn(ready(Err::<(), _>("outer")));
        let inner: End = nursery(|n| async move {
            n.spawn(ready(Err::<(), _>("inner")));
            testudo::cancelled().await;
            Ok(())
        })
        .await;
        assert_eq!(errors(inner), ["inner"]);
        assert!(testudo::is_cancelled());
        Ok(())
    });
    let end: End = run.await;
    assert_eq!(errors(end), ["outer"]);
    assert!(!testudo::is_cancelled());
}

/// An error and a cancel: the group comes first, then the cancel at the next await.
#[testudo::test]
async fn test_error_and_cancel() {
    let log = Log::default();
    let inner = log.clone();
    let scope = CancelScope::new();
    let handle = scope.handle();
    let run = scope.run(async move {
        let end = nursery(|n| async move {
            n.spawn(async move {
                handle.cancel("outer");
                Err::<(), _>("error")
            });
            Ok(())
        });
        assert_eq!(errors(end.await), ["error"]);
        inner.push("the group");
        checkpoint().await;
        inner.push("too far");
    });
    assert!(run.await.is_err());
    assert_eq!(log.seen(), ["the group"]);
}

/// The name of a task, newer form.
#[testudo::test]
async fn test_name() {
    let run = nursery(|n| async move { Ok::<_, Infallible>(n.task().name("name").spawn(async {}).name()) });
    assert_eq!(&*run.await.unwrap(), "name");
}

/// A task that is spawned while the group is cancelled is cancelled, too.
#[testudo::test]
async fn test_cancels_task_if_created_during_creation() {
    let log = Log::default();
    let child = note_cancel(log.clone(), "late child", pending::<()>());
    let run = nursery(|n| async move {
        n.spawn(async { Err::<(), _>("error") });
        turns().now_or_never();
        testudo::cancelled().await;
        n.spawn(child);
        Ok(())
    });
    assert_eq!(errors(run.await), ["error"]);
    assert_eq!(log.seen(), ["late child"]);
}

/// The cancel with which a group ends its body does not leave it.
#[testudo::test]
async fn test_cancellation_does_not_leak_out_of_tg() {
    let end: End = nursery(|n| async move {
        n.spawn(ready(Err::<(), _>("error")));
        pending::<Result<(), &str>>().await
    })
    .await;
    assert!(matches!(end, Err(NurseryError::Failed(_))));
    checkpoint().await;
    let run = nursery(|n| async move { Ok::<_, Infallible>(n.spawn(async { Ok(7) }).await) });
    assert_eq!(run.await.unwrap(), Outcome::Ok(7));
}
