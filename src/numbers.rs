//! Numbers that are given once in a process, without all threads waiting for one counter.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};

/// Gives numbers from 1 on. A thread takes a block of them at once and gives them in order.
pub(crate) struct Numbers<const BLOCK: u64> {
    /// Where the next block begins.
    next: AtomicU64,
}

impl<const BLOCK: u64> Numbers<BLOCK> {
    /// What a thread has given last before its first one.
    pub(crate) const NONE: u64 = 0;

    pub(crate) const fn new() -> Self {
        Self { next: AtomicU64::new(0) }
    }

    /// `last`: what this thread has given last.
    #[inline]
    pub(crate) fn next(&self, last: &Cell<u64>) -> NonZero<u64> {
        // The numbers of a block end with a multiple of its size.
        let before = if last.get() % BLOCK == 0 { self.next.fetch_add(BLOCK, Ordering::Relaxed) } else { last.get() };
        last.set(before + 1);
        NonZero::new(before + 1).unwrap_or(NonZero::<u64>::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_given_twice_by_one_thread_or_by_two() {
        static NUMBERS: Numbers<4> = Numbers::new();
        thread_local! { static LAST: Cell<u64> = const { Cell::new(Numbers::<4>::NONE) } }
        let ten = || (0..10).map(|_| LAST.with(|last| NUMBERS.next(last)).get()).collect::<Vec<_>>();
        assert_eq!(ten(), (1..=10).collect::<Vec<_>>());
        assert_eq!(std::thread::spawn(ten).join().unwrap_or_default(), (13..=22).collect::<Vec<_>>());
        assert_eq!(ten(), [11, 12].into_iter().chain(25..=32).collect::<Vec<_>>());
    }
}
