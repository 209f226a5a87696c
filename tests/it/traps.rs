//! Traps that others have fallen into, each as what must hold here.

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt;
use testudo::{
    CancelScope, Event, FinalizeExt, Nursery, Outcome, Policy, Report, Reporter, Runner, cancelled, catch_cancelled,
    checkpoint, drain, is_cancelled, nursery, shield, shield_scoped, shield_with,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::machine::{Count, CountDrop, PanicOnDrop, S, count_after, plain_task, poll_by_hand, poll_once};
use crate::support::nowhere;

type Never = std::convert::Infallible;

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// What a runtime says when it is gone: a drain that was begun on it while `work` was alive gives its report to whoever polls it.
fn report_after_the_end<T>(runtime: Runtime, work: impl Future<Output = T>) -> (T, Report) {
    let mut report = drain(S).boxed();
    let kept = runtime.block_on(async {
        let kept = work.await;
        assert!(poll_once(&mut report).await.is_pending(), "something is alive");
        kept
    });
    drop(runtime);
    let Poll::Ready(report) = poll_by_hand(&mut report) else { panic!("nothing is alive now") };
    (kept, report)
}

/// What was lost, as kind, name and place.
fn losses(report: &Report) -> Vec<(&str, Option<&str>, &str)> {
    let mut losses = Vec::new();
    for event in report.events() {
        if let Event::Lost(who) | Event::Dropped(who) = event {
            losses.push((who.what(), who.name(), who.place().file()));
        }
    }
    losses
}

// 5.2, the trap experiments.

#[testudo::test(start_paused = true)]
async fn shield_under_timeout_ends_after_the_timeout_has_fired() {
    let (began, done) = (Instant::now(), Count::default());
    assert!(timeout(S, shield(count_after(3 * S, done.clone()))).await.is_err());
    assert_eq!((began.elapsed(), done.get()), (S, 0));
    assert!(drain(100 * S).await.is_clean());
    assert_eq!((began.elapsed(), done.get()), (3 * S, 1));
}

#[testudo::test(start_paused = true)]
async fn shield_that_loses_a_select_runs_to_its_end() {
    let done = Count::default();
    tokio::select! {
        biased;
        () = shield(count_after(3 * S, done.clone())) => unreachable!(),
        () = sleep(S) => {}
    }
    assert!(drain(100 * S).await.is_clean());
    assert_eq!(done.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn shield_in_an_aborted_task_runs_to_its_end() {
    let done = Count::default();
    let task = plain_task(shield(count_after(3 * S, done.clone())));
    yield_now().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(drain(100 * S).await.is_clean());
    assert_eq!(done.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn shield_that_was_never_polled_does_nothing_when_dropped() {
    let done = Count::default();
    drop(shield(count_after(S, done.clone())));
    assert!(drain(100 * S).await.is_clean());
    assert_eq!(done.get(), 0);
}

#[test]
fn loss_of_a_shield_in_place_to_the_drop_of_its_runtime_is_loud() {
    for runtime in [current_thread(), multi_thread()] {
        let dropped = Count::default();
        let guard = CountDrop(dropped.clone());
        let (task, report) = report_after_the_end(runtime, async {
            let (tx, rx) = oneshot::channel();
            let task = plain_task(
                shield(async move {
                    let _guard = guard;
                    tx.send(()).unwrap();
                    pending::<()>().await;
                })
                .name("in place"),
            );
            rx.await.unwrap();
            yield_now().await;
            Some(task)
        });
        assert!(task.is_some_and(|task| task.is_finished()));
        assert_eq!((report.lost(), dropped.get()), (1, 1), "{report}");
        assert_eq!(losses(&report), [("rescued shield", Some("in place"), file!())]);
    }
}

#[test]
fn loss_of_a_rescued_shield_to_the_drop_of_its_runtime_is_loud() {
    for runtime in [current_thread(), multi_thread()] {
        let ((), report) = report_after_the_end(runtime, async {
            let mut work = Box::pin(shield(pending::<()>()).name("rescued"));
            assert!(poll_once(&mut work).await.is_pending());
            drop(work);
            yield_now().await;
        });
        assert_eq!(report.lost(), 1, "{report}");
        assert_eq!(losses(&report), [("rescued shield", Some("rescued"), file!())]);
    }
}

#[test]
fn loss_of_a_borrowed_shield_and_of_a_finalizer_to_the_drop_of_the_runtime_is_loud() {
    let done = Count::default();
    let finalizer = count_after(S, done.clone());
    let ((), report) = report_after_the_end(current_thread(), async {
        drop(plain_task(shield_scoped(pending::<()>()).name("borrowed")));
        drop(plain_task(pending::<()>().finally(finalizer)));
        yield_now().await;
    });
    assert_eq!((report.lost(), done.get()), (2, 0), "{report}");
}

#[test]
fn shield_in_a_plain_task_is_not_lost_to_the_end_of_a_run() {
    for runner in [Runner::new(), Runner::new().current_thread()] {
        let done = Count::default();
        let count = done.clone();
        let finished = runner.signals(false).reporter(None).run(async move {
            let (tx, rx) = oneshot::channel();
            drop(plain_task(shield(async move {
                tx.send(()).unwrap();
                for _ in 0..100 {
                    yield_now().await;
                }
                count.add();
            })));
            rx.await.unwrap();
        });
        assert!(finished.report.is_clean(), "{}", finished.report);
        assert_eq!(done.get(), 1);
    }
}

#[test]
fn shield_dropped_outside_of_a_runtime_is_rescued_on_its_own() {
    let runtime = current_thread();
    let done = Count::default();
    let mut work = Box::pin(shield(count_after(S, done.clone())));
    assert!(runtime.block_on(poll_once(&mut work)).is_pending());
    drop(work);
    let report = runtime.block_on(drain(100 * S));
    assert!(report.is_clean(), "{report}");
    assert_eq!(done.get(), 1);
}

#[test]
fn shield_dropped_on_another_runtime_is_rescued_on_its_own() {
    let (first, second) = (current_thread(), current_thread());
    let done = Count::default();
    let mut work = Box::pin(shield(count_after(S, done.clone())));
    assert!(first.block_on(poll_once(&mut work)).is_pending());
    second.block_on(async { drop(work) });
    assert!(first.block_on(drain(100 * S)).is_clean());
    assert_eq!(done.get(), 1);
}

#[test]
fn shield_polled_and_dropped_outside_of_any_runtime_does_not_panic() {
    let _turn = nowhere();
    let dropped = Count::default();
    let guard = CountDrop(dropped.clone());
    let mut work = Box::pin(shield(async move {
        let _guard = guard;
        pending::<()>().await;
    }));
    assert!(poll_by_hand(&mut work).is_pending());
    drop(work);
    assert_eq!(dropped.get(), 1);
}

tokio::task_local! {
    static REQUEST: u32;
}

#[testudo::test(start_paused = true)]
async fn task_local_is_gone_after_a_rescue_unless_it_is_carried_along() {
    async fn read_late(into: oneshot::Sender<Option<u32>>) {
        sleep(2 * S).await;
        into.send(REQUEST.try_with(|id| *id).ok()).unwrap();
    }
    let (without, is_without) = oneshot::channel();
    let (with, is_with) = oneshot::channel();
    let end = REQUEST.scope(7, async {
        let both = async { tokio::join!(shield(read_late(without)), shield(read_late(with)).with_local(&REQUEST)) };
        timeout(S, both).await
    });
    assert!(end.await.is_err());
    assert_eq!(is_without.await.unwrap(), None);
    assert_eq!(is_with.await.unwrap(), Some(7));
    assert!(drain(S).await.is_clean());
}

#[testudo::test(start_paused = true)]
async fn task_local_is_there_as_long_as_the_shield_runs_in_place() {
    let read = shield(async { REQUEST.with(|id| *id) });
    assert_eq!(REQUEST.scope(7, read).await, 7);
}

#[testudo::test(start_paused = true)]
async fn futurelock_on_a_kept_shield_with_a_mutex_ends_with_the_cancel() {
    let (began, mutex) = (Instant::now(), Arc::new(tokio::sync::Mutex::new(0)));
    let inside = Arc::clone(&mutex);
    let end = CancelScope::new().timeout(3 * S).run(async {
        let mut kept = pin!(shield(async move {
            let mut value = inside.lock().await;
            sleep(2 * S).await;
            *value += 1;
        }));
        assert!(timeout(S, &mut kept).await.is_err());
        // `kept` has the lock, and nobody polls it.
        *mutex.lock().await += 10;
    });
    assert!(end.await.is_err());
    assert_eq!(began.elapsed(), 3 * S);
    assert!(drain(100 * S).await.is_clean());
    assert_eq!(*mutex.lock().await, 1);
}

#[test]
fn cancel_waits_for_block_in_place_and_is_seen_after_it() {
    let finished = Runner::new().worker_threads(2).signals(false).reporter(None).run(async {
        nursery(|n| async move {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let (began, has_begun) = oneshot::channel();
            let (blocked, after) = (Count::default(), Count::default());
            let (b, a) = (blocked.clone(), after.clone());
            let mut task = n.spawn(async move {
                tokio::task::block_in_place(move || {
                    began.send(()).unwrap();
                    wait.recv().unwrap();
                    b.add();
                });
                checkpoint().await;
                a.add();
                Ok::<_, Never>(())
            });
            has_begun.await.unwrap();
            assert!(task.cancel("while it blocks"));
            assert!(poll_once(&mut task).await.is_pending(), "it is waited for");
            go.send(()).unwrap();
            assert!(task.await.is_cancelled());
            assert_eq!((blocked.get(), after.get()), (1, 0));
            Ok(())
        })
        .await
    });
    assert!(finished.outcome.is_ok(), "{:?}", finished.outcome);
}

#[testudo::test]
async fn cancel_tells_blocking_work_and_waits_for_it() {
    let end = nursery(|n| async move {
        let (began, has_begun) = oneshot::channel();
        let task = n.spawn_blocking(move |cx| {
            began.send(()).unwrap();
            while !cx.is_cancelled() {
                std::thread::yield_now();
            }
            Ok::<_, Never>("was told")
        });
        has_begun.await.unwrap();
        assert_eq!(task.cancel_and_wait("stop").await.ok(), Some("was told"));
        Ok(())
    });
    end.await.unwrap();
}

#[testudo::test]
async fn cancelled_nursery_does_not_end_before_its_blocking_work() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let done = Count::default();
    let count = done.clone();
    let mut run = Box::pin(nursery(|n| async move {
        let (began, has_begun) = oneshot::channel();
        n.spawn_blocking(move |_| {
            began.send(()).unwrap();
            wait.recv().unwrap();
            count.add();
        });
        has_begun.await.unwrap();
        n.cancel("stop");
        pending::<()>().await;
    }));
    for _ in 0..100 {
        assert!(poll_once(&mut run).await.is_pending());
        yield_now().await;
    }
    go.send(()).unwrap();
    assert!(run.await.unwrap_err().is_cancelled());
    assert_eq!(done.get(), 1);
}

#[testudo::test]
async fn cancelled_nursery_leaves_blocking_work_that_may_be_abandoned() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (ended, has_ended) = oneshot::channel();
    let end = nursery(|n| async move {
        let (began, has_begun) = oneshot::channel();
        n.task().abandon().spawn_blocking(move |_| {
            began.send(()).unwrap();
            wait.recv().unwrap();
            ended.send(()).unwrap();
        });
        has_begun.await.unwrap();
        n.cancel("stop");
        pending::<()>().await;
    });
    assert!(end.await.unwrap_err().is_cancelled());
    go.send(()).unwrap();
    has_ended.await.expect("the thread runs on");
}

#[testudo::test(start_paused = true)]
async fn panic_in_the_destructor_of_a_cut_task_is_a_panic_with_its_message() {
    let run = nursery(|n| async move {
        let task = n.spawn(async {
            let _guard = PanicOnDrop("in the destructor");
            pending::<()>().await;
            Ok::<_, Never>(())
        });
        yield_now().await;
        match task.cancel_and_wait("cut it").await {
            Outcome::Panicked(panic) => assert_eq!(panic.message(), "in the destructor"),
            other @ (Outcome::Ok(()) | Outcome::Err(_) | Outcome::Cancelled(_) | Outcome::Lost) => {
                panic!("{other:?}")
            }
        }
        Ok(())
    });
    run.policy(Policy::Supervise).await.unwrap();
}

#[test]
fn panic_in_the_destructor_of_a_task_that_is_lost_leaves_the_count_right() {
    let runtime = current_thread();
    let mut run = nursery(|n: Nursery<Never>| async move {
        n.spawn(async {
            let _guard = PanicOnDrop("in the destructor");
            pending::<()>().await;
        });
        Ok(())
    })
    .boxed();
    assert!(runtime.block_on(async {
        let first = poll_once(&mut run).await;
        yield_now().await;
        first.is_pending()
    }));
    drop(runtime);
    assert!(poll_by_hand(&mut run).is_ready(), "nothing is counted in any more");
}

// 5.3, traps from threads.

#[test]
fn spawn_onto_a_closed_runtime_is_lost_and_does_not_panic() {
    for runtime in [current_thread(), multi_thread()] {
        let (tx, rx) = std::sync::mpsc::channel();
        let mut run = nursery(|n: Nursery<Never>| async move {
            tx.send(n).unwrap();
            pending::<Result<(), Never>>().await
        })
        .boxed();
        assert!(runtime.block_on(poll_once(&mut run)).is_pending());
        let n = rx.recv().unwrap();
        drop(runtime);
        let polled = Count::default();
        let count = polled.clone();
        let mut task = n.spawn(async move { count.add() });
        assert_eq!(poll_by_hand(&mut task), Poll::Ready(Outcome::Lost));
        assert_eq!((polled.get(), n.len()), (0, 0));
    }
}

#[test]
fn task_that_ends_before_its_first_poll_is_counted_out() {
    let runtime = current_thread();
    let (tx, rx) = std::sync::mpsc::channel();
    let polled = Count::default();
    let count = polled.clone();
    let mut run = nursery(|n: Nursery<Never>| async move {
        let task = n.spawn(async move { count.add() });
        tx.send((n, task)).unwrap();
        Ok(())
    })
    .boxed();
    assert!(runtime.block_on(poll_once(&mut run)).is_pending(), "the child is counted in");
    let (n, mut task) = rx.recv().unwrap();
    assert_eq!((n.len(), polled.get()), (1, 0));
    drop(runtime);
    assert_eq!((n.len(), polled.get()), (0, 0));
    assert_eq!(poll_by_hand(&mut task), Poll::Ready(Outcome::Lost));
    assert!(matches!(poll_by_hand(&mut run), Poll::Ready(Ok(()))));
}

#[testudo::test(start_paused = true)]
async fn root_is_not_complete_while_anything_nested_lives() {
    let (began, done) = (Instant::now(), Count::default());
    let count = done.clone();
    let task = plain_task(nursery(|outer: Nursery<Never>| async move {
        outer.spawn(
            nursery(|inner: Nursery<Never>| async move {
                inner.spawn(shield(count_after(5 * S, count.clone())));
                let mut kept = Box::pin(shield(count_after(7 * S, count)));
                assert!(poll_once(&mut kept).await.is_pending());
                drop(kept);
                pending::<Result<(), Never>>().await
            })
            .map(drop),
        );
        pending::<Result<(), Never>>().await
    }));
    sleep(S).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    let report = drain(100 * S).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((began.elapsed(), done.get()), (7 * S, 2));
}

/// A waker that runs code when it is woken and when it is dropped.
struct Reentrant<W: Fn(), D: Fn()> {
    woken: W,
    dropped: D,
}

impl<W: Fn() + Send + Sync + 'static, D: Fn() + Send + Sync + 'static> Wake for Reentrant<W, D> {
    fn wake(self: Arc<Self>) {
        (self.woken)();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        (self.woken)();
    }
}

impl<W: Fn(), D: Fn()> Drop for Reentrant<W, D> {
    fn drop(&mut self) {
        (self.dropped)();
    }
}

fn waker(woken: impl Fn() + Send + Sync + 'static, dropped: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Reentrant { woken, dropped }))
}

#[test]
fn waker_that_cancels_is_neither_woken_nor_dropped_under_a_lock() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let calls = Count::default();
    let reenter = |calls: &Count| {
        let (handle, calls) = (handle.clone(), calls.clone());
        move || {
            calls.add();
            handle.cancel("from a waker");
            handle.set_shielded(true);
            handle.set_shielded(false);
            handle.set_deadline(None);
            assert!(handle.is_cancelled() && handle.cause().is_some());
            drop(handle.cancelled().now_or_never());
        }
    };
    let mut run = Box::pin(scope.run(async {
        let inner = CancelScope::new().run(shield(catch_cancelled(cancelled())));
        tokio::join!(inner, pending::<()>())
    }));
    let mut wait = Box::pin(handle.cancelled());
    let mut poll = |waker: &Waker| {
        let mut cx = Context::from_waker(waker);
        assert!(run.as_mut().poll(&mut cx).is_pending());
        wait.as_mut().poll(&mut cx)
    };
    let quiet = || Waker::from(Arc::new(Reentrant { woken: || {}, dropped: || {} }));
    // Replaced, so dropped where it is registered.
    let first = waker(|| {}, reenter(&calls));
    assert!(poll(&first).is_pending());
    drop(first);
    assert_eq!(calls.get(), 0);
    drop(poll(&quiet()));
    assert!(calls.get() > 0, "dropped");
    let before = calls.get();
    let second = waker(reenter(&calls), reenter(&calls));
    drop(poll(&second));
    handle.cancel("again");
    drop((run, wait, second));
    assert!(calls.get() > before, "woken or dropped");
}

#[testudo::test(start_paused = true)]
async fn waker_that_spawns_is_not_woken_under_a_lock() {
    let (tx, rx) = std::sync::mpsc::channel();
    let ran = Count::default();
    let mut run = nursery(|n: Nursery<Never>| async move {
        n.spawn(pending::<()>());
        tx.send(n.clone()).unwrap();
        pending::<Result<(), Never>>().await
    })
    .boxed();
    let handle = Arc::new(Mutex::new(None::<Nursery<Never>>));
    let (inside, count) = (Arc::clone(&handle), ran.clone());
    let waker = waker(
        move || {
            let n = inside.lock().unwrap().clone();
            if let Some(n) = n {
                let count = count.clone();
                drop(n.try_spawn(async move { count.add() }));
            }
        },
        || {},
    );
    assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let n = rx.recv().unwrap();
    *handle.lock().unwrap() = Some(n.clone());
    n.cancel("wakes the body");
    yield_now().await;
    assert!(ran.get() >= 1, "spawned by the waker");
    handle.lock().unwrap().take();
    assert!(run.await.is_err());
}

#[testudo::test(start_paused = true)]
async fn waker_that_drops_a_task_handle_does_not_wait_for_itself() {
    let kept = Arc::new(Mutex::new(None));
    let (tx, rx) = std::sync::mpsc::channel();
    let mut run = nursery(|n: Nursery<&'static str>| async move {
        tx.send(n.spawn(async { Err::<(), _>("unseen") })).unwrap();
        Ok(())
    })
    .policy(Policy::Supervise)
    .boxed();
    let (inside, woken) = (Arc::clone(&kept), Count::default());
    let count = woken.clone();
    let waker = waker(
        move || {
            let task = inside.lock().unwrap().take();
            drop(task);
            count.add();
        },
        || {},
    );
    assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    *kept.lock().unwrap() = Some(rx.recv().unwrap());
    yield_now().await;
    assert!(woken.get() > 0, "the end of the child wakes the join");
    run.await.unwrap();
    let report = drain(S).await;
    let [Event::Failed(_, error)] = report.events() else { panic!("{report}") };
    assert_eq!(&**error, "unseen", "reported once");
}

/// Polls what is inside several times for each poll from outside, and once more after its end.
struct Extra<F>(F);

impl<F: Future + Unpin> Future for Extra<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        for _ in 0..3 {
            if let Poll::Ready(value) = self.0.poll_unpin(cx) {
                // It may panic or be ready again, but what is inside must not run on: the side effects are counted.
                drop(catch_unwind(AssertUnwindSafe(|| self.0.poll_unpin(cx).is_pending())));
                return Poll::Ready(value);
            }
        }
        Poll::Pending
    }
}

