//! anyio's own tests that add something to trio's (`test_taskgroups.py`, `test_to_thread.py`). Read at 4.16.0.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::time::Duration;

use futures_util::FutureExt;
use testudo::{
    AbsorbCancel, CancelScope, CauseKind, EffectiveDeadline, FinalizeExt, Outcome, StartError, Started, all_tasks,
    cancelled, catch_cancelled, checkpoint, current_deadline, current_task, fail_after, is_cancelled, move_on_after,
    nursery, shield,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, advance, sleep};

use crate::read::{End, errors, first_text, note_cancel, run_heard};
use crate::support::{Count, Log, S, Work, blow_up, is_pending, plain_task, turns};

/// A child that is spawned before its group is cancelled runs to its first suspension, also if that would be only a yield.
#[testudo::test]
async fn test_level_cancellation() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        n.spawn(async move {
            inner.push("begun");
            checkpoint().await;
            inner.push("too far");
        });
        n.cancel("now");
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["begun"]);
}

/// One task is cancelled twice, in one group after the other.
#[testudo::test]
async fn test_cancel_twice() {
    for _ in 0..2 {
        let run = nursery(|n| async move {
            let own = n.clone();
            n.spawn(async move {
                turns().await;
                own.cancel("the group");
            });
            pending::<()>().await;
        });
        assert!(run.await.unwrap_err().is_cancelled());
    }
}

/// A group whose body has ended, and that waits, can be cancelled.
#[testudo::test]
async fn test_cancel_exiting_task_group() {
    let log = Log::default();
    let (child, outside) = (note_cancel(log.clone(), "child", pending::<()>()), log.clone());
    let run = nursery(|n| async move {
        n.spawn(child);
        Ok::<_, Infallible>(n.scope())
    });
    let mut run = Box::pin(run);
    assert!(is_pending(run.as_mut()).await);
    turns().await;
    let scope = CancelScope::new();
    let handle = scope.handle();
    let (end, ()) = tokio::join!(scope.run(run), async {
        handle.cancel("while it waits");
        outside.push("asked");
    });
    assert!(end.is_err());
    assert_eq!(log.seen(), ["asked", "child"]);
}

/// Cancelled before it is entered.
#[testudo::test]
async fn test_cancel_before_entering_scope() {
    let scope = CancelScope::new();
    scope.handle().cancel("early");
    assert!(scope.run(checkpoint()).await.is_err());
}

/// A scope that another task runs.
#[testudo::test]
async fn test_cancel_scope_in_another_task() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let run = nursery(|n| async move {
        let task = n.spawn(async { Ok::<_, Infallible>(scope.run(pending::<()>()).await.is_err()) });
        turns().await;
        handle.cancel("from here");
        assert!(task.await.unwrap());
        Ok(())
    });
    run.await.unwrap();
}

/// A scope of a child leaves its host alone.
#[testudo::test]
async fn test_cancel_scope_in_child_task() {
    let (scope, log) = (CancelScope::new(), Log::default());
    let (handle, inner) = (scope.handle(), log.clone());
    let run = nursery(|n| async move {
        let child = n.spawn(scope.run(note_cancel(inner.clone(), "child", pending::<()>())).map(drop));
        turns().await;
        handle.cancel("the child's");
        drop(child.await);
        checkpoint().await;
        inner.push("host");
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["child", "host"]);
}

/// Cancelling the outer from inside a shielded scope: no deadline inside, cancelled outside, and that twice.
#[testudo::test]
async fn test_cancel_from_shielded_scope() {
    let outer = CancelScope::new();
    let (handle, log) = (outer.handle(), Log::default());
    let run = outer.run(async {
        let inner = CancelScope::new().shielded(true).run(async {
            handle.cancel("outer");
            assert_eq!(current_deadline(), EffectiveDeadline::None);
            checkpoint().await;
        });
        inner.await.unwrap();
        assert_eq!(current_deadline(), EffectiveDeadline::Cancelled);
        assert!(catch_cancelled(checkpoint()).await.is_err());
        assert!(catch_cancelled(sleep(S)).await.is_err());
        log.push("two raises");
        checkpoint().await;
    });
    assert!(run.await.is_err());
    assert_eq!(log.seen(), ["two raises"]);
}

/// A shielded scope is cancelled by its own cancel.
#[testudo::test]
async fn test_cancel_shielded_scope() {
    let scope = CancelScope::new().shielded(true);
    let handle = scope.handle();
    let run = scope.run(async {
        assert!(handle.is_shielded());
        handle.cancel("its own");
        assert_eq!(current_deadline(), EffectiveDeadline::Cancelled);
        checkpoint().await;
    });
    assert!(run.await.is_err());
}

/// What is cancelled, inside and outside of a shield, during clean-up.
#[testudo::test]
async fn test_shielded_cleanup_after_cancel() {
    let (outer, log) = (CancelScope::new(), Log::default());
    let (handle, inner) = (outer.handle(), log.clone());
    let run = outer.run(async move {
        assert!(!is_cancelled());
        handle.cancel("now");
        assert!(catch_cancelled(pending::<()>()).await.is_err());
        assert!(is_cancelled());
        shield(async { assert!(!is_cancelled()) }).await;
        inner.push("cleaned up");
        assert!(is_cancelled());
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["cleaned up"]);
}

/// A shield holds a cancel of the group off.
#[testudo::test]
async fn test_shielding() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        n.spawn(async move {
            CancelScope::new().shielded(true).run(turns()).await.unwrap();
            inner.push("shielded part");
            checkpoint().await;
            inner.push("too far");
        });
        checkpoint().await;
        n.cancel("now");
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["shielded part"]);
}

