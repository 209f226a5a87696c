//! What reading the library against its rules has found.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, Ready, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join;
use testudo::testing::{Effect, Signals};
use testudo::{
    CancelScope, FinalizeExt, LocalNursery, Nursery, Outcome, Policy, Reporter, Runner, Signal, Stage, Stages, adopt,
    bracket, catch_cancelled, drain, nursery, nursery_local, root_nursery, shield, shutdown, shutdown_requested, spawn,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinSet, block_in_place, yield_now};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Count, Log, S, blow_up, is_pending, plain_task, said, turns};

fn runner() -> Runner {
    Runner::new().current_thread().signals(false).reporter(None)
}

fn runtime(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap()
}

/// Real time, where two runtimes or blocking threads are part of it.
const SHORT: Duration = Duration::from_millis(50);

#[test]
fn what_a_run_was_given_is_dropped_with_it() {
    for takes_part in [false, true] {
        let (send, heard) = mpsc::channel();
        let on_force = Count::default();
        let kept = crate::support::OnDrop(on_force.clone());
        let reporter = Reporter::new(move |event| drop(send.send(event.to_string())));
        let finished = runner().reporter(reporter).on_force(move || assert_eq!(kept.0.get(), 0)).run(async move {
            if takes_part {
                spawn(async { drop(shutdown_requested().await) });
                turns().await;
            }
        });
        assert!(finished.outcome.is_ok());
        assert_eq!(on_force.get(), 1, "{takes_part}");
        assert_eq!(heard.recv_timeout(S), Err(mpsc::RecvTimeoutError::Disconnected), "{takes_part}");
    }
}

#[test]
fn a_stage_with_the_longest_budget_stops_in_its_order() {
    let log = Log::default();
    let (first, last) = (log.clone(), log.clone());
    let stage = |name, log: Log| {
        Stage::new(name, move |cx| async move {
            cx.ready();
            cx.stop_requested().await;
            turns().await;
            log.push(name);
            Ok::<_, Infallible>(())
        })
    };
    let asks = Stage::new("asks", |cx| async move {
        cx.ready();
        shutdown("enough");
        Ok(())
    });
    let http = stage("http", first).needs("db").budget(Duration::MAX);
    let end = runner().run(Stages::new().with(stage("db", last)).with(http).with(asks.needs("http")).run());
    assert!(end.outcome.is_ok(), "{:?}", end.outcome);
    assert_eq!(log.seen(), ["http", "db"]);
}

#[tokio::test(start_paused = true)]
async fn failures_of_started_children_that_nobody_looks_at_are_reported() {
    let run = nursery(|n| async move {
        for panics in [false, true] {
            let child = n.task().name("child").start(move |started| async move {
                started.started(());
                yield_now().await;
                if panics {
                    blow_up("bang");
                }
                Err::<(), _>("boom")
            });
            child.await.unwrap();
        }
        Ok(())
    });
    run.policy(Policy::Supervise).await.unwrap();
    assert_eq!(said(drain(S).await.events()), ["failed child: boom", "panicked child: bang"]);
}

#[test]
fn failures_of_children_that_are_started_at_the_root_are_reported() {
    let finished = runner().wait_for_tasks(true).run(async {
        let child = root_nursery::<&str>().task().name("child").start(|started| async move {
            started.started(());
            yield_now().await;
            Err::<(), _>("boom")
        });
        child.await.unwrap();
    });
    assert_eq!(said(finished.report.events()), ["failed child: boom"]);
}

#[tokio::test(start_paused = true)]
async fn failures_of_children_of_a_local_nursery_that_nobody_looks_at_are_reported() {
    let fails = |panics| async move {
        yield_now().await;
        if panics {
            blow_up("bang");
        }
        Err::<(), _>("boom")
    };
    let run = nursery_local(|n| async move {
        drop(n.spawn(fails(false)));
        let (late, seen) = (n.spawn(fails(true)), n.spawn(fails(false)));
        turns().await;
        drop(late);
        assert!(matches!(seen.await, Outcome::Err(_)));
        Ok(())
    });
    run.policy(Policy::Supervise).await.unwrap();
    let heard = said(drain(S).await.events());
    assert!(matches!(&heard[..], [first, last] if first.ends_with(": boom") && last.ends_with(": bang")), "{heard:?}");
}

