//! Shutdown on paused time: phases, the budget, who takes part, readiness, the report. Signals are in `tests/process`.

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testudo::Signal;
use testudo::testing::Signals;
use testudo::{
    CauseKind, Event, FinalizeExt, Finished, Outcome, Phase, Reason, Reporter, Runner, ShutdownHandle, TaskOutput,
    cancelled, catch_cancelled, dump, nursery, ready, root_nursery, shield, shutdown, shutdown_requested, spawn,
    take_part,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::{Log, S, overran};

/// A runner on paused time, without signals and without a word.
fn quiet() -> Runner {
    Runner::new().current_thread().signals(false).reporter(None)
}

type Run<O> = Finished<<O as TaskOutput>::Value, <O as TaskOutput>::Error>;

/// Runs `main` on paused time; gives what it left, and how long all of it took.
fn run<F>(runner: Runner, main: F) -> (Run<F::Output>, Duration)
where
    F: Future,
    F::Output: TaskOutput,
{
    let finished = runner.run(async {
        tokio::time::pause();
        main.await
    });
    // Tokio's timers are exact to a millisecond.
    let took = finished.report.stop().expect("it has stopped").took();
    (finished, Duration::from_millis(5 * (u64::try_from(took.as_millis()).unwrap() / 5)))
}

/// The phases that took time, in whole seconds.
fn lengths<T, E>(finished: &Finished<T, E>) -> Vec<(Phase, u64)> {
    let phases = finished.report.stop().unwrap().phases().iter();
    phases.map(|(phase, length)| (*phase, length.as_secs())).filter(|(_, seconds)| *seconds > 0).collect()
}

fn entered<T, E>(finished: &Finished<T, E>) -> Vec<Phase> {
    finished.report.stop().unwrap().phases().iter().map(|(phase, _)| *phase).collect()
}

#[test]
fn l40_phases_come_in_order_and_late_waiters_do_not_wait() {
    let runner = quiet();
    let handle = runner.handle();
    let seen = Log::default();
    let (log, inner) = (seen.clone(), handle.clone());
    let (finished, _) = run(runner, async move {
        for (phase, name) in [(Phase::NotAccepting, "not accepting"), (Phase::Cancelling, "cancelling")] {
            let (log, handle) = (log.clone(), inner.clone());
            spawn(shield(async move {
                handle.wait_phase(phase).await;
                log.push(name);
                handle.wait_phase(Phase::Initiated).await;
            }));
        }
        sleep(S).await;
        assert_eq!((inner.phase(), inner.reason()), (Phase::Running, None));
        shutdown("enough");
        pending::<()>().await;
    });
    assert_eq!(entered(&finished), Phase::ALL[1..]);
    let mut seen = seen.seen();
    seen.sort_unstable();
    assert_eq!(seen, ["cancelling", "not accepting"]);
    assert_eq!(handle.phase(), Phase::Exit);
    assert_eq!(handle.reason(), Some(Reason::Requested("enough".into())));
}

#[test]
fn l41_many_requests_from_many_threads_are_one_stop() {
    let runner = quiet().worker_threads(2);
    let (handle, stops) = (runner.handle(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&stops);
    let runner = runner.on_stop(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let (finished, _) = run(runner, async move {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| handle.shutdown("storm")));
            }
        });
        pending::<()>().await;
    });
    assert_eq!(stops.load(Ordering::Relaxed), 1);
    assert_eq!(entered(&finished), Phase::ALL[1..]);
}

#[test]
fn l42_a_request_before_the_run_is_remembered() {
    let runner = quiet();
    runner.handle().shutdown("too early");
    let seen = Log::default();
    let log = seen.clone();
    let (finished, _) = run(runner, async move {
        log.push("first poll");
        assert_eq!(cancelled().await.reason(), Some("too early"));
        sleep(S).await;
        log.push("not reached");
    });
    let Outcome::Cancelled(cause) = finished.outcome else { panic!("{:?}", finished.outcome) };
    assert_eq!((cause.kind(), cause.reason()), (CauseKind::Stopped, Some("too early")));
    assert_eq!(seen.seen(), ["first poll"]);
}