/// A started child raises its shield a little after its scope began, and lowers it again.
#[testudo::test(start_paused = true)]
async fn test_shielding_mutate() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let start = n.start(|started| async move {
            let scope = CancelScope::new();
            let handle = scope.handle();
            drop(
                scope
                    .run(async move {
                        sleep(S).await;
                        handle.set_shielded(true);
                        started.started(());
                        sleep(S).await;
                        inner.push("completed");
                        handle.set_shielded(false);
                        sleep(S).await;
                        inner.push("too far");
                    })
                    .await,
            );
        });
        start.await.unwrap();
        n.cancel("now");
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["completed"]);
}

/// A shielded scope that is cancelled at once is left at its first suspension.
#[testudo::test]
async fn test_shielding_immediate_scope_cancelled() {
    let scope = CancelScope::new().shielded(true);
    scope.handle().cancel("at once");
    assert!(scope.run(pending::<()>()).await.is_err());
}

/// An outer deadline does not pass a shield; the own one does.
#[testudo::test(start_paused = true)]
async fn test_shielded_deadline() {
    let (log, now) = (Log::default(), Instant::now());
    let run = move_on_after(10 * S, async {
        let inner = CancelScope::new().shielded(true).run(async {
            let own = CancelScope::new().timeout(1_000 * S);
            own.run(async { assert_eq!(current_deadline(), EffectiveDeadline::At(now + 1_000 * S)) }).await.unwrap();
            sleep(20 * S).await;
        });
        inner.await.unwrap();
        log.push("after the shield");
        checkpoint().await;
        log.push("too far");
    });
    assert!(run.await.is_none());
    assert_eq!(log.seen(), ["after the shield"]);
}

/// A time that is over, in a shield, in a scope that is cancelled: its error comes out of the group.
#[testudo::test(start_paused = true)]
async fn test_nested_shield() {
    let run = nursery(|n| async move {
        let scope = CancelScope::new();
        let killer = scope.handle();
        n.spawn(async move {
            turns().await;
            killer.cancel("killed");
            Ok(())
        });
        let shielded = CancelScope::new().shielded(true).run(fail_after(S, sleep(2 * S)));
        let late = scope.run(async { shielded.await.unwrap() }).await;
        late.unwrap().map_err(|_| "TimeoutError")
    });
    assert_eq!(errors(run.await), ["TimeoutError"]);
}

/// Three scopes, the innermost a shield in which the others are cancelled. What runs after the checkpoint, which is in the outer or
/// in the middle one?
async fn triple(in_middle: bool) -> Vec<&'static str> {
    let (log, outer, middle) = (Log::default(), CancelScope::new(), CancelScope::new());
    let (outer_handle, middle_handle, noted) = (outer.handle(), middle.handle(), log.clone());
    let run = nursery(|n| async move {
        n.spawn(
            outer
                .run(async move {
                    let end = middle.run(async {
                        let shielded = CancelScope::new().shielded(true).run(async {
                            outer_handle.cancel("outer");
                            if !in_middle {
                                middle_handle.cancel("middle");
                            }
                        });
                        shielded.await.unwrap();
                        noted.push("left the shield");
                        if in_middle {
                            checkpoint().await;
                            noted.push("too far");
                        }
                    });
                    end.await.unwrap();
                    checkpoint().await;
                    noted.push("too far");
                })
                .map(drop),
        );
    });
    run.await.unwrap();
    log.seen()
}

