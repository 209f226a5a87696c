//! A region that waits and that nothing has looked into: a bud in the list of the node around it, until somebody looks.

use std::task::Waker;

use slab::Slab;

use super::{CANCELLED, GROWN, HeldOff, Info, Node, Tree};
use crate::core::frame::{Frame, Hold};
use crate::core::sync::{Arc, MutexGuard};

/// What it takes to make the node of a region that waits, and its frame.
pub(crate) struct Bud<H> {
    pub(crate) info: Info,
    /// It holds the cancels around it off.
    pub(crate) shielded: bool,
    pub(crate) finalizer: bool,
    /// What it does when it begins with that.
    pub(crate) held_off: Option<HeldOff<H>>,
    /// In ticks of the host. Its owner looks after it.
    pub(crate) deadline: Option<u64>,
    /// Somebody waits for the task that polls it.
    pub(crate) owned: bool,
    /// None if nothing but what is around it wakes it.
    pub(crate) waker: Option<Waker>,
}

/// The regions that wait in one node without nodes of their own.
///
/// # Invariants
///
/// 1. A bud becomes a node at most once, under the lock of its home, and takes its waker along. All buds of its chain, which is itself,
///    those around it and those in it, become nodes with it: whatever is inside of a node is found through that.
/// 2. Only its owner takes a place out. While there is a place whose owner may not know that it has a node, the home is marked.
/// 3. A cancelled node lists no new bud, and who visits such a one to cancel what is inside leaves none. So a new node was not cancelled
///    yet, and a visit that is on its way finds it among the children.
/// 4. A bud holds what is around it from its growth on, as if it had from the start: the poll that begins with a cancel visible makes
///    sure of that before it looks. It is polled with the waker of that, so it needs none of its own there.
pub(super) struct Buds<H> {
    /// Fewer than 2^32.
    places: Slab<Place<H>>,
    /// How many places have nodes.
    grown: usize,
}

enum Place<H> {
    Bud {
        bud: Bud<H>,
        /// The bud around it, and the one in it. Both are listed here as well.
        outer: Option<BudKey>,
        inner: Option<BudKey>,
    },
    Node(Arc<Frame<H>>, Hold<H>),
}

impl<H> Default for Buds<H> {
    fn default() -> Self {
        // Most nodes never have two at once.
        Self { places: Slab::with_capacity(1), grown: 0 }
    }
}

/// What others see of a bud.
pub(crate) struct BudView {
    pub(crate) info: Info,
    pub(crate) shielded: bool,
    /// It is in another bud that is.
    pub(crate) in_shield: bool,
    /// In ticks of the host, as the next one.
    pub(crate) budget: Option<u64>,
    pub(crate) deadline: Option<u64>,
    /// In how many other buds it is.
    pub(crate) depth: usize,
}

/// What a bud is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outer {
    /// A task without a frame, below the root.
    Task,
    /// The frame of the region of its home.
    Frame,
    /// The bud with this key.
    Bud(BudKey),
}

/// The place of a bud in the list of its home. Half as wide as a key of the list, since places are moved a lot.
pub(crate) type BudKey = u32;

/// What is true of a bud or of one around it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chain {
    /// It has a deadline.
    pub(crate) timed: bool,
    /// It is shielded, so that what is around all of them cancels nothing in it.
    pub(crate) shielded: bool,
}

/// The place of a bud, as its owner keeps it. Dropping it ends the region.
pub(crate) struct BudSeat<H> {
    home: Arc<Node<H>>,
    key: BudKey,
    outer: Outer,
    owned: bool,
    chain: Chain,
    is_listed: bool,
}

impl<H> BudSeat<H> {
    /// Lists a bud inside of `home`. None if it has to be a node from the start: `home` is cancelled or marked, or what is to be around
    /// it has another bud in it.
    #[inline]
    pub(crate) fn plant(home: Arc<Node<H>>, outer: Outer, around: Chain, bud: Bud<H>) -> Option<Self> {
        let Bud { owned, shielded, deadline, .. } = bud;
        let chain = Chain { timed: around.timed || deadline.is_some(), shielded: around.shielded || shielded };
        let mut tree = home.tree.lock();
        let buds = tree.buds.get_or_insert_default();
        // While the mark is there, each poll of a bud takes the lock, and those that were looked into may be long in coming.
        if home.has(CANCELLED | GROWN) || !buds.is_free(outer) {
            return None;
        }
        let key = buds.insert(outer, bud)?;
        drop(tree);
        Some(Self { home, key, outer, owned, chain, is_listed: true })
    }

    pub(crate) fn home(&self) -> &Arc<Node<H>> {
        &self.home
    }

    pub(crate) fn outer(&self) -> Outer {
        self.outer
    }

