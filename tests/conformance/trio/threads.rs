//! Ports of trio's `_tests/test_threads.py`: threads under a cancel. Ours are the blocking children of a nursery.

use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, mpsc};

use testudo::{
    BlockingCx, CancelScope, CauseKind, FinalizeExt, Nursery, Outcome, checkpoint, is_cancelled, nursery, root_nursery,
};
use tokio::sync::{Semaphore, oneshot};

use crate::read::run_quietly;
use crate::support::{Count, Log, turns};

fn wait_for_cancel(cx: &BlockingCx) {
    while !cx.is_cancelled() {
        std::thread::yield_now();
    }
}

/// Abandoned: the task ends and the thread goes on. Not abandoned: it is waited for. Cancelled on entry: differs (S7, S28), the
/// thread begins, as each child does, and is told.
#[testudo::test]
async fn test_run_in_worker_thread_cancellation() {
    let log = Log::default();
    let (go, gone) = mpsc::channel::<()>();
    let (tell, told) = oneshot::channel();
    let end = nursery(|n| async move {
        let abandoned = n.task().abandon().spawn_blocking(move |_| {
            gone.recv().unwrap();
            tell.send("the thread went on").unwrap();
        });
        turns().await;
        n.cancel("now");
        assert!(matches!(abandoned.await, Outcome::Cancelled(_)));
    });
    drop(end.await);
    go.send(()).unwrap();
    assert_eq!(told.await, Ok("the thread went on"));

    let inner = log.clone();
    let end = nursery(|n| async move {
        n.spawn_blocking(move |cx| {
            wait_for_cancel(cx);
            inner.push("waited for");
        });
        turns().await;
        n.cancel("now");
    });
    end.await.unwrap();
    let inner = log.clone();
    let end = nursery(|n| async move {
        n.cancel("before");
        n.spawn_blocking(move |cx| inner.push(if cx.is_cancelled() { "told at once" } else { "not told" }));
    });
    end.await.unwrap();
    assert_eq!(log.seen(), ["waited for", "told at once"]);
}

/// The result of an abandoned thread that comes after the run is dropped without a word.
#[test]
fn test_run_in_worker_thread_abandoned() {
    let (go, gone) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let finished = run_quietly(async move {
        root_nursery::<String>().task().abandon().spawn_blocking(move |_| {
            gone.recv().unwrap();
            tell.send(()).unwrap();
            Err::<(), _>("nobody hears it".to_owned())
        });
        turns().await;
        go.send(()).unwrap();
    });
    finished.outcome.unwrap();
    told.recv().unwrap();
    assert!(finished.report.is_clean());
}

/// Threads behind a limiter: at most so many at once; a waiter that is cancelled takes no token. The limiter is Tokio's semaphore.
#[testudo::test]
async fn test_run_in_worker_thread_limiter() {
    let (limiter, running, high) = (Arc::new(Semaphore::new(2)), Count::default(), Arc::new(std::sync::Mutex::new(0)));
    let (tokens, peak) = (Arc::clone(&limiter), Arc::clone(&high));
    let run = nursery(|n| async move {
        for _ in 0..8 {
            let (own, tokens, running, peak) = (n.clone(), Arc::clone(&tokens), running.clone(), Arc::clone(&peak));
            n.spawn(async move {
                let token = tokens.clone().acquire_owned().await.unwrap();
                running.add();
                let done = Count::default();
                let counted = done.clone();
                own.spawn_blocking(move |_| counted.add()).await.unwrap();
                let in_use = 2 - tokens.available_permits();
                let mut peak = peak.lock().unwrap();
                *peak = in_use.max(*peak);
                drop(token);
            });
        }
        let waiter = n.spawn({
            let tokens = Arc::clone(&tokens);
            async move { drop(tokens.acquire_many(2).await) }
        });
        waiter.cancel("no more need");
    });
    run.await.unwrap();
    assert_eq!((limiter.available_permits(), *high.lock().unwrap()), (2, 2));
}

