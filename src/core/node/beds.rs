//! The buds in a node: a list for each bed, and what others see of it.

use slab::Slab;

use super::{Bud, Info, Outer};
use crate::core::frame::{Frame, Hold};
use crate::core::parts::{PARTS, Parts};
use crate::core::sync::{Arc, Mutex, MutexGuard};

/// The regions that wait in one node without nodes of their own.
///
/// # Invariants
///
/// 1. A bud becomes a node at most once, under the locks of its home and its bed, and takes its waker along. All buds of its chain, which
///    is itself, those around it and those in it, become nodes with it: whatever is inside of a node is found through that.
/// 2. Only its owner takes a place out. While there is a place whose owner may not know that it has a node, the home is marked.
/// 3. A cancelled node lists no new bud, and who visits such a one to cancel what is inside leaves none. So a new node was not cancelled
///    yet, and a visit that is on its way finds it among the children. The beds of a node are made under its lock after a look at the
///    flag, and each bud is listed under the lock of its bed after such a look; a visit takes both locks after the flag was raised.
/// 4. A bud holds what is around it from its growth on, as if it had from the start: the poll that begins with a cancel visible makes
///    sure of that before it looks. It is polled with the waker of that, so it needs none of its own there.
/// 5. A chain is in one bed.
pub(super) enum Beds<H> {
    One(Mutex<Buds<H>>),
    /// Of a root: the tasks of a program that nothing of ours is around have their buds there, on all its threads.
    Many(Parts<Buds<H>>),
}

/// Those in one bed.
pub(super) struct Buds<H> {
    pub(super) places: Slab<Place<H>>,
    /// How many places have nodes.
    pub(super) grown: usize,
}

impl<H> Beds<H> {
    pub(super) fn one() -> Self {
        Self::One(Mutex::default())
    }

    pub(super) fn many() -> Self {
        Self::Many(Parts::default())
    }

    /// The bed with this number, locked, or that which is as good.
    #[inline]
    pub(super) fn lock(&self, number: usize) -> MutexGuard<'_, Buds<H>> {
        match self {
            Self::One(buds) => buds.lock(),
            Self::Many(beds) => beds.lock(number),
        }
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(_) => PARTS,
        }
    }

    /// True if there is one that has no node.
    pub(super) fn has_any(&self) -> bool {
        (0..self.count()).any(|number| self.lock(number).has_any())
    }

    /// What there is to see of them.
    pub(super) fn views(&self) -> Vec<BudView> {
        (0..self.count()).flat_map(|number| self.lock(number).views()).collect()
    }
}

pub(super) enum Place<H> {
    Bud {
        bud: Bud<H>,
        /// The bud around it, and the one in it. Both are listed here as well.
        outer: Option<BudKey>,
        inner: Option<BudKey>,
    },
    Node(Arc<Frame<H>>, Hold<H>),
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

/// The place of a bud in its home: its place in its bed, and the number of that. Half as wide as a key of a list, since places are moved
/// a lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BudKey(u32);

impl BudKey {
    /// Of the first bud in a node.
    #[cfg(all(test, testudo_loom))]
    pub(crate) const FIRST: Self = Self(0);

    /// None if there are too many.
    #[inline]
    pub(super) fn new(bed: usize, index: usize) -> Option<Self> {
        let index = u32::try_from(index).ok().filter(|index| *index < u32::MAX / PARTS as u32)?;
        Some(Self(index * PARTS as u32 + (bed % PARTS) as u32))
    }

    /// The number of the bed, or one that is as good.
    #[inline]
    pub(super) fn bed(self) -> usize {
        self.0 as usize
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        self.0 as usize / PARTS
    }
}

impl<H> Default for Buds<H> {
    fn default() -> Self {
        Self { places: Slab::new(), grown: 0 }
    }
}

impl<H> Buds<H> {
    #[inline]
    pub(super) fn place(&self, key: BudKey) -> Option<&Place<H>> {
        self.places.get(key.index())
    }

