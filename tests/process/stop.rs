//! A stop by signals: graceful, cancel, force; dumps; budgets from the environment; and what the parent of the process sees.

use std::fs::File;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::{Command, Stdio, exit};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use nix::sys::signal::kill;
use nix::unistd::getpid;
use testudo::{
    ExitPolicy, FinalizeExt, Phase, Runner, Signal, catch_cancelled, shield, shutdown, shutdown_requested, spawn,
};
use tokio::time::sleep;

use crate::child::Proc;
use crate::scenes::{leave, read_line, runner, say};

/// Plays a scene of this file, if it is one.
pub(crate) fn play(scene: &str) {
    match scene {
        "stop_graceful" => graceful(runner()),
        "stop_by_hangup" => graceful(runner().stop_signals([Signal::Hangup])),
        "stop_quit_climbs" => graceful(runner().stop_signals([Signal::Quit])),
        "stop_reload" => {
            graceful(runner().on_signal(Signal::Hangup, |stop| say(&format!("reload on {}", stop.signal()))))
        }
        // As the default: no reporter was named.
        "stop_cut_short" => graceful(Runner::new()),
        "stop_cut_short_by_time" => graceful(Runner::new().budget(Duration::from_millis(600))),
        "stop_shield" => shielded(runner()),
        "stop_standard" => ready(runner()),
        "stop_signal_policy" => ready(runner().exit_policy(ExitPolicy::Signal)),
        "stop_number_policy" => ready(runner().exit_policy(ExitPolicy::Number)),
        "stop_main_policy" => ready(runner().exit_policy(ExitPolicy::Main)),
        "stop_self" => stop_self(),
        "stop_early" => early(),
        "stop_early_twice" => early_twice(),
        "stop_hook_hangs" => shielded(runner().on_stop(|_| thread::sleep(Duration::from_secs(3600)))),
        "stop_handler_hangs" => {
            let hang = |_: &testudo::Stop<'_>| thread::sleep(Duration::from_secs(3600));
            shielded(runner().on_signal(Signal::User2, hang));
        }
        "stop_cut" => cut(),
        "stop_forced" => forced(),
        "stop_notices" => notices(),
        "stop_phases" => {
            phases();
            exit(0);
        }
        _ => {}
    }
}

/// A worker that finishes its job when it is asked to stop, and one that does not care.
fn graceful(runner: Runner) -> ! {
    leave(runner.run_and_exit(async {
        spawn(async {
            if catch_cancelled(pending::<()>()).await.is_err() {
                say("cancelled");
            }
        });
        tokio::task::yield_now().await;
        let worker = spawn(async {
            let mut asked = pin!(shutdown_requested());
            // It takes part from the first time that it waits.
            tokio::select! {
                biased;
                _ = &mut asked => {}
                () = async { say("ready") } => {}
            }
            say(&format!("asked by {}", asked.await));
            let job = tokio::task::spawn_blocking(read_line);
            drop(catch_cancelled(job).await);
            say("over");
        });
        drop(worker.await);
        pending::<()>().await;
    }))
}

fn shielded(runner: Runner) -> ! {
    leave(runner.run_and_exit(async {
        spawn(shield(pending::<()>()).name("payment"));
        tokio::task::yield_now().await;
        say("ready");
        pending::<()>().await;
    }))
}

fn ready(runner: Runner) -> ! {
    leave(runner.run_and_exit(async {
        say("ready");
        pending::<()>().await;
    }))
}

/// As process 1 it gets no signals but those that it handles.
fn stop_self() -> ! {
    leave(runner().exit_policy(ExitPolicy::Signal).run_and_exit(async {
        say(&format!("process {}", getpid()));
        kill(getpid(), nix::sys::signal::Signal::SIGTERM).expect("it is us");
        pending::<()>().await;
    }))
}

fn early() -> ! {
    shutdown("before there was a run");
    let finished = runner().run(async {
        say("first poll");
        pending::<()>().await;
    });
    say(&finished.report.stop().expect("it has stopped").reason().to_string());
    // The next run has not been asked for anything.
    ready(runner())
}

fn early_twice() -> ! {
    let first = runner();
    first.handle().shutdown("by its handle");
    shutdown("by the process");
    let finished = first.run(pending::<()>());
    say(&finished.report.stop().expect("it has stopped").reason().to_string());
    // Both were of the first run.
    ready(runner())
}

