//! Ports of trio's `_core/_tests/test_run.py`: nurseries and `start`.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use testudo::{
    CancelScope, Failed, Nursery, NurseryError, Outcome, StartError, Started, catch_cancelled, checkpoint, nursery,
    shield,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::read::{End, errors, note_cancel, run_heard};
use crate::support::{Count, Log, OnDrop, S, is_pending, turns};

/// An error of the body comes out as a group of that very error.
#[testudo::test]
async fn test_nursery_main_block_error_basic() {
    let error = Arc::new("boom".to_owned());
    let inner = Arc::clone(&error);
    let end = nursery(|_| async { Err::<(), _>(inner) }).await;
    let Err(NurseryError::Failed(group)) = end else { panic!("{end:?}") };
    let Failed::Error(came) = group.first().what() else { panic!("{group:?}") };
    assert!(Arc::ptr_eq(came.as_ref(), &error) && group.len() == 1);
}

/// The error of a child goes to the nursery's end.
#[testudo::test]
async fn test_child_crash_basic() {
    let run = nursery(|n| async move {
        n.spawn(ready(Err::<(), _>("uh oh")));
        Ok(())
    });
    assert_eq!(errors(run.await), ["uh oh"]);
}

/// Body and child fail: a group of both.
#[testudo::test]
async fn test_main_and_task_both_crash() {
    let run = nursery(|n| async move {
        n.spawn(ready(Err::<(), _>("child")));
        Err::<(), _>("main")
    });
    assert_eq!(errors(run.await), ["child", "main"]);
}

/// Two children fail: a group of both.
#[testudo::test]
async fn test_two_child_crashes() {
    let run = nursery(|n| async move {
        n.spawn(ready(Err::<(), _>("one")));
        n.spawn(ready(Err::<(), _>("two")));
        Ok(())
    });
    assert_eq!(errors(run.await), ["one", "two"]);
}

/// A crash cancels a body that sleeps for ever.
#[testudo::test]
async fn test_child_crash_wakes_parent() {
    let log = Log::default();
    let body = note_cancel(log.clone(), "body is cancelled", pending::<()>());
    let run = nursery(|n| async move {
        n.spawn(ready(Err::<(), _>("crash")));
        body.await;
        Ok(())
    });
    assert_eq!(errors(run.await), ["crash"]);
    assert_eq!(log.seen(), ["body is cancelled"]);
}

/// A nursery that is begun, and whose child cleans up.
fn opened(log: &Log) -> impl Future<Output = ()> + Send + 'static {
    let log = log.clone();
    let run = nursery(|n| async move {
        n.spawn(note_cancel(log, "cleaned up", pending::<()>()));
        pending::<()>().await;
    });
    run.map(drop)
}

/// A task ends with an open nursery. Differs (S26): no error; its children are cancelled, and the nursery around waits for them.
#[testudo::test]
async fn test_nursery_misnest() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let task = n.spawn(async move {
            let mut open = Box::pin(opened(&inner));
            assert!(is_pending(open.as_mut()).await);
            turns().await;
        });
        assert_eq!(task.await, Outcome::Ok(()));
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["cleaned up"]);
}

/// The same a level deeper. Differs (S26): errors of the abandoned children are reported; in trio they are lost.
#[test]
fn test_nursery_nested_child_misnest() {
    let (finished, said) = run_heard(
        nursery(|n| async move {
            n.spawn(async {
                let inner = nursery(|n| async move {
                    n.task().name("abandoned").spawn(async {
                        drop(catch_cancelled(pending::<()>()).await);
                        Err::<(), _>("lost in trio")
                    });
                    pending::<Result<(), &str>>().await
                });
                let mut open = Box::pin(inner);
                assert!(is_pending(open.as_mut()).await);
                turns().await;
            });
        })
        .map(|end| assert!(end.is_ok())),
    );
    finished.outcome.unwrap();
    assert_eq!(said, ["failed abandoned: lost in trio"]);
}

/// A helper gives an open nursery back to its caller. Differs (S6): legal, it is a future as any other.
#[testudo::test]
async fn test_asyncexitstack_nursery_misnest() {
    async fn helper(end: oneshot::Receiver<()>) -> (Nursery<Infallible>, BoxFuture<'static, ()>) {
        let (give, mut given) = oneshot::channel();
        let run = nursery(|n| async move {
            give.send(n).unwrap();
            end.await.unwrap();
        });
        let mut run = run.map(|end| end.unwrap()).boxed();
        assert!(is_pending(run.as_mut()).await);
        (given.try_recv().unwrap(), run)
    }
    let (done, (close, end)) = (Count::default(), oneshot::channel());
    let inner = done.clone();
    let (n, run) = helper(end).await;
    n.spawn(async move { inner.add() });
    close.send(()).unwrap();
    run.await;
    assert_eq!(done.get(), 1);
}