#[test]
fn l43_readiness_is_gone_with_the_request_for_ever() {
    let (finished, _) = run(quiet().drain_delay(3 * S), async {
        let ready = ready();
        let mut watch = ready.watch();
        ready.set(false);
        assert!(!ready.is_ready(), "it starts up");
        ready.set(true);
        assert!(*watch.borrow_and_update());
        let asked = Instant::now();
        shutdown("enough");
        watch.changed().await.unwrap();
        assert!(!*watch.borrow_and_update() && asked.elapsed().is_zero());
        ready.set(true);
        assert!(!ready.is_ready());
        shield(sleep(4 * S)).await;
        ready.set(true);
        assert!(!ready.is_ready());
    });
    assert_eq!(lengths(&finished), [(Phase::Draining, 3), (Phase::Shielded, 1)]);
}

/// A server that counts what it accepts, one a second.
async fn serve(accepted: Arc<AtomicUsize>) {
    let part = take_part();
    while part.accept(sleep(S)).await.is_some() {
        accepted.fetch_add(1, Ordering::Relaxed);
    }
    sleep(2 * S).await; // answers what is in flight
}

#[test]
fn l44_nothing_is_accepted_once_accepting_has_ended() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let (finished, _) = run(quiet().drain_delay(5 * S), async move {
        spawn(serve(count));
        sleep(S * 21 / 10).await;
        shutdown("enough");
        pending::<()>().await;
    });
    assert_eq!(accepted.load(Ordering::Relaxed), 7, "two before the request, five in the drain delay");
    assert_eq!(lengths(&finished), [(Phase::Draining, 5), (Phase::InFlight, 2)]);
}

#[test]
fn l44_what_would_be_accepted_at_once_is_not_after_the_gate() {
    let (finished, _) = run(quiet(), async {
        let part = take_part();
        assert_eq!(part.accept(async { 1 }).await, Some(1));
        shutdown("enough");
        assert_eq!(part.accept(async { 2 }).await, None, "the gate is looked at first");
        assert_eq!(part.requested().await, Reason::Requested("enough".into()));
    });
    assert!(finished.outcome.is_ok());
}

#[test]
fn l44_what_was_accepted_and_not_answered_is_in_the_report() {
    let (finished, _) = run(quiet().budget(20 * S), async {
        spawn(async {
            let part = take_part();
            let n = root_nursery::<String>();
            let mut lengths = [1, 2, 3600].into_iter();
            while let Some(length) = part.accept(async { lengths.next().unwrap_or(1) }).await {
                n.task().name(format!("connection of {length} s")).spawn(sleep(length * S));
                sleep(S / 10).await;
                if length == 3600 {
                    shutdown("enough");
                }
            }
            // Answers what is in flight, if that is possible.
            pending::<()>().await;
        });
        pending::<()>().await;
    });
    let names = |who: &[testudo::Subject]| -> Vec<String> {
        let mut names: Vec<_> = who.iter().filter_map(|who| who.name().map(str::to_owned)).collect();
        names.retain(|name| name.starts_with("connection"));
        names
    };
    let stop = finished.report.stop().unwrap();
    assert_eq!(names(stop.finished()), ["connection of 1 s", "connection of 2 s"]);
    assert_eq!(names(stop.cancelled()), ["connection of 3600 s"]);
    assert!(stop.left().is_empty());
}

#[test]
fn l45_accepting_goes_on_until_the_delay_and_the_hooks_are_over() {
    for (delay, hook, draining) in [(3, 5, 5), (5, 3, 5), (0, 4, 4), (4, 0, 4)] {
        let runner = quiet().drain_delay(delay * S).pre_stop(move || sleep(hook * S));
        let (finished, _) = run(runner, async {
            let _user = ready();
            shutdown("enough");
            pending::<()>().await;
        });
        assert_eq!(lengths(&finished), [(Phase::Draining, draining)], "delay {delay} s, hook {hook} s");
    }
}

#[test]
fn a_hook_that_panics_has_ended() {
    let (finished, took) = run(quiet().pre_stop(|| async { std::panic::resume_unwind(Box::new("hook")) }), async {
        shutdown("enough");
        pending::<()>().await;
    });
    assert!(finished.outcome.is_cancelled() && took.is_zero());
}

