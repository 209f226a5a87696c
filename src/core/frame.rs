//! A region of one task that is cut off as a unit, with what holds it.

mod track;

use std::task::Waker;

use slab::Slab;
pub(crate) use track::Track;

use super::cause::Cause;
use super::node::{Kind, Leaf, Node};
use super::sabotage::{self, Bug};
use super::sync::{Arc, AtomicBool, AtomicUsize, Mutex, MutexGuard, OnceLock, Ordering};
use super::task::TaskInfo;

/// A region of one task that polls a future of ours and is cut off as a unit.
///
/// Its life: *running → visible → delivered → quiescent → cut → latched*. Running and visible are one bit of the node that
/// judges it; delivered is the poll that began with the bit set; quiescent is the verdict [`Verdict::Cut`]; latched is
/// [`Node::latch`].
///
/// # Invariants
///
/// 1. Only the poller of the frame begins an epoch, judges, and arms. Holds come and go from any thread.
/// 2. `epoch` is 0 until a poll begins with the cancel visible, so an uncancelled poll of a hold costs one load.
/// 3. `polled ≤ holds`: the holds that were polled in this epoch and are still live.
/// 4. Whoever removes a hold of a cancelled frame wakes the frame afterwards (M4). The frame arms before it judges, so the
///    wake finds a waker or the judge finds the hold gone.
/// 5. A wake takes the waker out: a poll that stays pending arms again (M5).
/// 6. `state` is the last lock in any chain; nothing is woken or dropped under it.
pub(crate) struct Frame<H> {
    under: Under<H>,
    /// True if somebody already waits for the task that polls this frame, so that a shield in it needs no live count of its own.
    /// Written by the poller, when the future of the frame has moved.
    owned: AtomicBool,
    /// Who this is, if the frame is that of a whole task.
    /// Apart, because few frames are tasks that have one.
    task: Option<Box<TaskInfo>>,
    epoch: AtomicUsize,
    armed: AtomicBool,
    state: Mutex<State>,
}

/// Which node judges a frame.
enum Under<H> {
    /// One of its own.
    Node(Arc<Node<H>>),
    /// That of its nursery, until somebody cancels the task alone or opens something in it.
    Task { home: Arc<Node<H>>, own: OnceLock<Arc<Node<H>>> },
    /// That of the frame around it: what has a finalizer is cut for the same reason, at an earlier place.
    Frame(Arc<Frame<H>>),
}

#[derive(Default)]
struct State {
    waker: Option<Waker>,
    /// Wakers of those holds that are not woken by the frame's own (a branch inside `FuturesUnordered`).
    /// Boxed, because few have any.
    foreign: Option<Box<Slab<Foreign>>>,
    holds: u32,
    polled: u32,
    /// True once every hold was woken by the judge and none has been polled since.
    probed: bool,
    /// How often in a row a hold was polled for the judge's wake, and left a wake behind: one more poll comes of that wake alone
    /// (`FuturesUnordered` wakes itself after each full round), and proves nothing.
    answers: u8,
    /// Polls in a row that ended with a wake outstanding and no hold polled.
    restless: u32,
}

/// The waker of a hold that has one of its own.
struct Foreign {
    waker: Waker,
    /// True once the hold was polled, or woken by the judge, since the frame was cancelled.
    told: bool,
}

/// After so many polls in a row that wake themselves and poll no hold, a hold counts as stale all the same: a branch that spins
/// for ever must not keep a cancelled frame alive beside a future that nobody polls.
const RESTLESS_MAX: u32 = 10_000;

/// After so many answers, with no wake from elsewhere in between, a hold counts as polled. One is not enough: the poll that comes of
/// its wake may be the one in which the code turns away from the hold, for what had happened before; and then nothing wakes the
/// frame any more.
const ANSWERS: u8 = 2;

/// What becomes of a frame whose cancelled poll ended pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing holds it: drop the future here.
    Cut,
    /// Something that is being polled holds it.
    Held,
    /// It has woken itself and will be polled again.
    Again,
    /// There are holds, but none was polled: all have been woken now; judge again after one more poll.
    Probe,
}