/// Asks for its own stop: the watchdog of systemd is fed until it is told.
fn notices() -> ! {
    leave(runner().budget(Duration::from_secs(20)).drain_delay(Duration::from_millis(300)).run_and_exit(async {
        testudo::ready().set(true);
        spawn(shield(sleep(Duration::from_millis(2700))).budget(Duration::from_secs(8)));
        sleep(Duration::from_millis(100)).await;
        shutdown("enough");
        pending::<()>().await;
    }))
}

fn phases() {
    let runner = runner();
    let handle = runner.handle();
    let watching = thread::spawn(move || {
        let own = tokio::runtime::Builder::new_current_thread().build().expect("can build");
        for phase in [Phase::Initiated, Phase::Cancelling, Phase::Exit] {
            own.block_on(handle.wait_phase(phase));
            say(&format!("phase {phase}"));
        }
    });
    let finished = runner.run(async {
        say("ready");
        pending::<()>().await;
    });
    assert!(finished.outcome.is_cancelled());
    watching.join().expect("it watches");
}

#[test]
fn the_first_press_asks_and_who_takes_part_finishes() {
    let mut proc = Proc::scene("stop_graceful");
    proc.expect("ready").signal(SIGTERM).expect("asked by SIGTERM");
    proc.input("go\n").expect("over").expect("cancelled");
    proc.end().code(0).said("stopping (SIGTERM): who takes part finishes");
}

#[test]
fn l48_the_second_press_cancels_who_takes_part() {
    for second in [SIGTERM, SIGINT] {
        let mut proc = Proc::scene("stop_graceful");
        proc.expect("ready").signal(SIGTERM).expect("asked by SIGTERM");
        // Another kind is another press at once.
        if second == SIGTERM {
            proc.press_again(second);
        } else {
            proc.signal(second);
        }
        proc.expect_all(["cancelled", "over"]);
        // The thread that reads is left behind.
        proc.end().code(0).did_not_say("still waiting");
    }
}

/// Also to a log: somebody who took part did not finish.
#[test]
fn a_graceful_phase_that_is_cut_short_shows_who_was_waited_for() {
    for (scene, why, next) in [
        ("stop_cut_short", "SIGTERM", "ends the process at once"),
        ("stop_cut_short_by_time", "its time is up", "says what is being waited for"),
    ] {
        let mut proc = Proc::scene(scene);
        proc.expect("ready").signal(SIGTERM).expect("asked by SIGTERM");
        if scene == "stop_cut_short" {
            proc.press_again(SIGTERM);
        }
        proc.expect_all(["cancelled", "over"]);
        let end = proc.end();
        let text = format!(
            "the graceful phase is cut short ({why}): everything that is not shielded is cancelled; once more {next}"
        );
        end.code(0).said(&text).said("it waited for 3:\n").said("\nin this tree:\nroot at ");
        end.said("\n  task `Task-3` (tests/process/stop.rs:")
            .said("\n  task Task-3 at tests/process/stop.rs:")
            .said(", running, age ");
        end.did_not_say("stopping").did_not_say("not in order");
    }
}

#[test]
fn who_finishes_in_the_graceful_phase_is_no_news_for_a_log() {
    let mut proc = Proc::scene("stop_cut_short");
    proc.expect("ready").signal(SIGTERM).expect("asked by SIGTERM");
    let end = proc.input("go\n").expect("over").expect("cancelled").end();
    assert_eq!(end.code(0).err, "");
}

#[test]
fn l48_the_third_press_forces_and_shows_the_tree() {
    let mut proc = Proc::scene("stop_shield");
    proc.expect("ready").signal(SIGTERM).expect_err("stopping");
    proc.press_again(SIGTERM).expect_err("still waiting for 2");
    let end = proc.press_again(SIGTERM).exit();
    end.code(143).said("ending the process now (SIGTERM)").said("shield payment at tests/process/stop.rs:");
}

#[test]
fn sigquit_shows_the_tree_and_ends_at_once() {
    let mut proc = Proc::scene("stop_shield");
    let end = proc.expect("ready").signal(SIGQUIT).exit();
    end.code(131).said("ending the process now (SIGQUIT)").said("shield payment at tests/process/stop.rs:");
}

