//! Polling a frame: poll once more when cancelled, then drop, unless something holds.

mod entry;
mod leaf;

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub(crate) use entry::Entry;
use entry::{Rests, Slot};
pub(crate) use leaf::{Grown, Plain};
use pin_project_lite::pin_project;
use tokio::task::coop::has_budget_remaining;

use crate::core::cause::Cause;
use crate::core::frame::{Track, Verdict, WakerId};
use crate::current::{self, Level};
use crate::error::Cancelled;
use crate::host::{BudSeat, Frame, Hold, Left};
use crate::rest::{Rest, collect, hand_on};
use crate::seat::Branch;

pin_project! {
    /// A future together with the frame that it is.
    ///
    /// # Invariants
    ///
    /// 1. The frame is cut at the first pending end of a poll that began with the cancel visible, had a full turn of Tokio's coop
    ///    budget, and finds no hold (M1, M2).
    /// 2. The absorber is fixed before the future is dropped (M3).
    /// 3. A future that has ended, was cut, or has panicked is gone, and never polled again (M7).
    #[project = Parts]
    pub(crate) struct Region<F> {
        #[pin]
        fut: Option<F>,
        entry: Entry,
    }
}

/// What a cut means for what is around the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cutting {
    /// The unwinding goes on to the absorber, which is fixed by this cut.
    Unwinds,
    /// The code around the region runs on.
    Caught,
}

/// How a region has ended.
pub(crate) enum End<T> {
    Done(T),
    Cut(Cut),
    Panicked(Payload),
}

pub(crate) type Payload = Box<dyn Any + Send>;

/// A region was cut off.
pub(crate) struct Cut {
    /// The scope that absorbs it is further out.
    pub(crate) goes_on: bool,
    pub(crate) cause: Cause,
}

impl<F> Region<F> {
    pub(crate) fn new(fut: F, cutting: Cutting) -> Self {
        Self { fut: Some(fut), entry: Entry::new(cutting) }
    }

    /// Keeps what is rescued when the future is dropped, for [`take_rests`](Self::take_rests).
    pub(crate) fn collecting(mut self) -> Self {
        self.entry.rests = Some(Box::default());
        self
    }

    pub(crate) fn take_rests(self: Pin<&mut Self>) -> Vec<Rest> {
        self.project().entry.rests.as_deref_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Binds the region to its frame, at its first poll or when it has moved (M4).
    pub(crate) fn enter(self: Pin<&mut Self>, frame: Arc<Frame>) {
        let entry = self.project().entry;
        entry.armed = false;
        entry.bind(frame);
    }

    /// Keeps the place of a bud for the next poll.
    pub(crate) fn stay(self: Pin<&mut Self>, bud: BudSeat, polled_by: WakerId) {
        let entry = self.project().entry;
        (entry.slot, entry.polled_by) = (Slot::Bud(bud), polled_by);
    }

    /// The frame of a bud, made now if there is none, and the hold on what is around it.
    pub(crate) fn grow(self: Pin<&mut Self>) -> Option<(Arc<Frame>, Hold)> {
        Some(self.project().entry.take_bud()?.claim())
    }

    /// The place of a bud, whether or not it has a frame by now.
    pub(crate) fn planted(&self) -> Option<&BudSeat> {
        self.entry.bud()
    }

    /// Leaves its place after the end. Gives the frame of what was a bud until then and had become a node, and what is still in it.
    pub(crate) fn leave(self: Pin<&mut Self>) -> Option<Left> {
        let mut this = self.project();
        this.fut.set(None);
        this.entry.take_bud()?.end()
    }

    pub(crate) fn is_entered(&self) -> bool {
        !matches!(self.entry.slot, Slot::None)
    }

    /// The frame that it is bound to.
    pub(crate) fn frame(&self) -> Option<&Arc<Frame>> {
        self.entry.frame()
    }

    /// Makes sure that a cancel wakes the task.
    pub(crate) fn arm(self: Pin<&mut Self>, waker: &Waker) {
        self.project().entry.arm(waker);
    }

    /// Drops the future where it stands. A panic in a destructor is handed back.
    pub(crate) fn discard(self: Pin<&mut Self>) -> Result<(), Payload> {
        self.project().discard()
    }
}

impl<'a, F> Parts<'a, F> {
    /// A region whose parts are kept apart.
    pub(crate) fn new(fut: Pin<&'a mut Option<F>>, entry: &'a mut Entry) -> Self {
        Self { fut, entry }
    }

