//! The cancel tree: who is inside what, and the flag that is pushed down it.

mod beds;
mod bud;
mod crowd;
mod exposed;
mod info;
mod latch;
mod leaf;
mod links;
mod tasks;

use beds::Beds;
pub(crate) use beds::{BudKey, BudView};
pub(crate) use bud::{Bud, BudSeat, Chain, Left, Outer};
pub(crate) use crowd::Crowd;
pub(crate) use info::{Info, Kind};
use leaf::Listed;
pub(crate) use leaf::{Leaf, LeafSeat, Member, TaskKey};
use tasks::Tasks;

use std::task::Waker;

use slab::Slab;

use super::cause::{Cause, Causes};
use super::frame::Frame;
use super::live::Live;
use super::owner::Owner;
use super::sync::{Arc, AtomicUsize, Mutex, OnceLock, Ordering};

/// A scope, a shield, a nursery, or a task that somebody wants to cancel alone.
///
/// # Invariants
///
/// 1. *Cancelled* = requested, latched or pierced, or not shielded and a parent is cancelled. It is recomputed from the parent
///    under the parent's lock and the node's own, never set blindly (M5): whoever changes a parent visits its children after
///    the change, so the last visit computes from the last state. Whatever is cancelled has a cause.
/// 2. *Requested*, *latched*, *unwinds* and *pierced* are never taken back. *Shielded* and, with it, *cancelled* may be.
/// 3. Only the owner of a node (the future it belongs to, or who has adopted that) links and unlinks it, but for what its parent
///    finds in its list at its end and moves upwards; anybody may cancel it. A move is one step under the locks of the new parent
///    and the node, so it is in one list at a time for whoever walks upwards.
/// 4. A node that is shielded stays in its parent's list, so lowering the shield finds it.
/// 5. All nodes from one that knows its absorber up to that unwind. It is set under the locks of all of these, and forgotten by all that
///    is inside of a node that moves.
///
/// # Lock order
///
/// Parent before child, between them the beds of the parent; nodes before a frame. Nothing is woken, dropped or called under a lock.
pub(crate) struct Node<H> {
    bits: AtomicUsize,
    tree: Mutex<Tree<H>>,
    /// The regions that wait in it without nodes of their own. Boxed, because few nodes have any.
    beds: OnceLock<Box<Beds<H>>>,
    pub(crate) info: Info,
    host: HostOf<H>,
    /// Set if this node owns work: a nursery or a root.
    pub(crate) owner: Option<Owner>,
    /// Called, with no lock held, when this node begins to hold off a cancel: a shield lets its budget run then.
    pub(crate) on_held_off: OnceLock<HeldOff<H>>,
    /// Why it is cancelled, from when it is for good and somebody has asked: for the many that are cut in it.
    fixed_cause: OnceLock<Cause>,
}

/// What the layers above know of the runtime that a node lives on.
enum HostOf<H> {
    /// Known when the node was made.
    Known(Arc<H>),
    /// Known from the first time that it is linked.
    Linked(OnceLock<Arc<H>>),
}

/// What a shield does when it begins to hold something off, with the length of its budget in ticks of the host.
pub(crate) struct HeldOff<H> {
    pub(crate) budget: u64,
    pub(crate) begin: fn(&Arc<Node<H>>, u64),
}

struct Tree<H> {
    /// The node around this one and our key in its list; none for a root, and after the end.
    parent: Link<H>,
    /// The node around this one at its end. What outlives its region (a future that was polled in a scope and kept) finds the
    /// way to an owner through it.
    left: Option<Arc<Node<H>>>,
    /// For `exposed` only: the view from outside the shield that it opens. A second parent as far as the flag goes.
    outside: Link<H>,
    /// Of a node that unwinds: who absorbs what is cut in it, as long as nothing between the two has moved.
    absorber: Option<Arc<Node<H>>>,
    children: Slab<Arc<Node<H>>>,
    /// How many buds have become nodes, and their owners may not know.
    grown_buds: usize,
    /// The frame of the region that this node belongs to: the body of a scope, a task.
    region: Option<Arc<Frame<H>>>,
    /// The tasks that this node judges, as the nursery that they are children of.
    tasks: Tasks<Listed<H>>,
    /// Who waits for `cancelled()` from anywhere. A wake takes the waker; the place stays with whoever got it.
    /// Boxed, because few nodes have any.
    listeners: Option<Box<Slab<Option<Waker>>>>,
    causes: Causes,
    /// In ticks of the host. A deadline that has fired is a request, so it is sticky.
    deadline: Option<u64>,
}

