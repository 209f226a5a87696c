//! The future of a nursery: its body, its join, its end.

use std::fmt;
use std::future::Future;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::Nursery;
use super::fate::{self, Errors, panic_of, report_all};
use crate::clock;
use crate::core::cause::{Cause, CauseKind};
use crate::core::live::Weight;
use crate::core::node::{Info, Kind, Node as CoreNode};
use crate::core::owner::Owner;
use crate::core::sabotage::{self, Bug};
use crate::current;
use crate::deadline;
use crate::error::{Failed, Failures, NurseryError};
use crate::host::{self, Frame, Node};
use crate::outcome::{Panic, TaskOutput};
use crate::policy::Policy;
use crate::region::{Cutting, End, Region};
use crate::rest::hand_over;
use crate::seat::Branch;
use crate::ticket::{Ticket, count_out};

/// Runs `body` with a nursery, and ends when the body and every child have ended.
///
/// The body gets a handle that it can clone and give to children, so that they spawn siblings. It returns `()` or a `Result`, and
/// so do the children; the first error cancels the rest, unless a [`Policy`] says otherwise. A panic cancels the rest at once and
/// goes on when all have ended.
///
/// The future gives `Ok` with the body's value if nothing failed; [`NurseryError::Cancelled`] if the nursery itself was cancelled and
/// that cut its body off; [`NurseryError::Failed`] with *all* errors else. If a cancel from outside cut off the body or a child, it
/// does not return: the unwinding goes on, and errors collected so far are reported.
///
/// # Cancel safety
///
/// Dropping the future cancels the children; another owner adopts them and waits for them. The rest of the body is lost.
///
/// # Panics
///
/// The future goes on with the first panic of the body or a child, when all have ended, unless the [`Policy`] says otherwise.
///
/// # Examples
///
/// ```
/// # use testudo::nursery;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let sum = nursery(|n| async move {
///     let a = n.spawn(async { Ok(1) });
///     let b = n.spawn(async { Ok::<_, std::io::Error>(2) });
///     Ok(a.await.unwrap() + b.await.unwrap())
/// });
/// assert_eq!(sum.await.unwrap(), 3);
/// # }
/// ```
#[doc(alias = "open_nursery")]
#[doc(alias = "TaskGroup")]
#[doc(alias = "coroutineScope")]
#[track_caller]
pub fn nursery<F, B>(body: F) -> NurseryRun<F, B>
where
    F: FnOnce(Nursery<<B::Output as TaskOutput>::Error>) -> B,
    B: Future,
    B::Output: TaskOutput,
    <B::Output as TaskOutput>::Error: fmt::Display + Send + Sync + 'static,
{
    let info = Info::new(Kind::Nursery, Location::caller(), current::born());
    let node = CoreNode::unbound(info, Some(Owner::new(Policy::default() as usize)), false);
    let start = Body::new(body, Nursery::new(Arc::clone(&node)));
    NurseryRun { region: Region::new(start, Cutting::Unwinds), inner: Inner::new(node) }
}

pin_project! {
    /// Calls the user's function inside the frame, at the first poll.
    #[project = BodyProj]
    pub(super) enum Body<F, B, N> {
        Start { make: Option<(F, N)> },
        Run { #[pin] fut: B },
    }
}

impl<F, B, N> Body<F, B, N> {
    pub(super) fn new(make: F, nursery: N) -> Self {
        Self::Start { make: Some((make, nursery)) }
    }
}

impl<F, B, N> Future for Body<F, B, N>
where
    F: FnOnce(N) -> B,
    B: Future,
{
    type Output = B::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<B::Output> {
        if let BodyProj::Start { make } = self.as_mut().project() {
            let Some((make, nursery)) = make.take() else { return Poll::Pending };
            let fut = make(nursery);
            self.set(Body::Run { fut });
        }
        match self.project() {
            BodyProj::Run { fut } => fut.poll(cx),
            BodyProj::Start { .. } => Poll::Pending,
        }
    }
}

type ErrorOf<B> = <<B as Future>::Output as TaskOutput>::Error;
type ValueOf<B> = <<B as Future>::Output as TaskOutput>::Value;

pin_project! {
    /// Made by [`nursery`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the body where it stands and cancels the children with cause
    /// [`Dropped`](crate::CauseKind::Dropped); the nearest open nursery upwards, or the runner, adopts them and waits for them. Their
    /// errors are reported. Lost are the value of the body and what it had not done yet.
    #[must_use = "a nursery does nothing unless polled; dropped, it cancels its children"]
    pub struct NurseryRun<F, B>
    where
        B: Future,
        B::Output: TaskOutput,
        <B::Output as TaskOutput>::Error: fmt::Display,
        <B::Output as TaskOutput>::Error: Send,
        <B::Output as TaskOutput>::Error: Sync,
        <B::Output as TaskOutput>::Error: 'static,
    {
        #[pin]
        region: Region<Body<F, B, Nursery<ErrorOf<B>>>>,
        inner: Inner<ValueOf<B>, ErrorOf<B>>,
    }

    impl<F, B> PinnedDrop for NurseryRun<F, B>
    where
        B: Future,
        B::Output: TaskOutput,
        <B::Output as TaskOutput>::Error: fmt::Display,
        <B::Output as TaskOutput>::Error: Send,
        <B::Output as TaskOutput>::Error: Sync,
        <B::Output as TaskOutput>::Error: 'static,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if matches!(this.inner.stage, Stage::Body | Stage::Joining) && !sabotage::has(Bug::OrphanOnDrop) {
                let result = this.region.discard();
                this.inner.orphan();
                if let (Err(payload), false) = (result, std::thread::panicking()) {
                    resume_unwind(payload);
                }
            }
        }
    }
}

