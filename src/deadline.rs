//! Deadlines: they fire whether or not anybody polls what they are for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};

use futures_util::future::select;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::{self, Ticks};
use crate::core::cause::{Cause, CauseKind};
use crate::core::node::Kind;
use crate::current;
use crate::host::{self, Host, Node, lock};
use crate::shield;

/// All deadlines of one runtime. One Tokio timer serves the earliest.
///
/// # Invariants
///
/// 1. The deadline of a node stands in the node; an entry only says when to look there. So moving a deadline needs no search, and
///    entries of nodes that have ended or were moved are stale and harmless.
/// 2. Stale entries are thrown out when they are more than half of a thousand or more (trio's T17: a toggled deadline leaks nothing).
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: Mutex<Queue>,
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    /// Size at which stale entries are thrown out next.
    prune_at: usize,
}

#[derive(Debug)]
struct Entry {
    at: Ticks,
    node: Weak<Node>,
}

impl Queue {
    /// Throws stale entries out, and those that a deadline has left by coming back to the same time. The nodes that it looked at are given
    /// back, to be let go outside of the lock.
    fn prune(&mut self) -> Vec<Arc<Node>> {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        let mut seen = Vec::with_capacity(entries.len());
        entries.retain(|Reverse(entry)| {
            let Some(node) = entry.node.upgrade() else { return false };
            let keep = node.deadline() == Some(entry.at);
            seen.push(node);
            keep
        });
        entries.sort_unstable_by_key(|Reverse(entry)| entry.node.as_ptr());
        entries.dedup_by(|a, b| a.0.node.ptr_eq(&b.0.node));
        self.heap = entries.into();
        seen
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Timers {
    /// Looks at `node` at its deadline.
    pub(crate) fn arm(&self, node: &Arc<Node>, at: Ticks) {
        let mut queue = lock(&self.queue);
        let is_earliest = queue.heap.peek().is_none_or(|Reverse(first)| at < first.at);
        queue.heap.push(Reverse(Entry { at, node: Arc::downgrade(node) }));
        let mut seen = Vec::new();
        if queue.heap.len() > queue.prune_at.max(1000) {
            seen = queue.prune();
            queue.prune_at = 2 * queue.heap.len();
        }
        drop(queue);
        drop(seen);
        if is_earliest {
            self.earlier.notify_one();
        }
    }

    /// Fires deadlines for ever.
    pub(crate) async fn keep(&self) {
        loop {
            match self.fire() {
                None => self.earlier.notified().await,
                Some(next) => {
                    let sleep = pin!(tokio::time::sleep_until(clock::instant(next)));
                    let earlier = pin!(self.earlier.notified());
                    select(sleep, earlier).await;
                }
            }
        }
    }

    /// Cancels what is due and says when the next one is.
    fn fire(&self) -> Option<Ticks> {
        let now = clock::now();
        loop {
            let mut queue = lock(&self.queue);
            let next = queue.heap.peek()?.0.at;
            if next > now {
                return Some(next);
            }
            let due = queue.heap.pop();
            drop(queue);
            if let Some(node) = due.and_then(|Reverse(entry)| entry.node.upgrade()) {
                check(&node, now);
            }
        }
    }
}

/// Cancels a node whose deadline has passed; not one that has ended in time (T8).
pub(crate) fn check(node: &Arc<Node>, now: Ticks) {
    if node.deadline().is_none_or(|at| at > now) || node.is_requested() || has_ended(node) {
        return;
    }
    if node.info.kind == Kind::Shield {
        shield::out_of_budget(node);
    } else {
        host::cancel(node, Cause::new(CauseKind::Deadline));
    }
}

/// True if the future of `node` was entered and is over. Only a node that is entered just now, on another thread, can look so, too;
/// its deadline is looked at by whoever enters it.
fn has_ended(node: &Node) -> bool {
    node.parent().is_none() && node.outward().is_some()
}

/// Sets or moves the deadline of a node that has a host, and fires it at once if it has passed (T14).
pub(crate) fn set(node: &Arc<Node>, at: Option<Ticks>) {
    node.set_deadline(at);
    let (Some(at), Some(host)) = (at, node.host()) else { return };
    if at <= clock::now() {
        return check(node, at);
    }
    demand_timer(host);
    host.timers.arm(node, at);
}

/// # Panics
///
/// Outside of any runtime nobody keeps deadlines.
pub(crate) fn demand_timer(host: &Host) {
    assert!(
        host.handle.is_some(),
        "a deadline needs a Tokio runtime with its timer enabled, and this future is polled outside of any"
    );
}

/// Takes the deadline of a node that has moved from one parent to another along: the first runtime may not be running any more.
pub(crate) fn follow(node: &Arc<Node>, from: Option<&Arc<Node>>, to: &Node) {
    let Some(host) = to.host() else { return };
    if from.and_then(|from| from.host()).is_some_and(|old| Arc::ptr_eq(old, host)) {
        return;
    }
    if let Some(at) = node.deadline() {
        host.timers.arm(node, at);
    }
}

/// The time by which the code that asks will have been cancelled, as far as deadlines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectiveDeadline {
    /// No deadline applies.
    None,
    /// The earliest deadline that applies.
    At(Instant),
    /// It is cancelled already.
    Cancelled,
}

/// Returns the earliest deadline of the scopes around this code, up to and including the innermost shield.
///
/// To hand on to peers, as in a request's timeout header. "Already cancelled" and "none" are values of their own (trio's
/// `current_effective_deadline`).
pub fn current_deadline() -> EffectiveDeadline {
    let node = current::node();
    if node.is_cancelled() {
        return EffectiveDeadline::Cancelled;
    }
    match effective(&node) {
        None => EffectiveDeadline::None,
        Some(at) => EffectiveDeadline::At(clock::instant(at)),
    }
}

fn effective(node: &Arc<Node>) -> Option<Ticks> {
    visible(node).filter_map(|node| node.deadline()).min()
}

/// This node and those around it, up to and including the innermost shield that is not open here.
fn visible(node: &Arc<Node>) -> impl Iterator<Item = Arc<Node>> {
    let mut opened = None;
    std::iter::successors(Some(Arc::clone(node)), move |node| {
        if node.info.kind == Kind::Exposed {
            opened = node.outside().or(opened.take());
        }
        // The view from outside a shield is what is next around it.
        let is_open = |parent: &_| !node.is_shielded() || opened.as_ref().is_some_and(|open| Arc::ptr_eq(open, parent));
        node.parent().filter(is_open)
    })
}

/// Fires the deadlines around this code that have passed but were not looked at yet (T15).
pub(crate) fn check_current() {
    let node = current::node();
    if visible(&node).any(|node| node.deadline().is_some()) {
        let now = clock::now();
        visible(&node).for_each(|node| check(&node, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::node::{Info, Node as CoreNode};
    use std::panic::Location;

    #[test]
    fn deadline_that_is_toggled_leaks_nothing() {
        let timers = Timers::default();
        let node = CoreNode::unbound(Info::new(Kind::Scope, Location::caller(), 0), None, false);
        for _ in 0..2000 {
            for at in [98, 99] {
                node.set_deadline(Some(at));
                timers.arm(&node, at);
            }
        }
        assert!(lock(&timers.queue).heap.len() <= 1001);
    }
    #[test]
    fn deadlines_that_stand_are_looked_through_again_only_when_there_are_twice_as_many() {
        let timers = Timers::default();
        let node = || CoreNode::unbound(Info::new(Kind::Scope, Location::caller(), 0), None, false);
        let nodes: Vec<_> = std::iter::repeat_with(node).take(1100).collect();
        for node in &nodes {
            node.set_deadline(Some(99));
            timers.arm(node, 99);
        }
        let queue = lock(&timers.queue);
        assert_eq!((queue.heap.len(), queue.prune_at), (1100, 2 * 1001));
    }
}
