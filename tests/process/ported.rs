//! Ports of what trio, asyncio, aiorun and anyio test with real signals. Each has the name of its origin, and a line in
//! `tests/CONFORMANCE.md`.

use nix::sys::signal::Signal::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::child::Proc;

/// trio's `test_ki.py`, `test_signals.py`, `test_subprocess.py`, and what `test_run.py` and `test_cancelled.py` do with signals.
mod trio {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{ExitStatus, Stdio};
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use testudo::{CancelScope, FinalizeExt, move_on_after};
    use tokio::io::AsyncReadExt;
    use tokio::process::{Child, Command};
    use tokio::sync::oneshot;

    use super::*;

    /// What a Ctrl-C meets: plain code, a shield, a main that has not begun, one in its first poll. Differs (S35): it is a cancel of
    /// the run, not an exception on the spot, so shields hold it off, and the third press is the one that does not wait.
    #[test]
    fn test_ki_protection_works() {
        let mut plain = Proc::scene("stopped");
        plain.expect("ready").signal(SIGINT).expect("Stopped: Some(\"SIGINT\")").end();
        let mut shielded = Proc::scene("burst");
        shielded.expect("ready").signal(SIGINT).expect_err("stopping");
        shielded.input("go\n").expect("done").end().code(0);
        let mut early = Proc::scene("before_main");
        early.expect("main is polled").expect("Stopped").end().code(0);
        let mut first = Proc::scene("first_poll");
        first.expect("main is polled").signal(SIGINT).input("go\n");
        first.expect("cancelled in its first poll").expect("the shield held").expect("over").end().code(0);
        let mut stuck = Proc::scene("wait_for");
        stuck.expect_prefix("payment at ");
        stuck.expect_prefix("journal at ");
        stuck.expect("ready").signal(SIGINT).expect("stopped");
        stuck.press_again(SIGINT).expect_err("still waiting for");
        stuck.press_again(SIGINT).exit().code(130);
    }

    /// A listener that the program has made of its own is left alone. Differs (S39): both hear the signal.
    #[test]
    fn test_ki_is_good_neighbor() {
        let mut proc = Proc::scene("beside");
        proc.expect("ready").signal(SIGINT).expect("heard it").expect("cancelled as well").end().code(0);
        let mut proc = Proc::scene("caught");
        proc.expect("ready").signal(SIGINT).expect("caught").end().code(0);
    }

    /// The cause that is seen after a signal names it.
    #[test]
    fn test_reason_delayed_ki() {
        let mut proc = Proc::scene("stopped");
        proc.expect("ready").signal(SIGINT).expect("Stopped: Some(\"SIGINT\")").end();
    }

    /// Equal signals are one call; after the run the default action is back.
    #[test]
    fn test_open_signal_receiver() {
        let mut proc = Proc::scene("burst");
        proc.expect("ready");
        for _ in 0..20 {
            proc.signal(SIGINT);
        }
        proc.expect_err("stopping");
        let end = proc.input("go\n").expect("done").end();
        assert_eq!(end.code(0).err.matches("stopping").count(), 1);
        let mut proc = Proc::scene("after");
        proc.expect("ready").signal(SIGTERM).exit().died_by(SIGTERM);
    }

    /// The same signal asked for twice: the later handler has it; after the run the default action is back, once.
    #[test]
    fn test_open_signal_receiver_restore_handler_after_duplicate_signal() {
        let mut proc = Proc::scene("same_signal_twice");
        proc.expect("ready").signal(SIGUSR1).expect("second handler").expect("over");
        proc.signal(SIGUSR1).exit().died_by(SIGUSR1);
    }

    /// Two runs listen to one signal. Differs (S35): both hear it, where trio has one reader at a time.
    #[test]
    fn test_open_signal_receiver_conflict() {
        let mut proc = Proc::scene("two_runs");
        proc.expect("ready").expect("ready").signal(SIGINT);
        proc.expect("over").expect("over").end();
    }

    /// Two kinds at once: neither hides the other.
    #[test]
    fn test_open_signal_receiver_no_starvation() {
        let mut proc = Proc::scene("two_kinds");
        proc.expect("ready");
        for _ in 0..3 {
            proc.signal(SIGUSR1).signal(SIGUSR2).expect_all(["User1", "User2"]);
        }
        proc.input("go\n").end().code(0);
    }

