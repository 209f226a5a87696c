//! The frame that this thread is polling right now.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::mem;
use std::sync::Arc;
use std::task::Waker;

use crate::clock::{self, Ticks};
use crate::core::cause::Cause;
use crate::core::frame::{Track, WakerId};
use crate::core::task::TaskInfo;
use crate::host::{self, Frame, LeafSeat, Node};
use crate::plan::Sketch;

/// What futures of ours find out about the place in which they are polled.
pub(crate) struct Current {
    pub(crate) spot: Spot,
    /// The waker that the frame hands on to what is inside it.
    pub(crate) polled_by: WakerId,
    /// Set while the frame is polled with the cancel visible and something holds it.
    pub(crate) track: Option<Arc<Track>>,
}

/// Whether there is a frame already.
pub(crate) enum Spot {
    /// A region in its first poll.
    Planned,
    /// A task that nothing has looked into.
    Leaf(LeafSeat),
    Frame(Arc<Frame>),
}

impl Current {
    /// A frame that is not being polled yet, or code of the program that runs as if inside it.
    pub(crate) fn at(frame: Arc<Frame>) -> Self {
        Self::new(Spot::Frame(frame))
    }

    pub(crate) fn new(spot: Spot) -> Self {
        Self { spot, polled_by: WakerId::of(Waker::noop()), track: None }
    }

    pub(crate) fn frame(&self) -> Option<&Arc<Frame>> {
        match &self.spot {
            Spot::Frame(frame) => Some(frame),
            Spot::Planned | Spot::Leaf(_) => None,
        }
    }

    fn is_planned(&self) -> bool {
        matches!(self.spot, Spot::Planned)
    }

    /// Makes the frame of a task that has none.
    fn grow(&mut self) {
        if let Spot::Leaf(leaf) = &self.spot {
            if let Some(frame) = leaf.grow() {
                self.spot = Spot::Frame(frame);
            }
        }
    }
}

/// A region in its first poll, with what is around it.
struct Level {
    outer: Option<Current>,
    place: Draft,
}

/// The place of a region in its first poll.
pub(crate) enum Draft {
    Sketch(Sketch),
    /// It is being made.
    Begun,
    Made(Arc<Frame>),
}

impl Draft {
    fn take_sketch(&mut self) -> Option<Sketch> {
        match mem::replace(self, Self::Begun) {
            Self::Sketch(sketch) => Some(sketch),
            kept @ (Self::Begun | Self::Made(_)) => {
                *self = kept;
                None
            }
        }
    }

    /// Whether what is inside is cancelled, if that does not depend on what is around it.
    fn is_cancelled(&self) -> Option<bool> {
        match self {
            // It was not cancelled when its poll began, and nobody has a handle on it.
            Self::Sketch(sketch) => sketch.is_shielded().then_some(false),
            Self::Begun => None,
            Self::Made(frame) => Some(frame.is_cancelled()),
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
    /// The first look at the clock since the current frame changed; 0 if there was none.
    static LOOKED: Cell<Ticks> = const { Cell::new(0) };
    /// The regions in their first polls, the innermost last. Whatever is around one that was made was made before it.
    static LEVELS: RefCell<Vec<Level>> = const { RefCell::new(Vec::new()) };
}

/// Puts a frame in as the current one until it is dropped; the frame it replaces waits in the slot meanwhile. Moving it in
/// and out costs no reference count.
pub(crate) struct Enter<'a>(&'a mut Option<Current>);

impl<'a> Enter<'a> {
    pub(crate) fn new(slot: &'a mut Option<Current>) -> Self {
        swap(slot);
        Self(slot)
    }

    /// What was current before: whatever is around the frame.
    pub(crate) fn outer(&self) -> Option<&Current> {
        self.0.as_ref()
    }
}

impl Drop for Enter<'_> {
    fn drop(&mut self) {
        swap(self.0);
    }
}

fn swap(slot: &mut Option<Current>) {
    LOOKED.set(0);
    // A thread that is being torn down has no current frame any more, and polls none.
    CURRENT.try_with(|current| mem::swap(&mut *current.borrow_mut(), slot)).unwrap_or_default();
}

/// Puts a place that is only planned in as the current one, until [`end`](Self::end) or a panic.
pub(crate) struct EnterPlanned(());

impl EnterPlanned {
    pub(crate) fn new(sketch: Sketch, polled_by: WakerId) -> Self {
        let mut slot = Some(Current { spot: Spot::Planned, polled_by, track: None });
        swap(&mut slot);
        let level = Level { outer: slot, place: Draft::Sketch(sketch) };
        LEVELS.with(|levels| levels.borrow_mut().push(level));
        Self(())
    }

    /// Gives back the sketch, or the place if something inside has asked for it.
    pub(crate) fn end(self) -> Draft {
        mem::forget(self);
        Self::pop()
    }

    fn pop() -> Draft {
        let level = LEVELS.with(|levels| levels.borrow_mut().pop());
        let Some(Level { mut outer, place }) = level else { unreachable!("pushed by `new`") };
        swap(&mut outer);
        place
    }
}

impl Drop for EnterPlanned {
    fn drop(&mut self) {
        drop(Self::pop());
    }
}

