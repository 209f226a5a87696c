//! A child of a nursery, as the future that the runtime polls.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::start::Gate;
use super::{Shared, Ticket};
use crate::core::task::TaskInfo;
use crate::error::Failed;
use crate::host::{self, Frame};
use crate::outcome::{ChildOutput, Outcome, Panic};
use crate::region::{Cutting, End, Payload, Region};
use crate::report::{Event, Subject};
use crate::task::report_unseen;
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
            let this = this.project();
            let Some(place) = this.place.take() else { return };
            // A panic in a destructor of the child must not keep the count up.
            drop(this.region.discard());
            place.lose();
        }
    }
}

/// The place of a child in its nursery.
pub(crate) struct Place<E> {
    shared: Arc<Shared<E>>,
    frame: Arc<Frame>,
    key: usize,
    /// It borrows, so it goes with the frame around it; that is no loss.
    borrows: bool,
    /// Set for a child that has not said yet that it has started.
    gate: Option<Arc<Gate<E>>>,
    /// Last: the nursery may end as soon as it is dropped.
    ticket: Ticket,
}

impl<F: Future, E: fmt::Display> Child<F, E> {
    pub(crate) fn new(
        fut: F,
        shared: Arc<Shared<E>>,
        frame: Arc<Frame>,
        ticket: Ticket,
        gate: Option<Arc<Gate<E>>>,
    ) -> Self {
        let key = shared.node.add_frame(&frame);
        let span = frame.task().map(Span::of_task).unwrap_or_default();
        let place = Place { shared, frame, key, borrows: false, gate, ticket };
        Self { region: Region::new(fut, Cutting::Unwinds), place: Some(place), span }
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
        let Some(place) = this.place else { return Poll::Pending };
        if !this.region.is_entered() {
            this.region.as_mut().enter(Arc::clone(&place.frame));
        }
        let Poll::Ready(end) = this.span.inside(|| this.region.poll(cx)) else { return Poll::Pending };
        let end = match end {
            End::Done(output) => Ended::Returned(output.into_child_result()),
            End::Cut(cut) => Ended::Cut(cut.cause),
            End::Panicked(payload) => Ended::Panicked(payload),
        };
        Poll::Ready(match this.place.take() {
            Some(place) => place.end(end),
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
    fn end<T>(self, end: Ended<T, E>) -> Outcome<T, Arc<E>> {
        if let (Ended::Cut(_), Some(task)) = (&end, self.frame.task()) {
            task.cut();
        }
        let early = self.gate.as_ref().is_some_and(|gate| gate.close());
        let outcome = match (end, &self.gate) {
            (end, Some(gate)) if early => gate.hand_back(end, &self.shared.node),
            (Ended::Returned(Ok(value)), _) => {
                self.shared.succeed(|| self.task_name());
                Outcome::Ok(value)
            }
            (Ended::Returned(Err(error)), _) => {
                let error = Arc::new(error);
                self.fail(|| Failed::Error(Arc::clone(&error)));
                Outcome::Err(error)
            }
            (Ended::Cut(cause), _) => Outcome::Cancelled(cause),
            (Ended::Panicked(payload), _) => {
                let panic = Panic::new(payload);
                self.fail(|| Failed::Panic(panic.clone()));
                Outcome::Panicked(panic)
            }
        };
        let unseen = self.leave();
        let handle_owns = self.shared.policy().handle_owns();
        if unseen && handle_owns {
            report_unseen(&self.shared.node, &self.frame, &outcome);
        }
        let Self { shared, frame, ticket, .. } = self;
        drop(ticket);
        let unseen_later = frame.task().is_some_and(TaskInfo::settle) && !unseen;
        if unseen_later && handle_owns {
            report_unseen(&shared.node, &frame, &outcome);
        }
        outcome
    }

    fn fail(&self, what: impl FnOnce() -> Failed<E>) {
        if !self.shared.policy().handle_owns() {
            self.shared.fail(self.task_name(), what());
        }
    }

    fn task_name(&self) -> Arc<str> {
        self.frame.task().map_or_else(|| "body".into(), TaskInfo::name)
    }

    /// Takes the child out of the tree. True if its handle is gone.
    fn leave(&self) -> bool {
        let unseen = self.frame.end_task();
        self.shared.node.remove_frame(self.key);
        unseen
    }

    fn lose(self) {
        if let Some(gate) = &self.gate {
            gate.close();
        }
        self.leave();
        if let Some(task) = self.frame.task().filter(|_| !self.borrows) {
            host::report(&self.shared.node, Event::Lost(Subject::of_task(task)));
        }
        drop(self.ticket);
    }
}