fn extra<F: Future>(fut: F) -> Extra<Pin<Box<F>>> {
    Extra(Box::pin(fut))
}

#[testudo::test(start_paused = true)]
async fn extra_polls_change_nothing() {
    let (began, done) = (Instant::now(), Count::default());
    let work = count_after(3 * S, done.clone());
    let end = extra(CancelScope::new().timeout(S).run(extra(async {
        let caught = extra(catch_cancelled(extra(pending::<()>()))).await;
        assert!(caught.is_err());
        extra(shield(extra(work))).await;
        extra(shield_scoped(extra(sleep(S)))).await;
        extra(extra(async { 1 }).finally(count_after(S, done.clone()))).await;
        let island = shield_with(|exposed| async move { extra(exposed.run(extra(sleep(S)))).await.is_err() });
        assert!(extra(island).await);
        let run = nursery(|n: Nursery<Never>| async move {
            n.spawn(extra(shield(extra(sleep(S)))));
            Ok(5)
        });
        assert_eq!(extra(run).await.unwrap(), 5);
        extra(cancelled()).await;
        extra(checkpoint()).await;
        unreachable!("passed a checkpoint");
    })));
    let end: Result<(), _> = end.await;
    assert!(end.is_err());
    assert_eq!((began.elapsed(), done.get()), (7 * S, 2));
    assert!(drain(S).await.is_clean());
}

