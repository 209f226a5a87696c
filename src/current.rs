//! The place of the code that runs on this thread.

mod enter;
mod plant;

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::iter;
use std::sync::Arc;

pub(crate) use enter::{Draft, in_any_bud, in_bud, in_frame, in_frame_if, in_leaf, in_plan, inside, inside_for_long};
pub(crate) use plant::bare_task;

use scoped_tls_hkt::scoped_thread_local;

use crate::clock::{self, Ticks};
use crate::core::cause::Cause;
use crate::core::frame::{Track, WakerId};
use crate::core::task::TaskInfo;
use crate::host::{self, BudSeat, Frame, LeafSeat, Node};
use crate::plan::Sketch;

/// A place in which something is polled, in the poll of what is around it.
///
/// It lives on the stack, for the time of the poll; the innermost is known to the thread. So the step into a place and out of it moves
/// nothing but a pointer, and a panic takes it as any other end.
pub(crate) struct Level<'a> {
    outer: Option<&'a Level<'a>>,
    place: Place<'a>,
    /// The waker that is handed on to what is inside.
    pub(crate) polled_by: WakerId,
    /// Of a frame that is polled with the cancel visible, and that something holds.
    pub(crate) track: Option<&'a Arc<Track>>,
    /// False for code that is not polled: on a thread of blocking work, or in a hook.
    is_polled: bool,
}

/// What is polled.
#[derive(Clone, Copy)]
enum Place<'a> {
    Leaf(&'a Growing<LeafSeat<'a>>),
    Bud(&'a Growing<&'a BudSeat>),
    Planned(&'a Planned<'a>),
    Frame(&'a Arc<Frame>),
}

/// What nothing has looked into, until something inside of the poll that goes on asks for its frame.
struct Growing<S> {
    seat: S,
    frame: OnceCell<Arc<Frame>>,
}

/// A region in its first poll.
struct Planned<'a> {
    sketch: &'a Sketch,
    /// Making a place may cancel, wake and report; for what is asked meanwhile it is not there yet.
    is_begun: Cell<bool>,
    made: OnceCell<Made>,
}

/// What was made of it during the poll.
enum Made {
    Bud(Growing<BudSeat>),
    Frame(Arc<Frame>),
}

/// A place that is made, as others see it.
#[derive(Clone, Copy)]
pub(crate) enum Spot<'a> {
    /// A task that nothing has looked into.
    Leaf(&'a LeafSeat<'a>),
    /// A region that nothing has looked into.
    Bud(&'a BudSeat),
    Frame(&'a Arc<Frame>),
}

impl<S> Growing<S> {
    fn new(seat: S) -> Self {
        Self { seat, frame: OnceCell::new() }
    }

    fn grow(&self, make: impl FnOnce(&S) -> Option<Arc<Frame>>) {
        if self.frame.get().is_none() {
            make(&self.seat).into_iter().for_each(|frame| drop(self.frame.set(frame)));
        }
    }
}

impl<'a> Spot<'a> {
    fn of_bud(bud: &'a BudSeat, frame: &'a OnceCell<Arc<Frame>>) -> Self {
        frame.get().map_or(Self::Bud(bud), Self::Frame)
    }

    /// The node that judges it; that around it, if it has none.
    fn node(self) -> &'a Arc<Node> {
        match self {
            Self::Leaf(leaf) => leaf.home(),
            Self::Bud(bud) => bud.home(),
            Self::Frame(frame) => frame.node(),
        }
    }

    fn is_cancelled(self) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.is_cancelled(),
            Self::Bud(bud) => bud.is_cancelled(),
            Self::Frame(frame) => frame.is_cancelled(),
        }
    }

    fn is_owned(self) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.home().is_owned(),
            Self::Bud(bud) => bud.is_owned(),
            Self::Frame(frame) => frame.is_owned(),
        }
    }
}

impl Level<'_> {
    /// None in a place that is only planned.
    #[inline]
    fn spot(&self) -> Option<Spot<'_>> {
        match self.place {
            Place::Leaf(leaf) => Some(leaf.frame.get().map_or(Spot::Leaf(&leaf.seat), Spot::Frame)),
            Place::Bud(bud) => Some(Spot::of_bud(bud.seat, &bud.frame)),
            Place::Frame(frame) => Some(Spot::Frame(frame)),
            Place::Planned(planned) => planned.made.get().map(|made| match made {
                Made::Bud(bud) => Spot::of_bud(&bud.seat, &bud.frame),
                Made::Frame(frame) => Spot::Frame(frame),
            }),
        }
    }

    /// None for what nothing has looked into.
    #[inline]
    pub(crate) fn frame(&self) -> Option<&Arc<Frame>> {
        // Most often, and one comparison.
        if let Place::Frame(frame) = self.place {
            return Some(frame);
        }
        match self.spot()? {
            Spot::Leaf(_) | Spot::Bud(_) => None,
            Spot::Frame(frame) => Some(frame),
        }
    }

    /// What is still only planned.
    fn unmade(&self) -> Option<&Planned<'_>> {
        match self.place {
            Place::Planned(planned) if planned.made.get().is_none() => Some(planned),
            Place::Planned(_) | Place::Leaf(_) | Place::Bud(_) | Place::Frame(_) => None,
        }
    }

    /// Makes the place, after what is around it, if it is only planned; with `grows` its frame, too.
    fn make(&self, grows: bool) {
        match self.unmade() {
            Some(planned) => planned.make(self.outer),
            None if grows => self.grow(),
            None => {}
        }
    }

    fn grow(&self) {
        match self.place {
            Place::Leaf(leaf) => leaf.grow(LeafSeat::grow),
            Place::Bud(bud) => bud.grow(|bud| bud.grow()),
            Place::Frame(_) => {}
            Place::Planned(planned) => match planned.made.get() {
                Some(Made::Bud(bud)) => bud.grow(BudSeat::grow),
                Some(Made::Frame(_)) | None => {}
            },
        }
    }
}

