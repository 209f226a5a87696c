//! The frame that this thread is polling right now.

mod leaf;
mod plant;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::mem;
use std::sync::Arc;
use std::task::Waker;

pub(crate) use leaf::EnterLeaf;

use crate::clock::{self, Ticks};
use crate::core::cause::Cause;
use crate::core::frame::{Track, WakerId};
use crate::core::task::TaskInfo;
use crate::host::{self, BudSeat, Frame, LeafSeat, Node};
use crate::plan::Sketch;

/// What futures of ours find out about the place in which they are polled.
pub(crate) struct Current {
    pub(crate) spot: Spot,
    /// The waker that the frame hands on to what is inside it.
    pub(crate) polled_by: WakerId,
    /// Set while the frame is polled with the cancel visible and something holds it.
    pub(crate) track: Option<Arc<Track>>,
}

/// What is polled.
pub(crate) enum Spot {
    /// A task that nothing has looked into.
    Leaf(LeafSeat),
    /// A region that nothing has looked into.
    Bud(BudSeat),
    /// One that something inside of the poll that goes on has asked for its frame. Boxed, because it is rare.
    Grown(Box<(BudSeat, Arc<Frame>)>),
    Frame(Arc<Frame>),
}

impl Spot {
    /// The node that judges it; that around it, if it has none.
    fn node(&self) -> &Arc<Node> {
        match self {
            Self::Leaf(leaf) => leaf.home(),
            Self::Bud(bud) => bud.home(),
            Self::Grown(grown) => grown.1.node(),
            Self::Frame(frame) => frame.node(),
        }
    }

    fn is_cancelled(&self) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.is_cancelled(),
            Self::Bud(bud) => bud.is_cancelled(),
            Self::Grown(grown) => grown.1.is_cancelled(),
            Self::Frame(frame) => frame.is_cancelled(),
        }
    }

    fn is_owned(&self) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.home().is_owned(),
            Self::Bud(bud) => bud.is_owned(),
            Self::Grown(grown) => grown.1.is_owned(),
            Self::Frame(frame) => frame.is_owned(),
        }
    }
}

impl Current {
    /// A frame that is not being polled yet, or code of the program that runs as if inside it.
    pub(crate) fn at(frame: Arc<Frame>) -> Self {
        Self::new(Spot::Frame(frame))
    }

    pub(crate) fn new(spot: Spot) -> Self {
        Self { spot, polled_by: WakerId::of(Waker::noop()), track: None }
    }

    /// None for what nothing has looked into.
    pub(crate) fn frame(&self) -> Option<&Arc<Frame>> {
        match &self.spot {
            Spot::Leaf(_) | Spot::Bud(_) => None,
            Spot::Grown(grown) => Some(&grown.1),
            Spot::Frame(frame) => Some(frame),
        }
    }

    /// None for what has a frame, and for a task.
    pub(crate) fn bud(&self) -> Option<&BudSeat> {
        match &self.spot {
            Spot::Bud(bud) => Some(bud),
            Spot::Leaf(_) | Spot::Grown(_) | Spot::Frame(_) => None,
        }
    }

    /// What was planted, whether or not it has a frame by now.
    pub(crate) fn planted(&self) -> Option<&BudSeat> {
        match &self.spot {
            Spot::Bud(bud) => Some(bud),
            Spot::Grown(grown) => Some(&grown.0),
            Spot::Leaf(_) | Spot::Frame(_) => None,
        }
    }

    pub(crate) fn into_planted(self) -> Option<BudSeat> {
        match self.spot {
            Spot::Bud(bud) => Some(bud),
            Spot::Grown(grown) => Some(grown.0),
            Spot::Leaf(_) | Spot::Frame(_) => None,
        }
    }

