//! Ports of trio's `_core/_tests/test_run.py`: the run, its tasks, and what is known of them.

use std::convert::Infallible;
use std::future::{pending, ready};

use futures_util::FutureExt;
use testudo::{
    CancelScope, EffectiveDeadline, Outcome, all_tasks, checkpoint, current_deadline, current_task, is_cancelled,
    nursery, root_nursery, run, spawn,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, advance, sleep};

use crate::read::{errors, note_cancel, panic_of, run_heard};
use crate::support::{Count, Log, OnDrop, S, turns};

/// The value of main comes out of `run`. What has the wrong shape does not compile.
#[test]
fn test_basic() {
    assert_eq!(run(async { Ok::<_, Infallible>(15) }), Outcome::Ok(15));
}

/// The error of main comes out of `run` as it is.
#[test]
fn test_initial_task_error() {
    assert_eq!(run(async { Err::<(), _>("main") }), Outcome::Err("main"));
}

/// A run inside a run is refused, in words.
#[test]
fn test_run_nesting() {
    let text = run(async { Ok::<_, Infallible>(panic_of(|| run(async {}))) }).unwrap();
    assert!(text.contains("inside of another run"), "{text}");
}

/// Two children advance in lockstep, checkpoint by checkpoint.
#[testudo::test]
async fn test_basic_interleave() {
    let log = Log::default();
    let record = log.clone();
    let run = nursery(|n| async move {
        for steps in [["a0", "a1", "a2"], ["b0", "b1", "b2"]] {
            let record = record.clone();
            n.spawn(async move {
                for step in steps {
                    record.push(step);
                    checkpoint().await;
                }
            });
        }
    });
    run.await.unwrap();
    let rounds: Vec<String> = log.seen().chunks(2).map(|round| round.iter().map(|step| &step[1..]).collect()).collect();
    assert_eq!(rounds, ["00", "11", "22"]);
}

/// A crash cancels the sibling, the sibling sees the cancel, and only the crash comes out.
#[testudo::test]
async fn test_task_crash_propagation() {
    let log = Log::default();
    let looper = note_cancel(log.clone(), "looper is cancelled", async {
        loop {
            checkpoint().await;
        }
    });
    let run = nursery(|n| async move {
        n.spawn(looper);
        n.spawn(ready(Err::<(), _>("argh")));
        Ok(())
    });
    assert_eq!(errors(run.await), ["argh"]);
    assert_eq!(log.seen(), ["looper is cancelled"]);
}

/// Tokio's clock goes on.
#[testudo::test(start_paused = true)]
async fn test_current_time() {
    let before = Instant::now();
    sleep(S).await;
    assert_eq!(Instant::now() - before, S);
}

/// A jump of the clock is seen by deadlines.
#[testudo::test(start_paused = true)]
async fn test_current_time_with_mock_clock() {
    let scope = CancelScope::new().deadline(Instant::now() + 5 * S);
    let handle = scope.handle();
    advance(4 * S).await;
    assert!(!handle.cancel_requested());
    advance(S).await;
    assert!(handle.cancel_requested());
    drop(scope);
}

/// Deadlines are on the clock that the program reads. Differs (S2): it is Tokio's, so there is none of ours to ask for.
#[testudo::test(start_paused = true)]
async fn test_current_clock() {
    let at = Instant::now() + S;
    let run = CancelScope::new().deadline(at).run(async { assert_eq!(current_deadline(), EffectiveDeadline::At(at)) });
    run.await.unwrap();
}

/// A task knows itself; its handle says the same.
#[testudo::test]
async fn test_current_task() {
    let main = current_task().unwrap();
    assert_eq!(&*main.name(), "test_current_task");
    let run = nursery(|n| async move {
        let child = n.spawn(async { Ok::<_, Infallible>(current_task().unwrap()) });
        let (id, name) = (child.id(), child.name());
        let seen = child.await.unwrap();
        assert_eq!((seen.id(), seen.name()), (id, name));
        Ok(seen)
    });
    assert_ne!(run.await.unwrap(), main);
}

