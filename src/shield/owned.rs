//! The owned shield: runs to its end whatever happens to its caller.

use std::fmt;
use std::future::Future;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::LocalKey;

use super::body::{Body, Budget, ShieldEnd};
use super::rescue::{After, Carried, Rescued};
use crate::core::node::Kind;
use crate::host::Frame;
use crate::plan::Plan;
use crate::rest::{Rest, hand_over};

/// Runs `fut` to its end, whatever happens to the caller.
///
/// From its first poll on, `fut` is not cancelled by scopes outside, and if this future is dropped (`select!`,
/// `tokio::time::timeout`, a client that disconnects, `JoinHandle::abort`) the rest of `fut` goes on in a task that the nearest
/// open nursery upwards, or the runner, waits for. Everything opened or spawned inside is covered too. Scopes inside, with their
/// deadlines, still work. Inside a cancelled scope the caller stays here until `fut` has ended, and sees the cancel at the next
/// suspension after it; the value is never thrown away.
///
/// Until it is dropped it runs in place: no task, no channel.
///
/// **Task-locals** that were set outside are gone after a rescue, because the rest runs in another task; carry those that you need
/// along with [`with_local`](Shield::with_local).
///
/// For a future that borrows there is [`shield_scoped`](crate::shield_scoped()), for one that is not `Send`
/// [`shield_local`](crate::shield_local()), and for one that has to be cancellable in parts [`shield_with`](crate::shield_with()).
///
/// # Cancel safety
///
/// Dropping the future after its first poll loses its value, not the work. Before that, nothing has begun.
///
/// # Panics
///
/// With the panic of `fut`. The future panics if it is polled again after it has ended.
///
/// # Examples
///
/// ```
/// # use testudo::shield;
/// # use std::time::Duration;
/// # use tokio::{sync::oneshot, time::{sleep, timeout}};
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let (done, is_done) = oneshot::channel();
/// let write = shield(async move {
///     sleep(Duration::from_secs(5)).await;
///     done.send("written").unwrap();
/// });
/// // The caller gives up after a second; the write does not.
/// assert!(timeout(Duration::from_secs(1), write).await.is_err());
/// assert_eq!(is_done.await.unwrap(), "written");
/// # }
/// ```
#[doc(alias = "uncancelable")]
#[doc(alias = "uninterruptible")]
#[doc(alias = "NonCancellable")]
#[doc(alias = "shutdown_waits_for")]
#[doc(alias = "protect")]
#[doc(alias = "mask")]
#[track_caller]
pub fn shield<F>(fut: F) -> Shield<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    Shield::from_body(Body::new(Plan::new(Kind::Shield), fut))
}

/// Made by [`shield`].
///
/// # Cancel safety
///
/// Dropping it before the first poll drops the future inside. Dropping it later loses nothing of the work: the rest is
/// rescued, and awaited by its owner. What is lost is the value, unless [`on_rescued`](Self::on_rescued) takes it. If the
/// runtime on which it was polled first is gone, the rest is lost, and that is reported with name and place.
#[must_use = "a shield does nothing unless polled"]
pub struct Shield<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// None once the future has ended.
    body: Option<Pin<Box<Body<F>>>>,
    after: After<F::Output>,
}

impl<F> Shield<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    pub(crate) fn from_body(body: Body<F>) -> Self {
        Self { body: Some(Box::pin(body)), after: After::default() }
    }

    /// The same as [`shield`], made on behalf of another place.
    pub(crate) fn at(place: &'static Location<'static>, fut: F) -> Self {
        Self::from_body(Body::new(Plan::at(place, Kind::Shield), fut))
    }

    /// Gives the shield a name, for reports and dumps.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        if let Some(plan) = self.plan() {
            plan.set_name(name.into());
        }
        self
    }

    /// Allows the shield to hold off a cancel, or to go on after its caller was dropped, for so long; `None` is for ever.
    ///
    /// The budget runs from the first moment at which something is held off, so a healthy shield may last as long as it likes. A
    /// shield around this one that runs out of budget ends this one as well. An end of budget is reported, never silent.
    /// Without this call it is that of [`Runner::shield_budget`](crate::Runner::shield_budget), none outside of a run.
    ///
    /// A shield that is cut off by its budget has no value to give, so it does not return: its caller is cancelled or gone, and
    /// unwinds from here.
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

    /// Carries a task-local along into a rescue. Its value is taken at the first poll.
    pub fn with_local<T: Clone + Send + 'static>(mut self, key: &'static LocalKey<T>) -> Self {
        self.after.carried.push(Box::new(Carried::new(key)));
        self
    }

    /// Gives the value to `take` if the caller was dropped before it was there. Without this it is dropped then.
    ///
    /// It is not called for a shield that ended by a panic or by its budget; both are reported.
    pub fn on_rescued(mut self, take: impl FnOnce(F::Output) + Send + 'static) -> Self {
        self.after.on_rescued = Some(Box::new(take));
        self
    }

    pub(crate) fn plan(&mut self) -> Option<&mut Plan> {
        self.body.as_mut()?.as_mut().plan_pinned()
    }

    /// Hands the rest to the nearest open owner upwards. Its live count is taken before the frame around us gives up its own,
    /// which it does when the seat is left (S29).
    fn rescue(&mut self, body: Pin<Box<Body<F>>>, others: Vec<Rest>, budget: Option<Budget>) {
        let host = body.node().and_then(|node| node.host().cloned());
        let rescued = Rescued::new(body, std::mem::take(&mut self.after)).behind(others, budget);
        if let (Some(host), true) = (host, rescued.has_owner()) {
            hand_over(&host, rescued);
        }
    }

    /// Has the owner run a shield that was not polled yet, as if it had been dropped after its first poll inside `frame`; after
    /// `others` have ended.
    pub(crate) fn launch(mut self, frame: Option<&Arc<Frame>>, others: Vec<Rest>) {
        let Some(mut body) = self.body.take() else { return };
        self.after.capture();
        // It may be cancelled around it already, or be while it waits.
        let waits = !others.is_empty();
        let budget = body.as_mut().plan_pinned().filter(|_| waits).map(|plan| plan.take_budget());
        body.as_mut().enter_at(frame);
        self.rescue(body, others, budget);
    }
}

impl<F, T, E> Shield<F>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send,
    E: fmt::Display + Send,
{
    /// Reports an `Err` of a rescued shield, which nobody else would see.
    pub fn report_err(mut self) -> Self {
        self.after.is_error = Some(|result| result.as_ref().err().map(|error| error.to_string().into()));
        self
    }
}

impl<F> Future for Shield<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let body = this.body.as_mut().expect("a shield is not polled after it has ended");
        if body.is_new() {
            this.after.capture();
        }
        match ready!(body.as_mut().poll(cx)) {
            ShieldEnd::Done(value) => {
                this.body = None;
                Poll::Ready(value)
            }
            ShieldEnd::Panicked(payload) => {
                this.body = None;
                resume_unwind(payload)
            }
            // The caller is cancelled and unwinds: there is no value to return to it.
            ShieldEnd::Cut => Poll::Pending,
        }
    }
}

impl<F> Drop for Shield<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        if body.as_mut().node_if_begun().is_some() {
            self.rescue(body, Vec::new(), None);
        }
    }
}

impl<F> fmt::Debug for Shield<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shield").field("node", &self.body.as_ref().and_then(|body| body.node())).finish_non_exhaustive()
    }
}
