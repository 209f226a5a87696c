//! Polling a task that nothing has looked into: by the flag of its nursery, without a frame.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::task::coop::has_budget_remaining;

use super::{Cut, End, Parts, Payload, discard, poll_future};
use crate::core::frame::WakerId;
use crate::core::node::TaskKey;
use crate::current;
use crate::host::{Frame, LeafSeat, Node};
use crate::ticket::{Regular, Ticket};

/// What such a task keeps beside its future, which is always polled with one waker. It is small: there may be millions.
pub(crate) struct Plain {
    ticket: Ticket<Regular>,
    key: TaskKey,
    /// The waker is in the list of the nursery, and stays there until a cancel takes it that stays.
    armed: bool,
}

/// A task that has got a frame, in which it goes on.
pub(crate) struct Grown {
    pub(crate) frame: Arc<Frame>,
    polled: Polled,
}

/// How far the poll has come in which the frame was found.
enum Polled {
    /// It has not begun.
    Not,
    /// It is pending, and has to be armed.
    Pending,
    /// It is pending and began with the cancel visible, so it has to be judged.
    Cancelled { began_with_budget: bool },
}

impl Plain {
    /// A task that its nursery has counted in and lists.
    pub(crate) fn new(ticket: Ticket<Regular>, key: TaskKey) -> Self {
        Self { ticket, key, armed: false }
    }

    pub(crate) fn key(&self) -> TaskKey {
        self.key
    }

    /// The node of the nursery.
    pub(crate) fn home(&self) -> &Arc<Node> {
        self.ticket.owner()
    }

    pub(crate) fn into_ticket(self) -> Ticket {
        self.ticket.weighed()
    }

    /// A poll as any other, but that nothing can hold the task without making its frame.
    pub(crate) fn poll<F: Future>(
        &mut self,
        mut fut: Pin<&mut Option<F>>,
        cx: &mut Context<'_>,
    ) -> Result<Poll<End<F::Output>>, Grown> {
        if let Some(frame) = self.home().made_frame(self.key) {
            return Err(Grown { frame, polled: Polled::Not });
        }
        let is_cancelled = self.home().is_cancelled();
        let began_with_budget = is_cancelled && has_budget_remaining();
        let id = WakerId::of(cx.waker());
        let (poll, grown) = current::in_leaf(self.seat(is_cancelled), id, || poll_future(fut.as_mut(), &mut None, cx));
        if poll.is_ready() {
            return Ok(poll);
        }
        let polled = if is_cancelled { Polled::Cancelled { began_with_budget } } else { Polled::Pending };
        match grown {
            Some(frame) => Err(Grown { frame, polled }),
            None => self.conclude(fut, polled, cx),
        }
    }

    /// Ends a poll that was pending, and in which nothing has held the task.
    fn conclude<F: Future>(
        &mut self,
        fut: Pin<&mut Option<F>>,
        polled: Polled,
        cx: &mut Context<'_>,
    ) -> Result<Poll<End<F::Output>>, Grown> {
        let saw_cancel = matches!(polled, Polled::Cancelled { .. });
        if saw_cancel {
            if has_budget_remaining() {
                return self.cut(fut, cx);
            }
            // The frame counts how often it is polled once more.
            if let Some(frame) = self.home().grow_leaf(self.key, true) {
                return Err(Grown { frame, polled });
            }
        }
        self.arm(saw_cancel, cx)
    }

    fn cut<F: Future>(
        &mut self,
        fut: Pin<&mut Option<F>>,
        cx: &mut Context<'_>,
    ) -> Result<Poll<End<F::Output>>, Grown> {
        let Some((goes_on, cause)) = self.home().cut() else {
            // A shield that was raised since the poll began has un-cancelled the nursery: the task goes on (S5), unless it is cancelled
            // again before it is armed.
            return self.arm(false, cx);
        };
        let discarded = self.discard_in(fut, true);
        Ok(Poll::Ready(End::cut(discarded, Cut { goes_on, cause })))
    }

    /// Makes sure that a cancel wakes the task. If one came, or went, since the poll began, it looks again.
    fn arm<T>(&mut self, saw_cancel: bool, cx: &Context<'_>) -> Result<Poll<T>, Grown> {
        if self.armed {
            return Ok(Poll::Pending);
        }
        if let Some(frame) = self.home().arm_leaf(self.key, cx.waker()) {
            return Err(Grown { frame, polled: Polled::Pending });
        }
        self.armed = true;
        if self.home().is_cancelled() != saw_cancel {
            cx.waker().wake_by_ref();
        }
        Ok(Poll::Pending)
    }

    /// Drops the future where it stands. A panic in a destructor is handed back.
    pub(crate) fn discard<F>(&mut self, fut: Pin<&mut Option<F>>) -> Result<(), Payload> {
        self.discard_in(fut, false)
    }

    /// The same, maybe in a poll that began with the cancel visible.
    fn discard_in<F>(&mut self, fut: Pin<&mut Option<F>>, saw_cancel: bool) -> Result<(), Payload> {
        current::in_leaf(self.seat(saw_cancel), WakerId::of(Waker::noop()), || discard(fut, &mut None)).0
    }

    fn seat(&self, saw_cancel: bool) -> LeafSeat<'_> {
        LeafSeat::new(self.home(), self.key, saw_cancel)
    }
}

impl<F: Future> Parts<'_, F> {
    /// Goes on in the frame that the task has got.
    pub(crate) fn go_on(&mut self, grown: &Grown, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        self.entry.polled_by = WakerId::of(cx.waker());
        match grown.polled {
            Polled::Not => self.poll(cx),
            Polled::Pending => {
                self.entry.arm(cx.waker());
                Poll::Pending
            }
            Polled::Cancelled { began_with_budget } => {
                self.entry.saw_cancel = true;
                self.conclude(&grown.frame, cx, began_with_budget, None)
            }
        }
    }
}
