//! Ports of trio's `_core/_tests/test_cancelled.py`: who cancelled, and why.

use std::error::Error;
use std::future::{pending, ready};

use testudo::{CancelScope, Cancelled, CauseKind, Started, cancelled, checkpoint, nursery};
use tokio::time::{Instant, advance};

use crate::read::{End, errors};
use crate::support::S;

async fn cut(reason: &'static str) -> Cancelled {
    let scope = CancelScope::new();
    scope.handle().cancel(reason);
    scope.run(pending::<()>()).await.unwrap_err()
}

/// Its text names the kind, the task and the reason. (It has no constructor.)
#[testudo::test]
async fn test_Cancelled_str() {
    let text = cut("because").await.to_string();
    assert_eq!(text, "cut off: cancelled by task test_Cancelled_str (because)");
}

/// It can be copied, sent and kept as any error.
#[testudo::test]
async fn test_Cancelled_pickle() {
    let one = cut("because").await;
    let kept: Box<dyn Error + Send + Sync> = Box::new(one.clone());
    assert_eq!(kept.to_string(), one.to_string());
    assert_eq!(kept.downcast_ref::<Cancelled>().unwrap().cause(), one.cause());
}

/// Text, kind and task of an explicit cancel; a deadline is its own kind, also when it is moved into the past.
#[testudo::test(start_paused = true)]
async fn test_cancel_reason() {
    let error = cut("hello").await;
    let cause = error.cause();
    assert_eq!(
        (cause.kind(), cause.reason(), cause.task()),
        (CauseKind::Requested, Some("hello"), Some("test_cancel_reason"))
    );
    let past = CancelScope::new().deadline(Instant::now() - S);
    assert_eq!(past.run(checkpoint()).await.unwrap_err().cause().kind(), CauseKind::Deadline);
    let late = CancelScope::new();
    let handle = late.handle();
    let run = late.run(async {
        checkpoint().await;
        handle.set_deadline(Some(Instant::now() - S));
        checkpoint().await;
    });
    let error = run.await.unwrap_err();
    assert_eq!((error.cause().kind(), error.cause().reason()), (CauseKind::Deadline, None));
}

/// What a sibling sees: which task has failed. Differs (S23): the cause names the task; its error is in the nursery's failures.
#[testudo::test]
async fn test_cancel_reason_nursery() {
    let run = nursery(|n| async move {
        let sibling = n.spawn(async {
            let cause = cancelled().await;
            assert_eq!((cause.kind(), cause.task()), (CauseKind::Failed, Some("failing")));
            Ok(())
        });
        n.task().name("failing").spawn(ready(Err::<(), _>("ValueError")));
        drop(sibling.await);
        Ok(())
    });
    assert_eq!(errors(run.await), ["ValueError"]);
}

/// The same from a nursery inside: the one outside is told of the task that held the inner one.
#[testudo::test]
async fn test_cancel_reason_nursery2() {
    let run = nursery(|n| async move {
        n.task().name("outer child").spawn(async {
            let inner: End = nursery(|n| async move {
                n.task().name("inner child").spawn(ready(Err::<(), _>("ValueError")));
                Ok(())
            })
            .await;
            Err::<(), _>(errors(inner)[0])
        });
        let cause = cancelled().await;
        assert_eq!((cause.kind(), cause.task()), (CauseKind::Failed, Some("outer child")));
        Ok(())
    });
    assert_eq!(errors(run.await), ["ValueError"]);
}

/// What fails before `started` is the body's failure, since `start` gives it to the body.
#[testudo::test]
async fn test_cancel_reason_nursery3() {
    let run = nursery(|n| async move {
        n.spawn(async {
            let cause = cancelled().await;
            assert_eq!((cause.kind(), cause.task()), (CauseKind::Failed, Some("test_cancel_reason_nursery3")));
            Ok(())
        });
        checkpoint().await;
        let start = n.task().name("never started").start(|_: Started<()>| ready(Err::<(), _>("ValueError"))).await;
        start.map_err(|_| "out of start")
    });
    assert_eq!(errors(run.await), ["out of start"]);
}

/// An explicit cancel stays one after a deadline.
#[testudo::test(start_paused = true)]
async fn test_cancel_reason_not_overwritten() {
    let scope = CancelScope::new().deadline(Instant::now() + S);
    let handle = scope.handle();
    let run = scope.run(async {
        handle.cancel("explicit");
        advance(2 * S).await;
        assert!(handle.cancel_requested());
        checkpoint().await;
    });
    assert_eq!(run.await.unwrap_err().cause().kind(), CauseKind::Requested);
}

/// A deadline stays one after an explicit cancel.
#[testudo::test(start_paused = true)]
async fn test_cancel_reason_not_overwritten_2() {
    let scope = CancelScope::new().deadline(Instant::now() - S);
    let handle = scope.handle();
    let run = scope.run(async {
        assert!(!handle.cancel("explicit"));
        checkpoint().await;
    });
    assert_eq!(run.await.unwrap_err().cause().kind(), CauseKind::Deadline);
}

/// The error of the body is what the children see as the cause.
#[testudo::test]
async fn test_nested_child_source() {
    let run = nursery(|n| async move {
        n.spawn(async {
            let cause = cancelled().await;
            assert_eq!((cause.kind(), cause.task()), (CauseKind::Failed, Some("test_nested_child_source")));
            Ok(())
        });
        checkpoint().await;
        Err::<(), _>("ValueError")
    });
    assert_eq!(errors(run.await), ["ValueError"]);
}
