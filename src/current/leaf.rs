//! Entering a task that has no frame.

use std::mem;
use std::sync::Arc;

use super::{Current, Spot, around};
use crate::core::frame::WakerId;
use crate::core::node::TaskKey;
use crate::host::{Frame, LeafSeat};
use crate::ticket::{Regular, Ticket};

/// Puts a task that has no frame in as the current one until it is dropped. Its ticket lends its reference to the nursery for that, so
/// that a poll counts none, and has it back afterwards, whatever has happened meanwhile: the nursery would wait for ever.
pub(crate) struct EnterLeaf<'a> {
    ticket: &'a mut Ticket<Regular>,
    /// What waits for the end; the task itself on a thread that is being torn down.
    slot: Option<Current>,
    entered: bool,
}

// Inlined, because what is moved in and out is then not copied once more on the way.
impl<'a> EnterLeaf<'a> {
    /// `saw_cancel`: a poll begins with the cancel visible.
    #[inline(always)]
    pub(crate) fn new(ticket: &'a mut Ticket<Regular>, key: TaskKey, saw_cancel: bool, polled_by: WakerId) -> Self {
        let seat = LeafSeat::new(ticket.lend(), key, saw_cancel);
        let mut slot = Some(Current { polled_by, ..Current::new(Spot::Leaf(seat)) });
        let entered = around(|around| around.enter(&mut slot)).is_some();
        Self { ticket, slot, entered }
    }

    /// Gives the frame, if something inside has asked for it.
    #[inline(always)]
    pub(crate) fn end(mut self) -> Option<Arc<Frame>> {
        let frame = self.leave();
        mem::forget(self);
        frame
    }

    #[inline(always)]
    fn leave(&mut self) -> Option<Arc<Frame>> {
        if mem::take(&mut self.entered) {
            around(|around| around.swap(&mut self.slot)).unwrap_or_default();
        }
        let (home, frame) = match self.slot.take()?.spot {
            Spot::Leaf(leaf) => (leaf.into_home(), None),
            Spot::Frame(frame) => (Arc::clone(frame.home()), Some(frame)),
            Spot::Bud(_) | Spot::Grown(_) => unreachable!("a task is no bud"),
        };
        self.ticket.give_back(home);
        frame
    }
}

/// For a panic.
impl Drop for EnterLeaf<'_> {
    fn drop(&mut self) {
        drop(self.leave());
    }
}
