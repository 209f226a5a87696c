//! The nursery in one task, whose children may borrow.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use pin_project_lite::pin_project;
use tokio::task::coop::has_budget_remaining;

use super::Nursery;
use super::child::Child;
use super::fate;
use super::local_task::{LocalTask, slot};
use super::run::{Body, Inner, Stage};
use crate::core::node::{Info, Kind, Leaf, Node as CoreNode};
use crate::core::owner::Owner;
use crate::current;
use crate::error::{NurseryError, SpawnError};
use crate::host;
use crate::outcome::{ChildOutput, TaskOutput};
use crate::policy::Policy;
use crate::region::{Cutting, Region};
use crate::scope::ScopeHandle;
use crate::ticket::{Regular, Ticket};

/// Runs `body` with a nursery whose children are polled in this task and may borrow from outside it.
///
/// The children are concurrent, not parallel, and need not be `Send`. They end, fail and are cancelled as in
/// [`nursery`](crate::nursery()). The difference is the drop: the children borrow, so nobody can adopt them, and they are dropped with
/// the future. So prefer `nursery` where nothing has to be borrowed.
///
/// # Cancel safety
///
/// Dropping the future drops the body and all children where they stand. Started owned shields and finalizers in them are rescued;
/// everything else is lost.
///
/// # Panics
///
/// The future goes on with the first panic of the body or a child, when all have ended, unless the [`Policy`] says otherwise.
///
/// # Examples
///
/// ```
/// # use testudo::nursery_local;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let words = vec!["to", "be"];
/// let lengths = std::cell::RefCell::new(Vec::new());
/// let run = nursery_local(|n| {
///     for word in &words {
///         n.spawn(async { lengths.borrow_mut().push(word.len()) });
///     }
///     async {}
/// });
/// run.await.unwrap();
/// assert_eq!(*lengths.borrow(), [2, 2]);
/// # }
/// ```
#[doc(alias = "scoped")]
#[track_caller]
pub fn nursery_local<'env, F, B>(body: F) -> LocalNurseryRun<'env, F, B>
where
    F: FnOnce(LocalNursery<'env, <B::Output as TaskOutput>::Error>) -> B,
    B: Future,
    B::Output: TaskOutput,
    <B::Output as TaskOutput>::Error: fmt::Display + Send + Sync + 'static,
{
    let info = Info::new(Kind::Nursery, Location::caller(), current::born());
    let owner = Owner::new(Policy::default() as usize).borrowing();
    let node = CoreNode::unbound(info, Some(owner), false);
    let queue = Rc::new(Queue {
        nursery: Nursery::new(Arc::clone(&node)),
        incoming: RefCell::default(),
        waker: RefCell::default(),
        in_vain: Rc::default(),
        is_gone: Cell::new(false),
    });
    let handle = LocalNursery { queue: Rc::clone(&queue) };
    LocalNurseryRun {
        region: Region::new(Body::new(body, handle), Cutting::Unwinds),
        inner: Inner::new(node),
        children: FuturesUnordered::new(),
        queue,
    }
}

/// A handle on a [`nursery_local`], for its body and its children.
pub struct LocalNursery<'env, E> {
    queue: Rc<Queue<'env, E>>,
}

impl<E> Clone for LocalNursery<'_, E> {
    fn clone(&self) -> Self {
        Self { queue: Rc::clone(&self.queue) }
    }
}

/// Children that were spawned since the nursery was polled last.
struct Queue<'env, E> {
    nursery: Nursery<E>,
    incoming: RefCell<Vec<LocalBoxFuture<'env, ()>>>,
    waker: RefCell<Option<Waker>>,
    /// Polls of children in this turn after Tokio's coop budget was gone.
    in_vain: Rc<Cell<usize>>,
    /// Its future was dropped: nobody polls what is spawned.
    is_gone: Cell<bool>,
}

impl<E> Queue<'_, E> {
    /// The future was dropped. Children that were never polled may hold the queue that holds them, and spawn more when they go.
    fn drop_incoming(&self) {
        loop {
            let incoming = mem::take(&mut *self.incoming.borrow_mut());
            if incoming.is_empty() {
                break;
            }
            drop(incoming);
        }
        self.is_gone.set(true);
    }
}

/// So many children are polled in a turn without a budget. They may need none; but if they do, each is pending and woken at once,
/// which `FuturesUnordered` does not notice: it would poll all children in each turn.
const IN_VAIN_MAX: usize = 32;

pin_project! {
    /// A child that waits for the next turn when the budget of this one is gone.
    struct InTurn<F> {
        #[pin]
        child: F,
        in_vain: Rc<Cell<usize>>,
    }
}

impl<F: Future> Future for InTurn<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if !has_budget_remaining() {
            let count = this.in_vain.get() + 1;
            this.in_vain.set(count);
            if count > IN_VAIN_MAX {
                // `FuturesUnordered` stops after two of these.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        this.child.poll(cx)
    }
}