    /// Makes the frame of what has none.
    fn grow(&mut self) {
        let frame = match &self.spot {
            Spot::Leaf(leaf) => leaf.grow(),
            Spot::Bud(bud) => bud.grow(),
            Spot::Grown(_) | Spot::Frame(_) => None,
        };
        let Some(frame) = frame else { return };
        if let Spot::Bud(bud) = mem::replace(&mut self.spot, Spot::Frame(Arc::clone(&frame))) {
            self.spot = Spot::Grown(Box::new((bud, frame)));
        }
    }
}

/// A region in its first poll, with what is around it.
struct Level {
    /// None if that is only planned as well, or nothing.
    outer: Option<Current>,
    /// None once the place is being made.
    sketch: Option<Sketch>,
    polled_by: WakerId,
}

/// The place of a region after its first poll.
pub(crate) enum Draft {
    /// Nothing inside has asked for one, or it could not be made.
    None,
    /// It is a bud, or was one until something inside has asked for it.
    Planted(Current),
    Made(Arc<Frame>),
}

impl Draft {
    /// What was made during the poll.
    #[inline]
    fn of(made: Option<Current>) -> Self {
        match made {
            Some(current @ Current { spot: Spot::Bud(_) | Spot::Grown(_), .. }) => Self::Planted(current),
            Some(Current { spot: Spot::Frame(frame), .. }) => Self::Made(frame),
            Some(Current { spot: Spot::Leaf(_), .. }) | None => Self::None,
        }
    }
}

/// What is around the code that runs here.
struct Around {
    /// None in a place that is only planned, and outside of all.
    current: Option<Current>,
    /// The regions in their first polls, the innermost last. Whatever is around a frame was made before it.
    levels: Vec<Level>,
    /// The last look at the clock since the outermost place was entered; 0 if there was none, or [`UNKEPT`].
    looked: Ticks,
}

/// Inside of code that may take long no look counts for the next.
const UNKEPT: Ticks = Ticks::MAX;

thread_local! {
    static AROUND: RefCell<Around> = const { RefCell::new(Around { current: None, levels: Vec::new(), looked: 0 }) };
}

/// Looks at what is around this code, or changes it. None on a thread that is being torn down: it has no current frame any more.
/// Nothing is polled, made or dropped in `look`.
#[inline]
fn around<R>(look: impl FnOnce(&mut Around) -> R) -> Option<R> {
    AROUND.try_with(|around| look(&mut around.borrow_mut())).ok()
}

/// Puts a frame in as the current one until it is dropped; the frame it replaces waits in the slot meanwhile. Moving it in
/// and out costs no reference count. An empty slot changes nothing.
pub(crate) struct Enter<'a> {
    slot: &'a mut Option<Current>,
    entered: bool,
}

impl<'a> Enter<'a> {
    #[inline]
    pub(crate) fn new(slot: &'a mut Option<Current>) -> Self {
        let entered = slot.is_some() && around(|around| around.enter(slot)).is_some();
        Self { slot, entered }
    }

    /// The same for code that is no poll, and may take long.
    pub(crate) fn for_long(slot: &'a mut Option<Current>) -> Self {
        let inside = Self::new(slot);
        around(|around| around.looked = UNKEPT).unwrap_or_default();
        inside
    }

    /// Enters the frame if `fits` holds for the one around this code.
    #[inline]
    pub(crate) fn new_if(slot: &'a mut Option<Current>, fits: impl FnOnce(&Current) -> bool) -> Option<Self> {
        let entered = around(|around| {
            let fits = around.current.as_ref().is_some_and(fits);
            if fits {
                around.swap(slot);
            }
            fits
        });
        entered.unwrap_or(false).then(|| Self { slot, entered: true })
    }
}

impl Drop for Enter<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.entered {
            around(|around| around.swap(self.slot)).unwrap_or_default();
        }
    }
}

/// Puts a place that is only planned in as the current one, until the end of its poll or a panic.
pub(crate) struct EnterPlanned(());

