//! Deadlines: they fire whether or not anybody polls what they are for.

mod effective;
mod queue;
#[cfg(test)]
mod tests;

use std::panic::catch_unwind;
use std::pin::pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

pub(crate) use effective::check_current;
pub use effective::{EffectiveDeadline, current_deadline};
use futures_util::future::select;
use queue::Queue;
use tokio::sync::Notify;

use crate::clock::{self, Ticks};
use crate::core::cause::{Cause, CauseKind};
use crate::core::node::{BudKey, Kind};
use crate::core::parts::Parts;
use crate::host::{self, BudSeat, Host, Node, thread_number};
use crate::report::Event;
use crate::shield;

/// All deadlines of one runtime. One Tokio timer serves the earliest.
///
/// # Invariants
///
/// 1. The deadline of a node stands in the node; an entry only says when to look there. Both are changed under the lock of its part,
///    so whatever is in the tree has one entry, and what has ended has none (trio's T17: a toggled deadline leaks nothing). A bud has
///    one by its place from when it is planted on, unless one around it is cancelled no later by its own, and cancels it; its owner puts
///    one for the node there when it gets to know that, and what goes on without the one around gets it when it moves, or when that ends.
/// 2. A node is in the queue of the runtime that it lives on. One whose deadline is set while it moves between two of them may leave
///    an entry behind, which is harmless.
/// 3. The part of a node is told by its address, so that whoever sets its deadline finds it; that of a bud is the one of the thread that
///    planted it, so that threads with timeouts of their own neither wait for each other nor mix what comes in order.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    parts: Parts<Entries>,
    earlier: Notify,
    /// Set with the first deadline.
    has_timer: OnceLock<bool>,
}

#[derive(Debug, Default)]
struct Entries {
    by_time: Queue<Key, Weak<Node>>,
    /// When whoever keeps the deadlines looks here next, without being told; a deadline that goes does not change that.
    looks_at: Option<Ticks>,
}

/// When to look at which node, or at which bud of that.
type Key = (Ticks, usize, Option<BudKey>);

impl Entries {
    fn key(node: &Arc<Node>, at: Ticks) -> Key {
        (at, Arc::as_ptr(node).addr(), None)
    }

    /// True if whoever keeps the deadlines has to be told.
    fn insert(&mut self, key: Key, node: &Arc<Node>) -> bool {
        let at = key.0;
        self.by_time.insert(key, Arc::downgrade(node));
        let is_earlier = self.looks_at.is_none_or(|looks_at| at < looks_at);
        if is_earlier {
            self.looks_at = Some(at);
        }
        is_earlier
    }

    /// Moves what is due out of the queue, and says when to look here next. A time that was said before stays said: who comes later than
    /// that has not told anybody.
    fn take_due(&mut self, now: Ticks, due: &mut Vec<(Key, Weak<Node>)>) -> Option<Ticks> {
        let first_at = |queue: &Queue<Key, Weak<Node>>| queue.first_key().map(|(at, ..)| at);
        while first_at(&self.by_time).is_some_and(|at| at <= now) {
            due.extend(self.by_time.pop_first());
        }
        let said = self.looks_at.filter(|at| *at > now);
        self.looks_at = said.into_iter().chain(first_at(&self.by_time)).min();
        self.looks_at
    }

    fn remove(&mut self, node: &Arc<Node>, at: Option<Ticks>) {
        if let Some(at) = at {
            drop(self.by_time.remove(Self::key(node, at)));
        }
    }
}

impl Timers {
    /// The number of the part that has the entry of a node.
    fn part_of(node: &Arc<Node>) -> usize {
        // Nodes that were made one after the other lie side by side.
        Arc::as_ptr(node).addr() / size_of::<Node>()
    }

    /// Sets the deadline of `node`, and looks at it then.
    fn set(&self, node: &Arc<Node>, at: Option<Ticks>) {
        let mut queue = self.parts.lock(Self::part_of(node));
        queue.remove(node, node.deadline());
        node.set_deadline(at);
        let at = at.filter(|_| !node.has_ended());
        let is_earlier = at.is_some_and(|at| queue.insert(Entries::key(node, at), node));
        drop(queue);
        self.tell(is_earlier);
    }

    /// Looks at `node` at the deadline that it has.
    fn arm(&self, node: &Arc<Node>) {
        let mut queue = self.parts.lock(Self::part_of(node));
        let at = node.deadline().filter(|_| !node.has_ended());
        let is_earlier = at.is_some_and(|at| queue.insert(Entries::key(node, at), node));
        drop(queue);
        self.tell(is_earlier);
    }

    fn disarm(&self, node: &Arc<Node>) {
        self.parts.lock(Self::part_of(node)).remove(node, node.deadline());
    }

    fn tell(&self, is_earlier: bool) {
        if is_earlier {
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
        let (now, mut due) = (clock::now(), Vec::new());
        let next = self.parts.all().filter_map(|mut part| part.take_due(now, &mut due)).min();
        // In the order of time, whichever part they were in: what is further out and earlier is cancelled before what is inside.
        due.sort_unstable_by_key(|(key, _)| *key);
        for ((at, _, bud), node) in due {
            let node = node.upgrade().and_then(|node| bud.map_or(Some(Arc::clone(&node)), |bud| node.bud_due(bud, at)));
            node.into_iter().for_each(|node| check(&node, now));
        }
        next
    }
}

/// The entry of a bud, which has to go before the place of that, by which it is known.
#[derive(Clone, Copy)]
pub(crate) struct BudTimer {
    at: Ticks,
    part: u32,
}

impl BudTimer {
    /// Begins with the deadline of a bud that was planted just now.
    pub(crate) fn arm(bud: &BudSeat, at: Ticks) {
        if let Some(host) = bud.home().host() {
            let is_earlier = host.timers.parts.lock(thread_number() as usize).insert(Self::key(bud, at), bud.home());
            host.timers.tell(is_earlier);
        }
    }