/// The first task of a run is main. Differs (S30): what is above it belongs to the runner and is not listed.
#[testudo::test]
async fn test_root_task() {
    assert_eq!(all_tasks(), [current_task().unwrap()]);
}

/// Outside of a run there is no task. Differs (S33): looking gives "none" instead of an error, because scopes work there, too; what
/// needs a run panics.
#[test]
fn test_out_of_context() {
    assert!(current_task().is_none()); // What other threads do outside of a runtime is in the same list of `all_tasks`.
    assert!(!is_cancelled() && current_deadline() == EffectiveDeadline::None);
    assert!(panic_of(|| spawn(async {})).contains("needs a run"));
}

/// How many tasks live, and the next deadline. Differs (S30): counts of what is runnable are Tokio's to give.
#[testudo::test(start_paused = true)]
async fn test_current_statistics() {
    assert_eq!(all_tasks().len(), 1);
    let run = nursery(|n| async move {
        let child = n.spawn(pending::<()>());
        assert_eq!((all_tasks().len(), n.len()), (2, 1));
        let scope = CancelScope::new().timeout(9 * S);
        scope
            .run(async { assert_eq!(current_deadline(), EffectiveDeadline::At(Instant::now() + 9 * S)) })
            .await
            .unwrap();
        assert!(child.cancel("enough"));
        turns().await;
        assert_eq!((all_tasks().len(), n.len()), (1, 0));
    });
    run.await.unwrap();
}

/// A task of the run itself. Differs (S30): it is an ordinary task of the root nursery, cancelled when main has ended.
#[test]
fn test_spawn_system_task() {
    let log = Log::default();
    let inner = log.clone();
    let main = async move {
        spawn(note_cancel(inner.clone(), "cancelled at the end", async move {
            inner.push("runs");
            pending::<()>().await;
        }));
        turns().await;
    };
    assert!(run(main).is_ok());
    assert_eq!(log.seen(), ["runs", "cancelled at the end"]);
}

/// A crash of a task of the root. Differs (S26, S30): it is reported and takes nobody down; in trio it is an internal error.
#[test]
fn test_system_task_crash() {
    let (finished, said) = run_heard(async {
        root_nursery().task().name("crasher").spawn(ready(Err::<(), _>("KeyError")));
        turns().await;
        Ok::<_, Infallible>("main goes on")
    });
    assert_eq!(finished.outcome, Outcome::Ok("main goes on"));
    assert_eq!(said, ["failed crasher: KeyError"]);
}

/// A group of errors out of such a task. Differs (S26, S30) as before.
#[test]
fn test_system_task_crash_ExceptionGroup() {
    let (finished, said) = run_heard(async {
        let group = nursery(|n| async move {
            n.spawn(ready(Err::<(), _>("KeyError")));
            n.spawn(ready(Err::<(), _>("ValueError")));
            Ok(())
        });
        root_nursery()
            .task()
            .name("crasher")
            .spawn(group.map(|end| end.map_err(|all| format!("{} errors", all.failures().unwrap().len()))));
        turns().await;
    });
    finished.outcome.unwrap();
    assert_eq!(said, ["failed crasher: 2 errors"]);
}

/// A crash while the end of main cancels everything: the error is not lost. Differs (S26, S30) as before.
#[test]
fn test_system_task_crash_plus_Cancelled() {
    let (finished, said) = run_heard(async {
        root_nursery().task().name("crasher").spawn(async {
            testudo::cancelled().await;
            Err::<(), _>("ValueError")
        });
        spawn(pending::<()>());
        turns().await;
    });
    finished.outcome.unwrap();
    assert_eq!(said, ["failed crasher: ValueError"]);
}

/// Python's `KeyboardInterrupt` out of such a task is a panic in Rust. Differs (S26, S30) as before.
#[test]
fn test_system_task_crash_KeyboardInterrupt() {
    let (finished, said) = run_heard(async {
        root_nursery::<Infallible>().task().name("crasher").spawn(async { crate::support::blow_up("interrupt") });
        turns().await;
    });
    finished.outcome.unwrap();
    assert_eq!(said, ["panicked crasher: interrupt"]);
}