type Link<H> = Option<(Arc<Node<H>>, usize)>;

impl<H> Tree<H> {
    /// True if `holds` does for one of those that pass their cancel on to this node.
    fn any_parent(&self, holds: impl Fn(&Node<H>) -> bool) -> bool {
        let asked = |link: &Link<H>| link.as_ref().is_some_and(|(node, _)| holds(node));
        asked(&self.parent) || asked(&self.outside)
    }
}

const CANCELLED: usize = 1;
const REQUESTED: usize = 1 << 1;
const SHIELDED: usize = 1 << 2;
/// A frame below was cut and unwinds at least up to here: raising a shield un-cancels nothing any more (M3).
const LATCHED: usize = 1 << 3;
/// The unwinding goes on beyond this node: it has to end without giving a result.
const UNWINDS: usize = 1 << 4;
/// A shield outside was cut off by force: shields inside it hold nothing any more.
const PIERCED: usize = 1 << 5;
/// Each of these cancels a node, and is never taken back.
const FOR_GOOD: usize = REQUESTED | LATCHED | PIERCED;
/// A shield whose caller was dropped.
const RESCUED: usize = 1 << 6;
/// A parent is cancelled, as far as its visit has come.
const ABOVE: usize = 1 << 7;
/// A shield that is a finalizer: it goes on when the time of the other shields is up.
const FINALIZER: usize = 1 << 8;
/// It has a deadline.
const TIMED: usize = 1 << 9;
/// Somebody has looked into a task of this nursery, so that it has a frame that it may not know of. Never taken back.
const LOOKED_INTO: usize = 1 << 10;
/// A bud of this node has become one, and its owner may not know.
const GROWN: usize = 1 << 11;

impl<H> Node<H> {
    /// A node without a parent.
    pub(crate) fn root(info: Info, host: Arc<H>, owner: Owner) -> Arc<Self> {
        let root = Self::new(info, Some(owner), false, HostOf::Known(host));
        root.beds.get_or_init(|| Box::new(Beds::many()));
        Arc::new(root)
    }

    /// A node that is not in any tree yet. It can be cancelled all the same.
    pub(crate) fn unbound(info: Info, owner: Option<Owner>, shielded: bool) -> Arc<Self> {
        Arc::new(Self::new(info, owner, shielded, HostOf::Linked(OnceLock::new())))
    }

    /// A node that is not in any tree yet, and will be below `parent`.
    pub(crate) fn unbound_below(parent: &Self, info: Info, owner: Option<Owner>, shielded: bool) -> Arc<Self> {
        let host =
            parent.host().map_or_else(|| HostOf::Linked(OnceLock::new()), |host| HostOf::Known(Arc::clone(host)));
        Arc::new(Self::new(info, owner, shielded, host))
    }

    /// A new node below `parent`, cancelled from the start if that is.
    pub(crate) fn child(parent: &Arc<Self>, info: Info, shielded: bool, owner: Option<Owner>) -> Arc<Self> {
        let node = Self::unbound_below(parent, info, owner, shielded);
        // A node that nobody else knows has no waker to wake and no child to visit, whatever the look says.
        match node.link(parent, None, |_| true) {
            Look::Same | Look::Changed | Look::HeldOff => node,
        }
    }

