//! The seeds' programs, line by line. The order inside a group of lines is free.

use std::thread;

use nix::sys::signal::Signal::{SIGINT, SIGTERM};

use crate::child::{End, Proc};

/// As short as a busy machine allows: the tasks must still sleep when the signal comes.
const LENGTH: [&str; 2] = ["--seconds", "2"];
/// Longer than any test.
const FOR_EVER: [&str; 2] = ["--seconds", "3600"];

fn all(range: std::ops::Range<usize>, what: &str) -> Vec<String> {
    range.map(|n| format!("[{n}] {what}")).collect()
}

/// Waits for the first lines, and gives the printed process id.
#[track_caller]
fn begin(proc: &mut Proc, tasks: usize) -> u32 {
    let pid = proc.expect_prefix("PID: ");
    proc.expect_all(all(0..tasks, "Task start!"));
    pid.parse().expect("a number")
}

#[track_caller]
fn middle(proc: &mut Proc) -> &mut Proc {
    proc.expect_all(all(3..6, "Canceled!")).expect_all(all(0..3, "Task done!"))
}

/// Nobody presses anything.
fn undisturbed(name: &str) {
    let mut proc = Proc::example(name, &["--seconds", "0.2"]);
    begin(&mut proc, 6);
    let end = proc.expect_all(all(0..6, "Task done!")).end();
    assert_eq!(end.code(0).err, "", "nothing to say");
}

fn in_parallel(scenes: &[&(dyn Fn() + Sync)]) {
    thread::scope(|scope| {
        for scene in scenes {
            scope.spawn(scene);
        }
    });
}

#[test]
fn asyncio_shield_cancels_what_is_not_shielded() {
    let scene = |signal, name: &str, terminal: bool| {
        let mut proc = if terminal {
            Proc::at_a_terminal("asyncio_shield", &LENGTH)
        } else {
            Proc::example("asyncio_shield", &LENGTH)
        };
        begin(&mut proc, 6);
        if terminal {
            let echo = proc.input("\x03").line().unwrap_or_default();
            assert_eq!(echo.trim_start_matches("^C"), format!("Received {name}"));
        } else {
            proc.signal(signal).expect(&format!("Received {name}"));
        }
        proc.expect("Cancelling 3 out of 7");
        middle(&mut proc).end().code(0);
    };
    in_parallel(&[
        &|| scene(SIGINT, "SIGINT", false),
        &|| scene(SIGTERM, "SIGTERM", false),
        &|| scene(SIGINT, "SIGINT", true),
        &|| undisturbed("asyncio_shield"),
    ]);
}

#[test]
fn asyncio_shield_counts_what_it_cancels() {
    let mut proc = Proc::example("asyncio_shield", &["--seconds", "2", "--shielded", "4", "--plain", "5"]);
    begin(&mut proc, 9);
    proc.signal(SIGINT).expect("Received SIGINT").expect("Cancelling 5 out of 10");
    proc.expect_all(all(4..9, "Canceled!")).expect_all(all(0..4, "Task done!"));
    proc.end().code(0);
}

#[test]
fn asyncio_shield_finds_nothing_more_to_cancel_at_a_second_signal() {
    let mut proc = Proc::example("asyncio_shield", &LENGTH);
    begin(&mut proc, 6);
    proc.signal(SIGINT).expect("Received SIGINT").expect("Cancelling 3 out of 7");
    proc.expect_all(all(3..6, "Canceled!")).press_again(SIGTERM);
    proc.expect("Received SIGTERM").expect("Cancelling 0 out of 4");
    proc.expect_all(all(0..3, "Task done!")).end().code(0);
}

#[test]
fn aiorun_shutdown_waits_for_what_is_shielded() {
    let scene = |signal| {
        let mut proc = Proc::example("aiorun_shutdown_waits_for", &LENGTH);
        begin(&mut proc, 6);
        proc.signal(signal).expect("Stopping the loop");
        assert_eq!(middle(&mut proc).end().code(0).err, "", "nothing was cut off, and nobody is at a terminal");
    };
    let terminal = || {
        let mut proc = Proc::at_a_terminal("aiorun_shutdown_waits_for", &LENGTH);
        begin(&mut proc, 6);
        let end = ended_at_a_terminal(&mut proc);
        let own: Vec<_> = end.1.iter().filter(|line| !line.starts_with("testudo: ")).collect();
        assert_eq!(own[0].trim_start_matches("^C"), "Stopping the loop", "{own:?}");
        assert_eq!(own.len(), 7, "{own:?}");
        end.0.code(0);
    };
    in_parallel(&[&|| scene(SIGINT), &|| scene(SIGTERM), &terminal, &|| undisturbed("aiorun_shutdown_waits_for")]);
}

/// Types Ctrl-C, and gives everything that comes until the end.
fn ended_at_a_terminal(proc: &mut Proc) -> (End, Vec<String>) {
    proc.input("\x03");
    let mut lines = Vec::new();
    while let Some(line) = proc.line() {
        lines.push(line);
    }
    (proc.end(), lines)
}

