//! Presses: once, twice, three times, in a burst, before main, with every thread stuck, and with bad helpers.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGINT, SIGQUIT, SIGTERM, SIGUSR1};

use crate::child::Proc;

/// The scene in which `payment` and `journal` never end. Gives their places.
#[track_caller]
fn waiting(proc: &mut Proc) -> Vec<String> {
    let places = ["payment at ", "journal at "].map(|prefix| proc.expect_prefix(prefix));
    proc.expect("ready");
    places.into()
}

#[track_caller]
fn named(text: &str, places: &[String]) {
    for place in places {
        assert!(text.contains(place.as_str()), "no {place}: {text}");
    }
    for name in ["`payment`", "`journal`"] {
        assert!(text.contains(name), "no {name}: {text}");
    }
}

/// Each stands in the dump, below the root, with its state.
#[track_caller]
fn in_tree(text: &str, places: &[String]) {
    let tree = text.split_once("in this tree:\nroot at ").unwrap_or_else(|| panic!("no tree: {text}")).1;
    for (name, place) in ["payment", "journal"].iter().zip(places) {
        assert!(tree.contains(&format!("\n  task {name} at {place}, ")), "no {name} in the tree: {text}");
    }
}

#[test]
fn the_first_press_stops_what_is_not_shielded() {
    let mut proc = Proc::scene("stopped");
    proc.expect("ready").signal(SIGTERM);
    proc.expect("Stopped: Some(\"SIGTERM\")").end().code(0).said("stopping (SIGTERM)");
}

#[test]
fn the_second_press_names_and_the_third_forces_at_once() {
    for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] {
        let mut proc = Proc::scene("wait_for");
        let places = waiting(&mut proc);
        proc.signal(signal).expect("stopped");
        proc.press_again(signal);
        // The two stand in the tree in either order.
        proc.expect_err("task journal at");
        let said = proc.expect_err("task payment at");
        named(&said, &places);
        in_tree(&said, &places);
        assert!(said.contains("still waiting for") && !said.contains("ending the process"), "{said}");
        let pressed = Instant::now();
        let end = proc.press_again(signal).exit();
        assert!(pressed.elapsed() < Duration::from_secs(5), "at once");
        let forced = end.code(code).err.split("ending the process now").nth(1).unwrap_or_default();
        named(forced, &places);
        in_tree(forced, &places);
    }
}

#[test]
fn presses_of_two_kinds_count_at_once() {
    let mut proc = Proc::scene("wait_for");
    let places = waiting(&mut proc);
    proc.signal(SIGINT).signal(SIGTERM).expect("stopped");
    named(&proc.expect_err("`journal`"), &places);
    let end = proc.press_again(SIGTERM).exit();
    end.code(143);
}

#[test]
fn the_second_press_names_everything_that_holds_the_process() {
    let mut proc = Proc::scene("blockers");
    let places =
        ["copying", "holder", "write", "grandchild"].map(|name| (name, proc.expect_prefix(&format!("{name} at "))));
    proc.expect("ready").signal(SIGINT).expect_err("stopping");
    proc.press_again(SIGINT).expect_err("still waiting for");
    for (name, place) in &places {
        let said = proc.expect_err(&format!("`{name}` ({place},"));
        assert!(!said.contains("`main`"), "main was cut off: {said}");
    }
    proc.press_again(SIGINT).exit().code(130).said("can not be cancelled").said("rescued shield `write`");
}

#[test]
fn a_burst_is_one_press() {
    let mut proc = Proc::scene("burst");
    proc.expect("ready");
    for _ in 0..50 {
        proc.signal(SIGINT);
    }
    proc.expect_err("stopping");
    // After the window nothing has been kept back.
    std::thread::sleep(crate::child::NEXT_PRESS);
    let end = proc.input("go\n").expect("done").end();
    end.code(0).did_not_say("still waiting").did_not_say("ending");
    assert_eq!(end.err.matches("stopping").count(), 1, "{end:#?}");
}

#[test]
fn a_press_after_a_burst_is_the_second() {
    let mut proc = Proc::scene("burst");
    proc.expect("ready");
    for _ in 0..50 {
        proc.signal(SIGINT);
    }
    proc.press_again(SIGINT).expect_err("still waiting for");
    proc.input("go\n").expect("done").end().code(0).did_not_say("ending");
}

#[test]
fn without_a_window_every_press_counts() {
    let mut proc = Proc::scene("at_once");
    waiting(&mut proc);
    proc.signal(SIGINT).expect("stopped");
    proc.signal(SIGINT).expect_err("still waiting");
    proc.signal(SIGINT).exit().code(130);
}