    fn new(info: Info, owner: Option<Owner>, shielded: bool, host: HostOf<H>) -> Self {
        let tree = Tree {
            parent: None,
            left: None,
            outside: None,
            absorber: None,
            children: Slab::new(),
            grown_buds: 0,
            region: None,
            tasks: Tasks::new(),
            listeners: None,
            causes: Causes::default(),
            deadline: None,
        };
        let bits = AtomicUsize::new(if shielded { SHIELDED } else { 0 });
        let (beds, on_held_off, fixed_cause) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { bits, tree: Mutex::new(tree), beds, info, host, owner, on_held_off, fixed_cause }
    }

    /// The runtime that this node was first linked on; none before.
    pub(crate) fn host(&self) -> Option<&Arc<H>> {
        match &self.host {
            HostOf::Known(host) => Some(host),
            HostOf::Linked(host) => host.get(),
        }
    }

    /// The count of what is alive in it, if it owns work.
    pub(crate) fn live(&self) -> Option<&Live> {
        self.owner.as_ref().map(|owner| &owner.live)
    }

    /// True if it owns work, and somebody waits for the task that polls it, and so for its children.
    pub(crate) fn is_owned(&self) -> bool {
        self.owner.as_ref().is_some_and(Owner::is_owned)
    }

    /// One load, at any depth.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.has(CANCELLED)
    }

    /// True if nothing un-cancels it any more (invariant 2).
    fn is_cancelled_for_good(&self) -> bool {
        self.has(FOR_GOOD)
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.has(REQUESTED)
    }

    pub(crate) fn is_shielded(&self) -> bool {
        self.has(SHIELDED)
    }

    /// True if what ends here must not give a result, because the unwinding goes on beyond it.
    pub(crate) fn unwinds(&self) -> bool {
        self.has(UNWINDS)
    }

    pub(crate) fn is_rescued(&self) -> bool {
        self.has(RESCUED)
    }

    pub(crate) fn set_rescued(&self) {
        let tree = self.tree.lock();
        self.put(RESCUED, true);
        drop(tree);
    }

    #[cfg(feature = "signal")]
    pub(crate) fn is_finalizer(&self) -> bool {
        self.has(FINALIZER)
    }

    pub(crate) fn set_finalizer(&self) {
        let tree = self.tree.lock();
        self.put(FINALIZER, true);
        drop(tree);
    }

    fn has(&self, bit: usize) -> bool {
        self.bits.load(Ordering::Acquire) & bit != 0
    }

    /// Changes bits; the caller holds the lock of this node.
    fn put(&self, bits: usize, on: bool) {
        let old = self.bits.load(Ordering::Relaxed);
        self.bits.store(if on { old | bits } else { old & !bits }, Ordering::Release);
    }

    /// Requests the cancel of everything inside. False if that had been done before; the cause is kept all the same.
    pub(crate) fn cancel(self: &Arc<Self>, cause: Cause) -> bool {
        self.cancel_and(cause, drop)
    }

    /// The same, but it is left to `wake` when those that wait are woken: all flags stand by then.
    pub(crate) fn cancel_and(self: &Arc<Self>, cause: Cause, wake: impl FnOnce(Crowd<H>)) -> bool {
        self.request(cause, 0, wake)
    }

    /// The same with force: no shield inside holds.
    pub(crate) fn pierce(self: &Arc<Self>, cause: Cause) -> bool {
        self.request(cause, PIERCED, drop)
    }

    fn request(self: &Arc<Self>, cause: Cause, force: usize, wake: impl FnOnce(Crowd<H>)) -> bool {
        let mut tree = self.tree.lock();
        tree.causes.push(cause);
        let first = !self.is_requested();
        let changed = !self.is_cancelled() || force != 0;
        self.put(REQUESTED | CANCELLED, true);
        drop(tree);
        if changed {
            wake(self.spread(force));
        }
        first
    }

    /// Visits everything below after a change of this node, and gives back whoever has to look again. O(nodes) until all flags
    /// stand, and no more than one lock pair is held at a time.
    fn spread(self: &Arc<Self>, force: usize) -> Crowd<H> {
        let (mut crowd, mut held_off, mut found) = (Crowd::of(self), Vec::new(), Vec::new());
        // Places in the crowd.
        let mut changed = vec![0];
        while let Some(place) = changed.pop() {
            let node = crowd.node(place);
            let tree = node.tree_without_buds();
            let looks = tree.children.iter().map(|(_, child)| (child, child.recompute(node, &tree, force)));
            found.extend(looks.filter(|(_, look)| *look != Look::Same).map(|(child, look)| (Arc::clone(child), look)));
            let tasks = tree.tasks.len();
            drop(tree);
            crowd.count(tasks);
            for (child, look) in found.drain(..) {
                let place = crowd.push(child);
                if look == Look::HeldOff { held_off.push(place) } else { changed.push(place) }
            }
        }
        for node in held_off.into_iter().map(|place| crowd.node(place)) {
            if let Some(hook) = node.on_held_off.get() {
                (hook.begin)(node, hook.budget);
            }
        }
        crowd
    }

    /// Invariant 1. The caller holds the lock of `parent`; if this node has moved away from there, somebody else computes it.
    fn recompute(&self, parent: &Self, parent_tree: &Tree<H>, force: usize) -> Look {
        let mut tree = self.tree.lock();
        if !tree.any_parent(|node| std::ptr::eq(node, parent)) {
            return Look::Same;
        }
        self.recompute_locked(&mut tree, parent_tree, force)
    }

    /// The same, by whoever holds the lock of this node as well.
    fn recompute_locked(&self, tree: &mut Tree<H>, parent_tree: &Tree<H>, force: usize) -> Look {
        let old = self.bits.load(Ordering::Relaxed);
        let was = old & CANCELLED != 0;
        let above = tree.any_parent(Node::is_cancelled);
        let asked = (old | force) & FOR_GOOD != 0 || (old & SHIELDED == 0 && above);
        if asked && tree.causes.first().is_none() {
            parent_tree.causes.first().cloned().into_iter().for_each(|cause| tree.causes.push(cause));
        }
        // If there is none, it is the other parent that is cancelled, and its visit, which brings the cause, is still to come.
        let now = asked && tree.causes.first().is_some();
        let flags = if now { CANCELLED } else { 0 } | if above { ABOVE } else { 0 };
        self.bits.store((old & !(CANCELLED | ABOVE)) | force | flags, Ordering::Release);
        if !now {
            tree.causes.clear();
        }
        match (was, now) {
            (a, b) if a != b || force != 0 => Look::Changed,
            // A shield that begins to hold something off starts its budget: its poller has to know.
            (false, false) if above => Look::HeldOff,
            _ => Look::Same,
        }
    }

    /// Raises or lowers the shield of this node.
    pub(crate) fn set_shielded(self: &Arc<Self>, shielded: bool) {
        loop {
            let parent = self.parent();
            let parent_tree = parent.as_ref().map(|parent| parent.tree.lock());
            let mut tree = self.tree.lock();
            if !same(tree.parent.as_ref().map(|(node, _)| node), parent.as_ref()) {
                continue; // Moved in between; its new parent's lock is the one that counts.
            }
            self.put(SHIELDED, shielded);
            let Some(parent_tree) = &parent_tree else { return };
            if self.recompute_locked(&mut tree, parent_tree, 0) == Look::Same {
                return;
            }
            break;
        }
        drop(self.spread(0));
    }

    /// The cause that won, if this node is cancelled.
    pub(crate) fn cause(&self) -> Option<Cause> {
        if !self.is_cancelled() {
            return None;
        }
        self.tree.lock().causes.first().cloned()
    }

    /// All causes in their order, the first is [`cause`](Self::cause).
    pub(crate) fn causes(&self) -> Vec<Cause> {
        self.tree.lock().causes.to_vec()
    }

    /// Without a lock if there is none.
    pub(crate) fn deadline(&self) -> Option<u64> {
        if self.has(TIMED) { self.tree.lock().deadline } else { None }
    }

    pub(crate) fn set_deadline(&self, at: Option<u64>) {
        let mut tree = self.tree.lock();
        tree.deadline = at;
        self.put(TIMED, at.is_some());
    }

    /// The frame of the region that this node belongs to, as long as it is in the tree.
    pub(crate) fn region(&self) -> Option<Arc<Frame<H>>> {
        self.tree.lock().region.clone()
    }

    pub(crate) fn set_region(&self, frame: &Arc<Frame<H>>) {
        let old = self.tree.lock().region.replace(Arc::clone(frame));
        drop(old);
    }

    /// Registers a waker for the next cancel, unless the node is cancelled already. The place is kept until
    /// [`unlisten`](Self::unlisten).
    pub(crate) fn listen(&self, waker: &Waker, key: &mut Option<usize>) -> bool {
        let waker = waker.clone();
        let mut tree = self.tree.lock();
        if self.is_cancelled() {
            return false;
        }
        let listeners = tree.listeners.get_or_insert_default();
        let key = *key.get_or_insert_with(|| listeners.insert(None));
        let old = listeners[key].replace(waker);
        drop(tree);
        drop(old);
        true
    }

    pub(crate) fn unlisten(&self, key: usize) {
        let waker = self.tree.lock().listeners.as_mut().map(|listeners| listeners.remove(key));
        drop(waker);
    }

    /// What is inside, but for what only sees this node from inside of its shield. A look: buds stay what they are.
    pub(crate) fn inside(self: &Arc<Self>) -> Inside<H> {
        let tree = self.tree.lock();
        let mut nodes: Vec<_> = tree.children.iter().map(|(_, node)| Arc::clone(node)).collect();
        let region = tree.region.iter().map(|frame| Member::Frame(Arc::clone(frame)));
        let tasks = tree.tasks.iter().map(|(key, listed)| self.member_of(TaskKey::of(key), listed));
        let members = region.chain(tasks).collect();
        drop(tree);
        nodes.retain(|node| !same(node.outside().as_ref(), Some(self)));
        Inside { nodes, members, buds: self.beds.get().map(|beds| beds.views()).unwrap_or_default() }
    }
}

