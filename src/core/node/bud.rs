//! A region that waits and that nothing has looked into: a bud in the list of the node around it, until somebody looks.

use std::task::Waker;

use super::beds::{Beds, BudKey, Buds, Place};
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

/// What a bud is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outer {
    /// A task without a frame, below the root, on the thread that has the bed with this number.
    Task(u32),
    /// The frame of the region of its home.
    Frame,
    /// The bud with this key.
    Bud(BudKey),
}

impl Outer {
    #[inline]
    fn bed(self) -> usize {
        match self {
            Self::Task(number) => number as usize,
            Self::Frame => 0,
            Self::Bud(outer) => outer.bed(),
        }
    }

    #[inline]
    pub(super) fn bud(self) -> Option<BudKey> {
        match self {
            Self::Task(_) | Self::Frame => None,
            Self::Bud(key) => Some(key),
        }
    }
}

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
        let number = outer.bed();
        let mut buds = home.beds()?.lock(number);
        // While the mark is there, each poll of a bud takes the lock, and those that were looked into may be long in coming.
        if home.has(CANCELLED | GROWN) || !buds.is_free(outer) {
            return None;
        }
        let key = buds.vacant(number)?;
        buds.insert(key, outer, bud);
        drop(buds);
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
            Some(place) => place,
            None => unreachable!("only the owner takes a place out, and it has a node now"),
        }
    }
}

impl<H> Drop for BudSeat<H> {
    fn drop(&mut self) {
        if self.is_listed {
            drop(self.leave());
        }
    }
}

/// The frame of what has ended, and what has moved out of it.
pub(crate) type Left<H> = (Arc<Frame<H>>, Vec<Arc<Node<H>>>);

impl<H> BudSeat<H> {
    /// Ends the region. If it had become a node, gives its frame and what is still in it, so that its owner ends what a layer above has
    /// begun with the one, and goes on with the others.
    pub(crate) fn end(mut self) -> Option<Left<H>> {
        self.is_listed = false;
        self.leave()
    }

    fn leave(&self) -> Option<Left<H>> {
        let bud = self.home.beds.get()?.lock(self.key.bed()).take_bud(self.key);
        match bud {
            Some(bud) => {
                drop(bud);
                None
            }
            None => self.leave_as_node(),
        }
    }

    /// Somebody has looked into it, or something is in it: its future has moved, or was forgotten, and stays in the tree, further out.
    #[cold]
    fn leave_as_node(&self) -> Option<Left<H>> {
        let mut tree = self.home.tree.lock();
        drop(self.home.grow_bud(&mut tree, self.key));
        let place = self.home.take_out(&mut tree, self.key);
        drop(tree);
        let (frame, hold) = place?;
        let orphans = frame.node().detach();
        // Last, so that whoever it was holding for finds everything in order.
        drop(hold);
        Some((frame, orphans))
    }
}

impl<H> Node<H> {
    /// Where its buds are. None if it is cancelled before the first.
    #[inline]
    fn beds(&self) -> Option<&Beds<H>> {
        match self.beds.get() {
            Some(beds) => Some(beds),
            None => self.make_beds(),
        }
    }

    #[cold]
    fn make_beds(&self) -> Option<&Beds<H>> {
        let tree = self.tree.lock();
        if self.is_cancelled() {
            return None;
        }
        let beds = self.beds.get_or_init(|| Box::new(Beds::one()));
        drop(tree);
        Some(beds)
    }

    /// True if a bud that is planted in `outer` is cancelled by a deadline around it at `at` or before.
    pub(crate) fn ends_by(&self, outer: Outer, at: u64) -> bool {
        self.beds.get().is_some_and(|beds| beds.lock(outer.bed()).ends_by(outer, at))
    }

