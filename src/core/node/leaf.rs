//! The tasks of a nursery: a leaf each, which becomes a frame when somebody looks into it.

use std::panic::Location;
use std::task::Waker;

use super::{Info, Kind, LOOKED_INTO, Node, Tree};
use crate::core::frame::Frame;
use crate::core::sync::{Arc, MutexGuard};
use crate::core::task::{TaskInfo, Traits};

/// A task as its nursery lists it.
///
/// # Invariants
///
/// 1. A leaf becomes a frame at most once, under the lock of its nursery, and takes its waker along. If that is not the work of the
///    task itself, the nursery is marked with it: a task whose nursery has no mark has no frame that it does not know of.
/// 2. The waker of a leaf stays as long as its nursery may go on: a cancel that may be taken back wakes by clones of it. So a task that is not
///    looked into arms once. One that is woken for good is cut, or goes on in a frame, at the end of its next poll.
/// 3. Only the task itself takes its place out of the list, at its end.
pub(super) enum Listed<H> {
    Leaf(Leaf),
    Frame(Arc<Frame<H>>),
}

/// The place of a task in the list of its nursery. Half as wide as a key of the list, since each task keeps one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskKey(u32);

impl TaskKey {
    pub(super) fn of(key: usize) -> Self {
        Self(u32::try_from(key).expect("a nursery has fewer than 2^32 tasks alive"))
    }

    pub(super) fn get(self) -> usize {
        self.0 as usize
    }
}

/// What a nursery has to know of a task without a name, a role, or anybody who has looked into it.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) id: u64,
    pub(crate) place: &'static Location<'static>,
    /// When it began, in the ticks of its host.
    pub(crate) born: u64,
    waker: Option<Waker>,
}

impl Leaf {
    pub(crate) fn new(id: u64, place: &'static Location<'static>, born: u64) -> Self {
        Self { id, place, born, waker: None }
    }

    /// Who it is, for those that do not care whether it has a frame.
    pub(crate) fn describe(&self) -> TaskInfo {
        TaskInfo::new(self.id, Info::new(Kind::Task, self.place, self.born), Traits::default())
    }

    pub(crate) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}

impl<H> Listed<H> {
    fn id(&self) -> Option<u64> {
        match self {
            Self::Leaf(leaf) => Some(leaf.id),
            Self::Frame(frame) => frame.task().map(|task| task.id),
        }
    }

    fn frame(&self) -> Option<&Arc<Frame<H>>> {
        match self {
            Self::Leaf(_) => None,
            Self::Frame(frame) => Some(frame),
        }
    }

    /// The waker of a leaf, which needs it no more.
    fn take_waker(&mut self) -> Option<Waker> {
        match self {
            Self::Leaf(leaf) => leaf.take_waker(),
            Self::Frame(_) => None,
        }
    }

    /// The waker of whoever has to look again; `for_good`: the nursery stays cancelled. A clone is made under the lock of the nursery: it is
    /// a waker of the runtime, or of the set in which a nursery polls its children itself, and counts only.
    pub(super) fn waker(&mut self, for_good: bool) -> Option<Waker> {
        match self {
            Self::Leaf(leaf) if for_good => leaf.take_waker(),
            Self::Leaf(leaf) => leaf.waker.clone(),
            Self::Frame(frame) => frame.take_waker(),
        }
    }
}

/// A frame, or a task that has none.
pub(crate) enum Member<H> {
    Frame(Arc<Frame<H>>),
    Leaf(LeafRef<H>),
}

/// A leaf as others see it: who it is, and where it is listed as long as it lives.
pub(crate) struct LeafRef<H> {
    home: Arc<Node<H>>,
    key: TaskKey,
    id: u64,
    place: &'static Location<'static>,
    born: u64,
}

impl<H> Clone for LeafRef<H> {
    fn clone(&self) -> Self {
        Self { home: Arc::clone(&self.home), ..*self }
    }
}

impl<H> Clone for Member<H> {
    fn clone(&self) -> Self {
        match self {
            Self::Frame(frame) => Self::Frame(Arc::clone(frame)),
            Self::Leaf(leaf) => Self::Leaf(leaf.clone()),
        }
    }
}

