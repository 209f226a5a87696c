//! What holds for every step from every state of the machine of phases.

use std::collections::{HashMap, HashSet};

use super::*;

const NOBODY: Takers = Takers { delay: false, hooks: false, graceful: false };

fn all_takers() -> Vec<Takers> {
    let bits = |n: u8| Takers { delay: n & 1 != 0, hooks: n & 2 != 0, graceful: n & 4 != 0 };
    (0..8).map(bits).collect()
}

fn all_events() -> Vec<Event> {
    let plain = [
        Event::Quit,
        Event::DelayOver,
        Event::HooksOver,
        Event::PartsGone,
        Event::PartsCame,
        Event::MainEnded,
        Event::Empty,
        Event::Flushed,
    ];
    let asked = all_takers().into_iter().flat_map(|takers| [Event::Request(takers), Event::Press(takers)]);
    plain.into_iter().chain(asked).chain(Phase::ALL.map(Event::Elapsed)).collect()
}

/// Every state that any sequence of events leads to. It is finite and small, so what holds for each step from each of them
/// holds for sequences of any length.
fn reachable() -> HashSet<Machine> {
    let (mut seen, mut next) = (HashSet::new(), vec![Machine::default()]);
    while let Some(state) = next.pop() {
        for event in all_events() {
            let mut after = state.clone();
            after.step(event);
            if seen.insert(after.clone()) {
                next.push(after);
            }
        }
    }
    seen.insert(Machine::default());
    seen
}

fn each_step(mut check: impl FnMut(&Machine, Event, &[Action], &Machine)) {
    for state in reachable() {
        for event in all_events() {
            let mut after = state.clone();
            let actions = after.step(event);
            check(&state, event, &actions, &after);
        }
    }
}

/// Plays events and writes what they lead to, one line an event.
fn check(events: &[Event], expect: &[&str]) {
    let mut machine = Machine::default();
    let lines: Vec<String> = events.iter().map(|event| said(&machine.step(*event))).collect();
    assert_eq!(lines, expect, "{events:?}");
}

fn said(actions: &[Action]) -> String {
    let words = actions.iter().map(|action| match action {
        Action::Begin => "begin".to_owned(),
        Action::Enter(phase) => phase.name().to_owned(),
        Action::CutShields => "cut shields".to_owned(),
        Action::Say => "say".to_owned(),
        Action::SayUnfinished => "say unfinished".to_owned(),
        Action::Force(Force::Press) => "force".to_owned(),
        Action::Force(Force::Budget) => "force by budget".to_owned(),
    });
    words.collect::<Vec<_>>().join(", ")
}

#[test]
fn l40_phases_only_rise_and_each_is_entered_once() {
    each_step(|before, event, actions, after| {
        let entered = actions.iter().filter_map(|action| match action {
            Action::Enter(phase) => Some(*phase),
            Action::Begin | Action::CutShields | Action::Say | Action::SayUnfinished | Action::Force(_) => None,
        });
        let mut phase = before.phase;
        for next in entered {
            let skips = Phase::ALL.iter().filter(|between| phase < **between && **between < next).count();
            let escalates = matches!(event, Event::Press(_) | Event::MainEnded | Event::Empty);
            assert!(next > phase, "{before:?} {event:?} {actions:?}");
            assert!(skips == 0 || (escalates && next == Phase::Cancelling), "{before:?} {event:?} {actions:?}");
            phase = next;
        }
        assert_eq!(phase, after.phase(), "what was not announced was not entered");
    });
}

#[test]
fn a_request_begins_exactly_once() {
    each_step(|before, event, actions, after| {
        let begins = actions.iter().filter(|action| **action == Action::Begin).count();
        let asked = matches!(event, Event::Request(_) | Event::Press(_));
        let first = asked && !before.is_requested() && before.phase != Phase::Exit;
        assert_eq!(begins, usize::from(first), "{before:?} {event:?}");
        assert!(after.rung >= before.rung, "{before:?} {event:?}");
    });
}

