//! The links of the tree: entering it, moving in it, leaving it.

use super::{HostOf, Kind, Link, Look, Node, same};
use crate::core::frame::Frame;
use crate::core::sabotage::{self, Bug};
use crate::core::sync::Arc;

impl<H> Node<H> {
    /// Links this node below `parent`, away from where it was, in one step for whoever walks upwards meanwhile. What it was
    /// exposed to stays behind. Only if `still` holds, which is asked under the locks of both.
    #[must_use]
    pub(super) fn link(
        self: &Arc<Self>,
        parent: &Arc<Self>,
        region: Option<&Arc<Frame<H>>>,
        still: impl FnOnce(Option<&Arc<Self>>) -> bool,
    ) -> Look {
        if let (HostOf::Linked(own), Some(host)) = (&self.host, parent.host()) {
            own.get_or_init(|| Arc::clone(host));
        }
        let leak = if parent.is_shielded() && sabotage::has(Bug::ShieldNotInherited) { parent.parent() } else { None };
        let parent = leak.as_ref().unwrap_or(parent);
        let mut parent_tree = parent.tree.lock();
        let mut tree = self.tree.lock();
        if !still(tree.parent.as_ref().map(|(node, _)| node)) {
            return Look::Same;
        }
        let key = parent_tree.children.insert(Arc::clone(self));
        let (from, outside) = (tree.parent.replace((Arc::clone(parent), key)), tree.outside.take());
        let absorber = tree.absorber.take();
        if let Some(region) = region {
            tree.region = Some(Arc::clone(region));
        }
        let look = self.recompute_locked(&mut tree, &parent_tree, 0);
        drop(tree);
        drop(parent_tree);
        drop(absorber);
        if self.unwinds() {
            self.forget_absorbers();
        }
        Self::forget(from);
        Self::forget(outside);
        look
    }

    /// Takes a node out of the list of one that was its parent.
    fn forget(link: Link<H>) {
        let Some((parent, key)) = link else { return };
        let child = parent.tree.lock().children.try_remove(key);
        drop(child);
    }

    /// Links a node that was not linked yet, together with the frame of its region.
    pub(crate) fn enter(self: &Arc<Self>, parent: &Arc<Self>, region: &Arc<Frame<H>>) {
        if self.link(parent, Some(region), |_| true) != Look::Same {
            drop(self.spread(0));
        }
    }

    /// Moves this node below another one, with everything inside it (M4). Only its owner may call this.
    pub(crate) fn reparent(self: &Arc<Self>, parent: &Arc<Self>) {
        // A future that is polled inside itself can only wait for itself; a cycle would make that worse.
        let cycle = || self.has_children() && parent.is_inside(self);
        if !same(self.parent().as_ref(), Some(parent)) && !cycle() {
            self.move_to(parent, |_| true);
        }
    }

    /// The same, by one of several that may: only if it is still up to this one, which is asked under the lock of this node.
    pub(crate) fn reparent_if(self: &Arc<Self>, parent: &Arc<Self>, still: impl FnOnce() -> bool) {
        // Who asks may be inside of this node, or be it.
        if !parent.is_inside(self) {
            self.move_to(parent, |from| !same(from, Some(parent)) && still());
        }
    }

    fn move_to(self: &Arc<Self>, parent: &Arc<Self>, still: impl FnOnce(Option<&Arc<Self>>) -> bool) {
        if self.link(parent, None, still) != Look::Same {
            drop(self.spread(0));
        }
    }

    fn has_children(&self) -> bool {
        !self.tree.lock().children.is_empty()
    }

    fn is_inside(self: &Arc<Self>, outer: &Arc<Self>) -> bool {
        std::iter::successors(Some(Arc::clone(self)), |node| node.parent()).any(|node| Arc::ptr_eq(&node, outer))
    }

    /// Takes the node out of the tree for good. What is still inside it, because a future was forgotten or has moved away and was
    /// not polled there yet, moves up, and is given.
    pub(crate) fn detach(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let mut tree = self.tree.lock();
        let mut orphans = Vec::new();
        if !tree.children.is_empty() || self.has_buds() {
            drop(tree);
            orphans = self.give_up_children();
            tree = self.tree.lock();
        }
        let (parent, outside) = (tree.parent.take(), tree.outside.take());
        // In one step: whoever looks for an owner finds the link or the way out.
        tree.left = parent.as_ref().map(|(parent, _)| Arc::clone(parent));
        let (region, absorber, husks) = (tree.region.take(), tree.absorber.take(), tree.tasks.take_husks());
        drop(tree);
        drop((region, absorber, husks));
        Self::forget(parent);
        Self::forget(outside);
        orphans
    }

    fn give_up_children(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let Some(parent) = self.parent() else { return Vec::new() };
        self.grow_buds();
        let orphans = self.inside().nodes;
        // The owner of one, if it has one still, may be moving it itself.
        orphans.iter().for_each(|orphan| orphan.move_to(&parent, |from| same(from, Some(self))));
        orphans
    }

    pub(crate) fn parent(&self) -> Option<Arc<Self>> {
        self.tree.lock().parent.as_ref().map(|(node, _)| Arc::clone(node))
    }

    /// The node around this one, or the one that was at its end.
    pub(crate) fn outward(&self) -> Option<Arc<Self>> {
        if self.info.kind == Kind::Root {
            // Every walk ends here, on all threads.
            return None;
        }
        let tree = self.tree.lock();
        tree.parent.as_ref().map(|(node, _)| node).or(tree.left.as_ref()).map(Arc::clone)
    }

    /// True if it has left the tree for good.
    pub(crate) fn has_ended(&self) -> bool {
        let tree = self.tree.lock();
        tree.parent.is_none() && tree.left.is_some()
    }

    /// The nodes around this one, from the inside outwards, up to the root; past those that have ended.
    pub(crate) fn around(node: &Arc<Self>) -> impl Iterator<Item = Arc<Self>> + use<H> {
        std::iter::successors(node.outward(), |node| node.outward())
    }
}