#[test]
fn a_hook_that_hangs_is_given_a_fifth_of_the_budget() {
    let (finished, _) = run(quiet().budget(20 * S).pre_stop(pending), async {
        shutdown("enough");
        pending::<()>().await;
    });
    assert_eq!(lengths(&finished), [(Phase::Draining, 4)]);
}

#[test]
fn l46_shields_end_before_the_reserve_and_finalizers_have_it() {
    let seen = Log::default();
    let log = seen.clone();
    let (finished, took) = run(quiet().budget(20 * S), async move {
        let work = shield(pending::<()>()).name("payment");
        let undo = async move {
            sleep(S).await;
            log.push("undone");
        };
        spawn(work.on_cancel(undo));
        sleep(S).await;
        shutdown("enough");
        pending::<()>().await;
    });
    assert_eq!(seen.seen(), ["undone"]);
    assert_eq!(lengths(&finished), [(Phase::Shielded, 18), (Phase::Finalizing, 1)]);
    assert!(took < 20 * S && !finished.report.stop().unwrap().is_forced());
    assert_eq!(overran(finished.report.events()), ["payment"]);
}

#[test]
fn l46_a_finalizer_that_is_running_is_not_cut_off_with_the_shields() {
    let seen = Log::default();
    let log = seen.clone();
    let (finished, _) = run(
        quiet().budget(20 * S),
        async move {
            let undo = async move {
                shield(sleep(19 * S)).await;
                log.push("undone");
            };
            pending::<()>().on_cancel(undo).await;
        }
        .in_run(|| shutdown("enough")),
    );
    assert_eq!(seen.seen(), ["undone"]);
    assert_eq!(lengths(&finished), [(Phase::Shielded, 18), (Phase::Finalizing, 1)]);
}

#[test]
fn l46_a_finalizer_that_never_ends_is_cut_off_when_all_is_used_up() {
    let (finished, took) = run(quiet().budget(20 * S), async {
        shutdown("enough");
        pending::<()>().on_cancel(pending()).await;
    });
    assert!(finished.report.stop().unwrap().is_forced());
    assert_eq!(took, 20 * S);
    let forced = finished.report.events().iter().find_map(|event| {
        let Event::Forced { why, whom, .. } = event else { return None };
        Some((why.to_string(), whom.len()))
    });
    assert_eq!(forced, Some(("out of time".to_owned(), 2)), "main, and its finalizer: {}", finished.report);
}

#[test]
fn a_shield_without_a_name_that_is_cut_off_is_named_by_its_task() {
    let (finished, _) = run(quiet().budget(20 * S), async {
        let n = root_nursery::<String>();
        n.task().name("payment").spawn(async { shield(pending::<()>()).await });
        n.task().name("invoice").spawn(async { shield(pending::<()>()).budget(S).await });
        tokio::task::yield_now().await;
        shutdown("enough");
        pending::<()>().await;
    });
    let said: Vec<String> = finished.report.events().iter().map(ToString::to_string).collect();
    assert!(said[1].starts_with("shield in task `invoice` (tests/it/shutdown.rs:"), "{said:?}");
    assert!(said[2].starts_with("shield in task `payment` (tests/it/shutdown.rs:"), "{said:?}");
}

#[test]
fn l46_all_phases_together_stay_in_the_budget() {
    let runner = quiet().budget(10 * S).drain_delay(3 * S).graceful_budget(30 * S);
    let (finished, took) = run(runner, async {
        let _user = ready();
        spawn(shield(async { pending::<()>().on_cancel(sleep(S / 2)).await }));
        shutdown("enough");
        pending::<()>().await;
    });
    assert_eq!(lengths(&finished), [(Phase::Draining, 3), (Phase::InFlight, 6)]);
    assert!(took <= 10 * S, "{took:?}");
}

/// Makes a future that does something first, inside of the run.
trait InRun: Future + Sized {
    fn in_run(self, first: impl FnOnce()) -> impl Future<Output = Self::Output> {
        async move {
            first();
            self.await
        }
    }
}

impl<F: Future> InRun for F {}

