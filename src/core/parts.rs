//! What many threads change, in parts with locks of their own, so that they do not wait for each other.

use super::sync::{Mutex, MutexGuard};

/// A power of two. Each part is a step more for loom.
pub(crate) const PARTS: usize = if cfg!(testudo_loom) { 2 } else { 16 };

/// The parts of one thing. Who uses it says which number is whose; a few numbers share a part if there are many.
#[derive(Debug)]
pub(crate) struct Parts<T>(Box<[Part<T>]>);

#[derive(Debug, Default)]
struct Part<T> {
    lock: Mutex<T>,
    /// No two locks are on one cache line.
    _apart: [u64; 8],
}

impl<T: Default> Default for Parts<T> {
    fn default() -> Self {
        Self((0..PARTS).map(|_| Part::default()).collect())
    }
}

impl<T> Parts<T> {
    /// The part with this number, or that which is as good.
    #[inline]
    pub(crate) fn lock(&self, number: usize) -> MutexGuard<'_, T> {
        self.0[number % PARTS].lock.lock()
    }

    /// One after the other.
    pub(crate) fn all(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.0.iter().map(|part| part.lock.lock())
    }
}
