//! Cancel scopes: who is cancelled, when, by whom, and who absorbs it (S1 to S6; trio's T1 to T29 and T40).

use std::future::{pending, ready};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use testudo::{
    CancelScope, CauseKind, EffectiveDeadline, ScopeHandle, cancelled, catch_cancelled, checkpoint, current_deadline,
    fail_after, is_cancelled, move_on_after, nursery, shield,
};
use tokio::time::{Instant, advance, sleep, timeout};

use crate::support::{Count, Log, OnDrop, S, is_pending, plain_task, turns};

#[testudo::test(start_paused = true)]
async fn cancel_before_entry_is_delivered_at_the_first_suspension() {
    let log = Log::default();
    let scope = CancelScope::new();
    assert!(scope.handle().cancel("early"));
    let inner = log.clone();
    let run = scope.run(async move {
        inner.push("entered");
        assert!(is_cancelled());
        checkpoint().await;
        inner.push("too far");
    });
    assert_eq!(run.await.unwrap_err().cause().reason(), Some("early"));
    assert_eq!(log.seen(), ["entered"]);
}

#[testudo::test(start_paused = true)]
async fn relative_timeout_counts_from_entry() {
    let scope = CancelScope::new().timeout(3 * S);
    sleep(10 * S).await;
    let began = Instant::now();
    assert!(scope.run(pending::<()>()).await.is_err());
    assert_eq!(began.elapsed(), 3 * S);
    let (outer, inner) = (Instant::now(), move_on_after(3 * S, pending::<()>()));
    sleep(10 * S).await;
    assert_eq!((inner.await, outer.elapsed()), (None, 13 * S));
}

#[testudo::test(start_paused = true)]
async fn earlier_of_deadline_and_timeout_counts() {
    let began = Instant::now();
    let scope = CancelScope::new().deadline(began + 5 * S).timeout(3 * S);
    assert!(scope.run(pending::<()>()).await.is_err());
    assert_eq!(began.elapsed(), 3 * S);
    let scope = CancelScope::new().deadline(began + 5 * S).timeout(3 * S);
    assert!(scope.run(pending::<()>()).await.is_err());
    assert_eq!(began.elapsed(), 5 * S);
}

#[testudo::test(start_paused = true)]
async fn deadline_that_has_passed_cancels_at_the_first_suspension() {
    let at = Instant::now();
    sleep(S).await;
    let log = Log::default();
    let inner = log.clone();
    let run = CancelScope::new().deadline(at).run(async move {
        inner.push("entered");
        checkpoint().await;
        inner.push("too far");
    });
    assert_eq!(run.await.unwrap_err().cause().kind(), CauseKind::Deadline);
    assert_eq!(log.seen(), ["entered"]);
}

#[testudo::test(start_paused = true)]
async fn deadline_can_be_moved_both_ways_while_it_runs() {
    for (moved_to, ends_at) in [(Some(2 * S), 2 * S), (Some(9 * S), 9 * S), (None, 20 * S)] {
        let began = Instant::now();
        let scope = CancelScope::new().timeout(5 * S);
        let handle = scope.handle();
        let run = scope.run(async {
            sleep(S).await;
            handle.set_deadline(moved_to.map(|length| began + length));
            sleep(19 * S).await;
        });
        assert_eq!(run.await.is_ok(), moved_to.is_none());
        assert_eq!(began.elapsed(), ends_at, "moved to {moved_to:?}");
    }
}

#[testudo::test(start_paused = true)]
async fn deadline_that_has_fired_is_sticky() {
    let scope = CancelScope::new().timeout(S);
    let handle = scope.handle();
    let run = scope.run(async {
        cancelled().await;
        handle.set_deadline(Some(Instant::now() + 100 * S));
        assert!(handle.cancel_requested() && handle.is_cancelled());
        checkpoint().await;
    });
    assert!(run.await.is_err());
    handle.set_deadline(None);
    assert!(handle.cancel_requested());
}