/// Who is alive, by name, also during a `start`. Differs (S41): the tree is shown by the registry, not by links from task to task.
#[testudo::test]
async fn test_task_tree_introspection() {
    let names = || all_tasks().iter().map(|task| task.name().to_string()).collect::<Vec<_>>().join(" ");
    let (go, gone) = oneshot::channel::<()>();
    let run = nursery(|n| async move {
        n.task().name("parent").spawn(
            nursery(|n| async move {
                n.task().name("child").spawn(pending::<()>());
                pending::<()>().await;
            })
            .map(drop),
        );
        let starting = n.task().name("starting").start(|started| async move {
            gone.await.unwrap();
            started.started(());
        });
        let (started, ()) = tokio::join!(starting, async {
            turns().await;
            assert_eq!(names(), "test_task_tree_introspection parent starting child");
            assert_eq!(n.len(), 2, "a pending start counts");
            go.send(()).unwrap();
        });
        started.unwrap();
        n.cancel("over");
    });
    run.await.unwrap();
    assert_eq!(names(), "test_task_tree_introspection");
}

/// A name is given, or made. Differs (S30): a made one is `Task-N`, as in asyncio; the place of the spawn is known besides.
#[testudo::test]
async fn test_spawn_name() {
    let run = nursery(|n| async move {
        let named = n.task().name("named").spawn(async {});
        let owned = n.task().name(format!("task of {}", 7)).spawn(async {});
        let made = n.spawn(async {});
        assert_eq!((&*named.name(), &*owned.name()), ("named", "task of 7"));
        assert!(made.name().starts_with("Task-"), "{}", made.name());
        assert!(made.as_ref().place().file().ends_with("run.rs"));
    });
    run.await.unwrap();
}

tokio::task_local! {
    static VALUE: u8;
}

/// A task-local is set for what is inside. Differs (S12): Tokio copies none at a spawn; what a child needs is passed to it.
#[testudo::test]
async fn test_contextvar_support() {
    let run = VALUE.scope(
        1,
        nursery(|n| async move {
            let (passed, not_passed) = (
                n.spawn(VALUE.scope(VALUE.get(), async { Ok(VALUE.get()) })),
                n.spawn(async { Ok(VALUE.try_with(|_| ()).is_err()) }),
            );
            assert_eq!(passed.await.unwrap(), 1);
            assert!(not_passed.await.unwrap());
            Ok::<_, Infallible>(())
        }),
    );
    run.await.unwrap();
    assert!(VALUE.try_with(|_| ()).is_err());
}

/// Each task has its own.
#[testudo::test]
async fn test_contextvar_multitask() {
    let run = nursery(|n| async move {
        let tasks: Vec<_> = (0..3)
            .map(|value| {
                n.spawn(VALUE.scope(value, async {
                    checkpoint().await;
                    Ok::<_, Infallible>(VALUE.get())
                }))
            })
            .collect();
        for (value, task) in (0..).zip(tasks) {
            assert_eq!(task.await.unwrap(), value);
        }
        Ok(())
    });
    run.await.unwrap();
}

/// A task of the root does not see what its spawner had set.
#[test]
fn test_system_task_contexts() {
    let main = VALUE.scope(1, async {
        let task = spawn(async { Ok::<_, Infallible>(VALUE.try_with(|_| ()).is_err()) });
        assert!(task.await.unwrap());
    });
    run(main).unwrap();
}

/// What a run held is dropped with it, also main's own.
#[test]
fn test_ki_protection_doesnt_leave_cyclic_garbage() {
    let dropped = Count::default();
    let (main, task) = (OnDrop(dropped.clone()), OnDrop(dropped.clone()));
    let outcome = run(async move {
        spawn(async move {
            let _kept = task;
            pending::<()>().await;
        });
        turns().await;
        drop(main);
        Err::<(), _>("main")
    });
    assert_eq!((outcome, dropped.get()), (Outcome::Err("main"), 2));
}

/// Whether this is a task of a run.
#[test]
fn test_trio_context_detection() {
    assert!(current_task().is_none());
    run(async { assert!(current_task().is_some()) }).unwrap();
    assert!(current_task().is_none());
}
