//! A child of a nursery, as the future that the runtime polls.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::fate;
use super::start::Gate;
use crate::core::node::{Leaf, TaskKey};
use crate::core::task::TaskInfo;
use crate::error::Failed;
use crate::host::{self, Frame, Member, Node};
use crate::outcome::{ChildOutput, Outcome, Panic};
use crate::region::{End, Entry, Grown, Parts, Payload, Plain};
use crate::report::{Event, Subject};
use crate::task::{TaskRef, report_unseen};
use crate::ticket::{Regular, Ticket};
use crate::trace::Span;

pin_project! {
    /// A child with its part in the nursery.
    ///
    /// # Invariants
    ///
    /// 1. What the child owns is dropped before it is counted out, and it is counted out before its outcome can be seen: no
    ///    local of a child outlives its nursery (T56).
    /// 2. Dropped before its end, which only the end of the runtime does, it is counted out and reported as lost.
    pub(crate) struct Child<F, E: fmt::Display> {
        #[pin]
        fut: Option<F>,
        // None once the child has ended.
        place: Option<Place<E>>,
        span: Span,
    }

    impl<F, E: fmt::Display> PinnedDrop for Child<F, E> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            let Some(mut place) = this.place.take() else { return };
            // A panic in a destructor of the child must not keep the count up.
            drop(place.discard(this.fut));
            place.lose();
        }
    }
}

/// The place of a child in its nursery.
enum Place<E> {
    /// Nothing has looked into it. All that it keeps has to fit beside a small future into the least that the runtime allocates for
    /// a task.
    Plain(Plain),
    Framed(Box<Framed<E>>),
}

/// A child with a frame.
struct Framed<E> {
    key: TaskKey,
    entry: Entry,
    /// Set for a child that has not said yet that it has started.
    gate: Option<Arc<Gate<E>>>,
    /// Last: the nursery may end as soon as it is dropped.
    ticket: Ticket,
}

impl<F, E: fmt::Display> Child<F, E> {
    /// A child with a frame from the start: others look into it, or will at its end.
    pub(crate) fn framed(fut: F, frame: Arc<Frame>, ticket: Ticket, gate: Option<Arc<Gate<E>>>) -> (Self, TaskRef) {
        let key = ticket.owner().add_task(&frame);
        let member = Member::Frame(Arc::clone(&frame));
        Self::new(fut, member, Place::Framed(Box::new(Framed { key, entry: Entry::within(frame), gate, ticket })))
    }

    /// A child that is no more than a leaf of its nursery.
    pub(crate) fn leaf(fut: F, leaf: Leaf, ticket: Ticket<Regular>) -> (Self, TaskRef) {
        let (key, member) = ticket.owner().add_leaf(leaf);
        Self::new(fut, member, Place::Plain(Plain::new(ticket, key)))
    }

    fn new(fut: F, member: Member, place: Place<E>) -> (Self, TaskRef) {
        let span = Span::of_task(&member);
        (Self { fut: Some(fut), place: Some(place), span }, TaskRef::new(member).expect("a child is a task"))
    }
}

impl<F, E> Future for Child<F, E>
where
    F: Future,
    F::Output: ChildOutput<E>,
    E: fmt::Display + Send + Sync + 'static,
{
    type Output = Outcome<<F::Output as ChildOutput<E>>::Value, Arc<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (fut, place) = (this.fut, this.place);
        let Poll::Ready(end) = this.span.inside(|| poll(fut, place, cx)) else { return Poll::Pending };
        let end = match end {
            End::Done(output) => Ended::Returned(output.into_child_result()),
            End::Cut(cut) => {
                let home = place.as_ref().map(Place::home).filter(|home| cut.goes_on && home.unwinds());
                home.into_iter().for_each(|home| fate::owner(home).cut_off());
                Ended::Cut(cut.cause)
            }
            End::Panicked(payload) => Ended::Panicked(payload),
        };
        Poll::Ready(match place.take() {
            Some(place) => {
                let size = size_of::<Self>().max(size_of::<Self::Output>());
                place.end(end, (size <= HUSK_BYTES_MAX).then(|| cx.waker()))
            }
            None => Outcome::Lost,
        })
    }
}

