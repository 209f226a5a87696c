//! Entering a place for the time of a poll.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{Growing, LEVEL, LOOKED, Level, Made, Place, Planned, UNKEPT, around, is_cancelled_in};
use crate::clock::Ticks;
use crate::core::frame::{Track, WakerId};
use crate::host::{BudSeat, Frame, LeafSeat};
use crate::plan::Sketch;

/// The place of a region after its first poll.
pub(crate) enum Draft {
    /// Nothing inside has asked for one.
    None,
    /// It is a bud, which something inside may have looked into.
    Planted(BudSeat),
    Made(Arc<Frame>),
}

impl<'a> Level<'a> {
    fn new(outer: Option<&'a Self>, place: Place<'a>, polled_by: WakerId) -> Self {
        Self { outer, place, polled_by, track: None, is_polled: true }
    }

    #[inline]
    fn enter<R>(self, run: impl FnOnce() -> R) -> R {
        if self.outer.is_none() {
            // What was seen on the clock before may be long ago.
            LOOKED.set(0);
        }
        LEVEL.set(&self, run)
    }
}

/// Runs it, which is no poll, as if inside of a frame.
pub(crate) fn inside<R>(frame: &Arc<Frame>, run: impl FnOnce() -> R) -> R {
    let id = WakerId::of(Waker::noop());
    around(|outer| Level { is_polled: false, ..Level::new(outer, Place::Frame(frame), id) }.enter(run))
}

/// The same for what may take long.
pub(crate) fn inside_for_long<R>(frame: &Arc<Frame>, run: impl FnOnce() -> R) -> R {
    inside(frame, || {
        LOOKED.set(UNKEPT);
        run()
    })
}

/// Polls a frame with the waker `polled_by`; `track` says who has woken it.
pub(crate) fn in_frame<R>(
    frame: &Arc<Frame>,
    polled_by: WakerId,
    track: Option<&Arc<Track>>,
    run: impl FnOnce() -> R,
) -> R {
    around(|outer| Level { track, ..Level::new(outer, Place::Frame(frame), polled_by) }.enter(run))
}

/// The same without a track, if `fits` holds for what is around this code.
#[inline]
pub(crate) fn in_frame_if<R>(
    frame: &Arc<Frame>,
    polled_by: WakerId,
    fits: impl FnOnce(&Level<'_>) -> bool,
    run: impl FnOnce() -> R,
) -> Option<R> {
    around(|outer| {
        let fits = outer.is_some_and(fits);
        fits.then(|| Level::new(outer, Place::Frame(frame), polled_by).enter(run))
    })
}

/// Polls a task that has no frame. Gives that, if something inside has asked for it.
#[inline]
pub(crate) fn in_leaf<R>(seat: LeafSeat<'_>, polled_by: WakerId, run: impl FnOnce() -> R) -> (R, Option<Arc<Frame>>) {
    let leaf = Growing::new(seat);
    let result = around(|outer| Level::new(outer, Place::Leaf(&leaf), polled_by).enter(run));
    (result, leaf.frame.into_inner())
}

/// Polls a bud with the waker `id`, if it is where it was, and nothing has happened to it. `task`: see [`bare_task`](super::bare_task).
#[inline]
pub(crate) fn in_bud<R>(
    bud: &BudSeat,
    id: WakerId,
    task: Option<tokio::task::Id>,
    run: impl FnOnce() -> R,
) -> Option<R> {
    if bud.is_over() {
        return None;
    }
    around(|outer| {
        let is_same = Level::is_around(outer, bud, id, task);
        is_same.then(|| Level::new(outer, Place::Bud(&Growing::new(bud)), id).enter(run))
    })
}

/// Drops what is in a bud.
pub(crate) fn in_any_bud<R>(bud: &BudSeat, polled_by: WakerId, run: impl FnOnce() -> R) -> R {
    around(|outer| Level::new(outer, Place::Bud(&Growing::new(bud)), polled_by).enter(run))
}

/// The first poll of a region, with its place, if it is pending or something inside has asked for one. None if that is needed for the poll
/// already. `looked`: what the clock has shown just now; 0 if nobody has looked.
pub(crate) fn in_plan<T>(
    sketch: &Sketch,
    looked: Ticks,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Option<(Poll<T>, Draft)> {
    around(|outer| {
        if !sketch.may_wait(|| is_cancelled_in(outer, |_| false)) {
            return None;
        }
        let planned = Planned::new(sketch);
        let level = Level::new(outer, Place::Planned(&planned), WakerId::of(cx.waker()));
        let poll = level.enter(|| {
            LOOKED.set(LOOKED.get().max(looked));
            poll(cx)
        });
        let draft = match planned.made.into_inner() {
            Some(Made::Bud(bud)) => Draft::Planted(bud.seat),
            Some(Made::Frame(frame)) => Draft::Made(frame),
            None if poll.is_ready() => Draft::None,
            None => Level::plant(outer, sketch, cx.waker()),
        };
        Some((poll, draft))
    })
}
