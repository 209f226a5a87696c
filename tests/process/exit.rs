//! How a run ends, what the process exits with, and what signals do after it.

use nix::sys::signal::Signal::{SIGINT, SIGQUIT, SIGTERM, SIGUSR1};

use crate::child::Proc;

#[test]
fn run_returns_the_value_of_main() {
    Proc::scene("value").expect("Ok(42)").end().code(0);
    assert_eq!(Proc::scene("main_returns_ok").end().code(0).err, "");
}

#[test]
fn an_error_of_main_is_printed_and_gives_1() {
    Proc::scene("main_fails").end().code(1).said("Error: \"no luck\"\n");
}

#[test]
fn a_panic_of_main_gives_101_as_without_us() {
    let end = Proc::scene("main_panics").end();
    end.code(101).said("no luck");
    assert_eq!(end.err.matches("no luck").count(), 1, "said once: {end:#?}");
}

#[test]
fn a_cancel_of_main_that_nobody_asked_the_runner_for_is_no_clean_stop() {
    Proc::scene("main_is_cancelled").end().code(1).said("no more need");
}

#[test]
fn l50_after_a_run_signals_kill_again() {
    for signal in [SIGINT, SIGTERM, SIGUSR1, SIGQUIT] {
        let mut proc = Proc::scene("after");
        proc.expect("ready").signal(signal).end().died_by(signal);
    }
}

#[test]
fn until_the_end_of_the_process_a_late_signal_changes_nothing() {
    let mut proc = Proc::scene("after_exit");
    proc.expect("ready").signal(SIGINT).press_again(SIGTERM).press_again(SIGINT).press_again(SIGINT);
    proc.input("go\n").end().code(0).did_not_say("ending");
}

#[test]
fn between_the_run_and_the_exit_a_program_can_say_its_last_line_whatever_comes() {
    let mut proc = Proc::scene("before_exit");
    proc.expect("ready").signal(SIGTERM).expect("over");
    proc.signal(SIGINT).press_again(SIGTERM).press_again(SIGTERM).press_again(SIGTERM);
    proc.input("leave\n").expect("the last line").end().died_by(SIGTERM);
}

#[test]
fn an_exit_that_is_dropped_gives_the_signals_back() {
    let mut proc = Proc::scene("before_exit");
    proc.expect("ready").signal(SIGTERM).expect("over").input("stay\n");
    proc.expect("dropped").signal(SIGINT).end().died_by(SIGINT);
}

#[test]
fn each_run_has_a_ladder_of_its_own() {
    let mut proc = Proc::scene("twice");
    for _ in 0..2 {
        proc.expect("ready").signal(SIGINT).expect("over");
    }
    proc.end().code(0).did_not_say("still waiting");
}

#[test]
fn a_listener_from_before_the_run_keeps_the_signal_after_it() {
    let mut proc = Proc::scene("caught");
    proc.expect("ready").signal(SIGINT).expect("caught").end().code(0);
}

#[test]
fn a_listener_of_the_program_beside_ours_gets_each_signal_too() {
    let mut proc = Proc::scene("beside");
    proc.expect("ready").signal(SIGINT).expect("heard it").expect("cancelled as well").end().code(0).said("stopping");
}

#[test]
fn a_runner_without_signals_leaves_them_alone() {
    for signal in [SIGINT, SIGTERM] {
        let mut proc = Proc::scene("no_signals");
        proc.expect("ready").signal(signal).end().died_by(signal);
    }
}

#[test]
fn a_run_that_waits_for_tasks_does_not_wait_for_daemons() {
    Proc::scene("root_daemon").expect("task ends").end().code(0);
}

#[test]
fn a_signal_stops_every_run_of_the_process() {
    let mut proc = Proc::scene("two_runs");
    proc.expect("ready").expect("ready").signal(SIGTERM).expect("over").expect("over").end().code(0);
}

#[test]
fn clean_up_of_main_that_awaits_runs_to_its_end() {
    let mut proc = Proc::scene("finalizer");
    proc.expect("ready").signal(SIGTERM).expect("cleaned up").end().code(0);
}

#[test]
fn run_returns_after_every_started_shield() {
    let mut proc = Proc::scene("drained");
    proc.expect("main is done").expect("rescued shield is done").expect("plain task is done");
    proc.expect("run has returned").end().code(0);
}

#[test]
fn what_tasks_leave_to_nobody_is_said_once_and_fails_nobody() {
    let mut proc = Proc::scene("tasks_fail");
    let end = proc.expect("main goes on").end();
    end.code(0)
        .said("task `unlucky` (tests/process/scenes.rs:")
        .said("task `failing` (tests/process/scenes.rs:")
        .said("no disk");
    assert_eq!(end.err.matches("`unlucky`").count(), 1, "{end:#?}");
    assert_eq!(end.err.matches("`failing`").count(), 1, "{end:#?}");
}

#[test]
fn a_panic_of_main_waits_for_what_is_shielded() {
    Proc::scene("main_panics_late").expect("shield is done").end().code(101);
}
