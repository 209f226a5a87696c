//! Who has to look again after a change of flags, and waking them.

use std::task::Waker;

use super::Node;
use crate::core::sync::Arc;

/// The nodes that a change has reached, the outermost first. Whoever drops it wakes what is left of it, innermost nodes first:
/// unwinding begins there.
pub(crate) struct Crowd<H> {
    nodes: Vec<Arc<Node<H>>>,
    /// How many tasks wait in them.
    tasks: usize,
    /// The key of the next task of the innermost node.
    next: usize,
    wakers: Vec<Waker>,
}

impl<H> Crowd<H> {
    const BATCH: usize = 256;

    pub(super) fn of(first: &Arc<Node<H>>) -> Self {
        Self { nodes: vec![Arc::clone(first)], tasks: 0, next: 0, wakers: Vec::new() }
    }

    /// Gives the place of the node.
    pub(super) fn push(&mut self, node: Arc<Node<H>>) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    pub(super) fn node(&self, place: usize) -> &Arc<Node<H>> {
        &self.nodes[place]
    }

    pub(super) fn count(&mut self, tasks: usize) {
        self.tasks += tasks;
    }

    /// How many tasks wait in it, as far as is known; those that a shield covers may be among them.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks
    }

    /// Wakes a batch, in the order in which they came (that of allocation, which the heap likes). False when nobody is left.
    pub(crate) fn wake_some(&mut self) -> bool {
        let Some(node) = self.nodes.last() else { return false };
        let mut tree = node.tree.lock();
        if self.next == 0 {
            let listeners = tree.listeners.iter_mut().flat_map(|listeners| listeners.iter_mut());
            self.wakers.extend(listeners.filter_map(|(_, waker)| waker.take()));
            self.wakers.extend(tree.region.iter().filter_map(|frame| frame.take_waker()));
        }
        let end = tree.tasks.bound().min(self.next + Self::BATCH);
        let for_good = node.is_cancelled_for_good();
        self.wakers.extend((self.next..end).filter_map(|key| tree.tasks.get_mut(key)?.waker(for_good)));
        let is_done = end >= tree.tasks.bound();
        drop(tree);
        self.next = if is_done { 0 } else { end };
        let done = if is_done { self.nodes.pop() } else { None };
        self.wakers.drain(..).for_each(Waker::wake);
        drop(done);
        !self.nodes.is_empty()
    }
}

impl<H> Drop for Crowd<H> {
    fn drop(&mut self) {
        while self.wake_some() {}
    }
}
