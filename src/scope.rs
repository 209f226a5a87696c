//! Cancel scopes: a region with one cancel, deadline, shield and cause of its own.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::clock;
use crate::core::cause::Cause;
use crate::core::node::Kind;
use crate::current;
use crate::deadline;
use crate::error::{Cancelled, Elapsed};
use crate::host::{self, Node};
use crate::placed::Placed;
use crate::plan::Plan;
use crate::region::{Cutting, End};

/// A region of code that is cancelled as a unit, with a deadline, a shield and a cause of its own.
///
/// It is the future of [`run`](Self::run) that is the region, so scopes nest as futures do and can not be left in the wrong
/// order (trio's `CancelScope`, but mis-nesting does not compile).
///
/// Compared with a `CancellationToken`: (1) code inside a scope ends without looking at anything, at a suspension; (2) the scope has
/// a deadline, a shield and a cause; (3) whoever waits for the scope knows that the code inside has ended, clean-up included; (4)
/// its cancel is seen by everything inside, not only by what was given a child token.
///
/// # Examples
///
/// ```
/// # use testudo::CancelScope;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let scope = CancelScope::new().name("search");
/// let handle = scope.handle();
/// let found = scope.run(async {
///     handle.cancel("found it elsewhere");
///     std::future::pending::<()>().await;
/// });
/// let error = found.await.unwrap_err();
/// assert_eq!(error.cause().reason(), Some("found it elsewhere"));
/// # }
/// ```
#[doc(alias = "CancellationToken")]
#[doc(alias = "timeout_scope")]
#[derive(Debug)]
#[must_use = "a scope does nothing until `run` is awaited"]
pub struct CancelScope {
    plan: Plan,
}

impl Default for CancelScope {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl CancelScope {
    /// Returns a scope without deadline or shield.
    #[track_caller]
    pub fn new() -> Self {
        Self::at(Location::caller())
    }

    /// The same, made on behalf of another place.
    pub(crate) fn at(place: &'static Location<'static>) -> Self {
        Self { plan: Plan::at(place, Kind::Scope) }
    }

    /// Gives the scope a name, for reports and dumps. The first name stays.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.plan.set_name(name.into());
        self
    }

    /// Cancels the scope at `at`, also if that has passed already.
    pub fn deadline(mut self, at: Instant) -> Self {
        self.plan.set_deadline(clock::ticks(at));
        self
    }

    /// Cancels the scope `length` after it was entered, which is the first poll of its run, not its making. A length beyond the end
    /// of the clock is none. With a deadline as well, the earlier counts.
    pub fn timeout(mut self, length: Duration) -> Self {
        self.plan.set_timeout(length);
        self
    }

    /// Sets whether the scope holds off the cancels outside; its own cancel and deadline still work.
    ///
    /// It does not survive its drop, and has no budget but its deadline; [`shield`](crate::shield()) does, and has.
    pub fn shielded(mut self, shielded: bool) -> Self {
        self.plan.set_shielded(shielded);
        self
    }

    /// Returns a handle that works before, during and after the run.
    pub fn handle(&self) -> ScopeHandle {
        ScopeHandle { node: Arc::clone(self.plan.node()) }
    }

    /// Runs `fut` inside the scope.
    ///
    /// The future gives `Err` only if `fut` was really cut off: a body that ended in spite of a cancel returns its value. If
    /// a scope outside is cancelled as well, without a shield between the two, then that one gives the `Err`, and this future
    /// does not return at all: the code after it is dropped, as by an exception that passes. Who keeps such a future beyond the scope
    /// outside, and awaits it there, waits for ever; so does who blocks on it inside of a task (`block_in_place`), where
    /// [`catch_cancelled`](crate::catch_cancelled) around it gives the thread back.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `fut` where it stands. Started shields and finalizers in it are rescued, the children of its
    /// nurseries are adopted; everything else in it is lost.
    ///
    /// # Panics
    ///
    /// The future panics if it waits with a deadline outside of a Tokio runtime, or on one without its timer.
    pub fn run<F: Future>(self, fut: F) -> Scoped<F> {
        Scoped { placed: Placed::new(self.plan, fut, Cutting::Unwinds) }
    }
}

pin_project! {
    /// The run of a [`CancelScope`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the body where it stands. Started shields and finalizers in it are rescued, the children of its
    /// nurseries are cancelled and adopted; everything else in the body is lost.
    #[must_use = "futures do nothing unless polled"]
    pub struct Scoped<F> {
        #[pin]
        placed: Placed<F>,
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = Result<F::Output, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(self.project().placed.poll(cx)) {
            End::Done(value) => Poll::Ready(Ok(value)),
            End::Panicked(payload) => resume_unwind(payload),
            // The unwinding goes on outside: this future never returns, unless a thread blocks on it, which nobody could drop.
            End::Cut(cut) if cut.goes_on && !current::is_beside_polls() => Poll::Pending,
            End::Cut(cut) => Poll::Ready(Err(Cancelled::new(cut.cause))),
        }
    }
}

impl<F> fmt::Debug for Scoped<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scoped").field("scope", &self.placed.node()).finish_non_exhaustive()
    }
}

/// A handle on a cancel scope, from inside or outside, in any thread. Clones are the same scope.
#[doc(alias = "CancellationToken")]
#[derive(Clone)]
pub struct ScopeHandle {
    node: Arc<Node>,
}