impl<H> Member<H> {
    /// The number of the task that this is, if it is one.
    pub(crate) fn id(&self) -> Option<u64> {
        match self {
            Self::Frame(frame) => frame.task().map(|task| task.id),
            Self::Leaf(leaf) => Some(leaf.id),
        }
    }

    /// Looks at the task that this is, if it is one.
    pub(crate) fn with_task<R>(&self, look: impl FnOnce(&TaskInfo) -> R) -> Option<R> {
        match self {
            Self::Frame(frame) => frame.task().map(look),
            Self::Leaf(leaf) => Some(look(&Leaf::new(leaf.id, leaf.place, leaf.born).describe())),
        }
    }

    /// The frame, made now for a leaf; none if that has ended.
    pub(crate) fn frame(&self) -> Option<Arc<Frame<H>>> {
        match self {
            Self::Frame(frame) => Some(Arc::clone(frame)),
            Self::Leaf(leaf) => leaf.home.frame_of(leaf.key, leaf.id),
        }
    }

    /// True once the task that this is has ended.
    pub(crate) fn has_ended(&self) -> bool {
        let has_ended = |frame: &Arc<Frame<H>>| frame.task().is_some_and(TaskInfo::has_ended);
        match self {
            Self::Frame(frame) => has_ended(frame),
            Self::Leaf(leaf) => {
                let tree = leaf.home.tree.lock();
                let listed = tree.tasks.get(leaf.key.get()).filter(|listed| listed.id() == Some(leaf.id));
                listed.is_none_or(|listed| listed.frame().is_some_and(has_ended))
            }
        }
    }

    /// The node that judges it.
    pub(crate) fn node(&self) -> &Arc<Node<H>> {
        match self {
            Self::Frame(frame) => frame.node(),
            Self::Leaf(leaf) => &leaf.home,
        }
    }
}

/// A leaf, as what is inside it finds it during one poll.
pub(crate) struct LeafSeat<'a, H> {
    home: &'a Arc<Node<H>>,
    key: TaskKey,
    /// The poll that goes on began with the cancel visible.
    saw_cancel: bool,
}

impl<'a, H> LeafSeat<'a, H> {
    pub(crate) fn new(home: &'a Arc<Node<H>>, key: TaskKey, saw_cancel: bool) -> Self {
        Self { home, key, saw_cancel }
    }

    pub(crate) fn home(&self) -> &Arc<Node<H>> {
        self.home
    }

    /// True if the task is cancelled, by its nursery or, through a frame that it does not know of yet, alone.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.home.is_cancelled() || self.home.made_frame(self.key).is_some_and(|frame| frame.is_cancelled())
    }

    /// The frame, made now if there is none: something inside the poll that goes on needs it.
    pub(crate) fn grow(&self) -> Option<Arc<Frame<H>>> {
        self.home.grow_leaf(self.key, self.saw_cancel)
    }
}

/// What a task does with its own place in the list of its nursery.
impl<H> Node<H> {
    /// The frame that somebody has made for a task. One load as long as nobody else has for any task of the nursery.
    #[inline]
    pub(crate) fn made_frame(&self, key: TaskKey) -> Option<Arc<Frame<H>>> {
        if !self.has(LOOKED_INTO) {
            return None;
        }
        self.tree.lock().tasks.get(key.get())?.frame().map(Arc::clone)
    }

    /// The frame, made now if there is none. If the cancel is visible in the poll that goes on, that counts as begun with the frame.
    pub(crate) fn grow_leaf(self: &Arc<Self>, key: TaskKey, saw_cancel: bool) -> Option<Arc<Frame<H>>> {
        let mut tree = self.tree.lock();
        let frame = tree.tasks.get_mut(key.get()).map(|listed| self.grow(listed))?;
        drop(tree);
        if saw_cancel {
            frame.begin(true);
        }
        Some(frame)
    }

    /// Puts in the waker of a task; gives the frame if it has got one. The caller looks at the flags afterwards.
    pub(crate) fn arm_leaf(&self, key: TaskKey, waker: &Waker) -> Option<Arc<Frame<H>>> {
        let waker = waker.clone();
        let mut tree = self.tree.lock();
        let old = match tree.tasks.get_mut(key.get())? {
            Listed::Leaf(leaf) => leaf.waker.replace(waker),
            Listed::Frame(frame) => return Some(Arc::clone(frame)),
        };
        drop(tree);
        drop(old);
        None
    }
}

