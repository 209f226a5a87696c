//! The absorber of a cancel, fixed at the moment of a cut.

use super::{ABOVE, CANCELLED, LATCHED, Node, PIERCED, REQUESTED, Tree, UNWINDS, same};
use crate::core::sync::{Arc, MutexGuard, Ordering, yield_now};

impl<H> Node<H> {
    /// The outermost cancelled node that is visible from here without crossing a shield or a catch point, and fixes it: from now
    /// on, raising a shield between the two un-cancels nothing (M3). None if this node is not cancelled (any more).
    pub(crate) fn latch(self: &Arc<Self>) -> Option<Arc<Self>> {
        if self.absorbs_already() {
            return Some(Arc::clone(self));
        }
        loop {
            let path = self.visible_path();
            // Outermost first: the lock order.
            let guards: Vec<_> = path.iter().rev().map(|node| node.tree.lock()).collect();
            if !self.is_cancelled() {
                return None;
            }
            let Some((absorber, inner)) = path.split_last() else { continue };
            if !Self::is_path(&path, &guards) {
                drop(guards);
                yield_now(); // A change above is on its way down; its thread is between two locks.
                continue;
            }
            absorber.put(LATCHED, true);
            inner.iter().for_each(|node| node.put(LATCHED | UNWINDS, true));
            return Some(Arc::clone(absorber));
        }
    }

    /// The absorber for a cut that only goes on with an unwinding, so that it decides nothing: the one that an earlier cut of what
    /// this node judges has fixed. Without such a cut, as [`latch`](Self::latch).
    pub(crate) fn latch_on(self: &Arc<Self>) -> Option<Arc<Self>> {
        if !self.has(LATCHED) {
            return self.latch();
        }
        let outwards = |node: &Arc<Self>| node.parent().filter(|parent| node.unwinds() && parent.is_cancelled());
        std::iter::successors(Some(Arc::clone(self)), outwards).last()
    }

    /// True if an earlier cut has fixed this node as its absorber, and nothing around it was cancelled since: one look for each of
    /// the many tasks of a nursery that are cut after the first.
    fn absorbs_already(&self) -> bool {
        let bits = self.bits.load(Ordering::Acquire);
        bits & (CANCELLED | LATCHED | UNWINDS | ABOVE) == CANCELLED | LATCHED
    }

    /// True if a cancel of the parent is visible through this node. A shield that was raised too late, after something below it was
    /// cut off for the sake of a node above it, is no shield for that (M3).
    fn is_open(&self) -> bool {
        !self.is_shielded() || self.has(PIERCED | UNWINDS)
    }

    /// From this node upwards as far as a cancel is visible.
    fn visible_path(self: &Arc<Self>) -> Vec<Arc<Self>> {
        std::iter::successors(Some(Arc::clone(self)), |node| {
            let open = node.is_open() && !node.info.kind.catches();
            node.parent().filter(|parent| open && parent.is_cancelled())
        })
        .collect()
    }

    /// True if, under the locks, the path is still what [`visible_path`](Self::visible_path) saw, and complete: its end has a
    /// cancel of its own. A flag that is on its way down from a change above makes this false for a moment.
    fn is_path(path: &[Arc<Self>], guards: &[MutexGuard<'_, Tree<H>>]) -> bool {
        let linked = path.windows(2).zip(guards.iter().rev()).all(|(pair, tree)| {
            pair[0].is_open()
                && same(tree.parent.as_ref().map(|(node, _)| node), Some(&pair[1]))
                && pair[0].is_cancelled()
        });
        let own = REQUESTED | LATCHED | PIERCED;
        let catches = path.last().is_some_and(|last| last.info.kind.catches());
        let outside =
            guards.first().is_some_and(|tree| tree.outside.as_ref().is_some_and(|(node, _)| node.is_cancelled()));
        linked && path.last().is_some_and(|last| last.is_cancelled() && (last.has(own) || outside || catches))
    }
}
