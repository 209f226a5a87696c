//! Who takes part in the graceful phase: the tasks that have asked, and the participants by name.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use crate::core::task::TaskInfo;
use crate::host::{Frame, lock};

/// Counts who takes part.
///
/// A task does from the first time that it waits for the request, to its end: while it works off a message in its loop it does
/// not wait, but must not be taken for one that does not care. Code that is in no task of ours does while it waits.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    tasks: Mutex<Vec<Arc<Frame>>>,
    others: AtomicUsize,
    /// Somebody accepts, or tells others whether this is ready: a drain delay makes sense. Never taken back.
    hears: AtomicBool,
}

impl Parts {
    /// Takes a task in; `on_end` is woken when it ends.
    pub(crate) fn join(&self, task: Arc<Frame>, on_end: impl FnOnce() -> Waker) {
        if !task.task().is_some_and(|info| info.watch(on_end)) {
            return;
        }
        let mut tasks = lock(&self.tasks);
        let ended = if tasks.len() == tasks.capacity() { take_ended(&mut tasks) } else { Vec::new() };
        tasks.push(task);
        drop(tasks);
        drop(ended);
    }

    /// Takes somebody in who has no task.
    pub(crate) fn enter(&self) {
        self.others.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn leave(&self) {
        self.others.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn set_hears(&self) {
        self.hears.store(true, Ordering::Release);
    }

    pub(crate) fn hears(&self) -> bool {
        self.hears.load(Ordering::Acquire)
    }

    pub(crate) fn is_empty(&self) -> bool {
        let is_alive = |task: &Arc<Frame>| task.task().is_some_and(|info| !info.has_ended());
        self.others.load(Ordering::Acquire) == 0 && !lock(&self.tasks).iter().any(is_alive)
    }
}

/// Takes out those that have ended, to be dropped outside of the lock.
fn take_ended(tasks: &mut Vec<Arc<Frame>>) -> Vec<Arc<Frame>> {
    let (ended, alive) =
        std::mem::take(tasks).into_iter().partition(|task| task.task().is_none_or(TaskInfo::has_ended));
    *tasks = alive;
    ended
}