/// A thread's token comes back on every path: value, error, panic, cancel.
async fn token_comes_back(child: impl FnOnce(&Nursery<&'static str>, tokio::sync::OwnedSemaphorePermit)) {
    let limiter = Arc::new(Semaphore::new(1));
    let token = limiter.clone().try_acquire_owned().unwrap();
    let run = nursery(|n| async move {
        child(&n, token);
        turns().await;
        n.cancel("over");
        Ok(())
    });
    drop(futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(run)).await);
    assert_eq!(limiter.available_permits(), 1);
}

/// A limiter of the program's own gets its token back when the thread has ended.
#[testudo::test]
async fn test_run_in_worker_thread_custom_limiter() {
    token_comes_back(|n, token| drop(n.spawn_blocking(move |_| drop(token)))).await;
    token_comes_back(|n, token| {
        n.spawn_blocking(move |cx| {
            let _token = token;
            wait_for_cancel(cx);
        });
    })
    .await;
}

/// The same when the thread fails or panics.
#[testudo::test]
async fn test_run_in_worker_thread_limiter_error() {
    token_comes_back(|n, token| {
        n.spawn_blocking(move |_| {
            let _token = token;
            Err::<(), _>("fails")
        });
    })
    .await;
    token_comes_back(|n, token| {
        n.spawn_blocking(move |_| {
            let _token = token;
            crate::support::blow_up("panics");
        });
    })
    .await;
}

/// The same when the thread never begins: the nursery is closed.
#[testudo::test]
async fn test_run_in_worker_thread_fail_to_spawn() {
    let limiter = Arc::new(Semaphore::new(1));
    let token = limiter.clone().try_acquire_owned().unwrap();
    let n = nursery(|n| async move { Ok::<_, Infallible>(n) }).await.unwrap();
    let refused = crate::read::panic_of(|| n.spawn_blocking(move |_| drop(token)));
    assert!(refused.contains("closed"));
    assert_eq!(limiter.available_permits(), 1);
}

/// A call back from a thread is cancelled when main ends.
#[test]
fn test_await_in_trio_thread_while_main_exits() {
    let log = Log::default();
    let inner = log.clone();
    let finished = run_quietly(async move {
        let n = root_nursery::<Infallible>();
        let own = n.clone();
        n.spawn_blocking(move |_| {
            own.spawn(async move {
                drop(testudo::catch_cancelled(pending::<()>()).await);
                inner.push("cancelled");
            });
        })
        .await
        .unwrap();
        turns().await;
    });
    finished.outcome.unwrap();
    assert_eq!(log.seen(), ["cancelled"]);
}

/// A thread that calls back after the end gets its future back.
#[test]
fn test_from_thread_run_during_shutdown() {
    let (go, gone) = mpsc::channel::<()>();
    let mut thread = None;
    let finished = run_quietly(async {
        let n = root_nursery::<Infallible>();
        thread = Some(std::thread::spawn(move || {
            gone.recv().unwrap();
            n.try_spawn(async {}).is_err()
        }));
    });
    finished.outcome.unwrap();
    go.send(()).unwrap();
    assert!(thread.unwrap().join().unwrap());
}

/// What a thread spawns is a task of the nursery that it belongs to. Differs (S28): a child of its own, not the thread's host task.
#[testudo::test]
async fn test_from_thread_reuses_task() {
    let run = nursery(|n| async move {
        let own = n.clone();
        let child = n.spawn_blocking(move |_| Ok(own.task().name("from the thread").spawn(async {})));
        let task = child.await.unwrap();
        assert_eq!(&*task.name(), "from the thread");
        Ok::<_, Infallible>(())
    });
    run.await.unwrap();
}