/// The checkpoint is in the outer one.
#[testudo::test]
async fn test_triple_nested_shield_checkpoint_in_outer() {
    assert_eq!(triple(false).await, ["left the shield"]);
}

/// The checkpoint is in the middle one.
#[testudo::test]
async fn test_triple_nested_shield_checkpoint_in_middle() {
    assert_eq!(triple(true).await, ["left the shield"]);
}

/// A checkpoint that is made of a scope: cancelled itself, in a cancelled one, it does not go on.
#[testudo::test]
async fn test_cancelled_scope_based_checkpoint() {
    let (outer, log) = (CancelScope::new(), Log::default());
    outer.handle().cancel("outer");
    let run = outer.run(async {
        let inner = CancelScope::new();
        inner.handle().cancel("inner");
        drop(inner.run(pending::<()>()).await);
        log.push("too far");
    });
    assert!(run.await.is_err());
    assert!(log.seen().is_empty() && !is_cancelled());
}

/// Who catches: a cancelled inner scope in a cancelled outer one.
async fn who_caught(shielded: bool) -> (bool, bool) {
    let (outer, inner, caught) = (CancelScope::new(), CancelScope::new().shielded(shielded), Count::default());
    let (outer_handle, inner_handle) = (outer.handle(), inner.handle());
    let run = outer.run(async {
        let end = inner.run(async {
            inner_handle.cancel("inner");
            outer_handle.cancel("outer");
            checkpoint().await;
        });
        if end.await.is_err() {
            caught.add();
        }
    });
    (run.await.is_err(), caught.get() == 1)
}

/// Unshielded: the outer one.
#[testudo::test]
async fn test_cancelled_raises_beyond_origin_unshielded() {
    assert_eq!(who_caught(false).await, (true, false));
}

/// Shielded: the inner one, and nothing is left for the outer one to catch.
#[testudo::test]
async fn test_cancelled_raises_beyond_origin_shielded() {
    assert_eq!(who_caught(true).await, (false, true));
}

/// A cancel reaches the children while the host sits in a shield.
#[testudo::test]
async fn test_cancel_child_task_when_host_is_shielded() {
    let log = Log::default();
    let (child, inner) = (log.clone(), log.clone());
    let (tell, told) = oneshot::channel();
    let run = nursery(|n| async move {
        n.spawn(async move {
            drop(catch_cancelled(pending::<()>()).await);
            child.push("child");
            tell.send(()).unwrap();
        });
        turns().await;
        n.cancel("now");
        shield(told).await.unwrap();
        inner.push("host");
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["child", "host"]);
}

/// The child of a `start` shields itself while the caller is cancelled: it starts all the same. Differs (S25, T59): nothing moves then.
#[testudo::test]
async fn test_cancel_shielding_start() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let scope = CancelScope::new();
        let handle = scope.handle();
        let child = inner.clone();
        let start = scope.run(n.start(|started: Started<()>| async move {
            shield(async move {
                turns().await;
                child.push("shielded");
            })
            .await;
            started.started(());
            checkpoint().await;
        }));
        let (end, ()) = tokio::join!(start, async {
            checkpoint().await;
            handle.cancel("the caller");
        });
        assert!(end.is_err());
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["shielded"]);
}

/// A `start` in a cancelled scope: the child begins, the scope takes the cancel, and the group is not cancelled.
#[testudo::test]
async fn test_start_cancels_parent_scope() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let scope = CancelScope::new();
        scope.handle().cancel("early");
        let end = scope.run(n.start(|_: Started<()>| async move {
            inner.push("started");
            pending::<()>().await;
        }));
        assert!(end.await.is_err());
        assert!(!n.scope().cancel_requested());
        checkpoint().await;
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["started"]);
}

/// The caller of a `start` is cancelled: the child is, too.
#[testudo::test(start_paused = true)]
async fn test_start_cancelled() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let end = CancelScope::new().timeout(S).run(n.start(|started| async move {
            inner.push("started");
            sleep(2 * S).await;
            started.started(());
            inner.push("too far");
        }));
        assert!(end.await.is_err());
        checkpoint().await;
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["started"]);
}