    pub(crate) fn discard(&mut self) -> Result<(), Payload> {
        let Entry { slot, polled_by, track, rests, .. } = &mut *self.entry;
        let (fut, track) = (self.fut.as_mut(), track.as_ref());
        slot.inside(*polled_by, track, || discard(fut, rests))
    }
}

/// Drops a future inside the frame that is current.
fn discard<F>(mut fut: Pin<&mut Option<F>>, rests: &mut Rests) -> Result<(), Payload> {
    let mut discard = || catch_unwind(AssertUnwindSafe(|| fut.set(None)));
    match rests {
        None => discard(),
        Some(rests) => {
            let (more, result) = collect(discard);
            rests.extend(more);
            result
        }
    }
}

/// Polls a future inside the frame that is current, and drops it there when it has ended.
fn poll_future<F: Future>(
    mut fut: Pin<&mut Option<F>>,
    rests: &mut Rests,
    cx: &mut Context<'_>,
) -> Poll<End<F::Output>> {
    let Some(polled) = fut.as_mut().as_pin_mut() else { return Poll::Pending };
    let poll = || catch_unwind(AssertUnwindSafe(|| polled.poll(cx)));
    let result = match rests {
        None => poll(),
        Some(rests) => collect_panic(rests, poll),
    };
    match result {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(value)) => Poll::Ready(match discard(fut, rests) {
            Ok(()) => End::Done(value),
            Err(payload) => End::Panicked(payload),
        }),
        Err(payload) => Poll::Ready(End::Panicked(after_panicked(fut, rests, payload))),
    }
}

/// Drops a future that has panicked. The first panic is the reason, whatever the destructors do after it.
#[cold]
fn after_panicked<F>(fut: Pin<&mut Option<F>>, rests: &mut Rests, payload: Payload) -> Payload {
    drop(discard(fut, rests));
    payload
}

/// Polls, and keeps what a panic has rescued on its way out of the poll. What was rescued otherwise is nobody's business here.
fn collect_panic<T>(rests: &mut Vec<Rest>, poll: impl FnOnce() -> Result<T, Payload>) -> Result<T, Payload> {
    let (rescued, result) = collect(poll);
    match &result {
        Err(_) => rests.extend(rescued),
        Ok(_) => hand_on(rescued),
    }
    result
}

impl<F: Future> Region<F> {
    /// Polls the future inside its frame. Must not be called again after it was ready.
    pub(crate) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        self.project().poll(cx)
    }

    /// Polls the future in its place, `branch`, which follows it if it has moved, and holds what is around it while it stays pending.
    pub(crate) fn poll_at(mut self: Pin<&mut Self>, branch: &mut Branch, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        if let Some(poll) = self.as_mut().poll_again(branch, cx) {
            return poll;
        }
        if let Some(frame) = self.frame() {
            branch.follow(frame);
        }
        self.poll_entered(branch, cx)
    }

    /// The same right after it has entered or followed.
    pub(crate) fn poll_entered(
        self: Pin<&mut Self>,
        branch: &mut Branch,
        cx: &mut Context<'_>,
    ) -> Poll<End<F::Output>> {
        let poll = self.poll(cx);
        if poll.is_pending() { branch.stay(cx) } else { poll }
    }

    /// The poll of a region that is where it was, is polled with the waker that it had, and is not cancelled: it has nothing to do but
    /// the step into its frame and back. None if that is not so.
    fn poll_again(self: Pin<&mut Self>, branch: &Branch, cx: &mut Context<'_>) -> Option<Poll<End<F::Output>>> {
        let this = self.project();
        let Entry { slot, polled_by, armed, saw_cancel, rests, .. } = &mut *this.entry;
        let (id, waker) = (WakerId::of(cx.waker()), cx.waker());
        let is_as_before = *armed && !*saw_cancel && *polled_by == id && !branch.node.is_cancelled();
        let Slot::Frame(frame) = slot else { return None };
        if !is_as_before {
            return None;
        }
        let fits = |outer: &Level<'_>| branch.is_fresh(outer, waker);
        let poll = current::in_frame_if(frame, id, fits, || poll_future(this.fut, rests, cx))?;
        let Poll::Ready(end) = poll else {
            this.entry.arm(cx.waker());
            return Some(Poll::Pending);
        };
        Some(Poll::Ready(end))
    }

    /// The poll of a bud, whose task is known if nothing of ours is around it. None if it has to have a frame by now.
    pub(crate) fn poll_bud(
        self: Pin<&mut Self>,
        task: Option<tokio::task::Id>,
        cx: &mut Context<'_>,
    ) -> Option<Poll<End<F::Output>>> {
        let this = self.project();
        let Entry { slot, polled_by, rests, .. } = &mut *this.entry;
        let (id, Slot::Bud(bud)) = (WakerId::of(cx.waker()), slot) else { return None };
        if *polled_by != id {
            return None;
        }
        current::in_bud(bud, id, task, || poll_future(this.fut, rests, cx))
    }

    /// The first poll of a region whose place is only planned; it is the current one.
    pub(crate) fn poll_planned(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        let this = self.project();
        poll_future(this.fut, &mut this.entry.rests, cx)
    }
}

