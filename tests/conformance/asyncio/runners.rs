//! Ports of asyncio's `test_runners.py` that need no signal; those with one are in `tests/process/ported.rs`.

use std::convert::Infallible;
use std::future::{pending, ready};

use testudo::{Outcome, Runner, catch_cancelled, current_task, nursery, root_nursery, run, shield, spawn};

use crate::read::{note_cancel, panic_of, run_heard, run_quietly};
use crate::support::{Count, Log, OnDrop, turns};

/// The value of main.
#[test]
fn test_asyncio_run_return() {
    assert_eq!(run(async { Ok::<_, Infallible>(42) }), Outcome::Ok(42));
}

/// The error of main.
#[test]
fn test_asyncio_run_raises() {
    assert_eq!(run(ready(Err::<(), _>("spam"))), Outcome::Err("spam"));
}

/// What may be run. Differs (S31): any future; in asyncio `run(shield(main()))` is a `ValueError`.
#[test]
fn test_asyncio_run_only_coro() {
    assert_eq!(run(shield(ready(Ok::<_, Infallible>(42)))), Outcome::Ok(42));
}

/// Inside of a running loop it is refused.
#[test]
fn test_asyncio_run_from_running_loop() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let text = runtime.block_on(async { panic_of(|| run(async {})) });
    assert!(text.contains("inside of a Tokio runtime"), "{text}");
}

/// Tasks that hang are cancelled when main has ended.
#[test]
fn test_asyncio_run_cancels_hanging_tasks() {
    let log = Log::default();
    let task = note_cancel(log.clone(), "cancelled", pending::<()>());
    let finished = run_quietly(async {
        spawn(task);
        Ok::<_, Infallible>(123)
    });
    assert_eq!(finished.outcome, Outcome::Ok(123));
    assert_eq!(log.seen(), ["cancelled"]);
}

/// Their errors are reported.
#[test]
fn test_asyncio_run_reports_hanging_tasks_errors() {
    let (finished, said) = run_heard(async {
        root_nursery().task().name("hanging").spawn(async {
            drop(catch_cancelled(pending::<()>()).await);
            Err::<(), _>("ZeroDivisionError")
        });
        turns().await;
        Ok::<_, Infallible>(123)
    });
    assert_eq!(finished.outcome, Outcome::Ok(123));
    assert_eq!(said, ["failed hanging: ZeroDivisionError"]);
}

/// What generators held is closed after such errors. Ours have no generators: a local of the task is dropped.
#[test]
fn test_asyncio_run_closes_gens_after_hanging_tasks_errors() {
    let dropped = Count::default();
    let local = OnDrop(dropped.clone());
    let (finished, said) = run_heard(async move {
        root_nursery().task().name("hanging").spawn(async move {
            let _local = local;
            drop(catch_cancelled(pending::<()>()).await);
            Err::<(), _>("ZeroDivisionError")
        });
        turns().await;
    });
    finished.outcome.unwrap();
    assert_eq!((said.len(), dropped.get()), (1, 1));
}

/// A task of the program's own kind. Ours: main cancels itself without anything to await, and returns.
#[test]
fn test_asyncio_run_without_uncancel() {
    let finished = run_quietly(async {
        assert!(current_task().unwrap().cancel("myself"));
        Ok::<_, Infallible>(42)
    });
    assert_eq!(finished.outcome, Outcome::Ok(42));
}

/// The runtime is chosen by the runner.
#[test]
fn test_asyncio_run_loop_factory() {
    let flavor = async { Ok::<_, Infallible>(tokio::runtime::Handle::current().runtime_flavor()) };
    let finished = Runner::new().current_thread().signals(false).run(flavor);
    assert_eq!(finished.outcome.unwrap(), tokio::runtime::RuntimeFlavor::CurrentThread);
}

/// Without a choice it has several threads.
#[test]
fn test_loop_factory_default_event_loop() {
    let flavor = async { Ok::<_, Infallible>(tokio::runtime::Handle::current().runtime_flavor()) };
    assert_eq!(run(flavor).unwrap(), tokio::runtime::RuntimeFlavor::MultiThread);
}

/// The same through the runner.
#[test]
fn test_custom_factory() {
    let workers = async { Ok::<_, Infallible>(tokio::runtime::Handle::current().metrics().num_workers()) };
    assert_eq!(Runner::new().worker_threads(3).signals(false).run(workers).outcome.unwrap(), 3);
}

/// A runner runs main and gives its value.
#[test]
fn test_run() {
    assert_eq!(run_quietly(ready(Ok::<_, Infallible>("f"))).outcome, Outcome::Ok("f"));
}

/// A runner takes any future. Differs (S31).
#[test]
fn test_run_future() {
    let finished = run_quietly(futures_util::future::ok::<_, Infallible>("result"));
    assert_eq!(finished.outcome, Outcome::Ok("result"));
}

/// It closes what it made: after the run nothing of it can be used.
#[test]
fn test_explicit_close() {
    let mut kept = None;
    run_quietly(async { kept = Some(root_nursery::<Infallible>()) }).outcome.unwrap();
    assert!(kept.unwrap().try_spawn(async {}).is_err());
}

/// A run in a run is refused, and the outer one goes on.
#[test]
fn test_recursive_run() {
    let finished = run_quietly(async {
        let text = panic_of(|| Runner::new().run(async {}));
        assert!(text.contains("inside of a Tokio runtime"), "{text}");
        nursery(|n| async move {
            n.spawn(async {});
        })
        .await
        .unwrap();
    });
    finished.outcome.unwrap();
}