    /// A signal after the run has its default action again. Differs (S39): one that came before is the run's, handled or not, and is
    /// not sent again; so a press at the very end changes nothing.
    #[test]
    fn test_catch_signals_race_condition_on_exit() {
        let mut proc = Proc::scene("after");
        proc.expect("ready").signal(SIGINT).exit().died_by(SIGINT);
        let mut proc = Proc::scene("after_exit");
        proc.expect("ready").signal(SIGINT).input("go\n").end().code(0);
    }

    /// A process that says that it is ready, and what it does on SIGTERM.
    async fn trapping(trap: &str) -> Child {
        let script = format!("trap {trap} TERM; echo ready; while :; do sleep 0.01; done");
        let mut child = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().expect("can start");
        let mut ready = [0; 6];
        child.stdout.as_mut().expect("piped").read_exact(&mut ready).await.expect("it says so");
        child
    }

    /// Waits for the process; a cancel is delivered with SIGTERM, and with SIGKILL if that does not help in time.
    async fn cancelled(trap: &str, patience: Duration) -> ExitStatus {
        let mut child = trapping(trap).await;
        let (send, status) = oneshot::channel();
        let deliver = async move {
            let pid = child.id().expect("it lives").try_into().expect("small");
            kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it is ours");
            if move_on_after(patience, child.wait()).await.is_none() {
                child.start_kill().expect("it is ours");
            }
            send.send(child.wait().await).expect("the test waits");
        };
        let scope = CancelScope::new();
        scope.handle().cancel("no more need");
        assert!(scope.run(std::future::pending::<()>().on_cancel(deliver)).await.is_err());
        status.await.expect("delivered").expect("it ends")
    }

    /// A hook of the program delivers the cancel to a process, and is waited for.
    #[testudo::test]
    async fn test_custom_deliver_cancel() {
        assert_eq!(cancelled("'exit 7'", Duration::from_secs(20)).await.code(), Some(7));
    }

    /// One that does not obey is killed after a while.
    #[testudo::test]
    async fn test_warn_on_cancel_SIGKILL_escalation() {
        assert_eq!(cancelled("''", Duration::from_millis(100)).await.signal(), Some(9));
    }
}

/// asyncio's `test_runners.py`.
mod asyncio {
    use super::*;

    /// A signal while main is busy and does not await. Differs (S35): a cancel that is seen at its next suspension, no exception.
    #[test]
    fn test_interrupt_call_soon() {
        let mut proc = Proc::scene("first_poll");
        proc.expect("main is polled").signal(SIGINT).input("go\n");
        proc.expect("cancelled in its first poll").expect("the shield held").expect("over").end().code(0);
    }

    /// A signal while main waits: what it waits for is dropped, and the run says that it was stopped.
    #[test]
    fn test_interrupt_wait() {
        let mut proc = Proc::scene("stopped");
        proc.expect("ready").signal(SIGINT).expect("Stopped: Some(\"SIGINT\")").end();
    }

    /// A signal when main was cancelled already, and unwinds. Differs (S3): the run's stop is the outer cancel, so it takes over; in
    /// asyncio the first one stays.
    #[test]
    fn test_interrupt_cancelled_task() {
        let mut proc = Proc::scene("cancelled_then_stopped");
        proc.expect("cleaning up").signal(SIGINT).expect("stopped");
        proc.input("go\n").expect("Stopped").end().code(0);
    }

    /// Where no handler can be had, a run does without.
    #[test]
    fn test_signal_install_not_supported_ok() {
        let mut proc = Proc::scene("no_signals");
        proc.expect("ready").signal(SIGINT).exit().died_by(SIGINT);
    }
}

/// aiorun's tests.
mod aiorun {
    use super::*;

    /// Either signal ends the process in order.
    #[test]
    fn test_sigterm_mp() {
        for (signal, said) in [(SIGTERM, "Stopped: Some(\"SIGTERM\")"), (SIGINT, "Stopped: Some(\"SIGINT\")")] {
            let mut proc = Proc::scene("stopped");
            proc.expect("ready").signal(signal).expect(said).end().code(0);
        }
    }