/// Threads in threads.
#[testudo::test]
async fn test_recursive_to_thread() {
    let run = nursery(|n| async move {
        let own = n.clone();
        let outer = n.spawn_blocking(move |_| Ok(own.spawn_blocking(|_| Ok(7))));
        assert_eq!(outer.await.unwrap().await.unwrap(), 7);
        Ok::<_, Infallible>(())
    });
    run.await.unwrap();
}

/// What a thread calls without awaiting never sees a cancel, what it spawns does at its checkpoints; the flag is there for both.
#[testudo::test]
async fn test_from_thread_host_cancelled() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let own = n.clone();
        n.spawn_blocking(move |cx| {
            wait_for_cancel(cx);
            assert!(is_cancelled(), "plain code can look, and goes on");
            own.spawn(async move {
                inner.push("spawned");
                checkpoint().await;
                inner.push("too far");
            });
        });
        turns().await;
        n.cancel("now");
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["spawned"]);
}

/// A thread that looks learns of the cancel, with its cause; its nursery waits for it.
#[testudo::test]
async fn test_from_thread_check_cancelled_no_abandon() {
    let told = Count::default();
    let inner = told.clone();
    let run = nursery(|n| async move {
        n.spawn_blocking(move |cx| {
            wait_for_cancel(cx);
            assert_eq!(cx.cause().unwrap().reason(), Some("now"));
            inner.add();
        });
        turns().await;
        n.cancel("now");
    });
    run.await.unwrap();
    assert_eq!(told.get(), 1);
}

/// An abandoned one learns of it all the same.
#[testudo::test]
async fn test_from_thread_check_cancelled_abandon_on_cancel() {
    let (tell, told) = oneshot::channel();
    let (begin, begun) = oneshot::channel();
    let run = nursery(|n| async move {
        n.task().abandon().spawn_blocking(move |cx| {
            begin.send(()).unwrap();
            wait_for_cancel(cx);
            tell.send(cx.cause().unwrap().kind()).unwrap();
        });
        begun.await.unwrap();
        n.cancel("now");
    });
    run.await.unwrap();
    assert_eq!(told.await, Ok(CauseKind::Requested));
}

/// A thread that is not ours has no cancel to look at. Differs (S28): the flag is an argument, so only ours can ask; `is_cancelled`
/// is false elsewhere.
#[testudo::test]
async fn test_from_thread_check_cancelled_raises_in_foreign_threads() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let run = scope.run(async {
        handle.cancel("now");
        assert!(is_cancelled());
        assert!(!std::thread::spawn(is_cancelled).join().unwrap());
    });
    run.await.unwrap();
}

/// Threads and tasks that call each other over and over do not lock each other out.
#[testudo::test]
async fn test_reentry_doesnt_deadlock() {
    fn child(n: &Nursery<Infallible>, left: u8, done: Count) {
        let own = n.clone();
        n.spawn_blocking(move |_| {
            if left == 0 {
                return done.add();
            }
            let again = own.clone();
            own.spawn(async move { child(&again, left - 1, done) });
        });
    }
    let done = Count::default();
    let inner = done.clone();
    nursery(|n| async move { (0..4).for_each(|_| child(&n, 10, inner.clone())) }).await.unwrap();
    assert_eq!(done.get(), 4);
}

/// A nursery that has ended has no thread left.
#[testudo::test]
async fn test_wait_all_threads_completed() {
    let done = Count::default();
    let inner = done.clone();
    let run = nursery(|n| async move {
        for _ in 0..4 {
            let done = inner.clone();
            n.spawn_blocking(move |cx| {
                wait_for_cancel(cx);
                done.add();
            });
        }
        assert_eq!(n.len(), 4);
        n.cancel("now");
        assert_eq!(inner.get() + n.len(), 4);
    });
    run.finally(async {}).await.unwrap();
    assert_eq!(done.get(), 4);
}

/// Without threads there is nothing to wait for.
#[testudo::test]
async fn test_wait_all_threads_completed_no_threads() {
    nursery(|n| async move { assert!(n.is_empty()) }).await.unwrap();
}
