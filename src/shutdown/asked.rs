//! Hearing of a stop before it is a cancel: the request, readiness, and taking part by name.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use tokio::sync::watch;

use super::handle::own;
use super::{Reason, Shutdown};
use crate::core::phase::Phase;
use crate::current;
use crate::registry::NEEDS_RUN;

/// Waits until the run is asked to stop and accepting has ended, and returns why. It is a request, no cancel: the code after it runs
/// on, unshielded, until the graceful phase is over.
///
/// A task that has waited for it takes part in the graceful phase from then on, to its own end: the phase lasts until all who
/// take part have ended, or the graceful budget is used up. Without anybody who takes part there is no such phase, and the first
/// signal cancels at once. In a run that nobody asks to stop it completes when main has ended, unless that
/// [waits for all tasks](crate::Runner::wait_for_tasks). Outside of a run it waits for ever.
///
/// # Cancel safety
///
/// Safe to drop and to call again, as in `select!`: nothing is lost.
///
/// # Examples
///
/// ```
/// # use testudo::{Runner, shutdown, shutdown_requested};
/// # use tokio::sync::mpsc;
/// let (send, mut jobs) = mpsc::channel(8);
/// let finished = Runner::new().current_thread().run(async move {
///     send.send(1).await.unwrap();
///     shutdown("enough");
///     shutdown_requested().await; // stop taking in …
///     drop(send);
///     let mut done = 0;
///     while let Some(job) = jobs.recv().await {
///         tokio::task::yield_now().await; // … and finish what is there
///         done += job;
///     }
///     Ok::<_, ()>(done)
/// });
/// assert_eq!(finished.outcome.unwrap(), 1);
/// ```
#[doc(alias = "graceful_shutdown")]
#[doc(alias = "ctrl_c")]
pub async fn shutdown_requested() -> Reason {
    let Some(shutdown) = own() else { return std::future::pending().await };
    let _waiting = match current::task() {
        Some(task) => {
            shutdown.parts.join(task, || shutdown.waker());
            shutdown.part_came();
            None
        }
        None => Some(Part::new(Arc::clone(&shutdown))),
    };
    shutdown.wait(Phase::NotAccepting).await;
    shutdown.reason()
}

/// Counts for as long as it lives.
struct Part(Arc<Shutdown>);

impl Part {
    fn new(shutdown: Arc<Shutdown>) -> Self {
        shutdown.parts.enter();
        shutdown.part_came();
        Self(shutdown)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.0.parts.leave();
        self.0.look_at_parts();
    }
}

/// Takes part in the graceful phase until what is returned is dropped: for servers, and for code that is in no task of this crate.
///
/// # Panics
///
/// Outside of a run.
#[track_caller]
pub fn take_part() -> Participant {
    let Some(shutdown) = own() else { panic!("{NEEDS_RUN}") };
    Participant { part: Part::new(shutdown) }
}

/// Made by [`take_part`].
///
/// # Drop
///
/// The graceful phase does not wait for it any more.
#[must_use = "it takes part as long as it lives"]
pub struct Participant {
    part: Part,
}

impl Participant {
    /// Waits until the run is asked to stop and accepting has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop and to call again: nothing is lost.
    pub async fn requested(&self) -> Reason {
        self.part.0.wait(Phase::NotAccepting).await;
        self.part.0.reason()
    }

    /// Waits for `accept`, unless accepting has ended, and then gives none. The gate is looked at first, so nothing is accepted
    /// behind it. Whoever has called this is a server, and is given the drain delay after a request.
    ///
    /// # Cancel safety
    ///
    /// As that of `accept`: dropping it drops that.
    pub async fn accept<F: Future>(&self, accept: F) -> Option<F::Output> {
        self.part.0.parts.set_hears();
        match select(pin!(self.part.0.wait(Phase::NotAccepting)), pin!(accept)).await {
            Either::Left(_) => None,
            Either::Right((accepted, _)) => Some(accepted),
        }
    }
}

impl fmt::Debug for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Participant")
    }
}

/// Returns whether this run wants more work, as a value that changes: for the readiness check of whoever sends it.
///
/// It is false from the moment of the first request, and never true again. Whoever has called this is given time to tell others:
/// the [drain delay](crate::Runner::drain_delay), in which accepting goes on.
///
/// # Panics
///
/// Outside of a run.
#[doc(alias = "readyz")]
#[track_caller]
pub fn ready() -> Readiness {
    let Some(shutdown) = own() else { panic!("{NEEDS_RUN}") };
    shutdown.parts.set_hears();
    Readiness(shutdown)
}

/// Made by [`ready`]. Clones are the same.
#[derive(Clone)]
pub struct Readiness(Arc<Shutdown>);

impl Readiness {
    /// True if this run wants more work.
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Says whether the program itself is ready: false as long as it starts up, for instance. After a request it stays false. With the
    /// feature `systemd`, that it is ready is told to systemd, too.
    pub fn set(&self, is_ready: bool) {
        #[cfg(all(feature = "systemd", unix))]
        if is_ready && self.0.phase() == Phase::Running {
            super::systemd::ready();
        }
        self.0.ready.send_if_modified(|now| {
            // A request raises the phase before it takes readiness back, so one of the two is seen.
            let next = is_ready && self.0.phase() == Phase::Running;
            std::mem::replace(now, next) != next
        });
    }

    /// Returns a watch on it.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.is_ready()).finish()
    }
}