    /// Nothing to do but to wait for the signal. Differs (S31): `run` takes a main; one that never ends is `pending()`.
    #[test]
    fn test_no_coroutine() {
        let mut proc = Proc::scene("silent");
        proc.expect_prefix("payment at ");
        proc.expect_prefix("journal at ");
        proc.expect("ready").signal(SIGTERM).expect("stopped");
    }

    /// Main's clean-up may still await, and more presses do not cut it off. Differs (S35): they are not ignored for ever, the third
    /// one would force.
    #[test]
    fn test_sig_pause_mp() {
        for signal in [SIGINT, SIGTERM] {
            let mut proc = Proc::scene("finalizer");
            proc.expect("ready").signal(signal).signal(signal).signal(signal);
            proc.expect("cleaned up").end().code(0);
        }
    }

    /// Shielded work finishes after the signal, whoever has begun it: a task of ours, one of Tokio's, main in place. Differs (S12): a
    /// future that nobody polls does nothing in Rust.
    #[test]
    fn test_sigterm_enduring_create_task() {
        let ways = ["task", "plain task", "awaited"];
        for signal in [SIGTERM, SIGINT] {
            let mut proc = Proc::scene("enduring");
            proc.expect_all(ways.map(|way| format!("{way} begins"))).signal(signal).expect_err("stopping");
            proc.input("go\n").expect_all(ways.map(|way| format!("{way} is done"))).end().code(0);
        }
    }

    /// The callback of a stop runs, and main is cancelled. Differs (S35): it is a plain function; what awaits is a finalizer.
    #[test]
    fn test_shutdown_callback() {
        let mut proc = Proc::scene("hook");
        proc.expect("ready")
            .signal(SIGTERM)
            .expect("hook: Some(\"SIGTERM\")")
            .expect("main is cancelled")
            .end()
            .code(0);
    }

    /// A callback that fails. Differs (S35): it is said, and the stop goes on.
    #[test]
    fn test_shutdown_callback_error() {
        let mut proc = Proc::scene("bad_hook");
        proc.expect_prefix("payment at ");
        proc.expect_prefix("journal at ");
        proc.expect("ready").signal(SIGTERM).expect("stopped").expect_err("the hook panics");
    }

    /// Callback and main fail: main's error is the end, the callback's is said.
    #[test]
    fn test_shutdown_callback_error_and_main_error() {
        let mut proc = Proc::scene("bad_hook_and_main");
        proc.expect("ready").signal(SIGTERM).end().code(1).said("the hook panics").said("main fails");
    }

    /// A task that does not end is named, and the process ends all the same. Differs (S35): at the third press.
    #[test]
    fn test_stop_must_be_obeyed() {
        let mut proc = Proc::scene("wait_for");
        let payment = proc.expect_prefix("payment at ");
        proc.expect_prefix("journal at ");
        proc.expect("ready").signal(SIGTERM).expect("stopped");
        proc.press_again(SIGTERM).expect_err(&payment);
        proc.press_again(SIGTERM).exit().code(143).said("ending the process now");
    }
}

/// anyio's `test_signals.py`.
mod anyio {
    use super::*;

    /// Signals of two kinds come to the program. Differs (S35): to a handler each, not to an iterator.
    #[test]
    fn test_receive_signals() {
        let mut proc = Proc::scene("two_kinds");
        proc.expect("ready").signal(SIGUSR1).expect("User1").signal(SIGUSR2).expect("User2");
        proc.input("go\n").end().code(0);
    }

    /// Handlers are there and nobody waits for them, when main is cancelled.
    #[test]
    fn test_task_group_cancellation_open() {
        let mut proc = Proc::scene("two_kinds");
        proc.expect("ready").signal(SIGTERM).end().code(0).said("stopping (SIGTERM)");
    }

    /// The same while main waits for what they hand over.
    #[test]
    fn test_task_group_cancellation_consume() {
        let mut proc = Proc::scene("own_handler");
        proc.expect("ready").signal(SIGTERM).end().code(0).said("stopping (SIGTERM)");
    }
}