impl<H> Frame<H> {
    /// A frame that is judged by a node of its own.
    pub(crate) fn of_node(node: Arc<Node<H>>, owned: bool) -> Arc<Self> {
        Arc::new(Self::new(Under::Node(node), owned, None))
    }

    /// A region inside another frame that is judged by the same node.
    pub(crate) fn of_frame(outer: Arc<Self>) -> Arc<Self> {
        let owned = outer.is_owned();
        Arc::new(Self::new(Under::Frame(outer), owned, None))
    }

    /// A task that is judged by the node of its nursery for now.
    pub(crate) fn of_task(home: Arc<Node<H>>, owned: bool, task: TaskInfo) -> Arc<Self> {
        Arc::new(Self::new(Under::Task { home, own: OnceLock::new() }, owned, Some(task)))
    }

    /// A task with a node of its own from the start, which is not below `home` yet.
    pub(crate) fn of_started(home: Arc<Node<H>>, node: Arc<Node<H>>, owned: bool, task: TaskInfo) -> Arc<Self> {
        let own = OnceLock::from(Arc::clone(&node));
        let frame = Arc::new(Self::new(Under::Task { home, own }, owned, Some(task)));
        node.set_region(&frame);
        frame
    }

    /// A task that was a leaf of its nursery until now; its waker goes along.
    pub(super) fn of_leaf(home: Arc<Node<H>>, leaf: &mut Leaf) -> Arc<Self> {
        let owned = home.is_owned();
        let frame = Self::new(Under::Task { home, own: OnceLock::new() }, owned, Some(leaf.describe()));
        Arc::new(frame.armed(leaf.take_waker()))
    }

    /// A region that was a bud until now; its waker goes along.
    pub(super) fn of_bud(node: Arc<Node<H>>, owned: bool, waker: Option<Waker>) -> Arc<Self> {
        Arc::new(Self::new(Under::Node(node), owned, None).armed(waker))
    }

    /// With the waker that it had before it was a frame.
    fn armed(mut self, waker: Option<Waker>) -> Self {
        self.armed = AtomicBool::new(waker.is_some());
        self.state = Mutex::new(State { waker, ..State::default() });
        self
    }

    fn new(under: Under<H>, owned: bool, task: Option<TaskInfo>) -> Self {
        Self {
            under,
            owned: AtomicBool::new(owned),
            task: task.map(Box::new),
            epoch: AtomicUsize::new(0),
            armed: AtomicBool::new(false),
            state: Mutex::new(State::default()),
        }
    }

    /// The node that judges this frame now.
    pub(crate) fn node(&self) -> &Arc<Node<H>> {
        match &self.under {
            Under::Node(node) => node,
            Under::Task { home, own } => own.get().unwrap_or(home),
            Under::Frame(outer) => outer.node(),
        }
    }

    /// The node whose region this is, if there is one yet.
    pub(crate) fn own_node(&self) -> Option<&Arc<Node<H>>> {
        match &self.under {
            Under::Node(node) => Some(node),
            Under::Task { own, .. } => own.get(),
            Under::Frame(_) => None,
        }
    }

    /// True if what waits in it may be a bud: it is the frame that a cancel of its node wakes, and no cancel was ever visible in it,
    /// so that the first poll in which one is makes nodes of all of them.
    pub(crate) fn may_have_buds(&self) -> bool {
        let is_region = match &self.under {
            // Those of a root are made by who polls outside of all frames.
            Under::Node(node) => node.info.kind != Kind::Root,
            Under::Task { .. } => true,
            Under::Frame(_) => false,
        };
        is_region && self.epoch.load(Ordering::Relaxed) == 0
    }

    /// The node of the nursery that owns a task; else the node that judges this frame.
    pub(crate) fn home(&self) -> &Arc<Node<H>> {
        match &self.under {
            Under::Task { home, .. } => home,
            Under::Node(node) => node,
            Under::Frame(outer) => outer.home(),
        }
    }

