//! `start`: begin a child, and wait until it says that it is ready.

use std::fmt;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::child::{Child, Ended};
use super::{Nursery, runtime};
use crate::core::cause::{Cause, CauseKind};
use crate::core::live::Weight;
use crate::core::node::{Info, Node as CoreNode};
use crate::core::task::{TaskInfo, Traits};
use crate::current;
use crate::error::StartError;
use crate::host::{self, Frame, Node, lock};
use crate::outcome::{ChildOutput, Outcome, Panic};
use crate::report::{Event, Subject};
use crate::seat::Seat;
use crate::ticket::Ticket;

/// Whether a child has started.
///
/// # Invariants
///
/// 1. *Waiting* goes to *started* or to *over*, once, under the lock. Only the step to *started* moves the child's node into its
///    nursery, and only if the child is not cancelled by then (T59).
/// 2. Whoever finds *waiting* at the child's end hands its end to the caller of `start`, not to the nursery.
pub(crate) struct Gate<E> {
    /// The node of the child: below the caller of `start` at first.
    node: Arc<Node>,
    home: Arc<Node>,
    state: Mutex<State>,
    end: Mutex<Option<oneshot::Sender<Ended<(), E>>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// Started in a cancelled `start`: recorded, but nothing moves.
    TooLate,
    Started,
    Over,
}

impl<E> Gate<E> {
    /// The child says that it has started.
    fn open(&self) -> bool {
        let mut state = lock(&self.state);
        if *state != State::Waiting {
            return false;
        }
        *state = if self.node.is_cancelled() { State::TooLate } else { State::Started };
        let moves = *state == State::Started;
        drop(state);
        if moves {
            // Whoever has got the `Started` may say so while the child ends: what has ended is not linked again.
            self.node.reparent_if(&self.home, || *lock(&self.state) == State::Started);
        }
        moves
    }

    /// Moves the child with the caller of `start`, as long as it is not the nursery's and has not ended.
    fn follow(&self, caller: &Arc<Node>) {
        self.node.reparent_if(caller, || match *lock(&self.state) {
            State::Waiting | State::TooLate => true,
            State::Started | State::Over => false,
        });
    }

    /// The child has ended. True if its end belongs to the caller of `start`.
    pub(crate) fn close(&self) -> bool {
        std::mem::replace(&mut *lock(&self.state), State::Over) != State::Started
    }

    /// Gives the end of a child that never started to the caller of `start`; reports it if that is gone.
    pub(crate) fn hand_back<T>(&self, end: Ended<T, E>, reporter: &Node) -> Outcome<T, Arc<E>>
    where
        E: fmt::Display,
    {
        let end = match end {
            Ended::Returned(result) => Ended::Returned(result.map(drop)),
            Ended::Cut(cause) => Ended::Cut(cause),
            Ended::Panicked(payload) => Ended::Panicked(payload),
        };
        let sender = lock(&self.end).take();
        let back = match sender {
            Some(sender) => sender.send(end).err(),
            None => Some(end),
        };
        if let Some(end) = back {
            report_end(&self.node, reporter, end);
        }
        Outcome::Lost // Nobody holds a handle on this child.
    }
}

/// Reports the end of a child that the caller of `start` did not stay for.
fn report_end<E: fmt::Display>(child: &Node, reporter: &Node, end: Ended<(), E>) {
    let who = Subject::of_node(child);
    match end {
        Ended::Returned(Err(error)) => host::report(reporter, Event::Failed(who, error.to_string().into())),
        Ended::Panicked(payload) => {
            host::report(reporter, Event::Panicked(who, Panic::new(payload).message().into()));
        }
        Ended::Returned(Ok(())) | Ended::Cut(_) => {}
    }
}

/// Given to a child that is begun with [`Nursery::start`]: it says that it is ready.
pub struct Started<V> {
    value: oneshot::Sender<Said<V>>,
    open: Box<dyn FnOnce() -> bool + Send>,
}

impl<V> Started<V> {
    /// Hands `value` to the caller of `start`; from now on the child belongs to the nursery, with everything that it has opened.
    ///
    /// If the caller has been cancelled by then, the child stays where it is, and is cancelled with it; the caller gets the value if
    /// the child ends without being cut off.
    pub fn started(self, value: V) {
        let moved = (self.open)();
        // A caller that is gone wants no value.
        drop(self.value.send(Said { value, moved }));
    }
}

/// What a child said with `started`.
struct Said<V> {
    value: V,
    /// It belongs to the nursery now; else its end is still the caller's to wait for (T59).
    moved: bool,
}

impl<V> fmt::Debug for Started<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Started")
    }
}

/// Made by [`Nursery::start`].
///
/// # Cancel safety
///
/// Dropped before its first poll, nothing has begun. Dropped before the child has started, it cancels the child with cause
/// [`Dropped`](crate::CauseKind::Dropped), and the nursery waits for it. The value that the child hands over is lost.
#[must_use = "futures do nothing unless polled"]
pub struct Start<V, E> {
    state: Option<Run<V, E>>,
    begin: Option<Begin<V, E>>,
    seat: Seat,
}