impl EnterPlanned {
    /// None if the place is needed for the first poll already. `looked`: what the clock has shown just now; 0 if nobody has looked.
    pub(crate) fn new(sketch: &mut Sketch, polled_by: WakerId, looked: Ticks) -> Option<Self> {
        let entered = around(|around| {
            let may_wait = sketch.may_wait(|| around.is_cancelled(|_| false));
            if may_wait {
                if around.is_empty() {
                    around.looked = looked;
                } else if looked != 0 {
                    around.looked = around.looked.max(looked);
                }
                let (outer, sketch) = (around.current.take(), Some(sketch.take()));
                around.levels.push(Level { outer, sketch, polled_by });
            }
            may_wait
        });
        entered.unwrap_or(false).then(|| Self(()))
    }

    /// The place of a region that has ended, if something inside has asked for one.
    #[inline]
    pub(crate) fn leave(self) -> Draft {
        mem::forget(self);
        Draft::of(around(Around::leave).flatten())
    }

    /// The place of a region that waits, made now if nothing inside has asked for it.
    pub(crate) fn stay(self, waker: &Waker) -> Draft {
        mem::forget(self);
        let (mut unmade, mut made, mut site) = (None, None, None);
        // In one look, and into variables: they are large.
        around(|around| {
            let sketch = around.levels.last_mut().and_then(|level| level.sketch.take());
            // Before it leaves: outside of all no look at the clock is kept.
            unmade = sketch.map(|sketch| (sketch, around.born()));
            made = around.leave();
            if unmade.is_some() {
                site = around.site(WakerId::of(waker));
            }
        });
        let Some((sketch, now)) = unmade else { return Draft::of(made) };
        match site.and_then(|site| site.plant(&sketch, waker, now)) {
            Some(current) => Draft::Planted(current),
            None => Draft::Made(sketch.make(frame().as_ref())),
        }
    }
}

impl Drop for EnterPlanned {
    fn drop(&mut self) {
        drop(around(Around::leave));
    }
}

impl Around {
    /// Makes what is in the slot the current place, and puts the one before there.
    #[inline]
    fn swap(&mut self, slot: &mut Option<Current>) {
        mem::swap(&mut self.current, slot);
    }

    /// The same on the way in, where what was seen on the clock before may be long ago.
    #[inline]
    fn enter(&mut self, slot: &mut Option<Current>) {
        if self.is_empty() {
            self.looked = 0;
        }
        self.swap(slot);
    }

    /// Leaves the innermost place that was only planned when it was entered; gives what was made of it.
    #[inline]
    fn leave(&mut self) -> Option<Current> {
        let last = self.levels.len().checked_sub(1)?;
        let outer = self.levels[last].outer.take();
        // In place: it is large.
        self.levels.truncate(last);
        if self.current.is_none() {
            // Nearly always, and then nothing is moved out.
            self.current = outer;
            return None;
        }
        mem::replace(&mut self.current, outer)
    }

    /// The last look at the clock, or one now.
    fn born(&mut self) -> Ticks {
        if self.is_empty() || self.looked == UNKEPT {
            return clock::now();
        }
        if self.looked == 0 {
            self.looked = clock::now();
        }
        self.looked
    }

    /// True outside of all places.
    fn is_empty(&self) -> bool {
        self.current.is_none() && self.levels.is_empty()
    }

    /// Makes the frame of what is around the level at `depth`, or around this code.
    fn grow(&mut self, depth: Option<usize>) {
        self.outer(depth).into_iter().for_each(Current::grow);
    }

    /// The same for a task only.
    fn grow_task(&mut self, depth: Option<usize>) {
        let is_task = |current: &&mut Current| matches!(current.spot, Spot::Leaf(_));
        self.outer(depth).filter(is_task).into_iter().for_each(Current::grow);
    }

    fn outer(&mut self, depth: Option<usize>) -> Option<&mut Current> {
        match depth {
            Some(depth) => self.levels.get_mut(depth).and_then(|level| level.outer.as_mut()),
            None => self.current.as_mut(),
        }
    }

