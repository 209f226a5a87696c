//! A part that an owner of work has counted in.

use std::sync::Arc;

use crate::core::cause::{Cause, CauseKind};
use crate::core::live::Weight;
use crate::core::node::Node as CoreNode;
use crate::core::sabotage::{self, Bug};
use crate::host::{self, Node};

/// One part of an owner that is alive, counted out when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket<W: Weigh = Weight> {
    /// None once the part is that of another ticket.
    owner: Option<Arc<Node>>,
    weight: W,
}

/// How much a part counts, known here or from its type.
pub(crate) trait Weigh: Copy {
    fn weight(self) -> Weight;
}

impl Weigh for Weight {
    fn weight(self) -> Weight {
        self
    }
}

/// That of nearly all parts, which takes no room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regular;

impl Weigh for Regular {
    fn weight(self) -> Weight {
        Weight::Regular
    }
}

impl<W: Weigh> Ticket<W> {
    /// Counts one more part in at `owner`, if that is open.
    pub(crate) fn at(owner: Arc<Node>, weight: W) -> Option<Self> {
        let open = owner.live().is_some_and(|live| live.try_acquire(weight.weight()));
        open.then_some(()).map(|()| Self { owner: Some(owner), weight })
    }

    pub(crate) fn owner(&self) -> &Arc<Node> {
        self.owner.as_ref().expect("the part is its own")
    }

    /// The same part, with its weight at hand.
    pub(crate) fn weighed(mut self) -> Ticket {
        Ticket { owner: self.owner.take(), weight: self.weight.weight() }
    }
}

impl Ticket {
    /// Counts one more child in at `owner`, unless that has ended. Where only daemons are left, it counts as they do.
    pub(crate) fn of_child(owner: Arc<Node>, weight: Weight) -> Option<Self> {
        let live = owner.live()?;
        let weight = if live.try_acquire(weight) { weight } else { live.try_adopt()? };
        Some(Self { owner: Some(owner), weight })
    }

    /// Counts in what was rescued or adopted, at the nearest owner around `node` that has not ended.
    pub(crate) fn nearest(node: &Arc<Node>) -> Option<Self> {
        CoreNode::around(node).find_map(|owner| {
            let weight = owner.live()?.try_adopt()?;
            Some(Self { owner: Some(owner), weight })
        })
    }

    /// The same at the root, which `node` may be.
    pub(crate) fn at_root(node: &Arc<Node>) -> Option<Self> {
        let root = CoreNode::around(node).last().unwrap_or_else(|| Arc::clone(node));
        Self::at(root, Weight::Regular)
    }
}

impl<W: Weigh> Drop for Ticket<W> {
    #[inline]
    fn drop(&mut self) {
        if let Some(owner) = &self.owner {
            count_out(owner, self.weight.weight());
        }
    }
}

/// Counts out a part of `owner` that was counted in; the first is the body, or a root itself.
#[inline]
pub(crate) fn count_out(owner: &Arc<Node>, weight: Weight) {
    let only_daemons = owner.live().is_some_and(|live| {
        let twice = sabotage::has(Bug::DoubleRelease) && live.release(weight);
        twice || live.release(weight)
    });
    if only_daemons {
        host::cancel(owner, Cause::new(CauseKind::OnlyDaemons));
    }
}