impl<'env, E> LocalNursery<'env, E>
where
    E: fmt::Display + Send + Sync + 'static,
{
    /// Begins a child and returns at once. See [`Nursery::spawn`](crate::Nursery::spawn).
    ///
    /// # Panics
    ///
    /// If the nursery has ended.
    #[track_caller]
    pub fn spawn<F>(&self, fut: F) -> LocalTask<<F::Output as ChildOutput<E>>::Value, E>
    where
        F: Future + 'env,
        F::Output: ChildOutput<E>,
        <F::Output as ChildOutput<E>>::Value: 'env,
    {
        let node = &self.queue.nursery.node;
        let ticket = if self.queue.is_gone.get() { None } else { Ticket::at(Arc::clone(node), Regular) };
        let Some(ticket) = ticket else { panic!("{}", SpawnError::new(())) };
        let leaf = Leaf::new(host::next_task_id(), Location::caller(), current::born());
        let (child, task) = Child::leaf(fut, leaf, ticket);
        let (fill, task) = slot(task, fate::policy(node));
        let child = child.map(move |outcome| fill.fill(outcome));
        let child = InTurn { child, in_vain: Rc::clone(&self.queue.in_vain) };
        self.queue.incoming.borrow_mut().push(Box::pin(child));
        let waker = self.queue.waker.borrow_mut().take();
        waker.into_iter().for_each(Waker::wake);
        task
    }

    /// Cancels the body and all children. See [`Nursery::cancel`].
    pub fn cancel(&self, reason: impl Into<Cow<'static, str>>) -> bool {
        self.queue.nursery.cancel(reason)
    }

    /// Returns the scope that every nursery has: its deadline, shield and cause.
    pub fn scope(&self) -> ScopeHandle {
        self.queue.nursery.scope()
    }
}

impl<E> fmt::Debug for LocalNursery<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalNursery").field("node", &self.queue.nursery.node).finish()
    }
}

type ErrorOf<B> = <<B as Future>::Output as TaskOutput>::Error;
type ValueOf<B> = <<B as Future>::Output as TaskOutput>::Value;

pin_project! {
    /// Made by [`nursery_local`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the body and all children where they stand. Started owned shields and finalizers in them are rescued.
    #[must_use = "a nursery does nothing unless polled; dropped, it drops its children"]
    pub struct LocalNurseryRun<'env, F, B>
    where
        B: Future,
        B::Output: TaskOutput,
        <B::Output as TaskOutput>::Error: fmt::Display,
        <B::Output as TaskOutput>::Error: Send,
        <B::Output as TaskOutput>::Error: Sync,
        <B::Output as TaskOutput>::Error: 'static,
    {
        #[pin]
        region: Region<Body<F, B, LocalNursery<'env, ErrorOf<B>>>>,
        children: FuturesUnordered<LocalBoxFuture<'env, ()>>,
        inner: Inner<ValueOf<B>, ErrorOf<B>>,
        queue: Rc<Queue<'env, ErrorOf<B>>>,
    }

    impl<'env, F, B> PinnedDrop for LocalNurseryRun<'env, F, B>
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
            let is_open = matches!(this.inner.stage(), Stage::Body | Stage::Joining);
            let result = this.region.discard();
            this.children.clear();
            this.queue.drop_incoming();
            if is_open {
                // What was rescued from inside is owned by this nursery: somebody has to wait for it.
                this.inner.orphan();
            }
            if let (Err(payload), false) = (result, std::thread::panicking()) {
                resume_unwind(payload);
            }
        }
    }
}

impl<F, B> LocalNurseryRun<'_, F, B>
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

    /// Cancels the nursery `length` after its first poll.
    ///
    /// # Panics
    ///
    /// The future panics then outside of a Tokio runtime, or on one without its timer.
    pub fn timeout(mut self, length: Duration) -> Self {
        self.inner.set_timeout(length);
        self
    }

    /// Holds off the cancels of scopes outside, from the body and all children.
    pub fn shielded(self, shielded: bool) -> Self {
        self.inner.set_shielded(shielded);
        self
    }

    /// Sets what the end of one child does to the others.
    pub fn policy(self, policy: Policy) -> Self {
        self.inner.set_policy(policy);
        self
    }
}

impl<'env, F, B> Future for LocalNurseryRun<'env, F, B>
where
    F: FnOnce(LocalNursery<'env, ErrorOf<B>>) -> B,
    B: Future,
    B::Output: TaskOutput,
    ErrorOf<B>: fmt::Display + Send + Sync + 'static,
{
    type Output = Result<ValueOf<B>, NurseryError<ErrorOf<B>>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let inner = this.inner;
        match inner.stage() {
            Stage::Fresh => this.region.as_mut().enter(inner.enter()),
            Stage::Body | Stage::Joining => inner.follow(this.region.frame()),
            Stage::Over => return Poll::Pending,
        }
        if inner.stage() == Stage::Body {
            if let Poll::Ready(end) = this.region.poll(cx) {
                inner.end_body(end);
            }
        }
        poll_children(this.children, this.queue, cx);
        if inner.stage() == Stage::Body { inner.stay(cx) } else { inner.poll_join(cx) }
    }
}

/// Polls the children until none is ready and none is new.
fn poll_children<'env, E>(
    children: &mut FuturesUnordered<LocalBoxFuture<'env, ()>>,
    queue: &Queue<'env, E>,
    cx: &mut Context<'_>,
) {
    queue.in_vain.set(0);
    loop {
        children.extend(queue.incoming.borrow_mut().drain(..));
        match children.poll_next_unpin(cx) {
            Poll::Ready(Some(())) => {}
            Poll::Ready(None) | Poll::Pending if !queue.incoming.borrow().is_empty() => {}
            Poll::Ready(None) | Poll::Pending => break,
        }
    }
    let old = queue.waker.borrow_mut().replace(cx.waker().clone());
    drop(old);
}

impl<F, B> fmt::Debug for LocalNurseryRun<'_, F, B>
where
    B: Future,
    B::Output: TaskOutput,
    ErrorOf<B>: fmt::Display + Send + Sync + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalNurseryRun").field("children", &self.children.len()).finish_non_exhaustive()
    }
}