    /// The outermost of the innermost levels that are only planned; none if the current frame is made.
    fn first_planned(&self) -> Option<usize> {
        let last = self.current.is_none().then(|| self.levels.len().checked_sub(1)).flatten()?;
        Some(self.levels[..=last].iter().rposition(|level| level.outer.is_some()).unwrap_or(0))
    }

    /// Takes the sketch of a place that is to be made now, with the frame around it.
    fn begin(&mut self, depth: usize) -> Option<(Sketch, Option<Arc<Frame>>)> {
        let level = self.levels.get_mut(depth)?;
        let outer = level.outer.as_ref().and_then(Current::frame).map(Arc::clone);
        Some((level.sketch.take()?, outer))
    }

    fn put(&mut self, depth: usize, spot: Spot) {
        let polled_by = self.levels[depth].polled_by;
        let made = Some(Current { polled_by, ..Current::new(spot) });
        match self.levels.get_mut(depth + 1) {
            Some(inner) => inner.outer = made,
            None => self.current = made,
        }
    }

    /// True if the code that runs here is cancelled. What is only planned was not when its poll began, and nobody has a handle on it:
    /// `is_over` says whether its deadline has passed.
    fn is_cancelled(&self, is_over: impl Fn(&Sketch) -> bool) -> bool {
        let planned = |sketch: &Sketch| {
            let is_over = is_over(sketch);
            (is_over || sketch.is_shielded()).then_some(is_over)
        };
        self.outwards(planned, Spot::is_cancelled)
    }

    /// True if somebody waits for the task that runs here.
    fn is_owned(&self) -> bool {
        self.outwards(|_| None, Spot::is_owned)
    }

    /// Asks the places around this code, from the inside outwards: those that are only planned until one knows, or the first that
    /// is not. Outside of all it is false.
    fn outwards(&self, planned: impl Fn(&Sketch) -> Option<bool>, made: impl Fn(&Spot) -> bool) -> bool {
        let made = |current: &Current| made(&current.spot);
        let ask = |level: &Level| level.sketch.as_ref().and_then(&planned).or_else(|| level.outer.as_ref().map(made));
        match &self.current {
            Some(current) => made(current),
            None => self.levels.iter().rev().find_map(ask).unwrap_or(false),
        }
    }
}

/// Makes what is around this code, from the outside inwards, if it is only planned; the frame of a task that has none, only if
/// something is inside of it or with `grows`.
fn make(grows: bool) {
    let first = around(|around| {
        let first = around.first_planned();
        if grows || first.is_some() {
            around.grow(first);
        }
        first
    });
    let Some(first) = first.flatten() else { return };
    for depth in first.. {
        let Some((sketch, outer)) = around(|around| around.begin(depth)).flatten() else { return };
        // No borrow is held: a place that is made may cancel, wake and report.
        let frame = sketch.make(outer.as_ref());
        around(|around| around.put(depth, Spot::Frame(frame))).unwrap_or_default();
    }
}

/// Looks at what is polled here, made now if it is only planned, and with `grows` if it is a task without a frame.
fn look<R>(grows: bool, look: impl FnOnce(Option<&Current>) -> R) -> R {
    let mut look = Some(look);
    let mut see = |even_unmade: bool| {
        let seen = around(|around| {
            let is_unmade = match &around.current {
                Some(current) => grows && current.frame().is_none(),
                None => !around.levels.is_empty(),
            };
            if is_unmade && !even_unmade { None } else { look.take().map(|look| look(around.current.as_ref())) }
        });
        seen.flatten()
    };
    if let Some(result) = see(false) {
        return result;
    }
    make(grows);
    if let Some(result) = see(true) {
        return result;
    }
    match look {
        Some(look) => look(None), // A thread that is being torn down.
        None => unreachable!("`look` is called or kept"),
    }
}

