//! The absorber of a cancel, fixed at the moment of a cut.

use super::{ABOVE, CANCELLED, LATCHED, Node, PIERCED, SHIELDED, Tree, UNWINDS, same};
use crate::core::cause::Cause;
use crate::core::sync::{Arc, MutexGuard, Ordering, yield_now};

impl<H> Node<H> {
    /// The outermost cancelled node that is visible from here without crossing a shield or a catch point, and fixes it: from now
    /// on, raising a shield between the two un-cancels nothing (M3). None if this node is not cancelled (any more).
    pub(crate) fn latch(self: &Arc<Self>) -> Option<Arc<Self>> {
        if let Some(absorber) = self.known_absorber() {
            return Some(absorber);
        }
        loop {
            let path = self.visible_path();
            // Outermost first: the lock order.
            let mut guards: Vec<_> = path.iter().rev().map(|node| node.tree.lock()).collect();
            if !self.is_cancelled() {
                return None;
            }
            let (Some((end, inner)), Some(tree)) = (path.split_last(), guards.first()) else { continue };
            let known = end.absorber_in(tree);
            if !Self::is_path(&path, &guards) || !(known.is_some() || end.is_end(tree)) {
                drop(guards);
                yield_now(); // A change above is on its way down; its thread is between two locks.
                continue;
            }
            let absorber = known.unwrap_or_else(|| {
                end.put(LATCHED, true);
                Arc::clone(end)
            });
            inner.iter().for_each(|node| node.put(LATCHED | UNWINDS, true));
            let remember = |tree: &mut MutexGuard<'_, Tree<H>>| tree.absorber.replace(Arc::clone(&absorber));
            let before: Vec<_> = guards.iter_mut().skip(1).filter_map(remember).collect();
            drop(guards);
            drop(before);
            return Some(absorber);
        }
    }

    /// The same for a task of this nursery, without a reference to the absorber if that is the nursery: nearly all of many come after
    /// the first. Gives whether the unwinding goes on beyond this node, and what for.
    pub(crate) fn cut(self: &Arc<Self>) -> Option<(bool, Cause)> {
        if self.absorbs_already() {
            return self.fixed_cause().map(|cause| (false, cause.clone()));
        }
        self.latch().and_then(|absorber| self.cut_for(&absorber))
    }

    /// The cause of what is latched, which neither goes nor changes. Without a lock but for the first that asks.
    fn fixed_cause(&self) -> Option<&Cause> {
        if self.fixed_cause.get().is_none() {
            let cause = self.cause()?;
            return Some(self.fixed_cause.get_or_init(|| cause));
        }
        self.fixed_cause.get()
    }

    /// Whether an unwinding that `absorber` ends goes on beyond this node, and what for.
    pub(crate) fn cut_for(&self, absorber: &Self) -> Option<(bool, Cause)> {
        absorber.cause().map(|cause| (!std::ptr::eq(self, absorber), cause))
    }

    /// The absorber that an earlier cut has fixed, if a cut now would come to the same one: all between the two stays cancelled and
    /// open for good, and what moves forgets, until its move has returned. One look for each of the many that are cut after the first.
    fn known_absorber(self: &Arc<Self>) -> Option<Arc<Self>> {
        if self.absorbs_already() {
            return Some(Arc::clone(self));
        }
        // Without a lock for those that nothing has unwound yet.
        if self.has(UNWINDS) { self.absorber_in(&self.tree.lock()) } else { None }
    }

    /// The same under the lock of this node.
    fn absorber_in(self: &Arc<Self>, tree: &Tree<H>) -> Option<Arc<Self>> {
        [Some(self), tree.absorber.as_ref()].into_iter().flatten().find(|node| node.absorbs_already()).map(Arc::clone)
    }

    /// This node has moved: what is inside of it has another way outwards than the one to the absorber that it knew.
    pub(super) fn forget_absorbers(&self) {
        let unwinding = |tree: &Tree<H>| -> Vec<Arc<Self>> {
            tree.children.iter().map(|(_, node)| node).filter(|node| node.has(UNWINDS)).map(Arc::clone).collect()
        };
        let mut moved = unwinding(&self.tree.lock());
        while let Some(node) = moved.pop() {
            let mut tree = node.tree.lock();
            let known = tree.absorber.take();
            moved.extend(unwinding(&tree));
            drop(tree);
            drop(known);
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

    /// A task that is judged by `home` gets a node of its own: what was fixed for the one is fixed for the other.
    pub(crate) fn unwind_with(&self, home: &Self) {
        let tree = self.tree.lock();
        if home.has(LATCHED) {
            self.put(LATCHED | UNWINDS, true);
        }
        drop(tree);
    }

    /// True if an earlier cut has fixed this node as its absorber, and nothing that is visible from here was cancelled around it since.
    fn absorbs_already(&self) -> bool {
        let bits = self.bits.load(Ordering::Acquire);
        let is_closed = self.info.kind.catches() || bits & (SHIELDED | PIERCED) == SHIELDED;
        let is_fixed = bits & (CANCELLED | LATCHED | UNWINDS) == CANCELLED | LATCHED;
        is_fixed && (is_closed || bits & ABOVE == 0)
    }

    /// True if a cancel of the parent is visible through this node. A shield that was raised too late, after something below it was
    /// cut off for the sake of a node above it, is no shield for that (M3).
    fn is_open(&self) -> bool {
        !self.is_shielded() || self.has(PIERCED | UNWINDS)
    }

    /// True if a cancel of `parent`, which is around this node, is absorbed there or further out.
    fn goes_on_to(&self, parent: &Self) -> bool {
        self.is_open() && !self.info.kind.catches() && parent.is_cancelled()
    }

    /// From this node upwards as far as a cancel is visible, or to the first that knows who absorbs it.
    fn visible_path(self: &Arc<Self>) -> Vec<Arc<Self>> {
        std::iter::successors(Some(Arc::clone(self)), |node| match node.known_absorber() {
            Some(_) => None,
            None => node.parent().filter(|parent| node.goes_on_to(parent)),
        })
        .collect()
    }

    /// True if, under the locks, the path is still what [`visible_path`](Self::visible_path) saw. A flag that is on its way down from
    /// a change above makes this false for a moment.
    fn is_path(path: &[Arc<Self>], guards: &[MutexGuard<'_, Tree<H>>]) -> bool {
        path.windows(2).zip(guards.iter().rev()).all(|(pair, tree)| {
            pair[0].is_open()
                && same(tree.parent.as_ref().map(|(node, _)| node), Some(&pair[1]))
                && pair[0].is_cancelled()
        })
    }

    /// True if, under its lock, a path may end here: this node has a cancel of its own, or has ended, and nothing around it is visible
    /// from here.
    fn is_end(&self, tree: &Tree<H>) -> bool {
        let goes_on = tree.parent.as_ref().is_some_and(|(parent, _)| self.goes_on_to(parent));
        let own = self.is_cancelled_for_good() || self.info.kind.catches();
        let outside = || tree.outside.as_ref().is_some_and(|(node, _)| node.is_cancelled());
        self.is_cancelled() && !goes_on && (own || tree.parent.is_none() || outside())
    }
}