impl<F: Future> Parts<'_, F> {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        let Some(frame) = self.entry.frame() else { return Poll::Pending };
        if frame.is_cancelled() {
            let frame = Arc::clone(frame);
            return self.poll_cancelled(&frame, cx);
        }
        self.entry.forget_cancel();
        let poll = self.poll_inside(cx);
        if poll.is_pending() {
            self.entry.arm(cx.waker());
        }
        poll
    }

    fn poll_inside(&mut self, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        let Entry { slot, polled_by, track, rests, armed, .. } = &mut *self.entry;
        let id = WakerId::of(cx.waker());
        *armed &= std::mem::replace(polled_by, id) == id;
        let (fut, track) = (self.fut.as_mut(), track.as_ref());
        slot.inside(id, track, || poll_future(fut, rests, cx))
    }

    /// A poll that begins with the cancel visible.
    fn poll_cancelled(&mut self, frame: &Arc<Frame>, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        let was_held = frame.begin(!std::mem::replace(&mut self.entry.saw_cancel, true));
        let began_with_budget = has_budget_remaining();
        // Without a hold nobody asks whether a wake is outstanding.
        let last = self.entry.track.take();
        let (tracked, waker) = if was_held { tracked(last, cx.waker()) } else { (None, cx.waker().clone()) };
        if tracked.as_ref().is_some_and(|tracked| tracked.track.is_disturbed()) {
            frame.disturb();
        }
        self.entry.track = tracked.as_ref().map(|tracked| Arc::clone(&tracked.track));
        let poll = self.poll_inside(&mut Context::from_waker(&waker));
        if poll.is_ready() {
            return poll;
        }
        if !was_held && has_budget_remaining() && !frame.is_held() {
            return self.cut(frame, cx);
        }
        self.conclude(frame, cx, began_with_budget, tracked)
    }

    /// Ends a poll with the cancel visible that was pending.
    fn conclude(
        &mut self,
        frame: &Arc<Frame>,
        cx: &mut Context<'_>,
        began_with_budget: bool,
        tracked: Option<Tracked>,
    ) -> Poll<End<F::Output>> {
        // First the waker, then the verdict: a hold that goes meanwhile finds the one or is missing in the other.
        self.entry.arm(cx.waker());
        let woken = tracked.as_ref().is_some_and(|tracked| tracked.track.is_woken());
        let verdict = self.entry.verdict(frame, began_with_budget, woken);
        // The wakes of the judge are of this poll, too.
        drop(tracked);
        match verdict {
            Verdict::Held | Verdict::Again => Poll::Pending,
            Verdict::Probe => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Verdict::Cut => self.cut(frame, cx),
        }
    }

    fn cut(&mut self, frame: &Arc<Frame>, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        let cut = match self.entry.cutting {
            Cutting::Unwinds => frame.latch().and_then(|absorber| frame.node().cut_for(&absorber)),
            Cutting::Caught => frame.node().cause().map(|cause| (false, cause)),
        };
        let Some((goes_on, cause)) = cut else {
            // A shield that was raised since the poll began has un-cancelled the region: it goes on (S5), unless it is cancelled again
            // before it is armed.
            self.entry.forget_cancel();
            self.entry.arm(cx.waker());
            return Poll::Pending;
        };
        Poll::Ready(End::cut(self.discard(), Cut { goes_on, cause }))
    }
}

impl<T> End<T> {
    /// The end of what stops a cancel: the code around it runs on.
    pub(crate) fn caught(self) -> Result<T, Cancelled> {
        match self {
            Self::Done(value) => Ok(value),
            Self::Cut(cut) => Err(Cancelled::new(cut.cause)),
            Self::Panicked(payload) => resume_unwind(payload),
        }
    }

    /// The end of what was cut, once it is `discarded`.
    fn cut(discarded: Result<(), Payload>, cut: Cut) -> Self {
        match discarded {
            Ok(()) => Self::Cut(cut),
            Err(payload) => Self::Panicked(payload),
        }
    }
}

/// The track of one poll; whoever has begun it ends it.
struct Tracked {
    track: Arc<Track>,
    ends: bool,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if self.ends {
            self.track.end();
        }
    }
}

/// The waker for what is inside a cancelled frame. Nested frames that are polled with the same waker share one, and so do
/// polls: `last` is that of the poll before.
fn tracked(last: Option<Arc<Track>>, waker: &Waker) -> (Option<Tracked>, Waker) {
    let known = current::with(|current| {
        let (_, level) = current?;
        if level.polled_by == WakerId::of(waker) { level.track.cloned() } else { None }
    });
    if let Some(track) = known {
        return (Some(Tracked { track, ends: false }), waker.clone());
    }
    let track = last.filter(|last| last.is_for(waker)).unwrap_or_else(|| Track::new(waker));
    track.begin();
    let inside = Waker::from(Arc::clone(&track));
    (Some(Tracked { track, ends: true }), inside)
}