/// Makes what is around this code, from the outside inwards, if it is a task without a frame, or only planned.
fn make() {
    let Some(first) = LEVELS.with(|levels| first_planned(&levels.borrow())) else {
        return CURRENT.with(|current| current.borrow_mut().iter_mut().for_each(Current::grow));
    };
    LEVELS.with(|levels| levels.borrow_mut()[first].outer.iter_mut().for_each(Current::grow));
    for depth in first.. {
        let sketch = LEVELS.with(|levels| {
            let mut levels = levels.borrow_mut();
            let level = levels.get_mut(depth)?;
            let outer = level.outer.as_ref().and_then(|outer| outer.frame().map(Arc::clone));
            level.place.take_sketch().map(|sketch| (sketch, outer))
        });
        let Some((sketch, outer)) = sketch else { return };
        // No borrow is held: a place that is made may cancel, wake and report.
        put(depth, &sketch.make(outer.as_ref()));
    }
}

/// The outermost of the innermost levels that are only planned; none if the current frame is made.
fn first_planned(levels: &[Level]) -> Option<usize> {
    let is_planned = |current: Option<&Current>| current.is_some_and(Current::is_planned);
    if !CURRENT.with(|current| is_planned(current.borrow().as_ref())) {
        return None;
    }
    let inner = levels.iter().rev().take_while(|level| is_planned(level.outer.as_ref())).count();
    Some(levels.len() - 1 - inner)
}

fn put(depth: usize, frame: &Arc<Frame>) {
    LEVELS.with(|levels| {
        let mut levels = levels.borrow_mut();
        levels[depth].place = Draft::Made(Arc::clone(frame));
        match levels.get_mut(depth + 1) {
            Some(inner) => inner.outer.iter_mut().for_each(|outer| outer.spot = Spot::Frame(Arc::clone(frame))),
            None => CURRENT.with(|current| {
                current.borrow_mut().iter_mut().for_each(|own| own.spot = Spot::Frame(Arc::clone(frame)))
            }),
        }
    });
}

/// Looks at the current frame, with the waker that it was polled with. `look` must not poll or drop anything.
pub(crate) fn with<R>(look: impl FnOnce(Option<(&Arc<Frame>, &Current)>) -> R) -> R {
    let mut look = Some(look);
    let mut see = || {
        let seen = CURRENT.try_with(|current| {
            let current = current.borrow();
            match current.as_ref() {
                Some(current) => {
                    let frame = current.frame()?;
                    look.take().map(|look| look(Some((frame, current))))
                }
                None => look.take().map(|look| look(None)),
            }
        });
        seen.ok().flatten()
    };
    if let Some(result) = see() {
        return result;
    }
    make();
    if let Some(result) = see() {
        return result;
    }
    match look {
        Some(look) => look(None), // A thread that is being torn down.
        None => unreachable!("`look` is called or kept"),
    }
}

/// True if the code that runs here is cancelled. Makes nothing.
pub(crate) fn is_cancelled() -> bool {
    outwards(Draft::is_cancelled, |spot| match spot {
        Spot::Planned => None,
        Spot::Leaf(leaf) => Some(leaf.is_cancelled()),
        Spot::Frame(frame) => Some(frame.is_cancelled()),
    })
}

/// True if somebody waits for the task that runs here. Makes nothing.
pub(crate) fn is_owned() -> bool {
    outwards(
        |_| None,
        |spot| match spot {
            Spot::Planned => None,
            Spot::Leaf(leaf) => Some(leaf.is_owned()),
            Spot::Frame(frame) => Some(frame.is_owned()),
        },
    )
}

/// Asks the places around this code, from the inside outwards: those that are only planned until one knows, or the first that
/// is not. Outside of all it is false.
fn outwards(planned: impl Fn(&Draft) -> Option<bool>, ask: impl Fn(&Spot) -> Option<bool>) -> bool {
    // A thread that is being torn down has no current frame any more.
    let innermost = CURRENT.try_with(|current| current.borrow().as_ref().map(|current| ask(&current.spot)));
    match innermost.ok().flatten() {
        None => false,
        Some(Some(known)) => known,
        Some(None) => LEVELS.with(|levels| {
            let levels = levels.borrow();
            let level = |level: &Level| {
                planned(&level.place).or_else(|| match &level.outer {
                    None => Some(false),
                    Some(outer) => ask(&outer.spot),
                })
            };
            levels.iter().rev().find_map(level).unwrap_or(false)
        }),
    }
}

/// When something that is made here was made, for its age: what a frame makes in one poll has the time of the first. A look at
/// the clock costs a tenth of a spawn.
pub(crate) fn born() -> Ticks {
    let looked = LOOKED.get();
    let is_inside = || CURRENT.try_with(|current| current.borrow().is_some()).unwrap_or(false);
    if looked != 0 && is_inside() {
        return looked;
    }
    let now = clock::now();
    LOOKED.set(now);
    now
}

/// False while this thread is being torn down: it can not keep what is only planned.
pub(crate) fn can_plan() -> bool {
    LEVELS.try_with(|_| ()).is_ok()
}

/// The current frame, if this code runs inside any.
pub(crate) fn frame() -> Option<Arc<Frame>> {
    with(|current| current.map(|(frame, _)| Arc::clone(frame)))
}

/// The node below which something that is opened here belongs: the current frame's, or the root of this runtime.
pub(crate) fn branch(frame: Option<&Arc<Frame>>) -> Arc<Node> {
    frame.map_or_else(host::root, Frame::branch)
}

/// The node that judges the code that runs here.
pub(crate) fn node() -> Arc<Node> {
    with(|current| current.map(|(frame, _)| Arc::clone(frame.node()))).unwrap_or_else(host::root)
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
