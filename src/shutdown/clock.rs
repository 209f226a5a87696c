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

/// How much later than its time a phase is ended that the timers of the runtime do not end.
const LATE: Duration = Duration::from_millis(250);

/// Begins with the first request. Main's own end begins no clock: nobody has asked for an end within some time.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    begun: OnceLock<Begun>,
    watched: Mutex<Watched>,
    has_changed: Condvar,
}

/// What the watchdog waits for.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// The run has: nobody needs the last rung any more.
    ended: bool,
    /// The last rung ends the process, because the run has not ended in time. Never taken back.
    overdue: bool,
    phase: Phase,
    /// When that was entered, from the request on, by the clock on the wall.
    entered: Duration,
}

/// Why the watchdog wakes up.
pub(super) enum Alarm {
    /// The run has ended.
    Ended,
    /// The time of this phase is up, and nobody has said so.
    Late(Phase),
    /// All time is up, and some more.
    Overdue,
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
    #[cfg(feature = "progress")]
    pub(super) fn wait(&self, length: Duration) -> bool {
        let watched = lock(&self.watched);
        match self.has_changed.wait_timeout_while(watched, length, |watched| !watched.ended) {
            Ok((watched, _)) => watched.ended,
            Err(poisoned) => poisoned.into_inner().0.ended,
        }
    }

    /// Nobody needs the last rung any more.
    pub(super) fn end(&self) {
        lock(&self.watched).ended = true;
        self.has_changed.notify_all();
    }

    /// True once the last rung ends the process.
    pub(super) fn is_overdue(&self) -> bool {
        lock(&self.watched).overdue
    }

    /// A phase was entered.
    pub(super) fn enter(&self, phase: Phase) {
        let entered = self.begun.get().map_or(Duration::ZERO, |begun| begun.wall.elapsed());
        let mut watched = lock(&self.watched);
        if phase > watched.phase {
            *watched = Watched { phase, entered, ..*watched };
        }
        drop(watched);
        self.has_changed.notify_all();
    }

    /// Waits on this thread until there is something to do for the watchdog; `told` is the last phase that it was called for.
    pub(super) fn alarm(&self, told: Option<Phase>) -> Alarm {
        let Some(begun) = self.begun.get() else { return Alarm::Ended };
        let overdue = begun.budget.total.map(|total| total.saturating_add(GRACE));
        let mut watched = lock(&self.watched);
        while !watched.ended {
            let late = begun.late(*watched).filter(|_| told != Some(watched.phase));
            let now = begun.wall.elapsed();
            let is_over = |at: Option<Duration>| at.is_some_and(|at| at <= now);
            if is_over(overdue) {
                watched.overdue = true;
                return Alarm::Overdue;
            }
            if is_over(late) {
                return Alarm::Late(watched.phase);
            }
            let next = late.into_iter().chain(overdue).min().unwrap_or(Duration::MAX);
            let woken = self.has_changed.wait_timeout(watched, next.saturating_sub(now));
            watched = woken.map_or_else(|poisoned| poisoned.into_inner().0, |(watched, _)| watched);
        }
        Alarm::Ended
    }
}

impl Begun {
    /// When the watchdog ends a phase; the last one ends with the process.
    fn late(&self, watched: Watched) -> Option<Duration> {
        let until = self.budget.until(watched.phase, watched.entered)?;
        (watched.phase < Phase::Finalizing).then_some(until.saturating_add(LATE))
    }
}
