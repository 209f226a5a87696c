//! The list of the tasks of a nursery, in chunks that stay where they are, and what is left of those that have ended.

use std::array;
use std::mem;
use std::task::Waker;

use slab::Slab;

/// A slab that does not copy what is in it when it grows: that would be a good part of the price of a task, and of its memory.
///
/// # Invariants
///
/// 1. `first` holds the keys below `CHUNK`, the chunk at `i` of the others the `CHUNK` keys from `CHUNK * (i + 1)` on.
/// 2. One of the others that has room is the last, or is in `holes`, once.
pub(super) struct Tasks<T> {
    /// It grows, so that a small nursery has a small list.
    first: Slab<T>,
    /// Boxed, because most nodes have few tasks or none.
    more: Option<Box<More<T>>>,
}

struct More<T> {
    chunks: Vec<Slab<T>>,
    holes: Vec<usize>,
    /// Wakers of tasks that have ended. Each keeps the memory of its task, whose future is gone and whose outcome is its handle's, for the
    /// thread that spawns the next: it allocates, and what is freed on the thread that allocates is cheap. Freed by another one, as by a worker that
    /// has stolen a task, each takes a lock of the heap that the one who allocates waits for.
    husks: Vec<Waker>,
}

const CHUNK: usize = 64;

/// So much is kept at most. It need not be more, as a spawn takes several out.
const HUSKS_MAX: usize = 64;

/// What a spawn takes out: more than one, so that whoever ends tasks finds room though it is faster for a while.
pub(super) type Husks = [Option<Waker>; 4];

impl<T> Tasks<T> {
    pub(super) fn new() -> Self {
        Self { first: Slab::new(), more: None }
    }

    #[inline]
    pub(super) fn insert(&mut self, task: T) -> usize {
        if self.first.len() < CHUNK {
            return self.first.insert(task);
        }
        let more = self.more.get_or_insert_with(|| Box::new(More::new()));
        let index = more.with_room();
        CHUNK * (index + 1) + more.chunks[index].insert(task)
    }

    /// Takes one out that is there.
    #[inline]
    pub(super) fn remove(&mut self, key: usize) -> T {
        match ((key / CHUNK).checked_sub(1), &mut self.more) {
            (Some(index), Some(more)) => more.remove(index, key % CHUNK),
            (Some(_) | None, _) => self.first.remove(key),
        }
    }

    /// True if what is left of a task is to be kept. Nurseries that never had many tasks at once keep nothing: they do not spawn and end
    /// so fast.
    #[inline]
    pub(super) fn has_room_for_husk(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.husks.len() < HUSKS_MAX)
    }

    pub(super) fn keep_husk(&mut self, husk: Waker) {
        if let Some(more) = &mut self.more {
            more.husks.push(husk);
        }
    }

    #[inline]
    pub(super) fn has_husks(&self) -> bool {
        self.more.as_ref().is_some_and(|more| !more.husks.is_empty())
    }

    #[cfg(test)]
    pub(super) fn husks(&self) -> usize {
        self.more.as_ref().map_or(0, |more| more.husks.len())
    }

    /// Some of what is kept, for the thread that spawns.
    pub(super) fn some_husks(&mut self) -> Option<Husks> {
        self.more.as_mut().map(|more| array::from_fn(|_| more.husks.pop()))
    }

    /// All of it.
    pub(super) fn take_husks(&mut self) -> Vec<Waker> {
        self.more.as_mut().map(|more| mem::take(&mut more.husks)).unwrap_or_default()
    }

    pub(super) fn get(&self, key: usize) -> Option<&T> {
        match (key / CHUNK).checked_sub(1) {
            None => self.first.get(key),
            Some(index) => self.chunks().get(index)?.get(key % CHUNK),
        }
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        match (key / CHUNK).checked_sub(1) {
            None => self.first.get_mut(key),
            Some(index) => self.more.as_mut()?.chunks.get_mut(index)?.get_mut(key % CHUNK),
        }
    }

    /// All with their keys, in the order of these.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let chunks = std::iter::once(&self.first).chain(self.chunks());
        chunks.enumerate().flat_map(|(index, chunk)| chunk.iter().map(move |(key, task)| (CHUNK * index + key, task)))
    }

    /// No key is as high.
    pub(super) fn bound(&self) -> usize {
        if self.chunks().is_empty() { self.first.capacity() } else { CHUNK * (self.chunks().len() + 1) }
    }

    pub(super) fn len(&self) -> usize {
        self.first.len() + self.chunks().iter().map(Slab::len).sum::<usize>()
    }

    fn chunks(&self) -> &[Slab<T>] {
        self.more.as_ref().map_or(&[], |more| &more.chunks)
    }
}

