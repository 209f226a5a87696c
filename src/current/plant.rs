//! Planting regions that wait as buds: they need no nodes until somebody looks.

use std::sync::Arc;
use std::task::Waker;

use super::{Around, Current, Enter, Spot, around};
use crate::clock::Ticks;
use crate::core::frame::WakerId;
use crate::core::node::{Chain, Outer};
use crate::deadline::{BudTimer, demand_timer};
use crate::host::{self, BudSeat, Frame, Node};
use crate::plan::Sketch;

/// Where a bud can be planted.
#[derive(Clone)]
struct Soil {
    home: Arc<Node>,
    outer: Outer,
    /// Somebody waits for the task that runs here.
    owned: bool,
    /// Of the buds around it.
    chain: Chain,
}

/// What is around the outermost region that is only planned.
enum Found {
    /// A task that nothing of ours is around, or no task at all.
    Nothing,
    /// A task that has no node yet.
    Task(Arc<Frame>),
    Soil(Soil),
}

/// Where a region goes that waits, with the outermost of those around it that are only planned.
pub(super) struct Site {
    first: Option<usize>,
    found: Found,
}

impl Site {
    /// Plants a region, polled with `waker`, and those around it that are only planned. None if it needs a node because it is cancelled.
    pub(super) fn plant(self, sketch: &Sketch, waker: &Waker, now: Ticks) -> Option<Current> {
        let mut soil = self.found.soil()?;
        let mut next = self.first;
        while let Some((depth, outer)) = next.and_then(|depth| Some((depth, around(|around| around.sketch(depth))??))) {
            let Some(planted) = soil.clone().plant(&outer, waker, now) else {
                around(|around| around.levels[depth].sketch = Some(outer)).unwrap_or_default();
                return None;
            };
            (soil.outer, soil.chain) = (planted.as_outer(), planted.chain());
            around(|around| around.put(depth, Spot::Bud(planted))).unwrap_or_default();
            next = Some(depth + 1);
        }
        let planted = soil.plant(sketch, waker, now)?;
        Some(Current { polled_by: WakerId::of(waker), ..Current::new(Spot::Bud(planted)) })
    }
}

impl Found {
    fn soil(self) -> Option<Soil> {
        match self {
            Self::Soil(soil) => Some(soil),
            Self::Task(frame) => Some(Soil {
                home: frame.branch(),
                outer: Outer::Frame,
                owned: frame.is_owned(),
                chain: Chain::default(),
            }),
            // A task stays on its runtime; the main future of one is polled on any.
            Self::Nothing => {
                tokio::task::try_id()?;
                Some(Soil {
                    home: host::root(),
                    outer: Outer::Task(host::thread_number()),
                    owned: false,
                    chain: Chain::default(),
                })
            }
        }
    }
}

impl Soil {
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

impl Around {
    /// Where a region goes that is polled with the waker `id`. None if it is polled by another one than what is around it, so that it has
    /// to hold that, and needs a node, or if one of those around it that are only planned needs one.
    pub(super) fn site(&mut self, id: WakerId) -> Option<Site> {
        let first = self.first_planned();
        self.grow_task(first);
        let planned = first.map_or(&[][..], |first| &self.levels[first..]);
        if !planned.iter().all(|level| level.polled_by == id) {
            return None;
        }
        let outer = match first {
            Some(depth) => self.levels[depth].outer.as_ref(),
            None => self.current.as_ref(),
        };
        Some(Site { first, found: outer.map_or(Some(Found::Nothing), |outer| outer.found(id))? })
    }

    /// True if a bud finds itself where it was planted, polled with the waker `id`.
    fn is_around(&self, bud: &BudSeat, id: WakerId, task: Option<tokio::task::Id>) -> bool {
        match &self.current {
            Some(outer) => outer.is_around(bud, id),
            None => matches!(bud.outer(), Outer::Task(_)) && self.levels.is_empty() && tokio::task::try_id() == task,
        }
    }

    /// Takes the sketch of a region that is only planned.
    fn sketch(&mut self, depth: usize) -> Option<Sketch> {
        self.levels.get_mut(depth)?.sketch.take()
    }
}

impl Current {
    /// As what is around a bud. What is polled with another waker has to hold it.
    fn found(&self, id: WakerId) -> Option<Found> {
        if self.polled_by != id {
            return None;
        }
        let soil =
            |home: &Arc<Node>, outer, owned, chain| Found::Soil(Soil { home: Arc::clone(home), outer, owned, chain });
        Some(match (self.frame(), self.bud()) {
            (Some(frame), _) if !frame.may_have_buds() => return None,
            (Some(frame), _) => match frame.own_node() {
                Some(node) => soil(node, Outer::Frame, frame.is_owned(), Chain::default()),
                None => Found::Task(Arc::clone(frame)),
            },
            (None, Some(bud)) => soil(bud.home(), bud.as_outer(), bud.is_owned(), bud.chain()),
            (None, None) => return None,
        })
    }

    /// The task that polls a bud with nothing of ours around it.
    pub(crate) fn bare_task(&self) -> Option<tokio::task::Id> {
        let is_bare = self.bud().is_some_and(|bud| matches!(bud.outer(), Outer::Task(_)));
        if is_bare { tokio::task::try_id() } else { None }
    }

    /// True if a bud that was planted inside of this finds itself there again, polled with the waker `id`.
    fn is_around(&self, bud: &BudSeat, id: WakerId) -> bool {
        let is_same = match (self.frame(), self.bud()) {
            (Some(frame), _) => {
                bud.outer() == Outer::Frame && frame.own_node().is_some_and(|node| Arc::ptr_eq(node, bud.home()))
            }
            (None, Some(outer)) => bud.outer() == outer.as_outer() && Arc::ptr_eq(outer.home(), bud.home()),
            (None, None) => false,
        };
        is_same && self.polled_by == id
    }
}

impl<'a> Enter<'a> {
    /// Enters a bud, if it is where it was, is polled with the waker that it had, and nothing has happened to it.
    #[inline]
    pub(crate) fn bud(slot: &'a mut Option<Current>, task: Option<tokio::task::Id>, waker: &Waker) -> Option<Self> {
        let id = WakerId::of(waker);
        let entered = around(|around| {
            let planted = slot.as_ref().filter(|current| current.polled_by == id).and_then(Current::bud);
            let is_same = planted.is_some_and(|bud| !bud.is_over() && around.is_around(bud, id, task));
            if is_same {
                around.enter(slot);
            }
            is_same
        });
        entered.unwrap_or(false).then(|| Self { slot, entered: true })
    }
}
