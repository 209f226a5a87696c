//! Why a run stops.

use std::fmt;
use std::sync::Arc;

use crate::core::cause::{Cause, CauseKind};
use crate::signal::Signal;

/// Why a run stops: who asked for it first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// A signal or console event arrived.
    Signal(Signal),
    /// Code called [`shutdown`](crate::shutdown()), with this reason.
    Requested(Arc<str>),
    /// Nobody asked: main has ended.
    MainEnded,
}

impl Reason {
    /// Returns the signal, if it was one.
    pub fn signal(&self) -> Option<Signal> {
        match self {
            Self::Signal(signal) => Some(*signal),
            Self::Requested(_) | Self::MainEnded => None,
        }
    }

    /// The cause that everything sees that is cancelled for this reason.
    pub(crate) fn cause(&self) -> Cause {
        match self {
            Self::Signal(_) | Self::Requested(_) => Cause::with_reason(CauseKind::Stopped, self.to_string().into()),
            Self::MainEnded => Cause::new(CauseKind::MainEnded),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => signal.fmt(f),
            Self::Requested(reason) => f.write_str(reason),
            Self::MainEnded => f.write_str("main has ended"),
        }
    }
}