#[test]
fn trio_nursery_ends_after_the_shielded_one_inside_it() {
    let scene = |signal| {
        let mut proc = Proc::example("trio_nursery", &LENGTH);
        begin(&mut proc, 6);
        proc.signal(signal);
        let end = middle(&mut proc).expect("Nursery Cancelled!").end();
        assert_eq!(end.code(0).err, "", "nothing was cut off, and nobody is at a terminal");
    };
    let terminal = || {
        let mut proc = Proc::at_a_terminal("trio_nursery", &LENGTH);
        begin(&mut proc, 6);
        let (end, lines) = ended_at_a_terminal(&mut proc);
        assert_eq!(lines.last().map(String::as_str), Some("Nursery Cancelled!"), "{lines:?}");
        assert_eq!(lines.iter().filter(|line| line.contains("Canceled!")).count(), 3, "{lines:?}");
        end.code(0);
    };
    in_parallel(&[&|| scene(SIGINT), &|| scene(SIGTERM), &terminal, &|| undisturbed("trio_nursery")]);
}

/// The line in which main is named, as the two around it.
#[track_caller]
fn cancelling_main(proc: &mut Proc) -> &mut Proc {
    let named = proc.expect_prefix("Canceling task: ");
    assert!(named.contains("main"), "{named}");
    proc.expect("Cancellation successful: true")
}

#[test]
fn cancel_main_ends_main_and_the_other_task_with_it() {
    let mut proc = Proc::example("cancel_main", &[]);
    cancelling_main(proc.expect("Main is running"));
    proc.expect("Main task cancelled").end().code(0);
}

#[test]
fn a_shielded_main_survives_its_cancel() {
    let scene = |name: &str, cancels: usize| {
        let mut proc = Proc::example(name, &[]);
        proc.expect("Main is running");
        for _ in 0..cancels {
            cancelling_main(&mut proc);
        }
        proc.expect("Other task done.").expect("Main is done.").end().code(0);
    };
    in_parallel(&[&|| scene("run_shield", 1), &|| scene("shield_main", 1), &|| scene("shield_main_repeated", 5)]);
}

#[test]
fn the_second_press_names_who_is_waited_for_and_the_third_leaves() {
    let scene = |name: &str, tasks, signal, code| {
        let place = format!("(examples/{name}.rs:");
        let place = place.as_str();
        let mut proc = Proc::example(name, &FOR_EVER);
        begin(&mut proc, 6);
        proc.signal(signal);
        if name.starts_with("aiorun") {
            proc.expect("Stopping the loop");
        }
        proc.expect_all(all(3..6, "Canceled!"));
        proc.press_again(signal).expect_err("still waiting for");
        let end = proc.press_again(signal).end();
        let (waiting, forced) = end.code(code).err.split_once("ending the process now").expect("forced");
        let waiting = waiting.split_once("still waiting for").expect("said").1;
        for named in [waiting, forced] {
            assert_eq!(named.matches(place).count(), named.matches("task `").count(), "{end:#?}");
            assert_eq!(named.matches("`Task-").count(), tasks, "{end:#?}");
        }
    };
    in_parallel(&[&|| scene("aiorun_shutdown_waits_for", 3, SIGINT, 130), &|| scene("trio_nursery", 4, SIGTERM, 143)]);
}

#[test]
fn a_burst_of_signals_is_one_press_of_an_example() {
    let scene = |name: &str| {
        let mut proc = Proc::example(name, &LENGTH);
        begin(&mut proc, 6);
        for _ in 0..50 {
            proc.signal(SIGINT);
        }
        if name.starts_with("aiorun") {
            proc.expect("Stopping the loop");
        }
        if name.starts_with("asyncio") {
            proc.expect("Received SIGINT");
            proc.expect("Cancelling 3 out of 7");
        }
        middle(&mut proc);
        if name.starts_with("trio") {
            proc.expect("Nursery Cancelled!");
        }
        proc.end().code(0).did_not_say("still waiting");
    };
    let examples = ["asyncio_shield", "aiorun_shutdown_waits_for", "trio_nursery"];
    in_parallel(&[&|| scene(examples[0]), &|| scene(examples[1]), &|| scene(examples[2])]);
}

#[test]
fn quickstart_names_what_it_waits_for_and_waits_for_it() {
    let names = ["payment", "upload", "journal", "ticker", "cache", "poller"];
    let stopped = || {
        let mut proc = Proc::example("quickstart", &[]);
        proc.expect_prefix("Press Ctrl-C");
        proc.expect_all(names.map(|name| format!("{name} begins"))).signal(SIGINT);
        proc.expect_all(names[3..].iter().map(|name| format!("{name} is cut off: the run was stopped (SIGINT)")));
        proc
    };
    in_parallel(&[
        &|| {
            let mut proc = stopped();
            for name in &names[..3] {
                proc.expect(&format!("{name} is done"));
            }
            proc.expect("everything has ended").end().code(0);
        },
        &|| {
            let mut proc = stopped();
            proc.press_again(SIGINT).expect_err("still waiting for 4; once more ends the process at once:");
            let end = proc.press_again(SIGINT).end();
            for name in &names[..3] {
                end.said(&format!("task `{name}` (examples/quickstart.rs:"));
            }
            for name in &names[3..] {
                end.did_not_say(name);
            }
            end.code(130);
        },
    ]);
}
