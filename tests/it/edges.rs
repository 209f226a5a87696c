//! Promises of two parts where they meet.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::panic::panic_any;
use std::pin::{Pin, pin};
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use testudo::testing::Signals;
use testudo::{
    CancelScope, FinalizeExt, Finished, Outcome, Policy, Reason, Reporter, Runner, Signal, TaskOutput, cancelled,
    move_on_after, nursery, ready, root_nursery, shield, shield_scoped, shutdown, spawn, take_part,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc as channel, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Count, Heard, Log, S, is_pending, nowhere, plain_task, said};

fn runner() -> Runner {
    Runner::new().current_thread().signals(false).reporter(None)
}

/// Runs `main` on paused time.
fn run<F>(runner: Runner, main: F) -> Finished<<F::Output as TaskOutput>::Value, <F::Output as TaskOutput>::Error>
where
    F: Future,
    F::Output: TaskOutput,
{
    runner.run(async {
        tokio::time::pause();
        main.await
    })
}

fn runtime(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap()
}

/// Fails where a hang would keep the whole suite.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || drop(done.send(work())));
    is_done.recv_timeout(5 * S).expect("it hangs, or has panicked")
}

/// Real time, where threads are part of it.
const SHORT: Duration = Duration::from_millis(50);

#[test]
fn hook_of_the_end_may_use_timeouts_and_nurseries() {
    let seen = Log::default();
    let log = seen.clone();
    let hook = move || async move {
        let in_time = move_on_after(2 * S, sleep(S)).await.is_some();
        log.push(if in_time { "in time" } else { "too late" });
        nursery(|n| async move { drop(n.spawn(async move { sleep(S).await })) }).await.unwrap();
        log.push("children");
    };
    drop(run(runner().reserve(5 * S).at_end(hook), async {}));
    assert_eq!(seen.seen(), ["in time", "children"]);
}

#[test]
fn what_a_hook_of_the_end_leaves_behind_ends_with_its_time() {
    let hook = || async { shield(pending::<()>().finally(sleep(3600 * S))).await };
    in_time(move || drop(runner().reserve(SHORT).at_end(hook).run(async {})));
}

#[test]
fn shield_of_a_plain_task_that_begins_at_the_end_is_cut_off_with_the_budget() {
    let runner = runner().budget(10 * S).reserve(4 * S).at_end(|| sleep(2 * S));
    let finished = run(runner, async {
        plain_task(async {
            sleep(S).await;
            shield(pending::<()>()).await;
        });
        shutdown("enough");
        pending::<()>().await;
    });
    assert!(finished.report.stop().unwrap().is_forced(), "{}", finished.report);
}

/// Takes part until a second after the request.
async fn serve(log: Log) {
    let part = take_part();
    part.requested().await;
    sleep(S).await;
    log.push("served");
    drop(part);
}

#[test]
fn who_begins_to_take_part_while_the_run_drains_is_waited_for() {
    let seen = Log::default();
    let log = seen.clone();
    let finished = run(runner().drain_delay(4 * S), async move {
        let ready = ready();
        shutdown("enough");
        assert!(!ready.is_ready());
        spawn(serve(log));
        pending::<()>().await;
    });
    assert_eq!(seen.seen(), ["served"], "{}", finished.report);
}

#[test]
fn a_moment_without_anybody_while_the_run_drains_ends_nothing() {
    let seen = Log::default();
    let log = seen.clone();
    let finished = run(runner().drain_delay(4 * S), async move {
        let (ready, first) = (ready(), take_part());
        shutdown("enough");
        assert!(!ready.is_ready());
        drop(first);
        sleep(S).await;
        spawn(serve(log));
        pending::<()>().await;
    });
    assert_eq!(seen.seen(), ["served"], "{}", finished.report);
}

#[test]
fn who_takes_part_in_a_plain_task_is_waited_for_though_main_has_ended() {
    let seen = Log::default();
    let log = seen.clone();
    let finished = run(runner(), async move {
        plain_task(serve(log));
        yield_now().await;
        shutdown("enough");
    });
    assert_eq!(seen.seen(), ["served"], "{}", finished.report);
}

#[test]
fn hook_before_the_stop_runs_to_its_end_though_main_has_ended() {
    let seen = Log::default();
    let log = seen.clone();
    let hook = move || async move {
        log.push("begun");
        sleep(2 * S).await;
        log.push("ended");
    };
    let finished = run(runner().pre_stop(hook), async {
        shutdown("enough");
        sleep(S).await;
    });
    assert_eq!(seen.seen(), ["begun", "ended"], "{}", finished.report);
}

