//! Nurseries: owners of child tasks that do not end before them.

mod child;
mod fate;
mod local;
mod local_task;
mod run;
mod start;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use child::Child;
use fate::Errors;
pub use local::{LocalNursery, LocalNurseryRun, nursery_local};
pub use local_task::LocalTask;
pub use run::{NurseryRun, nursery};
pub use start::{Start, Started};

use crate::blocking::{self, BlockingCx};
use crate::clock::Ticks;
use crate::core::live::Weight;
use crate::core::node::{Info, Kind, Leaf};
use crate::core::task::{Status, TaskInfo, Traits};
use crate::current;
use crate::error::SpawnError;
use crate::host::{self, Frame, Node};
use crate::outcome::ChildOutput;
use crate::scope::ScopeHandle;
use crate::task::Task;
use crate::ticket::{Regular, Ticket};

/// A handle on a nursery, for its body and its children. Clones are cheap, `'static`, and the same nursery.
///
/// A handle does not keep the nursery open: it ends when its body and all its children have ended.
///
/// Compared with its neighbours:
///
/// 1. A `JoinSet` aborts its tasks when it is dropped and waits for none. A nursery is a future that waits, and hands its children
///    to another owner if it is dropped itself. This is the important one: no task is ever without somebody who waits for it.
/// 2. A `JoinSet` gives results to whoever asks for the next one; an error that nobody fetches is lost. A nursery returns all errors,
///    and cancels the other children at the first.
/// 3. A `TaskTracker` counts, and leaves cancelling to a token that each task has to look at.
/// 4. `tokio::spawn` gives nobody the duty to wait.
///
/// A child drops what it owns at its end. On a runtime with workers, a nursery that has had more than 64 children at once keeps the empty
/// memory of up to 64 small ones (at most 1 KiB each, and what Tokio adds) until it spawns more, or ends.
#[doc(alias = "TaskGroup")]
#[doc(alias = "JoinSet")]
#[doc(alias = "TaskTracker")]
#[doc(alias = "Switch")]
pub struct Nursery<E> {
    node: Arc<Node>,
    errors: Errors<E>,
}

impl<E> Clone for Nursery<E> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.node))
    }
}

