//! Ports of trio's `_core/_tests/test_run.py`: `TrioToken`, the way in from other threads. Ours is a handle: `Nursery` to spawn, a
//! scope's handle to cancel, both from any thread.

use std::convert::Infallible;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::thread;

use futures_util::FutureExt;
use testudo::{CancelScope, Nursery, checkpoint, nursery, root_nursery, run};

use crate::support::{Count, S, blow_up, turns};

/// All clones of a handle are the same nursery, also when they come from different places.
#[test]
fn test_TrioToken_identity() {
    let main = async {
        let (one, two) = (root_nursery::<Infallible>(), root_nursery::<Infallible>());
        let before = two.len();
        one.spawn(pending::<()>());
        assert_eq!((one.clone().len(), two.len()), (before + 1, before + 1));
    };
    run(main).unwrap();
}

/// A thread spawns a task into a nursery.
#[testudo::test]
async fn test_TrioToken_run_sync_soon_basic() {
    let done = Count::default();
    let inner = done.clone();
    let run = nursery(|n| async move {
        let own = n.clone();
        thread::spawn(move || drop(own.spawn(async move { inner.add() }))).join().unwrap();
    });
    run.await.unwrap();
    assert_eq!(done.get(), 1);
}

/// After the end the future comes back, and nothing has run.
#[test]
fn test_TrioToken_run_sync_soon_too_late() {
    let mut kept: Option<Nursery<Infallible>> = None;
    run(async { kept = Some(root_nursery()) }).unwrap();
    let done = Count::default();
    let inner = done.clone();
    assert!(kept.unwrap().try_spawn(async move { inner.add() }).is_err());
    assert_eq!(done.get(), 0);
}

/// A call that many threads make and that counts once. Differs (S1): only a cancel is such a call.
#[testudo::test]
async fn test_TrioToken_run_sync_soon_idempotent() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let firsts: usize = thread::scope(|threads| {
        let all: Vec<_> = (0..4).map(|_| threads.spawn(|| usize::from(handle.cancel("now")))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(firsts, 1);
    assert!(scope.run(pending::<()>()).await.is_err());
}

/// What runs may ask to be run again.
#[testudo::test]
async fn test_TrioToken_run_sync_soon_idempotent_requeue() {
    fn again(n: &Nursery<Infallible>, done: Count) {
        let own = n.clone();
        n.spawn(async move {
            done.add();
            if done.get() < 100 {
                again(&own, done);
            }
        });
    }
    let done = Count::default();
    let inner = done.clone();
    nursery(|n| async move { again(&n, inner) }).await.unwrap();
    assert_eq!(done.get(), 100);
}

/// Main fails; after that nothing is taken any more.
#[test]
fn test_TrioToken_run_sync_soon_after_main_crash() {
    let mut kept: Option<Nursery<Infallible>> = None;
    let main = async {
        kept = Some(root_nursery());
        Err::<(), _>("main")
    };
    assert!(!run(main).is_ok());
    assert!(kept.unwrap().try_spawn(async {}).is_err());
}

/// A crash of one goes on at the nursery's end; what was spawned after it still runs.
#[testudo::test]
async fn test_TrioToken_run_sync_soon_crashes() {
    let done = Count::default();
    let inner = done.clone();
    let run = nursery(|n| async move {
        thread::spawn(move || {
            n.spawn(async { blow_up("crash") });
            n.spawn(async move { inner.add() });
        })
        .join()
        .unwrap();
        pending::<()>().await;
    });
    let payload = AssertUnwindSafe(run).catch_unwind().await.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"crash"));
    assert_eq!(done.get(), 1);
}

/// Records the order of many tasks that one thread spawns.
async fn in_order(many: usize) -> Vec<usize> {
    let (send, mut order) = tokio::sync::mpsc::unbounded_channel();
    let run = nursery(|n| async move {
        thread::spawn(move || {
            (0..many).for_each(|at| {
                let send = send.clone();
                n.spawn(async move { send.send(at).unwrap() });
            })
        })
        .join()
        .unwrap();
    });
    run.await.unwrap();
    std::iter::from_fn(|| order.try_recv().ok()).collect()
}

/// In the order of the calls, on one thread.
#[testudo::test]
async fn test_TrioToken_run_sync_soon_FIFO() {
    assert_eq!(in_order(100).await, (0..100).collect::<Vec<_>>());
}

/// One that asks for itself again and again does not starve the body.
#[testudo::test]
async fn test_TrioToken_run_sync_soon_starvation_resistance() {
    fn again(n: &Nursery<Infallible>, requests: Count, enough: Count) {
        requests.add();
        assert!(requests.get() < 100_000, "the body has no turn");
        let own = n.clone();
        n.spawn(async move {
            if enough.get() == 0 {
                again(&own, requests, enough);
            }
        });
    }
    let run = nursery(|n| async move {
        let enough = Count::default();
        again(&n, Count::default(), enough.clone());
        for _ in 0..50 {
            checkpoint().await;
        }
        enough.add();
    });
    run.await.unwrap();
}

/// A thousand calls from a thread, each counted.
#[testudo::test]
async fn test_TrioToken_run_sync_soon_threaded_stress_test() {
    let done = Count::default();
    let inner = done.clone();
    let run = nursery(|n| async move {
        let thread = thread::spawn(move || {
            for _ in 0..1_000 {
                let done = inner.clone();
                n.spawn(async move { done.add() });
            }
        });
        turns().await;
        thread.join().unwrap();
    });
    run.await.unwrap();
    assert_eq!(done.get(), 1_000);
}

/// A very long queue.
#[testudo::test]
async fn test_TrioToken_run_sync_soon_massive_queue() {
    assert_eq!(in_order(20_000).await.len(), 20_000);
}

/// A crash after the body has ended goes on at the nursery's end.
#[testudo::test(start_paused = true)]
async fn test_TrioToken_run_sync_soon_late_crash() {
    let run = nursery(|n| async move {
        n.spawn(async {
            tokio::time::sleep(S).await;
            blow_up("late");
        });
    });
    let payload = AssertUnwindSafe(run).catch_unwind().await.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"late"));
}