impl ScopeHandle {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// Cancels everything inside. True if this was the first request; the reasons of later ones are kept behind the first.
    ///
    /// Before the run it takes effect at the first suspension inside, after it on nothing. There is no way back.
    pub fn cancel(&self, reason: impl Into<Cow<'static, str>>) -> bool {
        host::cancel(&self.node, current::request(reason.into()))
    }

    /// Moves the deadline; `None` takes it away. One that has passed cancels at once, or, before the run, at its beginning. One that has
    /// fired stays fired.
    ///
    /// # Panics
    ///
    /// If the scope runs outside of a Tokio runtime, or on one without its timer.
    pub fn set_deadline(&self, at: Option<Instant>) {
        deadline::set(&self.node, at.map(clock::ticks));
    }

    /// Returns the deadline, if one is set.
    pub fn deadline(&self) -> Option<Instant> {
        self.node.deadline().map(clock::instant)
    }

    /// Raises or lowers the shield, while the scope runs if you like.
    ///
    /// Raising it takes the cancel of a scope outside away from what has not been cut off yet; lowering it below a cancelled scope
    /// cancels at once.
    pub fn set_shielded(&self, shielded: bool) {
        self.node.set_shielded(shielded);
    }

    /// True while the shield is up.
    pub fn is_shielded(&self) -> bool {
        self.node.is_shielded()
    }

    /// True if what is inside is cancelled now, by itself or by a scope outside. A shield can make this false again.
    pub fn is_cancelled(&self) -> bool {
        self.node.is_cancelled()
    }

    /// True once this scope itself was told to cancel, by a call or by its deadline; it never becomes false again. Looks at
    /// the clock: a deadline that has passed counts even if nothing has noticed it yet.
    #[doc(alias = "cancel_called")]
    pub fn cancel_requested(&self) -> bool {
        if !self.node.is_requested() && self.node.deadline().is_some() {
            deadline::check(&self.node, clock::now());
        }
        self.node.is_requested()
    }

    /// Returns the cause that won, if the scope is cancelled.
    pub fn cause(&self) -> Option<Cause> {
        self.node.cause()
    }

    /// Returns all causes in their order; the first is [`cause`](Self::cause).
    pub fn causes(&self) -> Vec<Cause> {
        self.node.causes()
    }

    /// Waits until the scope is cancelled, and returns the cause; for looking from outside. Inside it,
    /// [`cancelled`](crate::cancelled()) is the one that is always delivered.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop and to make again: nothing is lost.
    pub fn cancelled(&self) -> ScopeCancelled {
        ScopeCancelled { node: Arc::clone(&self.node), key: None }
    }
}

#[cfg(feature = "testing")]
impl ScopeHandle {
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl fmt::Debug for ScopeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.node.is_cancelled(), self.node.parent().is_some()) {
            (true, _) => "cancelled",
            (false, true) => "active",
            (false, false) => "unbound or exited",
        };
        f.debug_struct("ScopeHandle")
            .field("name", &self.node.info.name.get())
            .field("state", &state)
            .field("shielded", &self.node.is_shielded())
            .finish_non_exhaustive()
    }
}

/// Waits until a scope is cancelled; made by [`ScopeHandle::cancelled`].
///
/// # Cancel safety
///
/// Safe to drop and to make again: nothing is lost.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ScopeCancelled {
    node: Arc<Node>,
    key: Option<usize>,
}

impl Future for ScopeCancelled {
    type Output = Cause;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Cause> {
        let this = &mut *self;
        loop {
            if let Some(cause) = this.node.cause() {
                return Poll::Ready(cause);
            }
            if this.node.listen(cx.waker(), &mut this.key) {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for ScopeCancelled {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.node.unlisten(key);
        }
    }
}

/// Runs `fut` for at most `length` from its first poll; `None` if it was cut off then (trio's `move_on_after`).
///
/// A shield inside `fut` is waited for, so this may take longer than `length`; `tokio::time::timeout` drops instead.
///
/// # Cancel safety
///
/// Dropping it drops `fut` where it stands, as [`Scoped`] does.
///
/// # Panics
///
/// The future panics if it waits with a deadline outside of a Tokio runtime, or on one without its timer.
#[doc(alias = "timeout")]
#[track_caller]
pub fn move_on_after<F: Future>(length: Duration, fut: F) -> impl Future<Output = Option<F::Output>> {
    // Not an `async` block: that would hold the future twice, and nested ones twice at each level.
    CancelScope::new().timeout(length).run(fut).map(Result::ok)
}

/// Runs `fut` for at most `length` from its first poll (trio's `fail_after`).
///
/// A shield inside `fut` is waited for, so this may take longer than `length`.
///
/// # Cancel safety
///
/// Dropping it drops `fut` where it stands, as [`Scoped`] does.
///
/// # Panics
///
/// The future panics if it waits with a deadline outside of a Tokio runtime, or on one without its timer.
///
/// # Errors
///
/// The future gives [`Elapsed`] if `fut` was cut off then. A cancel from outside is never taken for that.
#[doc(alias = "timeout")]
#[doc(alias = "wait_for")]
#[doc(alias = "with_timeout")]
#[track_caller]
pub fn fail_after<F: Future>(length: Duration, fut: F) -> impl Future<Output = Result<F::Output, Elapsed>> {
    CancelScope::new().timeout(length).run(fut).map(move |end| end.map_err(|_| Elapsed(length)))
}