/// A panic passes an open nursery that somebody else was to close: its children clean up all the same. Differs (S26):
/// there is no error but the panic itself.
#[testudo::test]
async fn test_asyncexitstack_nursery_misnest_cleanup() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        n.spawn(async move {
            let mut open = Box::pin(opened(&inner));
            assert!(is_pending(open.as_mut()).await);
            turns().await;
            crate::support::blow_up("in between");
        });
    });
    assert!(std::panic::AssertUnwindSafe(run).catch_unwind().await.is_err());
    assert_eq!(log.seen(), ["cleaned up"]);
}

/// Spawning works during the join as long as a child lives; after that the future comes back.
#[testudo::test]
async fn test_nursery_closure() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let own = n.clone();
        n.spawn(async move {
            turns().await; // the body has ended
            own.spawn(async move { inner.push("late child") });
        });
        Ok::<_, Infallible>(n)
    });
    let n = run.await.unwrap();
    assert_eq!(log.seen(), ["late child"]);
    assert!(n.try_spawn(async {}).is_err());
}

type Failing = Result<(), StartError<&'static str>>;

/// `start` waits for `started`, and gives its value.
async fn start_waits() {
    let began = Instant::now();
    let run = nursery(|n| async move {
        let started = n.start(|started| async move {
            sleep(S).await;
            started.started(21);
            sleep(S).await;
        });
        assert_eq!(started.await.unwrap(), 21);
        assert_eq!(began.elapsed(), S);
    });
    run.await.unwrap();
    assert_eq!(began.elapsed(), 2 * S);
}

/// What fails before `started`, or never says it, comes out of `start` alone.
async fn start_fails() {
    let run = nursery(|n| async move {
        let crash = n.start(|_: Started<()>| ready(Err::<(), _>("crash before"))).await;
        assert!(matches!(crash, Err(StartError::Failed("crash before"))));
        let silent: Failing = n.start(|_| async {}).await;
        assert!(matches!(silent, Err(StartError::NotStarted)));
        Ok(n)
    });
    let closed = run.await.unwrap();
    let polled = Count::default();
    let inner = polled.clone();
    let refused: Failing = closed.start(|_| async move { inner.add() }).await;
    assert!(matches!(refused, Err(StartError::Closed)) && polled.get() == 0);
}

/// A cancelled `start` cancels the child; `started` in it moves nothing.
async fn start_cancelled() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let scope = CancelScope::new();
        scope.handle().cancel("start");
        let child = inner.clone();
        let end = scope.run(n.start(|started: Started<()>| async move {
            child.push("runs to its first suspension");
            checkpoint().await;
            started.started(());
        }));
        assert!(end.await.is_err());

        let scope = CancelScope::new();
        scope.handle().cancel("start");
        let quick: Result<Result<u8, StartError<&str>>, _> =
            scope.run(n.start(|started| async move { started.started(7) })).await;
        assert!(matches!(quick, Ok(Ok(7))), "{quick:?}");

        let scope = CancelScope::new();
        scope.handle().cancel("start");
        let crash = scope.run(n.start(|started| async move {
            started.started(());
            Err::<(), _>("crash after")
        }));
        assert!(matches!(crash.await, Ok(Err(StartError::Failed("crash after")))));
        Ok(())
    });
    let end: End = run.await;
    end.unwrap();
    assert_eq!(log.seen(), ["runs to its first suspension"]);
}

/// The rules of `start`. Differs (S25): a wrong call, and a second `started`, do not compile.
#[testudo::test(start_paused = true)]
async fn test_nursery_start() {
    start_waits().await;
    start_fails().await;
    start_cancelled().await;
}

/// Open nurseries of a task are a stack: the inner one ends first, and each has its own children.
#[testudo::test]
async fn test_task_nursery_stack() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|outer| async move {
        let record = inner.clone();
        let end = nursery(|n| async move {
            outer.spawn(note_cancel(record.clone(), "never", async move {
                turns().await;
                turns().await;
                record.push("child of the outer");
            }));
            n.spawn(async {});
            assert_eq!((outer.len(), n.len()), (1, 1));
        });
        end.await.unwrap();
        inner.push("inner has ended");
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["inner has ended", "child of the outer"]);
}