/// A `start` in an outer group, called in an inner one that fails: the child is cancelled, and the error comes out of both.
#[testudo::test(start_paused = true)]
async fn test_start_cancel_after_error() {
    let log = Log::default();
    let child = log.clone();
    let run = nursery(|outer| async move {
        let inner: End = nursery(|n| async move {
            n.spawn(async {
                turns().await;
                Err::<(), _>("RuntimeError")
            });
            let start = outer.start(|started| async move {
                sleep(S).await;
                child.push("too far");
                started.started(());
                Ok(())
            });
            drop(start.await);
            Ok(())
        })
        .await;
        Err::<(), _>(errors(inner)[0])
    });
    assert_eq!(errors(run.await), ["RuntimeError"]);
    assert!(log.seen().is_empty());
}

/// An error that a child of a `start` gets on its way is its own.
#[testudo::test]
async fn test_start_exception_delivery() {
    let run = nursery(|n| async move {
        let end = n.start(|_: Started<()>| ready(Err::<(), _>("cannot be started"))).await;
        assert!(matches!(end, Err(StartError::Failed("cannot be started"))));
        Ok(())
    });
    run.await.unwrap();
}

/// A crash before `started` comes out of `start`.
#[testudo::test]
async fn test_start_crash_before_started_call() {
    let run = nursery(|n| async move {
        let end = n.start(|_: Started<()>| async {
            turns().await;
            Err::<(), _>("crash")
        });
        assert!(matches!(end.await, Err(StartError::Failed("crash"))));
        Ok(())
    });
    run.await.unwrap();
}

/// A crash after it is the group's.
#[testudo::test]
async fn test_start_crash_after_started_call() {
    let run = nursery(|n| async move {
        let end = n.start(|started| async move {
            started.started(2);
            Err::<(), _>("crash")
        });
        assert_eq!(end.await.unwrap(), 2);
        Ok(())
    });
    assert_eq!(errors(run.await), ["crash"]);
}

/// A child that ends without `started`.
#[testudo::test]
async fn test_start_no_started_call() {
    let run = nursery(|n| async move {
        let end: Result<(), StartError<Infallible>> = n.start(|_| async {}).await;
        assert!(matches!(end, Err(StartError::NotStarted)));
    });
    run.await.unwrap();
}

/// How often a future is polled.
async fn polls<F: Future>(count: Count, fut: F) -> F::Output {
    let mut fut = std::pin::pin!(fut);
    std::future::poll_fn(move |cx| {
        count.add();
        fut.as_mut().poll(cx)
    })
    .await
}

/// Nested groups that are cancelled do not spin: few polls.
#[testudo::test(start_paused = true)]
async fn test_cancel_with_nested_task_groups() {
    let count = Count::default();
    let inner = count.clone();
    let run = nursery(|n| async move {
        n.spawn(
            nursery(|n| async move {
                n.spawn(polls(inner, shield(sleep(100 * S))));
            })
            .map(drop),
        );
        turns().await;
        n.cancel("now");
    });
    run.await.unwrap();
    assert!(count.get() < 10, "{}", count.get());
}

/// Sleeping under a shield in a cancelled scope neither: few polls for a long sleep.
#[testudo::test(start_paused = true)]
async fn test_shielded_cancel_sleep_time() {
    let (count, began) = (Count::default(), Instant::now());
    let scope = CancelScope::new();
    scope.handle().cancel("now");
    drop(
        scope
            .run(polls(count.clone(), async {
                shield(sleep(1_000 * S)).await;
                checkpoint().await;
            }))
            .await,
    );
    assert_eq!(began.elapsed(), 1_000 * S);
    assert!(count.get() < 10, "{}", count.get());
}

/// A host that is done while its cancelled scope has children: no spin.
#[testudo::test(start_paused = true)]
async fn test_no_spin_on_done_task_in_cancel_scope() {
    let count = Count::default();
    let scope = CancelScope::new();
    scope.handle().cancel("now");
    let run = polls(
        count.clone(),
        scope.run(nursery(|n| async move {
            n.spawn(shield(sleep(1_000 * S)));
        })),
    );
    assert!(run.await.unwrap().is_ok());
    assert!(count.get() < 10, "{}", count.get());
}

