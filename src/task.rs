//! Handles on tasks.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};

use crate::clock;
use crate::core::task::TaskInfo;
use crate::current;
use crate::host::{self, Frame, Member};
use crate::outcome::Outcome;
use crate::policy::Policy;
use crate::report::{Event, Subject};
use crate::seat::Seat;
use crate::trace;

/// The number of a task, unique in its process.
///
/// Tasks that one thread has spawned have rising numbers; of two threads, the numbers do not say whose task came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub(crate) u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A task as others see it: who it is, and a way to cancel it. Clones are the same task.
#[derive(Clone)]
pub struct TaskRef {
    member: Member,
}

impl TaskRef {
    /// None for a frame that is no task.
    pub(crate) fn new(member: Member) -> Option<Self> {
        member.id().map(|_| Self { member })
    }

    pub(crate) fn with_info<R>(&self, look: impl FnOnce(&TaskInfo) -> R) -> R {
        self.member.with_task(look).expect("checked by `new`")
    }

    fn number(&self) -> u64 {
        self.member.id().expect("checked by `new`")
    }

    pub(crate) fn subject(&self) -> Subject {
        self.with_info(Subject::of_task)
    }

    /// What is to be said of an error or a panic that nobody looks at.
    pub(crate) fn failure<T, E: fmt::Display>(&self, outcome: &Outcome<T, Arc<E>>) -> Option<Event> {
        match outcome {
            Outcome::Err(error) => Some(Event::Failed(self.subject(), error.to_string().into())),
            Outcome::Panicked(panic) => Some(Event::Panicked(self.subject(), panic.message().into())),
            Outcome::Ok(_) | Outcome::Cancelled(_) | Outcome::Lost => None,
        }
    }

    pub(crate) fn report(&self, event: Event) {
        host::report(self.member.node(), event);
    }

    /// The same task, known beyond its end: how that came is asked later. None if it has come.
    #[cfg(feature = "signal")]
    pub(crate) fn kept(self) -> Option<Self> {
        self.member.frame().map(|frame| Self { member: Member::Frame(frame) })
    }

    /// Returns the number of the task.
    pub fn id(&self) -> TaskId {
        TaskId(self.number())
    }

    /// Returns the name that was given, or `Task-N`.
    pub fn name(&self) -> Arc<str> {
        self.with_info(TaskInfo::name)
    }

    /// Returns the place in the source that began the task.
    pub fn place(&self) -> &'static Location<'static> {
        self.with_info(|info| info.info.place)
    }

    /// Returns how long ago the task began, on Tokio's clock. What one poll begins has the age of the first of it.
    pub fn age(&self) -> Duration {
        clock::age(self.with_info(|info| info.info.born))
    }

    /// True once the task has ended.
    pub fn is_finished(&self) -> bool {
        self.member.has_ended()
    }

    /// Cancels this task alone, with everything opened in it. True if it was still possible: the task had not ended.
    ///
    /// It does not wait. A shield inside the task holds it off, and a task that catches its cancel runs on to its next suspension.
    #[doc(alias = "abort")]
    pub fn cancel(&self, reason: impl Into<Cow<'static, str>>) -> bool {
        let cause = current::request(reason.into());
        let Some(frame) = self.member.frame() else { return false };
        let was_possible = frame.cancel_task(|| cause.clone());
        if was_possible {
            trace::cancelled(frame.node(), &cause);
        }
        was_possible
    }
}

impl fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskRef")
            .field("id", &self.id().0)
            .field("name", &self.name())
            .field("place", &format_args!("{}", self.place()))
            .finish_non_exhaustive()
    }
}

impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.subject().fmt(f)
    }
}

impl PartialEq for TaskRef {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for TaskRef {}

impl std::hash::Hash for TaskRef {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// A handle on a task that its nursery owns; the future of its [`Outcome`].
///
/// An error is shared (`Arc`) with the nursery that returns it, and awaiting the handle does not change what the nursery does about
/// it. Under [`Policy::Supervise`], and for [`spawn`](crate::spawn()), the handle is the only owner; an error or panic that it
/// never looks at is reported.
///
/// Compared with a `JoinHandle`: it gives an [`Outcome`], in which a cancel is no error; its drop does not detach the task; and
/// [`cancel`](Self::cancel) is not an abort: the task is polled once more, and its shields and finalizers run.
///
/// # Cancel safety
///
/// Dropping it while it is awaited loses the outcome as far as this handle goes; [`outcome`](Self::outcome) can be dropped and called
/// again. The task is not touched.
///
/// # Drop
///
/// Dropping it neither cancels the task nor detaches it: the nursery owns it.
///
/// # Panics
///
/// The future panics if it is polled again after it has given the outcome.
#[doc(alias = "JoinHandle")]
#[doc(alias = "Deferred")]
#[doc(alias = "Fiber")]
pub struct Task<T, E = Infallible> {
    join: Option<JoinHandle<Outcome<T, Arc<E>>>>,
    task: TaskRef,
    /// What to do with an outcome that nobody looked at; set if nobody else would see it.
    unseen: Option<Unseen<T, E>>,
    /// Holds a cancel of who awaits it off, between its end and the moment at which its outcome is here. Boxed, because it is rare.
    held: Option<Box<Seat>>,
}

type Unseen<T, E> = fn(JoinHandle<Outcome<T, Arc<E>>>, &Arc<Frame>);

impl<T, E> Task<T, E> {
    pub(crate) fn new(join: JoinHandle<Outcome<T, Arc<E>>>, task: TaskRef, policy: Policy) -> Self
    where
        T: Send + 'static,
        E: fmt::Display + Send + Sync + 'static,
    {
        let unseen = policy.handle_owns().then_some(report_ended::<T, E> as Unseen<T, E>);
        Self { join: Some(join), task, unseen, held: None }
    }

