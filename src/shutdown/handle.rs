//! Asking for a stop from code, inside of the run or outside.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::{Reason, Shutdown};
use crate::core::phase::Phase;
use crate::current;
use crate::host::lock;

/// Asks for a stop, as the first SIGTERM does: gracefully first.
///
/// Inside of a run it is that run which stops; in code that belongs to none (a thread of its own), all runs of the process. If there
/// is no run yet, it is remembered, and the next one stops as soon as it begins. It does not wait, and only the first request
/// of a run makes a difference.
///
/// # Examples
///
/// ```
/// # use testudo::{Outcome, Runner, shutdown};
/// let finished = Runner::new().current_thread().run(async {
///     shutdown("all is done");
///     std::future::pending::<()>().await;
/// });
/// let Outcome::Cancelled(cause) = finished.outcome else { panic!() };
/// assert_eq!(cause.reason(), Some("all is done"));
/// ```
#[doc(alias = "exit")]
#[doc(alias = "stop")]
pub fn shutdown(reason: impl Into<Cow<'static, str>>) {
    let reason = Reason::Requested(reason.into().into());
    if let Some(own) = current::node().host().and_then(|host| host.shutdown.clone()) {
        if let Some(own) = own.upgrade() {
            own.request(reason);
        }
        // What a run that is over has left behind stops nothing.
        return;
    }
    let runs: Vec<_> = {
        let mut known = lock(&KNOWN);
        known.runs.retain(|run| run.strong_count() > 0);
        let runs: Vec<_> = known.runs.iter().filter_map(Weak::upgrade).collect();
        if runs.is_empty() {
            known.early.get_or_insert_with(|| reason.clone());
        }
        runs
    };
    runs.iter().for_each(|run| run.request(reason.clone()));
}

/// The shutdown of the run that this code is in.
pub(super) fn own() -> Option<Arc<Shutdown>> {
    current::node().host()?.shutdown.as_ref()?.upgrade()
}

/// What the process knows of its runs.
struct Known {
    /// Those that have begun and not ended.
    runs: Vec<Weak<Shutdown>>,
    /// What was asked for while there was none.
    early: Option<Reason>,
}

static KNOWN: Mutex<Known> = Mutex::new(Known { runs: Vec::new(), early: None });

pub(super) fn enlist(shutdown: &Arc<Shutdown>) {
    lock(&KNOWN).runs.push(Arc::downgrade(shutdown));
}

pub(crate) fn delist(shutdown: &Arc<Shutdown>) {
    lock(&KNOWN).runs.retain(|run| run.strong_count() > 0 && !std::ptr::eq(run.as_ptr(), Arc::as_ptr(shutdown)));
}

pub(super) fn take_early() -> Option<Reason> {
    lock(&KNOWN).early.take()
}

/// The shutdown of one run, for whoever is not inside of it; see [`Runner::handle`](crate::Runner::handle). Clones are the same.
///
/// It works before the run, during it and after it.
#[derive(Clone)]
pub struct ShutdownHandle(Arc<Shutdown>);

impl ShutdownHandle {
    pub(crate) fn new(shutdown: Arc<Shutdown>) -> Self {
        Self(shutdown)
    }

    /// Returns the handle on the shutdown of the run that this code is in; none outside of a run.
    ///
    /// For code that serves a run and was not given the handle, a server for instance.
    ///
    /// # Examples
    ///
    /// ```
    /// # use testudo::{Phase, Runner, ShutdownHandle};
    /// assert!(ShutdownHandle::current().is_none());
    /// let phase = Runner::new().current_thread().run(async {
    ///     Ok::<_, ()>(ShutdownHandle::current().map(|own| own.phase()))
    /// });
    /// assert_eq!(phase.outcome.unwrap(), Some(Phase::Running));
    /// ```
    #[doc(alias = "try_current")]
    pub fn current() -> Option<Self> {
        own().map(Self)
    }

    /// Asks for a stop; see [`shutdown`]. Before the run it is remembered.
    pub fn shutdown(&self, reason: impl Into<Cow<'static, str>>) {
        self.0.request(Reason::Requested(reason.into().into()));
    }

    /// Returns how far the shutdown has come.
    pub fn phase(&self) -> Phase {
        self.0.phase()
    }

    /// Returns why the run stops; none as long as it does not.
    pub fn reason(&self) -> Option<Reason> {
        (self.phase() > Phase::Running).then(|| self.0.reason())
    }

    /// Returns what is left of the budget; none before a request, and without a limit.
    pub fn time_left(&self) -> Option<Duration> {
        self.0.clock.left()
    }

    /// Waits until the shutdown has come to `phase`, or is past it; whoever comes late does not wait.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop and to call again: nothing is lost.
    pub async fn wait_phase(&self, phase: Phase) {
        self.0.wait(phase).await;
    }
}

impl fmt::Debug for ShutdownHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownHandle").field("phase", &self.phase()).finish_non_exhaustive()
    }
}
