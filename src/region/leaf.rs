//! Polling a task that nothing has looked into: by the flag of its nursery, without a frame.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::coop::has_budget_remaining;

use super::{End, Parts, Payload, cause_at, discard, poll_future};
use crate::core::frame::WakerId;
use crate::core::node::TaskKey;
use crate::current::{Current, Enter, Spot};
use crate::host::{Frame, LeafSeat};

/// What such a task keeps beside its future, which is always polled with one waker. It is small: there may be millions.
pub(crate) struct Plain {
    key: TaskKey,
    /// The waker is in the list of the nursery, and stays there.
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
    pub(crate) fn new(key: TaskKey) -> Self {
        Self { key, armed: false }
    }

    pub(crate) fn key(&self) -> TaskKey {
        self.key
    }

    /// A poll as any other, but that nothing can hold the task without making its frame.
    pub(crate) fn poll<F: Future>(
        &mut self,
        mut fut: Pin<&mut Option<F>>,
        mut seat: LeafSeat,
        cx: &mut Context<'_>,
    ) -> Result<Poll<End<F::Output>>, Grown> {
        if let Some(frame) = seat.frame() {
            return Err(Grown { frame, polled: Polled::Not });
        }
        let is_cancelled = seat.begin();
        let began_with_budget = is_cancelled && has_budget_remaining();
        let mut slot = Some(Current { polled_by: WakerId::of(cx.waker()), ..Current::new(Spot::Leaf(seat)) });
        let inside = Enter::new(&mut slot);
        let poll = poll_future(fut.as_mut(), &mut None, cx);
        drop(inside);
        let polled = if is_cancelled { Polled::Cancelled { began_with_budget } } else { Polled::Pending };
        match (poll, slot.map(|current| current.spot)) {
            (Poll::Ready(end), _) => Ok(Poll::Ready(end)),
            (Poll::Pending, Some(Spot::Frame(frame))) => Err(Grown { frame, polled }),
            (Poll::Pending, Some(Spot::Leaf(seat))) => self.conclude(fut, seat, polled, cx),
            (Poll::Pending, None) => Ok(Poll::Pending),
        }
    }

    /// Ends a poll that was pending, and in which nothing has held the task.
    fn conclude<F: Future>(
        &mut self,
        fut: Pin<&mut Option<F>>,
        seat: LeafSeat,
        polled: Polled,
        cx: &mut Context<'_>,
    ) -> Result<Poll<End<F::Output>>, Grown> {
        if matches!(polled, Polled::Cancelled { .. }) {
            if has_budget_remaining() {
                return self.cut(fut, seat, cx);
            }
            // The frame counts how often it is polled once more.
            if let Some(frame) = seat.grow() {
                return Err(Grown { frame, polled });
            }
        }
        self.arm(&seat, matches!(polled, Polled::Cancelled { .. }), cx)
    }

    fn cut<F: Future>(
        &mut self,
        fut: Pin<&mut Option<F>>,
        seat: LeafSeat,
        cx: &mut Context<'_>,
    ) -> Result<Poll<End<F::Output>>, Grown> {
        let home = Arc::clone(seat.home());
        match cause_at(home.latch()) {
            Some((absorber, cause)) => Ok(Poll::Ready(End::cut(self.discard(fut, seat), &absorber, &home, cause))),
            // A shield that was raised since the poll began has un-cancelled the nursery: the task goes on (S5).
            None => self.arm(&seat, true, cx),
        }
    }

    /// Makes sure that a cancel wakes the task. If one came, or went, since the poll began, it looks again.
    fn arm<T>(&mut self, seat: &LeafSeat, saw_cancel: bool, cx: &Context<'_>) -> Result<Poll<T>, Grown> {
        if self.armed {
            return Ok(Poll::Pending);
        }
        if let Some(frame) = seat.arm(cx.waker()) {
            return Err(Grown { frame, polled: Polled::Pending });
        }
        self.armed = true;
        if seat.home().is_cancelled() != saw_cancel {
            cx.waker().wake_by_ref();
        }
        Ok(Poll::Pending)
    }

    /// Drops the future where it stands. A panic in a destructor is handed back.
    pub(crate) fn discard<F>(&mut self, fut: Pin<&mut Option<F>>, seat: LeafSeat) -> Result<(), Payload> {
        let mut slot = Some(Current::new(Spot::Leaf(seat)));
        let _inside = Enter::new(&mut slot);
        discard(fut, &mut None)
    }
}

impl<F: Future> Parts<'_, F> {
    /// Goes on in the frame that the task has got.
    pub(crate) fn go_on(&mut self, grown: &Grown, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        self.entry.slot.iter_mut().for_each(|current| current.polled_by = WakerId::of(cx.waker()));
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
