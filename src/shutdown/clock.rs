//! The clock of a shutdown: when it began, and when each of its phases is over.

use std::sync::{Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::reason::Reason;
use crate::clock::{self, Ticks};
use crate::core::phase::Phase;
use crate::host::lock;
use crate::signal::Signal;

/// Windows ends the process 5 s after its window was closed.
const CONSOLE_CLOSED: Duration = Duration::from_millis(4500);

/// How much later than the budget the process is ended, if it does not end by itself.
const GRACE: Duration = Duration::from_millis(500);

/// Begins with the first request. Main's own end begins no clock: nobody has asked for an end within some time.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    begun: OnceLock<Begun>,
    ended: Mutex<bool>,
    has_ended: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct Begun {
    /// On Tokio's clock, for the phases.
    at: Ticks,
    /// On the wall, for the last rung.
    wall: Instant,
    budget: Budget,
}

impl Budget {
    /// What a console window that is closed leaves of it.
    pub(super) fn for_reason(self, reason: &Reason) -> Self {
        match reason.signal() {
            Some(Signal::Close | Signal::Logoff | Signal::Shutdown) => self.capped(CONSOLE_CLOSED),
            _ => self,
        }
    }
}

impl Clock {
    pub(super) fn begin(&self, budget: Budget) {
        self.begun.get_or_init(|| Begun { at: clock::now(), wall: Instant::now(), budget });
    }

    /// When a phase that is entered now is over, on Tokio's clock.
    pub(super) fn until(&self, phase: Phase) -> Option<Ticks> {
        let begun = self.begun.get()?;
        clock::after(begun.at, begun.budget.until(phase, clock::age(begun.at))?)
    }

    /// What is left of the whole; none without a limit, or before the request.
    pub(super) fn left(&self) -> Option<Duration> {
        let begun = self.begun.get()?;
        Some(begun.budget.total?.saturating_sub(clock::age(begun.at)))
    }

    pub(super) fn delay(&self) -> Duration {
        self.begun.get().map_or(Duration::ZERO, |begun| begun.budget.delay)
    }

    /// Waits on this thread for so long. True if the run has ended by then.
    pub(super) fn wait(&self, length: Duration) -> bool {
        let ended = lock(&self.ended);
        match self.has_ended.wait_timeout_while(ended, length, |ended| !*ended) {
            Ok((ended, _)) => *ended,
            Err(poisoned) => *poisoned.into_inner().0,
        }
    }

    /// Nobody needs the last rung any more.
    pub(super) fn end(&self) {
        *lock(&self.ended) = true;
        self.has_ended.notify_all();
    }

    /// Waits on this thread until the run has ended, or all of its time is up and some more. True if that is so.
    pub(super) fn is_overdue(&self) -> bool {
        let Some(begun) = self.begun.get() else { return false };
        let Some(total) = begun.budget.total else { return false };
        let rest = total.saturating_add(GRACE).saturating_sub(begun.wall.elapsed());
        !self.wait(rest)
    }
}
