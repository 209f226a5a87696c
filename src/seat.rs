//! The place of a future of ours in the tree: under which frame it is polled, and what it holds there.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;

use crate::core::cause::{Cause, CauseKind};
use crate::core::node::Kind;
use crate::current::{self, Level};
use crate::deadline;
use crate::host::{self, Frame, Hold, Node};
use crate::shield::{self, Exposed};
use crate::ticket::Ticket;

/// The hold of a future on the frame in which it is polled, followed when the future moves (M4).
#[derive(Default)]
pub(crate) struct Seat {
    hold: Hold,
}

impl Seat {
    /// The frame that is held now, if any.
    pub(crate) fn frame(&self) -> Option<&Arc<Frame>> {
        self.hold.frame()
    }

    /// True if the future has moved to another frame since it was polled last.
    pub(crate) fn has_moved(&self) -> bool {
        current::with(|current| !self.hold.is_on(current.map(|(frame, _)| frame)))
    }

    /// The future stays pending: it holds the frame in which it was polled.
    pub(crate) fn stay(&mut self, cx: &Context<'_>) {
        current::with(|current| match current {
            Some((_, level)) if self.is_fresh(level, cx.waker()) => {}
            Some((frame, level)) => self.hold.renew(Arc::clone(frame), level.polled_by, cx.waker()),
            None => self.hold.release(),
        });
    }

    /// True if [`stay`](Self::stay) inside of `outer` has nothing to do.
    #[inline]
    fn is_fresh(&self, outer: &Level<'_>, waker: &Waker) -> bool {
        outer.frame().is_some_and(|frame| self.hold.is_fresh(frame, outer.polled_by, waker))
    }

    /// The future has ended, or its unwinding goes on outside.
    pub(crate) fn leave(&mut self) {
        self.hold.release();
    }
}

/// What an `exposed` part sees through its shield.
pub(crate) enum View {
    None,
    /// This is a shield that can be opened: the view from outside it, a node between the two.
    Outside(Arc<Node>),
    /// This is a part that opens its shield.
    Opens(Exposed),
}

/// A node of a future, and its seat.
pub(crate) struct Branch {
    pub(crate) node: Arc<Node>,
    view: View,
    seat: Seat,
    entered: bool,
    /// Counted in at the root: a shield in a task that nobody waits for is waited for there (S32).
    ticket: Option<Ticket>,
    /// The task that polled it last, if it has no frame around it that could tell whether it has moved to another runtime.
    task: Option<tokio::task::Id>,
    /// It was dropped by its caller and goes on at an owner, where it stays.
    settled: bool,
}