#[testudo::test(start_paused = true)]
async fn wrapper_that_is_polled_after_its_end_holds_nothing() {
    async fn check<F: Future>(what: &str, fut: F) {
        let mut over = Box::pin(fut);
        let _ = over.as_mut().await;
        let (scope, polls) = (CancelScope::new(), Count::default());
        scope.handle().cancel("at once");
        let end = scope.run(poll_fn(|cx| {
            polls.add();
            assert!(polls.get() < 10, "the {what} holds the frame");
            over.as_mut().poll(cx).map(drop)
        }));
        assert!(end.await.is_err(), "{what}");
    }
    check("scope", CancelScope::new().run(async {})).await;
    check("catch point", catch_cancelled(async {})).await;
    check("borrowed shield", shield_scoped(async {})).await;
    check("finalizer", async {}.finally(async {})).await;
    check("nursery", nursery(|_n| async {})).await;
    let slot = Arc::new(Mutex::new(None));
    let inside = Arc::clone(&slot);
    shield_with(|exposed| async move {
        *inside.lock().unwrap() = Some(exposed);
    })
    .await;
    let exposed = slot.lock().unwrap().take().unwrap();
    check("exposed part", exposed.run(async {})).await;
}

#[testudo::test(start_paused = true)]
async fn spurious_polls_of_a_cancelled_frame_keep_a_live_hold() {
    let (began, done) = (Instant::now(), Count::default());
    let mut set = futures_util::stream::FuturesUnordered::new();
    set.push(shield_scoped(count_after(5 * S, done.clone())));
    let mut run = Box::pin(CancelScope::new().timeout(S).run(async {
        use futures_util::StreamExt;
        while set.next().await.is_some() {}
        sleep(S).await;
    }));
    let mut ticks = tokio::time::interval(S / 10);
    let end = loop {
        tokio::select! {
            biased;
            end = &mut run => break end,
            _ = ticks.tick() => {}
        }
    };
    assert!(end.is_err());
    assert_eq!((began.elapsed(), done.get()), (5 * S, 1));
}

