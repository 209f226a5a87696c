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

/// What futures of ours find out about the place in which they are polled.
pub(crate) struct Current {
    pub(crate) frame: Arc<Frame>,
    /// The waker that the frame hands on to what is inside it.
    pub(crate) polled_by: WakerId,
    /// Set while the frame is polled with the cancel visible.
    pub(crate) track: Option<Arc<Track>>,
}

impl Current {
    /// A frame that is not being polled yet.
    pub(crate) fn at(frame: Arc<Frame>) -> Self {
        Self { frame, polled_by: WakerId::of(Waker::noop()), track: None }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// Puts a frame in as the current one until it is dropped; the frame it replaces waits in the slot meanwhile. Moving it in
/// and out costs no reference count.
pub(crate) struct Enter<'a>(&'a mut Option<Current>);

impl<'a> Enter<'a> {
    pub(crate) fn new(slot: &'a mut Option<Current>) -> Self {
        swap(slot);
        Self(slot)
    }
}

impl Drop for Enter<'_> {
    fn drop(&mut self) {
        swap(self.0);
    }
}

fn swap(slot: &mut Option<Current>) {
    // A thread that is being torn down has no current frame any more, and polls none.
    CURRENT.try_with(|current| mem::swap(&mut *current.borrow_mut(), slot)).unwrap_or_default();
}

/// Looks at the current frame. `look` must not poll or drop anything.
pub(crate) fn with<R>(look: impl FnOnce(Option<&Current>) -> R) -> R {
    let mut look = Some(look);
    let seen = CURRENT.try_with(|current| look.take().map(|look| look(current.borrow().as_ref())));
    match (seen, look) {
        (Ok(Some(result)), _) => result,
        (_, Some(look)) => look(None),
        (Ok(None) | Err(_), None) => unreachable!("look is called or kept"),
    }
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