#[testudo::test(start_paused = true)]
async fn deadline_that_passes_after_the_end_cancels_nothing() {
    let scope = CancelScope::new().timeout(S);
    let handle = scope.handle();
    scope.run(checkpoint()).await.unwrap();
    sleep(2 * S).await;
    assert!(!handle.is_cancelled() && !handle.cancel_requested() && handle.cause().is_none());
    handle.set_deadline(Some(Instant::now()));
    assert!(!handle.cancel_requested());
    assert!(is_pending(pin!(handle.cancelled())).await);
}

#[testudo::test(start_paused = true)]
async fn deadline_moved_into_the_past_cancels_at_once() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let began = Instant::now();
    let run = scope.run(async {
        sleep(2 * S).await;
        handle.set_deadline(Some(began + S));
        assert!(is_cancelled());
        checkpoint().await;
    });
    assert_eq!(run.await.unwrap_err().cause().kind(), CauseKind::Deadline);
    assert_eq!(began.elapsed(), 2 * S);
}

#[testudo::test(start_paused = true)]
async fn checkpoint_sees_a_deadline_that_has_passed_while_nothing_was_awaited() {
    let log = Log::default();
    let inner = log.clone();
    let run = CancelScope::new().timeout(S).run(async move {
        // Time passes under a computation; a poll of `advance` that yields would let the timer task have its turn.
        let _ = advance(2 * S).now_or_never();
        checkpoint().await;
        inner.push("too far");
    });
    assert!(run.await.is_err());
    assert!(log.seen().is_empty());
}

#[testudo::test(start_paused = true)]
async fn cancel_requested_looks_at_the_clock_before_entry_too() {
    let scope = CancelScope::new().deadline(Instant::now() + S);
    let handle = scope.handle();
    assert!(!handle.cancel_requested());
    sleep(2 * S).await;
    assert!(handle.cancel_requested());
    handle.set_deadline(None);
    assert!(handle.cancel_requested(), "it never becomes false again");
}

#[testudo::test(start_paused = true)]
async fn effective_deadline_is_the_minimum_up_to_and_including_the_innermost_shield() {
    let now = Instant::now();
    let at = |seconds: u32| EffectiveDeadline::At(now + seconds * S);
    assert_eq!(current_deadline(), EffectiveDeadline::None);
    let outer = CancelScope::new().deadline(now + 5 * S);
    let handle = outer.handle();
    let run = outer.run(async {
        assert_eq!(current_deadline(), at(5));
        let later = CancelScope::new().deadline(now + 9 * S);
        later.run(async { assert_eq!(current_deadline(), at(5)) }).await.unwrap();
        let sooner = CancelScope::new().deadline(now + 3 * S);
        sooner.run(async { assert_eq!(current_deadline(), at(3)) }).await.unwrap();
        let shielded = CancelScope::new().deadline(now + 9 * S).shielded(true);
        let shielded = shielded.run(async {
            assert_eq!(current_deadline(), at(9));
            let inner = CancelScope::new().deadline(now + 12 * S);
            inner.run(async { assert_eq!(current_deadline(), at(9)) }).await.unwrap();
        });
        shielded.await.unwrap();
        shield(async { assert_eq!(current_deadline(), EffectiveDeadline::None) }).await;
        assert_eq!(current_deadline(), at(5));
        handle.cancel("now");
        assert_eq!(current_deadline(), EffectiveDeadline::Cancelled);
        shield(async { assert_eq!(current_deadline(), EffectiveDeadline::None) }).await;
    });
    run.await.unwrap();
    assert_eq!(current_deadline(), EffectiveDeadline::None);
}

