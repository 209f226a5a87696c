//! Entries by time, cheap for those that come in order: equal timeouts do.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

/// A map whose first entry is the next one.
///
/// # Invariants
///
/// 1. The keys of `run` rise. Its ends are full; `holes` of those between are empty, no more than half of them, or a few.
/// 2. A key has one entry, in one of the two.
#[derive(Debug)]
pub(super) struct Queue<K, V> {
    /// Those that came in order. One that goes from the middle leaves a hole.
    run: VecDeque<(K, Option<V>)>,
    holes: usize,
    /// Those that did not.
    rest: BTreeMap<K, V>,
}

/// So many holes are no reason to close them.
const FEW: usize = 32;

impl<K, V> Default for Queue<K, V> {
    fn default() -> Self {
        Self { run: VecDeque::new(), holes: 0, rest: BTreeMap::new() }
    }
}

impl<K: Ord + Copy, V> Queue<K, V> {
    /// Puts an entry in, in place of one with the same key.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.run.back().is_none_or(|(last, _)| *last < key) {
            // It may have come out of order before.
            drop(self.rest.remove(&key));
            return self.run.push_back((key, Some(value)));
        }
        match self.full_at(key) {
            Some(index) => drop(self.run[index].1.replace(value)),
            None => drop(self.rest.insert(key, value)),
        }
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let Some(index) = self.full_at(key) else { return self.rest.remove(&key) };
        self.holes += 1;
        let value = self.run[index].1.take();
        self.close();
        value
    }

    pub(super) fn first_key(&self) -> Option<K> {
        let (run, rest) = (self.run.front().map(|(key, _)| *key), self.rest.first_key_value().map(|(key, _)| *key));
        run.into_iter().chain(rest).min()
    }

    pub(super) fn pop_first(&mut self) -> Option<(K, V)> {
        let first = self.first_key()?;
        Some((first, self.remove(first)?))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.run.len() - self.holes + self.rest.len()
    }

    fn full_at(&self, key: K) -> Option<usize> {
        // The last that has come is the first to go, in a loop of timeouts.
        let last = self.run.len().checked_sub(1)?;
        let index = if self.run[last].0 == key { Ok(last) } else { self.run.binary_search_by(|(at, _)| at.cmp(&key)) };
        index.ok().filter(|index| self.run[*index].1.is_some())
    }

    /// Invariant 1, after an entry has gone from `run`.
    fn close(&mut self) {
        while let Some((_, None)) = self.run.back() {
            self.run.pop_back();
            self.holes -= 1;
        }
        while let Some((_, None)) = self.run.front() {
            self.run.pop_front();
            self.holes -= 1;
        }
        if self.holes > FEW && 2 * self.holes > self.run.len() {
            let full = mem::take(&mut self.run).into_iter().filter(|(_, value)| value.is_some());
            (self.run, self.holes) = (full.collect(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same steps, by chance, on a plain map.
    #[test]
    fn it_is_a_map_whatever_the_order() {
        let mut seed = 1_u64;
        let mut dice = |sides: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % sides
        };
        let (mut queue, mut model) = (Queue::default(), BTreeMap::new());
        for step in 0..200_000_u64 {
            // Now in order, now anyhow.
            let key = if step / 1000 % 2 == 0 { step } else { dice(200_000) };
            match dice(5) {
                0..=2 => {
                    queue.insert(key, step);
                    model.insert(key, step);
                }
                3 => assert_eq!(queue.pop_first(), model.pop_first()),
                _ => {
                    let near = model.range(dice(200_000)..).next().map_or(key, |(key, _)| *key);
                    assert_eq!(queue.remove(near), model.remove(&near));
                }
            }
            assert_eq!((queue.first_key(), queue.len()), (model.first_key_value().map(|(key, _)| *key), model.len()));
            assert!(queue.holes <= FEW.max(queue.run.len() / 2), "{} of {}", queue.holes, queue.run.len());
        }
    }
    #[test]
    fn a_key_that_comes_twice_has_one_entry() {
        let mut queue = Queue::default();
        for (key, value) in [(1, 'a'), (2, 'b'), (2, 'c'), (1, 'd')] {
            queue.insert(key, value);
        }
        assert_eq!(
            (queue.len(), queue.pop_first(), queue.pop_first(), queue.pop_first()),
            (2, Some((1, 'd')), Some((2, 'c')), None)
        );
    }

    #[test]
    fn holes_are_closed_when_they_are_many_and_most() {
        for (size, last) in [(60, FEW), (100, 50)] {
            let mut queue = Queue::default();
            (0..size).for_each(|key| queue.insert(key, ()));
            // Neither end, or it would be shorter.
            for gone in 1..=last {
                assert_eq!(queue.remove(gone), Some(()));
                assert_eq!((queue.holes, queue.run.len()), (gone, size));
            }
            assert_eq!(queue.remove(last + 1), Some(()));
            assert_eq!((queue.holes, queue.run.len()), (0, size - last - 1));
        }
    }
}
