//! What a node sees of the outside of a shield that is opened for it.

use super::{Look, Node};
use crate::core::sync::Arc;

impl<H> Node<H> {
    /// Makes an exposed node see what its shield holds off.
    pub(crate) fn expose(self: &Arc<Self>, outside: &Arc<Self>) {
        let mut outside_tree = outside.tree.lock();
        let key = outside_tree.children.insert(Arc::clone(self));
        self.tree.lock().outside = Some((Arc::clone(outside), key));
        let look = self.recompute(outside, &outside_tree, 0);
        drop(outside_tree);
        if look != Look::Same {
            drop(self.spread(0));
        }
    }

    /// The view from outside the shield that this node opens, if it does.
    pub(crate) fn outside(&self) -> Option<Arc<Self>> {
        self.tree.lock().outside.as_ref().map(|(node, _)| Arc::clone(node))
    }
}