    /// Returns the task as others see it.
    pub fn as_ref(&self) -> TaskRef {
        self.task.clone()
    }

    /// Returns the number of the task.
    pub fn id(&self) -> TaskId {
        self.task.id()
    }

    /// Returns the name that was given, or `Task-N`.
    pub fn name(&self) -> Arc<str> {
        self.task.name()
    }

    /// True once the task has ended.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Cancels this task alone. See [`TaskRef::cancel`].
    pub fn cancel(&self, reason: impl Into<Cow<'static, str>>) -> bool {
        self.task.cancel(reason)
    }

    /// Cancels this task now, and gives the handle back as the future of its outcome: awaiting it waits for all of its clean-up. The
    /// request has been made even if it is never awaited.
    #[must_use = "without an `await` this is `cancel`"]
    pub fn cancel_and_wait(self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.cancel(reason);
        self
    }

    /// Waits for the outcome without giving the handle away, as in a `select!` loop.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop and to call again: the outcome is taken only when it is returned.
    ///
    /// # Panics
    ///
    /// The future panics if the outcome has been returned before.
    pub async fn outcome(&mut self) -> Outcome<T, Arc<E>> {
        self.await
    }
}

impl<T, E> Unpin for Task<T, E> {}

impl<T, E> Future for Task<T, E> {
    type Output = Outcome<T, Arc<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let join = self.join.as_mut().expect("the outcome of a task is returned once");
        let Poll::Ready(result) = Pin::new(join).poll(cx) else {
            // What has ended is not lost to a cancel that came after it, which its own success may have caused.
            if current::is_cancelled() && self.task.is_finished() {
                self.held.get_or_insert_default().stay(cx);
            }
            return Poll::Pending;
        };
        (self.join, self.held) = (None, None);
        Poll::Ready(settled(result))
    }
}

/// What a child left; panics are caught inside it, so an error of the join is the end of its runtime.
fn settled<T, E>(result: Result<Outcome<T, Arc<E>>, JoinError>) -> Outcome<T, Arc<E>> {
    result.unwrap_or(Outcome::Lost)
}

impl<T, E> Drop for Task<T, E> {
    fn drop(&mut self) {
        let (Some(join), Some(report), Member::Frame(frame)) = (self.join.take(), self.unseen, &self.task.member)
        else {
            return;
        };
        // The swap decides who reports: the task, if it settles after this; we, if it had settled.
        if frame.task().is_some_and(TaskInfo::abandon) {
            report(join, frame);
        }
    }
}

/// Reports the outcome of a task that had settled when its handle was dropped.
fn report_ended<T, E>(mut join: JoinHandle<Outcome<T, Arc<E>>>, frame: &Arc<Frame>)
where
    T: Send + 'static,
    E: fmt::Display + Send + Sync + 'static,
{
    let look = Pin::new(&mut join).poll(&mut Context::from_waker(Waker::noop()));
    if let Poll::Ready(result) = look {
        return report_unseen(frame, &settled(result));
    }
    // Its thread is about to hand the outcome over.
    let reported = Arc::clone(frame);
    if let Some(host) = frame.home().host() {
        host.spawn(async move { report_unseen(&reported, &settled(join.await)) });
    }
}

/// Reports an error or a panic that nobody looked at.
pub(crate) fn report_unseen<T, E: fmt::Display>(frame: &Arc<Frame>, outcome: &Outcome<T, Arc<E>>) {
    let Some(task) = TaskRef::new(Member::Frame(Arc::clone(frame))) else { return };
    if let Some(failure) = task.failure(outcome) {
        task.report(failure);
    }
}

impl<T, E> fmt::Debug for Task<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Task").field(&self.task).finish()
    }
}
