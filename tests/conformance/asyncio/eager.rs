//! Ports of asyncio's `test_eager_task_factory.py`. A Rust future that is polled in place is as eager as can be: nothing is spawned.

use std::convert::Infallible;
use std::future::ready;

use futures_util::FutureExt;
use testudo::{CancelScope, Outcome, all_tasks, checkpoint, current_task, nursery, shield};

use crate::support::{Log, turns};

/// What never waits is done at its first poll, without a task.
#[testudo::test]
async fn test_eager_completion() {
    let before = all_tasks().len();
    assert_eq!(shield(async { all_tasks().len() }).now_or_never(), Some(before));
    assert_eq!(CancelScope::new().run(ready(7)).now_or_never().unwrap().unwrap(), 7);
}

/// What waits after its first step goes on later.
#[testudo::test]
async fn test_block_after_eager_step() {
    let log = Log::default();
    let run = async {
        log.push("first step");
        checkpoint().await;
        log.push("later");
    };
    let mut run = Box::pin(CancelScope::new().run(run));
    assert!(run.as_mut().now_or_never().is_none());
    assert_eq!(log.seen(), ["first step"]);
    run.await.unwrap();
    assert_eq!(log.seen(), ["first step", "later"]);
}

/// A cancel after the end does nothing, and says so.
#[testudo::test]
async fn test_cancellation_after_eager_completion() {
    let run = nursery(|n| async move {
        let task = n.spawn(async { Ok::<_, Infallible>(7) });
        turns().await;
        assert!(!task.cancel("too late"));
        assert_eq!(task.await, Outcome::Ok(7));
        Ok(())
    });
    run.await.unwrap();
}

/// A cancel after the first step is the end of the second.
#[testudo::test]
async fn test_cancellation_after_eager_step_blocks() {
    let scope = CancelScope::new();
    let (handle, log) = (scope.handle(), Log::default());
    let mut run = Box::pin(scope.run(async {
        log.push("first step");
        checkpoint().await;
        log.push("too far");
    }));
    assert!(run.as_mut().now_or_never().is_none());
    assert!(handle.cancel("now"));
    assert!(run.await.is_err());
    assert_eq!(log.seen(), ["first step"]);
}

/// Code that is polled in place is in the task that polls it. Differs (S7): only a spawned child is a task of its own.
#[testudo::test]
async fn test_current_task() {
    let main = current_task().unwrap();
    assert_eq!(shield(async { current_task().unwrap() }).await, main);
    let run =
        nursery(|n| async move { Ok::<_, Infallible>(n.spawn(async { Ok(current_task().unwrap()) }).await.unwrap()) });
    assert_ne!(run.await.unwrap(), main);
}

/// A child that is done is not listed.
#[testudo::test]
async fn test_all_tasks_with_eager_completion() {
    let run = nursery(|n| async move {
        drop(n.spawn(async {}).await);
        assert_eq!(all_tasks().len(), 1);
    });
    run.await.unwrap();
}

/// A child that waits is listed.
#[testudo::test]
async fn test_all_tasks_with_eager_blocking() {
    let run = nursery(|n| async move {
        let task = n.spawn(turns());
        checkpoint().await;
        assert!(all_tasks().contains(&task.as_ref()));
    });
    run.await.unwrap();
}

tokio::task_local! {
    static VALUE: u8;
}

/// Code that is polled in place sees the task-locals around it, also in a shield.
#[testudo::test]
async fn test_context_vars() {
    VALUE
        .scope(7, async {
            assert_eq!(shield(async { VALUE.get() }).await, 7);
            assert_eq!(CancelScope::new().run(async { VALUE.get() }).await.unwrap(), 7);
        })
        .await;
}

/// A foreign future that is awaited in the first step is polled there.
#[testudo::test]
async fn test_await_future_during_eager_step() {
    let (send, receive) = tokio::sync::oneshot::channel();
    send.send(7).unwrap();
    assert_eq!(shield(receive).now_or_never(), Some(Ok(7)));
}