/// Looks at the current frame, with the waker that it was polled with. `see` must not poll or drop anything.
pub(crate) fn with<R>(see: impl FnOnce(Option<(&Arc<Frame>, &Current)>) -> R) -> R {
    look(true, |current| see(current.and_then(|current| Some((current.frame()?, current)))))
}

/// Looks at what is polled here; it need not have a frame. `see` must not poll or drop anything.
pub(crate) fn with_spot<R>(see: impl FnOnce(Option<&Spot>) -> R) -> R {
    look(false, |current| see(current.map(|current| &current.spot)))
}

/// True if the code that runs here is cancelled. Makes nothing.
pub(crate) fn is_cancelled() -> bool {
    let looked = Cell::new(0);
    let is_over = |sketch: &Sketch| {
        let Some(at) = sketch.deadline() else { return false };
        looked.set(clock::now());
        at <= looked.get()
    };
    let is_cancelled = around(|around| {
        let is_cancelled = around.is_cancelled(is_over);
        // What has been seen to be over is so when it is planted.
        around.looked = around.looked.max(looked.get());
        is_cancelled
    });
    is_cancelled.unwrap_or(false)
}

/// The current frame, if this code runs inside any.
pub(crate) fn frame() -> Option<Arc<Frame>> {
    with(|current| current.map(|(frame, _)| Arc::clone(frame)))
}

/// The node below which something that is opened here belongs: the current frame's, or the root of this runtime.
pub(crate) fn branch(frame: Option<&Arc<Frame>>) -> Arc<Node> {
    frame.map_or_else(host::root, Frame::branch)
}

/// Acts on the same one, without a reference if there is one to borrow.
pub(crate) fn in_branch<R>(frame: Option<&Arc<Frame>>, act: impl FnOnce(&Arc<Node>) -> R) -> R {
    match frame.and_then(|frame| frame.own_node()) {
        Some(node) => act(node),
        None => act(&branch(frame)),
    }
}

/// The node that judges the code that runs here; of a task without a frame, that of its nursery.
pub(crate) fn node() -> Arc<Node> {
    with_spot(|spot| spot.map(|spot| Arc::clone(spot.node()))).unwrap_or_else(host::root)
}

/// The node that judges the code that runs here. One without a node gets it, if it knows of deadlines what the node around it does not.
pub(crate) fn timed_node() -> Arc<Node> {
    let has_own = |spot: &Spot| matches!(spot, Spot::Bud(bud) if bud.chain().timed || bud.chain().shielded);
    if with_spot(|spot| spot.is_some_and(has_own)) {
        return branch(frame().as_ref());
    }
    node()
}

/// The node that judges the innermost place that is made; the root outside of all. Makes nothing.
pub(crate) fn made_node() -> Arc<Node> {
    let node = around(|around| {
        let outer = || around.levels.iter().rev().find_map(|level| level.outer.as_ref());
        around.current.as_ref().or_else(outer).map(|current| Arc::clone(current.spot.node()))
    });
    node.flatten().unwrap_or_else(host::root)
}

/// True if somebody waits for the task that runs here. Makes nothing.
pub(crate) fn is_owned() -> bool {
    around(|around| around.is_owned()).unwrap_or(false)
}

/// The task that this code is part of.
pub(crate) fn task() -> Option<Arc<Frame>> {
    frame()?.of_its_task()
}

/// The cause of a cancel that this code asks for.
pub(crate) fn request(reason: Cow<'static, str>) -> Cause {
    Cause::requested(reason, task_name())
}

/// Its name.
pub(crate) fn task_name() -> Option<Arc<str>> {
    task()?.task().map(TaskInfo::name)
}

/// When something that is made here was made, for its age: what a task makes in one poll has the time of the last look at the clock in it.
/// A look costs a tenth of a spawn.
pub(crate) fn born() -> Ticks {
    around(Around::born).unwrap_or_else(clock::now)
}