#[testudo::test(start_paused = true)]
async fn outermost_cancelled_scope_absorbs_whichever_was_cancelled_first() {
    for outer_first in [false, true] {
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        let (outer_handle, inner_handle) = (outer.handle(), inner.handle());
        let log = Log::default();
        let between = log.clone();
        let run = outer.run(async {
            let end = inner.run(async {
                let both = [&outer_handle, &inner_handle];
                let order = if outer_first { [0, 1] } else { [1, 0] };
                assert!(order.into_iter().all(|at| both[at].cancel("adversity")));
                pending::<()>().await;
            });
            drop(end.await);
            between.push("too far");
        });
        assert!(run.await.is_err(), "outer first: {outer_first}");
        assert!(log.seen().is_empty(), "the inner scope only unwinds");
        assert!(inner_handle.cancel_requested());
    }
}

#[testudo::test(start_paused = true)]
async fn outer_cancel_that_comes_while_the_inner_one_unwinds_takes_it_over() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let handle = outer.handle();
    let log = Log::default();
    let between = log.clone();
    let run = outer.run(async {
        let inner_handle = inner.handle();
        let end = inner.run(async {
            inner_handle.cancel("inner");
            let caught = catch_cancelled(pending::<()>()).await;
            assert!(caught.is_err());
            handle.cancel("outer");
            pending::<()>().await;
        });
        drop(end.await);
        between.push("too far");
    });
    assert_eq!(run.await.unwrap_err().cause().reason(), Some("outer"));
    assert!(log.seen().is_empty());
}

#[testudo::test(start_paused = true)]
async fn scope_behind_a_shield_absorbs_its_own_cancel_under_a_cancelled_outer_one() {
    let outer = CancelScope::new().timeout(S);
    let log = Log::default();
    let inner = log.clone();
    let run = outer.run(async move {
        let shielded = CancelScope::new().shielded(true).timeout(3 * S).run(pending::<()>());
        assert_eq!(shielded.await.unwrap_err().cause().kind(), CauseKind::Deadline);
        inner.push("absorbed");
        checkpoint().await;
        inner.push("too far");
    });
    let began = Instant::now();
    assert!(run.await.is_err());
    assert_eq!((log.seen(), began.elapsed()), (vec!["absorbed"], 3 * S));
}

#[testudo::test(start_paused = true)]
async fn body_that_ends_in_spite_of_a_cancel_gives_its_value() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let run = scope.run(async {
        handle.cancel("late");
        7
    });
    assert_eq!(run.await.unwrap(), 7);
    assert!(handle.cancel_requested());
    let ready_anyway = CancelScope::new().deadline(Instant::now()).run(ready(8));
    assert_eq!(ready_anyway.await.unwrap(), 8);
}

#[testudo::test(start_paused = true)]
async fn second_poll_is_granted_so_an_operation_that_is_done_is_delivered() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let scope = CancelScope::new();
    let handle = scope.handle();
    let (end, ()) = tokio::join!(scope.run(receiver), async {
        handle.cancel("together");
        sender.send(7).unwrap();
    });
    assert_eq!(end.unwrap(), Ok(7));
}

#[testudo::test(start_paused = true)]
async fn cancel_is_level_triggered_until_the_scope_is_left() {
    let log = Log::default();
    let inner = log.clone();
    let scope = CancelScope::new();
    scope.handle().cancel("early");
    let run = scope.run(async move {
        for _ in 0..3 {
            assert!(catch_cancelled(sleep(S)).await.is_err());
            inner.push("again");
        }
        sleep(S).await;
        inner.push("too far");
    });
    let began = Instant::now();
    assert!(run.await.is_err());
    assert_eq!((log.seen().len(), began.elapsed()), (3, Duration::ZERO));
    checkpoint().await;
    assert!(!is_cancelled());
}