#[test]
fn sigusr1_shows_the_tree_and_changes_nothing() {
    let mut proc = Proc::scene("stop_graceful");
    proc.expect("ready").signal(SIGUSR1).expect_err("this is alive:");
    proc.expect_err("task main at tests/process/stop.rs:");
    proc.signal(SIGTERM).expect("asked by SIGTERM").input("go\n").expect("over").expect("cancelled");
    proc.end().code(0);
}

#[test]
fn any_signal_can_ask_for_a_stop() {
    for (scene, signal) in [("stop_by_hangup", SIGHUP), ("stop_quit_climbs", SIGQUIT)] {
        let mut proc = Proc::scene(scene);
        proc.expect("ready").signal(signal).expect(&format!("asked by {}", signal.as_str()));
        proc.input("go\n").expect("over").expect("cancelled").end().code(0);
    }
    let mut proc = Proc::scene("stop_by_hangup");
    proc.expect("ready").signal(SIGTERM).exit().died_by(SIGTERM);
}

#[test]
fn sighup_reloads_as_often_as_it_comes() {
    let mut proc = Proc::scene("stop_reload");
    proc.expect("ready");
    for _ in 0..3 {
        proc.press_again(SIGHUP).expect("reload on SIGHUP");
    }
    proc.signal(SIGTERM).expect("asked by SIGTERM").input("go\n").expect("over").expect("cancelled").end().code(0);
}

#[test]
fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    if !cfg!(target_os = "linux") {
        return; // Safe Rust can not see it elsewhere.
    }
    for scene in ["stop_reload", "stop_by_hangup"] {
        let mut proc = Proc::deaf_scene(scene);
        proc.expect("ready").press_again(SIGHUP).press_again(SIGHUP);
        proc.input("go\n").signal(SIGQUIT).exit().code(131).did_not_say("reload");
    }
}

#[test]
fn a_hook_that_hangs_stops_neither_the_stop_nor_the_force() {
    let mut proc = Proc::scene("stop_hook_hangs");
    proc.expect("ready").signal(SIGTERM).expect_err("stopping (SIGTERM)");
    proc.press_again(SIGTERM).expect_err("still waiting for 2");
    proc.press_again(SIGTERM).exit().code(143);
}

#[test]
fn a_handler_that_hangs_keeps_no_other_signal_away() {
    let mut proc = Proc::scene("stop_handler_hangs");
    proc.expect("ready").signal(nix::sys::signal::Signal::SIGUSR2).signal(SIGTERM).expect_err("stopping (SIGTERM)");
    proc.signal(SIGQUIT).exit().code(131);
}

#[test]
fn l40_late_waiters_outside_of_the_run_see_each_phase() {
    let mut proc = Proc::scene("stop_phases");
    proc.expect("ready").signal(SIGTERM);
    proc.expect("phase initiated").expect("phase cancelling").expect("phase exit").end().code(0);
}

#[test]
fn l42_a_request_before_any_run_is_that_of_the_next_one_only() {
    let mut proc = Proc::scene("stop_early");
    proc.expect("first poll").expect("before there was a run").expect("ready");
    proc.signal(SIGTERM).end().code(0);
}

#[test]
fn two_requests_before_a_run_stop_one() {
    let mut proc = Proc::scene("stop_early_twice");
    proc.expect("by its handle").expect("ready");
    proc.signal(SIGTERM).end().code(0);
}

#[test]
fn the_environment_sets_the_budget() {
    let mut proc = Proc::scene_with("stop_shield", &[("TESTUDO_BUDGET", "300ms")]);
    proc.expect("ready");
    let asked = Instant::now();
    let end = proc.signal(SIGTERM).exit();
    assert!(asked.elapsed() < Duration::from_secs(2), "{end:#?}");
    end.code(0).said("shield `payment`").said("used up its budget");
}

#[test]
fn a_budget_that_nobody_can_read_is_said_at_once() {
    let end = Proc::scene_with("stop_shield", &[("TESTUDO_BUDGET", "soon")]).exit();
    end.code(1).said("Error: TESTUDO_BUDGET is `soon`").said("`28s`").did_not_say("panicked");
}

