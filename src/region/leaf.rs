//! Polling a task that nothing has looked into: by the flag of its nursery, without a frame.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::task::coop::has_budget_remaining;

use super::{End, Entry, Region, poll_future};
use crate::core::frame::WakerId;
use crate::current::{Current, Enter, Spot};
use crate::host::{Frame, LeafSeat};

impl<F: Future> Region<F> {
    /// A poll as any other, but that nothing can hold the task without making its frame. From then on it is polled as a frame.
    pub(super) fn poll_leaf(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        let this = self.as_mut().project();
        let Some(leaf) = this.entry.leaf() else { return Poll::Pending };
        if let Some(frame) = leaf.grown() {
            this.entry.become_frame(frame);
            return self.poll(cx);
        }
        let is_cancelled = leaf.begin();
        let began_with_budget = is_cancelled && has_budget_remaining();
        this.entry.begin(cx.waker(), is_cancelled);
        let inside = Enter::new(&mut this.entry.slot);
        let poll = poll_future(this.fut, &mut this.entry.rests, cx);
        drop(inside);
        if poll.is_ready() {
            return poll;
        }
        let frame = self.frame().map(Arc::clone);
        match (frame, is_cancelled) {
            (Some(frame), true) => self.conclude(&frame, cx, began_with_budget, None),
            (None, true) => self.conclude_leaf(cx, began_with_budget),
            (_, false) => {
                self.arm(cx.waker());
                Poll::Pending
            }
        }
    }

    /// Ends a poll with the cancel visible that was pending, and in which nothing has held the task.
    fn conclude_leaf(mut self: Pin<&mut Self>, cx: &mut Context<'_>, began_with_budget: bool) -> Poll<End<F::Output>> {
        let entry = self.as_mut().project().entry;
        let is_conclusive = entry.grace.is_conclusive(began_with_budget);
        let home = entry.leaf().filter(|_| is_conclusive).map(|leaf| Arc::clone(leaf.home()));
        let Some(home) = home else {
            entry.arm(cx.waker());
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        self.cut_at(home.latch(), &home, cx)
    }
}

impl Entry {
    fn leaf(&mut self) -> Option<&mut LeafSeat> {
        match &mut self.slot.as_mut()?.spot {
            Spot::Leaf(leaf) => Some(leaf),
            Spot::Frame(_) => None,
        }
    }

    fn begin(&mut self, waker: &Waker, is_cancelled: bool) {
        self.saw_cancel = is_cancelled;
        if let Some(current) = &mut self.slot {
            let id = WakerId::of(waker);
            self.armed &= current.polled_by == id;
            current.polled_by = id;
        }
    }

    fn become_frame(&mut self, frame: Arc<Frame>) {
        self.slot = Some(Current::at(frame));
        self.armed = false;
    }

    /// Makes sure that a cancel wakes the task, once: the waker stays.
    pub(super) fn arm_leaf(&mut self, waker: &Waker) {
        let saw_cancel = self.saw_cancel;
        let Some(leaf) = self.leaf() else { return };
        if let Some(frame) = leaf.arm(waker) {
            self.become_frame(frame);
            return self.arm(waker);
        }
        let is_cancelled = leaf.home().is_cancelled();
        self.armed = true;
        if is_cancelled != saw_cancel {
            waker.wake_by_ref();
        }
    }
}