/// A timeout after a group that was cancelled.
#[testudo::test(start_paused = true)]
async fn test_fail_after_after_cancellation() {
    let run = nursery(|n| async move {
        n.cancel("now");
        pending::<()>().await;
    });
    assert!(run.await.unwrap_err().is_cancelled());
    assert!(fail_after(S, sleep(5 * S)).await.is_err());
}

/// A cancel before the time is over is not its end. Ours: the scope tells which it was.
#[testudo::test(start_paused = true)]
async fn test_fail_after_cancelled_before_deadline() {
    let scope = CancelScope::new().timeout(10 * S);
    let handle = scope.handle();
    let run = scope.run(async {
        handle.cancel("by hand");
        checkpoint().await;
    });
    assert_eq!(run.await.unwrap_err().cause().kind(), CauseKind::Requested);
}

/// The same, and the time is over before it is left (expected to fail in anyio).
#[testudo::test(start_paused = true)]
async fn test_fail_after_scope_cancelled_before_timeout() {
    let scope = CancelScope::new().timeout(S);
    let handle = scope.handle();
    let run = scope.run(async {
        handle.cancel("by hand");
        let _ = advance(2 * S).now_or_never();
        shield(sleep(S)).await;
        checkpoint().await;
    });
    assert_eq!(run.await.unwrap_err().cause().kind(), CauseKind::Requested);
}

/// The end of a time has a cause; its error says the length.
#[testudo::test(start_paused = true)]
async fn test_fail_after_reason() {
    assert_eq!(fail_after(S, pending::<()>()).await.unwrap_err().to_string(), "not done within 1s");
    let cut = CancelScope::new().timeout(S).run(pending::<()>()).await.unwrap_err();
    assert_eq!(cut.to_string(), "cut off: deadline passed");
}

/// Several cancels and one end of the time.
#[testudo::test(start_paused = true)]
async fn test_timeout_error_with_multiple_cancellations() {
    let run = fail_after(
        S,
        nursery(|n| async move {
            for _ in 0..3 {
                n.spawn(sleep(10 * S));
            }
            sleep(10 * S).await;
        }),
    );
    assert!(run.await.is_err());
}

/// A cancel of the outer of two scopes is not taken for the end of the time inside them.
#[testudo::test(start_paused = true)]
async fn test_nested_fail_after() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let scope = CancelScope::new();
        let killer = scope.handle();
        n.spawn(async move {
            turns().await;
            killer.cancel("killed");
        });
        let end = scope.run(async {
            drop(
                CancelScope::new()
                    .run(async {
                        fail_after(S, sleep(2 * S)).await.ok();
                        inner.push("too far");
                    })
                    .await,
            );
            inner.push("too far");
        });
        assert_eq!(end.await.unwrap_err().cause().reason(), Some("killed"));
    });
    run.await.unwrap();
    assert!(log.seen().is_empty());
}

/// A deadline that is moved.
#[testudo::test(start_paused = true)]
async fn test_deadline_moved() {
    let (began, scope) = (Instant::now(), CancelScope::new().timeout(S));
    let handle = scope.handle();
    let run = scope.run(async {
        handle.set_deadline(Some(began + 3 * S));
        sleep(2 * S).await;
    });
    run.await.unwrap();
}

/// The time is over at the start.
#[testudo::test(start_paused = true)]
async fn test_deadline_reached_on_start() {
    assert_eq!(move_on_after(Duration::ZERO, checkpoint()).await, None);
}

/// The outer time first, or the inner.
#[testudo::test(start_paused = true)]
async fn test_nested_move_on_after() {
    let log = Log::default();
    let outer = move_on_after(S, async {
        let _cut = move_on_after(10 * S, sleep(100 * S)).await;
        log.push("too far");
    });
    assert!(outer.await.is_none());
    let outer = move_on_after(10 * S, async {
        assert!(move_on_after(S, sleep(100 * S)).await.is_none());
        log.push("inner only");
    });
    assert!(outer.await.is_some());
    assert_eq!(log.seen(), ["inner only"]);
}

/// The cancel of a group does not leave it.
#[testudo::test]
async fn test_escaping_cancelled_exception() {
    let run = nursery(|n| async move {
        n.cancel("its own");
        checkpoint().await;
    });
    assert_eq!(run.await.absorb_cancel().unwrap(), None);
    checkpoint().await;
}