/// A child that takes more, or whose outcome does, is freed at its end, wherever that is: what nurseries keep is small.
const HUSK_BYTES_MAX: usize = 1024;

fn has_workers(node: &Node) -> bool {
    node.host().is_some_and(|host| host.has_workers)
}

/// Polls a child in its place, which may become a frame by that.
fn poll<F: Future, E>(
    mut fut: Pin<&mut Option<F>>,
    place: &mut Option<Place<E>>,
    cx: &mut Context<'_>,
) -> Poll<End<F::Output>> {
    let Some(Place::Plain(plain)) = place else { return poll_framed(fut, place, |parts| parts.poll(cx)) };
    let grown = match plain.poll(fut.as_mut(), cx) {
        Ok(poll) => return poll,
        Err(grown) => grown,
    };
    *place = place.take().map(|place| place.grown(&grown));
    poll_framed(fut, place, |parts| parts.go_on(&grown, cx))
}

fn poll_framed<F: Future, E>(
    fut: Pin<&mut Option<F>>,
    place: &mut Option<Place<E>>,
    poll: impl FnOnce(&mut Parts<'_, F>) -> Poll<End<F::Output>>,
) -> Poll<End<F::Output>> {
    match place {
        Some(Place::Framed(framed)) => poll(&mut Parts::new(fut, &mut framed.entry)),
        Some(Place::Plain(_)) | None => Poll::Pending,
    }
}

/// How a child has ended, before anybody was told.
pub(crate) enum Ended<T, E> {
    Returned(Result<T, E>),
    Cut(crate::core::cause::Cause),
    Panicked(Payload),
}

impl<E> Place<E> {
    /// The place of a child that has got a frame.
    fn grown(self, grown: &Grown) -> Self {
        match self {
            Self::Plain(plain) => {
                let (key, entry) = (plain.key(), Entry::within(Arc::clone(&grown.frame)));
                Self::Framed(Box::new(Framed { key, entry, gate: None, ticket: plain.into_ticket() }))
            }
            Self::Framed(_) => self,
        }
    }

    fn discard<F>(&mut self, fut: Pin<&mut Option<F>>) -> Result<(), Payload> {
        match self {
            Self::Plain(plain) => plain.discard(fut),
            Self::Framed(framed) => Parts::new(fut, &mut framed.entry).discard(),
        }
    }

    fn key(&self) -> TaskKey {
        match self {
            Self::Plain(plain) => plain.key(),
            Self::Framed(framed) => framed.key,
        }
    }

    /// The node of the nursery.
    fn home(&self) -> &Arc<Node> {
        match self {
            Self::Plain(plain) => plain.home(),
            Self::Framed(framed) => framed.ticket.owner(),
        }
    }

    fn gate(&self) -> Option<&Arc<Gate<E>>> {
        match self {
            Self::Plain(_) => None,
            Self::Framed(framed) => framed.gate.as_ref(),
        }
    }

    fn frame(&self) -> Option<&Arc<Frame>> {
        match self {
            Self::Plain(_) => None,
            Self::Framed(framed) => framed.entry.frame(),
        }
    }
}

impl<E: fmt::Display> Place<E> {
    /// Tells the nursery, or the caller of `start`, how the child has ended; then counts it out.
    fn end<T>(self, end: Ended<T, E>, husk: Option<&Waker>) -> Outcome<T, Arc<E>>
    where
        E: Send + Sync + 'static,
    {
        let was_cut = matches!(end, Ended::Cut(_));
        let home = self.home();
        let name = || self.name();
        let handle_owns = fate::policy(home).handle_owns();
        let fail = |what| {
            if !handle_owns {
                fate::fail(home, name(), what);
            }
        };
        let early = self.gate().is_some_and(|gate| gate.close());
        let mut winner = None;
        let outcome = match (end, self.gate()) {
            (end, Some(gate)) if early => gate.hand_back(end, home),
            (Ended::Returned(Ok(value)), _) => {
                winner = fate::succeed(home).then(name);
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
        let unseen = self.leave(was_cut, husk);
        // After its end is known: whoever awaits it hears of that before the cancel.
        winner.into_iter().for_each(|name| fate::cancel_losers(home, name));
        // A child whose handle owns it has a frame. Of any other nobody reports; it is counted out with `self`, before the outcome
        // goes out.
        let Some(frame) = self.frame().filter(|_| handle_owns).map(Arc::clone) else { return outcome };
        if unseen {
            report_unseen(&frame, &outcome);
        }
        drop(self);
        if frame.task().is_some_and(TaskInfo::settle) && !unseen {
            report_unseen(&frame, &outcome);
        }
        outcome
    }

    /// Takes the child out of the tree. True if its handle is gone. `husk`: what keeps its memory.
    fn leave(&self, was_cut: bool, husk: Option<&Waker>) -> bool {
        // Where one thread polls all, nearly all is freed where it was allocated.
        let husk = || husk.filter(|_| !fate::owner(self.home()).borrows && has_workers(self.home()));
        let end = |frame: &Arc<Frame>| {
            frame.task().filter(|_| was_cut).into_iter().for_each(TaskInfo::cut);
            frame.end_task()
        };
        let unseen = self.frame().is_some_and(end);
        match (self.frame(), self.home().remove_task(self.key(), husk)) {
            // Made by somebody else, and not known to the child before its end.
            (None, Some(frame)) => end(&frame),
            (Some(_), _) | (None, None) => unseen,
        }
    }

    fn member(&self) -> Member {
        self.home().member(self.key()).expect("a child is listed until it leaves")
    }

    fn name(&self) -> Arc<str> {
        self.member().with_task(TaskInfo::name).expect("a child is a task")
    }

    fn lose(self) {
        if let Some(gate) = self.gate() {
            gate.close();
        }
        let (home, member) = (self.home(), self.member());
        self.leave(false, None);
        // What borrows goes with the frame around it; that is no loss.
        if let Some(who) = member.with_task(Subject::of_task).filter(|_| !fate::owner(home).borrows) {
            host::report(home, Event::Lost(who));
        }
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use std::convert::Infallible;
    use std::hint::black_box;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::current;
    use crate::nursery::{Nursery, nursery, nursery_local};

    /// Tokio keeps 96 bytes of its own in a task, and its result where the future was.
    #[test]
    fn a_child_with_a_small_future_fits_into_the_128_bytes_that_a_task_has_at_least() {
        assert!(size_of::<Option<Place<Infallible>>>() <= 16);
        assert!(size_of::<Outcome<(), Arc<Infallible>>>() <= 16);
    }

    /// Of how many tasks memory is kept after 100 have been alive at once.
    async fn kept<const SIZE: usize, const OUTCOME: usize>(n: Nursery<Infallible>) -> usize {
        let gate = Arc::new(Semaphore::new(0));
        let child = |gate: Arc<Semaphore>| async move {
            let large = [0_u8; SIZE];
            drop(gate.acquire().await);
            black_box(large);
            Ok([0_u8; OUTCOME])
        };
        let tasks: Vec<_> = (0..100).map(|_| n.spawn(child(Arc::clone(&gate)))).collect();
        gate.add_permits(1);
        for task in tasks {
            task.await.unwrap();
        }
        n.node.husks()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn where_tasks_end_on_other_threads_the_memory_of_small_ones_is_kept() {
        assert_eq!(nursery(|n| async move { Ok(kept::<0, 0>(n).await) }).await.unwrap(), 64);
        assert_eq!(nursery(|n| async move { Ok(kept::<1025, 0>(n).await) }).await.unwrap(), 0);
        assert_eq!(nursery(|n| async move { Ok(kept::<0, 1025>(n).await) }).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn where_all_tasks_end_on_one_thread_none_is_kept() {
        assert_eq!(nursery(|n| async move { Ok(kept::<0, 0>(n).await) }).await.unwrap(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn children_of_one_task_are_freed_at_their_ends() {
        let left = nursery_local(|n| async move {
            // None is polled before all are spawned.
            let tasks: Vec<_> = (0..100).map(|_| n.spawn(async {})).collect();
            for task in tasks {
                task.await.unwrap();
            }
            Ok::<_, Infallible>(current::node().husks())
        });
        assert_eq!(left.await.unwrap(), 0);
    }
}
