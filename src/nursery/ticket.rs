//! A part that an owner of work has counted in.

use std::sync::Arc;

use crate::core::cause::{Cause, CauseKind};
use crate::core::live::Weight;
use crate::core::node::Node as CoreNode;
use crate::host::Node;

/// One part of an owner that is alive, counted out when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    owner: Arc<Node>,
    weight: Weight,
}

impl Ticket {
    /// Counts one more part in at `owner`, if that is open.
    pub(crate) fn at(owner: &Arc<Node>, weight: Weight) -> Option<Self> {
        let open = owner.live.as_ref().is_some_and(|live| live.try_acquire(weight));
        open.then(|| Self { owner: Arc::clone(owner), weight })
    }

    /// The same at the nearest open owner around `node`.
    pub(crate) fn nearest(node: &Arc<Node>) -> Option<Self> {
        CoreNode::around(node).find_map(|owner| Self::at(&owner, Weight::Regular))
    }

    /// The same at the root.
    pub(crate) fn at_root(node: &Arc<Node>) -> Option<Self> {
        CoreNode::around(node).last().and_then(|root| Self::at(&root, Weight::Regular))
    }

    /// The part that an owner counts in for itself when it is made.
    pub(crate) fn first(owner: &Arc<Node>) -> Self {
        Self { owner: Arc::clone(owner), weight: Weight::Regular }
    }

    pub(crate) fn owner(&self) -> &Arc<Node> {
        &self.owner
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let only_daemons = self.owner.live.as_ref().is_some_and(|live| live.release(self.weight));
        if only_daemons {
            self.owner.cancel(Cause::new(CauseKind::OnlyDaemons));
        }
    }
}