impl<'a> Planned<'a> {
    fn new(sketch: &'a Sketch) -> Self {
        Self { sketch, is_begun: Cell::new(false), made: OnceCell::new() }
    }

    fn make(&self, outer: Option<&Level<'_>>) {
        if self.is_begun.replace(true) {
            return;
        }
        outer.into_iter().for_each(|outer| outer.make(true));
        let frame = self.sketch.make(outer.and_then(Level::frame));
        drop(self.made.set(Made::Frame(frame)));
    }
}

scoped_thread_local!(static LEVEL: for<'a> &'a Level<'a>);

thread_local! {
    /// The last look at the clock since the outermost place was entered; 0 if there was none, or [`UNKEPT`].
    static LOOKED: Cell<Ticks> = const { Cell::new(0) };
}

/// Inside of code that may take long no look counts for the next.
const UNKEPT: Ticks = Ticks::MAX;

/// Looks at the innermost place around this code.
#[inline]
fn around<R>(see: impl FnOnce(Option<&Level<'_>>) -> R) -> R {
    if LEVEL.is_set() { LEVEL.with(|level| see(Some(level))) } else { see(None) }
}

/// The places around this code, from the inside outwards.
fn outwards<'a>(level: Option<&'a Level<'a>>) -> impl Iterator<Item = &'a Level<'a>> {
    iter::successors(level, |level| level.outer)
}

/// Asks the places around this code, from the inside outwards: those that are only planned until one knows, or the first that
/// is not. Outside of all it is false.
fn ask(level: Option<&Level<'_>>, planned: impl Fn(&Sketch) -> Option<bool>, made: impl Fn(Spot<'_>) -> bool) -> bool {
    let ask = |level: &Level<'_>| match level.spot() {
        Some(spot) => Some(made(spot)),
        None => level.unmade().and_then(|unmade| planned(unmade.sketch)),
    };
    outwards(level).find_map(ask).unwrap_or(false)
}

/// True if the code inside of `level` is cancelled. What is only planned was not when its poll began, and nobody has a handle on it:
/// `is_over` says whether its deadline has passed.
fn is_cancelled_in(level: Option<&Level<'_>>, is_over: impl Fn(&Sketch) -> bool) -> bool {
    let planned = |sketch: &Sketch| {
        let is_over = is_over(sketch);
        (is_over || sketch.is_shielded()).then_some(is_over)
    };
    ask(level, planned, |spot| spot.is_cancelled())
}

/// The last look at the clock inside of the outermost place, or one now.
fn born_inside() -> Ticks {
    match LOOKED.get() {
        UNKEPT => clock::now(),
        0 => {
            LOOKED.set(clock::now());
            LOOKED.get()
        }
        looked => looked,
    }
}

/// Looks at what is polled here, made now if it is only planned. None outside of all, and where it is about to be made.
pub(crate) fn with_spot<R>(see: impl FnOnce(Option<Spot<'_>>) -> R) -> R {
    around(|level| {
        level.into_iter().for_each(|level| level.make(false));
        see(level.and_then(Level::spot))
    })
}

/// Looks at the current frame, made now if there is none, with the waker that it was polled with.
#[inline]
pub(crate) fn with<R>(see: impl FnOnce(Option<(&Arc<Frame>, &Level<'_>)>) -> R) -> R {
    around(|level| {
        level.into_iter().filter(|level| level.frame().is_none()).for_each(|level| level.make(true));
        see(level.and_then(|level| Some((level.frame()?, level))))
    })
}

/// True if the code that runs here is cancelled. Makes nothing.
pub(crate) fn is_cancelled() -> bool {
    let looked = Cell::new(0);
    let is_over = |sketch: &Sketch| {
        let Some(at) = sketch.deadline() else { return false };
        looked.set(clock::now());
        at <= looked.get()
    };
    let is_cancelled = around(|level| is_cancelled_in(level, is_over));
    // What has been seen to be over is so when it is planted.
    LOOKED.set(LOOKED.get().max(looked.get()));
    is_cancelled
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
    let has_own = |spot: Spot<'_>| matches!(spot, Spot::Bud(bud) if bud.chain().timed || bud.chain().shielded);
    if with_spot(|spot| spot.is_some_and(has_own)) {
        return branch(frame().as_ref());
    }
    node()
}

/// The node that judges the innermost place that is made; the root outside of all. Makes nothing.
pub(crate) fn made_node() -> Arc<Node> {
    let node = around(|level| outwards(level).find_map(Level::spot).map(|spot| Arc::clone(spot.node())));
    node.unwrap_or_else(host::root)
}

/// True if the code that runs here is in no poll of ours: it blocks a thread, and nobody could drop it when it is cut off.
pub(crate) fn is_beside_polls() -> bool {
    around(|level| level.is_some_and(|level| !level.is_polled))
}

/// True if somebody waits for the task that runs here. Makes nothing.
pub(crate) fn is_owned() -> bool {
    around(|level| ask(level, |_| None, |spot| spot.is_owned()))
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
    if LEVEL.is_set() { born_inside() } else { clock::now() }
}