/// Runs code when it is dropped.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    fn new(code: F) -> Self {
        Self(Some(code))
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(code) = self.0.take() {
            code();
        }
    }
}

#[test]
fn shield_begun_in_a_destructor_during_shutdown_is_reported_and_does_not_panic() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&heard);
    let reporter = Reporter::new(move |event| hear.lock().unwrap().push(event.to_string()));
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let runner = Runner::new().current_thread().signals(false).reporter(reporter);
    let finished = runner.run(async move {
        let (tx, rx) = oneshot::channel();
        drop(plain_task(async move {
            let _guard = OnDrop::new(move || {
                let mut late = Box::pin(shield(pending::<()>()).name("late"));
                assert!(poll_by_hand(&mut late).is_pending());
                drop(late);
                end.store(true, Ordering::SeqCst);
            });
            tx.send(()).unwrap();
            pending::<()>().await;
        }));
        rx.await.unwrap();
    });
    assert!(ended.load(Ordering::SeqCst), "nothing has panicked in the destructor");
    assert_eq!(finished.report.lost(), 1, "{}", finished.report);
    let heard = heard.lock().unwrap();
    assert!(heard.iter().any(|text| text.contains("`late`")), "{heard:?}");
}

#[test]
fn spawn_in_a_destructor_during_shutdown_gives_the_future_back() {
    let refused = Count::default();
    let count = refused.clone();
    let runner = Runner::new().current_thread().signals(false).reporter(None);
    let finished = runner.run(async move {
        let (tx, rx) = oneshot::channel();
        let root: Nursery<Never> = testudo::root_nursery();
        drop(plain_task(async move {
            let _guard = OnDrop::new(move || {
                if root.try_spawn(async {}).is_err() {
                    count.add();
                }
            });
            tx.send(()).unwrap();
            pending::<()>().await;
        }));
        rx.await.unwrap();
    });
    assert!(finished.outcome.is_ok());
    assert_eq!(refused.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn shield_begun_in_a_destructor_at_a_cut_is_rescued() {
    let done = Count::default();
    let work = count_after(S, done.clone());
    let end = CancelScope::new().timeout(S).run(async move {
        let _guard = OnDrop::new(move || {
            let mut late = Box::pin(shield(work));
            assert!(poll_by_hand(&mut late).is_pending());
        });
        pending::<()>().await;
    });
    assert!(end.await.is_err());
    assert!(drain(100 * S).await.is_clean());
    assert_eq!(done.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn panic_that_unwinds_through_all_of_ours_does_not_abort_and_rescues_what_it_promised() {
    let done = Count::default();
    let (a, b, c) = (done.clone(), done.clone(), done.clone());
    let code = async move {
        let mut kept = Box::pin(shield(count_after(2 * S, a)));
        assert!(poll_once(&mut kept).await.is_pending());
        let mut children = Box::pin(nursery(|n: Nursery<Never>| async move {
            n.spawn(shield(count_after(3 * S, b)));
            pending::<Result<(), Never>>().await
        }));
        assert!(timeout(S, &mut children).await.is_err());
        let mut finalized = Box::pin(pending::<()>().finally(count_after(S, c)));
        assert!(poll_once(&mut finalized).await.is_pending());
        let mut borrowed = Box::pin(shield_scoped(pending::<()>()));
        assert!(poll_once(&mut borrowed).await.is_pending());
        std::panic::panic_any("unwinds");
    };
    let run = CancelScope::new().run(async move {
        let () = code.await;
    });
    let end = AssertUnwindSafe(run).catch_unwind().await;
    assert_eq!(*end.unwrap_err().downcast::<&str>().unwrap(), "unwinds");
    let report = drain(100 * S).await;
    assert_eq!(done.get(), 3);
    assert_eq!(losses(&report).len(), 1, "the borrowed one: {report}");
}

#[testudo::test(start_paused = true)]
async fn idle_reader_notices_the_cancel_without_another_byte() {
    use tokio::io::AsyncReadExt;
    let began = Instant::now();
    let (mut ours, _theirs) = tokio::io::duplex(8);
    let mut buffer = [0; 8];
    let end = CancelScope::new().timeout(S).run(ours.read(&mut buffer));
    assert!(end.await.is_err());
    assert_eq!(began.elapsed(), S);
}

#[testudo::test(start_paused = true)]
async fn scope_does_not_leak_into_what_the_same_task_polls_outside_of_it() {
    let scope = CancelScope::new();
    scope.handle().cancel("inside only");
    let mut run = Box::pin(scope.run(async {
        shield(sleep(S)).await;
    }));
    assert!(poll_once(&mut run).await.is_pending());
    assert!(!is_cancelled());
    checkpoint().await;
    let inside_of_neither = CancelScope::new().run(async { is_cancelled() });
    assert!(!inside_of_neither.await.unwrap());
    assert!(run.await.is_ok());
}
