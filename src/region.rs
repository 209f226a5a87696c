//! Polling a frame: poll once more when cancelled, then drop, unless something holds.

mod leaf;

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub(crate) use leaf::{Grown, Plain};
use pin_project_lite::pin_project;
use tokio::task::coop::has_budget_remaining;

use crate::core::cause::Cause;
use crate::core::frame::{Track, Verdict, WakerId};
use crate::current::{self, Current, Enter};
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

/// What a region keeps beside its future.
pub(crate) struct Entry {
    /// Ours while we are not being polled; the current one of whoever polls us, while we are.
    slot: Option<Current>,
    /// The waker of the last poll was armed.
    armed: bool,
    /// The last poll began with the cancel visible.
    saw_cancel: bool,
    grace: Grace,
    cutting: Cutting,
    /// What was rescued when the future was dropped, if somebody around it has to wait for that.
    rests: Rests,
}

/// In a box, because nearly all regions have none, and are smaller for it.
type Rests = Option<Box<Vec<Rest>>>;

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

/// Polls that prove nothing, because Tokio's coop budget ended them: one full turn is granted (M1), and a region that is
/// polled after others have used the budget up is given a few tries.
#[derive(Default)]
struct Grace {
    full: bool,
    starved: u8,
}

const STARVED_MAX: u8 = 16;

