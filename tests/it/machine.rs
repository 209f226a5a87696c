//! The state machine of a frame: rules M1 to M7, each with the programs that break a naive version.

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, future::BoxFuture};
use testudo::{
    CancelScope, Cancelled, CauseKind, Event, FinalizeExt, Outcome, ScopeHandle, Shield, cancelled, catch_cancelled,
    checkpoint, drain, is_cancelled, nursery, shield, shield_scoped, shield_with,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

pub(crate) use crate::support::{Count, OnDrop as CountDrop, S};

/// What a poll may do before Tokio's coop budget is used up.
const BUDGET: usize = 128;

/// Panics when it is dropped, unless the thread panics already.
pub(crate) struct PanicOnDrop(pub(crate) &'static str);

impl Drop for PanicOnDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::panic_any(self.0);
        }
    }
}

/// Polls a future once, in the place and with the waker of whoever awaits this.
pub(crate) async fn poll_once<F: Future + Unpin + ?Sized>(fut: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *fut).poll(cx))).await
}

/// Polls a future once from outside of any task.
pub(crate) fn poll_by_hand<F: Future + Unpin + ?Sized>(fut: &mut F) -> Poll<F::Output> {
    Pin::new(fut).poll(&mut Context::from_waker(Waker::noop()))
}

/// Sleeps, then counts.
pub(crate) async fn count_after(time: Duration, count: Count) {
    sleep(time).await;
    count.add();
}

/// A task without an owner, as programs around us have them.
#[expect(clippy::disallowed_methods, reason = "these tests are about tasks that are not ours")]
pub(crate) fn plain_task<F>(fut: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(fut)
}

fn message(payload: Box<dyn std::any::Any + Send>) -> &'static str {
    payload.downcast::<&'static str>().map_or("?", |text| *text)
}

fn cancelled_scope() -> (CancelScope, ScopeHandle) {
    let scope = CancelScope::new();
    let handle = scope.handle();
    handle.cancel("before entry");
    (scope, handle)
}

fn filled<T>(value: T) -> oneshot::Receiver<T> {
    let (tx, rx) = oneshot::channel();
    assert!(tx.send(value).is_ok());
    rx
}

/// Coop operations that are ready at once.
async fn operations(count: usize) {
    for _ in 0..count {
        tokio::task::consume_budget().await;
    }
}

// M1: cut at the first `Pending` of a poll that began with the cancel visible, unless coop ended it.

#[testudo::test(start_paused = true)]
async fn m1_oneshot_filled_long_ago_is_delivered_when_the_coop_budget_is_used_up() {
    for before in [0, 1, BUDGET - 1, BUDGET, BUDGET + 1, 2 * BUDGET - 1] {
        yield_now().await;
        let rx = filled(7);
        let (scope, _) = cancelled_scope();
        let end = scope.run(async {
            operations(before).await;
            rx.await
        });
        assert_eq!(end.await.unwrap(), Ok(7), "after {before} operations");
    }
}

#[testudo::test(start_paused = true)]
async fn m1_budget_used_up_by_the_code_around_a_scope_does_not_cut_it() {
    operations(BUDGET).await;
    let rx = filled(7);
    let (scope, _) = cancelled_scope();
    assert_eq!(scope.run(rx).await.unwrap(), Ok(7));
}

#[testudo::test(start_paused = true)]
async fn m1_budget_used_up_inside_a_shield_leaves_the_code_after_it_its_own() {
    for inside in [BUDGET, 2 * BUDGET, 4 * BUDGET] {
        yield_now().await;
        let rx = filled(7);
        let (scope, _) = cancelled_scope();
        let end = scope.run(async {
            shield(operations(inside)).await;
            rx.await
        });
        assert_eq!(end.await.unwrap(), Ok(7), "after {inside} operations");
    }
}

#[testudo::test(start_paused = true)]
async fn m1_loop_that_only_ever_ends_by_coop_is_cut() {
    let (scope, _) = cancelled_scope();
    let turns = Count::default();
    let end = scope.run(async {
        loop {
            tokio::task::consume_budget().await;
            turns.add();
        }
    });
    let end: Result<(), _> = end.await;
    assert!(end.is_err());
    let turns = turns.get();
    assert!((BUDGET..=3 * BUDGET).contains(&turns), "{turns} turns");
}

#[testudo::test(start_paused = true)]
async fn m1_cancel_during_a_poll_gets_a_poll_of_its_own() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let mut polls = 0;
    let end = scope.run(poll_fn(|_| {
        polls += 1;
        if polls == 1 {
            handle.cancel("during the poll");
            return Poll::Pending;
        }
        Poll::Ready("delivered")
    }));
    assert_eq!(end.await.unwrap(), "delivered");
    assert_eq!(polls, 2);
}

#[testudo::test(start_paused = true)]
async fn m1_first_pending_of_a_cancelled_poll_is_the_last() {
    let (scope, _) = cancelled_scope();
    let mut polls = 0;
    let end = scope.run(poll_fn(|_| {
        polls += 1;
        Poll::<()>::Pending
    }));
    assert!(end.await.is_err());
    assert_eq!(polls, 1);
}

#[testudo::test(start_paused = true)]
async fn m1_operation_that_finished_beside_the_cancel_is_never_lost() {
    for cancel_first in [true, false] {
        let scope = CancelScope::new();
        let handle = scope.handle();
        let (tx, mut rx) = mpsc::channel(1);
        let end = nursery(|n| async move {
            n.spawn(async move {
                if cancel_first {
                    handle.cancel("at once");
                }
                tx.send(5).await.unwrap();
                handle.cancel("at once");
                Ok::<_, std::convert::Infallible>(())
            });
            Ok(scope
                .run(async move {
                    let got = rx.recv().await;
                    (got, rx)
                })
                .await)
        });
        let (got, mut rx) = end.await.unwrap().expect("the message was there");
        assert_eq!((got, rx.recv().await), (Some(5), None));
    }
}

#[testudo::test(start_paused = true)]
async fn m1_due_suspensions_pass_but_the_first_that_waits_ends_it() {
    let (scope, _) = cancelled_scope();
    let passed = Count::default();
    let (a, b) = (filled(1), filled(2));
    let end = scope.run(async {
        a.await.unwrap();
        passed.add();
        b.await.unwrap();
        passed.add();
        yield_now().await;
        passed.add();
    });
    assert!(end.await.is_err());
    assert_eq!(passed.get(), 2);
}

// M2: holds are woken, and can go stale.