#[test]
fn request_after_the_end_does_not_change_the_reason() {
    let runner = runner();
    let handle = runner.handle();
    let finished = runner.run(async {});
    handle.shutdown("late");
    assert_eq!(handle.reason(), Some(Reason::MainEnded));
    assert_eq!(finished.report.stop().unwrap().reason(), &Reason::MainEnded);
}

#[test]
fn blocking_work_that_blocks_on_a_scope_gets_its_thread_back_when_it_is_cancelled() {
    in_time(|| {
        let opened = nursery(|n| async move {
            n.spawn_blocking(|_| {
                assert_eq!(Handle::current().block_on(move_on_after(60 * S, pending::<()>())), None);
                Ok::<_, Infallible>(())
            });
            n.spawn_blocking(|_| {
                let inner = nursery(|_| pending::<Result<(), Infallible>>());
                drop(Handle::current().block_on(inner.timeout(60 * S)));
                Ok(())
            });
            sleep(SHORT).await;
            n.cancel("enough");
        });
        runtime(2).block_on(opened).unwrap();
    });
}

#[test]
fn handler_of_a_signal_may_block_on_a_scope_in_a_run_that_is_cancelled() {
    let seen = Log::default();
    let log = seen.clone();
    in_time(move || {
        let signals = Signals::new();
        let pressed = signals.clone();
        let runner = Runner::new().worker_threads(1).signals_from(&signals).reporter(None);
        let runner = runner.on_signal(Signal::Hangup, move |_| {
            assert_eq!(Handle::current().block_on(move_on_after(60 * S, pending::<()>())), None);
            log.push("reloaded");
        });
        drop(runner.run(async move {
            pressed.press(Signal::Terminate);
            pressed.press(Signal::Hangup);
            pending::<()>().await;
        }));
    });
    assert_eq!(seen.seen(), ["reloaded"]);
}

#[testudo::test]
async fn blocking_work_that_is_shielded_does_not_see_a_cancel_of_its_nursery() {
    let saw_cancel = nursery(|n| async move {
        let (go, wait) = mpsc::channel::<()>();
        let work = n.task().shielded(true).spawn_blocking(move |cx| {
            wait.recv().unwrap_err();
            Ok::<_, Infallible>(cx.is_cancelled())
        });
        n.cancel("enough");
        drop(go);
        Ok(shield(work).await)
    });
    assert_eq!(saw_cancel.await.unwrap(), Outcome::Ok(false));
}

#[testudo::test]
async fn daemon_that_gets_work_when_only_daemons_are_left_may_spawn() {
    let (send, mut jobs) = channel::unbounded_channel();
    let done = Count::default();
    let seen = done.clone();
    let opened = nursery(|n| async move {
        let own = n.clone();
        n.task().name("acceptor").daemon().spawn(async move {
            while let Some(()) = jobs.recv().await {
                let (plain, framed, blocking, started) = (done.clone(), done.clone(), done.clone(), done.clone());
                own.spawn(async move { plain.add() });
                own.task().name("framed").spawn(async move { framed.add() });
                own.spawn_blocking(move |_| blocking.add());
                let child = async move |s: testudo::Started<()>| {
                    s.started(());
                    started.add();
                };
                own.start(child).await.unwrap();
            }
        });
        yield_now().await;
        send.send(()).unwrap();
    });
    opened.await.unwrap();
    assert!(seen.get() >= 1, "none has begun: {seen:?}");
}

#[test]
fn child_that_was_started_from_another_runtime_has_timers_of_its_nursery() {
    in_time(|| {
        let opened = nursery(|n| async move {
            let (own, (ended, has_ended)) = (n.clone(), oneshot::channel());
            thread::spawn(move || {
                let child = async |started: testudo::Started<()>| {
                    started.started(());
                    // The runtime that it was started from is gone by the end of this.
                    sleep(SHORT).await;
                    let late = timeout(S, move_on_after(SHORT, pending::<()>())).await;
                    ended.send(late.is_ok()).unwrap();
                };
                runtime(1).block_on(own.start(child)).unwrap();
            });
            Ok::<_, Infallible>(has_ended.await.unwrap())
        });
        assert!(runtime(1).block_on(opened).unwrap(), "its deadline never passed");
    });
}

