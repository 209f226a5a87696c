//! The end of the process after a run, as a value: for what a program does between the two.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use crate::outcome::Outcome;
use crate::shutdown::{MainEnd, Status};
use crate::signal::{self, Subscription};
#[cfg(feature = "testing")]
use crate::testing::Connection;

/// How the process is to end after a run; made by [`Runner::run_to_exit`](crate::Runner::run_to_exit).
///
/// As long as it lives, signals are taken and have no effect: one that was sent twice does not end the process before it has said
/// what it has to say.
///
/// # Drop
///
/// Signals have their default effect again, as after [`Runner::run`](crate::Runner::run), and the status of the process is the
/// program's own affair.
#[must_use = "it says how the process is to end: return what `leave` gives from `main`"]
pub struct Exit {
    status: Status,
    listening: Option<Listening>,
}

impl Exit {
    pub(crate) fn new(status: Status, listening: Option<Listening>) -> Self {
        Self { status, listening }
    }

    /// Gives the status of the process, to return from the program's own `main`; see [`ExitPolicy`](crate::ExitPolicy). Where that
    /// says that the process dies by a signal, stdout is flushed, and this does not return.
    ///
    /// Until the process has ended, signals are taken and have no effect.
    pub fn leave(self) -> ExitCode {
        // A signal that arrives now must not change the status.
        std::mem::forget(self.listening);
        match self.status {
            Status::Code(code) => ExitCode::from(code),
            Status::Die(signal) => {
                // What a return from main would do.
                std::io::stdout().flush().unwrap_or_default();
                signal::die_by(signal)
            }
        }
    }
}

impl fmt::Debug for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exit").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Prints the error of main.
pub(crate) fn complain<T, E: fmt::Debug>(outcome: &Outcome<T, E>) {
    let text = match outcome {
        Outcome::Err(error) => format!("{error:?}"),
        Outcome::Cancelled(cause) if MainEnd::of(outcome) == MainEnd::Cancelled => {
            format!("main was cut off: {cause}")
        }
        Outcome::Ok(_) | Outcome::Cancelled(_) | Outcome::Panicked(_) | Outcome::Lost => return,
    };
    say_error(&text);
}

/// Prints an error as a `main` that returns one does.
pub(crate) fn say_error(text: &str) {
    // A closed stderr is no reason to fail: there is nobody to tell.
    std::io::stderr().lock().write_all(format!("Error: {text}\n").as_bytes()).unwrap_or_default();
}

/// A run hears signals as long as this lives.
#[expect(dead_code, reason = "kept for their destructors")]
pub(crate) enum Listening {
    Process(Subscription),
    #[cfg(feature = "testing")]
    Injected(Connection),
}