impl<T> More<T> {
    fn new() -> Self {
        Self { chunks: Vec::new(), holes: Vec::new(), husks: Vec::new() }
    }

    /// A chunk that has room, made if there is none.
    #[inline]
    fn with_room(&mut self) -> usize {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            return self.hole_or_more();
        }
        self.chunks.len() - 1
    }

    fn hole_or_more(&mut self) -> usize {
        let Some(&hole) = self.holes.last() else {
            self.chunks.push(Slab::with_capacity(CHUNK));
            return self.chunks.len() - 1;
        };
        // It has room for one, at least.
        if self.chunks[hole].len() + 1 == CHUNK {
            self.holes.pop();
        }
        hole
    }

    fn remove(&mut self, index: usize, key: usize) -> T {
        if self.chunks[index].len() == CHUNK && index + 1 < self.chunks.len() {
            self.holes.push(index);
        }
        self.chunks[index].remove(key)
    }
}

#[cfg(all(test, not(testudo_loom)))]
mod tests {
    use super::*;

    /// A list of so many, each of which is its own key.
    fn list(size: usize) -> Tasks<usize> {
        let mut tasks = Tasks::new();
        for expected in 0..size {
            assert_eq!(tasks.insert(expected), expected);
        }
        tasks
    }

    #[test]
    fn each_is_found_by_its_key() {
        let mut tasks = list(300);
        for key in 0..300 {
            assert_eq!(tasks.get(key), Some(&key));
            assert_eq!(tasks.get_mut(key).map(|task| *task), Some(key));
        }
        assert!(tasks.get(300).is_none() && tasks.get_mut(300).is_none() && tasks.get(10_000).is_none());
        let all: Vec<_> = tasks.iter().map(|(key, task)| (key, *task)).collect();
        assert_eq!(all, (0..300).map(|key| (key, key)).collect::<Vec<_>>());
        assert_eq!(tasks.len(), 300);
    }

    #[test]
    fn what_is_taken_out_makes_room_before_the_list_grows() {
        let mut tasks = list(5 * CHUNK);
        for step in [2, 7, 64, 65] {
            let gone: Vec<usize> = (0..5 * CHUNK).step_by(step).collect();
            gone.iter().for_each(|&key| assert_eq!(tasks.remove(key), key));
            assert!(gone.iter().all(|&key| tasks.get(key).is_none()));
            assert_eq!((tasks.len(), tasks.iter().count()), (5 * CHUNK - gone.len(), 5 * CHUNK - gone.len()));
            let mut places: Vec<usize> = gone.iter().map(|_| tasks.insert(usize::MAX)).collect();
            places.iter().for_each(|&key| *tasks.get_mut(key).expect("it is there") = key);
            places.sort_unstable();
            assert_eq!(places, gone);
        }
        assert_eq!(tasks.bound(), 5 * CHUNK);
        assert_eq!(tasks.insert(0), 5 * CHUNK);
    }

    #[test]
    fn a_small_list_is_small() {
        assert_eq!(Tasks::<usize>::new().bound(), 0);
        assert!(list(1).bound() <= 4);
        assert_eq!((list(CHUNK).bound(), list(CHUNK + 1).bound()), (CHUNK, 2 * CHUNK));
    }
}