/// What is inside a node, in the order in which it came.
pub(crate) struct Inside<H> {
    pub(crate) nodes: Vec<Arc<Node<H>>>,
    /// The frame of the region, and the tasks.
    pub(crate) members: Vec<Member<H>>,
    /// The regions that wait without a node. What is inside of such a one follows it.
    pub(crate) buds: Vec<BudView>,
}

/// What a visit of a child found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Same,
    /// Cancelled or un-cancelled by this visit.
    Changed,
    /// A shield holds off a cancel above it.
    HeldOff,
}

fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

impl<H> Tree<H> {
    /// Lets the references outwards go; gives those nodes to which one was the last.
    fn let_go(&mut self, last: &mut Vec<Node<H>>) {
        let outside = self.outside.take().map(|(node, _)| node);
        let parent = self.parent.take().map(|(node, _)| node);
        for node in [self.left.take(), parent, outside, self.absorber.take()] {
            // By hand: an `Option` of a node is large, and is moved even if it is none.
            if let Some(Some(node)) = node.map(Arc::into_inner) {
                last.push(node);
            }
        }
    }
}

/// The last reference to a node may hold the last one to what was around it, and so on outwards: not by recursion.
impl<H> Drop for Node<H> {
    fn drop(&mut self) {
        let mut last = Vec::new();
        self.tree.get_mut().let_go(&mut last);
        while let Some(mut node) = last.pop() {
            node.tree.get_mut().let_go(&mut last);
        }
    }
}

impl<H> std::fmt::Debug for Node<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("kind", &self.info.kind)
            .field("name", &self.info.name.get())
            .field("cancelled", &self.is_cancelled())
            .field("shielded", &self.is_shielded())
            .finish_non_exhaustive()
    }
}
