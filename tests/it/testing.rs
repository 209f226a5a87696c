//! The tools for tests: the sweep, the sequencer, signals without signals.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use testudo::testing::{Effect, Sequencer, Signals, Sweep, Swept, assert_cancel_safe};
use testudo::{CauseKind, FinalizeExt, Outcome, Runner, Signal, nursery, shield, shield_scoped};
use tokio::time::sleep;

use crate::support::{Count, Log, S, plain_task, turns};

/// Two accounts; the second is in a bank that answers late.
type Bank = Arc<Mutex<[u32; 2]>>;

fn open() -> Bank {
    Arc::new(Mutex::new([100, 0]))
}

async fn transfer(bank: &Bank) {
    bank.lock().unwrap()[0] -= 30;
    sleep(S).await;
    bank.lock().unwrap()[1] += 30;
    sleep(S).await;
}

async fn shielded_transfer(bank: &Bank) {
    let bank = Arc::clone(bank);
    shield(async move { transfer(&bank).await }).await;
}

async fn undone_transfer(bank: &Bank) {
    let (late, gone) = (Arc::clone(bank), Arc::new(Mutex::new(false)));
    let sent = Arc::clone(&gone);
    let undo = async move {
        sleep(S).await;
        if std::mem::take(&mut *sent.lock().unwrap()) {
            late.lock().unwrap()[0] += 30;
        }
    };
    let send = async {
        bank.lock().unwrap()[0] -= 30;
        *gone.lock().unwrap() = true;
        sleep(S).await;
        bank.lock().unwrap()[1] += 30;
        *gone.lock().unwrap() = false;
    };
    send.on_cancel(undo).await;
}

async fn borrowed_transfer(bank: &Bank) {
    shield_scoped(transfer(bank)).await;
}

fn nothing_is_lost(bank: &Bank) -> Result<(), String> {
    match bank.lock().unwrap().iter().sum() {
        100 => Ok(()),
        sum => Err(format!("the accounts hold {sum}, not 100")),
    }
}

#[test]
fn an_unshielded_transfer_is_found_out_with_its_place() {
    let flaw = Sweep::new().try_check(open, transfer, nothing_is_lost).unwrap_err();
    assert_eq!(flaw.cuts(), "cancel@1");
    let line = include_str!("testing.rs").lines().position(|line| line.contains("sleep(S).await")).unwrap() + 1;
    let expected = format!(
        "not cancel safe: a cancel at suspension 1 of 2 (cancel@1)\n  \
         where:     tests/it/testing.rs:{line}:14, 0ns after the beginning\n  \
         invariant: the accounts hold 70, not 100\n  \
         again:     Sweep::only(\"cancel@1\"), or TESTUDO_SWEEP=cancel@1 in the environment\n  \
         also:      drop@1 cancel@0"
    );
    // A cancel before the first poll lets it run up to its first suspension: that is the same flaw.
    assert_eq!(flaw.to_string(), expected);
}

#[test]
fn shielded_and_undone_transfers_pass_wherever_they_are_cut_off() {
    let swept = assert_cancel_safe(open, shielded_transfer, nothing_is_lost);
    assert_eq!((swept.suspensions(), swept.runs()), (2, 6), "one without a cut, 3 cancels, 2 drops");
    let swept = Sweep::new().pairs().check(open, shielded_transfer, nothing_is_lost);
    assert!(swept.runs() > 6, "{swept:?}");
    Sweep::new().pairs().check(open, undone_transfer, nothing_is_lost);
}

#[test]
fn a_borrowed_shield_passes_every_cancel_and_no_drop() {
    let flaw = Sweep::new().try_check(open, borrowed_transfer, nothing_is_lost).unwrap_err();
    assert_eq!(flaw.cuts(), "drop@1");
    let text = flaw.to_string();
    assert!(text.contains("  inside:    shield (tests/it/testing.rs:"), "{text}");
    assert!(text.contains("  reported:  shield (tests/it/testing.rs:"), "{text}");
}

#[test]
fn one_cut_can_be_made_again() {
    let begun = Count::default();
    let run = |cuts| {
        Sweep::new().only(cuts).try_check(
            || {
                begun.add();
                open()
            },
            transfer,
            nothing_is_lost,
        )
    };
    assert_eq!(run("drop@1").unwrap_err().cuts(), "drop@1");
    assert_eq!(begun.get(), 2, "the run, and the one that looks for the place");
    assert!(run("cancel@2").is_ok());
    assert_eq!(run("cancel@1,drop@1").unwrap_err().cuts(), "cancel@1,drop@1");
}

#[test]
#[should_panic(expected = "`cancel@x` names no cuts: write `cancel@1`, `drop@2` or `cancel@1,drop@2`")]
fn cuts_that_are_none_are_refused() {
    drop(Sweep::new().only("cancel@x"));
}

#[test]
fn cuts_that_are_not_made_show_nothing() {
    let flaw = Sweep::new().only("cancel@99").try_check(open, async |_: &Bank| sleep(S).await, |_| ()).unwrap_err();
    let text = flaw.to_string();
    assert!(text.starts_with("`cancel@99` has cut nothing off: of suspensions there are 1"), "{text}");
}