/// A group in a cancelled group: the inner one unwinds, the outer one absorbs.
#[testudo::test]
async fn test_nested_task_group_filtering() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|outer| async move {
        let own = outer.clone();
        let end = nursery(|n| async move {
            n.spawn(pending::<()>());
            own.cancel("outer");
        });
        drop(end.await);
        inner.push("too far");
    });
    assert!(run.await.unwrap_err().is_cancelled());
    assert!(log.seen().is_empty());
}

/// Two groups, one in the other, in each of which a child fails at the same time. Differs (S20): the cancel of the outer one cuts the
/// body of the inner one off, so that one unwinds, and its error is reported; in anyio both come out in groups.
#[test]
fn test_exception_group_filtering() {
    async fn fail(name: &'static str) -> Result<(), &'static str> {
        turns().await;
        Err(name)
    }
    let (finished, said) = run_heard(async {
        let run = nursery(|n| async move {
            n.spawn(fail("parent task failed"));
            let inner: End = nursery(|n| async move {
                n.task().name("child").spawn(fail("child task failed"));
                pending::<Result<(), &str>>().await
            })
            .await;
            inner.map_err(|_| "the inner one came out")
        });
        assert_eq!(errors(run.await), ["parent task failed"]);
    });
    finished.outcome.unwrap();
    assert_eq!(said, ["failed child: child task failed"]);
}

/// The same two levels deep.
#[testudo::test]
async fn test_nested_exception_group_filtering() {
    let run = nursery(|outer| async move {
        outer.spawn(pending::<()>());
        let inner: End = nursery(|n| async move {
            n.spawn(pending::<()>());
            n.spawn(ready(Err::<(), _>("bar")));
            Ok(())
        })
        .await;
        assert_eq!(errors(inner), ["bar"]);
        Err::<(), _>("foo")
    });
    assert_eq!(errors(run.await), ["foo"]);
}

/// A cancel from outside comes out as one cancel, not as a group: nothing has failed.
#[testudo::test]
async fn test_single_cancellation_exc() {
    let (outer, log) = (CancelScope::new(), Log::default());
    let (handle, inner) = (outer.handle(), log.clone());
    let run = outer.run(async move {
        let end = nursery(|n| async move {
            n.spawn(pending::<()>());
            turns().await;
            handle.cancel("outer");
            pending::<()>().await;
        });
        drop(end.await);
        inner.push("too far");
    });
    assert_eq!(run.await.unwrap_err().cause().reason(), Some("outer"));
    assert!(log.seen().is_empty());
}

/// An empty group. Differs (T45, S20): its end is no suspension; in anyio it is a yield.
#[testudo::test]
async fn test_empty_taskgroup_contains_yield_point() {
    assert!(nursery(|_| async {}).now_or_never().unwrap().is_ok());
}

/// An empty group in a cancelled scope is no place where that ends.
#[testudo::test]
async fn test_cancel_before_entering_task_group() {
    let scope = CancelScope::new();
    scope.handle().cancel("early");
    scope.run(async { nursery(|_| async {}).await.unwrap() }).await.unwrap();
}

/// Scopes that are left in the wrong order. Differs (S6): the inner one is a future that goes on elsewhere.
#[testudo::test]
async fn test_cancelscope_wrong_exit_order() {
    let inner = CancelScope::new();
    let handle = inner.handle();
    let mut inner = Box::pin(inner.run(pending::<()>()));
    let begun = CancelScope::new().run(async { is_pending(inner.as_mut()).await });
    assert!(begun.await.unwrap());
    handle.cancel("later");
    assert!(inner.await.is_err());
}

/// A scope that is left in another task. Differs (S6): legal.
#[testudo::test]
async fn test_cancelscope_exit_in_wrong_task() {
    let (send, receive) = oneshot::channel::<()>();
    let mut run = Box::pin(CancelScope::new().run(receive));
    assert!(is_pending(run.as_mut()).await);
    let elsewhere = plain_task(run);
    send.send(()).unwrap();
    assert!(elsewhere.await.unwrap().is_ok());
}

/// Tokio's own cancel inside a scope. Differs (S12, S45): an abort drops the task, whatever its scopes say, and asks none of them to end.
#[testudo::test]
async fn test_uncancel_after_native_cancel() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let task = plain_task(scope.run(pending::<()>()));
    turns().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(!handle.cancel_requested());
}

