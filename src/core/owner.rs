//! What a node keeps that owns work: how much of it is alive, and what has become of the rest.

use std::any::Any;

use super::live::Live;
use super::sync::{AtomicBool, AtomicUsize, Mutex, Ordering};

/// What a nursery, or a root, has beside its place in the tree.
///
/// A child writes here before it is counted out of `live`, and whoever waits for it reads after that; so nothing here orders anything.
pub(crate) struct Owner {
    /// What it still has to wait for.
    pub(crate) live: Live,
    /// Its children live in the task that polls it, and go with that.
    pub(crate) borrows: bool,
    /// What the end of one child does to the others, by a number that the layer above knows. Written before the first child.
    policy: AtomicUsize,
    /// True from the first poll on, if somebody waits for the task that polls the owner. A root is waited for by its run.
    owned: AtomicBool,
    /// True once the body is no longer counted among what is alive. Never taken back, and not for a root.
    body_ended: AtomicBool,
    /// True once a child has ended well that the others are cancelled for. Never taken back.
    succeeded: AtomicBool,
    /// True once a cancel from outside has cut off the body or a child. Never taken back.
    cut_off: AtomicBool,
    /// Those of children and body.
    pub(crate) failures: Mutex<Kept>,
}

/// What is kept until the end of the owner.
#[derive(Default)]
pub(crate) struct Kept {
    /// In a type that the layer above knows; made with the first, because nearly no owner has any.
    pub(crate) all: Option<Erased>,
    /// They have been taken, and nobody will take what comes later.
    pub(crate) is_over: bool,
}

/// A value of a type that only who put it in knows.
pub(crate) type Erased = Box<dyn Any + Send>;

impl Owner {
    /// What a nursery has, which ends with its last part.
    pub(crate) fn new(policy: usize) -> Self {
        Self::with(Live::new(), policy, false)
    }

    /// What a root has, which stays open until it is closed.
    pub(crate) fn root(policy: usize) -> Self {
        Self::with(Live::new_root(), policy, true)
    }

    fn with(live: Live, policy: usize, owned: bool) -> Self {
        Self {
            live,
            borrows: false,
            policy: AtomicUsize::new(policy),
            owned: AtomicBool::new(owned),
            body_ended: AtomicBool::new(false),
            succeeded: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
            failures: Mutex::new(Kept::default()),
        }
    }

    /// The same for children that borrow.
    pub(crate) fn borrowing(self) -> Self {
        Self { borrows: true, ..self }
    }

    pub(crate) fn policy(&self) -> usize {
        self.policy.load(Ordering::Relaxed)
    }

    pub(crate) fn set_policy(&self, policy: usize) {
        self.policy.store(policy, Ordering::Relaxed);
    }

    pub(crate) fn is_owned(&self) -> bool {
        self.owned.load(Ordering::Relaxed)
    }

    pub(crate) fn set_owned(&self, owned: bool) {
        self.owned.store(owned, Ordering::Relaxed);
    }

    pub(crate) fn end_body(&self) {
        self.body_ended.store(true, Ordering::Relaxed);
    }

    /// How many parts are alive besides the body; besides itself, for a root.
    pub(crate) fn children(&self) -> usize {
        // First the parts: if the body is not among them any more, it is seen to have ended.
        let parts = self.live.len();
        parts.saturating_sub(usize::from(!self.body_ended.load(Ordering::Relaxed)))
    }

    /// A child has ended well. True for the first.
    pub(crate) fn succeed(&self) -> bool {
        !self.succeeded.swap(true, Ordering::Relaxed)
    }

    /// A cancel from outside has cut off the body or a child.
    pub(crate) fn cut_off(&self) {
        self.cut_off.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    pub(crate) fn has_succeeded(&self) -> bool {
        self.succeeded.load(Ordering::Relaxed)
    }
}