#[test]
fn l49_the_parent_sees_the_status_that_the_policy_says() {
    for (scene, signal, status) in [
        ("stop_standard", SIGTERM, Ok(0)),
        ("stop_standard", SIGINT, Ok(0)),
        ("stop_signal_policy", SIGTERM, Err(SIGTERM)),
        ("stop_signal_policy", SIGINT, Err(SIGINT)),
        ("stop_number_policy", SIGTERM, Ok(143)),
        ("stop_number_policy", SIGINT, Ok(130)),
        ("stop_main_policy", SIGTERM, Ok(0)),
        ("stop_main_policy", SIGINT, Ok(0)),
    ] {
        let mut proc = Proc::scene(scene);
        let end = proc.expect("ready").signal(signal).exit();
        match status {
            Ok(code) => end.code(code),
            Err(signal) => end.died_by(signal),
        };
    }
}

#[test]
fn l49_at_a_terminal_a_ctrl_c_is_an_honest_death() {
    for (scene, signal, status) in
        [("stop_standard", SIGINT, Err(SIGINT)), ("stop_standard", SIGTERM, Ok(0)), ("stop_main_policy", SIGINT, Ok(0))]
    {
        let terminal = openpty(None, None).expect("there are terminals");
        let _master: OwnedFd = terminal.master;
        let mut proc = Proc::scene_at(scene, Stdio::from(File::from(terminal.slave)));
        let end = proc.expect("ready").signal(signal).exit();
        match status {
            Ok(code) => end.code(code),
            Err(signal) => end.died_by(signal),
        };
    }
}

#[test]
fn l49_as_process_1_it_exits_with_the_number() {
    let in_namespace = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc"]).args(args);
        command
    };
    let probe = in_namespace(&["true"]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        println!("skipped: no PID namespaces here");
        return;
    }
    let mut proc = Proc::scene_by(in_namespace(&[]), "stop_self");
    proc.expect("process 1").exit().code(143);
}

#[test]
fn l49_under_an_init_the_status_comes_through() {
    for (init, args) in [("tini", &["--"][..]), ("dumb-init", &["--"])] {
        if Command::new(init).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            println!("skipped: no `{init}` here");
            continue;
        }
        for (scene, code) in [("stop_signal_policy", 143), ("stop_standard", 0), ("stop_number_policy", 143)] {
            let mut command = Command::new(init);
            command.args(args);
            let mut proc = Proc::scene_by(command, scene);
            proc.expect("ready").signal(SIGTERM).exit().code(code);
        }
    }
}

#[cfg(feature = "systemd")]
#[test]
fn l51_systemd_is_told_once_that_it_stops_and_asked_for_time_until_the_end() {
    let path = std::env::temp_dir().join(format!("testudo-notify-{}", std::process::id()));
    drop(std::fs::remove_file(&path));
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("can bind");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("can wait");
    let name = path.to_string_lossy();
    let mut proc = Proc::scene_with("stop_notices", &[("NOTIFY_SOCKET", &name), ("WATCHDOG_USEC", "100000")]);
    let (mut said, mut buffer) = (Vec::new(), [0; 500]);
    while !proc.has_ended() {
        if let Ok(length) = socket.recv(&mut buffer) {
            said.push((Instant::now(), String::from_utf8_lossy(&buffer[..length]).into_owned()));
        }
    }
    drop(std::fs::remove_file(&path));
    proc.exit().code(0);
    let stopping: Vec<usize> = (0..said.len()).filter(|n| said[*n].1.contains("STOPPING=1")).collect();
    let [stopping] = stopping.as_slice() else { panic!("once: {said:#?}") };
    let (before, after) = said.split_at(*stopping);
    assert!(before.iter().any(|(_, text)| text.contains("READY=1")), "{said:#?}");
    let pings: Vec<Instant> =
        before.iter().filter(|(_, text)| text.contains("WATCHDOG=1")).map(|(at, _)| *at).collect();
    assert!(pings.len() >= 5, "also in the drain delay: {said:#?}");
    let late = pings.last().map(|last| after[0].0 - *last);
    assert!(late.is_some_and(|late| late < Duration::from_millis(100)), "{said:#?}");
    let extended: Vec<_> = after.iter().filter(|(_, text)| text.contains("EXTEND_TIMEOUT_USEC=")).collect();
    assert!(extended.len() >= 3, "{said:#?}");
    let asked = |text: &str| {
        let length = text.split("EXTEND_TIMEOUT_USEC=").nth(1).and_then(|rest| rest.lines().next());
        Duration::from_micros(length.and_then(|text| text.parse().ok()).expect("a number"))
    };
    for pair in extended.windows(2) {
        assert!(pair[1].0 - pair[0].0 < asked(&pair[0].1), "it has lapsed: {said:#?}");
    }
    let mut shielded = extended.iter().filter(|(_, text)| text.contains("STATUS=shielded, ")).peekable();
    assert!(shielded.peek().is_some(), "{said:#?}");
    let shield_and_margin = Duration::from_secs(8 + 2);
    assert!(shielded.all(|(_, text)| asked(text) <= shield_and_margin), "more than the shield may take: {said:#?}");
}

