//! What no other test has seen when a line of the library was changed.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use testudo::{
    CancelScope, FinalizeExt, Nursery, Policy, Runner, Started, TaskRef, drain, dump, is_cancelled, nursery,
    nursery_local, shield, shield_local,
};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::coop::{has_budget_remaining, poll_proceed};
use tokio::task::{LocalSet, yield_now};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Count, Heard, S, blow_up, is_pending, plain_task, said, turns};

struct Silent;

impl Wake for Silent {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn cancelled_that_is_dropped_lets_go_of_its_waker() {
    let handle = CancelScope::new().handle();
    let bell = Arc::new(Silent);
    let waker = Waker::from(Arc::clone(&bell));
    {
        let mut cancelled = pin!(handle.cancelled());
        assert!(cancelled.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(Arc::strong_count(&bell) > 2, "it waits");
    }
    assert_eq!(Arc::strong_count(&bell), 2);
}

/// An executor within the task may give a few turns to others before it polls the shield.
#[testudo::test(start_paused = true)]
async fn shield_holds_its_scope_if_it_is_polled_some_turns_after_the_cancel() {
    let (scope, start) = (CancelScope::new(), Instant::now());
    let handle = scope.handle();
    let body = async {
        let (mut shield, mut turn) = (pin!(shield(sleep(S))), 0);
        poll_fn(|cx| {
            turn += 1;
            if turn % 5 == 0 {
                return shield.as_mut().poll(cx);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    };
    let cancel = async {
        sleep(S / 4).await;
        handle.cancel("test");
    };
    let (result, ()) = tokio::join!(scope.run(body), cancel);
    assert!(result.is_ok(), "it was cut off after {:?}", start.elapsed());
    assert_eq!(start.elapsed(), S);
}

#[testudo::test(start_paused = true)]
async fn child_that_was_un_cancelled_hears_of_the_next_cancel() {
    let began = Instant::now();
    let outer = CancelScope::new();
    let handle = outer.handle();
    let end = outer.run(nursery(|n| async move {
        let scope = n.scope();
        n.spawn(async { sleep(5 * S).await });
        yield_now().await;
        handle.cancel("outside");
        scope.set_shielded(true);
        sleep(S).await;
        scope.set_shielded(false);
    }));
    assert!(end.await.is_err());
    assert_eq!(began.elapsed(), S);
}

#[testudo::test(start_paused = true)]
async fn child_with_a_name_that_was_un_cancelled_hears_of_the_next_cancel() {
    let outer = CancelScope::new();
    let handle = outer.handle();
    let end = outer.run(nursery(|n| async move {
        let scope = n.scope();
        n.task().name("child").spawn(pending::<()>());
        yield_now().await;
        handle.cancel("outside");
        scope.set_shielded(true);
        yield_now().await;
        scope.set_shielded(false);
    }));
    assert!(timeout(S, end).await.is_ok_and(|end| end.is_err()), "a wake was lost");
}

/// It ends at once, and panics when it is dropped.
struct Bomb;

impl Future for Bomb {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        blow_up("in a destructor");
    }
}

#[testudo::test(start_paused = true)]
async fn panic_in_the_destructor_of_what_has_ended_is_not_lost() {
    let end = AssertUnwindSafe(CancelScope::new().run(Bomb)).catch_unwind().await;
    assert!(end.is_err());
}

#[testudo::test(start_paused = true)]
async fn scope_that_is_dropped_lets_go_of_the_waker_of_its_branch() {
    let bell = Arc::new(Silent);
    let waker = Waker::from(Arc::clone(&bell));
    let run = CancelScope::new().run(async {
        let mut inner = Box::pin(CancelScope::new().run(pending::<()>()));
        assert!(inner.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(Arc::strong_count(&bell) > 2, "it waits");
        drop(inner);
        assert_eq!(Arc::strong_count(&bell), 2);
    });
    assert!(run.await.is_ok());
}

async fn shield_in_two_sets() {
    let mut first = FuturesUnordered::from_iter([Box::pin(shield(sleep(5 * S)))]);
    assert!(is_pending(pin!(first.next())).await);
    let mut second: FuturesUnordered<_> = first.into_iter().collect();
    assert!(second.next().await.is_some());
}

#[testudo::test(start_paused = true)]
async fn shield_that_moves_to_another_set_of_its_scope_holds_it_still() {
    let (scope, start) = (CancelScope::new(), Instant::now());
    let handle = scope.handle();
    let cancel = async {
        sleep(S).await;
        handle.cancel("test");
    };
    let (result, ()) = tokio::join!(scope.run(shield_in_two_sets()), cancel);
    assert!(result.is_ok(), "it was cut off after {:?}", start.elapsed());
    assert_eq!(start.elapsed(), 5 * S);
}

#[testudo::test(start_paused = true)]
async fn shield_that_moves_to_another_set_in_a_cancelled_poll_of_its_scope_holds_it_still() {
    let (scope, start) = (CancelScope::new(), Instant::now());
    scope.handle().cancel("before");
    let end = scope.run(shield_in_two_sets());
    assert!(end.await.is_ok(), "it was cut off after {:?}", start.elapsed());
    assert_eq!(start.elapsed(), 5 * S);
}

/// The code around the shield has woken itself in each of those turns: the shield answers nobody, and proves nothing.
#[testudo::test(start_paused = true)]
async fn scope_whose_code_turns_away_from_a_shield_after_some_turns_of_its_own_ends_at_once() {
    let (scope, start) = (CancelScope::new(), Instant::now());
    scope.handle().cancel("before");
    let end = scope.run(async {
        let (mut kept, mut turns) = (pin!(shield(sleep(5 * S))), 0);
        poll_fn(|cx| {
            turns += 1;
            if turns > 5 {
                return Poll::Pending;
            }
            cx.waker().wake_by_ref();
            kept.as_mut().poll(cx)
        })
        .await;
    });
    assert!(end.await.is_err());
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(drain(100 * S).await);
}

#[test]
fn shield_in_a_scope_that_has_moved_to_a_plain_task_is_not_lost_to_the_end_of_a_run() {
    let done = Count::default();
    let count = done.clone();
    let finished = Runner::new().current_thread().signals(false).reporter(None).run(async move {
        let ((go, going), (begin, begun)) = (oneshot::channel(), oneshot::channel());
        let mut scope = Box::pin(CancelScope::new().run(async move {
            going.await.unwrap();
            let work = async move {
                begin.send(()).unwrap();
                for _ in 0..100 {
                    yield_now().await;
                }
                count.add();
            };
            shield(work).await;
        }));
        assert!(is_pending(scope.as_mut()).await);
        go.send(()).unwrap();
        drop(plain_task(scope));
        begun.await.unwrap();
    });
    assert!(finished.report.is_clean(), "{}", finished.report);
    assert_eq!(done.get(), 1);
}

/// Polls a future when all of the turn is used up.
async fn starved<F: Future>(fut: F) -> F::Output {
    let (mut fut, mut turns) = (pin!(fut), 0);
    poll_fn(|cx| {
        turns += 1;
        assert!(turns < 1000, "it goes on and on");
        while has_budget_remaining() {
            match poll_proceed(cx) {
                Poll::Ready(turn) => turn.made_progress(),
                Poll::Pending => break,
            }
        }
        fut.as_mut().poll(cx)
    })
    .await
}

#[testudo::test(start_paused = true)]
async fn cancelled_scope_with_a_hold_that_is_not_polled_ends_though_nothing_of_the_turn_is_left_for_it() {
    let scope = CancelScope::new();
    scope.handle().cancel("before");
    let end = scope.run(async {
        let mut kept = pin!(shield(sleep(S)));
        assert!(is_pending(kept.as_mut()).await);
        pending::<()>().await;
    });
    assert!(starved(end).await.is_err());
    drop(drain(100 * S).await);
}

#[testudo::test(start_paused = true)]
async fn dump_says_what_a_task_says_of_itself() {
    let run = nursery(|n| async move {
        n.task().name("mail").status(|| "3 of 7".to_owned()).spawn(async { yield_now().await });
        let text = dump().to_string();
        assert!(text.contains("mail [3 of 7] at "), "{text}");
    });
    assert!(run.await.is_ok());
}

#[testudo::test(start_paused = true)]
async fn cancel_is_seen_through_a_scope_in_its_first_poll_but_not_through_a_shield() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let end = scope.run(async {
        let seen = CancelScope::new().run(async {
            handle.cancel("now");
            is_cancelled()
        });
        assert_eq!(seen.await.ok(), Some(true));
        assert!(!shield(async { is_cancelled() }).await);
    });
    assert!(end.await.is_ok());
}

#[testudo::test(start_paused = true)]
async fn scope_with_a_cause_of_its_own_takes_none_from_what_is_around_it() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let (outside, own) = (outer.handle(), inner.handle());
    let end = outer.run(inner.run(async {
        own.cancel("own");
        outside.cancel("outside");
        own.causes().iter().map(|cause| cause.reason().map(str::to_owned)).collect::<Vec<_>>()
    }));
    let causes = end.await.ok().and_then(Result::ok);
    assert_eq!(causes, Some(vec![Some("own".to_owned())]));
}

#[testudo::test(start_paused = true)]
async fn who_waits_for_the_cancel_of_a_scope_is_woken_when_it_is_entered_where_all_is_cancelled() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let handle = inner.handle();
    outer.handle().cancel("before");
    let run = nursery(|n| async move {
        let waiting = n.spawn(async move { Ok::<_, Infallible>(handle.cancelled().await) });
        yield_now().await;
        drop(outer.run(inner.run(pending::<()>())).await);
        assert!(timeout(S, waiting).await.is_ok(), "a wake was lost");
        Ok(())
    });
    assert!(run.await.is_ok());
}

#[test]
fn shield_in_a_child_of_a_plain_task_is_not_lost_to_the_end_of_a_run() {
    let done = Count::default();
    let count = done.clone();
    let finished = Runner::new().current_thread().signals(false).reporter(None).run(async move {
        let (begin, begun) = oneshot::channel();
        drop(plain_task(nursery(|n| async move {
            n.spawn(shield(async move {
                begin.send(()).unwrap();
                for _ in 0..100 {
                    yield_now().await;
                }
                count.add();
                Ok::<_, Infallible>(())
            }));
            Ok(())
        })));
        begun.await.unwrap();
    });
    assert!(finished.report.is_clean(), "{}", finished.report);
    assert_eq!(done.get(), 1);
}

#[test]
fn shield_that_tells_of_itself_in_its_first_poll_is_not_lost_to_the_end_of_a_run() {
    let done = Count::default();
    let count = done.clone();
    let finished = Runner::new().signals(false).reporter(None).run(async move {
        let ((begin, begun), (main, end_of_main)) = (oneshot::channel(), std::sync::mpsc::channel::<()>());
        drop(plain_task(shield(async move {
            begin.send(()).unwrap();
            assert!(end_of_main.recv().is_err());
            yield_now().await;
            count.add();
        })));
        begun.await.unwrap();
        drop(main);
    });
    assert!(finished.report.is_clean(), "{}", finished.report);
    assert_eq!(done.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn scope_whose_time_is_over_when_it_begins_is_cancelled_in_its_first_poll() {
    assert_eq!(CancelScope::new().timeout(Duration::ZERO).run(async { is_cancelled() }).await.ok(), Some(true));
}

#[testudo::test(start_paused = true)]
async fn scope_that_is_opened_in_a_cancelled_one_is_cut_at_its_first_suspension() {
    let (scope, polls) = (CancelScope::new(), Count::default());
    scope.handle().cancel("before");
    let body = poll_fn(|_| {
        polls.add();
        Poll::<()>::Pending
    });
    assert!(scope.run(CancelScope::new().run(body)).await.is_err());
    assert_eq!(polls.get(), 1);
}

#[test]
fn handle_says_whether_the_shield_is_up() {
    let handle = CancelScope::new().handle();
    assert!(!handle.is_shielded());
    handle.set_shielded(true);
    assert!(handle.is_shielded());
}

#[testudo::test(start_paused = true)]
async fn nursery_with_a_timeout_ends_at_it() {
    let began = Instant::now();
    let run = nursery(|_| pending::<Result<(), Infallible>>()).timeout(S);
    assert!(timeout(5 * S, run).await.is_ok_and(|end| end.is_err()));
    assert_eq!(began.elapsed(), S);
}

#[testudo::test(start_paused = true)]
async fn nursery_with_a_shield_is_not_cut_off_from_outside() {
    let began = Instant::now();
    let run = nursery(|_| async { sleep(3 * S).await }).shielded(true);
    drop(CancelScope::new().timeout(S).run(run).await);
    assert_eq!(began.elapsed(), 3 * S);
}

#[testudo::test(start_paused = true)]
async fn body_that_fails_cancels_the_children_of_a_nursery_that_supervises() {
    let failed = nursery(|n| async move {
        n.spawn(pending::<()>());
        Err::<(), _>("no")
    });
    assert!(timeout(S, failed.policy(Policy::Supervise)).await.is_ok_and(|end| end.is_err()));
    let panicked = nursery(|n| async move {
        n.spawn(pending::<()>());
        blow_up("body");
        Ok::<(), &str>(())
    });
    let end = AssertUnwindSafe(timeout(S, panicked.policy(Policy::Supervise))).catch_unwind().await;
    assert!(end.is_err(), "the panic comes out when the child has ended");
}

#[testudo::test(start_paused = true)]
async fn local_nursery_and_its_tasks_say_whether_a_cancel_came_in_time() {
    let run = nursery_local(|n| async move {
        let sleeper = n.spawn(async { sleep(S).await });
        let (done, endless) = (n.spawn(async {}), n.spawn(pending::<()>()));
        assert!(timeout(5 * S, sleeper).await.is_ok(), "the end of the child was not told");
        assert!(!done.cancel("late") && endless.cancel("in time"));
        assert!(n.cancel("first") && !n.cancel("second"));
        Ok::<(), Infallible>(())
    });
    assert!(run.await.is_ok());
}

#[testudo::test(start_paused = true)]
async fn local_shield_ends_with_its_budget() {
    let began = Instant::now();
    let work = async {
        let shield = shield_local(sleep(9 * S)).budget(2 * S);
        drop(CancelScope::new().timeout(S).run(shield).await);
    };
    LocalSet::new().run_until(work).await;
    assert_eq!(began.elapsed(), 3 * S);
}

#[testudo::test(start_paused = true)]
async fn drain_does_not_wait_for_a_scope_in_a_plain_task() {
    let began = Instant::now();
    let task = plain_task(CancelScope::new().run(pending::<()>()));
    yield_now().await;
    assert!(drain(S).await.is_clean());
    assert_eq!(began.elapsed(), Duration::ZERO);
    task.abort();
}

#[testudo::test(start_paused = true)]
async fn child_that_is_being_started_is_cancelled_with_the_scope_to_which_its_start_has_moved() {
    let run = nursery(|n| async move {
        let mut start = Box::pin(n.start(|_started: Started<()>| pending::<()>()));
        assert!(is_pending(start.as_mut()).await);
        let scope = CancelScope::new();
        scope.handle().cancel("before");
        assert!(timeout(S, scope.run(start)).await.is_ok_and(|end| end.is_err()), "the child does not hear of it");
        Ok::<_, Infallible>(())
    });
    assert!(run.await.is_ok());
}

#[test]
fn failure_of_a_child_whose_handle_is_gone_is_reported_before_its_nursery_ends() {
    let heard = Heard::default();
    let runner = Runner::new().current_thread().signals(false).reporter(heard.reporter());
    let finished = runner.run(async move {
        let run = nursery(|n| async move {
            drop(n.task().name("child").spawn(async {
                yield_now().await;
                Err::<(), _>("no")
            }));
            Ok(())
        });
        // In a task, which is polled in the order of the wakes.
        let ended = plain_task(async move {
            assert!(run.policy(Policy::Supervise).await.is_ok());
            said(&heard.events())
        });
        Ok::<_, Infallible>(ended.await.unwrap())
    });
    assert_eq!(finished.outcome.ok(), Some(vec!["failed child: no".to_owned()]));
}

#[testudo::test(start_paused = true)]
async fn child_that_is_being_started_follows_its_start_out_of_a_scope_that_has_ended() {
    let run = nursery(|n| async move {
        let mut start = Box::pin(n.start(|_started: Started<()>| pending::<()>()));
        assert!(CancelScope::new().run(is_pending(start.as_mut())).await.is_ok_and(|pending| pending));
        let scope = CancelScope::new();
        scope.handle().cancel("before");
        assert!(timeout(S, scope.run(start)).await.is_ok_and(|end| end.is_err()), "the child does not hear of it");
        Ok::<_, Infallible>(())
    });
    assert!(run.await.is_ok());
}

#[testudo::test(start_paused = true)]
async fn child_whose_start_is_dropped_while_it_waits_is_cancelled() {
    let run = nursery(|n| async move {
        let child = |started: Started<()>| async move {
            pending::<()>().await;
            started.started(());
            Ok::<_, Infallible>(())
        };
        let mut start = Box::pin(n.start(child));
        assert!(is_pending(start.as_mut()).await);
        drop(start);
        Ok(())
    });
    assert!(timeout(S, run).await.is_ok(), "the child goes on");
}

/// A runtime whose time is paused.
fn paused() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[test]
fn local_shield_whose_runtime_is_gone_is_not_run_where_nobody_waits_for_it() {
    let (local, done) = (LocalSet::new(), Count::default());
    let count = done.clone();
    let work = async move {
        yield_now().await;
        count.add();
    };
    let mut shield = Box::pin(shield_local(work));
    let begin = local.run_until(async { assert!(is_pending(shield.as_mut()).await) });
    drop(Runner::new().current_thread().signals(false).reporter(None).run(begin));
    local.block_on(&paused(), async {
        drop(shield);
        turns().await;
    });
    assert_eq!(done.get(), 0);
}

#[test]
fn timeout_of_a_scope_that_moves_from_a_task_to_one_on_another_runtime_fires_there() {
    let (first, second) = (paused(), paused());
    let mut scope = Box::pin(CancelScope::new().timeout(S).run(pending::<()>()));
    let polled = first.block_on(async {
        let poll = async move {
            assert!(is_pending(scope.as_mut()).await);
            (scope,)
        };
        plain_task(poll).await
    });
    drop(first);
    let (scope,) = polled.unwrap();
    let end = second.block_on(async { timeout(5 * S, plain_task(scope)).await });
    assert!(end.is_ok_and(|end| end.unwrap().is_err()), "it stayed with the runtime that is gone");
}

#[testudo::test(start_paused = true)]
async fn cancel_by_another_thread_is_seen_in_the_first_poll_of_a_scope() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let end = scope.run(CancelScope::new().run(async move {
        assert!(std::thread::spawn(move || handle.cancel("there")).join().unwrap());
        is_cancelled()
    }));
    assert_eq!(end.await.ok().and_then(Result::ok), Some(true));
}

/// Counts how often it is woken.
struct Bell(Count);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.add();
    }
}

#[testudo::test(start_paused = true)]
async fn cancelled_scope_that_is_held_does_not_wake_itself_though_nothing_of_the_turn_is_left() {
    let (scope, wakes, done) = (CancelScope::new(), Count::default(), Count::default());
    let (handle, is_done) = (scope.handle(), done.clone());
    let waker = Waker::from(Arc::new(Bell(wakes.clone())));
    let mut cx = Context::from_waker(&waker);
    let work = poll_fn(move |_| if is_done.get() == 0 { Poll::Pending } else { Poll::Ready(()) });
    let mut run = pin!(scope.run(shield(work)));
    assert!(run.as_mut().poll(&mut cx).is_pending());
    handle.cancel("test");
    let before = wakes.get();
    assert!(starved(poll_fn(|_| Poll::Ready(run.as_mut().poll(&mut cx).is_pending()))).await);
    assert_eq!(wakes.get(), before);
    done.add();
    assert!(run.as_mut().poll(&mut cx).is_ready());
}

#[testudo::test(start_paused = true)]
async fn branch_of_a_set_that_nothing_polled_holds_is_cut_though_the_branch_beside_it_spins() {
    let (scope, mut polls) = (CancelScope::new(), 0);
    let handle = scope.handle();
    let spin = poll_fn(|cx| {
        polls += 1;
        assert!(polls < 100, "it goes on and on");
        cx.waker().wake_by_ref();
        if polls == 3 {
            handle.cancel("test");
        }
        Poll::Pending
    });
    let wait = CancelScope::new().run(async {
        let mut kept = pin!(shield(sleep(S)));
        assert!(is_pending(kept.as_mut()).await);
        pending::<()>().await;
    });
    let set = FuturesUnordered::from_iter([spin.boxed_local(), wait.map(drop).boxed_local()]);
    assert!(scope.run(set.count()).await.is_err());
    drop(drain(100 * S).await);
}

#[testudo::test(start_paused = true)]
async fn what_was_rescued_stays_with_its_owner_though_a_finalizer_waits_for_it_in_place() {
    let scope = CancelScope::new().name("left");
    let (handle, (say, heard)) = (scope.handle(), oneshot::channel());
    let work = async {
        turns().await;
        say.send(dump().to_string()).unwrap();
    };
    let body = async {
        let mut kept = pin!(shield(work).name("kept"));
        assert!(is_pending(kept.as_mut()).await);
        handle.cancel("test");
        pending::<()>().await;
    };
    assert!(scope.run(body.finally(async {})).await.is_err());
    let text = heard.await.unwrap();
    assert!(text.contains("\n  rescued shield kept "), "not below the root:\n{text}");
}

// What waits for itself is left behind, which a test of ours would not allow.
#[tokio::test(start_paused = true)]
async fn child_that_waits_for_its_own_start_waits_for_itself_and_stops_no_thread() {
    let run = nursery(|n| async move {
        let (hand_in, handed_in) = oneshot::channel::<Pin<Box<testudo::Start<(), Infallible>>>>();
        let mut start = Box::pin(n.start(|_started: Started<()>| async move {
            let own = handed_in.await.unwrap();
            drop(own.await);
            Ok(())
        }));
        assert!(is_pending(start.as_mut()).await);
        hand_in.send(start).ok().unwrap();
        Ok::<_, Infallible>(())
    });
    assert!(timeout(S, run).await.is_err());
}

#[testudo::test]
async fn child_that_nothing_has_looked_into_sees_that_it_or_its_nursery_is_cancelled() {
    let run = nursery(|n| async move {
        let (hand_in, handed_in) = oneshot::channel::<TaskRef>();
        let (said, heard) = oneshot::channel();
        let task = n.spawn(async {
            let own = handed_in.await.unwrap();
            let before = is_cancelled();
            own.cancel("alone");
            said.send((before, is_cancelled())).unwrap();
        });
        hand_in.send(task.as_ref()).unwrap();
        assert_eq!(heard.await, Ok((false, true)));
        n.cancel("all");
        let (said, heard) = oneshot::channel();
        n.spawn(shield(async { said.send(is_cancelled()).unwrap() }));
        n.spawn(async { assert!(is_cancelled(), "its nursery is") });
        assert_eq!(heard.await, Ok(false), "a shield holds it off");
        Ok::<_, Infallible>(())
    });
    assert!(run.await.is_ok());
}

#[test]
fn shield_that_tells_of_itself_in_the_first_poll_of_a_child_of_a_plain_task_is_not_lost_to_the_end_of_a_run() {
    let done = Count::default();
    let count = done.clone();
    let finished = Runner::new().signals(false).reporter(None).run(async move {
        let ((begin, begun), (main, end_of_main)) = (oneshot::channel(), std::sync::mpsc::channel::<()>());
        drop(plain_task(nursery(|n| async move {
            n.spawn(shield(async move {
                begin.send(()).unwrap();
                assert!(end_of_main.recv().is_err());
                // Time enough for a run that does not wait to end.
                (0..10_000).for_each(|_| std::thread::yield_now());
                yield_now().await;
                count.add();
                Ok::<_, Infallible>(())
            }));
            Ok(())
        })));
        begun.await.unwrap();
        drop(main);
    });
    assert!(finished.report.is_clean(), "{}", finished.report);
    assert_eq!(done.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn child_that_has_started_is_not_cancelled_with_the_scope_that_started_it() {
    let done = Count::default();
    let count = done.clone();
    let run = nursery(|n| async move {
        let scope = CancelScope::new();
        let handle = scope.handle();
        let body = async {
            let started = n.start(|started| async move {
                started.started(());
                sleep(S).await;
                count.add();
                Ok::<_, Infallible>(())
            });
            assert!(started.await.is_ok());
            handle.cancel("the scope alone");
            pending::<()>().await;
        };
        assert!(scope.run(body).await.is_err());
        Ok(())
    });
    assert!(run.await.is_ok());
    assert_eq!(done.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn child_that_has_started_does_not_move_with_its_start() {
    let done = Count::default();
    let count = done.clone();
    let run = nursery(|n| async move {
        let mut start = Box::pin(n.start(|started| async move {
            started.started(());
            sleep(S).await;
            count.add();
            Ok::<_, Infallible>(())
        }));
        assert!(CancelScope::new().run(is_pending(start.as_mut())).await.is_ok_and(|pending| pending));
        yield_now().await;
        let scope = CancelScope::new();
        let handle = scope.handle();
        let body = async {
            assert!(start.await.is_ok());
            handle.cancel("the scope alone");
            pending::<()>().await;
        };
        assert!(scope.run(body).await.is_err());
        Ok(())
    });
    assert!(run.await.is_ok());
    assert_eq!(done.get(), 1);
}

/// Says in its destructor how many children its nursery has.
struct Census(Nursery<Infallible>, Arc<AtomicUsize>);

impl Drop for Census {
    fn drop(&mut self) {
        self.1.store(self.0.len(), Ordering::Relaxed);
    }
}

#[test]
fn what_a_child_owns_is_dropped_before_it_is_counted_out_though_its_runtime_ends() {
    let counted = Arc::new(AtomicUsize::new(0));
    let runtime = paused();
    let seen = Arc::clone(&counted);
    let mut run = Box::pin(nursery(|n| async move {
        let census = Census(n.clone(), seen);
        n.spawn(async move {
            pending::<()>().await;
            drop(census);
        });
        pending::<Result<(), _>>().await
    }));
    assert!(runtime.block_on(async { is_pending(run.as_mut()).await }));
    runtime.block_on(turns());
    drop(runtime);
    assert_eq!(counted.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_made_outside_of_any_task_has_an_age_of_its_own() {
    let older = nursery(|_| async { Ok::<_, Infallible>(()) });
    sleep(S).await;
    let younger = nursery(|_| async { Ok::<_, Infallible>(dump().entries().iter().map(|e| e.who().age()).max()) });
    assert_eq!(younger.await.ok().flatten(), Some(Duration::ZERO));
    drop(older);
}

/// The children of a local nursery share one turn: what has found nothing of it has a turn of its own still to come (M1).
#[testudo::test]
async fn child_of_a_local_nursery_that_comes_too_late_in_a_turn_has_a_full_one_before_it_is_cut() {
    fn use_up(cx: &mut Context<'_>) {
        while let Poll::Ready(step) = poll_proceed(cx) {
            step.made_progress();
        }
    }
    let done = Count::default();
    let count = done.clone();
    let run = nursery_local(|n| async move {
        n.spawn(poll_fn(|cx| {
            use_up(cx);
            Poll::<()>::Pending
        }));
        let mut turns = 0;
        n.spawn(poll_fn(move |cx| {
            if !is_cancelled() || !has_budget_remaining() {
                return Poll::Pending;
            }
            turns += 1;
            if turns == 1 {
                use_up(cx);
                return Poll::Pending;
            }
            count.add();
            Poll::Ready(())
        }));
        for _ in 0..3 {
            yield_now().await;
        }
        n.cancel("test");
        Ok::<_, Infallible>(())
    });
    assert!(run.await.is_ok());
    assert_eq!(done.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn child_that_another_begins_in_the_first_poll_of_a_local_nursery_is_polled_though_nothing_wakes_that_again() {
    let began = Instant::now();
    let run = nursery_local(|n| async move {
        let ((say, heard), (end, ended)) = (oneshot::channel(), oneshot::channel());
        n.spawn(async { ended.await.unwrap() });
        n.spawn(async {});
        let inner = n.clone();
        n.spawn(async move {
            inner.spawn(async { say.send(()).unwrap() });
            heard.await.unwrap();
            end.send(()).unwrap();
        });
        Ok::<_, Infallible>(())
    });
    // At its end a `timeout` polls once more what it waits for.
    assert!(timeout(S, run).await.is_ok_and(|end| end.is_ok()));
    assert_eq!(began.elapsed(), Duration::ZERO, "it was not polled");
}

#[test]
fn shields_that_are_stuck_in_their_first_polls_in_plain_tasks_are_named_once_and_until_they_end() {
    // Both are stuck, and somebody has to keep the time.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    let stuck = |name: &'static str| {
        let (begin, begun) = std::sync::mpsc::channel();
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let work = async move {
            begin.send(dump().to_string()).unwrap();
            gate.recv().unwrap();
            dump().to_string()
        };
        (plain_task(shield(work).name(name)), begun.recv().unwrap(), go)
    };
    runtime.block_on(async {
        let (one, at_first, go_one) = stuck("one");
        let (two, _, go_two) = stuck("two");
        let left = drain(Duration::from_millis(1)).await;
        let left: Vec<_> = left.left().iter().map(|left| (left.what(), left.name())).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.contains(&("shield", Some("one"))) && left.contains(&("shield", Some("two"))), "{left:?}");
        go_one.send(()).unwrap();
        for text in [at_first, one.await.unwrap()] {
            assert_eq!(text.matches("shield one at tests/it/").count(), 1, "{text}");
        }
        let text = dump().to_string();
        assert!(text.contains("shield two at tests/it/") && !text.contains("shield one"), "{text}");
        go_two.send(()).unwrap();
        assert!(two.await.unwrap().contains("shield two at "));
        assert!(drain(S).await.is_clean());
        assert_eq!(dump().entries().len(), 1, "the root alone");
    });
}

/// Whoever waits for the last shield would be woken by a moment in which nothing is counted.
#[testudo::test(start_paused = true)]
async fn shield_in_a_plain_task_stays_counted_when_it_gets_its_place() {
    let wakes = Count::default();
    let waker = Waker::from(Arc::new(Bell(wakes.clone())));
    let ended = plain_task(shield(async move {
        let mut wait = Box::pin(drain(9 * S));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        yield_now().await;
        wakes.get()
    }));
    assert_eq!(ended.await.unwrap(), 0);
}

#[testudo::test(start_paused = true)]
async fn scope_whose_time_is_over_when_it_begins_is_cut_at_its_first_suspension() {
    assert!(CancelScope::new().timeout(Duration::ZERO).run(yield_now()).await.is_err());
    assert!(CancelScope::new().timeout(S).run(yield_now()).await.is_ok());
}

#[test]
fn shield_that_is_planned_in_a_plain_task_is_named_and_counted_before_it_has_a_place() {
    let runtime = Runtime::new().unwrap();
    let (begin, begun) = std::sync::mpsc::channel();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    runtime.block_on(async {
        let ended = plain_task(CancelScope::new().run(shield(async move {
            begin.send(()).unwrap();
            gate.recv().unwrap();
        })));
        begun.recv().unwrap();
        let (report, text) = (drain(Duration::from_millis(1)).await, dump().to_string());
        assert_eq!(report.left().iter().map(|left| left.what()).collect::<Vec<_>>(), ["shield"]);
        assert_eq!(text.matches("shield at tests/it/").count(), 1, "{text}");
        go.send(()).unwrap();
        assert!(ended.await.unwrap().is_ok());
        assert!(drain(S).await.is_clean());
        assert_eq!(dump().entries().len(), 1, "the root alone");
    });
}

/// No suspension, so that no timer of the runtime could say it.
#[test]
fn code_that_never_suspends_hears_of_its_deadline() {
    let spin = async {
        let began = std::time::Instant::now();
        while !is_cancelled() {
            assert!(began.elapsed() < 60 * S, "nobody says so");
            std::hint::spin_loop();
        }
        assert!(began.elapsed() >= Duration::from_millis(10), "too early");
        assert!(!shield(async { is_cancelled() }).await);
        yield_now().await;
        pending::<()>().await;
    };
    let end = CancelScope::new().timeout(Duration::from_millis(20)).run(spin);
    assert!(Runtime::new().unwrap().block_on(end).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_region_that_a_shield_has_saved_in_its_last_poll_is_not_polled_for_that() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let (cancel, save) = (outer.handle(), inner.handle());
    let (polls, wakes) = (Count::default(), Count::default());
    let counts = polls.clone();
    let body = poll_fn(move |_| {
        counts.add();
        if is_cancelled() {
            save.set_shielded(true);
        }
        Poll::<()>::Pending
    });
    let mut run = pin!(outer.run(inner.run(body)));
    let waker = Waker::from(Arc::new(Bell(wakes.clone())));
    let mut poll = || assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    poll();
    cancel.cancel("enough");
    let mut seen = 0;
    while wakes.get() > seen {
        seen = wakes.get();
        poll();
    }
    assert_eq!(polls.get(), 2);
}