/// After a scope's own cancel nothing of it is left in the task.
#[testudo::test]
async fn test_uncancel_after_scope_cancel() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let run = scope.run(async {
        handle.cancel("now");
        checkpoint().await;
    });
    assert!(run.await.is_err());
    assert!(!is_cancelled());
    checkpoint().await;
}

/// Both: Tokio's wins. Differs (S12, S45) as before; what was to be cleaned up still is.
#[testudo::test]
async fn test_uncancel_after_scope_and_native_cancel() {
    let (scope, clean_up) = (CancelScope::new(), Work::new());
    let (handle, work) = (scope.handle(), clean_up.clone());
    let task = plain_task(scope.run(pending::<()>().on_cancel(work.run().map(drop))));
    turns().await;
    handle.cancel("now");
    clean_up.has_begun().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    clean_up.allow(1);
    turns().await;
    turns().await;
    assert_eq!(clean_up.done(), 1);
}

/// A caught cancel, and another one inside: each is told by its scope, not by a message.
#[testudo::test]
async fn test_cancel_message_replaced() {
    let outer = CancelScope::new();
    outer.handle().cancel("outer");
    let run = outer.run(async {
        assert_eq!(catch_cancelled(checkpoint()).await.unwrap_err().cause().reason(), Some("outer"));
        let inner = CancelScope::new().shielded(true);
        inner.handle().cancel("inner");
        let cut = inner.run(async {
            drop(catch_cancelled(checkpoint()).await);
            checkpoint().await;
        });
        assert_eq!(cut.await.unwrap_err().cause().reason(), Some("inner"));
    });
    run.await.unwrap();
}

/// The value of a task.
#[testudo::test]
async fn test_create_task_return_value() {
    let run = nursery(|n| async move {
        let task = n.spawn(async {
            checkpoint().await;
            Ok::<_, Infallible>("foo")
        });
        assert_eq!(task.await, Outcome::Ok("foo"));
        Ok(())
    });
    run.await.unwrap();
}

/// Its error: at the handle and in the group, the same one.
#[testudo::test]
async fn test_create_task_exception() {
    let run = nursery(|n| async move {
        let task = n.spawn(ready(Err::<(), _>("foo")));
        let Outcome::Err(seen) = task.await else { panic!("it fails") };
        assert_eq!(*seen, "foo");
        Ok(())
    });
    assert_eq!(errors(run.await), ["foo"]);
}

/// A panic: at the handle, and out of the group.
#[testudo::test]
async fn test_create_task_base_exception() {
    let run = nursery(|n| async move {
        let task = n.spawn(async { blow_up("foo") });
        assert!(matches!(shield(task).await, Outcome::Panicked(_)));
    });
    assert!(std::panic::AssertUnwindSafe(run).catch_unwind().await.is_err());
}

/// Cancelled before it has begun. Differs (S7): it runs to its first suspension.
#[testudo::test]
async fn test_create_task_cancel_before_start() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let task = n.spawn(async move {
            inner.push("begun");
            checkpoint().await;
            inner.push("too far");
        });
        assert!(task.cancel("early"));
        assert!(task.await.is_cancelled());
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["begun"]);
}

/// Cancelled after it has begun; the group goes on.
#[testudo::test]
async fn test_create_task_cancel_after_start() {
    let run = nursery(|n| async move {
        let task = n.spawn(pending::<()>());
        turns().await;
        assert!(task.cancel_and_wait("now").await.is_cancelled());
        checkpoint().await;
    });
    run.await.unwrap();
}

/// Waiting for an end without taking the value.
#[testudo::test]
async fn test_create_task_wait() {
    let run = nursery(|n| async move {
        let mut task = n.spawn(turns());
        assert!(!task.is_finished());
        assert!(task.outcome().await.is_ok());
        assert!(task.is_finished());
    });
    run.await.unwrap();
}

/// `start` gives the value of `started`; the task goes on. Differs (S25): it has no handle, but it is found by name.
#[testudo::test]
async fn test_start_return_handle_success() {
    let run = nursery(|n| async move {
        let value = n.task().name("service").start(|started| async move {
            started.started("start value");
            turns().await;
        });
        assert_eq!(value.await.unwrap(), "start value");
        assert_eq!(testudo::find("service").len(), 1);
    });
    run.await.unwrap();
}