#[test]
fn a_signal_before_main_is_not_lost() {
    if !cfg!(target_os = "linux") {
        return; // The scene looks at `/proc`.
    }
    for _ in 0..20 {
        let mut proc = Proc::scene("before_main");
        proc.expect("main is polled").expect("Stopped").end().code(0);
    }
}

#[test]
fn a_signal_in_the_first_poll_of_main_leaves_it_time_for_a_shield() {
    let mut proc = Proc::scene("first_poll");
    proc.expect("main is polled").signal(SIGINT).input("go\n");
    proc.expect("cancelled in its first poll").expect("the shield held").expect("over").end().code(0);
}

#[test]
fn the_third_press_needs_no_thread_of_the_runtime() {
    for scene in ["wedged", "wedged_current_thread", "busy"] {
        let mut proc = Proc::scene(scene);
        proc.expect("ready").signal(SIGINT).expect_err("stopping");
        proc.press_again(SIGINT).expect_err("`main`");
        let end = proc.press_again(SIGINT).exit();
        end.code(130).said("ending the process now");
        if scene.starts_with("wedged") {
            end.said("`wedge-1`").said("`wedge-2`");
        }
    }
}

#[test]
fn an_inherited_ignore_stays() {
    if !cfg!(target_os = "linux") {
        return; // Safe Rust can not see it elsewhere.
    }
    let mut proc = Proc::deaf_scene("stopped");
    proc.expect("ready");
    for _ in 0..4 {
        proc.press_again(SIGINT);
    }
    let end = proc.signal(SIGTERM).expect("Stopped: Some(\"SIGTERM\")").end();
    end.code(0).did_not_say("SIGINT");
}

#[test]
fn a_handler_of_the_program_takes_the_place_of_the_ladder() {
    let mut proc = Proc::scene("own_handler");
    proc.expect("ready");
    for _ in 0..4 {
        proc.press_again(SIGINT).expect("Some(Interrupt), cancelled: false");
    }
    proc.end().code(0).did_not_say("stopping");
}

#[test]
fn a_handler_can_climb_the_ladder() {
    let mut proc = Proc::scene("own_ladder");
    let places = waiting(&mut proc);
    proc.signal(SIGUSR1).expect("stopped");
    proc.press_again(SIGUSR1);
    named(&proc.expect_err("`journal`"), &places);
    proc.press_again(SIGUSR1).exit().code(138);
}

#[test]
fn a_handler_that_panics_is_called_again() {
    let mut proc = Proc::scene("bad_handler");
    waiting(&mut proc);
    proc.signal(SIGINT).expect_err("the handler panics");
    proc.press_again(SIGINT).expect("stopped");
    proc.press_again(SIGINT).expect_err("still waiting");
    proc.press_again(SIGINT).exit().code(130);
}

#[test]
fn a_hook_that_panics_does_not_swallow_the_press() {
    let mut proc = Proc::scene("bad_hook");
    waiting(&mut proc);
    proc.signal(SIGINT).expect("stopped").expect_err("the hook panics");
    proc.press_again(SIGINT).expect_err("still waiting");
    proc.press_again(SIGINT).exit().code(130);
}

#[test]
fn a_reporter_that_panics_stops_neither_the_stop_nor_the_force() {
    let mut proc = Proc::scene("bad_reporter");
    waiting(&mut proc);
    proc.signal(SIGINT).expect("stopped");
    proc.press_again(SIGINT);
    proc.press_again(SIGINT).exit().code(130);
}

#[test]
fn a_stderr_that_takes_no_more_stops_neither_the_stop_nor_the_force() {
    let (mut proc, stderr) = Proc::unheard_scene("full_stderr");
    waiting(&mut proc);
    proc.signal(SIGINT).expect("stopped");
    proc.press_again(SIGINT);
    proc.press_again(SIGINT).exit().code(130);
    drop(stderr);
}

#[test]
fn a_stdout_that_takes_no_more_does_not_stop_the_force() {
    let mut proc = Proc::scene("full_stdout");
    proc.expect("ready").signal(SIGINT).expect_err("stopping");
    proc.press_again(SIGINT).expect_err("still waiting");
    proc.press_again(SIGINT).exit().code(130).said("`main`");
}

#[test]
fn a_silent_runner_says_nothing_and_climbs_all_the_same() {
    let mut proc = Proc::scene("silent");
    waiting(&mut proc);
    proc.signal(SIGINT).expect("stopped");
    proc.press_again(SIGINT);
    let end = proc.press_again(SIGINT).exit();
    assert_eq!(end.code(130).err, "");
}

#[test]
fn by_force_a_program_still_has_a_last_word() {
    let mut proc = Proc::scene("last_word");
    waiting(&mut proc);
    proc.signal(SIGQUIT).expect("the last word").end().code(131).said("ending the process now");
}
