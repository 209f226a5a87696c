//! A child of a nursery, as the future that the runtime polls.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::start::Gate;
use super::{Shared, Ticket};
use crate::core::node::{Leaf, TaskKey};
use crate::core::task::TaskInfo;
use crate::error::Failed;
use crate::host::{self, Frame, LeafSeat, Member};
use crate::outcome::{ChildOutput, Outcome, Panic};
use crate::region::{End, Payload, Region};
use crate::report::{Event, Subject};
use crate::task::{TaskRef, report_unseen};
use crate::trace::Span;

pin_project! {
    /// A child with its frame and its part in the nursery.
    ///
    /// # Invariants
    ///
    /// 1. What the child owns is dropped before it is counted out, and it is counted out before its outcome can be seen: no
    ///    local of a child outlives its nursery (T56).
    /// 2. Dropped before its end, which only the end of the runtime does, it is counted out and reported as lost.
    pub(crate) struct Child<F: Future, E: fmt::Display> {
        #[pin]
        region: Region<F>,
        place: Option<Place<E>>,
        span: Span,
    }

    impl<F: Future, E: fmt::Display> PinnedDrop for Child<F, E> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let Some(place) = this.place.take() else { return };
            // A panic in a destructor of the child must not keep the count up.
            drop(this.region.as_mut().discard());
            place.lose(this.region.frame());
        }
    }
}

/// The place of a child in its nursery.
pub(crate) struct Place<E> {
    key: TaskKey,
    /// It borrows, so it goes with the frame around it; that is no loss.
    borrows: bool,
    /// Set for a child that has not said yet that it has started.
    gate: Option<Arc<Gate<E>>>,
    /// Last: the nursery may end as soon as it is dropped.
    ticket: Ticket<Arc<Shared<E>>>,
}

impl<F: Future, E: fmt::Display> Child<F, E> {
    /// A child with a frame from the start: others look into it, or will at its end.
    pub(crate) fn framed(
        fut: F,
        frame: Arc<Frame>,
        ticket: Ticket<Arc<Shared<E>>>,
        gate: Option<Arc<Gate<E>>>,
    ) -> (Self, TaskRef) {
        let key = ticket.owner().node.add_task(&frame);
        let member = Member::Frame(Arc::clone(&frame));
        Self::new(Region::within(frame, fut), member, Place { key, borrows: false, gate, ticket })
    }

    /// A child that is no more than a leaf of its nursery.
    pub(crate) fn leaf(fut: F, leaf: Leaf, ticket: Ticket<Arc<Shared<E>>>) -> (Self, TaskRef) {
        let (seat, member) = LeafSeat::list(&ticket.owner().node, leaf);
        let place = Place { key: seat.key(), borrows: false, gate: None, ticket };
        Self::new(Region::of_leaf(seat, fut), member, place)
    }

    fn new(region: Region<F>, member: Member, place: Place<E>) -> (Self, TaskRef) {
        let span = Span::of_task(&member);
        (Self { region, place: Some(place), span }, TaskRef::new(member).expect("a child is a task"))
    }

    /// A child that borrows from the task it is polled in.
    pub(crate) fn borrowing(mut self) -> Self {
        self.place.iter_mut().for_each(|place| place.borrows = true);
        self
    }
}

impl<F, E> Future for Child<F, E>
where
    F: Future,
    F::Output: ChildOutput<E>,
    E: fmt::Display,
{
    type Output = Outcome<<F::Output as ChildOutput<E>>::Value, Arc<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.place.is_none() {
            return Poll::Pending;
        }
        let Poll::Ready(end) = this.span.inside(|| this.region.as_mut().poll(cx)) else { return Poll::Pending };
        let end = match end {
            End::Done(output) => Ended::Returned(output.into_child_result()),
            End::Cut(cut) => Ended::Cut(cut.cause),
            End::Panicked(payload) => Ended::Panicked(payload),
        };
        Poll::Ready(match this.place.take() {
            Some(place) => place.end(end, this.region.frame()),
            None => Outcome::Lost,
        })
    }
}

/// How a child has ended, before anybody was told.
pub(crate) enum Ended<T, E> {
    Returned(Result<T, E>),
    Cut(crate::core::cause::Cause),
    Panicked(Payload),
}

impl<E: fmt::Display> Place<E> {
    /// Tells the nursery, or the caller of `start`, how the child has ended; then counts it out.
    fn end<T>(self, end: Ended<T, E>, frame: Option<&Arc<Frame>>) -> Outcome<T, Arc<E>> {
        let was_cut = matches!(end, Ended::Cut(_));
        let shared = self.ticket.owner();
        let name = || self.name();
        let fail = |what| {
            if !shared.policy().handle_owns() {
                shared.fail(name(), what);
            }
        };
        let early = self.gate.as_ref().is_some_and(|gate| gate.close());
        let outcome = match (end, &self.gate) {
            (end, Some(gate)) if early => gate.hand_back(end, &shared.node),
            (Ended::Returned(Ok(value)), _) => {
                shared.succeed(name);
                Outcome::Ok(value)
            }
            (Ended::Returned(Err(error)), _) => {
                let error = Arc::new(error);
                fail(Failed::Error(Arc::clone(&error)));
                Outcome::Err(error)
            }
            (Ended::Cut(cause), _) => Outcome::Cancelled(cause),
            (Ended::Panicked(payload), _) => {
                let panic = Panic::new(payload);
                fail(Failed::Panic(panic.clone()));
                Outcome::Panicked(panic)
            }
        };
        let handle_owns = shared.policy().handle_owns();
        let unseen = self.leave(frame, was_cut);
        // A child whose handle owns it has a frame. Of any other nobody reports; it is counted out with `self`, before the outcome
        // goes out.
        let Some(frame) = frame.filter(|_| handle_owns) else { return outcome };
        if unseen {
            report_unseen(frame, &outcome);
        }
        drop(self.ticket);
        if frame.task().is_some_and(TaskInfo::settle) && !unseen {
            report_unseen(frame, &outcome);
        }
        outcome
    }

    /// Takes the child out of the tree. True if its handle is gone.
    fn leave(&self, frame: Option<&Arc<Frame>>, was_cut: bool) -> bool {
        let end = |frame: &Arc<Frame>| {
            frame.task().filter(|_| was_cut).into_iter().for_each(TaskInfo::cut);
            frame.end_task()
        };
        let unseen = frame.is_some_and(end);
        match (frame, self.ticket.owner().node.remove_task(self.key)) {
            // Made by somebody else, and not known to the child before its end.
            (None, Some(frame)) => end(&frame),
            (Some(_), _) | (None, None) => unseen,
        }
    }

    fn member(&self) -> Member {
        self.ticket.owner().node.member(self.key).expect("a child is listed until it leaves")
    }

    fn name(&self) -> Arc<str> {
        self.member().with_task(TaskInfo::name).expect("a child is a task")
    }

    fn lose(self, frame: Option<&Arc<Frame>>) {
        if let Some(gate) = &self.gate {
            gate.close();
        }
        let member = self.member();
        self.leave(frame, false);
        if let Some(who) = member.with_task(Subject::of_task).filter(|_| !self.borrows) {
            host::report(&self.ticket.owner().node, Event::Lost(who));
        }
        drop(self.ticket);
    }
}
