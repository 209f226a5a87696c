//! A region with a node of its own: where it is entered, followed and left.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::current::{self, Draft, EnterPlanned};
use crate::host::{Frame, Node};
use crate::plan::Plan;
use crate::region::{Cutting, End, Region};
use crate::seat::Branch;

pin_project! {
    /// A future that is a scope, a shield or a catch point.
    ///
    /// # Invariants
    ///
    /// 1. The place is made at the latest when a poll ends pending, so whatever waits is in the tree, armed, and holds what is around
    ///    it. What ends in its first poll costs no node.
    /// 2. A region that has ended has left the tree before its end is given on.
    pub(crate) struct Placed<F> {
        #[pin]
        region: Region<F>,
        place: Place,
    }
}

enum Place {
    Planned(Plan),
    Made(Branch),
    /// The region has ended, or is in its first poll.
    Gone,
}

impl<F> Placed<F> {
    pub(crate) fn new(plan: Plan, fut: F, cutting: Cutting) -> Self {
        Self { region: Region::new(fut, cutting), place: Place::Planned(plan) }
    }

    /// The plan, as long as there was no poll.
    pub(crate) fn plan(&mut self) -> Option<&mut Plan> {
        match &mut self.place {
            Place::Planned(plan) => Some(plan),
            Place::Made(_) | Place::Gone => None,
        }
    }

    pub(crate) fn plan_pinned(self: Pin<&mut Self>) -> Option<&mut Plan> {
        match self.project().place {
            Place::Planned(plan) => Some(plan),
            Place::Made(_) | Place::Gone => None,
        }
    }

    /// The place, from the end of the first poll to the end.
    pub(crate) fn branch(&self) -> Option<&Branch> {
        match &self.place {
            Place::Made(branch) => Some(branch),
            Place::Planned(_) | Place::Gone => None,
        }
    }

    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.branch().map(|branch| &branch.node)
    }

    pub(crate) fn branch_pinned(self: Pin<&mut Self>) -> Option<&mut Branch> {
        match self.project().place {
            Place::Made(branch) => Some(branch),
            Place::Planned(_) | Place::Gone => None,
        }
    }

    /// Makes the place as a first poll inside `outer` would, without a poll.
    pub(crate) fn enter(self: Pin<&mut Self>, outer: Option<&Arc<Frame>>) {
        let this = self.project();
        if let Place::Planned(plan) = this.place {
            let (branch, frame) = plan.make(outer);
            this.region.enter(frame);
            *this.place = Place::Made(branch);
        }
    }
}

impl<F: Future> Placed<F> {
    /// Polls the future in its place. After the end it stays pending.
    pub(crate) fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        let this = self.as_mut().project();
        let Place::Made(branch) = this.place else { return self.poll_new(cx) };
        let poll = this.region.poll_at(branch, cx);
        if poll.is_ready() {
            *this.place = Place::Gone;
        }
        poll
    }

    fn poll_new(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        let Some(plan) = self.as_mut().plan_pinned() else { return Poll::Pending };
        if let Some(inside) = plan.begin(cx.waker()) {
            return self.poll_planned(inside, cx);
        }
        self.as_mut().enter(current::frame().as_ref());
        let this = self.project();
        let Place::Made(branch) = this.place else { return Poll::Pending };
        let poll = this.region.poll_entered(branch, cx);
        if poll.is_ready() {
            *this.place = Place::Gone;
        }
        poll
    }

    fn poll_planned(self: Pin<&mut Self>, inside: EnterPlanned, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        let mut this = self.project();
        let (poll, made) = this.region.as_mut().poll_planned(inside, cx);
        let frame = match made {
            Draft::Made(frame) => Some(frame),
            Draft::Sketch(sketch) if poll.is_pending() => Some(sketch.make(current::frame().as_ref())),
            // Nothing inside has asked, and it needs none any more.
            Draft::Sketch(_) | Draft::Begun => None,
        };
        let Place::Planned(plan) = this.place else { return poll };
        let branch = frame.as_ref().map(|frame| plan.settle(frame));
        *this.place = branch.filter(|_| poll.is_pending()).map_or(Place::Gone, Place::Made);
        let (Place::Made(branch), Some(frame)) = (this.place, frame) else { return poll };
        this.region.as_mut().enter(frame);
        this.region.arm(cx.waker());
        branch.stay(cx)
    }
}