#[cfg(feature = "progress")]
#[test]
fn a_person_at_a_terminal_sees_what_is_waited_for_and_what_the_next_press_does() {
    let mut proc = Proc::at_a_terminal("trio_nursery", &["--seconds", "3600"]);
    proc.expect_prefix("PID: ");
    for _ in 0..6 {
        assert!(proc.line().is_some_and(|line| line.contains("Task start!")));
    }
    proc.input("\x03");
    // The line is drawn after three seconds, and has no end: the next thing that is said ends it.
    thread::sleep(Duration::from_secs(4));
    proc.input("\x03");
    let mut seen = String::new();
    while !seen.contains("testudo: still waiting for") {
        seen += &proc.line().expect("it says more");
    }
    assert!(seen.contains("stopping (SIGINT)"), "{seen}");
    assert!(seen.contains("testudo: shielded, 25s left") || seen.contains("testudo: shielded, 24s left"), "{seen}");
    assert!(seen.contains("left, Ctrl-C says more; 5 alive: main, Task-"), "{seen}");
    thread::sleep(crate::child::NEXT_PRESS);
    proc.input("\x03").exit().code(130);
}

#[test]
fn what_ends_in_time_says_nothing_to_a_log() {
    let mut proc = Proc::scene_with("stop_quiet", &[]);
    let end = proc.expect("ready").signal(SIGTERM).exit();
    assert_eq!(end.code(0).err, "");
}

#[test]
fn what_was_cut_off_is_reported_at_the_end_also_to_a_log() {
    let mut proc = Proc::scene("stop_cut");
    let end = proc.expect("ready").signal(SIGTERM).exit();
    // Before the report, the loss was said when it happened.
    let report = end.err.split_once("testudo: the run has ended, but not in order\n").expect("a report").1;
    assert!(report.starts_with("  shield `payment` (tests/process/stop.rs:"), "{report}");
    for line in [" used up its budget and is cut off\n", "stopped in ", " (SIGTERM)\n", "\n  shielded: "] {
        assert!(report.contains(line), "no `{line}`: {report}");
    }
    assert!(report.ends_with("\neverything has ended, 1 lost\n"), "{report}");
    end.did_not_say("stopping");
}

#[test]
fn a_stop_by_force_ends_with_a_report() {
    let mut proc = Proc::scene("stop_forced");
    let end = proc.expect("ready").signal(SIGTERM).exit();
    end.code(124).said("ending the process now (out of time)").said("not in order\nstopped in ").said(", by force\n");
}

/// As the default: no reporter was named.
fn cut() -> ! {
    let runner = Runner::new();
    leave(runner.run_and_exit(async {
        spawn(shield(pending::<()>()).name("payment").budget(Duration::from_millis(100)));
        tokio::task::yield_now().await;
        say("ready");
        pending::<()>().await;
    }))
}

/// A finalizer that never ends.
fn forced() -> ! {
    leave(Runner::new().budget(Duration::from_millis(400)).run_and_exit(async {
        say("ready");
        pending::<()>().on_cancel(pending()).await;
    }))
}

/// As the default: no reporter was named.
pub(crate) fn quiet() -> ! {
    leave(Runner::new().run_and_exit(async {
        spawn(shield(sleep(Duration::from_millis(50))));
        say("ready");
        pending::<()>().await;
    }))
}