#[test]
fn without_anybody_who_takes_part_the_request_cancels_at_once() {
    let (finished, took) = run(quiet().drain_delay(5 * S), async {
        spawn(sleep(3600 * S));
        shutdown("enough");
        sleep(3600 * S).await;
    });
    assert!(took.is_zero() && finished.outcome.is_cancelled());
}

#[test]
fn who_takes_part_finishes_and_the_others_are_cancelled_after_it() {
    let (finished, _) = run(quiet(), async {
        spawn(async {
            shutdown_requested().await;
            sleep(3 * S).await;
        });
        spawn(sleep(3600 * S));
        tokio::task::yield_now().await;
        shutdown("enough");
        assert_eq!(catch_cancelled(sleep(3600 * S)).await.unwrap_err().cause().kind(), CauseKind::Stopped);
    });
    assert_eq!(lengths(&finished), [(Phase::InFlight, 3)]);
    let stop = finished.report.stop().unwrap();
    assert_eq!((stop.finished().len(), stop.cancelled().len()), (2, 1), "the one, and main");
}

#[test]
fn a_worker_that_is_busy_with_a_job_takes_part_all_the_same() {
    let seen = Log::default();
    let log = seen.clone();
    let (finished, _) = run(quiet(), async move {
        let (send, mut jobs) = mpsc::channel::<()>(1);
        spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    _ = shutdown_requested() => break,
                    Some(()) = jobs.recv() => {
                        sleep(5 * S).await;
                        log.push("job is done");
                    }
                }
            }
        });
        send.send(()).await.unwrap();
        sleep(S).await;
        shutdown("enough");
        pending::<()>().await;
    });
    assert_eq!(seen.seen(), ["job is done"]);
    assert_eq!(lengths(&finished), [(Phase::InFlight, 4)]);
}

#[test]
fn who_takes_part_and_does_not_end_is_cancelled_when_the_graceful_share_is_used_up() {
    let (finished, _) = run(quiet().budget(20 * S), async {
        shutdown("enough");
        shutdown_requested().await;
        pending::<()>().await;
    });
    assert_eq!(lengths(&finished), [] as [(Phase, u64); 0], "main had not waited when it asked: nobody took part");
    let (finished, _) = run(quiet().budget(20 * S), async {
        spawn(async {
            sleep(S).await;
            shutdown("enough");
        });
        shutdown_requested().await;
        pending::<()>().await;
    });
    assert_eq!(lengths(&finished), [(Phase::InFlight, 9)]);
    assert!(finished.outcome.is_cancelled());
}

#[test]
fn a_graceful_budget_of_its_own_waits_for_all_that_ends_in_time() {
    let (finished, _) = run(quiet().graceful_budget(10 * S), async {
        shutdown("enough");
        sleep(4 * S).await;
    });
    assert!(finished.outcome.is_ok());
    assert_eq!(lengths(&finished), [(Phase::InFlight, 4)]);
    let (finished, _) = run(quiet().graceful_budget(10 * S), async {
        shutdown("enough");
        sleep(60 * S).await;
    });
    assert_eq!(lengths(&finished), [(Phase::InFlight, 10)]);
}

#[test]
fn the_end_of_main_does_not_cut_off_those_who_take_part() {
    let seen = Log::default();
    let log = seen.clone();
    let (finished, _) = run(quiet(), async move {
        let (started, is_started) = tokio::sync::oneshot::channel();
        spawn(async move {
            let part = take_part();
            started.send(()).unwrap();
            part.requested().await;
            sleep(2 * S).await;
            log.push("served");
        });
        is_started.await.unwrap();
        shutdown("enough");
    });
    assert!(finished.outcome.is_ok());
    assert_eq!((seen.seen(), lengths(&finished)), (vec!["served"], vec![(Phase::InFlight, 2)]));
}

#[test]
fn the_end_of_main_begins_no_clock() {
    let (finished, _) = run(quiet().budget(S), async {
        spawn(shield(sleep(3600 * S)));
        tokio::task::yield_now().await;
    });
    assert_eq!(lengths(&finished), [(Phase::Shielded, 3600)]);
    assert_eq!(finished.report.stop().unwrap().reason(), &Reason::MainEnded);
    assert!(finished.report.is_clean());
}