/// What a nursery is apart from its body.
pub(super) struct Inner<T, E> {
    branch: Branch,
    errors: Errors<E>,
    timeout: Option<Duration>,
    stage: Stage,
    body: Option<BodyEnd<T>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Fresh,
    Body,
    Joining,
    /// Has returned, or unwinds: nothing is alive in it.
    Over,
}

pub(super) enum BodyEnd<T> {
    Value(T),
    Cut(Cause),
    /// Its error or panic is among the failures.
    Failed,
}

impl<F, B> NurseryRun<F, B>
where
    B: Future,
    B::Output: TaskOutput,
    ErrorOf<B>: fmt::Display + Send + Sync + 'static,
{
    /// Gives the nursery a name, for reports and dumps.
    pub fn name(self, name: impl Into<Arc<str>>) -> Self {
        self.inner.set_name(name.into());
        self
    }

    /// Sets what the end of one child does to the others.
    pub fn policy(self, policy: Policy) -> Self {
        self.inner.set_policy(policy);
        self
    }

    /// Cancels the nursery `length` after its first poll.
    ///
    /// # Panics
    ///
    /// The future panics then outside of a Tokio runtime, or on one without its timer.
    pub fn timeout(mut self, length: Duration) -> Self {
        self.inner.set_timeout(length);
        self
    }

    /// Sets whether the body and all children are shielded from the cancels outside. The nursery's own cancel still works.
    pub fn shielded(self, shielded: bool) -> Self {
        self.inner.set_shielded(shielded);
        self
    }
}

impl<F, B> Future for NurseryRun<F, B>
where
    F: FnOnce(Nursery<ErrorOf<B>>) -> B,
    B: Future,
    B::Output: TaskOutput,
    ErrorOf<B>: fmt::Display + Send + Sync + 'static,
{
    type Output = Result<ValueOf<B>, NurseryError<ErrorOf<B>>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let inner = this.inner;
        let body = match inner.stage {
            Stage::Fresh => {
                this.region.as_mut().enter(inner.enter());
                this.region.poll_entered(&mut inner.branch, cx)
            }
            Stage::Body => this.region.poll_at(&mut inner.branch, cx),
            Stage::Joining => {
                inner.follow(this.region.frame());
                return inner.poll_join(cx);
            }
            Stage::Over => return Poll::Pending,
        };
        let Poll::Ready(end) = body else { return Poll::Pending };
        inner.end_body(end);
        inner.poll_join(cx)
    }
}

impl<T, E> Inner<T, E> {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { branch: Branch::new(node), errors: Errors::default(), timeout: None, stage: Stage::Fresh, body: None }
    }

    pub(super) fn set_name(&self, name: Arc<str>) {
        self.branch.node.info.set_name(name);
    }

    pub(super) fn set_timeout(&mut self, length: Duration) {
        self.timeout = Some(length);
    }

    pub(super) fn set_shielded(&self, shielded: bool) {
        self.branch.node.set_shielded(shielded);
    }

    pub(super) fn set_policy(&self, policy: Policy) {
        fate::set_policy(&self.branch.node, policy);
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn follow(&mut self, frame: Option<&Arc<Frame>>) {
        frame.into_iter().for_each(|frame| self.branch.follow(frame));
    }

    pub(super) fn stay<R>(&mut self, cx: &Context<'_>) -> Poll<R> {
        self.branch.stay(cx)
    }
}