    /// The bed of a bud, locked.
    fn bed_of(&self, key: BudKey) -> Option<MutexGuard<'_, Buds<H>>> {
        Some(self.beds.get()?.lock(key.bed()))
    }

    /// The frame that somebody has made for a bud of this node.
    #[inline]
    fn grown(&self, key: BudKey) -> Option<Arc<Frame<H>>> {
        if !self.has(GROWN) {
            return None;
        }
        self.bed_of(key)?.frame(key).map(Arc::clone)
    }

    /// Takes a place that is a node out of the list, with the lock of this node held.
    fn take_out(&self, tree: &mut Tree<H>, key: BudKey) -> Option<(Arc<Frame<H>>, Hold<H>)> {
        let mut buds = self.bed_of(key)?;
        let Some(Place::Node(frame, hold)) = buds.places.try_remove(key.index()) else { return None };
        buds.grown -= 1;
        drop(buds);
        tree.grown_buds -= 1;
        if tree.grown_buds == 0 {
            self.put(GROWN, false);
        }
        Some((frame, hold))
    }

    fn grow_bud(self: &Arc<Self>, tree: &mut Tree<H>, key: BudKey) -> Option<Arc<Frame<H>>> {
        self.grow_in(tree, &mut *self.bed_of(key)?, key)
    }

    /// Invariant 1: the frame of a bud, made now with all of its chain if there is none. The caller holds the lock of this node.
    fn grow_in(self: &Arc<Self>, tree: &mut Tree<H>, buds: &mut Buds<H>, key: BudKey) -> Option<Arc<Frame<H>>> {
        let Tree { grown_buds, children, region, .. } = tree;
        let outermost = buds.outermost(key);
        let (mut next, mut around) = (Some(outermost), None::<Arc<Frame<H>>>);
        while let Some(Place::Bud { bud, inner, .. }) = next.and_then(|next| buds.place_mut(next)) {
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
            buds.places[place.index()] = Place::Node(frame, hold.unwrap_or_default());
            buds.grown += 1;
            *grown_buds += 1;
            self.put(GROWN, true);
        }
        buds.frame(key).map(Arc::clone)
    }

    /// The node of a bud whose deadline `at` has passed, made now if there is none; none if that bud has ended.
    pub(crate) fn bud_due(self: &Arc<Self>, key: BudKey, at: u64) -> Option<Arc<Self>> {
        let mut tree = self.tree.lock();
        let mut buds = self.bed_of(key)?;
        match buds.place(key)? {
            Place::Bud { bud, .. } if bud.deadline != Some(at) => return None,
            Place::Bud { .. } | Place::Node(..) => {}
        }
        self.grow_in(&mut tree, &mut buds, key).map(|frame| Arc::clone(frame.node()))
    }

    /// Makes nodes of all buds: for a poll that begins with the cancel visible (invariant 4), and for those who act on what is inside.
    pub(crate) fn grow_buds(self: &Arc<Self>) {
        let Some(beds) = self.beds.get() else { return };
        for number in 0..beds.count() {
            let mut next = 0;
            while let Some(reached) = self.grow_some(&mut self.tree.lock(), beds, number, next) {
                next = reached;
            }
        }
    }

    /// True if there is one that has no node. The caller holds the lock of this node.
    pub(super) fn has_buds(&self) -> bool {
        self.beds.get().is_some_and(|beds| beds.has_any())
    }

    /// The tree of this node, locked, with a node for each bud that was there when it was cancelled.
    pub(super) fn tree_without_buds(self: &Arc<Self>) -> MutexGuard<'_, Tree<H>> {
        let tree = self.tree.lock();
        if !self.has_buds() {
            return tree;
        }
        drop(tree);
        self.grow_buds();
        self.tree.lock()
    }

    /// Makes nodes of those in a bed from a place on, but not of so many that others wait long for the lock. Gives the place that it has
    /// reached.
    fn grow_some(self: &Arc<Self>, tree: &mut Tree<H>, beds: &Beds<H>, number: usize, next: usize) -> Option<usize> {
        const BATCH: usize = 64;
        let mut buds = beds.lock(number);
        if !buds.has_any() || next >= buds.places.capacity() {
            return None;
        }
        for key in (next..next + BATCH).filter_map(|index| BudKey::new(number, index)) {
            drop(self.grow_in(tree, &mut buds, key));
        }
        Some(next + BATCH)
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