type Begin<V, E> = Box<dyn FnOnce() -> Option<Run<V, E>> + Send>;

struct Run<V, E> {
    gate: Arc<Gate<E>>,
    value: oneshot::Receiver<Said<V>>,
    /// The value of a child that has started and not moved.
    recorded: Option<V>,
    end: oneshot::Receiver<Ended<(), E>>,
    /// What to do with an end that came and was never fetched.
    unseen: fn(&Node, &Node, Ended<(), E>),
}

pub(super) fn start<V, E, F, O>(nursery: &Nursery<E>, info: Info, make: impl FnOnce(Started<V>) -> F) -> Start<V, E>
where
    V: Send + 'static,
    E: fmt::Display + Send + Sync + 'static,
    F: Future<Output = O> + Send + 'static,
    O: ChildOutput<E>,
    O::Value: Send + 'static,
{
    let node: Arc<Node> = CoreNode::unbound_below(&nursery.node, info.clone(), None, false);
    let (value, on_value) = oneshot::channel();
    let (end, on_end) = oneshot::channel();
    let gate = Arc::new(Gate {
        node: Arc::clone(&node),
        home: Arc::clone(&nursery.node),
        state: Mutex::new(State::Waiting),
        end: Mutex::new(Some(end)),
    });
    let opened = Arc::clone(&gate);
    let fut = make(Started { value, open: Box::new(move || opened.open()) });
    let home = Arc::clone(&nursery.node);
    let begin = move || {
        let ticket = Ticket::of_child(Arc::clone(&home), Weight::Regular)?;
        let caller = current::branch(current::frame().as_ref());
        node.reparent(&caller);
        let task = TaskInfo::new(host::next_task_id(), info, Traits::default());
        // It has no handle that could look at its outcome.
        task.abandon();
        let frame = Frame::of_started(Arc::clone(&home), node, home.is_owned(), task);
        let (child, _) = Child::framed(fut, frame, ticket, Some(Arc::clone(&gate)));
        drop(runtime(&home).spawn(child));
        Some(Run { gate, value: on_value, recorded: None, end: on_end, unseen: report_end })
    };
    Start { state: None, begin: Some(Box::new(begin)), seat: Seat::default() }
}

impl<V, E> Unpin for Start<V, E> {}

impl<V, E> Future for Start<V, E> {
    type Output = Result<V, StartError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(begin) = this.begin.take() {
            this.state = begin();
            if this.state.is_none() {
                return Poll::Ready(Err(StartError::Closed));
            }
        }
        let Some(run) = &mut this.state else { return Poll::Pending };
        if this.seat.has_moved() {
            run.gate.follow(&current::branch(current::frame().as_ref()));
        }
        let result = match run.poll(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                this.seat.stay(cx);
                return Poll::Pending;
            }
        };
        this.state = None;
        this.seat.leave();
        match result {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending, // Cut off by a cancel from outside: the unwinding goes on there.
        }
    }
}

impl<V, E> Run<V, E> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<V, StartError<E>>>> {
        // A child may drop its `Started` long before it ends; a oneshot that is over must not be polled again.
        if !self.value.is_terminated() {
            match self.value.poll_unpin(cx) {
                Poll::Ready(Ok(said)) if said.moved => return Poll::Ready(Some(Ok(said.value))),
                Poll::Ready(Ok(said)) => self.recorded = Some(said.value),
                Poll::Ready(Err(_)) | Poll::Pending => {}
            }
        }
        let Poll::Ready(end) = self.end.poll_unpin(cx) else { return Poll::Pending };
        Poll::Ready(match end {
            Ok(Ended::Returned(Ok(()))) => Some(self.recorded.take().ok_or(StartError::NotStarted)),
            Ok(Ended::Returned(Err(error))) => Some(Err(StartError::Failed(error))),
            Ok(Ended::Cut(cause)) => (!self.gate.node.unwinds()).then_some(Err(StartError::Cancelled(cause))),
            Ok(Ended::Panicked(payload)) => resume_unwind(payload),
            Err(_) => Some(Err(StartError::Lost)),
        })
    }
}

impl<V, E> Drop for Start<V, E> {
    fn drop(&mut self) {
        let Some(mut run) = self.state.take() else { return };
        let mut state = lock(&run.gate.state);
        let waiting = matches!(*state, State::Waiting | State::TooLate);
        if waiting {
            *state = State::TooLate;
        }
        drop(state);
        if waiting {
            // The child finds its owner in the nursery, which has counted it in; the cancel comes first, so that it never runs
            // there as one that has started.
            host::cancel(&run.gate.node, Cause::new(CauseKind::Dropped));
            run.gate.follow(&run.gate.home);
        }
        // Closed first: an end that comes from now on goes back to the child, which reports it.
        run.end.close();
        if let Ok(end) = run.end.try_recv() {
            (run.unseen)(&run.gate.node, &run.gate.home, end);
        }
    }
}

impl<V, E> fmt::Debug for Start<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start").finish_non_exhaustive()
    }
}