/// And is cancelled by name.
#[testudo::test]
async fn test_start_return_handle_cancel() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let value = n.task().name("service").start(|started| async move {
            started.started(());
            note_cancel(inner, "cancelled", pending::<()>()).await;
        });
        value.await.unwrap();
        turns().await;
        assert!(testudo::cancel("service", "no more need").unwrap());
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["cancelled"]);
}

/// A name that was made. Differs (S30): `Task-N`, as in asyncio.
#[testudo::test]
async fn test_task_name_default() {
    let run = nursery(|n| async move { assert!(n.spawn(async {}).name().starts_with("Task-")) });
    run.await.unwrap();
}

/// A name that was given.
#[testudo::test]
async fn test_task_name_custom_name() {
    let run = nursery(|n| async move { assert_eq!(&*n.task().name("mytask").spawn(async {}).name(), "mytask") });
    run.await.unwrap();
}

/// The reason arrives.
#[testudo::test]
async fn test_cancel_reason() {
    let run = nursery(|n| async move {
        n.spawn(async { assert_eq!(cancelled().await.reason(), Some("test reason")) });
        turns().await;
        n.cancel("test reason");
        checkpoint().await;
    });
    assert!(first_text(run.await).contains("test reason"));
}

/// Who is alive, seen from inside. Differs (S41): a list by name and place.
#[testudo::test]
async fn test_asyncio_call_graph() {
    let run = nursery(|n| async move {
        n.task().name("child").spawn(pending::<()>());
        let main = current_task().unwrap();
        let names: Vec<String> = all_tasks().iter().map(|task| task.name().to_string()).collect();
        assert_eq!(names, [&*main.name(), "child"]);
        n.cancel("over");
    });
    run.await.unwrap();
}

/// A thread that its caller was cancelled for is waited for.
#[testudo::test]
async fn test_run_in_thread_cancelled() {
    let done = Count::default();
    let inner = done.clone();
    let run = CancelScope::new().run(nursery(|n| async move {
        n.cancel("early");
        n.spawn_blocking(move |cx| {
            assert!(cx.is_cancelled());
            inner.add();
        });
    }));
    run.await.unwrap().unwrap();
    assert_eq!(done.get(), 1);
}

/// Waited for, or abandoned.
#[testudo::test]
async fn test_cancel_worker_thread() {
    for abandon in [false, true] {
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = oneshot::channel();
        let run = nursery(|n| async move {
            let work = move |_: &testudo::BlockingCx| {
                begin.send(()).unwrap();
                gone.recv().ok();
            };
            let task = match abandon {
                true => n.task().abandon().spawn_blocking(work),
                false => n.spawn_blocking(work),
            };
            begun.await.unwrap();
            n.cancel("now");
            if !abandon {
                go.send(()).unwrap();
                return Ok(None);
            }
            assert!(task.await.is_cancelled());
            Ok::<_, Infallible>(Some(go))
        });
        run.await.ok();
    }
}

/// Who waits for a thread is cancelled: the nursery's end still waits.
#[testudo::test]
async fn test_cancel_wait_on_thread() {
    let done = Count::default();
    let inner = done.clone();
    let scope = CancelScope::new();
    let handle = scope.handle();
    let run = scope.run(nursery(|n| async move {
        n.spawn_blocking(move |cx| {
            while !cx.is_cancelled() {
                std::thread::yield_now();
            }
            inner.add();
        });
        turns().await;
        handle.cancel("the waiter");
    }));
    drop(run.await);
    assert_eq!(done.get(), 1);
}

/// A native cancel, Tokio's abort, of a task that waits for a thread: the thread is told, and the next owner waits for it.
#[test]
fn test_asyncio_cancel_native_task() {
    let (finished, said) = run_heard(async {
        let done = Count::default();
        let inner = done.clone();
        let around = nursery(|_| async move {
            let mut dropped = Box::pin(nursery(|n| async move {
                n.spawn_blocking(move |cx| {
                    while !cx.is_cancelled() {
                        std::thread::yield_now();
                    }
                    inner.add();
                });
                pending::<()>().await;
            }));
            assert!(is_pending(dropped.as_mut()).await);
        });
        around.finally(async {}).await.unwrap();
        assert_eq!(done.get(), 1);
    });
    finished.outcome.unwrap();
    assert!(said.is_empty());
}
