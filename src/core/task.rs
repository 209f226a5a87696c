//! What is known of one task, for as long as anybody looks at it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use super::node::Info;
use super::sync::{Arc, AtomicUsize, OnceLock, Ordering};

/// The record of a task: who it is, and how far it has come.
pub(crate) struct TaskInfo {
    pub(crate) id: u64,
    pub(crate) info: Info,
    pub(crate) traits: Traits,
    fate: AtomicUsize,
    /// Who is told of the end, if anybody asked in time.
    on_end: OnceLock<Waker>,
    /// Set before the task begins, if at all.
    status: Option<Status>,
}

/// Says what a task is doing, whenever somebody looks.
pub(crate) type Status = Box<dyn Fn() -> String + Send + Sync>;

/// What is special about a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    /// It runs on a thread of its own and can not be cut off.
    pub(crate) blocking: bool,
    /// It does not keep its nursery open.
    pub(crate) daemon: bool,
}

/// Set once by the task, at its end.
const ENDED: usize = 1;
/// Set once by the handle, when it is dropped without having seen the end.
const ABANDONED: usize = 1 << 1;
/// Set once by the task, after its end was announced to all who wait: it runs no code of others any more.
const SETTLED: usize = 1 << 2;
/// Set at most once, before the end, by whoever wants to be told of it.
const WATCHED: usize = 1 << 3;
/// Set once by the task, before its end, if a cancel has cut it off.
const CUT: usize = 1 << 4;

impl TaskInfo {
    pub(crate) fn new(id: u64, info: Info, traits: Traits) -> Self {
        Self { id, info, traits, fate: AtomicUsize::new(0), on_end: OnceLock::new(), status: None }
    }

    pub(crate) fn with_status(self, status: Option<Status>) -> Self {
        Self { status, ..self }
    }

    /// What it is doing, in its own words. No lock may be held: they are those of the user. If they panic, the panic hook has said why.
    pub(crate) fn status(&self) -> Option<String> {
        let status = self.status.as_ref()?;
        Some(catch_unwind(AssertUnwindSafe(status)).unwrap_or_else(|_| "its status panicked".to_owned()))
    }

    pub(crate) fn name(&self) -> Arc<str> {
        match self.info.name.get() {
            Some(name) => Arc::clone(name),
            None => format!("Task-{}", self.id).into(),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.fate.load(Ordering::Acquire) & ENDED != 0
    }

    /// The same, for whoever has just changed what the end of the task looks at: the two come in one order.
    pub(crate) fn has_ended_by_now(&self) -> bool {
        self.fate.fetch_or(0, Ordering::AcqRel) & ENDED != 0
    }

    /// Marks the end. True if nobody is left who could look at the outcome, so that the task itself has to report it.
    pub(crate) fn end(&self) -> bool {
        let fate = self.fate.fetch_or(ENDED, Ordering::AcqRel);
        if let Some(waker) = self.on_end.get().filter(|_| fate & WATCHED != 0) {
            waker.wake_by_ref();
        }
        fate & ABANDONED != 0
    }

    /// Has `waker` told of the end. False if it was asked for before; then, too, if the task has ended, nobody is told by this call.
    #[cfg(feature = "signal")]
    pub(crate) fn watch(&self, waker: impl FnOnce() -> Waker) -> bool {
        if self.fate.load(Ordering::Acquire) & (WATCHED | ENDED) != 0 {
            return false;
        }
        self.on_end.get_or_init(waker);
        // The swap decides: the end finds the mark, or we find the end.
        self.fate.fetch_or(WATCHED, Ordering::AcqRel) & (WATCHED | ENDED) == 0
    }

    /// Marks that a cancel has cut it off; before the end.
    pub(crate) fn cut(&self) {
        self.fate.fetch_or(CUT, Ordering::AcqRel);
    }

    #[cfg(feature = "signal")]
    pub(crate) fn was_cut(&self) -> bool {
        self.fate.load(Ordering::Acquire) & CUT != 0
    }

    /// Marks that nothing but the return is left. True if the handle is gone, also if that was so at the end.
    pub(crate) fn settle(&self) -> bool {
        self.fate.fetch_or(SETTLED, Ordering::AcqRel) & ABANDONED != 0
    }

    /// Marks that the handle is gone. True if the task had settled by then, so that the handle has to report its outcome. Before
    /// that the task does: the handle may be dropped by a waker that the end of the task wakes.
    pub(crate) fn abandon(&self) -> bool {
        self.fate.fetch_or(ABANDONED, Ordering::AcqRel) & SETTLED != 0
    }
}

impl fmt::Debug for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, info, traits, fate, on_end: _, status: _ } = self;
        f.debug_struct("TaskInfo")
            .field("id", id)
            .field("info", info)
            .field("traits", traits)
            .field("fate", fate)
            .finish_non_exhaustive()
    }
}