#[testudo::test(start_paused = true)]
async fn m2_kept_owned_shield_does_not_lock_the_frame_and_is_rescued() {
    let (began, done) = (Instant::now(), Count::default());
    let work = count_after(5 * S, done.clone());
    let end = CancelScope::new().timeout(S).run(async {
        let mut kept = pin!(shield(work));
        assert!(timeout(S / 2, &mut kept).await.is_err());
        pending::<()>().await;
    });
    assert!(end.await.is_err());
    assert_eq!((began.elapsed(), done.get()), (S, 0));
    let report = drain(100 * S).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((began.elapsed(), done.get()), (5 * S, 1));
}

#[testudo::test(start_paused = true)]
async fn m2_kept_borrowed_shield_does_not_lock_the_frame_and_is_reported() {
    let (began, done) = (Instant::now(), Count::default());
    let end = CancelScope::new().timeout(S).run(async {
        let mut kept = pin!(shield_scoped(count_after(5 * S, done.clone())).name("borrowed"));
        assert!(timeout(S / 2, &mut kept).await.is_err());
        pending::<()>().await;
    });
    assert!(end.await.is_err());
    assert_eq!(began.elapsed(), S);
    let report = drain(100 * S).await;
    assert_eq!((report.lost(), done.get()), (1, 0));
    let [Event::Dropped(who)] = report.events() else { panic!("{report}") };
    assert_eq!(who.name(), Some("borrowed"));
    assert_eq!(who.place().file(), file!());
}

#[testudo::test(start_paused = true)]
async fn m2_kept_finalizer_does_not_lock_the_frame_and_runs() {
    let (began, done) = (Instant::now(), Count::default());
    let finalizer = count_after(5 * S, done.clone());
    let end = CancelScope::new().timeout(S).run(async {
        let mut kept = pin!(pending::<()>().on_cancel(finalizer));
        assert!(timeout(S / 2, &mut kept).await.is_err());
        pending::<()>().await;
    });
    assert!(end.await.is_err());
    assert_eq!((began.elapsed(), done.get()), (S, 0));
    assert!(drain(100 * S).await.is_clean());
    assert_eq!((began.elapsed(), done.get()), (6 * S, 1));
}

#[testudo::test(start_paused = true)]
async fn m2_kept_finalizer_that_is_running_is_rescued() {
    let (began, done) = (Instant::now(), Count::default());
    let finalizer = count_after(5 * S, done.clone());
    let end = CancelScope::new().timeout(S).run(async {
        let mut kept = pin!(async {}.finally(finalizer));
        assert!(timeout(S / 2, &mut kept).await.is_err());
        pending::<()>().await;
    });
    assert!(end.await.is_err());
    assert_eq!((began.elapsed(), done.get()), (S, 0));
    assert!(drain(100 * S).await.is_clean());
    assert_eq!((began.elapsed(), done.get()), (5 * S, 1));
}

#[testudo::test(start_paused = true)]
async fn m2_kept_scope_catch_point_and_wait_do_not_lock_the_frame() {
    let began = Instant::now();
    let dropped = Count::default();
    let (a, b) = (CountDrop(dropped.clone()), CountDrop(dropped.clone()));
    let end = CancelScope::new().timeout(S).run(async {
        let mut scope = pin!(CancelScope::new().run(async move {
            let _a = a;
            pending::<()>().await;
        }));
        let mut caught = pin!(catch_cancelled(async move {
            let _b = b;
            pending::<()>().await;
        }));
        let mut wait = pin!(cancelled());
        assert!(poll_once(&mut scope).await.is_pending());
        assert!(poll_once(&mut caught).await.is_pending());
        assert!(poll_once(&mut wait).await.is_pending());
        pending::<()>().await;
    });
    assert!(end.await.is_err());
    assert_eq!((began.elapsed(), dropped.get()), (S, 2));
}

#[testudo::test(start_paused = true)]
async fn m2_kept_nursery_does_not_lock_the_frame_and_its_children_are_awaited() {
    let (began, done) = (Instant::now(), Count::default());
    let work = count_after(5 * S, done.clone());
    let end = CancelScope::new().timeout(S).run(async {
        let mut kept = pin!(nursery(|n| async move {
            n.spawn(shield(work));
            pending::<()>().await;
        }));
        assert!(timeout(S / 2, &mut kept).await.is_err());
        pending::<()>().await;
    });
    assert!(end.await.is_err());
    assert_eq!((began.elapsed(), done.get()), (S, 0));
    assert!(drain(100 * S).await.is_clean());
    assert_eq!((began.elapsed(), done.get()), (5 * S, 1));
}

#[testudo::test(start_paused = true)]
async fn m2_hold_inside_futures_unordered_is_polled_and_holds() {
    let (began, done) = (Instant::now(), Count::default());
    let mut set = FuturesUnordered::new();
    set.push(shield(count_after(5 * S, done.clone())).boxed());
    set.push(pending().boxed());
    let end = CancelScope::new().timeout(S).run(async { while set.next().await.is_some() {} });
    assert!(end.await.is_err());
    assert_eq!((began.elapsed(), done.get()), (5 * S, 1));
}

#[testudo::test(start_paused = true)]
async fn m2_only_hold_of_futures_unordered_is_not_probed_for_ever() {
    let (began, done) = (Instant::now(), Count::default());
    let mut set = FuturesUnordered::new();
    set.push(shield(count_after(5 * S, done.clone())));
    let end = CancelScope::new().timeout(S).run(async {
        while set.next().await.is_some() {}
        yield_now().await;
    });
    assert!(end.await.is_err());
    assert_eq!((began.elapsed(), done.get()), (5 * S, 1));
}

#[testudo::test(start_paused = true)]
async fn m2_borrowed_hold_inside_futures_unordered_holds_also_when_the_frame_is_woken_for_others() {
    let (began, done) = (Instant::now(), Count::default());
    let mut set = FuturesUnordered::new();
    set.push(shield_scoped(count_after(5 * S, done.clone())));
    let end = CancelScope::new().timeout(S).run(async {
        let others = async {
            for _ in 0..20 {
                shield(sleep(S / 10)).await;
            }
        };
        tokio::join!(async { while set.next().await.is_some() {} }, others);
        yield_now().await;
    });
    assert!(end.await.is_err());
    assert_eq!((began.elapsed(), done.get()), (5 * S, 1));
    assert_eq!(drain(S).await.lost(), 0);
}