#[test]
fn l48_the_second_press_cancels_and_the_third_forces_from_any_state() {
    for state in reachable().into_iter().filter(|state| state.phase != Phase::Exit) {
        let mut machine = state.clone();
        let mut said = Vec::new();
        for takers in [Takers { delay: true, hooks: true, graceful: true }; 3] {
            if !said.contains(&Action::Force(Force::Press)) {
                said = machine.step(Event::Press(takers));
            }
            if machine.rung >= Rung::Cancel && said.contains(&Action::Force(Force::Press)) {
                break;
            }
            assert!(machine.rung < Rung::Cancel || machine.phase >= Phase::Cancelling, "{state:?}");
        }
        assert!(said.contains(&Action::Force(Force::Press)), "{state:?}");
    }
}

#[test]
fn nothing_is_asked_for_after_the_exit() {
    each_step(|before, event, actions, after| {
        if before.phase == Phase::Exit {
            assert_eq!((actions, after), (&[][..], before), "{event:?}");
        }
    });
}

#[test]
fn l45_accepting_ends_with_the_delay_and_the_hooks_or_by_escalation() {
    each_step(|before, event, actions, _| {
        if !actions.contains(&Action::Enter(Phase::NotAccepting)) || before.phase != Phase::Draining {
            return;
        }
        let both =
            (event == Event::DelayOver && !before.open.hooks) || (event == Event::HooksOver && !before.open.delay);
        let skipped = matches!(event, Event::Elapsed(Phase::Draining) | Event::Empty);
        assert!(both || skipped, "{before:?} {event:?}");
    });
}

#[test]
fn l46_time_alone_leads_from_any_request_to_the_end() {
    // After force there is no time.
    for state in reachable().into_iter().filter(|state| state.is_requested() && state.rung != Rung::Force) {
        let mut machine = state.clone();
        for _ in Phase::ALL {
            machine.step(Event::Elapsed(machine.phase));
        }
        assert!(machine.phase == Phase::Exit || machine.forced || machine.empty, "{state:?} stops at {machine:?}");
    }
}

#[test]
fn what_is_empty_and_flushed_is_over() {
    for mut machine in reachable() {
        machine.step(Event::Empty);
        machine.step(Event::Flushed);
        assert_eq!(machine.phase, Phase::Exit);
    }
}

#[test]
fn shields_are_cut_only_when_all_but_the_reserve_is_used_up() {
    each_step(|before, event, actions, _| {
        if actions.contains(&Action::CutShields) {
            assert_eq!((before.phase, event), (Phase::Shielded, Event::Elapsed(Phase::Shielded)));
        }
        if actions.contains(&Action::Force(Force::Budget)) {
            assert_eq!((before.phase, event), (Phase::Finalizing, Event::Elapsed(Phase::Finalizing)));
        }
    });
}

#[test]
fn who_has_not_finished_is_said_exactly_when_a_phase_for_finishing_is_cut_short() {
    each_step(|before, event, actions, _| {
        let entered = actions.iter().position(|action| *action == Action::Enter(Phase::Cancelling));
        let is_cut = match event {
            Event::Press(_) => before.is_requested(),
            Event::Elapsed(phase) => phase == Phase::InFlight && before.phase == phase,
            Event::Request(_)
            | Event::Quit
            | Event::DelayOver
            | Event::HooksOver
            | Event::PartsGone
            | Event::PartsCame
            | Event::MainEnded
            | Event::Empty
            | Event::Flushed => false,
        };
        let said = actions.iter().position(|action| *action == Action::SayUnfinished);
        // Before the cancel: after it, who was cut off may be gone.
        let expected = entered.filter(|_| is_cut).map(|at| at.saturating_sub(1));
        assert_eq!(said, expected, "{before:?} {event:?} {actions:?}");
    });
}

#[test]
fn each_press_says_something() {
    each_step(|before, event, actions, _| {
        let says = |action: &Action| match action {
            Action::Begin | Action::Say | Action::SayUnfinished | Action::Force(_) => true,
            Action::Enter(_) | Action::CutShields => false,
        };
        if matches!(event, Event::Press(_)) && before.phase != Phase::Exit {
            assert_eq!(actions.iter().filter(|action| says(action)).count(), 1, "{before:?} {event:?} {actions:?}");
        }
    });
}