    /// The node below which anything is put that is opened inside this frame. A task gets one of its own for that, so that it
    /// can be cancelled alone with all that is in it.
    pub(crate) fn branch(self: &Arc<Self>) -> Arc<Node<H>> {
        match &self.under {
            Under::Node(node) => Arc::clone(node),
            Under::Frame(outer) => outer.branch(),
            // What was opened in a task may outlive it: then nobody would take a new node out of the tree.
            Under::Task { home, own } if own.get().is_none() && self.task().is_some_and(TaskInfo::has_ended) => {
                Arc::clone(home)
            }
            Under::Task { home, own } => self.own_branch(home, own),
        }
    }

    fn own_branch(self: &Arc<Self>, home: &Arc<Node<H>>, own: &OnceLock<Arc<Node<H>>>) -> Arc<Node<H>> {
        let mut is_new = false;
        let node = own.get_or_init(|| {
            is_new = true;
            self.new_branch(home)
        });
        if is_new && self.task().is_some_and(TaskInfo::has_ended_by_now) {
            // Its end may not have found the node.
            self.close_task();
        }
        Arc::clone(node)
    }

    fn new_branch(self: &Arc<Self>, home: &Arc<Node<H>>) -> Arc<Node<H>> {
        let mut info = home.info.clone();
        if let Some(task) = &self.task {
            info.clone_from(&task.info);
        }
        let node = Node::child(home, info, false, None);
        node.set_region(self);
        if self.epoch.load(Ordering::Relaxed) > 0 {
            // It was cut already.
            node.unwind_with(home);
        }
        node
    }

    /// Cancels the task of this frame alone, with everything opened in it. False if it had ended.
    pub(crate) fn cancel_task(self: &Arc<Self>, cause: impl FnOnce() -> Cause) -> bool {
        let Under::Task { home, own } = &self.under else { return false };
        let Some(task) = self.task().filter(|task| !task.has_ended()) else { return false };
        self.own_branch(home, own).cancel(cause());
        !task.has_ended()
    }

    /// The end of the task of this frame. True if its handle is gone, as [`TaskInfo::end`].
    pub(crate) fn end_task(&self) -> bool {
        // First the mark: whoever gives the task a node meanwhile sees it, or we see the node.
        let unseen = self.task().is_some_and(TaskInfo::end);
        self.close_task();
        unseen
    }

    fn close_task(&self) {
        let Under::Task { own, .. } = &self.under else { return };
        if let Some(node) = own.get() {
            node.detach();
        }
    }

    /// The frame of the task that polls this one.
    pub(crate) fn of_its_task(self: &Arc<Self>) -> Option<Arc<Self>> {
        if self.task.is_some() {
            return Some(Arc::clone(self));
        }
        match &self.under {
            Under::Frame(outer) => outer.of_its_task(),
            // What is open in a task is below the task's own node.
            Under::Node(node) | Under::Task { home: node, .. } => {
                let task = std::iter::successors(Some(Arc::clone(node)), |node| node.parent())
                    .find(|node| node.info.kind == Kind::Task)?;
                task.region()
            }
        }
    }

    pub(crate) fn task(&self) -> Option<&TaskInfo> {
        self.task.as_deref()
    }

    pub(crate) fn is_owned(&self) -> bool {
        self.owned.load(Ordering::Relaxed)
    }

