//! The shield for futures that are not `Send`.

use std::fmt;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use super::body::{Body, Budget, ShieldEnd};
use super::rescue::{After, Rescued};
use crate::core::node::Kind;
use crate::plan::Plan;
use crate::rest::wait_for;

/// Shields a future that is not `Send`, inside a `LocalSet` or `LocalRuntime`.
///
/// Like [`shield`](crate::shield()), but a rescue stays on its thread: a task of the `LocalSet`, begun when the shield is first
/// pending, waits for the rest (a destructor could not begin one). If the `LocalSet` is gone, the loss is reported.
///
/// # Cancel safety
///
/// Dropping the future after its first poll loses only its value, as long as the `LocalSet` lives and is polled.
///
/// # Panics
///
/// Outside of a `LocalSet` or `LocalRuntime` the future panics when it is first pending, with Tokio's words; and with the panic of `fut`.
#[track_caller]
pub fn shield_local<F>(fut: F) -> LocalShield<F>
where
    F: Future + 'static,
{
    LocalShield { body: Some(Box::pin(Body::new(Plan::new(Kind::Shield), fut))), rescuer: None }
}

/// Made by [`shield_local`].
///
/// # Cancel safety
///
/// Dropping it before the first poll drops the future inside. Dropping it later loses only the value, as long as the `LocalSet`
/// lives and is polled; otherwise the rest is lost, and that is reported.
#[must_use = "a shield does nothing unless polled"]
pub struct LocalShield<F: Future + 'static> {
    body: Option<Pin<Box<Body<F>>>>,
    rescuer: Option<Rescuer<F>>,
}

/// Takes the rest, and something that is dropped when that has ended.
type Rescuer<F> = oneshot::Sender<(Rescued<F>, oneshot::Sender<()>)>;

impl<F: Future + 'static> LocalShield<F> {
    /// Gives the shield a name, for reports and dumps.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        if let Some(plan) = self.plan() {
            plan.set_name(name.into());
        }
        self
    }

    /// Allows the shield to hold off a cancel, or to go on after its caller was dropped, for so long; `None` is for ever. See
    /// [`Shield::budget`](crate::Shield::budget).
    ///
    /// # Panics
    ///
    /// If the budget is zero.
    #[track_caller]
    pub fn budget(mut self, budget: impl Into<Option<Duration>>) -> Self {
        let budget = Budget::new(budget.into());
        if let Some(plan) = self.plan() {
            plan.set_budget(budget);
        }
        self
    }

    fn plan(&mut self) -> Option<&mut Plan> {
        self.body.as_mut()?.as_mut().plan_pinned()
    }
}

/// Begins the task that would take the rest.
fn rescuer<F: Future + 'static>() -> Rescuer<F> {
    let (rescuer, rest) = oneshot::channel::<(Rescued<F>, _)>();
    drop(tokio::task::spawn_local(async move {
        if let Ok((rest, _ended)) = rest.await {
            rest.await;
        }
    }));
    rescuer
}

impl<F: Future + 'static> Future for LocalShield<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Pending };
        match body.as_mut().poll(cx) {
            Poll::Ready(ShieldEnd::Done(value)) => {
                this.body = None;
                Poll::Ready(value)
            }
            Poll::Ready(ShieldEnd::Panicked(payload)) => {
                this.body = None;
                resume_unwind(payload)
            }
            Poll::Ready(ShieldEnd::Cut) => Poll::Pending,
            Poll::Pending => {
                this.rescuer.get_or_insert_with(rescuer);
                Poll::Pending
            }
        }
    }
}

impl<F: Future + 'static> Drop for LocalShield<F> {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        if body.as_mut().node_if_begun().is_none() {
            return;
        }
        let rescued = Rescued::new(body, After::default());
        if let (Some(rescuer), true) = (self.rescuer.take(), rescued.has_owner()) {
            let (ended, on_ended) = oneshot::channel();
            wait_for(async move { drop(on_ended.await) });
            // Comes back if the `LocalSet` is gone, and says what was lost as it is dropped.
            drop(rescuer.send((rescued, ended)));
        }
    }
}

impl<F: Future + 'static> fmt::Debug for LocalShield<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalShield").finish_non_exhaustive()
    }
}