#[testudo::test(start_paused = true)]
async fn raising_a_shield_un_cancels_what_was_not_cut_off() {
    let outer = CancelScope::new();
    let outer_handle = outer.handle();
    let began = Instant::now();
    let run = outer.run(async {
        let inner = CancelScope::new();
        let handle = inner.handle();
        let end = inner.run(async {
            outer_handle.cancel("early");
            assert!(is_cancelled());
            handle.set_shielded(true);
            assert!(!is_cancelled() && !handle.is_cancelled());
            sleep(S).await;
            handle.set_shielded(false);
            assert!(is_cancelled());
            sleep(S).await;
        });
        drop(end.await);
    });
    assert!(run.await.is_err());
    assert_eq!(began.elapsed(), S);
}

#[testudo::test(start_paused = true)]
async fn lowering_a_shield_below_a_cancelled_scope_wakes_and_cancels_at_once() {
    let inner = CancelScope::new().shielded(true);
    let handle = inner.handle();
    let began = Instant::now();
    let run = CancelScope::new().timeout(S).run(async move { drop(inner.run(pending::<()>()).await) });
    let lower = async {
        sleep(5 * S).await;
        assert!(!handle.is_cancelled());
        handle.set_shielded(false);
        assert!(handle.is_cancelled() && !handle.cancel_requested());
    };
    let (end, ()) = tokio::join!(run, lower);
    assert!(end.is_err());
    assert_eq!(began.elapsed(), 5 * S);
}

#[testudo::test(start_paused = true)]
async fn shield_does_not_hold_off_the_scopes_own_cancel_or_one_inside() {
    let scope = CancelScope::new().shielded(true);
    let handle = scope.handle();
    let run = scope.run(async {
        let inner = CancelScope::new();
        let inner_handle = inner.handle();
        let end = inner.run(async move {
            inner_handle.cancel("inner");
            pending::<()>().await;
        });
        assert_eq!(end.await.unwrap_err().cause().reason(), Some("inner"));
        handle.cancel("own");
        pending::<()>().await;
    });
    assert_eq!(run.await.unwrap_err().cause().reason(), Some("own"));
}

#[testudo::test(start_paused = true)]
async fn leaving_a_shield_is_no_suspension_but_the_next_one_is_the_end() {
    let log = Log::default();
    let inner = log.clone();
    let run = CancelScope::new().timeout(S).run(async move {
        shield(sleep(3 * S)).await;
        inner.push("still here");
        checkpoint().await;
        inner.push("too far");
    });
    assert!(run.await.is_err());
    assert_eq!(log.seen(), ["still here"]);
}

#[testudo::test(start_paused = true)]
async fn shield_raised_by_a_destructor_while_the_scope_unwinds_takes_nothing_back() {
    struct Raise(ScopeHandle);
    impl Drop for Raise {
        fn drop(&mut self) {
            self.0.set_shielded(true);
        }
    }
    let log = Log::default();
    let between = log.clone();
    let run = CancelScope::new().timeout(S).run(async move {
        let inner = CancelScope::new();
        let raise = Raise(inner.handle());
        let end = inner.run(async move {
            let _raise = raise;
            pending::<()>().await;
        });
        drop(end.await);
        between.push("too far");
    });
    assert!(run.await.is_err());
    assert!(log.seen().is_empty());
}

#[testudo::test(start_paused = true)]
async fn first_cause_wins_later_ones_are_kept_and_inner_scopes_inherit_it() {
    let outer = CancelScope::new();
    let handle = outer.handle();
    let run = outer.run(async {
        let inner = CancelScope::new();
        let inner_handle = inner.handle();
        let end = inner.run(async {
            assert!(handle.cancel("first"));
            assert!(!handle.cancel("second"));
            assert_eq!(inner_handle.cause(), handle.cause());
            assert!(inner_handle.cancel("own, but late"));
            assert_eq!(inner_handle.cause().unwrap().reason(), Some("first"));
            assert_eq!(cancelled().await.reason(), Some("first"));
            pending::<()>().await;
        });
        drop(end.await);
    });
    assert_eq!(run.await.unwrap_err().cause().reason(), Some("first"));
    let reasons: Vec<_> = handle.causes().iter().filter_map(|cause| cause.reason().map(str::to_owned)).collect();
    assert_eq!(reasons, ["first", "second"]);
}

