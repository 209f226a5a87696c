//! The place of a future of ours in the tree: under which frame it is polled, and what it holds there.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::core::cause::{Cause, CauseKind};
use crate::current::{self, Current};
use crate::deadline;
use crate::host::{self, Frame, Hold, Node};

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
        current::with(|current| !self.hold.is_on(current.map(|current| &current.frame)))
    }

    /// The future stays pending: it holds the frame in which it was polled.
    pub(crate) fn stay(&mut self, cx: &Context<'_>) {
        let fresh = |current: &Current| self.hold.is_fresh(&current.frame, current.polled_by, cx.waker());
        if current::with(|current| current.is_some_and(fresh)) {
            return;
        }
        // What the hold gives up may be a waker that looks at the current frame when it is dropped: not inside `with`.
        match current::with(|current| current.map(|current| (Arc::clone(&current.frame), current.polled_by))) {
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
    /// For a shield that can be opened: the view from outside it, a node between the two.
    outside: Option<Arc<Node>>,
    seat: Seat,
    frame: Option<(Arc<Frame>, usize)>,
}

impl Branch {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, outside: None, seat: Seat::default(), frame: None }
    }

    /// Puts a node that stands for the outside between this one and what is around it.
    pub(crate) fn below(mut self, outside: Arc<Node>) -> Self {
        self.outside = Some(outside);
        self
    }

    /// Links the node below the frame that is current at the first poll, and makes the frame for what is inside.
    pub(crate) fn enter(&mut self) -> Arc<Frame> {
        self.enter_at(current::frame().as_ref())
    }

    pub(crate) fn enter_at(&mut self, outer: Option<&Arc<Frame>>) -> Arc<Frame> {
        self.link(&current::branch(outer));
        let frame = Frame::of_node(Arc::clone(&self.node), outer.is_some_and(|outer| outer.is_owned()));
        let key = self.node.add_frame(&frame);
        self.frame = Some((Arc::clone(&frame), key));
        frame
    }

    fn link(&self, parent: &Arc<Node>) {
        match &self.outside {
            None => self.node.reparent(parent),
            Some(outside) => {
                outside.reparent(parent);
                self.node.reparent(outside);
            }
        }
    }

    /// True if somebody waits for the task that polls this.
    pub(crate) fn is_owned(&self) -> bool {
        self.frame.as_ref().is_some_and(|(frame, _)| frame.is_owned())
    }

    /// True if what is around this node is cancelled.
    pub(crate) fn is_cancelled_outside(&self) -> bool {
        match self.seat.frame() {
            Some(frame) => frame.is_cancelled(),
            None => self.node.parent().is_some_and(|parent| parent.is_cancelled()),
        }
    }

    /// Follows the future if it has moved since the last poll; true if it has.
    pub(crate) fn follow(&mut self) -> bool {
        let outside = self.seat.frame().is_none() && self.is_on_another_runtime();
        let moved = self.seat.has_moved() || outside;
        if moved {
            let outer = current::frame();
            let parent = current::branch(outer.as_ref());
            let before = self.node.parent();
            self.link(&parent);
            deadline::follow(&self.node, before.as_ref(), &parent);
            if let Some((frame, _)) = &self.frame {
                frame.set_owned(outer.is_some_and(|outer| outer.is_owned()));
            }
        }
        moved
    }

    /// For a future outside of any frame, which has no frame that could tell.
    fn is_on_another_runtime(&self) -> bool {
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
        if let Some(outside) = &self.outside {
            host::cancel(outside, Cause::new(CauseKind::Dropped));
        }
        self.seat.leave();
    }

    /// Ends the poll of a future whose region is still alive.
    pub(crate) fn stay<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        self.seat.stay(cx);
        Poll::Pending
    }

    /// Takes the node out of the tree; the hold goes last, so that whoever it was holding for finds everything in order.
    pub(crate) fn leave(&mut self) {
        if let Some((_, key)) = self.frame.take() {
            self.node.remove_frame(key);
            self.node.detach();
            self.outside.iter().for_each(Node::detach);
        }
        self.seat.leave();
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        self.leave();
    }
}