    pub(crate) fn set_owned(&self, owned: bool) {
        self.owned.store(owned, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.node().is_cancelled()
    }

    /// Fixes the absorber of the cut of this frame (M3). It is decided by the first cut of what a node judges, and again, outwards,
    /// where the unwinding leaves a task or the node that was to absorb it; a region that it passes on its way there (one with a
    /// finalizer, a scope that has to unwind) decides nothing.
    pub(crate) fn latch(&self) -> Option<Arc<Node<H>>> {
        match &self.under {
            Under::Frame(_) => self.node().latch_on(),
            Under::Node(node) if node.unwinds() => node.latch_on(),
            Under::Node(_) | Under::Task { .. } => self.node().latch(),
        }
    }

    /// Begins a poll with the cancel visible; `first`: the one before was not. True if anything holds the frame.
    pub(crate) fn begin(&self, first: bool) -> bool {
        if first {
            self.own_node().into_iter().for_each(Node::grow_buds);
        }
        let mut state = self.state.lock();
        state.polled = 0;
        if first {
            state.foreign().for_each(|foreign| foreign.told = false);
        }
        let next = self.epoch.load(Ordering::Relaxed).wrapping_add(1).max(1);
        self.epoch.store(next, Ordering::Relaxed);
        state.holds > 0
    }

    /// Says that what is inside may go on for another reason than the judge's wake.
    pub(crate) fn disturb(&self) {
        self.state.lock().answers = 0;
    }

    /// Decides what becomes of the frame after a cancelled poll that ended pending. `woken`: a wake of its task is outstanding.
    pub(crate) fn judge(&self, woken: bool) -> Verdict {
        let mut state = self.state.lock();
        if state.holds == 0 {
            return Verdict::Cut;
        }
        if state.polled > 0 {
            // A poll that comes of the probe of a frame further in proves nothing; one that comes of anything else disturbs.
            if std::mem::take(&mut state.probed) {
                state.answers = if woken { state.answers.saturating_add(1) } else { 0 };
            }
            state.restless = 0;
            let untold = state.wakers(|foreign| !foreign.told);
            drop(state);
            untold.into_iter().for_each(Waker::wake);
            return Verdict::Held;
        }
        if woken && state.restless < RESTLESS_MAX {
            state.restless += 1;
            return Verdict::Again;
        }
        if state.answers >= ANSWERS {
            state.answers = 0;
            return Verdict::Held;
        }
        if std::mem::replace(&mut state.probed, true) {
            return Verdict::Cut;
        }
        // The siblings of a hold may be polled before it, a few in each poll of the frame.
        state.restless = 0;
        let foreign = state.wakers(|_| true);
        drop(state);
        foreign.into_iter().for_each(Waker::wake);
        Verdict::Probe
    }

    /// True while the waker that was armed last has not been taken by a wake.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    /// Puts in the waker of the task that polls this frame. The caller looks at [`is_cancelled`](Self::is_cancelled) afterwards.
    pub(crate) fn arm(&self, waker: &Waker) {
        let waker = waker.clone();
        let mut state = self.state.lock();
        let old = state.waker.replace(waker);
        self.armed.store(true, Ordering::Release);
        drop(state);
        drop(old);
    }

    /// Takes the waker out, to be woken when no lock is held.
    pub(crate) fn take_waker(&self) -> Option<Waker> {
        let mut state = self.state.lock();
        self.armed.store(false, Ordering::Release);
        state.waker.take().filter(|_| !sabotage::has(Bug::LostWake))
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.take_waker() {
            waker.wake();
        }
    }

    /// True if anything holds this frame, polled or not.
    pub(crate) fn is_held(&self) -> bool {
        self.lock().holds > 0
    }

    /// True if a hold was polled since [`begin`](Self::begin) and is still live.
    pub(crate) fn is_held_in_this_poll(&self) -> bool {
        self.lock().polled > 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn foreign(&mut self) -> impl Iterator<Item = &mut Foreign> {
        self.foreign.iter_mut().flat_map(|foreign| foreign.iter_mut()).map(|(_, foreign)| foreign)
    }

    /// Takes the waker of a hold out, to be dropped when no lock is held.
    fn remove(&mut self, foreign: Option<(usize, WakerId)>) -> Option<Foreign> {
        let (key, _) = foreign?;
        Some(self.foreign.as_mut()?.remove(key))
    }

    /// Takes note that some holds with wakers of their own are told, and gives those wakers.
    fn wakers(&mut self, whose: impl Fn(&Foreign) -> bool) -> Vec<Waker> {
        let chosen = self.foreign().filter(|foreign| whose(foreign));
        chosen
            .map(|foreign| {
                foreign.told = true;
                foreign.waker.clone()
            })
            .collect()
    }
}

impl<H> std::fmt::Debug for Frame<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("Frame").field("holds", &state.holds).field("polled", &state.polled).finish_non_exhaustive()
    }
}

/// Identity of a waker, good as long as a clone of it is kept somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WakerId(usize, usize);

