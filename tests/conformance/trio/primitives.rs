//! Ports of trio's tests of primitives under a cancel (`test_sync.py`, `test_channel.py`, `test_parking_lot.py` and others). The
//! primitives are Tokio's; what is shown is that a cancel of ours leaves them whole.

use std::future::pending;
use std::sync::Arc;

use futures_util::FutureExt;
use testudo::{CancelScope, FinalizeExt, catch_cancelled, checkpoint, nursery, shield};
use tokio::sync::{Mutex, Notify, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep};

use crate::read::{note_cancel, run_heard};
use crate::support::{Count, Log, S, turns};

/// A waiter that is cancelled leaves the queue clean: the next one gets the lock.
#[testudo::test]
async fn test_Lock_and_StrictFIFOLock() {
    let (lock, log) = (Arc::new(Mutex::new(())), Log::default());
    let (own, inner) = (Arc::clone(&lock), log.clone());
    let run = nursery(|n| async move {
        let held = own.clone().lock_owned().await;
        let wait = |name| {
            let (lock, log) = (Arc::clone(&own), inner.clone());
            n.spawn(async move {
                let _locked = lock.lock().await;
                log.push(name);
                checkpoint().await;
            })
        };
        let (_one, two, _three) = (wait("one"), wait("two"), wait("three"));
        turns().await;
        two.cancel("no more need");
        turns().await;
        drop(held);
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["one", "three"]);
    assert!(lock.try_lock().is_ok());
}

/// A wait for a condition that is cancelled has its lock again when it unwinds. Ours takes it under a shield.
#[testudo::test]
async fn test_Condition() {
    let (lock, notify, log) = (Arc::new(Mutex::new(())), Arc::new(Notify::new()), Log::default());
    let (own, inner) = (Arc::clone(&lock), log.clone());
    let run = nursery(|n| async move {
        let waiter = {
            let (lock, log) = (Arc::clone(&own), inner.clone());
            n.spawn(async move {
                let locked = lock.clone().lock_owned().await;
                drop(locked);
                let notified = catch_cancelled(notify.notified()).await;
                let locked = shield(lock.lock_owned()).await;
                assert!(notified.is_err());
                log.push("has the lock again");
                drop(locked);
            })
        };
        turns().await;
        let held = own.lock().await;
        waiter.cancel("no more need");
        turns().await;
        assert!(inner.seen().is_empty() && !waiter.is_finished());
        drop(held);
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["has the lock again"]);
}

/// A limiter forgets a waiter that is cancelled.
#[testudo::test]
async fn test_CapacityLimiter_memleak_548() {
    let limiter = Arc::new(Semaphore::new(1));
    let own = Arc::clone(&limiter);
    let run = nursery(|n| async move {
        let token = own.acquire().await.unwrap();
        let tokens = own.clone();
        let waiter = n.spawn(async move { drop(tokens.acquire_owned().await) });
        turns().await;
        assert!(waiter.cancel_and_wait("no more need").await.is_cancelled());
        drop(token);
    });
    run.await.unwrap();
    assert_eq!((limiter.available_permits(), Arc::strong_count(&limiter)), (1, 1));
}

/// A limiter without tokens: waiters wait, one is cancelled, and a token that comes then goes to the next.
#[testudo::test]
async fn test_CapacityLimiter_zero_limit_tokens() {
    let (limiter, log) = (Arc::new(Semaphore::new(0)), Log::default());
    let inner = log.clone();
    let run = nursery(|n| async move {
        let wait = |name| {
            let (tokens, log) = (limiter.clone(), inner.clone());
            n.spawn(async move {
                let _token = tokens.acquire().await;
                log.push(name);
            })
        };
        let (one, _two) = (wait("one"), wait("two"));
        turns().await;
        one.cancel("no more need");
        limiter.add_permits(1);
    });
    run.await.unwrap();
    // The token was there before the cancel was seen or not: who is first in the queue may still take it (M1).
    assert!(log.seen().ends_with(&["two"]), "{:?}", log.seen());
}

/// One of three that are parked is cancelled; two wake-ups wake the other two.
#[testudo::test]
async fn test_parking_lot_cancel() {
    let (lot, log) = (Arc::new(Notify::new()), Log::default());
    let inner = log.clone();
    let run = nursery(|n| async move {
        let park = |name| {
            let (lot, log) = (lot.clone(), inner.clone());
            n.spawn(async move {
                lot.notified().await;
                log.push(name);
            })
        };
        let (_one, two, _three) = (park("one"), park("two"), park("three"));
        turns().await;
        assert!(two.cancel_and_wait("no more need").await.is_cancelled());
        lot.notify_one();
        lot.notify_one();
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["one", "three"]);
}

/// A waiter learns that the owner of what it waits for was cancelled.
#[testudo::test]
async fn test_parking_lot_break_parking_tasks() {
    let run = nursery(|n| async move {
        let (wake, woken) = oneshot::channel::<()>();
        let owner = n.spawn(async move {
            let _owned = wake;
            pending::<()>().await;
        });
        let waiter = n.spawn(async { assert!(woken.await.is_err()) });
        turns().await;
        owner.cancel("dies");
        assert!(waiter.await.is_ok());
    });
    run.await.unwrap();
}

/// Who reads from a channel is cancelled: its producer, in a nursery inside, is cancelled with it.
#[testudo::test(start_paused = true)]
async fn test_as_safe_channel_cancelled() {
    let log = Log::default();
    let inner = log.clone();
    let run = CancelScope::new().timeout(5 * S).run(nursery(|n| async move {
        let (send, mut receive) = mpsc::channel(1);
        n.spawn(note_cancel(inner.clone(), "producer", async move {
            while send.send(()).await.is_ok() {
                sleep(2 * S).await;
            }
        }));
        while receive.recv().await.is_some() {
            inner.push("item");
        }
    }));
    assert!(run.await.is_err());
    assert_eq!(log.seen(), ["item", "item", "item", "producer"]);
}

/// The producer and the one around it are cancelled at once: one end, and the outermost absorbs.
#[testudo::test]
async fn test_as_safe_channel_multi_cancel() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let (outer_handle, inner_handle) = (outer.handle(), inner.handle());
    let run = outer.run(async {
        let end = inner.run(nursery(|n| async move {
            let (send, mut receive) = mpsc::channel::<()>(1);
            n.spawn(async move {
                inner_handle.cancel("producer");
                outer_handle.cancel("reader");
                let _kept = send;
                pending::<()>().await;
            });
            receive.recv().await;
        }));
        drop(end.await);
        unreachable!("the inner scope only unwinds");
    });
    assert_eq!(run.await.unwrap_err().cause().reason(), Some("reader"));
}

/// A cancel inside the producer stays there: the reader goes on.
#[testudo::test]
async fn test_as_safe_channel_doesnt_leak_cancellation() {
    let run = nursery(|n| async move {
        let (send, mut receive) = mpsc::channel(1);
        n.spawn(async move {
            let scope = CancelScope::new();
            scope.handle().cancel("inside");
            assert!(scope.run(checkpoint()).await.is_err());
            send.send(7).await.unwrap();
        });
        assert_eq!(receive.recv().await, Some(7));
        checkpoint().await;
    });
    run.await.unwrap();
}

/// An item wakes one of two readers; when that is cancelled, the item is there for the other.
#[testudo::test]
async fn test_UnboundedQueue_no_spurious_wakeups() {
    let (send, receive) = mpsc::unbounded_channel();
    let (receive, log) = (Arc::new(Mutex::new(receive)), Log::default());
    let inner = log.clone();
    let run = nursery(|n| async move {
        let read = |name| {
            let (receive, log) = (Arc::clone(&receive), inner.clone());
            n.spawn(async move {
                receive.lock().await.recv().await.unwrap();
                log.push(name);
            })
        };
        let (one, _two) = (read("one"), read("two"));
        turns().await;
        assert!(one.cancel_and_wait("no more need").await.is_cancelled());
        send.send(()).unwrap();
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["two"]);
}

/// "All tasks are blocked" is when the paused clock goes on.
#[testudo::test(start_paused = true)]
async fn test_wait_all_tasks_blocked() {
    let (done, began) = (Count::default(), Instant::now());
    let inner = done.clone();
    let run = nursery(|n| async move {
        n.spawn(async move {
            turns().await;
            inner.add();
        });
        sleep(S / 1_000).await;
    });
    run.await.unwrap();
    assert_eq!((done.get(), began.elapsed()), (1, S / 1_000));
}

/// A task that waits with a timeout is blocked, too.
#[testudo::test(start_paused = true)]
async fn test_wait_all_tasks_blocked_with_timeouts() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let timed = inner.clone();
        n.spawn(async move {
            assert!(CancelScope::new().timeout(2 * S).run(pending::<()>()).await.is_err());
            timed.push("timed out");
        });
        sleep(S).await;
        inner.push("all are blocked");
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["all are blocked", "timed out"]);
}

/// Who waits longer comes later.
#[testudo::test(start_paused = true)]
async fn test_wait_all_tasks_blocked_with_cushion() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        for (cushion, name) in [(3, "long"), (1, "short"), (2, "middle")] {
            let log = inner.clone();
            n.spawn(async move {
                sleep(cushion * S / 1_000).await;
                log.push(name);
            });
        }
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["short", "middle", "long"]);
}

