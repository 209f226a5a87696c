//! The borrowing shield: holds against cancel, not against drop.

use std::fmt;
use std::future::Future;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::body::{Body, Budget, ShieldEnd};
use crate::core::node::Kind;
use crate::host;
use crate::plan::Plan;
use crate::report::{Event, Subject};

/// Shields a future that borrows.
///
/// It holds against cancel like [`shield`](crate::shield()): the caller stays here until `fut` has ended, and everything inside is
/// covered. It can not survive its own drop (`select!`, `timeout`, `abort`), because what it borrows does not; if that happens
/// half-way, it is reported as an error with name and place, and counted. So everything that `shield` promises holds under a cancel,
/// and nothing of it under a drop.
///
/// # Cancel safety
///
/// Dropping the future after its first poll loses the rest of the work. That is reported.
///
/// # Panics
///
/// With the panic of `fut`.
#[doc(alias = "uncancelable")]
#[doc(alias = "NonCancellable")]
#[track_caller]
pub fn shield_scoped<F: Future>(fut: F) -> ScopedShield<F> {
    ScopedShield::at(Location::caller(), fut)
}

pin_project! {
    /// Made by [`shield_scoped`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it after the first poll loses the rest of the work. That is reported.
    #[must_use = "a shield does nothing unless polled"]
    pub struct ScopedShield<F> {
        #[pin]
        body: Body<F>,
    }

    impl<F> PinnedDrop for ScopedShield<F> {
        fn drop(this: Pin<&mut Self>) {
            let body = this.project().body;
            if let Some(node) = body.node_if_begun() {
                host::report(&node, Event::Dropped(Subject::of_node(&node)));
            }
        }
    }
}

impl<F> ScopedShield<F> {
    /// The same as [`shield_scoped`], made on behalf of another place.
    pub(crate) fn at(place: &'static Location<'static>, fut: F) -> Self {
        Self { body: Body::new(Plan::at(place, Kind::Shield), fut) }
    }

    /// Gives the shield a name, for reports and dumps.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        if let Some(plan) = self.body.plan() {
            plan.set_name(name.into());
        }
        self
    }

    /// Allows the shield to hold off a cancel for so long; `None` is for ever. See [`Shield::budget`](crate::Shield::budget).
    ///
    /// # Panics
    ///
    /// If the budget is zero.
    #[track_caller]
    pub fn budget(mut self, budget: impl Into<Option<Duration>>) -> Self {
        let budget = Budget::new(budget.into());
        if let Some(plan) = self.body.plan() {
            plan.set_budget(budget);
        }
        self
    }
}

impl<F: Future> Future for ScopedShield<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().body.poll(cx) {
            Poll::Ready(ShieldEnd::Done(value)) => Poll::Ready(value),
            Poll::Ready(ShieldEnd::Panicked(payload)) => resume_unwind(payload),
            Poll::Ready(ShieldEnd::Cut) | Poll::Pending => Poll::Pending,
        }
    }
}

impl<F> fmt::Debug for ScopedShield<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedShield").field("node", &self.body.node()).finish_non_exhaustive()
    }
}
