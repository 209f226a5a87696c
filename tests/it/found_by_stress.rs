//! The smallest form of what the stress test has found.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use testudo::{CancelScope, FinalizeExt, StartError, Started, bracket, drain, nursery};
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