impl WakerId {
    pub(crate) fn of(waker: &Waker) -> Self {
        Self(waker.data() as usize, std::ptr::from_ref(waker.vtable()) as usize)
    }
}

/// One hold on one frame: while it is live and polled, the frame is not cut.
///
/// Kept by a future that is polled inside the frame; it enters at the first poll that stays pending and leaves when the future
/// ends or is dropped, on whatever thread (M7: by its destructor).
#[derive(Debug)]
pub(crate) struct Hold<H> {
    frame: Option<Arc<Frame<H>>>,
    /// The epoch in which it was polled last.
    epoch: usize,
    foreign: Option<(usize, WakerId)>,
}

impl<H> Default for Hold<H> {
    fn default() -> Self {
        Self { frame: None, epoch: 0, foreign: None }
    }
}

impl<H> Hold<H> {
    /// A hold by what was polled inside `frame`, with the waker of that, before a cancel became visible.
    pub(super) fn on(frame: &Arc<Frame<H>>) -> Self {
        frame.lock().holds += 1;
        Self { frame: Some(Arc::clone(frame)), epoch: 0, foreign: None }
    }

    /// The frame that is held, if any.
    pub(crate) fn frame(&self) -> Option<&Arc<Frame<H>>> {
        self.frame.as_ref()
    }

    /// True if `frame` is the one that is held: one pointer compare (M4).
    pub(crate) fn is_on(&self, frame: Option<&Arc<Frame<H>>>) -> bool {
        match (&self.frame, frame) {
            (Some(held), Some(frame)) => Arc::ptr_eq(held, frame),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// True if [`renew`](Self::renew) has nothing to do: the same frame, the same waker, the same epoch.
    pub(crate) fn is_fresh(&self, frame: &Arc<Frame<H>>, polled_by: WakerId, waker: &Waker) -> bool {
        let known = self.foreign.map_or(polled_by, |(_, foreign)| foreign);
        let held = self.frame.as_ref().is_some_and(|held| Arc::ptr_eq(held, frame));
        held && known == WakerId::of(waker) && self.epoch == frame.epoch.load(Ordering::Relaxed)
    }

    /// Says that the holder was polled inside `frame` and stays pending. `polled_by` is the waker that the frame itself was
    /// polled with, `waker` the one that the holder was polled with.
    pub(crate) fn renew(&mut self, frame: Arc<Frame<H>>, polled_by: WakerId, waker: &Waker) {
        if self.is_fresh(&frame, polled_by, waker) {
            return;
        }
        if !self.is_on(Some(&frame)) {
            self.release();
        }
        let id = WakerId::of(waker);
        let epoch = frame.epoch.load(Ordering::Relaxed);
        self.enter(frame, (id != polled_by).then(|| (id, waker.clone())), epoch);
    }

    fn enter(&mut self, frame: Arc<Frame<H>>, foreign: Option<(WakerId, Waker)>, epoch: usize) {
        let mut state = frame.lock();
        let new = self.frame.is_none();
        state.holds += u32::from(new);
        if epoch != 0 && (new || self.epoch != epoch) {
            state.polled += 1;
        }
        let old = state.remove(self.foreign.take());
        self.foreign = foreign.map(|(id, waker)| {
            let told = epoch != 0;
            (state.foreign.get_or_insert_default().insert(Foreign { waker, told }), id)
        });
        drop(state);
        drop(old);
        self.epoch = epoch;
        if new {
            self.frame = Some(frame);
        }
    }

    /// Gives the hold up.
    pub(crate) fn release(&mut self) {
        let Some(frame) = self.frame.take() else { return };
        let mut state = frame.lock();
        state.holds -= 1;
        // Under the lock the epoch can not move on, so a hold that was counted in this epoch is taken back in it.
        if self.epoch != 0 && self.epoch == frame.epoch.load(Ordering::Relaxed) {
            state.polled -= 1;
        }
        let waker = state.remove(self.foreign.take());
        drop(state);
        drop(waker);
        self.epoch = 0;
        if frame.is_cancelled() {
            frame.wake();
        }
    }
}

impl<H> Drop for Hold<H> {
    fn drop(&mut self) {
        self.release();
    }
}
