//! Signals on Unix.

use std::io;
use std::process;

use tokio::signal::unix::{SignalKind, signal as open};

use super::{Before, Signal};

pub(super) use tokio::signal::unix::Signal as Stream;

pub(super) const INTERRUPT: &str = "SIGINT";

pub(super) fn number(signal: Signal) -> Option<i32> {
    kind(signal).map(|kind| kind.as_raw_value())
}

/// Installs the handler, if there is such a signal; needs an entered runtime.
pub(super) fn listen(signal: Signal) -> io::Result<Option<Stream>> {
    kind(signal).map(open).transpose()
}

/// Reads the disposition from Linux's `/proc`; where there is none, it counts as the default.
pub(super) fn before(signal: Signal) -> Before {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(bit) = number(signal).map(|number| 1 << (number - 1)) else {
        return Before::Default;
    };
    match (mask(&status, "SigIgn:") & bit, mask(&status, "SigCgt:") & bit) {
        (0, 0) => Before::Default,
        (0, _) => Before::Caught,
        _ => Before::Ignored,
    }
}

/// Ends the process by the signal, so that the parent sees it as the cause of death.
///
/// The kernel shields process 1 from default actions, which would leave the emulation to abort; it
/// exits with the code that a shell would make of that death.
#[expect(clippy::disallowed_methods, reason = "the default action of a signal is to end the process")]
pub(super) fn die_by(signal: Signal) -> ! {
    let number = number(signal).unwrap_or(0);
    if process::id() != 1 {
        drop(signal_hook::low_level::emulate_default_handler(number));
    }
    process::exit(128 + number)
}

fn kind(signal: Signal) -> Option<SignalKind> {
    match signal {
        Signal::Interrupt => Some(SignalKind::interrupt()),
        Signal::Terminate => Some(SignalKind::terminate()),
        Signal::Quit => Some(SignalKind::quit()),
        Signal::Hangup => Some(SignalKind::hangup()),
        Signal::User1 => Some(SignalKind::user_defined1()),
        Signal::User2 => Some(SignalKind::user_defined2()),
        Signal::Break | Signal::Close | Signal::Logoff | Signal::Shutdown => None,
    }
}

/// Returns the hexadecimal mask after `key`, whose bit `n - 1` stands for signal `n`.
fn mask(status: &str, key: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key));
    value.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
}