/// A child says that it has started when its caller is cancelled already, and then the caller is dropped.
async fn late_start(its_nursery_cancels: bool) {
    let (lives, has_ended) = oneshot::channel::<()>();
    let (open, opened) = oneshot::channel::<Nursery<Infallible>>();
    let owner = nursery(|n| async move {
        assert!(open.send(n).is_ok());
        sleep(30 * S).await;
        Ok::<_, Infallible>(())
    });
    let caller = async move {
        let n = opened.await.unwrap();
        let start = n.start(move |started| async move {
            let _lives = lives;
            let late = async move {
                sleep(2 * S).await;
                started.started(());
                sleep(2 * S).await;
            };
            shield(late).await;
            sleep(3600 * S).await;
        });
        let caller = CancelScope::new().timeout(S).run(start);
        assert!(timeout(3 * S, caller).await.is_err());
        if its_nursery_cancels {
            sleep(3 * S).await;
            n.cancel("enough");
        }
        assert!(timeout(10 * S, has_ended).await.is_ok(), "the child runs on");
    };
    drop(join(owner, caller).await);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_dropped_after_it_came_too_late_cancels_its_child() {
    for its_nursery_cancels in [false, true] {
        timeout(100 * S, late_start(its_nursery_cancels)).await.unwrap();
    }
}

/// What goes on of a shield that is rescued.
async fn rest(length: Duration, log: Log) {
    sleep(length).await;
    log.push("rest");
}

/// Panics while it holds `work` in a shield.
async fn holds_and_panics(work: impl Future<Output = ()> + Send + 'static) {
    let mut held = Box::pin(shield(work));
    assert!(is_pending(held.as_mut()).await);
    blow_up("boom");
}

#[test]
fn a_finalizer_that_waits_for_others_runs_also_if_it_is_dropped_outside_of_the_runtime() {
    let (runtime, log) = (runtime(1), Log::default());
    let end = log.clone();
    let work = holds_and_panics(rest(SHORT, log.clone()));
    let mut work = Box::pin(work.finally(async move { end.push("finalizer") }));
    assert!(runtime.block_on(is_pending(work.as_mut())));
    drop(work);
    assert!(runtime.block_on(drain(5 * S)).left().is_empty());
    assert_eq!(log.seen(), ["rest", "finalizer"]);
}

/// The panic is caught on its way by a scope, which drops the other half of the future then.
#[tokio::test(start_paused = true)]
async fn a_finalizer_waits_for_what_a_panic_has_rescued_further_in() {
    let log = Log::default();
    let end = log.clone();
    let held = shield(rest(2 * S, log.clone()));
    let panics = async {
        yield_now().await;
        blow_up("boom");
    };
    let work = CancelScope::new().run(join(held, panics)).map(drop).finally(async move { end.push("finalizer") });
    assert!(AssertUnwindSafe(work).catch_unwind().await.is_err());
    assert_eq!(log.seen(), ["rest", "finalizer"]);
}

/// Blocks on `rescues` in a poll of a future with a finalizer.
fn block_on_a_rescue(rescues: impl Future<Output = ()> + Send + 'static) {
    let runtime = runtime(2);
    let (send, has_ended) = mpsc::channel();
    let _inside = runtime.enter();
    drop(plain_task(async move {
        let blocks = async { block_in_place(|| Handle::current().block_on(rescues)) };
        blocks.on_cancel(async {}).await;
        send.send(()).unwrap();
    }));
    let end = has_ended.recv_timeout(5 * S);
    runtime.shutdown_background();
    assert!(end.is_ok(), "it hangs");
}

#[test]
fn a_rescue_in_a_poll_that_blocks_on_it_goes_on_at_once() {
    block_on_a_rescue(async {
        let run = nursery(|_| async {
            // Its caller gives up; the nursery waits for the rest.
            drop(timeout(SHORT, shield(sleep(2 * SHORT))).await);
            Ok::<_, Infallible>(())
        });
        drop(run.await);
    });
}

#[test]
fn what_a_panic_has_rescued_in_a_poll_that_blocks_on_it_goes_on_at_once() {
    block_on_a_rescue(async {
        let run = nursery(|_| async {
            holds_and_panics(sleep(2 * SHORT)).await;
            Ok::<_, Infallible>(())
        });
        assert!(run.policy(Policy::Collect).await.is_err());
    });
}

/// Polls a shield on a runtime, and drops it as `drops` does in a future with a finalizer on another one, which ends before the shield.
fn drop_on_another_runtime<F: Future<Output = ()>>(drops: impl FnOnce(Pin<Box<dyn Future<Output = ()> + Send>>) -> F) {
    let (one, two, log) = (runtime(1), runtime(1), Log::default());
    let mut held: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(shield(rest(2 * SHORT, log.clone())));
    assert!(one.block_on(is_pending(held.as_mut())));
    two.block_on(drops(held).on_cancel(async {}));
    drop(two);
    let report = one.block_on(drain(5 * S));
    assert_eq!(log.seen(), ["rest"], "{report}");
}

#[test]
fn a_rescue_in_a_future_with_a_finalizer_goes_to_its_own_runtime() {
    drop_on_another_runtime(|held| async {
        drop(held);
        yield_now().await;
    });
}

#[test]
fn what_a_panic_has_rescued_goes_to_its_own_runtime() {
    drop_on_another_runtime(|held| async {
        let panics = async move {
            let _held = held;
            yield_now().await;
            blow_up("boom");
        };
        assert!(AssertUnwindSafe(panics).catch_unwind().await.is_err());
    });
}

#[tokio::test(start_paused = true)]
async fn a_bracket_releases_also_if_its_use_panics_before_it_has_a_future() {
    let released = Count::default();
    let counts = released.clone();
    let using = |_: u32| -> Ready<()> {
        blow_up("in the use");
        unreachable!("it has panicked")
    };
    let work = bracket(|_| async { 1 }, using, move |_| async move { counts.add() });
    assert!(AssertUnwindSafe(work).catch_unwind().await.is_err());
    assert_eq!(released.get(), 1);
}

/// A set of a task that ends with `first` and of a thread that ends well, after both were cancelled.
async fn adopted<F>(first: F) -> Result<Vec<u8>, bool>
where
    F: Future<Output = u8> + Send + 'static,
{
    let (open, gate) = mpsc::channel::<()>();
    let (begin, has_begun) = oneshot::channel();
    let mut set = JoinSet::new();
    set.spawn(first);
    set.spawn_blocking(move || {
        begin.send(()).unwrap();
        gate.recv().unwrap_or_default();
        2
    });
    let scope = CancelScope::new();
    let handle = scope.handle();
    let mut run = Box::pin(scope.run(adopt(set)));
    assert!(is_pending(run.as_mut()).await);
    has_begun.await.unwrap();
    turns().await;
    assert!(is_pending(run.as_mut()).await, "the first is known by now");
    handle.cancel("enough");
    assert!(is_pending(run.as_mut()).await);
    drop(open);
    run.await.unwrap().map_err(|error| error.is_panic())
}

#[tokio::test]
async fn an_adopted_set_that_is_cancelled_loses_neither_values_nor_panics() {
    assert_eq!(adopted(async { 1 }).await, Ok(vec![1, 2]));
    let panics = async {
        blow_up("boom");
        0
    };
    assert_eq!(adopted(panics).await, Err(true));
}

/// Spawns itself again when it is dropped, so many times.
struct Respawn(LocalNursery<'static, Infallible>, u32);

impl Drop for Respawn {
    fn drop(&mut self) {
        if let Some(left) = self.1.checked_sub(1) {
            let next = Self(self.0.clone(), left);
            drop(self.0.spawn(async move {
                let _next = next;
                pending::<()>().await;
            }));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_destructors_spawn_into_a_dropped_local_nursery_goes_with_it() {
    let mut run = Box::pin(nursery_local(|n: LocalNursery<'static, Infallible>| async move {
        let next = Respawn(n.clone(), 2);
        drop(n.spawn(async move {
            let _next = next;
            pending::<()>().await;
        }));
        pending::<Result<(), Infallible>>().await
    }));
    assert!(is_pending(run.as_mut()).await);
    drop(run);
    let report = drain(60 * S).await;
    assert!(report.left().is_empty(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_outlives_its_dropped_local_nursery_spawns_nothing() {
    let slot: Rc<RefCell<Option<LocalNursery<'static, Infallible>>>> = Rc::default();
    let put = Rc::clone(&slot);
    let mut run = Box::pin(nursery_local(move |n: LocalNursery<'static, Infallible>| {
        *put.borrow_mut() = Some(n);
        async {
            shield(sleep(5 * S)).await;
            Ok(())
        }
    }));
    assert!(is_pending(run.as_mut()).await);
    drop(run);
    let n = slot.borrow_mut().take().unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(n.spawn(async {})))).is_err(), "it was taken");
    let began = Instant::now();
    assert!(drain(60 * S).await.left().is_empty());
    assert_eq!(began.elapsed(), 5 * S);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_dropped_with_its_local_nursery_is_lost_for_its_handle() {
    let slot = Rc::new(RefCell::new(None));
    let put = Rc::clone(&slot);
    let mut run = Box::pin(nursery_local(move |n| async move {
        *put.borrow_mut() = Some(n.spawn(pending::<Result<u8, Infallible>>()));
        pending::<Result<(), Infallible>>().await
    }));
    assert!(is_pending(run.as_mut()).await);
    let mut child = slot.borrow_mut().take().unwrap();
    assert!(is_pending(Pin::new(&mut child)).await);
    drop(run);
    assert!(matches!(timeout(S, &mut child).await, Ok(Outcome::Lost)));
    assert!(AssertUnwindSafe(child).catch_unwind().await.is_err(), "it is returned once");
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        blow_up("bomb");
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_panics_when_nobody_wants_it_ends_no_sibling_of_a_local_child() {
    let log = Log::default();
    let seen = log.clone();
    let run = nursery_local(|n| async move {
        let sibling = n.spawn(async move {
            let end = catch_cancelled(sleep(10 * S)).await;
            seen.push(if end.is_ok() { "done" } else { "cancelled" });
            Ok::<_, Infallible>(())
        });
        drop(n.spawn(async {
            yield_now().await;
            Ok(Bomb)
        }));
        assert!(sibling.await.is_ok());
        Ok(())
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["done"]);
}

#[test]
fn a_source_of_signals_stays_with_the_run_that_came_last() {
    let signals = Signals::new();
    let runner = || Runner::new().current_thread().reporter(None).signals_from(&signals);
    let (_, exit) = runner().run_to_exit(async { Ok::<_, Infallible>(()) });
    let second = runner().run(async {
        drop(exit);
        Ok::<_, Infallible>(signals.press(Signal::Interrupt))
    });
    assert_eq!(second.outcome.unwrap(), Effect::Cancelled);
}

#[cfg(feature = "interop")]
#[test]
fn a_token_that_nobody_would_serve_is_refused() {
    let scope = CancelScope::new();
    assert!(catch_unwind(AssertUnwindSafe(|| scope.handle().to_token())).is_err());
    let token = tokio_util::sync::CancellationToken::new();
    let run = testudo::run_until_token(token, pending::<()>());
    assert!(catch_unwind(AssertUnwindSafe(|| run.now_or_never())).is_err());
}

#[test]
fn a_shield_of_a_plain_task_that_begins_while_the_last_hooks_run_is_waited_for() {
    let done = Count::default();
    let counts = done.clone();
    let finished = runner().at_end(|| sleep(2 * SHORT)).run(async move {
        drop(plain_task(async move {
            sleep(SHORT).await;
            let work = async move {
                sleep(3 * SHORT).await;
                counts.add();
            };
            shield(work).await;
        }));
    });
    assert_eq!(done.get(), 1, "{}", finished.report);
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_waits_for_what_a_panic_has_rescued_through_another_one() {
    let log = Log::default();
    let end = log.clone();
    let panics = holds_and_panics(rest(2 * S, log.clone()));
    let work = panics.on_cancel(async {}).finally(async move { end.push("finalizer") });
    assert!(AssertUnwindSafe(work).catch_unwind().await.is_err());
    assert_eq!(log.seen(), ["rest", "finalizer"]);
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_that_waits_and_has_moved_is_waited_for_where_it_was_dropped() {
    let log = Log::default();
    let end = log.clone();
    let panics = holds_and_panics(rest(2 * S, log.clone()));
    let mut work = Box::pin(panics.finally(async move {
        sleep(S).await;
        end.push("finalizer");
    }));
    assert!(is_pending(work.as_mut()).await);
    let run = nursery(|n| async move {
        drop(n.spawn(async move {
            assert!(is_pending(work.as_mut()).await);
            drop(work);
            Ok::<_, Infallible>(())
        }));
        Ok(())
    });
    run.await.unwrap();
    log.push("nursery");
    assert_eq!(log.seen(), ["rest", "finalizer", "nursery"]);
}

#[test]
fn what_a_run_has_left_behind_stops_no_other() {
    let (go, gate) = mpsc::channel::<()>();
    let (send, done) = mpsc::channel();
    let first = runner().run(async move {
        let (begin, has_begun) = oneshot::channel();
        drop(root_nursery::<Infallible>().task().abandon().spawn_blocking(move |_| {
            begin.send(()).unwrap();
            gate.recv().unwrap_or_default();
            shutdown("late");
            send.send(()).unwrap();
        }));
        has_begun.await.unwrap();
    });
    assert!(first.outcome.is_ok());
    drop(go);
    done.recv_timeout(5 * S).unwrap();
    assert!(runner().run(turns()).outcome.is_ok());
}

#[test]
fn hooks_of_the_end_do_not_outlast_the_reserve_by_what_they_shield() {
    let finished = runner().reserve(2 * SHORT).at_end(|| shield(pending::<()>()).name("flush")).run(async {});
    let events = said(finished.report.events());
    assert_eq!(&events[..1], ["overran flush"]);
    assert!(events[1].contains("used up the reserve"), "{events:?}");
}

#[test]
fn a_budget_on_a_runtime_without_a_timer_makes_no_cancel_and_no_drop_panic() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let report = runtime.block_on(async {
        let (scope, gate) = (CancelScope::new(), Arc::new(Semaphore::new(0)));
        let handle = scope.handle();
        let covered = || {
            let gate = Arc::clone(&gate);
            shield(async move { gate.acquire().await.unwrap().forget() }).budget(S)
        };
        let mut held = Box::pin(scope.run(covered()));
        assert!(is_pending(held.as_mut()).await);
        assert!(handle.cancel("enough"));
        let child = covered();
        let mut owner = Box::pin(nursery(|n| {
            drop(n.spawn(child));
            pending::<Result<(), Infallible>>()
        }));
        assert!(is_pending(owner.as_mut()).await);
        turns().await;
        drop(owner);
        gate.add_permits(2);
        assert!(held.await.is_ok());
        turns().await;
        drain(S).await.to_string()
    });
    assert!(report.contains("has no timer"), "{report}");
}

#[test]
fn what_a_run_of_a_sweep_has_left_stops_no_other() {
    struct StopsAtLast;

    impl Drop for StopsAtLast {
        fn drop(&mut self) {
            shutdown("a task is gone");
        }
    }

    let leaves = async |(): &()| {
        drop(plain_task(async {
            let _last = StopsAtLast;
            pending::<()>().await;
        }));
        yield_now().await;
        yield_now().await;
    };
    testudo::testing::assert_cancel_safe(|| (), leaves, |()| ());
}

#[tokio::test(start_paused = true)]
async fn a_handle_on_a_local_child_may_outlive_what_its_value_borrows() {
    let slot = RefCell::new(None);
    let data = "borrowed".to_owned();
    let run = nursery_local(|n| {
        *slot.borrow_mut() = Some(n.spawn(async { Ok::<&str, Infallible>(data.as_str()) }));
        async { Ok(()) }
    });
    run.await.unwrap();
    assert!(slot.borrow().is_some());
}
