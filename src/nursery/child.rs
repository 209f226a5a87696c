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
use crate::region::{End, Payload, Region};
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
            let mut this = this.project();
            let Some(place) = this.place.take() else { return };
            // A panic in a destructor of the child must not keep the count up.
            drop(this.region.as_mut().discard());
            if let Some(frame) = this.region.frame() {
                place.lose(frame);
            }
        }
    }
}

/// The place of a child in its nursery.
pub(crate) struct Place<E> {
    key: usize,
    /// It borrows, so it goes with the frame around it; that is no loss.
    borrows: bool,
    /// Set for a child that has not said yet that it has started.
    gate: Option<Arc<Gate<E>>>,
    /// Last: the nursery may end as soon as it is dropped.
    ticket: Ticket<Arc<Shared<E>>>,
}

impl<F: Future, E: fmt::Display> Child<F, E> {
    pub(crate) fn new(fut: F, frame: Arc<Frame>, ticket: Ticket<Arc<Shared<E>>>, gate: Option<Arc<Gate<E>>>) -> Self {
        let key = ticket.owner().node.add_task(&frame);
        let span = frame.task().map(Span::of_task).unwrap_or_default();
        let place = Place { key, borrows: false, gate, ticket };
        Self { region: Region::within(frame, fut), place: Some(place), span }
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
        Poll::Ready(match (this.place.take(), this.region.frame()) {
            (Some(place), Some(frame)) => place.end(end, frame),
            (None, _) | (_, None) => Outcome::Lost,
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
    fn end<T>(self, end: Ended<T, E>, frame: &Arc<Frame>) -> Outcome<T, Arc<E>> {
        if let (Ended::Cut(_), Some(task)) = (&end, frame.task()) {
            task.cut();
        }
        let shared = self.ticket.owner();
        let name = || task_name(frame);
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
        let unseen = self.leave(frame);
        if unseen && handle_owns {
            report_unseen(frame, &outcome);
        }
        drop(self.ticket);
        let unseen_later = frame.task().is_some_and(TaskInfo::settle) && !unseen;
        if unseen_later && handle_owns {
            report_unseen(frame, &outcome);
        }
        outcome
    }

    /// Takes the child out of the tree. True if its handle is gone.
    fn leave(&self, frame: &Frame) -> bool {
        let unseen = frame.end_task();
        self.ticket.owner().node.remove_task(self.key);
        unseen
    }

    fn lose(self, frame: &Frame) {
        if let Some(gate) = &self.gate {
            gate.close();
        }
        self.leave(frame);
        if let Some(task) = frame.task().filter(|_| !self.borrows) {
            host::report(frame.home(), Event::Lost(Subject::of_task(task)));
        }
        drop(self.ticket);
    }
}

fn task_name(frame: &Frame) -> Arc<str> {
    frame.task().map_or_else(|| "body".into(), TaskInfo::name)
}
