//! What a region keeps beside its future: where it is polled, and what its polls have shown.

use std::sync::Arc;
use std::task::Waker;

use tokio::task::coop::has_budget_remaining;

use super::Cutting;
use crate::core::frame::{Track, Verdict, WakerId};
use crate::current;
use crate::host::{BudSeat, Frame};
use crate::rest::Rest;

/// What a region keeps beside its future.
pub(crate) struct Entry {
    pub(super) slot: Slot,
    /// The waker of the last poll.
    pub(super) polled_by: WakerId,
    /// Of the last poll, if the cancel was visible in it and something held the frame.
    pub(super) track: Option<Arc<Track>>,
    /// The waker of the last poll was armed.
    pub(super) armed: bool,
    /// The last poll began with the cancel visible.
    pub(super) saw_cancel: bool,
    grace: Grace,
    pub(super) cutting: Cutting,
    /// What was rescued when the future was dropped, if somebody around it has to wait for that.
    pub(super) rests: Rests,
}

/// Where a region is polled.
pub(super) enum Slot {
    /// It has no place yet, or none any more.
    None,
    /// Nothing has looked into it, as far as it knows.
    Bud(BudSeat),
    Frame(Arc<Frame>),
}

/// In a box, because nearly all regions have none, and are smaller for it.
pub(super) type Rests = Option<Box<Vec<Rest>>>;

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

impl Entry {
    pub(crate) fn new(cutting: Cutting) -> Self {
        Self {
            slot: Slot::None,
            polled_by: WakerId::of(Waker::noop()),
            track: None,
            armed: false,
            saw_cancel: false,
            grace: Grace::default(),
            cutting,
            rests: None,
        }
    }

    /// That of a whole task.
    pub(crate) fn within(frame: Arc<Frame>) -> Self {
        Self { slot: Slot::Frame(frame), ..Self::new(Cutting::Unwinds) }
    }

    /// Binds it to a frame in which it was not polled yet.
    pub(super) fn bind(&mut self, frame: Arc<Frame>) {
        self.slot = Slot::Frame(frame);
        (self.polled_by, self.track) = (WakerId::of(Waker::noop()), None);
    }

    pub(crate) fn frame(&self) -> Option<&Arc<Frame>> {
        match &self.slot {
            Slot::None | Slot::Bud(_) => None,
            Slot::Frame(frame) => Some(frame),
        }
    }

    pub(super) fn bud(&self) -> Option<&BudSeat> {
        match &self.slot {
            Slot::Bud(bud) => Some(bud),
            Slot::None | Slot::Frame(_) => None,
        }
    }

    /// Leaves its place; gives that of a bud.
    pub(super) fn take_bud(&mut self) -> Option<BudSeat> {
        match std::mem::replace(&mut self.slot, Slot::None) {
            Slot::Bud(bud) => Some(bud),
            Slot::None | Slot::Frame(_) => None,
        }
    }

    /// The cancel that the last poll has seen was taken back.
    pub(super) fn forget_cancel(&mut self) {
        if std::mem::take(&mut self.saw_cancel) {
            self.track = None;
        }
    }

    /// Makes sure that a cancel wakes the task. If the last waker was taken, a cancel may have come meanwhile: look again.
    #[inline]
    pub(super) fn arm(&mut self, waker: &Waker) {
        if !self.armed || !self.frame().is_none_or(|frame| frame.is_armed()) {
            self.arm_anew(waker);
        }
    }

    fn arm_anew(&mut self, waker: &Waker) {
        let Some(frame) = self.frame() else { return };
        frame.arm(waker);
        let is_cancelled = frame.is_cancelled();
        self.polled_by = WakerId::of(waker);
        self.armed = true;
        if is_cancelled != self.saw_cancel {
            waker.wake_by_ref();
        }
    }

    /// What a cancelled poll that ended pending means. One that Tokio's budget has ended proves nothing, and is repeated (M1).
    pub(super) fn verdict(&mut self, frame: &Frame, began_with_budget: bool, woken: bool) -> Verdict {
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

impl Slot {
    /// Runs it in this place; where there is none, as it is.
    pub(super) fn inside<R>(&self, polled_by: WakerId, track: Option<&Arc<Track>>, run: impl FnOnce() -> R) -> R {
        match self {
            Self::None => run(),
            Self::Bud(bud) => current::in_any_bud(bud, polled_by, run),
            Self::Frame(frame) => current::in_frame(frame, polled_by, track, run),
        }
    }
}