    /// What a bud in this one is in.
    pub(crate) fn as_outer(&self) -> Outer {
        Outer::Bud(self.key)
    }

    pub(crate) fn key(&self) -> BudKey {
        self.key
    }

    pub(crate) fn is_owned(&self) -> bool {
        self.owned
    }

    /// What counts inside of it.
    pub(crate) fn chain(&self) -> Chain {
        self.chain
    }

    /// True if it is cancelled: by what is around it, or alone, if somebody else has made its node.
    pub(crate) fn is_cancelled(&self) -> bool {
        let above = !self.chain.shielded && self.home.is_cancelled();
        above || self.home.grown(self.key).is_some_and(|frame| frame.is_cancelled())
    }

    /// True if it may not be polled as a bud any more. One load, as long as nothing in its home is looked into.
    #[inline(always)]
    pub(crate) fn is_over(&self) -> bool {
        self.home.has(CANCELLED | GROWN) && self.is_over_now()
    }

    #[cold]
    fn is_over_now(&self) -> bool {
        self.home.is_cancelled() || self.home.grown(self.key).is_some()
    }

    /// The frame, made now if there is none: something inside the poll that goes on needs it.
    pub(crate) fn grow(&self) -> Option<Arc<Frame<H>>> {
        self.home.grow_bud(&mut self.home.tree.lock(), self.key)
    }