/// A step that is cancelled while it waits for its turn breaks the sequence: the later ones are told.
#[testudo::test]
async fn test_Sequencer_cancel() {
    let run = nursery(|n| async move {
        let (first, turn) = oneshot::channel::<()>();
        let (next, after) = oneshot::channel::<()>();
        let waiting = n.spawn(async move {
            let _passes_on = next;
            drop(turn.await);
        });
        turns().await;
        waiting.cancel("in the middle");
        assert!(after.await.is_err());
        drop(first);
    });
    run.await.unwrap();
}

/// A hook that delivers the cancel, and fails. Differs (S19): its panic is reported and does not replace the cancel.
#[test]
fn test_bad_deliver_cancel() {
    let (finished, said) = run_heard(async {
        let scope = CancelScope::new();
        scope.handle().cancel("now");
        let hook = async { crate::support::blow_up("bad hook") };
        assert!(scope.run(pending::<()>().on_cancel(hook)).await.is_err());
    });
    finished.outcome.unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("bad hook"), "{said:?}");
}

/// Connections live in the nursery that was given: the listener is cancelled, they go on.
#[testudo::test]
async fn test_serve_listeners_connection_nursery() {
    let log = Log::default();
    let (inner, (close, closed)) = (log.clone(), oneshot::channel::<()>());
    let run = nursery(|connections| async move {
        let serve = nursery(|listeners| async move {
            let record = inner.clone();
            listeners.spawn(note_cancel(inner, "listener", async move {
                connections.spawn(async move {
                    closed.await.unwrap();
                    record.push("connection");
                });
                pending::<()>().await;
            }));
            turns().await;
            listeners.cancel("no more connections");
        });
        serve.map(|end| end.unwrap()).await;
        close.send(()).unwrap();
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["listener", "connection"]);
}

/// A deadline that is set from outside of the runtime wakes the sleeper.
#[testudo::test(start_paused = true)]
async fn test_host_altering_deadlines_wakes_trio_up() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let began = Instant::now();
    let (end, ()) = tokio::join!(scope.run(pending::<()>()), async {
        turns().await;
        let at = began + S;
        std::thread::spawn(move || handle.set_deadline(Some(at))).join().unwrap();
    });
    assert!(end.is_err());
    assert_eq!(began.elapsed(), S);
}