#[cfg(feature = "progress")]
#[test]
fn what_the_next_press_does_is_known_before_it() {
    each_step(|before, event, actions, _| {
        if !matches!(event, Event::Press(_)) || before.phase == Phase::Exit {
            return;
        }
        let does = actions.iter().find_map(|action| match action {
            Action::Begin => Some("stops"),
            Action::SayUnfinished => Some("cancels"),
            Action::Say => Some("says more"),
            Action::Force(_) => Some("ends it"),
            Action::Enter(_) | Action::CutShields => None,
        });
        assert_eq!(does, Some(before.next_press()), "{before:?} {event:?}");
    });
}

#[test]
fn a_press_that_forces_ends_the_process_and_nothing_takes_that_back() {
    each_step(|before, event, actions, after| {
        let forced = actions.contains(&Action::Force(Force::Press));
        assert_eq!(after.ends(), before.ends() || forced, "{before:?} {event:?}");
    });
}

/// The same by brute force, without the help of states: what a user sees of every sequence up to a length.
#[test]
fn l41_every_sequence_of_events_keeps_the_order() {
    fn play(machine: &Machine, left: usize, events: &[Event], seen: &mut HashMap<(Machine, usize), ()>) {
        if left == 0 || seen.insert((machine.clone(), left), ()).is_some() {
            return;
        }
        for event in events {
            let mut after = machine.clone();
            let actions = after.step(*event);
            let mut last = machine.phase;
            for action in actions {
                if let Action::Enter(phase) = action {
                    assert!(phase > last, "{machine:?} {event:?}");
                    last = phase;
                }
            }
            play(&after, left - 1, events, seen);
        }
    }
    play(&Machine::default(), 12, &all_events(), &mut HashMap::new());
}

#[test]
fn phases_that_nobody_takes_part_in_take_no_time() {
    let through = "initiated, begin, draining, not accepting, in flight, cancelling, shielded";
    check(&[Event::Press(NOBODY), Event::Press(NOBODY), Event::Press(NOBODY)], &[through, "say", "force"]);
    check(
        &[Event::Request(NOBODY), Event::MainEnded, Event::Empty, Event::Flushed],
        &[through, "", "finalizing", "exit"],
    );
}

#[test]
fn each_phase_waits_for_those_who_take_part_in_it() {
    let all = Takers { delay: true, hooks: true, graceful: true };
    check(
        &[Event::Press(all), Event::HooksOver, Event::DelayOver, Event::PartsGone, Event::Empty, Event::Flushed],
        &["initiated, begin, draining", "", "not accepting, in flight", "cancelling, shielded", "finalizing", "exit"],
    );
    check(
        &[Event::Press(all), Event::Press(all), Event::Press(all)],
        &["initiated, begin, draining", "say unfinished, cancelling, shielded", "force"],
    );
}

#[test]
fn the_clock_goes_on_where_nobody_does() {
    let all = Takers { delay: true, hooks: true, graceful: true };
    check(
        &[
            Event::Press(all),
            Event::Elapsed(Phase::Draining),
            Event::Elapsed(Phase::Draining),
            Event::Elapsed(Phase::InFlight),
            Event::Elapsed(Phase::Shielded),
            Event::Elapsed(Phase::Finalizing),
            Event::Elapsed(Phase::Finalizing),
            Event::Press(all),
        ],
        &[
            "initiated, begin, draining",
            "not accepting, in flight",
            "",
            "say unfinished, cancelling, shielded",
            "cut shields, finalizing",
            "force by budget",
            "",
            "force",
        ],
    );
}

#[test]
fn the_end_of_main_cancels_a_run_that_nobody_asked_to_stop() {
    check(
        &[Event::MainEnded, Event::Press(NOBODY), Event::Press(NOBODY), Event::Press(NOBODY)],
        &["cancelling, shielded", "begin", "say", "force"],
    );
    let graceful = Takers { graceful: true, ..NOBODY };
    check(
        &[Event::Request(graceful), Event::MainEnded, Event::PartsGone],
        &["initiated, begin, draining, not accepting, in flight", "", "cancelling, shielded"],
    );
}
