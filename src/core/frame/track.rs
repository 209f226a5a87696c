//! A waker that remembers by whom it was woken.

use std::task::{Wake, Waker};

use crate::core::sync::{Arc, AtomicUsize, Ordering, this_thread};

/// A waker that remembers that it was woken: it tells whether a poll left a wake outstanding, and whether more than the poll itself has
/// led to the next one.
pub(crate) struct Track {
    inner: Waker,
    /// What of the following has been since the poll began.
    seen: AtomicUsize,
    /// The thread of the poll.
    thread: AtomicUsize,
}

/// It was woken by the poll itself.
const WOKEN_INSIDE: usize = 1;
/// It was woken by another thread, or after the poll.
const WOKEN_OUTSIDE: usize = 1 << 1;
/// The poll is over.
const OVER: usize = 1 << 2;
/// It had been woken from outside before the poll.
const DISTURBED: usize = 1 << 3;

impl Track {
    pub(crate) fn new(inner: &Waker) -> Arc<Self> {
        let (seen, thread) = (AtomicUsize::new(0), AtomicUsize::new(this_thread()));
        Arc::new(Self { inner: inner.clone(), seen, thread })
    }

    /// True if it wakes what `waker` wakes.
    pub(crate) fn is_for(&self, waker: &Waker) -> bool {
        self.inner.will_wake(waker)
    }

    /// Begins another poll: what got hold of the waker in an earlier one wakes by the same.
    pub(crate) fn begin(&self) {
        self.thread.store(this_thread(), Ordering::Relaxed);
        let outside = self.seen.swap(0, Ordering::AcqRel) & WOKEN_OUTSIDE != 0;
        if outside {
            self.seen.fetch_or(DISTURBED, Ordering::AcqRel);
        }
    }

    /// Ends the poll.
    pub(crate) fn end(&self) {
        self.seen.fetch_or(OVER, Ordering::AcqRel);
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.seen.load(Ordering::Acquire) & (WOKEN_INSIDE | WOKEN_OUTSIDE) != 0
    }

    /// True if it was woken before this poll by another than the last one.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.seen.load(Ordering::Acquire) & DISTURBED != 0
    }
}

impl Wake for Track {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let over = self.seen.load(Ordering::Acquire) & OVER != 0;
        let inside = !over && self.thread.load(Ordering::Relaxed) == this_thread();
        self.seen.fetch_or(if inside { WOKEN_INSIDE } else { WOKEN_OUTSIDE }, Ordering::AcqRel);
        self.inner.wake_by_ref();
    }
}