/// Frees some of what is left of tasks that have ended, with no lock held.
#[inline(never)]
fn free_some<H>(mut tree: MutexGuard<'_, Tree<H>>) {
    let husks = tree.tasks.some_husks();
    drop(tree);
    drop(husks);
}

impl<H> Node<H> {
    /// Lists a task that has not begun; gives its place, and what others know it by.
    pub(crate) fn add_leaf(self: &Arc<Self>, leaf: Leaf) -> (TaskKey, Member<H>) {
        let Leaf { id, place, born, .. } = leaf;
        let key = self.list(Listed::Leaf(leaf));
        (key, Member::Leaf(LeafRef { home: Arc::clone(self), key, id, place, born }))
    }

    /// A task as others see it.
    pub(crate) fn member(self: &Arc<Self>, key: TaskKey) -> Option<Member<H>> {
        self.tree.lock().tasks.get(key.get()).map(|listed| self.member_of(key, listed))
    }

    pub(super) fn member_of(self: &Arc<Self>, key: TaskKey, listed: &Listed<H>) -> Member<H> {
        match listed {
            Listed::Frame(frame) => Member::Frame(Arc::clone(frame)),
            Listed::Leaf(Leaf { id, place, born, .. }) => {
                Member::Leaf(LeafRef { home: Arc::clone(self), key, id: *id, place, born: *born })
            }
        }
    }

    pub(crate) fn add_task(&self, frame: &Arc<Frame<H>>) -> TaskKey {
        self.list(Listed::Frame(Arc::clone(frame)))
    }

    #[inline]
    fn list(&self, listed: Listed<H>) -> TaskKey {
        let mut tree = self.tree.lock();
        let key = TaskKey::of(tree.tasks.insert(listed));
        if tree.tasks.has_husks() {
            free_some(tree);
        }
        key
    }

    /// Takes a task out; gives the frame that it had. `husk` gives its waker, if the memory that this keeps is for whoever spawns next; it
    /// is asked under the lock.
    pub(crate) fn remove_task<'a>(
        &self,
        key: TaskKey,
        husk: impl FnOnce() -> Option<&'a Waker>,
    ) -> Option<Arc<Frame<H>>> {
        let mut tree = self.tree.lock();
        let mut listed = tree.tasks.remove(key.get());
        // After the end of the nursery nobody would free it for long.
        if tree.left.is_none() && tree.tasks.has_room_for_husk() {
            if let Some(husk) = husk() {
                tree.tasks.keep_husk(listed.take_waker().unwrap_or_else(|| husk.clone()));
            }
        }
        drop(tree);
        match listed {
            Listed::Frame(frame) => Some(frame),
            Listed::Leaf(_) => None,
        }
    }

    /// Of how many tasks that have ended the memory is kept.
    #[cfg(test)]
    pub(crate) fn husks(&self) -> usize {
        self.tree.lock().tasks.husks()
    }

    /// The frame of a task that is still listed, made now if there is none.
    fn frame_of(self: &Arc<Self>, key: TaskKey, id: u64) -> Option<Arc<Frame<H>>> {
        let mut tree = self.tree.lock();
        let listed = tree.tasks.get_mut(key.get()).filter(|listed| listed.id() == Some(id))?;
        let frame = self.grow(listed);
        self.put(LOOKED_INTO, true);
        Some(frame)
    }

    /// Invariant 1. The caller holds the lock of this node.
    fn grow(self: &Arc<Self>, listed: &mut Listed<H>) -> Arc<Frame<H>> {
        let frame = match listed {
            Listed::Frame(frame) => return Arc::clone(frame),
            Listed::Leaf(leaf) => Frame::of_leaf(Arc::clone(self), leaf),
        };
        *listed = Listed::Frame(Arc::clone(&frame));
        frame
    }
}

#[cfg(all(test, not(testudo_loom)))]
mod tests {
    use std::task::Wake;

    use super::*;
    use crate::core::cause::{Cause, CauseKind};
    use crate::core::owner::Owner;

    struct Memory;

    impl Wake for Memory {
        fn wake(self: Arc<Self>) {}
    }