/// The target is cancelled just before or after `started`: what has moved in is woken and cancelled.
#[testudo::test(start_paused = true)]
async fn test_nursery_start_with_cancelled_nursery() {
    for before in [true, false] {
        let log = Log::default();
        let inner = log.clone();
        let run = nursery(|n| async move {
            let target = n.clone();
            let start = n.start(|started| async move {
                nursery(|sleepers| async move {
                    let scope = CancelScope::new();
                    sleepers.spawn(note_cancel(inner.clone(), "sleeper", pending::<()>()));
                    sleepers.spawn(scope.run(note_cancel(inner, "sleeper", pending::<()>())).map(drop));
                    turns().await;
                    if before {
                        target.cancel("before");
                    }
                    started.started(());
                    if !before {
                        target.cancel("after");
                    }
                })
                .await
                .unwrap();
            });
            shield(start.map(|end| end.unwrap())).await;
        });
        drop(run.await);
        assert_eq!(log.seen(), ["sleeper", "sleeper"], "cancelled before: {before}");
    }
}

/// A pending `start` holds the nursery open, also if it fails then.
#[testudo::test]
async fn test_nursery_start_keeps_nursery_open() {
    for fails in [false, true] {
        let log = Log::default();
        let (inner, (wake, woken)) = (log.clone(), oneshot::channel::<()>());
        let run = nursery(|outer| async move {
            let end = nursery(|n| async move {
                outer.spawn(async move {
                    let start = n.start(|started| async move {
                        woken.await.unwrap();
                        if fails {
                            return Err("crash");
                        }
                        started.started(());
                        Ok(())
                    });
                    assert_eq!(start.await.is_err(), fails);
                    Ok::<_, &str>(())
                });
                turns().await;
                Ok::<_, &str>(())
            });
            let mut end = Box::pin(end);
            for _ in 0..30 {
                assert!(is_pending(end.as_mut()).await, "held open");
                checkpoint().await;
            }
            wake.send(()).unwrap();
            end.await.unwrap();
            inner.push("ended");
            Ok(())
        });
        let end: End = run.await;
        end.unwrap();
        assert_eq!(log.seen(), ["ended"]);
    }
}

/// An error that is made in the body is the one that comes out.
#[testudo::test]
async fn test_nursery_explicit_exception() {
    assert_eq!(errors(nursery(|_| ready(Err::<(), _>("KeyError"))).await), ["KeyError"]);
}

/// What a cancelled nursery held is dropped when it has ended.
#[testudo::test]
async fn test_nursery_cancel_doesnt_create_cyclic_garbage() {
    let dropped = Count::default();
    let (body, child) = (OnDrop(dropped.clone()), OnDrop(dropped.clone()));
    let run = nursery(|n| async move {
        let (own, _kept) = (n.clone(), body);
        n.spawn(async move {
            let _kept = (own, child);
            pending::<()>().await;
        });
        n.cancel("enough");
        checkpoint().await;
    });
    assert!(run.await.unwrap_err().is_cancelled());
    assert_eq!(dropped.get(), 2);
}

/// The locals of a cancelled child are dropped before its nursery ends.
#[testudo::test]
async fn test_locals_destroyed_promptly_on_cancel() {
    let dropped = Count::default();
    let local = OnDrop(dropped.clone());
    let run = nursery(|n| async move {
        n.spawn(async move {
            let _local = local;
            pending::<()>().await;
        });
        turns().await;
        n.cancel("enough");
    });
    run.await.unwrap();
    assert_eq!(dropped.get(), 1);
}

/// An error before `started` is never wrapped in a group.
#[testudo::test]
async fn test_trio_run_strict_before_started() {
    let run = nursery(|n| async move {
        let end = n.start(|_: Started<()>| async {
            checkpoint().await;
            Err::<(), _>("alone")
        });
        assert!(matches!(end.await, Err(StartError::Failed("alone"))));
        Ok(())
    });
    run.await.unwrap();
}

#[derive(Debug)]
struct Caused(std::num::ParseIntError);

impl std::fmt::Display for Caused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("caused")
    }
}

impl std::error::Error for Caused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// An error before `started` keeps its chain of sources.
#[testudo::test]
async fn test_start_exception_preserves_cause_and_context() {
    let run = nursery(|n| async move {
        let child = |_: Started<()>| async { "x".parse::<u8>().map(drop).map_err(Caused) };
        let error = n.start(child).await.unwrap_err();
        let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let texts: Vec<String> = chain.map(ToString::to_string).collect();
        assert_eq!(texts, ["child failed before it had started: caused", "caused", "invalid digit found in string"]);
        Ok(())
    });
    run.await.unwrap();
}