#[test]
fn a_request_after_the_end_of_main_begins_the_clock() {
    let runner = quiet().budget(10 * S);
    let handle: ShutdownHandle = runner.handle();
    let (finished, took) = run(runner, async move {
        spawn(shield(async move {
            sleep(100 * S).await;
            handle.shutdown("now");
            assert_eq!(handle.time_left(), Some(10 * S));
            pending::<()>().await;
        }));
        tokio::task::yield_now().await;
    });
    assert_eq!(took, 109 * S);
    assert_eq!(finished.report.stop().unwrap().reason(), &Reason::Requested("now".into()));
}

#[test]
fn a_shielded_server_hears_that_main_has_ended() {
    let (finished, took) = run(quiet(), async {
        spawn(shield(async {
            assert_eq!(shutdown_requested().await, Reason::MainEnded);
        }));
        tokio::task::yield_now().await;
    });
    assert!(finished.outcome.is_ok() && took.is_zero());
}

#[test]
fn the_hooks_of_the_end_run_last_and_within_the_reserve() {
    let seen = Log::default();
    let (log, shielded) = (seen.clone(), seen.clone());
    let flush = move || async move {
        log.push("flushed");
        pending::<()>().await;
    };
    let (finished, took) = run(quiet().budget(20 * S).reserve(3 * S).at_end(flush), async move {
        spawn(shield(async move {
            sleep(S).await;
            shielded.push("shield is done");
        }));
        tokio::task::yield_now().await;
        shutdown("enough");
        pending::<()>().await;
    });
    assert_eq!(seen.seen(), ["shield is done", "flushed"]);
    assert_eq!(took, 4 * S);
    assert!(!finished.report.stop().unwrap().is_forced());
    assert!(finished.report.to_string().contains("hooks of the end"), "{}", finished.report);
}

#[test]
fn what_can_not_fit_is_said_at_the_start() {
    let said = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let reporter = Reporter::new(move |event| heard.lock().unwrap().push(event.to_string()));
    let runner = quiet().reporter(reporter).budget(10 * S).drain_delay(9 * S).graceful_budget(9 * S);
    run(runner, async {});
    let said = said.lock().unwrap();
    assert!(said[0].starts_with("warning: drain delay 9s + graceful budget 9s"), "{said:?}");
}

