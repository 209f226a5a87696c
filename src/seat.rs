//! The place of a future of ours in the tree: under which frame it is polled, and what it holds there.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::core::cause::{Cause, CauseKind};
use crate::core::node::Kind;
use crate::current;
use crate::deadline;
use crate::host::{self, Frame, Hold, Node};
use crate::nursery::Ticket;
use crate::plan::View;

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
        let fresh = current::with(|current| {
            current.is_some_and(|(frame, current)| self.hold.is_fresh(frame, current.polled_by, cx.waker()))
        });
        if fresh {
            return;
        }
        // What the hold gives up may be a waker that looks at the current frame when it is dropped: not inside `with`.
        match current::with(|current| current.map(|(frame, current)| (Arc::clone(frame), current.polled_by))) {
            Some((frame, polled_by)) => self.hold.renew(&frame, polled_by, cx.waker()),
            None => self.hold.release(),
        }
    }

    /// The future has ended, or its unwinding goes on outside.
    pub(crate) fn leave(&mut self) {
        self.hold.release();
    }
}

/// A node of a future, its seat, and the frame for what is inside.
pub(crate) struct Branch {
    pub(crate) node: Arc<Node>,
    view: View,
    seat: Seat,
    frame: Option<(Arc<Frame>, usize)>,
    /// Counted in at the root: a shield in a task that nobody waits for is waited for there (S32).
    ticket: Option<Ticket>,
    /// The task that polled it last, if it has no frame around it that could tell whether it has moved to another runtime.
    task: Option<tokio::task::Id>,
    /// It was dropped by its caller and goes on at an owner, where it stays.
    settled: bool,
}

impl Branch {
    /// A node that may not be linked yet.
    pub(crate) fn new(node: Arc<Node>, view: View) -> Self {
        Self { node, view, seat: Seat::default(), frame: None, ticket: None, task: None, settled: false }
    }

    /// Links the node below that of `outer`, and makes the frame for what is inside.
    pub(crate) fn enter(&mut self, outer: Option<&Arc<Frame>>) -> Arc<Frame> {
        self.link(&current::branch(outer));
        let owned = outer.is_some_and(|outer| outer.is_owned());
        let frame = Frame::of_node(Arc::clone(&self.node), owned);
        let key = self.node.add_frame(&frame);
        self.frame = Some((Arc::clone(&frame), key));
        self.task = tokio::task::try_id();
        self.arrive();
        frame
    }

    fn link(&self, parent: &Arc<Node>) {
        match &self.view {
            View::None | View::Opens(_) => self.node.reparent(parent),
            View::Outside(outside) => {
                outside.reparent(parent);
                self.node.reparent(outside);
            }
        }
    }

    /// What a place under a new parent needs.
    fn arrive(&mut self) {
        if let View::Opens(exposed) = &self.view {
            exposed.open(&self.node);
        }
        if self.node.info.kind == Kind::Shield && self.ticket.is_none() && !self.is_owned() {
            self.ticket = Ticket::at_root(&self.node);
        }
    }

    /// The frame for what is inside.
    pub(crate) fn frame(&self) -> Option<&Arc<Frame>> {
        self.frame.as_ref().map(|(frame, _)| frame)
    }

    /// True if somebody waits for the task that polls this.
    fn is_owned(&self) -> bool {
        self.frame().is_some_and(|frame| frame.is_owned())
    }

    /// True if what is around this node is cancelled.
    pub(crate) fn is_cancelled_outside(&self) -> bool {
        match self.seat.frame() {
            Some(frame) => frame.is_cancelled(),
            None => self.node.parent().is_some_and(|parent| parent.is_cancelled()),
        }
    }

    /// Follows the future if it has moved since the last poll; true if it has.
    pub(crate) fn follow(&mut self) {
        if self.settled || !(self.seat.has_moved() || self.is_on_another_runtime()) {
            return;
        }
        let outer = current::frame();
        let parent = current::branch(outer.as_ref());
        let before = self.node.parent();
        self.link(&parent);
        deadline::follow(&self.node, before.as_ref(), &parent);
        if let Some((frame, _)) = &self.frame {
            frame.set_owned(outer.is_some_and(|outer| outer.is_owned()));
        }
        self.arrive();
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
            (None, _) | (_, Err(_)) => false,
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

    /// Ends the poll of a future whose region is still alive.
    pub(crate) fn stay<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        if !self.settled {
            self.seat.stay(cx);
        }
        Poll::Pending
    }

    /// Takes the node out of the tree; the hold goes last, so that whoever it was holding for finds everything in order.
    pub(crate) fn leave(&mut self) {
        if let Some((_, key)) = self.frame.take() {
            self.node.remove_frame(key);
            self.node.detach();
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