impl Grace {
    /// True if the poll that ended now tells whether the region can go on.
    fn is_conclusive(&mut self, began_with_budget: bool) -> bool {
        if has_budget_remaining() {
            return true;
        }
        if began_with_budget {
            return std::mem::replace(&mut self.full, true);
        }
        self.starved = self.starved.saturating_add(1);
        self.starved > STARVED_MAX
    }
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
        entry.slot = Some(Current::at(frame));
    }

    /// Keeps the place of a bud for the next poll.
    pub(crate) fn stay(self: Pin<&mut Self>, bud: Current) {
        self.project().entry.slot = Some(bud);
    }

    /// The frame of a bud, made now if there is none, and the hold on what is around it.
    pub(crate) fn grow(self: Pin<&mut Self>) -> Option<(Arc<Frame>, Hold)> {
        Some(self.project().entry.slot.take()?.into_planted()?.claim())
    }

    /// The place of a bud, whether or not it has a frame by now.
    pub(crate) fn planted(&self) -> Option<&BudSeat> {
        self.entry.slot.as_ref().and_then(Current::planted)
    }

    /// True if it is a bud no more: something has looked into it, or is about to.
    pub(crate) fn is_looked_into(&self) -> bool {
        self.entry.slot.as_ref().is_some_and(|current| current.bud().is_none_or(BudSeat::is_over))
    }

    /// Leaves its place after the end. Gives the frame of what was a bud until then and had become a node, and what is still in it.
    pub(crate) fn leave(self: Pin<&mut Self>) -> Option<Left> {
        let mut this = self.project();
        this.fut.set(None);
        this.entry.slot.take()?.into_planted()?.end()
    }

    pub(crate) fn is_entered(&self) -> bool {
        self.entry.slot.is_some()
    }

    /// The frame that it is bound to; not known while it is being polled.
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
        let Entry { slot, rests, .. } = &mut *self.entry;
        let _inside = Enter::new(slot);
        discard(self.fut.as_mut(), rests)
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
        let Entry { slot, armed, saw_cancel, rests, .. } = &mut *this.entry;
        let is_as_before = *armed && !*saw_cancel && !branch.node.is_cancelled();
        if !is_as_before || slot.as_ref()?.polled_by != WakerId::of(cx.waker()) {
            return None;
        }
        let inside = Enter::new_if(slot, |outer| branch.is_fresh(outer, cx.waker()))?;
        let poll = poll_future(this.fut, rests, cx);
        drop(inside);
        if poll.is_pending() {
            this.entry.arm(cx.waker());
        }
        Some(poll)
    }

    /// The poll of a bud, whose task is known if nothing of ours is around it. None if it has to have a frame by now.
    pub(crate) fn poll_bud(
        self: Pin<&mut Self>,
        task: Option<tokio::task::Id>,
        cx: &mut Context<'_>,
    ) -> Option<Poll<End<F::Output>>> {
        let this = self.project();
        let inside = Enter::bud(&mut this.entry.slot, task, cx.waker())?;
        let poll = poll_future(this.fut, &mut this.entry.rests, cx);
        drop(inside);
        Some(poll)
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
        let Entry { slot, rests, armed, .. } = &mut *self.entry;
        if let Some(current) = slot {
            let id = WakerId::of(cx.waker());
            *armed &= current.polled_by == id;
            current.polled_by = id;
        }
        let _inside = Enter::new(slot);
        poll_future(self.fut.as_mut(), rests, cx)
    }

    /// A poll that begins with the cancel visible.
    fn poll_cancelled(&mut self, frame: &Arc<Frame>, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        let was_held = frame.begin(!std::mem::replace(&mut self.entry.saw_cancel, true));
        let began_with_budget = has_budget_remaining();
        // Without a hold nobody asks whether a wake is outstanding.
        let last = self.entry.slot.as_mut().and_then(|current| current.track.take());
        let (tracked, waker) = if was_held { tracked(last, cx.waker()) } else { (None, cx.waker().clone()) };
        if tracked.as_ref().is_some_and(|tracked| tracked.track.is_disturbed()) {
            frame.disturb();
        }
        let track = tracked.as_ref().map(|tracked| Arc::clone(&tracked.track));
        self.entry.slot.iter_mut().for_each(|current| current.track.clone_from(&track));
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

impl Entry {
    pub(crate) fn new(cutting: Cutting) -> Self {
        Self { slot: None, armed: false, saw_cancel: false, grace: Grace::default(), cutting, rests: None }
    }

    /// That of a whole task.
    pub(crate) fn within(frame: Arc<Frame>) -> Self {
        Self { slot: Some(Current::at(frame)), ..Self::new(Cutting::Unwinds) }
    }

    /// The frame of the region; not known while it is being polled.
    pub(crate) fn frame(&self) -> Option<&Arc<Frame>> {
        self.slot.as_ref().and_then(Current::frame)
    }

    /// The cancel that the last poll has seen was taken back.
    fn forget_cancel(&mut self) {
        if std::mem::take(&mut self.saw_cancel) {
            self.slot.iter_mut().for_each(|current| current.track = None);
        }
    }

    /// Makes sure that a cancel wakes the task. If the last waker was taken, a cancel may have come meanwhile: look again.
    #[inline]
    fn arm(&mut self, waker: &Waker) {
        let is_armed = |current: &Current| current.frame().is_none_or(|frame| frame.is_armed());
        if !self.armed || !self.slot.as_ref().is_some_and(is_armed) {
            self.arm_anew(waker);
        }
    }

    fn arm_anew(&mut self, waker: &Waker) {
        let Some(current) = &mut self.slot else { return };
        let Some(frame) = current.frame() else { return };
        frame.arm(waker);
        let is_cancelled = frame.is_cancelled();
        current.polled_by = WakerId::of(waker);
        self.armed = true;
        if is_cancelled != self.saw_cancel {
            waker.wake_by_ref();
        }
    }

    /// What a cancelled poll that ended pending means. One that Tokio's budget has ended proves nothing, and is repeated (M1).
    fn verdict(&mut self, frame: &Frame, began_with_budget: bool, woken: bool) -> Verdict {
        let held = frame.is_held_in_this_poll();
        if held {
            // What a hold uses up is not taken from the turn of the code after it.
            self.grace = Grace::default();
        }
        let conclusive = if held { has_budget_remaining() } else { self.grace.is_conclusive(began_with_budget) };
        if !held && !conclusive {
            return Verdict::Probe;
        }
        let verdict = frame.judge(woken);
        // A hold that was polled may have gone since, on another thread; then this poll proves nothing after all.
        if verdict == Verdict::Cut && !conclusive { Verdict::Probe } else { verdict }
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
        let (_, current) = current?;
        (current.polled_by == WakerId::of(waker)).then(|| current.track.clone()).flatten()
    });
    if let Some(track) = known {
        return (Some(Tracked { track, ends: false }), waker.clone());
    }
    let track = last.filter(|last| last.is_for(waker)).unwrap_or_else(|| Track::new(waker));
    track.begin();
    let inside = Waker::from(Arc::clone(&track));
    (Some(Tracked { track, ends: true }), inside)
}