#[test]
fn the_report_tells_phases_and_names_as_text_and_as_json() {
    let (finished, _) = run(quiet(), async {
        let n = root_nursery::<String>();
        n.task().name("cut").spawn(pending::<()>());
        n.task().name("kept").shielded(true).spawn(sleep(2 * S));
        tokio::task::yield_now().await;
        shutdown("enough");
        pending::<()>().await;
    });
    let stop = finished.report.stop().unwrap();
    let names =
        |who: &[testudo::Subject]| who.iter().filter_map(|who| who.name().map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(names(stop.finished()), ["kept"]);
    assert_eq!(names(stop.cancelled()), ["main", "cut"]);
    assert!(stop.left().is_empty());
    let text = finished.report.to_string();
    assert!(text.contains("stopped in 2.0s (enough)") && text.contains("shielded: 2.0s"), "{text}");
    #[cfg(feature = "json")]
    {
        let json: serde_json::Value = serde_json::from_str(&finished.report.to_json()).unwrap();
        assert_eq!(json["stop"]["reason"], "enough");
        assert_eq!(json["stop"]["finished"][0]["name"], "kept");
        assert_eq!(json["stop"]["phases"].as_array().unwrap().len(), 8);
    }
}

#[test]
fn each_rung_of_the_ladder_has_the_tree() {
    let graceful = ["graceful", "running", "running"];
    for (takes_part, second) in [(true, ["cancel", "running", "running"]), (false, ["say", "cancelled", "holding"])] {
        let (signals, heard) = (Signals::new(), Log::default());
        let (keys, log) = (signals.clone(), heard.clone());
        let reporter = Reporter::new(move |event| hear_rung(&log, event));
        let runner = Runner::new().current_thread().press_window(Duration::ZERO).reporter(reporter);
        let finished = runner.signals_from(&signals).run(async move {
            tokio::time::pause();
            let (go, gone) = tokio::sync::oneshot::channel::<()>();
            let part = takes_part.then(take_part);
            root_nursery::<String>().task().name("worker").spawn(pending::<()>());
            spawn(shield(async move { drop(gone.await) }).name("payment"));
            tokio::task::yield_now().await;
            for _ in 0..3 {
                keys.press(Signal::Terminate);
            }
            drop((part, go));
        });
        assert!(finished.report.is_clean(), "{}", finished.report);
        assert_eq!(heard.seen(), [graceful, second, ["force", "cancelled", "holding"]].concat());
    }
}

/// The rung, and what is said of two that are alive.
fn hear_rung(log: &Log, event: &Event) {
    let (rung, dump) = if let Event::Stopping { dump, .. } = event {
        ("graceful", dump)
    } else if let Event::Unfinished { dump, .. } = event {
        ("cancel", dump)
    } else if let Event::Waiting { dump, .. } = event {
        ("say", dump)
    } else if let Event::Forced { dump, .. } = event {
        ("force", dump)
    } else {
        panic!("{event}")
    };
    // Who hears it is inside of the run.
    assert_eq!(testudo::dump().entries().len(), dump.entries().len());
    log.push(rung);
    for name in ["worker", "payment"] {
        let entry = dump.entries().iter().find(|entry| entry.who().name() == Some(name));
        log.push(entry.map_or("gone", testudo::Entry::state));
    }
}

#[test]
fn a_dump_shows_each_thing_inside_what_it_is_inside_of() {
    let (finished, _) = run(
        quiet(),
        async {
            spawn(async {
                let inner = nursery(|n| async move {
                    n.task().name("leaf").spawn(async {
                        shield(sleep(9 * S)).name("write").budget(5 * S).await;
                    });
                    pending::<()>().await;
                });
                drop(inner.name("shop").await);
            });
            sleep(S).await;
            shutdown("enough");
            tokio::task::yield_now().await;
            let dump = dump();
            let lines: Vec<String> = dump.to_string().lines().map(str::to_owned).collect();
            let at = |what: &str| {
                let found = lines.iter().position(|line| line.trim_start().starts_with(what));
                found.unwrap_or_else(|| panic!("no {what}: {lines:#?}"))
            };
            let depth = |what: &str| lines[at(what)].len() - lines[at(what)].trim_start().len();
            assert!(lines[0].starts_with("root at tests/it/shutdown.rs:"), "{lines:#?}");
            assert!(at("root") < at("task main") && depth("task main") == 2, "{lines:#?}");
            assert!(depth("nursery shop") > 2 && depth("task leaf") == depth("nursery shop") + 2, "{lines:#?}");
            assert_eq!(depth("shield write"), depth("task leaf") + 2, "{lines:#?}");
            let write = &lines[at("shield write")];
            assert!(
                write.contains("tests/it/shutdown.rs:") && write.contains("holding, age 1.0s, 5.0s left"),
                "{write}"
            );
            assert!(lines[at("task leaf")].contains("cancelled, age 1.0s: the run was stopped (enough)"), "{lines:#?}");
            #[cfg(feature = "json")]
            {
                let json: serde_json::Value = serde_json::from_str(&dump.to_json()).unwrap();
                let write = json.as_array().unwrap().iter().find(|entry| entry["who"]["name"] == "write").unwrap();
                assert_eq!((write["state"].as_str(), write["time_left"].as_f64()), (Some("holding"), Some(5.0)));
                assert_eq!(write["budget"].as_f64(), Some(5.0));
            }
        }
        .shielded(),
    );
    assert!(finished.outcome.is_ok());
}

trait Shielded: Future + Sized {
    fn shielded(self) -> testudo::ScopedShield<Self> {
        testudo::shield_scoped(self)
    }
}

impl<F: Future> Shielded for F {}

#[testudo::test(start_paused = true)]
async fn a_test_can_ask_for_a_stop() {
    let began = Instant::now();
    let task = spawn(async {
        shutdown_requested().await;
        Ok::<_, std::convert::Infallible>(Instant::now())
    });
    tokio::task::yield_now().await;
    shutdown("enough");
    shield(async move {
        assert_eq!(task.await.unwrap(), began);
        sleep_until(began + S).await;
    })
    .await;
}