impl<T, E> Inner<T, E>
where
    E: fmt::Display + Send + Sync + 'static,
{
    pub(super) fn enter(&mut self) -> Arc<Frame> {
        let frame = self.branch.enter(current::frame().as_ref());
        fate::owner(&self.branch.node).set_owned(frame.is_owned());
        if let Some(length) = self.timeout {
            deadline::set(&self.branch.node, clock::after(clock::now(), length));
        }
        self.stage = Stage::Body;
        frame
    }

    pub(super) fn end_body<O: TaskOutput<Value = T, Error = E>>(&mut self, end: End<O>) {
        let node = &self.branch.node;
        let name = || current::task_name().unwrap_or_else(|| "body".into());
        self.body = Some(match end {
            End::Done(output) => match output.into_result() {
                Ok(value) => BodyEnd::Value(value),
                Err(error) => {
                    fate::fail(node, name(), Failed::Error(Arc::new(error)));
                    if fate::policy(node) == Policy::Supervise {
                        host::cancel(node, Cause::by(CauseKind::Failed, name()));
                    }
                    BodyEnd::Failed
                }
            },
            End::Cut(cut) => {
                if cut.goes_on {
                    fate::owner(node).cut_off();
                }
                BodyEnd::Cut(cut.cause)
            }
            End::Panicked(payload) => {
                fate::fail::<E>(node, name(), Failed::Panic(Panic::new(payload)));
                if fate::policy(node) == Policy::Supervise {
                    host::cancel(node, Cause::by(CauseKind::Panicked, name()));
                }
                BodyEnd::Failed
            }
        });
        self.stage = Stage::Joining;
        fate::owner(node).end_body();
        count_out(node, Weight::Regular);
    }

    /// Waits for the children. It is never itself the source of a cancel (T45).
    pub(super) fn poll_join(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, NurseryError<E>>> {
        let empty = self.branch.node.live().is_none_or(|live| live.poll_idle(cx).is_ready());
        if empty { self.settle() } else { self.branch.stay(cx) }
    }

    fn settle(&mut self) -> Poll<Result<T, NurseryError<E>>> {
        self.stage = Stage::Over;
        let node = &self.branch.node;
        // A future that was carried out of what it unwound for has a caller again. One that a thread blocks on always has: that waits.
        let unwinds = fate::owner(node).is_cut_off()
            && !current::is_beside_polls()
            && node.latch_on().is_some_and(|absorber| !Arc::ptr_eq(&absorber, node));
        let policy = fate::policy(node);
        let failures = fate::take(node);
        let panic = panic_of(&failures).filter(|_| policy != Policy::Collect);
        if let Some(panic) = panic {
            let rest: Vec<_> = failures.into_iter().filter(|failure| !failure.is(&panic)).collect();
            report_all(&self.branch.node, &rest);
            self.branch.leave();
            panic.resume();
        }
        if unwinds {
            report_all(&self.branch.node, &failures);
            self.branch.leave();
            return Poll::Pending;
        }
        self.branch.leave();
        // A body that has failed has no value to give, so there has to be an error.
        let forgiven = policy == Policy::FirstSuccess
            && fate::owner(&self.branch.node).has_succeeded()
            && !matches!(self.body, Some(BodyEnd::Failed));
        let failures = if forgiven { Vec::new() } else { failures };
        Poll::Ready(match (Failures::from_vec(failures), self.body.take()) {
            (Some(failures), _) => Err(NurseryError::Failed(failures)),
            (None, Some(BodyEnd::Value(value))) => Ok(value),
            (None, Some(BodyEnd::Cut(cause))) => Err(NurseryError::Cancelled(cause)),
            (None, Some(BodyEnd::Failed) | None) => return Poll::Pending,
        })
    }

    /// The future was dropped: what is alive in it is cancelled and finds another owner (S26).
    pub(super) fn orphan(&mut self) {
        let node = Arc::clone(&self.branch.node);
        host::cancel(&node, Cause::new(CauseKind::Dropped));
        let owner = Ticket::nearest(&node);
        if let Some(owner) = &owner {
            self.branch.move_to(owner.owner());
        }
        if self.stage == Stage::Body {
            fate::owner(&node).end_body();
            count_out(&node, Weight::Regular);
        }
        self.stage = Stage::Over;
        let branch = std::mem::replace(&mut self.branch, Branch::new(Arc::clone(&node)));
        let adopted = Adopted { branch, owner, errors: self.errors };
        match node.host() {
            Some(host) if !adopted.is_empty() => hand_over(host, adopted),
            Some(_) | None => {}
        }
    }
}

/// A nursery without its future, awaited by its new owner. Failures are reported; they never act on that owner (S26).
struct Adopted<E: fmt::Display + Send + Sync + 'static> {
    branch: Branch,
    owner: Option<Ticket>,
    errors: Errors<E>,
}

impl<E: fmt::Display + Send + Sync + 'static> Adopted<E> {
    fn is_empty(&self) -> bool {
        self.branch.node.live().is_none_or(|live| live.len() == 0)
    }
}

impl<E: fmt::Display + Send + Sync + 'static> Unpin for Adopted<E> {}

impl<E: fmt::Display + Send + Sync + 'static> Future for Adopted<E> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.branch.node.live() {
            Some(live) => live.poll_idle(cx),
            None => Poll::Ready(()),
        }
    }
}

impl<E: fmt::Display + Send + Sync + 'static> Drop for Adopted<E> {
    fn drop(&mut self) {
        report_all(&self.branch.node, &fate::take::<E>(&self.branch.node));
        self.branch.leave();
        self.owner = None;
    }
}

impl<F, B> fmt::Debug for NurseryRun<F, B>
where
    B: Future,
    B::Output: TaskOutput,
    ErrorOf<B>: fmt::Display + Send + Sync + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NurseryRun").field("node", &self.inner.branch.node).field("stage", &self.inner.stage).finish()
    }
}
