//! A region that waits and that nothing has looked into: a bud in the list of the node around it, until somebody looks.

use std::task::Waker;

use slab::Slab;

use super::{GROWN, HeldOff, Info, Node, Tree};
use crate::core::frame::{Frame, Hold};
use crate::core::sync::Arc;

/// What it takes to make the node of a region that waits, and its frame.
pub(crate) struct Bud<H> {
    pub(crate) info: Info,
    /// It holds the cancels around it off.
    pub(crate) shielded: bool,
    pub(crate) finalizer: bool,
    /// What it does when it begins with that.
    pub(crate) held_off: Option<HeldOff<H>>,
    /// Somebody waits for the task that polls it.
    pub(crate) owned: bool,
    /// None if it is polled whenever what is around it is.
    pub(crate) waker: Option<Waker>,
}

/// The regions that wait in one node without nodes of their own.
///
/// # Invariants
///
/// 1. A bud becomes a node at most once, under the lock of its home, and takes its waker along. All buds of its chain, which is itself,
///    those around it and those in it, become nodes with it: whatever is inside of a node is found through that.
/// 2. Only its owner takes a place out. While there is a place whose owner may not know that it has a node, the home is marked.
/// 3. A cancelled node lists no new bud, and whoever visits a node, to cancel it or to look, leaves none. So a new node was not cancelled
///    yet, and a visit that is on its way finds it among the children.
/// 4. A bud holds what is around it from its growth on, as if it had from the start: the poll that begins with a cancel visible makes
///    sure of that before it looks. It is polled with the waker of that, so it needs none of its own there.
pub(super) struct Buds<H> {
    places: Slab<Place<H>>,
    /// How many places have nodes.
    grown: usize,
}

enum Place<H> {
    Bud {
        bud: Bud<H>,
        /// The bud around it, and the one in it. Both are listed here as well.
        outer: Option<usize>,
        inner: Option<usize>,
    },
    Node(Arc<Frame<H>>, Hold<H>),
}

impl<H> Default for Buds<H> {
    fn default() -> Self {
        Self { places: Slab::new(), grown: 0 }
    }
}

/// What a bud is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outer {
    /// A task without a frame, below the root.
    Task,
    /// The frame of the region of its home.
    Frame,
    /// The bud with this key.
    Bud(usize),
}

/// The place of a bud, as its owner keeps it. Dropping it ends the region.
pub(crate) struct BudSeat<H> {
    home: Arc<Node<H>>,
    key: usize,
    outer: Outer,
    owned: bool,
    is_listed: bool,
    /// Once it is known.
    frame: Option<Arc<Frame<H>>>,
}

impl<H> BudSeat<H> {
    /// Lists a bud inside of `home`. None if it has to be a node from the start: `home` is cancelled, or what is to be around it has
    /// a node by now, or has another bud in it.
    pub(crate) fn plant(home: &Arc<Node<H>>, outer: Outer, bud: Bud<H>) -> Option<Self> {
        let owned = bud.owned;
        let mut tree = home.tree.lock();
        if home.is_cancelled() {
            return None;
        }
        let key = tree.buds.get_or_insert_default().insert(outer, bud)?;
        drop(tree);
        Some(Self { home: Arc::clone(home), key, outer, owned, is_listed: true, frame: None })
    }

    pub(crate) fn home(&self) -> &Arc<Node<H>> {
        &self.home
    }

    /// None as long as nothing in it has asked.
    pub(crate) fn frame(&self) -> Option<&Arc<Frame<H>>> {
        self.frame.as_ref()
    }

    pub(crate) fn outer(&self) -> Outer {
        self.outer
    }

    /// What a bud in this one is in.
    pub(crate) fn as_outer(&self) -> Outer {
        Outer::Bud(self.key)
    }

    pub(crate) fn is_owned(&self) -> bool {
        self.owned
    }

    /// True if it is cancelled: by what is around it, or alone, if somebody else has made its node.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.home.is_cancelled() || self.home.grown(self.key).is_some_and(|frame| frame.is_cancelled())
    }

    /// True if it may not be polled as a bud any more. One load, as long as nothing in its home is looked into.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.home.is_cancelled() || self.home.grown(self.key).is_some()
    }

    /// Makes the frame: something inside asks for it.
    pub(crate) fn grow(&mut self) {
        self.frame = self.home.grow_bud(&mut self.home.tree.lock(), self.key);
    }

    /// The frame, made now if there is none, and the hold on what is around it. From now on the owner knows the node.
    pub(crate) fn claim(mut self) -> Option<(Arc<Frame<H>>, Hold<H>)> {
        self.is_listed = false;
        let mut tree = self.home.tree.lock();
        drop(self.home.grow_bud(&mut tree, self.key));
        match self.home.take_out(&mut tree, self.key)? {
            Place::Node(frame, hold) => Some((frame, hold)),
            Place::Bud { .. } => None,
        }
    }
}

impl<H> Drop for BudSeat<H> {
    fn drop(&mut self) {
        if !self.is_listed {
            return;
        }
        let mut tree = self.home.tree.lock();
        if tree.buds.as_ref().is_some_and(|buds| buds.has_inner(self.key)) {
            // Its future has moved, or was forgotten: it stays in the tree, further out.
            drop(self.home.grow_bud(&mut tree, self.key));
        }
        let place = self.home.take_out(&mut tree, self.key);
        drop(tree);
        if let Some(Place::Node(frame, hold)) = place {
            frame.node().detach();
            // Last, so that whoever it was holding for finds everything in order.
            drop(hold);
        }
    }
}

