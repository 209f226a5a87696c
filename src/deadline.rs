//! Deadlines: they fire whether or not anybody polls what they are for.

mod effective;
mod queue;

use std::pin::pin;
use std::sync::{Arc, Weak};

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
/// Outside of any runtime nobody keeps deadlines.
pub(crate) fn demand_timer(host: &Host) {
    assert!(
        host.handle.is_some(),
        "a deadline needs a Tokio runtime with its timer enabled, and this future is polled outside of any"
    );
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::node::{Info, Node as CoreNode};
    use crate::core::parts::PARTS;
    use crate::current;
    use crate::host::lock;
    use std::future::{Future, pending, poll_fn};
    use std::panic::Location;
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::task::{Poll, Wake, Waker};
    use std::time::Duration;

    impl Timers {
        fn len(&self) -> usize {
            self.parts.all().map(|part| part.by_time.len()).sum()
        }
    }

    #[test]
    fn deadline_that_is_toggled_leaks_nothing() {
        let timers = Timers::default();
        let node = CoreNode::unbound(Info::new(Kind::Scope, Location::caller(), 0), None, false);
        for _ in 0..2000 {
            for at in [98, 99] {
                timers.set(&node, Some(at));
            }
        }
        assert_eq!(timers.len(), 1);
    }

    #[test]
    fn what_is_due_at_once_is_cancelled_in_the_order_of_time() {
        let (timers, log) = (Timers::default(), Arc::default());
        let nodes: Vec<_> = (0..50)
            .map(|later| {
                let node = CoreNode::unbound(Info::new(Kind::Scope, Location::caller(), 0), None, false);
                timers.set(&node, Some(100 - later));
                assert!(node.listen(&Waker::from(Arc::new(Logs(100 - later, Arc::clone(&log)))), &mut None));
                node
            })
            .collect();
        assert_eq!(timers.fire(), None);
        assert!(nodes.iter().all(|node| node.is_requested()));
        assert!(lock(&log).is_sorted() && lock(&log).len() == 50, "{log:?}");
    }

    struct Logs(Ticks, Arc<Mutex<Vec<Ticks>>>);

    impl Wake for Logs {
        fn wake(self: Arc<Self>) {
            lock(&self.1).push(self.0);
        }
    }

    #[test]
    fn who_comes_later_than_what_was_said_tells_nobody_whatever_went_meanwhile() {
        let node = CoreNode::unbound(Info::new(Kind::Scope, Location::caller(), 0), None, false);
        let (timers, now) = (Timers::default(), clock::now());
        let second = |n: Ticks| now + n * 1_000_000_000_000;
        timers.set(&node, Some(second(1)));
        assert_eq!(timers.fire(), Some(second(1)));
        timers.set(&node, None);
        assert_eq!(timers.fire(), Some(second(1)), "it has gone, and what was said stays said");
        let mut part = timers.parts.lock(Timers::part_of(&node));
        assert!(!part.insert(Entries::key(&node, second(2)), &node));
        assert!(part.insert(Entries::key(&node, second(1) - 1), &node));
    }

    async fn is_pending(mut fut: Pin<&mut impl Future>) -> bool {
        poll_fn(|cx| Poll::Ready(fut.as_mut().poll(cx).is_pending())).await
    }

    fn count() -> Option<usize> {
        host::root().host().map(|host| host.timers.len())
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "nothing of ours is to be around it")]
    async fn deadline_of_what_waits_is_in_the_queue_until_that_ends_whoever_looks_into_it() {
        let wait = |looks: bool| async move {
            let mut side = Box::pin(crate::catch_cancelled(std::future::pending::<()>()));
            assert!(is_pending(side.as_mut()).await);
            let begun = count();
            if looks {
                drop(current::frame());
            }
            tokio::task::yield_now().await;
            (begun, count())
        };
        for looks in [false, true] {
            let run = crate::move_on_after(Duration::from_secs(60), wait(looks));
            assert_eq!(tokio::spawn(run).await.unwrap(), Some((Some(1), Some(1))), "{looks}");
            assert_eq!(count(), Some(0), "{looks}");
            let mut dropped = Box::pin(crate::move_on_after(Duration::from_secs(60), wait(looks)));
            assert!(tokio::spawn(async move { is_pending(dropped.as_mut()).await }).await.unwrap());
            assert_eq!(count(), Some(0), "{looks}");
        }
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "nothing of ours is to be around it")]
    async fn deadline_that_comes_after_one_around_it_has_no_entry_until_it_has_a_node() {
        let timed = |seconds| crate::CancelScope::new().timeout(Duration::from_secs(seconds));
        let nested = |shielded, inner, looks: bool| async move {
            let body = timed(inner).run(async move {
                tokio::task::yield_now().await;
                if looks {
                    drop(current::frame());
                    tokio::task::yield_now().await;
                }
                count()
            });
            let middle = crate::CancelScope::new().shielded(shielded).run(body);
            let counted = tokio::spawn(timed(60).run(middle)).await.unwrap().unwrap().unwrap().unwrap();
            assert_eq!(count(), Some(0), "{shielded} {inner} {looks}");
            counted
        };
        assert_eq!(nested(false, 61, false).await, Some(1));
        assert_eq!(nested(false, 59, false).await, Some(2));
        assert_eq!(nested(true, 61, false).await, Some(2), "the shield holds the other off");
        assert_eq!(nested(false, 61, true).await, Some(2), "each has a node, and an entry for that");
        let held = timed(61).shielded(true).run(async {
            tokio::task::yield_now().await;
            count()
        });
        assert_eq!(
            tokio::spawn(timed(60).run(held)).await.unwrap().unwrap().unwrap(),
            Some(2),
            "it is a shield itself"
        );
    }

    /// Each thread has a part of its own, until there are more of them than parts.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "nothing of ours is to be around it")]
    fn deadlines_that_threads_have_planted_fire_and_are_forgotten_on_another() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let mut runtime = builder.enable_time().start_paused(true).build().unwrap();
        let is_over = Arc::new(tokio::sync::Semaphore::new(0));
        let mut ends = Vec::new();
        for planted in 1..=PARTS + 2 {
            let is_over = Arc::clone(&is_over);
            let plant = async move {
                let ends = async move { drop(is_over.acquire().await) };
                let cut = tokio::spawn(crate::move_on_after(Duration::from_secs(60), std::future::pending()));
                let ended = tokio::spawn(crate::move_on_after(Duration::from_secs(3600), ends));
                tokio::task::yield_now().await;
                assert_eq!(count(), Some(2 * planted));
                [cut, ended]
            };
            let plants = std::thread::spawn(move || (runtime.block_on(plant), runtime));
            let (pair, back) = plants.join().unwrap();
            runtime = back;
            ends.push(pair);
        }
        runtime.block_on(async {
            tokio::time::sleep(Duration::from_secs(61)).await;
            assert_eq!(count(), Some(PARTS + 2));
            is_over.close();
            for [cut, ended] in ends {
                assert_eq!((cut.await.unwrap(), ended.await.unwrap()), (None, Some(())));
            }
            assert_eq!(count(), Some(0));
        });
    }

    /// The budget begins in the middle of a poll, by a cancel from elsewhere, and that poll is the last.
    #[tokio::test]
    async fn budget_that_begins_in_the_last_poll_of_what_waits_is_forgotten() {
        let outer = crate::CancelScope::new();
        let handle = outer.handle();
        let work = async move {
            tokio::task::yield_now().await;
            std::thread::spawn(move || handle.cancel("test")).join().unwrap_or_default();
            count()
        };
        let held = crate::shield(work).budget(Duration::from_secs(60));
        assert_eq!(outer.run(held).await.unwrap(), Some(1));
        assert_eq!(count(), Some(0));
    }

    /// Nobody polls it between the cancel and its drop.
    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "nothing of ours is to be around it")]
    async fn budget_that_has_begun_in_what_is_dropped_is_forgotten() {
        let outer = crate::CancelScope::new();
        let handle = outer.handle();
        let body = outer.run(async move {
            tokio::task::yield_now().await;
            let mut held = Box::pin(crate::shield_scoped(std::future::pending::<()>()).budget(Duration::from_secs(60)));
            assert!(is_pending(held.as_mut()).await);
            std::thread::spawn(move || handle.cancel("test")).join().unwrap_or_default();
            let begun = count();
            drop(held);
            (begun, count())
        });
        assert_eq!(tokio::spawn(body).await.unwrap().unwrap(), (Some(1), Some(0)));
    }

    #[tokio::test]
    async fn deadline_of_what_has_ended_is_forgotten() {
        let scope = crate::CancelScope::new().timeout(Duration::from_secs(60));
        let handle = scope.handle();
        let inside = scope.run(async {
            tokio::task::yield_now().await;
            count()
        });
        assert_eq!(inside.await.unwrap(), Some(1));
        assert_eq!(count(), Some(0));
        handle.set_deadline(handle.deadline());
        assert_eq!(count(), Some(0), "set after the end");
    }

    #[test]
    fn deadline_that_moves_to_another_runtime_leaves_nothing_in_the_first() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (first, second) = (runtime(), runtime());
        let mut moves = Box::pin(crate::CancelScope::new().timeout(Duration::from_secs(60)).run(pending::<()>()));
        first.block_on(async {
            assert!(is_pending(moves.as_mut()).await);
            assert_eq!(count(), Some(1));
        });
        second.block_on(async {
            assert!(is_pending(moves.as_mut()).await);
            assert_eq!(count(), Some(1));
        });
        first.block_on(async { assert_eq!(count(), Some(0)) });
    }
}
