//! The frame that this thread is polling right now.

use std::borrow::Cow;
use std::cell::RefCell;
use std::mem;
use std::sync::Arc;
use std::task::Waker;

use crate::core::cause::Cause;
use crate::core::frame::{Track, WakerId};
use crate::core::task::TaskInfo;
use crate::host::{self, Frame, Node};
use crate::plan::Sketch;

/// What futures of ours find out about the place in which they are polled.
pub(crate) struct Current {
    pub(crate) frame: Arc<Frame>,
    /// The waker that the frame hands on to what is inside it.
    pub(crate) polled_by: WakerId,
    /// Set while the frame is polled with the cancel visible and something holds it.
    pub(crate) track: Option<Arc<Track>>,
}

impl Current {
    /// A frame that is not being polled yet, or code of the program that runs as if inside it.
    pub(crate) fn at(frame: Arc<Frame>) -> Self {
        Self { frame, polled_by: WakerId::of(Waker::noop()), track: None }
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
    /// Nothing inside has asked for it.
    Sketch(Sketch),
    /// It could not be made.
    Begun,
    Made(Arc<Frame>),
}

/// What is around the code that runs here.
struct Around {
    /// None in a place that is only planned, and outside of all.
    current: Option<Current>,
    /// The regions in their first polls, the innermost last. Whatever is around a frame was made before it.
    levels: Vec<Level>,
}

thread_local! {
    static AROUND: RefCell<Around> = const { RefCell::new(Around { current: None, levels: Vec::new() }) };
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
        let entered = slot.is_some() && around(|around| mem::swap(&mut around.current, slot)).is_some();
        Self { slot, entered }
    }

    /// Enters the frame if `fits` holds for the one around this code.
    #[inline]
    pub(crate) fn new_if(slot: &'a mut Option<Current>, fits: impl FnOnce(&Current) -> bool) -> Option<Self> {
        let entered = around(|around| {
            let fits = around.current.as_ref().is_some_and(fits);
            if fits {
                mem::swap(&mut around.current, slot);
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
            around(|around| mem::swap(&mut around.current, self.slot)).unwrap_or_default();
        }
    }
}

/// Puts a place that is only planned in as the current one, until [`end`](Self::end) or a panic.
pub(crate) struct EnterPlanned(());

impl EnterPlanned {
    /// None if the place is needed for the first poll already.
    pub(crate) fn new(sketch: &mut Sketch, polled_by: WakerId) -> Option<Self> {
        let entered = around(|around| {
            let may_wait = sketch.may_wait(|| around.is_owned(), || around.is_cancelled());
            if may_wait {
                let (outer, sketch) = (around.current.take(), Some(sketch.take()));
                around.levels.push(Level { outer, sketch, polled_by });
            }
            may_wait
        });
        entered.unwrap_or(false).then(|| Self(()))
    }

    /// Gives back the sketch, or the place if something inside has asked for it.
    pub(crate) fn end(self) -> Draft {
        mem::forget(self);
        Self::pop()
    }

    fn pop() -> Draft {
        let level = around(|around| {
            let Level { outer, sketch, .. } = around.levels.pop()?;
            Some((mem::replace(&mut around.current, outer), sketch))
        });
        match level.flatten() {
            Some((Some(own), _)) => Draft::Made(own.frame),
            Some((None, Some(sketch))) => Draft::Sketch(sketch),
            Some((None, None)) | None => Draft::Begun,
        }
    }
}

impl Drop for EnterPlanned {
    fn drop(&mut self) {
        drop(Self::pop());
    }
}

impl Around {
    /// The outermost of the innermost levels that are only planned; none if the current frame is made.
    fn first_planned(&self) -> Option<usize> {
        let last = self.current.is_none().then(|| self.levels.len().checked_sub(1)).flatten()?;
        Some(self.levels[..=last].iter().rposition(|level| level.outer.is_some()).unwrap_or(0))
    }

    /// Takes the sketch of a place that is to be made now, with the frame around it.
    fn begin(&mut self, depth: usize) -> Option<(Sketch, Option<Arc<Frame>>)> {
        let level = self.levels.get_mut(depth)?;
        let outer = level.outer.as_ref().map(|outer| Arc::clone(&outer.frame));
        Some((level.sketch.take()?, outer))
    }

    fn put(&mut self, depth: usize, frame: &Arc<Frame>) {
        let polled_by = self.levels[depth].polled_by;
        let made = Some(Current { polled_by, ..Current::at(Arc::clone(frame)) });
        match self.levels.get_mut(depth + 1) {
            Some(inner) => inner.outer = made,
            None => self.current = made,
        }
    }

    /// True if the code that runs here is cancelled.
    fn is_cancelled(&self) -> bool {
        // What is only planned was not cancelled when its poll began, and nobody has a handle on it.
        self.outwards(|sketch| sketch.is_shielded().then_some(false), |frame| frame.is_cancelled())
    }

    /// True if somebody waits for the task that runs here.
    fn is_owned(&self) -> bool {
        self.outwards(|_| None, |frame| frame.is_owned())
    }

    /// Asks the places around this code, from the inside outwards: those that are only planned until one knows, or the first frame.
    /// Outside of all frames it is false.
    fn outwards(&self, planned: impl Fn(&Sketch) -> Option<bool>, made: impl Fn(&Frame) -> bool) -> bool {
        let made = |current: &Current| made(&current.frame);
        let ask = |level: &Level| level.sketch.as_ref().and_then(&planned).or_else(|| level.outer.as_ref().map(made));
        match &self.current {
            Some(current) => made(current),
            None => self.levels.iter().rev().find_map(ask).unwrap_or(false),
        }
    }
}

/// Makes what is around this code, from the outside inwards, if it is only planned.
fn make() {
    let Some(first) = around(|around| around.first_planned()).flatten() else { return };
    for depth in first.. {
        let Some((sketch, outer)) = around(|around| around.begin(depth)).flatten() else { return };
        // No borrow is held: a place that is made may cancel, wake and report.
        let frame = sketch.make(outer.as_ref());
        around(|around| around.put(depth, &frame)).unwrap_or_default();
    }
}

/// Looks at the current frame, with the waker that it was polled with. `look` must not poll or drop anything.
pub(crate) fn with<R>(look: impl FnOnce(Option<&Current>) -> R) -> R {
    let mut look = Some(look);
    let mut see = |even_planned: bool| {
        let seen = around(|around| match &around.current {
            None if !even_planned && !around.levels.is_empty() => None,
            current => look.take().map(|look| look(current.as_ref())),
        });
        seen.flatten()
    };
    if let Some(result) = see(false) {
        return result;
    }
    make();
    if let Some(result) = see(true) {
        return result;
    }
    match look {
        Some(look) => look(None), // A thread that is being torn down.
        None => unreachable!("`look` is called or kept"),
    }
}

/// True if the code that runs here is cancelled. Makes nothing.
pub(crate) fn is_cancelled() -> bool {
    around(|around| around.is_cancelled()).unwrap_or(false)
}

/// The current frame, if this code runs inside any.
pub(crate) fn frame() -> Option<Arc<Frame>> {
    with(|current| current.map(|current| Arc::clone(&current.frame)))
}

/// The node below which something that is opened here belongs: the current frame's, or the root of this runtime.
pub(crate) fn branch(frame: Option<&Arc<Frame>>) -> Arc<Node> {
    frame.map_or_else(host::root, Frame::branch)
}

/// The node that judges the code that runs here.
pub(crate) fn node() -> Arc<Node> {
    with(|current| current.map(|current| Arc::clone(current.frame.node()))).unwrap_or_else(host::root)
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