impl<E> Nursery<E>
where
    E: fmt::Display + Send + Sync + 'static,
{
    /// Begins a child and returns at once.
    ///
    /// The child always gets its first poll, also if the nursery is cancelled, so a shield that it raises before its first
    /// suspension always holds. It is cancelled with the nursery, not with the place that spawns it. It returns `()` or
    /// `Result<_, E>`; the handle may be dropped.
    ///
    /// # Panics
    ///
    /// If the nursery has ended; [`try_spawn`](Self::try_spawn) gives the future back instead. If the nursery lives outside of a
    /// Tokio runtime.
    #[doc(alias = "start_soon")]
    #[doc(alias = "create_task")]
    #[doc(alias = "fork")]
    #[track_caller]
    pub fn spawn<F>(&self, fut: F) -> Task<<F::Output as ChildOutput<E>>::Value, E>
    where
        F: Future + Send + 'static,
        F::Output: ChildOutput<E>,
        <F::Output as ChildOutput<E>>::Value: Send + 'static,
    {
        begun(self.try_spawn(fut))
    }

    /// Begins a child, or gives the future back, which was not polled, if the nursery has ended.
    ///
    /// # Panics
    ///
    /// If the nursery lives outside of a Tokio runtime.
    ///
    /// # Errors
    ///
    /// If the body and all children had ended.
    #[expect(clippy::type_complexity, reason = "spelled out for those who read the docs")]
    #[track_caller]
    pub fn try_spawn<F>(&self, fut: F) -> Result<Task<<F::Output as ChildOutput<E>>::Value, E>, SpawnError<F>>
    where
        F: Future + Send + 'static,
        F::Output: ChildOutput<E>,
        <F::Output as ChildOutput<E>>::Value: Send + 'static,
    {
        let place = Location::caller();
        if fate::policy(&self.node).handle_owns() {
            return self.task_at(place).try_spawn(fut);
        }
        let leaf = self.spawn_leaf(fut, place, current::born());
        leaf.or_else(|refused| self.task_at(place).spawn_framed(refused.into_future()))
    }

    /// Begins a child of which there is nothing to know but its number, place and age, and which no handle owns.
    #[expect(clippy::type_complexity, reason = "as for those that call it")]
    #[track_caller]
    fn spawn_leaf<F>(
        &self,
        fut: F,
        place: &'static Location<'static>,
        born: Ticks,
    ) -> Result<Task<<F::Output as ChildOutput<E>>::Value, E>, SpawnError<F>>
    where
        F: Future + Send + 'static,
        F::Output: ChildOutput<E>,
        <F::Output as ChildOutput<E>>::Value: Send + 'static,
    {
        let node = &self.node;
        let Some(ticket) = Ticket::at(Arc::clone(node), Regular) else { return Err(SpawnError::new(fut)) };
        let (child, task) = Child::leaf(fut, Leaf::new(host::next_task_id(), place, born), ticket);
        Ok(Task::new(runtime(node).spawn(child), task, fate::policy(node)))
    }

    /// Runs a blocking function on Tokio's threads for that, as a child. See [`TaskBuilder::spawn_blocking`].
    ///
    /// # Panics
    ///
    /// If the nursery has ended, or lives outside of a Tokio runtime.
    #[track_caller]
    pub fn spawn_blocking<F, O>(&self, work: F) -> Task<O::Value, E>
    where
        F: FnOnce(&BlockingCx) -> O + Send + 'static,
        O: ChildOutput<E> + Send + 'static,
        O::Value: Send + 'static,
    {
        self.task().spawn_blocking(work)
    }

    /// Begins a child and waits until it says that it has started; gives what it hands over then (trio's `start`).
    ///
    /// Until then the child runs under the scopes of the caller, and its error comes out of `start` alone; from then on it is
    /// a child of this nursery, with everything that it has opened. A start that is pending keeps the nursery open.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before the child has started cancels the child; the value that it would hand over is lost.
    ///
    /// # Panics
    ///
    /// The future panics with the panic of a child that has not started, and if the nursery lives outside of a Tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # use testudo::nursery;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let result = nursery(|n| async move {
    ///     let port = n.start(|started| async move {
    ///         started.started(8080); // bound; from here on a child
    ///     });
    ///     assert_eq!(port.await.unwrap(), 8080);
    /// });
    /// result.await.unwrap();
    /// # }
    /// ```
    #[track_caller]
    pub fn start<V, F, O>(&self, make: impl FnOnce(Started<V>) -> F) -> Start<V, E>
    where
        V: Send + 'static,
        F: Future<Output = O> + Send + 'static,
        O: ChildOutput<E>,
        O::Value: Send + 'static,
    {
        self.task().start(make)
    }

    /// Begins to describe a child: its name, whether it is a daemon or shielded.
    #[track_caller]
    pub fn task(&self) -> TaskBuilder<'_, E> {
        self.task_at(Location::caller())
    }

    /// A child that reports name another place than the one that spawns it.
    pub(crate) fn task_at(&self, place: &'static Location<'static>) -> TaskBuilder<'_, E> {
        TaskBuilder {
            nursery: self,
            info: Info::new(Kind::Task, place, current::born()),
            daemon: false,
            shielded: false,
            abandon: false,
            status: None,
        }
    }
}

impl<E> Nursery<E> {
    /// A handle on the nursery that `node` is.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, errors: Errors::default() }
    }

    /// Cancels the body and all children. True if this was the first request.
    ///
    /// Cancelling is no failure: a body that ends all the same gives its value, one that was cut off makes the nursery end with
    /// [`NurseryError::Cancelled`](crate::NurseryError::Cancelled).
    #[doc(alias = "abort_all")]
    pub fn cancel(&self, reason: impl Into<Cow<'static, str>>) -> bool {
        host::cancel(&self.node, current::request(reason.into()))
    }

    /// Returns the scope that every nursery has: its deadline, shield and cause.
    pub fn scope(&self) -> ScopeHandle {
        ScopeHandle::new(Arc::clone(&self.node))
    }

    /// Returns how many children are alive. Pending starts and what the nursery has adopted count as children, the body does not.
    pub fn len(&self) -> usize {
        fate::owner(&self.node).children()
    }

    /// True if no child is alive.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<E> fmt::Debug for Nursery<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nursery").field("node", &self.node).field("children", &self.len()).finish()
    }
}

