//! Tokio's own handles and tokens beside ours (S45).

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testudo::{CancelScope, adopt, dump, nursery};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::sleep;

use crate::support::turns;

const SECOND: Duration = Duration::from_secs(1);

/// Counts when it is dropped.
struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[expect(clippy::disallowed_methods, reason = "a plain Tokio task is what is adopted")]
fn plain<F>(fut: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(fut)
}

#[testudo::test(start_paused = true)]
async fn an_adopted_handle_gives_its_value() {
    let result = nursery(|n| async move {
        let task = n.spawn(adopt(plain(async { 7 })));
        Ok::<_, JoinError>(task.await.unwrap())
    });
    assert_eq!(result.await.unwrap(), 7);
}

#[testudo::test(start_paused = true)]
async fn a_cancel_aborts_an_adopted_task_and_waits_for_its_end() {
    let ended = Arc::new(AtomicUsize::new(0));
    let guard = OnDrop(Arc::clone(&ended));
    let result = nursery(|n| async move {
        let handle = plain(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        let task = n.spawn(adopt(handle));
        sleep(SECOND).await;
        assert!(task.cancel_and_wait("enough").await.is_cancelled(), "an abort that we asked for is no error");
        Ok::<_, JoinError>(())
    });
    result.await.unwrap();
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

#[testudo::test]
async fn the_shield_of_an_adopted_task_is_placed_where_it_was_adopted() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let result = nursery(|n| async move {
        // It has begun by then, and nothing aborts it.
        let (begun, has_begun) = oneshot::channel();
        let handle = spawn_blocking(move || {
            begun.send(()).unwrap();
            held.recv().unwrap_err();
        });
        let task = n.spawn(adopt(handle));
        has_begun.await.unwrap();
        turns().await;
        task.cancel("test");
        turns().await;
        let text = dump().to_string();
        assert!(text.contains("shield at tests/it/interop.rs") && !text.contains("at src/"), "{text}");
        drop(release);
        Ok::<_, JoinError>(())
    });
    result.await.unwrap();
}

#[testudo::test(start_paused = true)]
async fn an_adopted_task_that_panicked_fails_the_nursery() {
    let result = nursery(|n| async move {
        n.spawn(adopt(plain(async { panic!("boom") })));
        pending::<()>().await;
        Ok::<_, JoinError>(())
    });
    let error = result.await.unwrap_err();
    assert_eq!(error.failures().unwrap().len(), 1);
}

#[testudo::test(start_paused = true)]
async fn an_adopted_set_ends_before_its_nursery() {
    let ended = Arc::new(AtomicUsize::new(0));
    let mut set = JoinSet::new();
    for _ in 0..3 {
        let guard = OnDrop(Arc::clone(&ended));
        set.spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        });
    }
    let run = CancelScope::new().timeout(SECOND).run(nursery(|n| async move {
        n.spawn(adopt(set));
        Ok::<_, JoinError>(())
    }));
    assert!(run.await.is_err());
    assert_eq!(ended.load(Ordering::SeqCst), 3);
}

#[cfg(feature = "interop")]
mod token {
    use testudo::{run_until_token, shield};
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[testudo::test(start_paused = true)]
    async fn a_token_cancels_a_scope_and_shields_in_it_hold() {
        let token = CancellationToken::new();
        let run = run_until_token(token.clone(), async {
            shield(sleep(5 * SECOND)).await;
            pending::<()>().await;
        });
        let started = tokio::time::Instant::now();
        let (result, ()) = tokio::join!(run, async {
            sleep(SECOND).await;
            token.cancel();
        });
        assert!(result.is_err());
        assert_eq!(started.elapsed(), 5 * SECOND);
    }

    #[testudo::test]
    async fn a_token_that_is_cancelled_already_cuts_at_the_first_suspension() {
        for _ in 0..1000 {
            let token = CancellationToken::new();
            token.cancel();
            run_until_token(token, tokio::task::yield_now()).await.unwrap_err();
        }
    }

    #[testudo::test(start_paused = true)]
    async fn a_scope_that_has_ended_leaves_its_token_alone() {
        let token = CancellationToken::new();
        assert_eq!(run_until_token(token.clone(), async { 1 }).await.unwrap(), 1);
        assert!(!token.is_cancelled());
    }

    #[testudo::test(start_paused = true)]
    async fn a_token_of_a_scope_follows_a_cancel_from_outside() {
        let outer = CancelScope::new();
        let outside = outer.handle();
        let inner = CancelScope::new();
        let token = inner.handle().to_token();
        let run = outer.run(inner.run(pending::<()>()));
        let ((), result) = tokio::join!(token.cancelled(), async {
            let stop = async { outside.cancel("enough") };
            tokio::join!(run, stop).0
        });
        assert!(result.is_err());
        assert!(token.is_cancelled());
    }
}
