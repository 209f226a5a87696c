//! Console events on Windows.

use std::io;
use std::process;

use tokio::signal::windows::{self, CtrlBreak, CtrlC, CtrlClose, CtrlLogoff, CtrlShutdown};

use super::{Before, Signal};

pub(super) const INTERRUPT: &str = "CTRL_C";

/// `STATUS_CONTROL_C_EXIT`, the exit code of a process that handles no console event.
const CONTROL_C_EXIT: i32 = 0xC000_013A_u32 as i32;

/// Returns the signal whose exit code other programs use for the event.
pub(super) fn number(signal: Signal) -> Option<i32> {
    match signal {
        Signal::Interrupt | Signal::Break => Some(2),
        Signal::Close | Signal::Logoff | Signal::Shutdown => Some(15),
        Signal::Terminate | Signal::Quit | Signal::Hangup | Signal::User1 | Signal::User2 => None,
    }
}

/// The arrivals of one event; tokio has a type for each.
pub(super) enum Stream {
    C(CtrlC),
    Break(CtrlBreak),
    Close(CtrlClose),
    Logoff(CtrlLogoff),
    Shutdown(CtrlShutdown),
}

impl Stream {
    pub(super) async fn recv(&mut self) -> Option<()> {
        match self {
            Self::C(stream) => stream.recv().await,
            Self::Break(stream) => stream.recv().await,
            Self::Close(stream) => stream.recv().await,
            Self::Logoff(stream) => stream.recv().await,
            Self::Shutdown(stream) => stream.recv().await,
        }
    }
}

/// Installs the handler, if there is such an event.
///
/// After close, logoff or shutdown tokio's handler never returns, so the process lives until it
/// exits or Windows ends it.
pub(super) fn listen(signal: Signal) -> io::Result<Option<Stream>> {
    let stream = match signal {
        Signal::Interrupt => Stream::C(windows::ctrl_c()?),
        Signal::Break => Stream::Break(windows::ctrl_break()?),
        Signal::Close => Stream::Close(windows::ctrl_close()?),
        Signal::Logoff => Stream::Logoff(windows::ctrl_logoff()?),
        Signal::Shutdown => Stream::Shutdown(windows::ctrl_shutdown()?),
        Signal::Terminate | Signal::Quit | Signal::Hangup | Signal::User1 | Signal::User2 => {
            return Ok(None);
        }
    };
    Ok(Some(stream))
}

/// Windows does not tell; and an ignored Ctrl-C does not reach any handler there.
pub(super) fn before(_: Signal) -> Before {
    Before::Default
}

/// Exits as the system's last handler does.
#[expect(clippy::disallowed_methods, reason = "the default action of a console event is to end the process")]
pub(super) fn die_by(_: Signal) -> ! {
    process::exit(CONTROL_C_EXIT)
}