/// Says when it may go on, and counts its end.
fn gated_shield(done: &Count) -> (Pin<Box<impl Future<Output = ()> + Send + use<>>>, oneshot::Sender<()>) {
    let ((go, wait), done) = (oneshot::channel(), done.clone());
    let work = shield(async move {
        drop(wait.await);
        sleep(S).await;
        done.add();
    });
    (Box::pin(work), go)
}

#[test]
fn shield_that_moves_into_a_run_is_waited_for_there() {
    let _turn = nowhere();
    for is_polled_in_a_runtime in [false, true] {
        let (done, elsewhere) = (Count::default(), runtime(1));
        let (mut work, go) = gated_shield(&done);
        let _inside = is_polled_in_a_runtime.then(|| elsewhere.enter());
        assert!(work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(_inside);
        let finished = run(runner(), async {
            plain_task(work);
            drop(go);
            yield_now().await;
        });
        assert_eq!(done.get(), 1, "{is_polled_in_a_runtime}: {}", finished.report);
    }
}

/// How long what was polled in another task lives in a scope that is cancelled.
async fn lives_in_a_cancelled_scope<F>(mut work: Pin<Box<F>>) -> Duration
where
    F: Future + Send + 'static,
{
    let moved = plain_task(async move {
        assert!(is_pending(work.as_mut()).await);
        Some(work)
    });
    let (work, scope, began) = (moved.await.unwrap().unwrap(), CancelScope::new(), Instant::now());
    scope.handle().cancel("enough");
    scope.run(work).await.map(drop).unwrap_err();
    began.elapsed()
}

#[testudo::test(start_paused = true)]
async fn budget_of_a_shield_that_moves_into_what_is_cancelled_begins_there() {
    let work = || async { tokio::join!(cancelled(), pending::<()>()) };
    assert_eq!(lives_in_a_cancelled_scope(Box::pin(shield(work()).budget(S))).await, S);
    assert_eq!(lives_in_a_cancelled_scope(Box::pin(shield_scoped(work()).budget(S))).await, S);
}

/// Two workers, again and again: what ends meets what is cancelled for it.
#[test]
fn body_that_awaits_the_first_success_gets_its_value() {
    let race = || async {
        nursery(|n| async move {
            let winner = n.spawn(async {
                yield_now().await;
                Ok::<_, Infallible>(7)
            });
            n.spawn(pending::<()>());
            Ok(winner.await)
        })
        .policy(Policy::FirstSuccess)
        .await
    };
    runtime(2).block_on(async {
        plain_task(async move {
            for _ in 0..3000 {
                assert_eq!(race().await.unwrap(), Outcome::Ok(7));
            }
        })
        .await
        .unwrap();
    });
}

#[test]
fn errors_of_those_that_lost_are_not_reported() {
    let heard = Heard::default();
    drop(run(runner().reporter(heard.reporter()), async {
        let mut race = Box::pin(
            nursery(|n| async move {
                n.spawn(async { Ok::<(), _>(()) });
                n.spawn(async {
                    cancelled().await;
                    Err::<(), _>("late")
                });
                n.spawn(shield(sleep(S)));
                Ok(())
            })
            .policy(Policy::FirstSuccess),
        );
        assert!(timeout(S / 2, race.as_mut()).await.is_err());
        drop(race);
    }));
    assert_eq!(said(&heard.events()), [""; 0]);
}

#[test]
fn errors_where_nobody_has_won_are_reported() {
    let heard = Heard::default();
    drop(run(runner().reporter(heard.reporter()), async {
        let race = nursery(|n| async move {
            n.task().name("first").spawn(async { Err::<(), _>("no") });
            pending::<Result<(), _>>().await
        });
        timeout(S, race.policy(Policy::FirstSuccess)).await.unwrap_err();
    }));
    assert_eq!(said(&heard.events()), ["failed first: no"]);
}

#[test]
fn reporter_that_panics_ends_nobody_else() {
    let broken = Reporter::new(|_| panic!("the reporter is broken"));
    let finished = runner().reporter(broken).run(async {
        let task = plain_task(async {
            let mut held = pin!(shield_scoped(pending::<()>()));
            assert!(is_pending(held.as_mut()).await);
            // It is reported while this unwinds.
            panic_any("the task is broken");
        });
        task.await.unwrap_err();
    });
    finished.outcome.unwrap();
}

#[test]
fn status_that_panics_is_said_in_its_place() {
    let finished = runner().run(async {
        root_nursery::<Infallible>().task().status(|| panic!("the status is broken")).spawn(pending::<()>());
        yield_now().await;
        assert!(testudo::dump().to_string().contains("its status panicked"));
    });
    finished.outcome.unwrap();
}