    /// A nursery in which `count` tasks have been alive at once, all but the first `ended` of which still are.
    fn nursery(count: usize, ended: usize, memory: &Waker) -> Arc<Node<()>> {
        let info = Info::new(Kind::Nursery, Location::caller(), 0);
        let root = Node::root(info.clone(), Arc::new(()), Owner::root(0));
        let node = Node::child(&root, info, false, Some(Owner::new(0)));
        let keys: Vec<_> = (0..count).map(|id| add(&node, id)).collect();
        keys[..ended].iter().for_each(|key| drop(node.remove_task(*key, || Some(memory))));
        node
    }

    fn add(node: &Arc<Node<()>>, id: usize) -> TaskKey {
        node.add_leaf(Leaf::new(id as u64, Location::caller(), 0)).0
    }

    #[test]
    fn the_memory_of_some_tasks_that_have_ended_is_freed_by_whoever_spawns() {
        let memory = Arc::new(Memory);
        let waker = Waker::from(Arc::clone(&memory));
        let nursery = nursery(200, 150, &waker);
        let kept = || (nursery.husks(), Arc::strong_count(&memory) - 2);
        assert_eq!(kept(), (64, 64));
        for left in [60, 56] {
            add(&nursery, 1000);
            assert_eq!(kept(), (left, left));
        }
        nursery.detach();
        assert_eq!(kept(), (0, 0), "the end of the nursery frees the rest");
    }

    #[test]
    fn a_small_nursery_keeps_nothing_of_a_task_that_has_ended() {
        let memory = Arc::new(Memory);
        let waker = Waker::from(Arc::clone(&memory));
        let nursery = nursery(64, 64, &waker);
        assert_eq!((Arc::strong_count(&memory), nursery.inside().members.len()), (2, 0));
    }

    #[test]
    fn after_the_end_of_a_nursery_nothing_is_kept() {
        let waker = Waker::from(Arc::new(Memory));
        let nursery = nursery(100, 0, &waker);
        nursery.detach();
        assert!(nursery.remove_task(TaskKey::of(7), || Some(&waker)).is_none());
        assert_eq!(nursery.husks(), 0);
    }

    #[test]
    fn a_task_with_a_frame_leaves_and_frees_as_others_do() {
        let waker = Waker::from(Arc::new(Memory));
        let nursery = nursery(100, 10, &waker);
        let task = |id| Leaf::new(id, Location::caller(), 0).describe();
        let frame = Frame::of_task(Arc::clone(&nursery), true, task(1000));
        let key = nursery.add_task(&frame);
        assert_eq!(nursery.husks(), 6);
        assert!(nursery.remove_task(key, || Some(&waker)).is_some());
        assert_eq!(nursery.husks(), 7);
    }

    #[test]
    fn a_cancel_that_stays_takes_the_waker_of_a_task_and_one_from_outside_leaves_it() {
        let memory = Arc::new(Memory);
        let waker = Waker::from(Arc::clone(&memory));
        let armed = || {
            let home = nursery(0, 0, &waker);
            let key = add(&home, 7);
            assert!(home.arm_leaf(key, &waker).is_none());
            home
        };
        let (home, other) = (armed(), armed());
        assert_eq!(Arc::strong_count(&memory), 4);
        home.parent().expect("it is linked").cancel(Cause::new(CauseKind::Requested));
        assert_eq!((home.is_cancelled(), Arc::strong_count(&memory)), (true, 4));
        other.cancel(Cause::new(CauseKind::Requested));
        assert_eq!((other.is_cancelled(), Arc::strong_count(&memory)), (true, 3));
    }

    #[test]
    fn what_a_task_has_armed_is_what_keeps_its_memory() {
        let (armed, other) = (Arc::new(Memory), Waker::from(Arc::new(Memory)));
        let nursery = nursery(65, 0, &other);
        let key = add(&nursery, 1000);
        assert!(nursery.arm_leaf(key, &Waker::from(Arc::clone(&armed))).is_none());
        assert!(nursery.remove_task(key, || Some(&other)).is_none());
        assert_eq!(Arc::strong_count(&armed), 2);
        nursery.detach();
        assert_eq!(Arc::strong_count(&armed), 1);
    }
}
