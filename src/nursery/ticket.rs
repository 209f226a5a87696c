//! A part that an owner of work has counted in.

use std::sync::Arc;

use crate::core::cause::{Cause, CauseKind};
use crate::core::live::Weight;
use crate::core::node::Node as CoreNode;
use crate::core::sabotage::{self, Bug};
use crate::host::{self, Node};

/// One part of an owner that is alive, counted out when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket<O: Owner = Arc<Node>> {
    owner: O,
    weight: Weight,
}

/// Something that keeps a node which counts.
pub(crate) trait Owner {
    fn node(&self) -> &Arc<Node>;
}

impl Owner for Arc<Node> {
    fn node(&self) -> &Arc<Node> {
        self
    }
}

impl<O: Owner> Ticket<O> {
    /// Counts one more part in at `owner`, if that is open.
    pub(crate) fn at(owner: O, weight: Weight) -> Option<Self> {
        let open = owner.node().live.as_ref().is_some_and(|live| live.try_acquire(weight));
        open.then_some(()).map(|()| Self { owner, weight })
    }

    pub(crate) fn owner(&self) -> &O {
        &self.owner
    }
}

impl Ticket {
    /// Counts in what was rescued or adopted, at the nearest owner around `node` that has not ended.
    pub(crate) fn nearest(node: &Arc<Node>) -> Option<Self> {
        CoreNode::around(node).find_map(|owner| {
            let weight = owner.live.as_ref()?.try_adopt()?;
            Some(Self { owner, weight })
        })
    }

    /// The same at the root.
    pub(crate) fn at_root(node: &Arc<Node>) -> Option<Self> {
        CoreNode::around(node).last().and_then(|root| Self::at(root, Weight::Regular))
    }

    /// The part that an owner counts in for itself when it is made.
    pub(crate) fn first(owner: &Arc<Node>) -> Self {
        Self { owner: Arc::clone(owner), weight: Weight::Regular }
    }
}

impl<O: Owner> Drop for Ticket<O> {
    fn drop(&mut self) {
        let only_daemons = self.owner.node().live.as_ref().is_some_and(|live| {
            let twice = sabotage::has(Bug::DoubleRelease) && live.release(self.weight);
            twice || live.release(self.weight)
        });
        if only_daemons {
            host::cancel(self.owner.node(), Cause::new(CauseKind::OnlyDaemons));
        }
    }
}
