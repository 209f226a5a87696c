//! Many children at once: nothing that is done for each of them costs more the more of them there are.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use testudo::{nursery, nursery_local};
use tokio::sync::oneshot;
use tokio::task::yield_now;

/// Says which child it was in.
struct Mark(usize, Arc<Mutex<Vec<usize>>>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

/// In another order the walk jumps through memory, which makes a storm four times slower.
#[testudo::test(start_paused = true)]
async fn a_cancel_ends_children_in_the_order_of_their_spawning() {
    const N: usize = 1000;
    let ended = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ended);
    let run = nursery(|n| async move {
        for child in 0..N {
            let mark = Mark(child, Arc::clone(&ended));
            n.spawn(async move {
                pending::<()>().await;
                drop(mark);
            });
        }
        for _ in 0..100 {
            yield_now().await;
        }
        n.cancel("enough");
    });
    run.await.unwrap();
    assert_eq!(*seen.lock().unwrap(), (0..N).collect::<Vec<_>>());
}

/// Whoever cancels a crowd does not pay for waking it: the flags stand at once, and the runtime wakes.
#[testudo::test(start_paused = true)]
async fn a_cancel_of_a_crowd_is_seen_at_once_and_wakes_all_of_it() {
    const N: usize = 5000;
    let woken = Arc::new(AtomicUsize::new(0));
    let by_cancel = Arc::clone(&woken);
    let run = nursery(|n| async move {
        for _ in 0..N {
            n.spawn(count_wakes(Arc::clone(&woken)));
        }
        while woken.load(Relaxed) < N {
            yield_now().await;
        }
        woken.store(0, Relaxed);
        n.cancel("enough");
        assert!(n.scope().is_cancelled());
        assert_eq!(woken.load(Relaxed), 0, "left to the runtime");
    });
    run.await.unwrap();
    assert_eq!(by_cancel.load(Relaxed), N);
}

/// What a worker has woken or begun last is in a slot of its own, from which no other worker takes it.
#[test]
fn a_cancel_of_a_crowd_is_heard_of_while_the_worker_that_called_it_blocks() {
    const N: usize = 2000;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let heard = runtime.block_on(runtime.spawn(async {
        let ended = Arc::new(Mutex::new(Vec::new()));
        let polls = Arc::new(AtomicUsize::new(0));
        let (last, is_last) = std::sync::mpsc::channel::<()>();
        let (sender, heard) = oneshot::channel();
        let run = nursery(|n| async move {
            for child in 0..N {
                let (mark, polls, last) = (Mark(child, Arc::clone(&ended)), Arc::clone(&polls), last.clone());
                n.spawn(async move {
                    count_wakes(polls).await;
                    drop((mark, last));
                });
            }
            drop(last);
            while polls.load(Relaxed) < N {
                yield_now().await;
            }
            n.cancel("enough");
            // Disconnected when all children are gone.
            let end = is_last.recv_timeout(std::time::Duration::from_secs(30));
            sender.send(end == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)).unwrap();
        });
        run.await.unwrap();
        heard.await.unwrap()
    }));
    assert!(heard.unwrap(), "the other worker has not heard of it");
}

/// Waits for ever, and counts how often it is polled.
async fn count_wakes(polls: Arc<AtomicUsize>) {
    poll_fn(|_| {
        polls.fetch_add(1, Relaxed);
        Poll::<()>::Pending
    })
    .await;
}

/// Once Tokio's coop budget is used up, everything that is polled in the same turn is pending and says nothing of it.
#[testudo::test(start_paused = true)]
async fn children_in_one_task_are_not_all_polled_in_vain_once_the_budget_is_gone() {
    const N: usize = 4096;
    let polls = Cell::new(0_usize);
    let counted = &polls;
    let run = nursery_local(|n| {
        for _ in 0..N {
            let (send, mut receive) = oneshot::channel();
            send.send(()).unwrap();
            n.spawn(poll_fn(move |cx| {
                counted.set(counted.get() + 1);
                Pin::new(&mut receive).poll(cx).map(|got| got.unwrap())
            }));
        }
        async {}
    });
    run.await.unwrap();
    assert!(polls.get() < 2 * N, "{} polls for {N} children", polls.get());
}
