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
use crate::core::cause::Cause;
use crate::core::task::TaskInfo;
use crate::current;
use crate::host::{Frame, Node};
use crate::outcome::Outcome;
use crate::policy::Policy;
use crate::report::{Event, Subject};

/// The number of a task, unique in its process.
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
    frame: Arc<Frame>,
}

impl TaskRef {
    /// None for a frame that is no task.
    pub(crate) fn new(frame: Arc<Frame>) -> Option<Self> {
        frame.task().is_some().then_some(Self { frame })
    }

    pub(crate) fn info(&self) -> &TaskInfo {
        self.frame.task().expect("checked by `new`")
    }

    /// Returns the number of the task.
    pub fn id(&self) -> TaskId {
        TaskId(self.info().id)
    }

    /// Returns the name that was given, or `Task-N`.
    pub fn name(&self) -> Arc<str> {
        self.info().name()
    }

    /// Returns the place in the source that began the task.
    pub fn place(&self) -> &'static Location<'static> {
        self.info().info.place
    }

    /// Returns how long ago the task began, on Tokio's clock.
    pub fn age(&self) -> Duration {
        clock::age(self.info().info.born)
    }

    /// True once the task has ended.
    pub fn is_finished(&self) -> bool {
        self.info().has_ended()
    }

    /// Cancels this task alone, with everything opened in it. True if it was still possible: the task had not ended. A task that is
    /// shielded, or that catches its cancel, goes on all the same.
    pub fn cancel(&self, reason: impl Into<Cow<'static, str>>) -> bool {
        self.frame.cancel_task(|| Cause::requested(reason.into(), current::task_name()))
    }
}

impl fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskRef")
            .field("id", &self.info().id)
            .field("name", &self.name())
            .field("place", &format_args!("{}", self.place()))
            .finish_non_exhaustive()
    }
}

impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Subject::of_task(self.info()).fmt(f)
    }
}

impl PartialEq for TaskRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.frame, &other.frame)
    }
}

impl Eq for TaskRef {}

impl std::hash::Hash for TaskRef {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// A task that its nursery owns; the future of its [`Outcome`].
///
/// An error is shared (`Arc`) with the nursery that returns it. Under [`Policy::Supervise`] the handle is the only owner; an
/// error or panic that it never looks at is reported.
///
/// # Drop
///
/// Dropping it neither cancels the task nor detaches it: the nursery owns it.
///
/// # Cancel safety
///
/// Dropping it while it is awaited loses the outcome as far as this handle goes; [`outcome`](Self::outcome) can be dropped and called
/// again. The task is not touched.
pub struct Task<T, E = Infallible> {
    join: Option<JoinHandle<Outcome<T, Arc<E>>>>,
    task: TaskRef,
    node: Arc<Node>,
    /// What to do with an outcome that nobody looked at; set if nobody else would see it.
    unseen: Option<fn(&Node, &Frame, &Outcome<T, Arc<E>>)>,
}

impl<T, E> Task<T, E> {
    pub(crate) fn new(join: JoinHandle<Outcome<T, Arc<E>>>, frame: Arc<Frame>, node: Arc<Node>, policy: Policy) -> Self
    where
        E: fmt::Display,
    {
        Self { join: Some(join), task: TaskRef { frame }, node, unseen: policy.handle_owns().then_some(report_unseen::<T, E>) }
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

    /// Cancels this task now, and gives the future of its outcome: awaiting it waits for all of its clean-up (L22). The request
    /// has been made even if that future is dropped (L27).
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
        let Poll::Ready(result) = Pin::new(join).poll(cx) else { return Poll::Pending };
        self.join = None;
        Poll::Ready(settled(result))
    }
}

/// What a child left; panics are caught inside it, so an error of the join is the end of its runtime.
fn settled<T, E>(result: Result<Outcome<T, Arc<E>>, JoinError>) -> Outcome<T, Arc<E>> {
    result.unwrap_or(Outcome::Lost)
}

impl<T, E> Drop for Task<T, E> {
    fn drop(&mut self) {
        let Some(mut join) = self.join.take() else { return };
        // The swap decides who reports: the task, if it ends after this; we, if it had ended.
        let ended = self.task.info().abandon();
        let Some(report) = self.unseen.filter(|_| ended) else { return };
        // It marks its end as the last thing before it returns, so the wait is for a few instructions of another thread.
        loop {
            match Pin::new(&mut join).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => return report(&self.node, &self.task.frame, &settled(result)),
                Poll::Pending => std::thread::yield_now(),
            }
        }
    }
}

/// Reports an error or a panic that nobody looked at.
pub(crate) fn report_unseen<T, E: fmt::Display>(node: &Node, frame: &Frame, outcome: &Outcome<T, Arc<E>>) {
    let (Some(host), Some(task)) = (node.host(), frame.task()) else { return };
    let who = Subject::of_task(task);
    match outcome {
        Outcome::Err(error) => host.report(Event::Failed(who, error.to_string().into())),
        Outcome::Panicked(panic) => host.report(Event::Panicked(who, panic.message().into())),
        Outcome::Ok(_) | Outcome::Cancelled(_) | Outcome::Lost => {}
    }
}

impl<T, E> fmt::Debug for Task<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Task").field(&self.task).finish()
    }
}
