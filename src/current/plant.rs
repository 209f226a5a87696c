//! Planting regions that wait as buds: they need no nodes until somebody looks.

use std::sync::Arc;
use std::task::Waker;

use super::enter::Draft;
use super::{Growing, Level, Made, Place, Spot, born_inside};
use crate::clock::Ticks;
use crate::core::frame::WakerId;
use crate::core::node::{Chain, Outer};
use crate::deadline::{BudTimer, demand_timer};
use crate::host::{self, BudSeat, Frame, Node};
use crate::plan::Sketch;

/// Where a bud can be planted.
struct Soil {
    home: Arc<Node>,
    outer: Outer,
    /// Somebody waits for the task that runs here.
    owned: bool,
    /// Of the buds around it.
    chain: Chain,
}

impl Soil {
    /// A task that nothing of ours is around. It stays on its runtime; the main future of one is polled on any.
    fn bare() -> Option<Self> {
        tokio::task::try_id()?;
        let outer = Outer::Task(host::thread_number());
        Some(Self { home: host::root(), outer, owned: false, chain: Chain::default() })
    }

    fn in_frame(frame: &Arc<Frame>) -> Self {
        let home = frame.own_node().map_or_else(|| frame.branch(), Arc::clone);
        Self { home, outer: Outer::Frame, owned: frame.is_owned(), chain: Chain::default() }
    }

    fn in_bud(bud: &BudSeat) -> Self {
        Self { home: Arc::clone(bud.home()), outer: bud.as_outer(), owned: bud.is_owned(), chain: bud.chain() }
    }

    /// None if the region needs a node because it is cancelled.
    #[inline]
    fn plant(self, sketch: &Sketch, waker: &Waker, now: Ticks) -> Option<BudSeat> {
        if sketch.deadline().is_some_and(|at| at <= now) {
            return None;
        }
        let deadline = sketch.deadline().filter(|at| !self.ends_by(sketch, *at));
        if deadline.is_some() {
            self.home.host().into_iter().for_each(|host| demand_timer(host));
        }
        // What is around it wakes it as well, but may end before its deadline.
        let waker = (matches!(self.outer, Outer::Task(_)) || sketch.deadline().is_some()).then(|| waker.clone());
        let bud = sketch.bud(&self.home, self.owned, waker, now);
        let planted = BudSeat::plant(self.home, self.outer, self.chain, bud)?;
        if let Some(at) = deadline {
            BudTimer::arm(&planted, at);
        }
        sketch.forget_unmade(planted.home());
        Some(planted)
    }

    /// True if a deadline around the region cancels it by then: that needs no entry of its own until it has a node.
    fn ends_by(&self, sketch: &Sketch, at: Ticks) -> bool {
        self.chain.timed && !sketch.is_shielded() && self.home.ends_by(self.outer, at)
    }
}

impl Level<'_> {
    /// Gives a region its place inside of `outer`, with those around it that are only planned: a bud, or a frame if it needs a node.
    pub(super) fn plant(outer: Option<&Level<'_>>, sketch: &Sketch, waker: &Waker) -> Draft {
        let now = born_inside();
        let planted = Self::soil(outer, waker, now).and_then(|soil| soil.plant(sketch, waker, now));
        match planted {
            Some(planted) => Draft::Planted(planted),
            None => {
                outer.into_iter().for_each(|outer| outer.make(true));
                Draft::Made(sketch.make(outer.and_then(Level::frame)))
            }
        }
    }

    /// Where a region goes that is polled with this waker. None if it is polled by another one than what is around it, so that it has
    /// to hold that, and needs a node, or if one of those around it that are only planned needs one.
    fn soil(level: Option<&Level<'_>>, waker: &Waker, now: Ticks) -> Option<Soil> {
        let Some(level) = level else { return Soil::bare() };
        if level.polled_by != WakerId::of(waker) {
            return None;
        }
        if let Some(planned) = level.unmade().filter(|planned| !planned.is_begun.get()) {
            let planted = Self::soil(level.outer, waker, now)?.plant(planned.sketch, waker, now)?;
            drop(planned.made.set(Made::Bud(Growing::new(planted))));
        }
        if let Place::Leaf(_) = level.place {
            level.grow();
        }
        match level.spot()? {
            Spot::Leaf(_) => None,
            Spot::Bud(bud) => Some(Soil::in_bud(bud)),
            Spot::Frame(frame) => frame.may_have_buds().then(|| Soil::in_frame(frame)),
        }
    }

    /// True if a bud that was planted in what is around this code finds itself there again, polled with the waker `id`.
    #[inline]
    pub(super) fn is_around(
        outer: Option<&Level<'_>>,
        bud: &BudSeat,
        id: WakerId,
        task: Option<tokio::task::Id>,
    ) -> bool {
        let Some(outer) = outer else { return matches!(bud.outer(), Outer::Task(_)) && tokio::task::try_id() == task };
        let is_same = match outer.spot() {
            Some(Spot::Frame(frame)) => {
                bud.outer() == Outer::Frame && frame.own_node().is_some_and(|node| Arc::ptr_eq(node, bud.home()))
            }
            Some(Spot::Bud(outer)) => bud.outer() == outer.as_outer() && Arc::ptr_eq(outer.home(), bud.home()),
            Some(Spot::Leaf(_)) | None => false,
        };
        is_same && outer.polled_by == id
    }
}

/// The task that polls a bud with nothing of ours around it.
pub(crate) fn bare_task(bud: &BudSeat) -> Option<tokio::task::Id> {
    if matches!(bud.outer(), Outer::Task(_)) { tokio::task::try_id() } else { None }
}