    /// In the poll in which the bud was planted, for it is on the same thread.
    pub(crate) fn of(at: Ticks) -> Self {
        Self { at, part: thread_number() }
    }

    /// Ends with the deadline.
    pub(crate) fn disarm(self, bud: &BudSeat) {
        if let Some(host) = bud.home().host() {
            drop(host.timers.parts.lock(self.part as usize).by_time.remove(Self::key(bud, self.at)));
        }
    }

    fn key(bud: &BudSeat, at: Ticks) -> Key {
        (at, Arc::as_ptr(bud.home()).addr(), Some(bud.key()))
    }
}

/// Looks after the deadline of what was a bud until now.
pub(crate) fn keep(node: &Arc<Node>) {
    if node.deadline().is_some() {
        host_of(node).into_iter().for_each(|host| host.timers.arm(node));
    }
}

/// The same for what goes on without what was around it, and for all that is inside: as long as that would have been cancelled no later,
/// it had no entry, so its time may be over. What is in a nursery has always had one.
pub(crate) fn keep_all(node: &Arc<Node>) {
    if node.deadline().is_some() {
        begin(node, clock::now());
    }
    if node.owner.is_none() {
        node.inside().nodes.iter().for_each(keep_all);
    }
}

/// Cancels a node whose deadline has passed; not one that has ended in time (T8).
pub(crate) fn check(node: &Arc<Node>, now: Ticks) {
    if node.deadline().is_none_or(|at| at > now) || node.is_requested() || node.has_ended() {
        return;
    }
    if node.info.kind == Kind::Shield {
        shield::out_of_budget(node);
    } else {
        host::cancel(node, Cause::new(CauseKind::Deadline));
    }
}

/// Sets or moves the deadline of a node, and fires it at once if it has passed (T14). A node that is in no tree yet keeps it.
pub(crate) fn set(node: &Arc<Node>, at: Option<Ticks>) {
    // Who links the node meanwhile finds the deadline, or the second look finds the host.
    let linked = host_of(node).or_else(|| {
        node.set_deadline(at);
        host_of(node)
    });
    let Some(host) = linked else { return };
    let due = at.filter(|at| *at <= clock::now());
    if at.is_some() && due.is_none() {
        demand_timer(&host);
    }
    host.timers.set(node, at);
    due.into_iter().for_each(|at| check(node, at));
}

/// Begins with the deadline of a node that was linked just now, if it has one.
pub(crate) fn begin(node: &Arc<Node>, now: Ticks) {
    let Some(at) = node.deadline() else { return };
    if at <= now {
        return check(node, now);
    }
    keep(node);
}

/// Ends with the deadline of a node that has left the tree.
pub(crate) fn end(node: &Arc<Node>) {
    if node.deadline().is_some() {
        host_of(node).into_iter().for_each(|host| host.timers.disarm(node));
    }
}

/// The runtime that keeps the deadline of a node: that of the node around it.
fn host_of(node: &Arc<Node>) -> Option<Arc<Host>> {
    let outward = node.outward();
    outward.as_ref().and_then(|outward| outward.host()).or(node.host()).cloned()
}

/// # Panics
///
/// Outside of any runtime, and on one without a timer, nobody keeps deadlines.
pub(crate) fn demand_timer(host: &Host) {
    assert!(
        has_timer(host),
        "a deadline needs a Tokio runtime with its timer enabled (`enable_time`), and this future is polled on one without it, or outside of \
         any"
    );
}

/// True if somebody keeps deadlines on this runtime.
pub(crate) fn has_timer(host: &Host) -> bool {
    if let Some(known) = host.timers.has_timer.get() {
        return *known;
    }
    if tokio::runtime::Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed()) {
        // The thread is being torn down, and enters no runtime any more: the next one finds out.
        return true;
    }
    let has_timer = host.handle.as_ref().is_some_and(|handle| {
        let _inside = handle.enter();
        // A runtime does not say whether it has one, but Tokio panics if it has none, and the panic hook says why.
        catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_ok()
    });
    // Said once, with nothing held.
    if host.timers.has_timer.set(has_timer).is_ok() && !has_timer && host.handle.is_some() {
        host.report(Event::Warning("this runtime has no timer: no deadline passes on it, and no budget ends".into()));
    }
    has_timer
}

/// Takes the deadline of a node that has moved from one parent to another along: the first runtime may not be running any more. On the
/// same runtime, what has moved may have had no entry.
pub(crate) fn follow(node: &Arc<Node>, from: Option<&Arc<Node>>, to: &Arc<Node>) {
    let Some(host) = to.host() else { return };
    if from.and_then(|from| from.host()).is_some_and(|old| Arc::ptr_eq(old, host)) {
        if from.is_some_and(|from| !Arc::ptr_eq(from, to)) {
            // What was around it may have cancelled it, or what is inside, no later.
            keep_all(node);
        }
        return;
    }
    if node.deadline().is_some() {
        from.and_then(|from| from.host()).into_iter().for_each(|old| old.timers.disarm(node));
        host.timers.arm(node);
    }
}
