//! The smallest form of what the stress test has found.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use testudo::{CancelScope, FinalizeExt, NurseryError, Policy, StartError, Started, bracket, drain, nursery, shield};
use tokio::time::{sleep, timeout};

const S: Duration = Duration::from_secs(1);

#[testudo::test(start_paused = true)]
async fn start_outlives_a_child_that_drops_started_and_goes_on() {
    let end = nursery(|n| async move {
        let start = n.start(|started: Started<()>| async move {
            drop(started);
            sleep(S).await;
        });
        let other = async {
            sleep(S / 2).await;
        };
        let (result, ()) = tokio::join!(start, other);
        assert!(matches!(result, Err(StartError::NotStarted)));
    });
    end.await.unwrap();
}

/// A future that waits for ever, has been polled, and counts its finalizer.
fn finalized() -> (Arc<AtomicUsize>, std::pin::Pin<Box<impl Future<Output = ()> + Send>>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let fut = std::future::pending::<()>().finally(async move {
        sleep(S).await;
        count.fetch_add(1, Ordering::SeqCst);
    });
    (runs, Box::pin(fut))
}

#[tokio::test(start_paused = true)]
async fn finalizer_is_rescued_from_a_drop_on_a_thread_without_a_runtime() {
    let (runs, mut fut) = finalized();
    assert!(timeout(S, &mut fut).await.is_err());
    std::thread::spawn(|| drop(fut)).join().unwrap();
    assert!(drain(10 * S).await.is_clean());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[testudo::test(start_paused = true)]
async fn finalizer_of_a_future_that_outlives_its_scope_is_rescued_by_the_nursery() {
    let (runs, mut fut) = finalized();
    let end = nursery(|_| async move {
        let once = poll_fn(|cx| Poll::Ready(fut.as_mut().poll(cx).is_pending()));
        assert!(CancelScope::new().run(once).await.unwrap());
        drop(fut);
    });
    end.await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[testudo::test(start_paused = true)]
async fn release_of_a_bracket_that_was_dropped_in_its_acquire_is_awaited_by_the_nursery() {
    let releases = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&releases);
    let end = nursery(|_| async move {
        let release = |()| async move {
            sleep(S).await;
            count.fetch_add(1, Ordering::SeqCst);
        };
        let run = bracket(|_| sleep(2 * S), |()| async {}, release);
        assert!(timeout(S, run).await.is_err());
    });
    end.await.unwrap();
    assert_eq!(releases.load(Ordering::SeqCst), 1);
}

#[testudo::test(start_paused = true)]
async fn nursery_that_waits_for_a_daemon_waits_for_what_is_rescued_from_it() {
    let writes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&writes);
    let end = nursery(|n| async move {
        let write = async move {
            sleep(5 * S).await;
            count.fetch_add(1, Ordering::SeqCst);
        };
        n.task().daemon().spawn(shield(async move {
            assert!(timeout(2 * S, shield(write)).await.is_err());
        }));
        sleep(S).await;
    });
    end.await.unwrap();
    assert_eq!(writes.load(Ordering::SeqCst), 1);
}

#[testudo::test(start_paused = true)]
async fn first_success_returns_the_error_of_its_body() {
    let run = nursery(|n| async move {
        n.spawn(async { Ok(()) });
        sleep(S / 2).await;
        Err::<(), _>("boom")
    });
    let end = timeout(5 * S, run.policy(Policy::FirstSuccess)).await;
    let late = nursery(|n| async move {
        n.spawn(async {
            sleep(S).await;
            Ok(())
        });
        Err::<(), _>("boom")
    });
    let late = timeout(5 * S, late.policy(Policy::FirstSuccess)).await;
    assert!(end.unwrap().is_err_and(|error| error.is_cancelled()));
    assert!(matches!(late.expect("it returns"), Err(NurseryError::Failed(_))));
}

#[tokio::test(start_paused = true)]
async fn drain_that_gives_up_names_a_shield_inside_a_scope_of_a_plain_task() {
    #[expect(clippy::disallowed_methods, reason = "a task that nobody of ours owns")]
    let task = tokio::spawn(CancelScope::new().run(shield(sleep(5 * S))));
    tokio::task::yield_now().await;
    assert_eq!(drain(S).await.left().len(), 1);
    assert!(drain(10 * S).await.is_clean());
    assert!(task.await.unwrap().is_ok());
}