#[testudo::test(start_paused = true)]
async fn cause_of_a_call_is_not_overwritten_by_a_deadline_nor_the_other_way() {
    let scope = CancelScope::new().timeout(S);
    let handle = scope.handle();
    let run = scope.run(async {
        handle.cancel("call");
        shield(sleep(3 * S)).await;
        pending::<()>().await;
    });
    assert_eq!(run.await.unwrap_err().cause().kind(), CauseKind::Requested);
    let scope = CancelScope::new().timeout(S);
    let handle = scope.handle();
    let run = scope.run(async {
        shield(sleep(3 * S)).await;
        handle.cancel("call");
        pending::<()>().await;
    });
    assert_eq!(run.await.unwrap_err().cause().kind(), CauseKind::Deadline);
}

#[testudo::test(start_paused = true)]
async fn timeouts_are_never_reported_for_a_cancel_from_outside() {
    let run = CancelScope::new().timeout(S).run(async { fail_after(5 * S, pending::<()>()).await.is_err() });
    assert!(run.await.is_err(), "the outer scope ends it; the inner time-out gives nothing");
    let run = fail_after(5 * S, async { fail_after(S, pending::<()>()).await });
    assert_eq!(run.await.unwrap().unwrap_err().timeout(), S);
    let run = fail_after(S, async { fail_after(5 * S, pending::<()>()).await });
    assert_eq!(run.await.map(drop).unwrap_err().timeout(), S);
    assert_eq!(fail_after(S, ready(7)).await, Ok(7));
    assert_eq!(move_on_after(S, ready(7)).await, Some(7));
}

#[testudo::test(start_paused = true)]
async fn cancel_reaches_every_leaf_of_nested_nurseries_before_it_returns() {
    let dropped = Count::default();
    let guards = [(); 4].map(|()| OnDrop(dropped.clone()));
    let scope = CancelScope::new();
    let handle = scope.handle();
    let inner_nursery = nursery(|n| async move {
        for guard in guards {
            n.spawn(async move {
                let _guard = guard;
                pending::<()>().await;
            });
        }
        pending::<()>().await;
    });
    let run = scope.run(nursery(|n| async move {
        n.spawn(inner_nursery.map(drop));
        pending::<()>().await;
    }));
    let (end, ()) = tokio::join!(run, async {
        turns().await;
        handle.cancel("all");
    });
    assert!(end.is_err());
    assert_eq!(dropped.get(), 4);
}

#[testudo::test(start_paused = true)]
async fn handle_is_cancelled_from_another_thread_and_waits_from_outside() {
    let scope = CancelScope::new();
    let (handle, waiting) = (scope.handle(), scope.handle());
    let run = scope.run(pending::<()>());
    let (end, cause, ()) = tokio::join!(run, waiting.cancelled(), async {
        std::thread::spawn(move || handle.cancel("elsewhere")).join().unwrap();
    });
    assert_eq!(end.unwrap_err().cause(), &cause);
    assert_eq!(cause.reason(), Some("elsewhere"));
}