    #[inline]
    pub(super) fn place_mut(&mut self, key: BudKey) -> Option<&mut Place<H>> {
        self.places.get_mut(key.index())
    }

    /// True if there may be a bud in `outer`: if that is a bud, it is one still, and has none.
    #[inline]
    pub(super) fn is_free(&self, outer: Outer) -> bool {
        match outer {
            Outer::Task(_) | Outer::Frame => true,
            Outer::Bud(key) => matches!(self.place(key), Some(Place::Bud { inner: None, .. })),
        }
    }

    /// True if the deadline of a bud around, which no shield in it holds off, is at `at` or before.
    pub(super) fn ends_by(&self, outer: Outer, at: u64) -> bool {
        let bud = |key: BudKey| match self.place(key)? {
            Place::Bud { bud, outer, .. } => Some((bud, *outer)),
            Place::Node(..) => None,
        };
        let outwards = |(inner, outer): &(&Bud<H>, Option<BudKey>)| bud(outer.filter(|_| !inner.shielded)?);
        std::iter::successors(outer.bud().and_then(bud), outwards)
            .any(|(bud, _)| bud.deadline.is_some_and(|end| end <= at))
    }

    /// Where the next one goes in this bed, which has a number.
    #[inline]
    pub(super) fn vacant(&self, number: usize) -> Option<BudKey> {
        BudKey::new(number, self.places.vacant_key())
    }

    /// Lists a bud in what is free, at the place that is vacant.
    #[inline]
    pub(super) fn insert(&mut self, key: BudKey, outer: Outer, bud: Bud<H>) {
        if self.places.capacity() == 0 {
            // Most nodes never have two at once.
            self.places.reserve_exact(1);
        }
        let outer = outer.bud();
        if let Some(Place::Bud { inner, .. }) = outer.and_then(|outer| self.place_mut(outer)) {
            *inner = Some(key);
        }
        self.places.insert(Place::Bud { bud, outer, inner: None });
    }

    /// Takes a place out of the list that is no node, and that nothing is in.
    #[inline]
    pub(super) fn take_bud(&mut self, key: BudKey) -> Option<Bud<H>> {
        if !matches!(self.place(key), Some(Place::Bud { inner: None, .. })) {
            return None;
        }
        let Some(Place::Bud { bud, outer, .. }) = self.places.try_remove(key.index()) else { return None };
        if let Some(Place::Bud { inner, .. }) = outer.and_then(|outer| self.place_mut(outer)) {
            *inner = None;
        }
        Some(bud)
    }

    /// What there is to see of them.
    fn views(&self) -> Vec<BudView> {
        let outermost = self.places.iter().filter(|(_, place)| matches!(place, Place::Bud { outer: None, .. }));
        outermost.flat_map(|(key, _)| self.chain(key)).collect()
    }

    /// A bud, and those in it.
    fn chain(&self, outermost: usize) -> impl Iterator<Item = BudView> {
        let inner = |key: &usize| match self.places.get(*key) {
            Some(Place::Bud { inner, .. }) => inner.map(BudKey::index),
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

    pub(super) fn has_any(&self) -> bool {
        self.grown < self.places.len()
    }

    pub(super) fn frame(&self, key: BudKey) -> Option<&Arc<Frame<H>>> {
        match self.place(key)? {
            Place::Node(frame, _) => Some(frame),
            Place::Bud { .. } => None,
        }
    }

    /// The outermost bud of the chain in which this one is.
    pub(super) fn outermost(&self, key: BudKey) -> BudKey {
        let outwards = |key: &BudKey| match self.place(*key) {
            Some(Place::Bud { outer, .. }) => *outer,
            Some(Place::Node(..)) | None => None,
        };
        std::iter::successors(Some(key), outwards).last().unwrap_or(key)
    }
}