impl Branch {
    /// A node that is not linked yet.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, view: View::None, seat: Seat::default(), entered: false, ticket: None, task: None, settled: false }
    }

    /// The place of a node that was linked, with its `frame`, at the first poll. It may have been counted in before.
    pub(crate) fn entered(frame: &Arc<Frame>, view: View, ticket: Option<Ticket>) -> Self {
        let mut branch = Self::new(Arc::clone(frame.node()));
        (branch.entered, branch.view, branch.ticket) = (true, view, ticket);
        branch.arrive(frame.is_owned());
        branch
    }

    /// The place of a bud that has become a node, and that `hold` holds what is around it since.
    pub(crate) fn grown(frame: &Arc<Frame>, hold: Hold, ticket: Option<Ticket>) -> Self {
        let mut branch = Self::entered(frame, View::None, ticket);
        branch.seat = Seat { hold };
        branch
    }

    /// Links the node below that of `outer`, and makes the frame for what is inside.
    pub(crate) fn enter(&mut self, outer: Option<&Arc<Frame>>) -> Arc<Frame> {
        let frame = Frame::of_node(Arc::clone(&self.node), outer.is_some_and(|outer| outer.is_owned()));
        current::in_branch(outer, |parent| self.node.enter(parent, &frame));
        self.entered = true;
        self.arrive(frame.is_owned());
        frame
    }

    fn link(&self, parent: &Arc<Node>) {
        match &self.view {
            View::None | View::Opens(_) => self.node.reparent(parent),
            View::Outside(outside) => outside.reparent(parent),
        }
    }

    /// What a place under a new parent needs. `owned`: somebody waits for the task that polls this.
    fn arrive(&mut self, owned: bool) {
        if let View::Opens(exposed) = &self.view {
            exposed.open(&self.node);
        }
        if self.node.info.kind == Kind::Shield && self.ticket.is_none() && !owned {
            self.ticket = Ticket::at_root(&self.node);
        }
    }

    /// True if what is around this node is cancelled.
    pub(crate) fn is_cancelled_outside(&self) -> bool {
        match self.seat.frame() {
            Some(frame) => frame.is_cancelled(),
            None => self.node.parent().is_some_and(|parent| parent.is_cancelled()),
        }
    }

    /// Follows the future with its `frame` if it has moved since the last poll.
    pub(crate) fn follow(&mut self, frame: &Frame) {
        if !self.settled && (self.seat.has_moved() || self.is_on_another_runtime()) {
            self.come(frame);
        }
    }

    /// Makes sure that it is where the future is polled now.
    pub(crate) fn come(&mut self, frame: &Frame) {
        let outer = current::frame();
        let parent = current::branch(outer.as_ref());
        let before = self.node.parent();
        self.link(&parent);
        deadline::follow(&self.node, before.as_ref(), &parent);
        let owned = outer.is_some_and(|outer| outer.is_owned());
        frame.set_owned(owned);
        if let Some(counted) = self.ticket.take() {
            // It may be another root now.
            self.ticket = Ticket::at_root(&self.node);
            drop(counted);
        }
        self.arrive(owned);
        if parent.is_cancelled() {
            // A shield that comes into what is cancelled holds it off from now on.
            shield::start(&self.node);
        }
    }

    /// For a future outside of any frame, which has no frame that could tell.
    fn is_on_another_runtime(&mut self) -> bool {
        if self.seat.frame().is_some() {
            return false;
        }
        // A task stays on its runtime, and looking at its number is cheap.
        let task = tokio::task::try_id();
        if task.is_some() && self.task == task {
            return false;
        }
        self.task = task;
        let parent = self.node.parent();
        let home = parent.as_ref().and_then(|parent| parent.host()?.handle.as_ref());
        match (home, Handle::try_current()) {
            (Some(home), Ok(here)) => home.id() != here.id(),
            (None, Ok(_)) => parent.is_some(),
            (_, Err(_)) => false,
        }
    }

    /// The future was dropped by its caller and goes on at `owner`.
    pub(crate) fn move_to(&mut self, owner: &Arc<Node>) {
        self.node.reparent(owner);
        if let View::Outside(outside) = &self.view {
            host::cancel(outside, Cause::new(CauseKind::Dropped));
        }
        self.settled = true;
        self.seat.leave();
    }

    /// True if the future is polled where it was last, with the same waker: [`follow`](Self::follow) and [`stay`](Self::stay) have
    /// nothing to do.
    #[inline]
    pub(crate) fn is_fresh(&self, outer: &Level<'_>, waker: &Waker) -> bool {
        !self.settled && self.seat.is_fresh(outer, waker)
    }

    /// Ends the poll of a future whose region is still alive.
    pub(crate) fn stay<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        if !self.settled {
            self.seat.stay(cx);
        }
        Poll::Pending
    }

    /// Takes the node out of the tree; the hold goes last, so that whoever it was holding for finds everything in order.
    pub(crate) fn leave(&mut self) {
        if std::mem::take(&mut self.entered) {
            let orphans = self.node.detach();
            deadline::end(&self.node);
            orphans.iter().for_each(deadline::keep_all);
            if let View::Outside(outside) = &self.view {
                outside.detach();
            }
        }
        self.seat.leave();
        self.ticket = None;
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        self.leave();
    }
}