impl<H> Buds<H> {
    fn insert(&mut self, outer: Outer, bud: Bud<H>) -> Option<usize> {
        let next = self.places.vacant_key();
        let outer = match outer {
            Outer::Task | Outer::Frame => None,
            Outer::Bud(key) => match self.places.get_mut(key)? {
                Place::Bud { inner: inner @ None, .. } => {
                    *inner = Some(next);
                    Some(key)
                }
                Place::Bud { inner: Some(_), .. } | Place::Node(..) => return None,
            },
        };
        Some(self.places.insert(Place::Bud { bud, outer, inner: None }))
    }

    fn has_inner(&self, key: usize) -> bool {
        matches!(self.places.get(key), Some(Place::Bud { inner: Some(_), .. }))
    }

    /// True if there is one that has no node.
    pub(super) fn has_any(&self) -> bool {
        self.grown < self.places.len()
    }

    fn frame(&self, key: usize) -> Option<&Arc<Frame<H>>> {
        match self.places.get(key)? {
            Place::Node(frame, _) => Some(frame),
            Place::Bud { .. } => None,
        }
    }

    /// The outermost bud of the chain in which this one is.
    fn outermost(&self, key: usize) -> usize {
        let outwards = |key: &usize| match self.places.get(*key) {
            Some(Place::Bud { outer, .. }) => *outer,
            Some(Place::Node(..)) | None => None,
        };
        std::iter::successors(Some(key), outwards).last().unwrap_or(key)
    }
}

impl<H> Node<H> {
    /// The frame that somebody has made for a bud of this node.
    #[inline]
    fn grown(&self, key: usize) -> Option<Arc<Frame<H>>> {
        if !self.has(GROWN) {
            return None;
        }
        self.tree.lock().buds.as_ref()?.frame(key).map(Arc::clone)
    }

    /// Takes a place out of the list, with the lock held.
    fn take_out(&self, tree: &mut Tree<H>, key: usize) -> Option<Place<H>> {
        let buds = tree.buds.as_mut()?;
        let place = buds.places.try_remove(key)?;
        match &place {
            Place::Node(..) => {
                buds.grown -= 1;
                if buds.grown == 0 {
                    self.put(GROWN, false);
                }
            }
            Place::Bud { outer, .. } => {
                let around = outer.and_then(|outer| buds.places.get_mut(outer));
                if let Some(Place::Bud { inner, .. }) = around {
                    *inner = None;
                }
            }
        }
        Some(place)
    }

    /// Invariant 1: the frame of a bud, made now with all of its chain if there is none. The caller holds the lock of this node.
    fn grow_bud(self: &Arc<Self>, tree: &mut Tree<H>, key: usize) -> Option<Arc<Frame<H>>> {
        let Tree { buds, children, region, .. } = tree;
        let buds = buds.as_deref_mut()?;
        let outermost = buds.outermost(key);
        let (mut next, mut around) = (Some(outermost), None::<Arc<Frame<H>>>);
        while let Some(Place::Bud { bud, inner, .. }) = next.and_then(|next| buds.places.get_mut(next)) {
            let frame = bud.grow(self);
            let node = Arc::clone(frame.node());
            let (parent, key, hold) = match around.replace(Arc::clone(&frame)) {
                None => (Arc::clone(self), children.insert(Arc::clone(&node)), region.as_ref().map(Hold::on)),
                Some(outer) => {
                    let key = outer.node().tree.lock().children.insert(Arc::clone(&node));
                    (Arc::clone(outer.node()), key, Some(Hold::on(&outer)))
                }
            };
            let mut new = node.tree.lock();
            new.parent = Some((parent, key));
            new.region = Some(Arc::clone(&frame));
            drop(new);
            let place = std::mem::replace(&mut next, *inner).unwrap_or(outermost);
            buds.places[place] = Place::Node(frame, hold.unwrap_or_default());
            buds.grown += 1;
            self.put(GROWN, true);
        }
        buds.frame(key).map(Arc::clone)
    }

    /// Invariant 4, for a poll that begins with the cancel visible.
    pub(crate) fn grow_buds(self: &Arc<Self>) {
        self.grow_all(&mut self.tree.lock());
    }

    /// Makes nodes of all buds, for a visit of what is inside. The caller holds the lock of this node.
    pub(super) fn grow_all(self: &Arc<Self>, tree: &mut Tree<H>) {
        let Some(buds) = tree.buds.as_ref().filter(|buds| buds.has_any()) else { return };
        let keys: Vec<usize> = buds.places.iter().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| drop(self.grow_bud(tree, key)));
    }
}

impl<H> Bud<H> {
    /// Its frame, with a node below `home` that is not linked yet.
    fn grow(&mut self, home: &Node<H>) -> Arc<Frame<H>> {
        let node = Node::unbound_below(home, self.info.clone(), None, self.shielded);
        if self.finalizer {
            node.set_finalizer();
        }
        if let Some(held_off) = self.held_off.take() {
            node.on_held_off.get_or_init(|| held_off);
        }
        Frame::of_bud(node, self.owned, self.waker.take())
    }
}
