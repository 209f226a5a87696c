//! The smallest form of what the stress test has found.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use testudo::{CancelScope, FinalizeExt, NurseryError, Policy, StartError, Started, bracket, drain, nursery, shield};
use tokio::sync::oneshot;
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

/// A waker that is woken or not.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// `FuturesUnordered` wakes itself after each round. What the code has waited for may come just before the poll that this leads to.
#[tokio::test(start_paused = true)]
async fn scope_ends_at_whatever_poll_its_code_turns_away_from_a_shield() {
    for at in 0..20 {
        let (leave, left) = oneshot::channel::<()>();
        let scope = CancelScope::new();
        let handle = scope.handle();
        let mut run = pin!(scope.run(async move {
            let mut held = FuturesUnordered::from_iter([shield(sleep(S))]);
            tokio::select! {
                biased;
                _ = held.next() => unreachable!("time stands still"),
                _ = left => {}
            }
            pending::<()>().await;
        }));
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let mut leave = Some(leave);
        handle.cancel("test");
        bell.0.store(true, Ordering::SeqCst);
        let (mut polls, mut ended) = (0, false);
        while !ended && (bell.0.swap(false, Ordering::SeqCst) || leave.is_some()) {
            ended = run.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            polls += 1;
            assert!(polls < 100, "it spins");
            // At rest at the latest.
            let is_due = polls == at || !bell.0.load(Ordering::SeqCst);
            if let Some(leave) = leave.take_if(|_| is_due) {
                leave.send(()).unwrap();
            }
        }
        assert!(ended, "asleep for ever, {polls} polls after the cancel");
    }
    assert!(drain(2 * S).await.is_clean());
}