#[testudo::test(start_paused = true)]
async fn panic_in_a_cancelled_scope_comes_out_and_a_destructors_panic_too() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("destructor"));
        }
    }
    let run = CancelScope::new().timeout(S).run(async {
        let _bomb = Bomb;
        pending::<()>().await;
    });
    let payload = AssertUnwindSafe(run).catch_unwind().await.map(drop).unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"destructor"));
    assert!(!is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn scopes_behave_the_same_in_a_plain_task_without_the_runner() {
    let began = Instant::now();
    let task = plain_task(async move {
        let outer = CancelScope::new()
            .timeout(S)
            .run(async { CancelScope::new().timeout(S).run(pending::<()>()).await.is_err() });
        (outer.await.is_err(), began.elapsed())
    });
    assert_eq!(task.await.unwrap(), (true, S));
}

#[testudo::test(start_paused = true)]
async fn dropped_scope_leaves_nothing_behind() {
    let dropped = Count::default();
    let guard = OnDrop(dropped.clone());
    let scope = CancelScope::new().timeout(10 * S);
    let handle = scope.handle();
    let run = scope.run(async move {
        let _guard = guard;
        pending::<()>().await;
    });
    assert!(timeout(S, run).await.is_err());
    assert_eq!(dropped.get(), 1);
    assert!(!handle.is_cancelled());
    assert!(handle.cancel("after its end"), "it takes effect on nothing");
}

#[testudo::test(start_paused = true)]
async fn deadline_toggled_two_thousand_times_fires_once_at_its_last_value() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let began = Instant::now();
    let run = scope.run(async {
        for _ in 0..2000 {
            handle.set_deadline(Some(began + 98 * S));
            handle.set_deadline(Some(began + 99 * S));
        }
        pending::<()>().await;
    });
    assert!(run.await.is_err());
    assert_eq!((began.elapsed(), handle.causes().len()), (99 * S, 1));
}

/// Scopes inside each other, the outermost first, around a body that never ends.
fn nested(depth: usize, innermost: BoxFuture<'static, ()>) -> (BoxFuture<'static, ()>, ScopeHandle) {
    let outermost = CancelScope::new();
    let handle = outermost.handle();
    let inner = (1..depth).fold(innermost, |inside, _| CancelScope::new().run(inside).map(drop).boxed());
    (outermost.run(inner).map(drop).boxed(), handle)
}

/// Runs on a stack that is deep enough to poll and drop nested futures; what is under test is the tree.
fn on_a_deep_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(1 << 30).spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { run() });
    });
    thread.unwrap().join().unwrap();
}

fn on_a_shallow_stack<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(128 << 10).spawn(run).unwrap().join().unwrap()
}

const DEPTH: usize = 5000;

#[test]
fn five_thousand_nested_scopes_are_cancelled_on_a_shallow_stack() {
    on_a_deep_stack(|| {
        let dropped = Count::default();
        let guard = OnDrop(dropped.clone());
        let innermost = async move {
            let _guard = guard;
            pending::<()>().await;
        };
        let (mut run, handle) = nested(DEPTH, innermost.boxed());
        assert!(is_pending(run.as_mut()).now_or_never().unwrap());
        on_a_shallow_stack(move || handle.cancel("the outermost"));
        assert!(!is_pending(run.as_mut()).now_or_never().unwrap(), "it is the outermost that absorbs, in one poll");
        assert_eq!(dropped.get(), 1);
    });
}

#[test]
fn five_thousand_nested_scopes_are_shielded_and_unshielded_on_a_shallow_stack() {
    on_a_deep_stack(|| {
        let (inner, inner_handle) = nested(DEPTH, pending().boxed());
        let outer = CancelScope::new();
        let handle = outer.handle();
        let mut run = outer.run(inner).boxed();
        assert!(is_pending(run.as_mut()).now_or_never().unwrap());
        on_a_shallow_stack(move || {
            inner_handle.set_shielded(true);
            handle.cancel("outside the shield");
            assert!(!inner_handle.is_cancelled());
            inner_handle.set_shielded(false);
            assert!(inner_handle.is_cancelled());
        });
        assert!(!is_pending(run.as_mut()).now_or_never().unwrap());
    });
}

#[test]
fn nodes_of_five_thousand_nested_scopes_are_dropped_on_a_shallow_stack() {
    on_a_deep_stack(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let innermost = CancelScope::new();
        sender.send(innermost.handle()).unwrap();
        let (mut run, handle) = nested(DEPTH, innermost.run(pending::<()>()).map(drop).boxed());
        assert!(is_pending(run.as_mut()).now_or_never().unwrap());
        drop(run);
        on_a_shallow_stack(move || drop((receiver.recv().unwrap(), handle)));
    });
}