    /// The frame, made now if there is none, and the hold on what is around it. From now on the owner knows the node.
    pub(crate) fn claim(mut self) -> (Arc<Frame<H>>, Hold<H>) {
        self.is_listed = false;
        let mut tree = self.home.tree.lock();
        drop(self.home.grow_bud(&mut tree, self.key));
        match self.home.take_out(&mut tree, self.key) {
            Some(Place::Node(frame, hold)) => (frame, hold),
            Some(Place::Bud { .. }) | None => unreachable!("only the owner takes a place out, and it has a node now"),
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
    /// True if there may be a bud in `outer`: if that is a bud, it is one still, and has none.
    #[inline]
    fn is_free(&self, outer: Outer) -> bool {
        match outer {
            Outer::Task | Outer::Frame => true,
            Outer::Bud(key) => matches!(self.places.get(key as usize), Some(Place::Bud { inner: None, .. })),
        }
    }

    /// Lists a bud in what is free.
    #[inline]
    fn insert(&mut self, outer: Outer, bud: Bud<H>) -> Option<BudKey> {
        let key = BudKey::try_from(self.places.vacant_key()).ok()?;
        let outer = match outer {
            Outer::Task | Outer::Frame => None,
            Outer::Bud(outer) => Some(outer),
        };
        if let Some(Place::Bud { inner, .. }) = outer.and_then(|outer| self.places.get_mut(outer as usize)) {
            *inner = Some(key);
        }
        self.places.insert(Place::Bud { bud, outer, inner: None });
        Some(key)
    }

    fn has_inner(&self, key: BudKey) -> bool {
        matches!(self.places.get(key as usize), Some(Place::Bud { inner: Some(_), .. }))
    }

    /// What there is to see of them.
    pub(super) fn views(&self) -> Vec<BudView> {
        let outermost = self.places.iter().filter(|(_, place)| matches!(place, Place::Bud { outer: None, .. }));
        outermost.flat_map(|(key, _)| self.chain(key)).collect()
    }

    /// A bud, and those in it.
    fn chain(&self, outermost: usize) -> impl Iterator<Item = BudView> {
        let inner = |key: &usize| match self.places.get(*key) {
            Some(Place::Bud { inner, .. }) => inner.map(|inner| inner as usize),
            Some(Place::Node(..)) | None => None,
        };
        let buds = std::iter::successors(Some(outermost), inner).filter_map(|key| match self.places.get(key)? {
            Place::Bud { bud, .. } => Some(bud),
            Place::Node(..) => None,
        });
        let mut in_shield = false;
        buds.enumerate().map(move |(depth, bud)| {
            let outer_shield = in_shield;
            in_shield |= bud.shielded;
            BudView {
                info: bud.info.clone(),
                shielded: bud.shielded,
                in_shield: outer_shield,
                budget: bud.held_off.as_ref().map(|held_off| held_off.budget),
                deadline: bud.deadline,
                depth,
            }
        })
    }

    /// True if there is one that has no node.
    pub(super) fn has_any(&self) -> bool {
        self.grown < self.places.len()
    }

    fn is_bud(&self, key: BudKey) -> bool {
        matches!(self.places.get(key as usize), Some(Place::Bud { .. }))
    }

    fn frame(&self, key: BudKey) -> Option<&Arc<Frame<H>>> {
        match self.places.get(key as usize)? {
            Place::Node(frame, _) => Some(frame),
            Place::Bud { .. } => None,
        }
    }

    /// The outermost bud of the chain in which this one is.
    fn outermost(&self, key: BudKey) -> BudKey {
        let outwards = |key: &BudKey| match self.places.get(*key as usize) {
            Some(Place::Bud { outer, .. }) => *outer,
            Some(Place::Node(..)) | None => None,
        };
        std::iter::successors(Some(key), outwards).last().unwrap_or(key)
    }
}

impl<H> Node<H> {
    /// The frame that somebody has made for a bud of this node.
    #[inline]
    fn grown(&self, key: BudKey) -> Option<Arc<Frame<H>>> {
        if !self.has(GROWN) {
            return None;
        }
        self.tree.lock().buds.as_ref()?.frame(key).map(Arc::clone)
    }

    /// Takes a place out of the list, with the lock held.
    fn take_out(&self, tree: &mut Tree<H>, key: BudKey) -> Option<Place<H>> {
        let buds = tree.buds.as_mut()?;
        let place = buds.places.try_remove(key as usize)?;
        match &place {
            Place::Node(..) => {
                buds.grown -= 1;
                if buds.grown == 0 {
                    self.put(GROWN, false);
                }
            }
            Place::Bud { outer, .. } => {
                let around = outer.and_then(|outer| buds.places.get_mut(outer as usize));
                if let Some(Place::Bud { inner, .. }) = around {
                    *inner = None;
                }
            }
        }
        Some(place)
    }

    /// Invariant 1: the frame of a bud, made now with all of its chain if there is none. The caller holds the lock of this node.
    fn grow_bud(self: &Arc<Self>, tree: &mut Tree<H>, key: BudKey) -> Option<Arc<Frame<H>>> {
        let Tree { buds, children, region, .. } = tree;
        let buds = buds.as_deref_mut()?;
        let outermost = buds.outermost(key);
        let (mut next, mut around) = (Some(outermost), None::<Arc<Frame<H>>>);
        while let Some(Place::Bud { bud, inner, .. }) = next.and_then(|next| buds.places.get_mut(next as usize)) {
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
            buds.places[place as usize] = Place::Node(frame, hold.unwrap_or_default());
            buds.grown += 1;
            self.put(GROWN, true);
        }
        buds.frame(key).map(Arc::clone)
    }

    /// The node of a bud whose deadline `at` has passed, made now if there is none; none if that bud has ended.
    pub(crate) fn bud_due(self: &Arc<Self>, key: BudKey, at: u64) -> Option<Arc<Self>> {
        let mut tree = self.tree.lock();
        match tree.buds.as_ref()?.places.get(key as usize)? {
            Place::Bud { bud, .. } if bud.deadline != Some(at) => return None,
            Place::Bud { .. } | Place::Node(..) => {}
        }
        self.grow_bud(&mut tree, key).map(|frame| Arc::clone(frame.node()))
    }

    /// Makes nodes of all buds: for a poll that begins with the cancel visible (invariant 4), and for those who act on what is inside.
    pub(crate) fn grow_buds(self: &Arc<Self>) {
        let mut next = 0;
        while let Some(reached) = self.grow_some(&mut self.tree.lock(), next) {
            next = reached;
        }
    }

    /// The tree of this node, locked, with a node for each bud that was there when it was cancelled.
    pub(super) fn tree_without_buds(self: &Arc<Self>) -> MutexGuard<'_, Tree<H>> {
        let tree = self.tree.lock();
        if !tree.buds.as_ref().is_some_and(|buds| buds.has_any()) {
            return tree;
        }
        drop(tree);
        self.grow_buds();
        self.tree.lock()
    }

    /// Makes nodes of those from a place on, but not of so many that others wait long for the lock. Gives the place that it has reached.
    fn grow_some(self: &Arc<Self>, tree: &mut Tree<H>, next: BudKey) -> Option<BudKey> {
        const BATCH: BudKey = 64;
        let buds = tree.buds.as_ref().filter(|buds| buds.has_any() && (next as usize) < buds.places.capacity())?;
        let batch = (next..next.saturating_add(BATCH)).filter(|key| buds.is_bud(*key));
        batch.collect::<Vec<_>>().into_iter().for_each(|key| drop(self.grow_bud(tree, key)));
        next.checked_add(BATCH)
    }
}

impl<H> Bud<H> {
    /// Its frame, with a node below `home` that is not linked yet.
    fn grow(&mut self, home: &Node<H>) -> Arc<Frame<H>> {
        let node = Node::unbound_below(home, self.info.clone(), None, self.shielded);
        if self.finalizer {
            node.set_finalizer();
        }
        if self.deadline.is_some() {
            node.set_deadline(self.deadline);
        }
        if let Some(held_off) = self.held_off.take() {
            node.on_held_off.get_or_init(|| held_off);
        }
        Frame::of_bud(node, self.owned, self.waker.take())
    }
}
