//! Rescue: what happens to the rest of a shield whose caller was dropped.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::task::LocalKey;

use super::body::{Body, Budget, ShieldEnd};
use crate::current;
use crate::host::{self, Frame, Node};
use crate::outcome::Panic;
use crate::report::{Event, Subject};
use crate::rest::{Rest, collect};
use crate::ticket::Ticket;
use crate::trace::Span;

/// Reads the error out of a value, if it is one.
type IsError<T> = fn(&T) -> Option<Arc<str>>;

/// What is done in and after a rescue.
pub(super) struct After<T> {
    pub(super) on_rescued: Option<Box<dyn FnOnce(T) + Send>>,
    pub(super) is_error: Option<IsError<T>>,
    pub(super) carried: Vec<Box<dyn Carry>>,
    span: Span,
}

impl<T> Default for After<T> {
    fn default() -> Self {
        Self { on_rescued: None, is_error: None, carried: Vec::new(), span: Span::default() }
    }
}

/// A task-local that is carried along.
pub(super) trait Carry: Send {
    fn capture(&mut self);
    fn inside(&self, run: &mut dyn FnMut());
}

pub(super) struct Carried<T: 'static> {
    key: &'static LocalKey<T>,
    value: Option<T>,
}

impl<T> Carried<T> {
    pub(super) fn new(key: &'static LocalKey<T>) -> Self {
        Self { key, value: None }
    }
}

impl<T: Clone + Send + 'static> Carry for Carried<T> {
    fn capture(&mut self) {
        self.value = self.key.try_with(T::clone).ok();
    }

    fn inside(&self, run: &mut dyn FnMut()) {
        match &self.value {
            Some(value) => self.key.sync_scope(value.clone(), run),
            None => run(),
        }
    }
}

/// The rest of a shield, as a task of its owner. Dropped before its end, it says what was lost.
pub(super) struct Rescued<F: Future> {
    /// What has to end before this goes on: others before the body, and after it what its value has led to.
    before: Option<Rest>,
    body: Option<Pin<Box<Body<F>>>>,
    /// The budget of what has to wait first, which runs from the end of that.
    budget: Option<Budget>,
    ticket: Option<Ticket>,
    after: After<F::Output>,
}

impl<F: Future> Unpin for Rescued<F> {}

impl<F: Future> Rescued<F> {
    /// The live count is taken before the frame around the shield gives up its own: the body holds that until it moves (S29).
    pub(super) fn new(mut body: Pin<Box<Body<F>>>, after: After<F::Output>) -> Self {
        let ticket = body.node().and_then(Ticket::nearest);
        if let Some(ticket) = &ticket {
            body.as_mut().rescued_by(ticket.owner());
        }
        Self { before: None, body: Some(body), budget: None, ticket, after }
    }

    /// Waits for others first; the budget runs from then on.
    pub(super) fn behind(mut self, others: Vec<Rest>, budget: Option<Budget>) -> Self {
        self.budget = budget;
        self.wait_for(others);
        self
    }

    fn wait_for(&mut self, others: Vec<Rest>) {
        self.before = (!others.is_empty()).then(|| join_all(others).map(drop).boxed());
    }

    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(before) = &mut self.before {
            ready!(before.poll_unpin(cx));
            self.before = None;
        }
        Poll::Ready(())
    }

    /// Tells the end to whoever it concerns. What that hands over (the release of a bracket) is a part of this rescue: its
    /// owner, and a finalizer outside, wait for it, too.
    fn finish(&mut self, end: ShieldEnd<F::Output>, node: &Arc<Node>) {
        let owner = self.ticket.as_ref().map_or(node, Ticket::owner);
        let frame = Frame::of_node(Arc::clone(owner), true);
        let (rest, ()) = collect(|| current::inside(&frame, || self.after.finish(end, node)));
        self.wait_for(rest);
    }

    /// False if every owner upwards is closed.
    pub(super) fn has_owner(&self) -> bool {
        self.ticket.is_some()
    }
}

impl<F: Future> Future for Rescued<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        ready!(this.poll_before(cx));
        let Some(body) = &mut this.body else {
            this.ticket = None;
            return Poll::Ready(());
        };
        this.budget.take().into_iter().for_each(|budget| body.give_budget(budget));
        body.start_budget();
        let node = body.node().map(Arc::clone);
        let mut end = Poll::Pending;
        this.after.inside(&mut || end = body.as_mut().poll(cx));
        let Poll::Ready(end) = end else { return Poll::Pending };
        this.body = None;
        this.finish(end, &node.unwrap_or_else(current::node));
        ready!(this.poll_before(cx));
        this.ticket = None;
        Poll::Ready(())
    }
}

impl<T> After<T> {
    /// Takes what a rescue needs of the place of the first poll.
    pub(super) fn capture(&mut self) {
        self.carried.iter_mut().for_each(|local| local.capture());
        self.span = Span::current();
    }

    /// Runs a poll with the span and the task-locals of the first one.
    fn inside(&self, poll: &mut dyn FnMut()) {
        self.span.inside(|| nest(&self.carried, poll));
    }

    fn finish(&mut self, end: ShieldEnd<T>, node: &Node) {
        let panicked = |payload| {
            host::report(node, Event::Panicked(Subject::of_node(node), Panic::new(payload).message().into()));
        };
        let value = match end {
            ShieldEnd::Done(value) => value,
            ShieldEnd::Panicked(payload) => return panicked(payload),
            ShieldEnd::Cut => return, // Reported when the budget ran out.
        };
        if let Some(error) = self.is_error.and_then(|is_error| is_error(&value)) {
            host::report(node, Event::Failed(Subject::of_node(node), error));
        }
        let take = self.on_rescued.take();
        let taken = catch_unwind(AssertUnwindSafe(|| match take {
            Some(take) => take(value),
            None => drop(value),
        }));
        if let Err(payload) = taken {
            panicked(payload);
        }
    }
}

/// Runs a poll inside all task-locals that are carried along.
fn nest(carried: &[Box<dyn Carry>], poll: &mut dyn FnMut()) {
    match carried.split_first() {
        None => poll(),
        Some((first, rest)) => first.inside(&mut || nest(rest, poll)),
    }
}

impl<F: Future> Drop for Rescued<F> {
    fn drop(&mut self) {
        if let Some(node) = self.body.take().and_then(|body| body.node().map(Arc::clone)) {
            host::report(&node, Event::Lost(Subject::of_node(&node)));
        }
    }
}