/// Options of a child that is not begun yet; made by [`Nursery::task`].
#[must_use = "a described task does nothing until it is spawned"]
pub struct TaskBuilder<'a, E> {
    nursery: &'a Nursery<E>,
    info: Info,
    daemon: bool,
    shielded: bool,
    abandon: bool,
    status: Option<Status>,
}

impl<E> TaskBuilder<'_, E>
where
    E: fmt::Display + Send + Sync + 'static,
{
    /// Gives the child a name; without one it is `Task-N`. Names need not be unique.
    pub fn name(self, name: impl Into<Arc<str>>) -> Self {
        self.info.set_name(name.into());
        self
    }

    /// Makes the child a daemon, which does not keep its nursery open: when only daemons are left they are cancelled.
    ///
    /// The nursery still waits until they have ended, and the failure of a daemon is a failure.
    #[doc(alias = "background")]
    #[doc(alias = "fork_daemon")]
    pub fn daemon(mut self) -> Self {
        self.daemon = true;
        self
    }

    /// Sets whether the child holds off the cancels of its nursery and of everything outside; its own cancel still works.
    ///
    /// For a stretch of work rather than a whole task, and for a budget, use [`shield`](crate::shield()).
    pub fn shielded(mut self, shielded: bool) -> Self {
        self.shielded = shielded;
        self
    }

    /// Lets a cancelled nursery leave blocking work behind. The thread runs on, and what it returns is dropped.
    ///
    /// It has no effect on a child that is a future.
    #[doc(alias = "abandon_on_cancel")]
    pub fn abandon(mut self) -> Self {
        self.abandon = true;
        self
    }

    /// Has the child say what it is doing: `status` is called whenever a dump, an event or a report names it.
    ///
    /// It may be called on any thread, at any time until the end of the run, and must not wait. It has no effect on a child that is
    /// [started](Self::start).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let sent = Arc::new(AtomicU32::new(12));
    /// let status = { let sent = Arc::clone(&sent); move || format!("{} of 40 sent", sent.load(Ordering::Relaxed)) };
    /// let sending = testudo::nursery(|n| async move {
    ///     n.task().name("mail").status(status).spawn(async { tokio::task::yield_now().await });
    ///     assert!(testudo::dump().to_string().contains("task mail [12 of 40 sent] at "));
    /// });
    /// sending.await.unwrap();
    /// # }
    /// ```
    pub fn status(mut self, status: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.status = Some(Box::new(status));
        self
    }

    /// Begins the child. See [`Nursery::spawn`].
    ///
    /// # Panics
    ///
    /// If the nursery has ended, or lives outside of a Tokio runtime.
    #[track_caller]
    pub fn spawn<F>(self, fut: F) -> Task<<F::Output as ChildOutput<E>>::Value, E>
    where
        F: Future + Send + 'static,
        F::Output: ChildOutput<E>,
        <F::Output as ChildOutput<E>>::Value: Send + 'static,
    {
        begun(self.try_spawn(fut))
    }

    /// Begins the child, or gives the future back. See [`Nursery::try_spawn`].
    ///
    /// # Panics
    ///
    /// If the nursery lives outside of a Tokio runtime.
    ///
    /// # Errors
    ///
    /// If the body and all children had ended.
    #[expect(clippy::type_complexity, reason = "spelled out for those who read the docs")]
    #[track_caller]
    pub fn try_spawn<F>(self, fut: F) -> Result<Task<<F::Output as ChildOutput<E>>::Value, E>, SpawnError<F>>
    where
        F: Future + Send + 'static,
        F::Output: ChildOutput<E>,
        <F::Output as ChildOutput<E>>::Value: Send + 'static,
    {
        let node = &self.nursery.node;
        let policy = fate::policy(node);
        if self.is_plain() && !policy.handle_owns() {
            let leaf = self.nursery.spawn_leaf(fut, self.info.place, self.info.born);
            return leaf.or_else(|refused| self.spawn_framed(refused.into_future()));
        }
        self.spawn_framed(fut)
    }

    /// Begins a child with a frame, which may be one of a nursery that has only daemons left.
    #[expect(clippy::type_complexity, reason = "as for those that call it")]
    fn spawn_framed<F>(self, fut: F) -> Result<Task<<F::Output as ChildOutput<E>>::Value, E>, SpawnError<F>>
    where
        F: Future + Send + 'static,
        F::Output: ChildOutput<E>,
        <F::Output as ChildOutput<E>>::Value: Send + 'static,
    {
        let node = &self.nursery.node;
        let policy = fate::policy(node);
        let Some(ticket) = Ticket::of_child(Arc::clone(node), self.weight()) else { return Err(SpawnError::new(fut)) };
        let shielded = self.shielded;
        let frame = self.into_frame(false);
        if shielded {
            frame.branch().set_shielded(true);
        }
        let (child, task) = Child::framed(fut, frame, ticket, None);
        Ok(Task::new(runtime(node).spawn(child), task, policy))
    }

    /// Runs `work` on a thread of Tokio's blocking pool, as a child.
    ///
    /// It can not be cut off: a cancel raises a flag that `work` may look at, and the nursery waits until it returns, unless it
    /// was told to [`abandon`](Self::abandon) it. It is listed as "blocking task (can not be cancelled)".
    ///
    /// # Panics
    ///
    /// If the nursery has ended, or lives outside of a Tokio runtime.
    #[track_caller]
    pub fn spawn_blocking<F, O>(self, work: F) -> Task<O::Value, E>
    where
        F: FnOnce(&BlockingCx) -> O + Send + 'static,
        O: ChildOutput<E> + Send + 'static,
        O::Value: Send + 'static,
    {
        let node = &self.nursery.node;
        let ticket = begun(Ticket::of_child(Arc::clone(node), self.weight()).ok_or_else(|| SpawnError::new(())));
        let (abandon, shielded) = (self.abandon, self.shielded);
        let frame = self.into_frame(true);
        if shielded {
            frame.branch().set_shielded(true);
        }
        let work = blocking::run(runtime(node), Arc::clone(&frame), abandon, work);
        let (child, task) = Child::framed(work, frame, ticket, None);
        Task::new(runtime(node).spawn(child), task, fate::policy(node))
    }

    /// Begins the child and waits until it says that it has started. See [`Nursery::start`]. A child that is started is neither a
    /// daemon nor shielded, whatever was said here.
    pub fn start<V, F, O>(self, make: impl FnOnce(Started<V>) -> F) -> Start<V, E>
    where
        V: Send + 'static,
        F: Future<Output = O> + Send + 'static,
        O: ChildOutput<E>,
        O::Value: Send + 'static,
    {
        start::start(self.nursery, self.info, make)
    }

    fn weight(&self) -> Weight {
        if self.daemon { Weight::Daemon } else { Weight::Regular }
    }

    /// True if there is nothing to know of the child but its number, place and age.
    fn is_plain(&self) -> bool {
        let Self { nursery: _, info, daemon, shielded, abandon: _, status } = self;
        info.name.get().is_none() && !daemon && !shielded && status.is_none()
    }

    fn into_frame(self, blocking: bool) -> Arc<Frame> {
        let traits = Traits { blocking, daemon: self.daemon };
        let task = TaskInfo::new(host::next_task_id(), self.info, traits).with_status(self.status);
        let node = &self.nursery.node;
        Frame::of_task(Arc::clone(node), node.is_owned(), task)
    }
}

impl<E> fmt::Debug for TaskBuilder<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBuilder").field("info", &self.info).field("daemon", &self.daemon).finish_non_exhaustive()
    }
}

/// What a nursery has let in; a panic if it had ended.
#[track_caller]
fn begun<T, F>(child: Result<T, SpawnError<F>>) -> T {
    match child {
        Ok(child) => child,
        Err(closed) => panic!("{closed}"),
    }
}

/// The runtime that a nursery spawns on.
#[track_caller]
fn runtime(node: &Node) -> &tokio::runtime::Handle {
    match node.host().and_then(|host| host.handle.as_ref()) {
        Some(handle) => handle,
        None => panic!(
            "this nursery is not polled on a Tokio runtime, so it can not begin tasks: \
             run it with `testudo::run`, `#[testudo::main]` or `Runtime::block_on`"
        ),
    }
}