/// Wakes itself whenever it is polled, until the count says that it is over.
fn restless(over: Count) -> impl Future<Output = ()> + Send {
    poll_fn(move |cx| {
        if over.get() > 0 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

#[testudo::test(start_paused = true)]
async fn m2_many_self_waking_siblings_do_not_hide_a_hold() {
    let (ready, go) = (Count::default(), Arc::new(Notify::new()));
    let (kept, work) = (Arc::clone(&go), ready.clone());
    let scope = CancelScope::new();
    let handle = scope.handle();
    let end = nursery(|n| async move {
        n.spawn(async move {
            for _ in 0..1000 {
                yield_now().await;
            }
            handle.cancel("when all have been polled");
            // Long enough for any bound on the number of polls that a hold may be left out.
            for _ in 0..50_000 {
                yield_now().await;
            }
            go.notify_one();
            Ok::<_, std::convert::Infallible>(())
        });
        let mut set = FuturesUnordered::new();
        for _ in 0..50 {
            set.push(restless(ready.clone()).boxed());
        }
        let hold = shield_scoped(async move {
            kept.notified().await;
            work.add();
        });
        set.push(hold.boxed());
        let run = scope.run(async { while set.next().await.is_some() {} });
        Ok((run.await.is_ok(), ready.get()))
    });
    assert_eq!(end.await.unwrap(), (true, 1));
    assert_eq!(drain(S).await.lost(), 0);
}

#[testudo::test(start_paused = true)]
async fn m2_self_waking_sibling_does_not_keep_a_frame_whose_hold_is_stale() {
    let done = Count::default();
    let work = count_after(S, done.clone());
    let scope = CancelScope::new();
    let handle = scope.handle();
    let end = scope.run(async move {
        let mut kept = pin!(shield(work));
        assert!(poll_once(&mut kept).await.is_pending());
        handle.cancel("now");
        restless(Count::default()).await;
    });
    assert!(end.await.is_err());
    assert!(drain(100 * S).await.is_clean());
    assert_eq!(done.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn m2_stale_hold_beside_a_live_one_is_rescued_when_the_live_one_has_ended() {
    let (began, stale, live) = (Instant::now(), Count::default(), Count::default());
    let (work, other) = (count_after(20 * S, stale.clone()), count_after(5 * S, live.clone()));
    let end = CancelScope::new().timeout(S).run(async {
        let mut kept = pin!(shield(work));
        assert!(poll_once(&mut kept).await.is_pending());
        shield(other).await;
        pending::<()>().await;
    });
    assert!(end.await.is_err());
    assert_eq!((began.elapsed(), stale.get(), live.get()), (5 * S, 0, 1));
    assert!(drain(100 * S).await.is_clean());
    assert_eq!((began.elapsed(), stale.get()), (20 * S, 1));
}

#[testudo::test(start_paused = true)]
async fn m2_waits_and_catch_points_in_futures_unordered_are_woken_beside_a_hold_that_is_polled() {
    let (began, woken) = (Instant::now(), Count::default());
    let end = CancelScope::new().timeout(S).run(async {
        let mut set = FuturesUnordered::new();
        let (a, b) = (woken.clone(), woken.clone());
        let wait = async move {
            cancelled().await;
            a.add();
        };
        let caught = async move {
            assert!(catch_cancelled(pending::<()>()).await.is_err());
            b.add();
        };
        set.push(wait.boxed());
        set.push(caught.boxed());
        let shielded = shield(sleep(10 * S));
        let seen = woken.clone();
        let look = shield(async move {
            sleep(2 * S).await;
            seen.get()
        });
        tokio::join!(shielded, look, async { while set.next().await.is_some() {} })
    });
    let ((), seen, ()) = end.await.expect("all branches end by themselves");
    assert_eq!(seen, 2, "delivered at once, not when the shield has ended");
    assert_eq!(began.elapsed(), 10 * S);
}

#[testudo::test(start_paused = true)]
async fn m2_release_on_another_thread_wakes_the_cancelled_frame() {
    let (began, done) = (Instant::now(), Count::default());
    let shared = Arc::new(std::sync::Mutex::new(Some(Box::pin(shield(count_after(5 * S, done.clone()))))));
    let here = Arc::clone(&shared);
    let scope = CancelScope::new();
    let handle = scope.handle();
    let end = nursery(|n| async move {
        n.spawn(async move {
            sleep(S).await;
            handle.cancel("now");
            sleep(S).await;
            let taken = shared.lock().unwrap().take();
            std::thread::spawn(move || drop(taken)).join().unwrap();
            Ok::<_, std::convert::Infallible>(())
        });
        let run = scope.run(poll_fn(move |cx| match &mut *here.lock().unwrap() {
            Some(fut) => fut.as_mut().poll(cx),
            None => Poll::Pending,
        }));
        Ok((run.await.is_err(), began.elapsed()))
    });
    let woken_at = end.await.unwrap();
    assert_eq!(woken_at, (true, 2 * S), "the frame is woken when the hold goes");
    assert_eq!((began.elapsed(), done.get()), (5 * S, 1));
}

// M3: latched.

#[testudo::test(start_paused = true)]
async fn m3_raised_shield_does_not_bring_a_dead_branch_of_join_back() {
    let (began, after) = (Instant::now(), Count::default());
    let outer = CancelScope::new().timeout(S);
    let middle = CancelScope::new();
    let raise = middle.handle();
    let end = outer.run(async {
        let both = middle.run(async {
            let hold = shield(async move {
                sleep(4 * S).await;
                raise.set_shielded(true);
                raise
            });
            tokio::join!(CancelScope::new().run(pending::<()>()), hold)
        });
        let end = both.await;
        after.add();
        end.is_err()
    });
    assert!(end.await.is_err(), "the outermost scope absorbs");
    assert_eq!(began.elapsed(), 4 * S);
    assert_eq!(after.get(), 0, "the absorber was fixed at the cut");
}

#[testudo::test(start_paused = true)]
async fn m3_raising_on_a_latched_scope_is_recorded_and_uncancels_nothing() {
    let outer = CancelScope::new().timeout(S);
    let middle = CancelScope::new();
    let raise = middle.handle();
    let seen = Count::default();
    let see = seen.clone();
    let end = outer.run(middle.run(async {
        let hold = shield(async move {
            sleep(2 * S).await;
            raise.set_shielded(true);
            assert!(raise.is_shielded());
            assert!(raise.is_cancelled());
            see.add();
        });
        tokio::join!(CancelScope::new().run(pending::<()>()), hold)
    }));
    assert!(end.await.is_err());
    assert_eq!(seen.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn m3_code_that_is_not_cut_off_yet_is_uncancelled_by_a_raise() {
    let outer = CancelScope::new();
    let inner = CancelScope::new();
    let (cancel, raise) = (outer.handle(), inner.handle());
    let passed = Count::default();
    let end = outer.run(async {
        let value = inner.run(async {
            cancel.cancel("outside");
            assert!(is_cancelled());
            raise.set_shielded(true);
            assert!(!is_cancelled());
            checkpoint().await;
            sleep(S).await;
            7
        });
        assert_eq!(value.await.unwrap(), 7);
        passed.add();
        sleep(S).await;
    });
    assert_eq!(end.await.unwrap_err().cause().reason(), Some("outside"));
    assert_eq!(passed.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn m3_sleeping_child_is_uncancelled_when_the_raise_comes_before_its_poll() {
    let began = Instant::now();
    let outer = CancelScope::new();
    let handle = outer.handle();
    let end = outer.run(nursery(|n| async move {
        let scope = n.scope();
        let child = n.spawn(async {
            sleep(5 * S).await;
            Ok::<_, std::convert::Infallible>(3)
        });
        yield_now().await;
        handle.cancel("outside");
        scope.set_shielded(true);
        let outcome = child.await;
        assert_eq!(outcome.ok(), Some(3));
        scope.set_shielded(false);
        sleep(S).await;
        Ok(())
    }));
    assert!(end.await.is_err());
    assert_eq!(began.elapsed(), 5 * S);
}

#[testudo::test(start_paused = true)]
async fn m3_cancel_raise_cancel_ends_with_the_second_cause() {
    let began = Instant::now();
    let outer = CancelScope::new();
    let inner = CancelScope::new();
    let (outside, own) = (outer.handle(), inner.handle());
    let end = outer.run(async {
        let end = inner.run(async {
            outside.cancel("first");
            own.set_shielded(true);
            sleep(S).await;
            own.cancel("second");
            sleep(S).await;
        });
        let cause = end.await.unwrap_err();
        assert_eq!(cause.cause().reason(), Some("second"));
        "told"
    });
    assert_eq!(end.await.unwrap(), "told");
    assert_eq!(began.elapsed(), S);
}

#[testudo::test(start_paused = true)]
async fn m3_cut_scope_inside_a_catch_point_does_not_latch_what_is_around_the_catch_point() {
    let began = Instant::now();
    let outer = CancelScope::new().timeout(S);
    let middle = CancelScope::new();
    let raise = middle.handle();
    let passed = Count::default();
    let end = outer.run(async {
        let cleaned = middle.run(async {
            let end = catch_cancelled(CancelScope::new().run(pending::<()>())).await;
            assert!(end.is_err());
            raise.set_shielded(true);
            sleep(S).await;
            "cleaned"
        });
        assert_eq!(cleaned.await.unwrap(), "cleaned");
        passed.add();
    });
    assert!(end.await.is_ok());
    assert_eq!((began.elapsed(), passed.get()), (2 * S, 1));
}

#[testudo::test(start_paused = true)]
async fn m3_nursery_whose_body_caught_the_cancel_of_an_inner_scope_gives_its_value() {
    let end = CancelScope::new().timeout(S).run(nursery(|_n| async {
        let end = catch_cancelled(CancelScope::new().run(pending::<()>())).await;
        assert!(end.is_err());
        Ok::<_, std::convert::Infallible>(7)
    }));
    let value = end.await.expect("the body was not cut off");
    assert_eq!(value.unwrap(), 7);
}

// M4: futures migrate.

/// Runs `look` inside a scope of its own, whose handle it gets.
async fn place<T>(look: impl AsyncFnOnce(ScopeHandle) -> T) -> Result<T, Cancelled> {
    let scope = CancelScope::new();
    let handle = scope.handle();
    scope.run(look(handle)).await
}

#[testudo::test(start_paused = true)]
async fn m4_scope_that_moved_is_cancelled_by_the_new_place_and_not_by_the_old() {
    let inner = CancelScope::new();
    let (own, cut) = (inner.handle(), Count::default());
    let guard = CountDrop(cut.clone());
    let mut moving = Box::pin(inner.run(async move {
        let _guard = guard;
        pending::<()>().await;
    }));
    let old = CancelScope::new();
    let old_handle = old.handle();
    let end = old.run(async {
        assert!(poll_once(&mut moving).await.is_pending());
        let new = place(async |new: ScopeHandle| {
            // Not inside `old` only in the sense of the tree: it is moved on, below.
            assert!(poll_once(&mut moving).await.is_pending());
            new
        });
        new.await.unwrap();
    });
    end.await.unwrap();
    let end = place(async |new: ScopeHandle| {
        assert!(poll_once(&mut moving).await.is_pending());
        old_handle.cancel("the old place");
        assert!(!own.is_cancelled());
        yield_now().await;
        assert!(poll_once(&mut moving).await.is_pending());
        assert_eq!(cut.get(), 0);
        new.cancel("the new place");
        assert!(own.is_cancelled());
        moving.as_mut().await
    });
    assert_eq!(end.await.unwrap_err().cause().reason(), Some("the new place"));
    assert_eq!(cut.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn m4_scope_sent_to_another_task_is_cut_there_and_not_by_its_old_task() {
    let (began, cut) = (Instant::now(), Count::default());
    let guard = CountDrop(cut.clone());
    let run = nursery(|n| async move {
        let (tx, rx) = oneshot::channel::<BoxFuture<'static, ()>>();
        let old = n.spawn(async move {
            let mut moving = async move {
                let end = CancelScope::new().run(async move {
                    let _guard = guard;
                    pending::<()>().await;
                });
                drop(end.await);
            }
            .boxed();
            assert!(poll_once(&mut moving).await.is_pending());
            assert!(tx.send(moving).is_ok());
            pending::<()>().await;
            Ok::<_, std::convert::Infallible>(())
        });
        let new = n.spawn(async move {
            rx.await.unwrap().await;
            Ok(())
        });
        sleep(S).await;
        assert!(old.cancel_and_wait("the old task").await.is_cancelled());
        sleep(S).await;
        assert!(!new.is_finished());
        assert_eq!(cut.get(), 0);
        assert!(new.cancel_and_wait("the new task").await.is_cancelled());
        assert_eq!(cut.get(), 1);
        Ok(())
    });
    run.await.unwrap();
    assert_eq!(began.elapsed(), 2 * S);
}

#[testudo::test(start_paused = true)]
async fn m4_shield_that_moved_holds_the_new_place_and_lets_the_old_one_go() {
    let (began, done) = (Instant::now(), Count::default());
    let shared = Arc::new(std::sync::Mutex::new(Some(Box::pin(shield(count_after(10 * S, done.clone()))))));
    let end = nursery(|n| async move {
        let here = Arc::clone(&shared);
        let old = n.spawn(poll_fn(move |cx| match &mut *here.lock().unwrap() {
            Some(fut) => fut.as_mut().poll(cx).map(Ok::<_, std::convert::Infallible>),
            None => Poll::Pending,
        }));
        sleep(S).await;
        old.cancel("the old task");
        sleep(S).await;
        assert!(!old.is_finished(), "the shield holds it");
        let moved = shared.lock().unwrap().take();
        let new = n.spawn(async move {
            moved.unwrap().await;
            sleep(S).await;
            Ok(())
        });
        assert!(old.await.is_cancelled());
        assert_eq!(began.elapsed(), 2 * S, "its last hold was released");
        sleep(S).await;
        new.cancel("the new task");
        assert!(new.await.is_cancelled());
        assert_eq!((began.elapsed(), done.get()), (10 * S, 1));
        Ok(())
    });
    end.await.unwrap();
}

#[testudo::test(start_paused = true)]
async fn m4_nursery_that_moved_takes_its_children_along() {
    let (began, cut) = (Instant::now(), Count::default());
    let guard = CountDrop(cut.clone());
    let mut moving = Box::pin(nursery(|n| async move {
        n.spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        pending::<()>().await;
    }));
    let old = CancelScope::new();
    let old_handle = old.handle();
    old.run(async { assert!(timeout(S, &mut moving).await.is_err()) }).await.unwrap();
    let end = place(async |new: ScopeHandle| {
        assert!(timeout(S, &mut moving).await.is_err());
        old_handle.cancel("the old place");
        assert!(timeout(S, &mut moving).await.is_err());
        assert_eq!(cut.get(), 0);
        new.cancel("the new place");
        let end = moving.as_mut().await;
        unreachable!("it unwinds: {end:?}")
    });
    let end: Result<(), _> = end.await;
    assert_eq!(end.unwrap_err().cause().reason(), Some("the new place"));
    assert_eq!((began.elapsed(), cut.get()), (3 * S, 1));
}

#[testudo::test(start_paused = true)]
async fn m4_cancelled_old_place_uncancels_what_has_moved_away_in_time() {
    let mut moving = Box::pin(CancelScope::new().run(async {
        sleep(S).await;
        is_cancelled()
    }));
    let old = CancelScope::new();
    let old_handle = old.handle();
    old.run(async { assert!(poll_once(&mut moving).await.is_pending()) }).await.unwrap();
    old_handle.cancel("too late");
    assert!(!moving.await.unwrap());
}

#[testudo::test(start_paused = true)]
async fn m4_shield_that_moved_to_a_task_without_an_owner_is_drained() {
    let done = Count::default();
    let mut moving = Box::pin(shield(count_after(5 * S, done.clone())));
    assert!(poll_once(&mut moving).await.is_pending());
    let task = plain_task(moving);
    yield_now().await;
    let report = drain(100 * S).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(done.get(), 1, "drain waits for every started shield");
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn m4_future_polled_inside_itself_does_not_hang_the_tree() {
    let (tx, rx) = oneshot::channel::<BoxFuture<'static, ()>>();
    let scope = CancelScope::new();
    let handle = scope.handle();
    let polled = Count::default();
    let (inside, child) = (polled.clone(), polled.clone());
    let mut knot = async move {
        let run = scope.run(nursery(|n| async move {
            n.spawn(async move {
                let mut itself = rx.await.unwrap();
                child.add();
                poll_fn(|cx| {
                    inside.add();
                    itself.poll_unpin(cx)
                })
                .await;
            });
            pending::<()>().await;
        }));
        drop(run.await);
    }
    .boxed();
    assert!(poll_once(&mut knot).await.is_pending());
    assert!(tx.send(knot).is_ok());
    sleep(S).await;
    assert!(polled.get() >= 2, "it is polled inside itself");
    handle.cancel("reaches it without a loop");
    assert!(handle.is_cancelled());
    handle.set_shielded(true);
    handle.set_shielded(false);
    sleep(S).await;
    let others = nursery(|n| async move {
        n.spawn(shield(sleep(S)));
        pending::<()>().await;
    });
    let end = CancelScope::new().timeout(S / 2).run(others).await;
    assert!(end.is_err(), "the rest of the tree works");
}

#[test]
fn m4_scope_that_moved_to_another_runtime_keeps_its_deadline() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    // As a bud, and as a node from the start.
    for has_handle in [false, true] {
        let (first, second) = (runtime(), runtime());
        let scope = CancelScope::new().timeout(S);
        let handle = has_handle.then(|| scope.handle());
        let mut moving = Box::pin(scope.run(pending::<()>()));
        let (begun,) = first.block_on(async {
            let begin = async move {
                assert!(poll_once(&mut moving).await.is_pending());
                (moving,)
            };
            plain_task(begin).await.unwrap()
        });
        drop(first);
        let end = second.block_on(async { plain_task(timeout(100 * S, begun)).await.unwrap() });
        let end = end.expect("the deadline fires though its first runtime is gone");
        assert_eq!(end.unwrap_err().cause().kind(), CauseKind::Deadline);
        drop(handle);
    }
}

#[test]
fn m4_deadline_that_is_set_after_the_move_to_another_runtime_fires_there() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let scope = CancelScope::new();
    let handle = scope.handle();
    let mut moving = Box::pin(scope.run(pending::<()>()));
    assert!(first.block_on(poll_once(&mut moving)).is_pending());
    drop(first);
    let end = second.block_on(async {
        assert!(poll_once(&mut moving).await.is_pending());
        handle.set_deadline(Some(Instant::now() + S));
        timeout(100 * S, moving).await
    });
    let end = end.expect("the deadline fires though the scope's first runtime is gone");
    assert_eq!(end.unwrap_err().cause().kind(), CauseKind::Deadline);
}

#[test]
fn m4_scope_that_moved_to_another_runtime_is_below_the_new_root() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let inner = CancelScope::new();
    let own = inner.handle();
    let mut moving = Box::pin(inner.run(pending::<()>()));
    let old = CancelScope::new();
    let old_handle = old.handle();
    let started = first.block_on(old.run(poll_once(&mut moving)));
    assert!(started.unwrap().is_pending());
    assert!(second.block_on(poll_once(&mut moving)).is_pending());
    old_handle.cancel("the old runtime");
    assert!(!own.is_cancelled());
    let end = second.block_on(place(async |new: ScopeHandle| {
        assert!(poll_once(&mut moving).await.is_pending());
        new.cancel("the new runtime");
        moving.as_mut().await
    }));
    assert_eq!(end.unwrap_err().cause().reason(), Some("the new runtime"));
}

// M5: a wake consumes the registration, so every poll that stays pending arms again.

#[testudo::test(start_paused = true)]
async fn m5_every_lowering_of_a_shield_wakes_the_sleeper_again() {
    let outer = CancelScope::new();
    let inner = CancelScope::new().shielded(true);
    let (outside, shielded) = (outer.handle(), inner.handle());
    let delivered = Count::default();
    let count = delivered.clone();
    let end = nursery(|n| async move {
        let raise = shielded.clone();
        let body = async move {
            for _ in 0..3 {
                let end = catch_cancelled(pending::<()>()).await;
                assert!(end.is_err());
                raise.set_shielded(true);
                count.add();
            }
        };
        let task = n.spawn(async move { Ok::<_, std::convert::Infallible>(outer.run(inner.run(body)).await) });
        yield_now().await;
        outside.cancel("outside");
        for turn in 0..3 {
            sleep(S).await;
            assert_eq!(delivered.get(), turn, "the shield holds");
            shielded.set_shielded(false);
        }
        assert!(task.await.unwrap().unwrap().is_ok());
        Ok(())
    });
    end.await.unwrap();
}

#[testudo::test(start_paused = true)]
async fn m5_pending_polls_for_other_reasons_do_not_use_the_registration_up() {
    let began = Instant::now();
    let scope = CancelScope::new();
    let handle = scope.handle();
    let end = nursery(|n| async move {
        let task = n.spawn(async move {
            let end = scope.run(async {
                let mut set = FuturesUnordered::new();
                for turn in 1..10 {
                    set.push(sleep(turn * S / 10).boxed());
                }
                set.push(pending().boxed());
                while set.next().await.is_some() {}
            });
            Ok::<_, std::convert::Infallible>(end.await.is_err())
        });
        sleep(5 * S).await;
        handle.cancel("later");
        assert!(task.await.unwrap());
        Ok(())
    });
    end.await.unwrap();
    assert_eq!(began.elapsed(), 5 * S);
}

#[testudo::test(start_paused = true)]
async fn m5_frame_that_is_polled_with_another_waker_is_woken_through_the_last_one() {
    struct Flag(Count);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.add();
        }
    }
    let scope = CancelScope::new();
    let handle = scope.handle();
    let mut run = Box::pin(scope.run(pending::<()>()));
    let (first, second) = (Count::default(), Count::default());
    for count in [&first, &second] {
        let waker = Waker::from(Arc::new(Flag(count.clone())));
        assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    handle.cancel("now");
    assert_eq!((first.get(), second.get()), (0, 1));
    handle.cancel("again");
    assert_eq!(second.get(), 1, "a wake takes the waker out");
    assert!(run.await.is_err());
}

// M6: deadlines and budgets fire whether or not their frame is polled.

#[testudo::test(start_paused = true)]
async fn m6_deadline_of_an_unpolled_scope_cancels_the_children_in_other_tasks() {
    let (began, cut) = (Instant::now(), Count::default());
    let guard = CountDrop(cut.clone());
    let mut kept = Box::pin(CancelScope::new().timeout(2 * S).run(nursery(|n| async move {
        n.spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        pending::<()>().await;
    })));
    assert!(poll_once(&mut kept).await.is_pending());
    sleep(S).await;
    assert_eq!(cut.get(), 0);
    sleep(S + S / 1000).await;
    assert_eq!(cut.get(), 1, "nobody has polled the scope since");
    assert!(kept.await.is_err());
    assert_eq!(began.elapsed(), 2 * S + S / 1000);
}

/// A shield whose child counts when it is cut off.
fn shield_with_child(cut: &Count) -> Shield<impl Future<Output = ()> + Send + use<>> {
    let guard = CountDrop(cut.clone());
    shield(async move {
        let run = nursery(|n| async move {
            n.spawn(async move {
                let _guard = guard;
                pending::<()>().await;
            });
        });
        drop(run.await);
    })
}

#[testudo::test(start_paused = true)]
async fn m6_budget_that_runs_fires_though_the_shield_is_kept_unpolled() {
    let (began, cut) = (Instant::now(), Count::default());
    let work = shield_with_child(&cut).budget(2 * S);
    let end = CancelScope::new().timeout(S).run(async {
        let mut kept = pin!(work);
        let mut other = pin!(shield(sleep(20 * S)));
        // Polled until the budget has begun; then only the other one is.
        let both = async { tokio::join!(&mut kept, &mut other) };
        assert!(timeout(S + S / 2, both).await.is_err());
        shield(sleep(2 * S)).await;
        assert_eq!(cut.get(), 1);
        other.await;
    });
    drop(end.await);
    assert_eq!(began.elapsed(), 20 * S);
    assert_eq!(drain(100 * S).await.lost(), 1);
}

#[testudo::test(start_paused = true)]
async fn m6_budget_begins_with_the_cancel_though_the_shield_is_kept_unpolled() {
    let cut = Count::default();
    let work = shield_with_child(&cut).budget(2 * S);
    let end = CancelScope::new().timeout(S).run(async {
        let mut kept = pin!(work);
        assert!(timeout(S / 2, &mut kept).await.is_err());
        shield(sleep(5 * S)).await;
        assert_eq!(cut.get(), 1, "the cancel came at 1 s, the budget ended at 3 s");
    });
    drop(end.await);
    assert_eq!(drain(100 * S).await.lost(), 1);
}

#[test]
fn m6_uncancelled_shield_with_a_budget_registers_no_timer() {
    // Without the time driver, any timer panics.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let value = runtime.block_on(CancelScope::new().run(async {
        let inner = shield(async {
            yield_now().await;
            1
        });
        inner.budget(S).await + shield_scoped(async { 2 }).budget(S).await
    }));
    assert_eq!(value.unwrap(), 3);
}

#[testudo::test(start_paused = true)]
async fn m6_budget_stops_when_the_cancel_outside_is_taken_back() {
    let (began, done) = (Instant::now(), Count::default());
    let outer = CancelScope::new();
    let middle = CancelScope::new();
    let (outside, raise) = (outer.handle(), middle.handle());
    let work = shield(count_after(10 * S, done.clone())).budget(3 * S);
    let end = nursery(|n| async move {
        let task = n.spawn(async move {
            let end = outer.run(async move { middle.run(work).await.is_ok() });
            Ok::<_, std::convert::Infallible>(end.await)
        });
        sleep(S).await;
        outside.cancel("outside");
        sleep(S).await;
        raise.set_shielded(true);
        assert!(task.await.unwrap().expect("no suspension after it"));
        Ok(())
    });
    end.await.unwrap();
    assert_eq!((began.elapsed(), done.get()), (10 * S, 1));
    assert_eq!(drain(S).await.lost(), 0);
}

// M7: release by RAII.

#[testudo::test(start_paused = true)]
async fn m7_shield_that_panics_in_its_poll_is_finished_and_not_rescued() {
    let polls = Count::default();
    let count = polls.clone();
    let end = CancelScope::new().timeout(S).run(async move {
        let mut panics = Box::pin(shield(poll_fn(move |cx| {
            count.add();
            if count.get() == 1 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            std::panic::panic_any("in the poll");
            #[expect(unreachable_code, reason = "gives the closure its type")]
            Poll::<()>::Pending
        })));
        let end = AssertUnwindSafe(&mut panics).catch_unwind().await;
        assert_eq!(message(end.unwrap_err()), "in the poll");
        drop(panics);
        pending::<()>().await;
    });
    let began = Instant::now();
    assert!(end.await.is_err());
    assert_eq!(began.elapsed(), S, "no hold is left over");
    let report = drain(100 * S).await;
    assert!(report.is_clean() && report.events().is_empty(), "{report}");
    assert_eq!(polls.get(), 2, "a panicked future is not polled again");
}

/// Panics at the given poll; counts all.
fn panics_at(at: usize, polls: &Count) -> impl Future<Output = ()> + Send + use<> {
    let polls = polls.clone();
    poll_fn(move |cx| {
        polls.add();
        if polls.get() == at {
            std::panic::panic_any("in the poll");
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

#[testudo::test(start_paused = true)]
async fn m7_panicked_future_is_never_polled_again_by_any_wrapper() {
    async fn check<F: Future + Unpin>(what: &str, polls: &Count, mut fut: F) {
        let end = AssertUnwindSafe(&mut fut).catch_unwind().await;
        assert_eq!(end.err().map(message), Some("in the poll"), "{what}");
        assert_eq!(polls.get(), 2, "{what}");
        for _ in 0..2 {
            // A panic that says "polled after its end" is as good as pending.
            let again = catch_unwind(AssertUnwindSafe(|| poll_by_hand(&mut fut).is_pending()));
            assert!(again.unwrap_or(true), "{what}");
        }
        assert_eq!(polls.get(), 2, "{what}");
    }
    let polls = Count::default;
    let p = polls();
    check("scope", &p, Box::pin(CancelScope::new().run(panics_at(2, &p)))).await;
    let p = polls();
    check("catch point", &p, Box::pin(catch_cancelled(panics_at(2, &p)))).await;
    let p = polls();
    check("shield", &p, Box::pin(shield(panics_at(2, &p)))).await;
    let p = polls();
    check("borrowed shield", &p, Box::pin(shield_scoped(panics_at(2, &p)))).await;
    let p = polls();
    check("finalizer", &p, Box::pin(panics_at(2, &p).finally(async {}))).await;
    let p = polls();
    let fut = panics_at(2, &p);
    check("nursery", &p, Box::pin(nursery(|_n| fut))).await;
    let p = polls();
    let exposed = {
        let fut = panics_at(2, &p);
        shield_with(|exposed| async move { drop(exposed.run(fut).await) })
    };
    check("exposed", &p, Box::pin(exposed)).await;
    let report = drain(S).await;
    assert!(report.is_clean(), "{report}");
}

#[testudo::test(start_paused = true)]
async fn m7_panic_in_a_destructor_at_the_cut_comes_out_of_the_scope() {
    let began = Instant::now();
    let end = CancelScope::new().timeout(2 * S).run(async {
        let inner = CancelScope::new().timeout(S).run(async {
            let _guard = PanicOnDrop("in the destructor");
            pending::<()>().await;
        });
        let end = AssertUnwindSafe(inner).catch_unwind().await;
        assert_eq!(message(end.unwrap_err()), "in the destructor");
        pending::<()>().await;
    });
    assert!(end.await.is_err());
    assert_eq!(began.elapsed(), 2 * S, "no hold is left over");
}

#[testudo::test(start_paused = true)]
async fn m7_panic_in_a_poll_is_not_replaced_by_one_in_the_destructor() {
    struct Twice;
    impl Future for Twice {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            std::panic::panic_any("in the poll")
        }
    }
    impl Drop for Twice {
        fn drop(&mut self) {
            std::panic::panic_any("in the destructor")
        }
    }
    let end = AssertUnwindSafe(CancelScope::new().run(Twice)).catch_unwind().await;
    assert_eq!(message(end.unwrap_err()), "in the poll");
}

#[testudo::test(start_paused = true)]
async fn m7_panic_in_the_destructor_of_a_child_cancels_the_siblings_and_goes_on() {
    let sibling = Count::default();
    let guard = CountDrop(sibling.clone());
    let outcome = Arc::new(std::sync::Mutex::new(None));
    let slot = Arc::clone(&outcome);
    let run = nursery(|n| async move {
        n.spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        let task = n.spawn(async {
            let _guard = PanicOnDrop("in the destructor");
            pending::<()>().await;
        });
        yield_now().await;
        task.cancel("cut it");
        *slot.lock().unwrap() = Some(shield(task).await);
        pending::<()>().await;
    });
    let end = AssertUnwindSafe(run).catch_unwind().await;
    assert_eq!(message(end.unwrap_err()), "in the destructor");
    assert_eq!(sibling.get(), 1);
    let outcome = outcome.lock().unwrap().take();
    assert!(matches!(outcome, Some(Outcome::Panicked(_))), "{outcome:?}");
}

#[testudo::test(start_paused = true)]
async fn m7_panic_in_the_destructor_of_a_cut_shield_leaves_no_hold() {
    let began = Instant::now();
    let end = CancelScope::new().timeout(S).run(async {
        let over = shield(async {
            let _guard = PanicOnDrop("in the destructor");
            pending::<()>().await;
        });
        let end = AssertUnwindSafe(over.budget(S)).catch_unwind().await;
        assert_eq!(message(end.unwrap_err()), "in the destructor");
        pending::<()>().await;
    });
    assert!(end.await.is_err());
    assert_eq!(began.elapsed(), 2 * S);
    assert_eq!(drain(S).await.lost(), 1);
}

#[testudo::test(start_paused = true)]
async fn m7_panic_in_a_rescued_shield_is_reported_once() {
    let late = shield(async {
        sleep(2 * S).await;
        std::panic::panic_any("after the rescue");
    });
    assert!(timeout(S, late.name("late")).await.is_err());
    let report = drain(100 * S).await;
    let [Event::Panicked(who, text)] = report.events() else { panic!("{report}") };
    assert_eq!((who.name(), &**text), (Some("late"), "after the rescue"));
    assert!(drain(S).await.events().is_empty());
}

// S8 and S9: how running code meets the machine.

#[testudo::test(start_paused = true)]
async fn s9_code_after_a_catch_point_runs_on_until_its_next_suspension() {
    let steps = Count::default();
    let end = CancelScope::new().timeout(S).run(async {
        assert!(catch_cancelled(pending::<()>()).await.is_err());
        steps.add();
        assert!(is_cancelled());
        shield(sleep(S)).await;
        steps.add();
        yield_now().await;
        steps.add();
    });
    assert!(end.await.is_err());
    assert_eq!(steps.get(), 2);
}

#[testudo::test(start_paused = true)]
async fn s9_nested_catch_points_each_catch_and_the_innermost_first() {
    let end = CancelScope::new().timeout(S).run(async {
        let outer = catch_cancelled(async {
            assert!(catch_cancelled(pending::<()>()).await.is_err());
            pending::<()>().await;
        });
        assert!(outer.await.is_err());
        "ran on"
    });
    assert_eq!(end.await.unwrap(), "ran on");
}

#[testudo::test(start_paused = true)]
async fn s9_every_catch_point_after_the_cancel_catches_again() {
    let (scope, _) = cancelled_scope();
    let end = scope.run(async {
        for _ in 0..3 {
            assert!(catch_cancelled(pending::<()>()).await.is_err());
        }
        "three times"
    });
    assert_eq!(end.await.unwrap(), "three times");
}

#[testudo::test(start_paused = true)]
async fn s8_checkpoint_is_never_passed_by_a_cancel() {
    let passed = Count::default();
    let scope = CancelScope::new();
    let handle = scope.handle();
    let end = scope.run(async {
        checkpoint().await;
        passed.add();
        handle.cancel("now");
        checkpoint().await;
        passed.add();
    });
    assert!(end.await.is_err());
    assert_eq!(passed.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn s8_checkpoint_that_is_cancelled_while_it_yields_ends_there() {
    let passed = Count::default();
    let scope = CancelScope::new();
    let handle = scope.handle();
    let mut run = Box::pin(scope.run(async {
        checkpoint().await;
        passed.add();
    }));
    assert!(poll_once(&mut run).await.is_pending());
    handle.cancel("while it yields");
    assert!(run.await.is_err());
    assert_eq!(passed.get(), 0);
}

#[testudo::test(start_paused = true)]
async fn s8_checkpoint_sees_a_deadline_that_nobody_has_fired_yet() {
    let passed = Count::default();
    let scope = CancelScope::new();
    let handle = scope.handle();
    let end = scope.run(async {
        handle.set_deadline(Some(Instant::now()));
        checkpoint().await;
        passed.add();
    });
    assert!(end.await.is_err());
    assert_eq!(passed.get(), 0);
}

#[testudo::test(start_paused = true)]
async fn s8_checkpoint_beside_a_hold_only_yields() {
    let (began, passed) = (Instant::now(), Count::default());
    let (scope, _) = cancelled_scope();
    let end = scope.run(async {
        let looks = async {
            for _ in 0..5 {
                checkpoint().await;
                passed.add();
            }
        };
        tokio::join!(shield(sleep(S)), looks);
        let held = passed.get();
        checkpoint().await;
        unreachable!("passed a checkpoint after {held} held ones");
    });
    let end: Result<(), _> = end.await;
    assert!(end.is_err());
    assert_eq!((began.elapsed(), passed.get()), (S, 5));
}

#[testudo::test(start_paused = true)]
async fn s8_cancelled_in_select_is_always_delivered_before_the_region_is_dropped() {
    for biased in [true, false] {
        let end = CancelScope::new().timeout(S).run(async {
            let never = pending::<()>();
            if biased {
                tokio::select! {
                    biased;
                    () = never => unreachable!(),
                    cause = cancelled() => cause.kind(),
                }
            } else {
                tokio::select! {
                    () = never => unreachable!(),
                    cause = cancelled() => cause.kind(),
                }
            }
        });
        assert_eq!(end.await.unwrap(), CauseKind::Deadline);
    }
}

#[testudo::test(start_paused = true)]
async fn s8_cancelled_in_select_in_a_loop_is_delivered_beside_messages() {
    let (tx, mut rx) = mpsc::channel::<u32>(8);
    let end = nursery(|n| async move {
        let scope = n.scope();
        let task = n.spawn(async move {
            let mut got = 0;
            loop {
                tokio::select! {
                    biased;
                    Some(_) = rx.recv() => got += 1,
                    _ = cancelled() => return Ok::<_, std::convert::Infallible>(got),
                }
            }
        });
        for turn in 0..5 {
            tx.send(turn).await.unwrap();
            sleep(S).await;
        }
        tx.send(5).await.unwrap();
        scope.cancel("over");
        shield(async move { Ok(task.await.unwrap()) }).await
    });
    assert_eq!(end.await.unwrap(), 6, "the last message was there with the cancel");
}

#[testudo::test(start_paused = true)]
async fn m4_exposed_part_that_moved_still_sees_what_its_shield_holds_off() {
    let end = CancelScope::new().timeout(2 * S).run(shield_with(|exposed| async move {
        let mut part = Box::pin(exposed.run(pending::<()>()));
        assert!(timeout(S, &mut part).await.is_err());
        let inner = CancelScope::new().run(part).await;
        matches!(inner, Ok(Err(_)))
    }));
    assert!(end.await.unwrap(), "it was cut off in its new place");
}

#[testudo::test(start_paused = true)]
async fn m6_budget_of_an_unpolled_shield_begins_anew_after_its_cancel_was_taken_back() {
    let (began, cut) = (Instant::now(), Count::default());
    let work = shield_with_child(&cut).budget(2 * S);
    let inner = CancelScope::new();
    let handle = inner.handle();
    let toggle = testudo::spawn(async move {
        sleep(2 * S).await;
        handle.set_shielded(true);
        sleep(3 * S).await;
        handle.set_shielded(false);
    });
    let end = CancelScope::new().timeout(S).run(inner.run(async {
        let mut kept = pin!(work);
        assert!(timeout(S / 2, &mut kept).await.is_err());
        shield(sleep(6 * S)).await;
        assert_eq!(
            (began.elapsed(), cut.get()),
            (6 * S + S / 2, 0),
            "cancelled at 1 s, taken back at 2 s, again at 5 s"
        );
        shield(sleep(S)).await;
        assert_eq!(cut.get(), 1, "the second budget ended at 7 s");
    }));
    drop(end.await);
    drop(toggle.await);
    assert_eq!(drain(100 * S).await.lost(), 1);
}