#[tokio::test]
#[should_panic(expected = "call it in a plain `#[test]`")]
async fn a_sweep_inside_of_a_runtime_says_where_it_belongs() {
    drop(Sweep::new().try_check(open, async |_: &Bank| sleep(S).await, |_| ()));
}

#[test]
fn what_fails_without_a_cut_is_not_blamed_on_one() {
    let flaw = Sweep::new().try_check(open, async |_: &Bank| sleep(S).await, |_| false).unwrap_err();
    assert_eq!(flaw.to_string(), "fails without any cut\n  invariant: it does not hold");
    assert_eq!(flaw.cuts(), "");
}

#[test]
fn what_does_not_end_or_panics_is_a_flaw() {
    let hangs = async |(): &()| shield(std::future::pending::<()>()).name("stuck").await;
    let flaw = Sweep::new().only("cancel@1").try_check(|| (), hangs, |()| ()).unwrap_err().to_string();
    assert!(flaw.contains("it has not ended after 3600s") && flaw.contains("shield `stuck`"), "{flaw}");
    let panics = async |(): &()| {
        let clean_up = async { std::panic::resume_unwind(Box::new("boom")) };
        sleep(S).on_cancel(clean_up).await;
    };
    let flaw = Sweep::new().try_check(|| (), panics, |()| ()).unwrap_err().to_string();
    assert!(flaw.contains("boom"), "{flaw}");
}

#[test]
fn an_invariant_may_panic_and_the_world_may_have_tasks() {
    let setup = || {
        let (asked, answers) = tokio::sync::mpsc::unbounded_channel::<tokio::sync::oneshot::Sender<u8>>();
        let mut answers = answers;
        drop(testudo::spawn(async move {
            while let Some(reply) = answers.recv().await {
                reply.send(7).unwrap_or_default();
            }
        }));
        asked
    };
    let ask = async |server: &tokio::sync::mpsc::UnboundedSender<_>| {
        let (reply, answer) = tokio::sync::oneshot::channel();
        server.send(reply).unwrap();
        answer.await.unwrap()
    };
    let swept: Swept = assert_cancel_safe(setup, ask, |_| ());
    assert_eq!(swept.suspensions(), 1);
    let flaw = Sweep::new().try_check(setup, ask, |_| assert_eq!(1, 2, "as it is")).unwrap_err();
    assert!(flaw.to_string().contains("as it is"), "{flaw}");
}

#[testudo::test(start_paused = true)]
async fn steps_happen_in_the_order_of_their_numbers() {
    let (steps, log) = (Sequencer::new(), Log::default());
    let names = ["zero", "one", "two", "three", "four"];
    let run = nursery(|n| {
        let log = log.clone();
        async move {
            for number in [3, 1, 4, 0, 2] {
                let (steps, log) = (steps.clone(), log.clone());
                n.spawn(async move {
                    let _turn = steps.step(number).await;
                    turns().await;
                    log.push(names[number]);
                });
            }
        }
    });
    run.await.unwrap();
    assert_eq!(log.seen(), names);
}

#[testudo::test(start_paused = true)]
async fn a_step_that_is_given_up_breaks_the_sequence() {
    let steps = Sequencer::new();
    let later = plain_task({
        let steps = steps.clone();
        async move { drop(steps.step(2).await) }
    });
    let given_up = tokio::time::timeout(S, steps.step(1)).await;
    assert!(given_up.is_err(), "step 0 never came");
    assert!(later.await.unwrap_err().is_panic());
}

#[testudo::test]
#[should_panic(expected = "step 0 is asked for twice")]
async fn a_step_happens_once() {
    let steps = Sequencer::new();
    drop(steps.step(0).await);
    drop(steps.step(0).await);
}

#[test]
fn presses_climb_the_ladder_of_a_run_without_a_signal() {
    let signals = Signals::new();
    assert_eq!(signals.press(Signal::Interrupt), Effect::Nobody);
    let (keys, stopped) = (signals.clone(), Log::default());
    let hook = stopped.clone();
    let runner = Runner::new().current_thread().reporter(None).on_stop(move |_| hook.push("stop"));
    let runner = runner.on_signal(Signal::Hangup, |_| {}).on_signal(Signal::Quit, |stop| stop.escalate());
    let finished = runner.signals_from(&signals).run(async move {
        tokio::time::pause();
        assert_eq!(keys.press(Signal::User2), Effect::Nobody);
        assert_eq!(keys.press(Signal::Hangup), Effect::Handled);
        assert_eq!(keys.press(Signal::Terminate), Effect::Cancelled);
        assert_eq!(keys.press(Signal::Terminate), Effect::SamePress);
        shield(sleep(Duration::from_millis(190))).await;
        assert_eq!(keys.press(Signal::Terminate), Effect::SamePress);
        shield(sleep(Duration::from_millis(11))).await;
        assert_eq!(keys.press(Signal::Terminate), Effect::Reported);
        // Windows has no such signal, and no number for it.
        assert_eq!(keys.press(Signal::Quit), Effect::Forced(128 + Signal::Quit.number().unwrap_or(1)));
        testudo::checkpoint().await;
    });
    assert!(matches!(finished.outcome, Outcome::Cancelled(cause) if cause.kind() == CauseKind::Stopped));
    assert_eq!(stopped.seen(), ["stop"]);
    assert_eq!(signals.press(Signal::Interrupt), Effect::Nobody);
}
