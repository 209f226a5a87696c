//! The count of what an owner still has to wait for.

use std::task::{Context, Poll, Waker};

use super::sabotage::{self, Bug};
use super::sync::{AtomicUsize, Mutex, Ordering};

/// How many parts of an owner are still alive: itself (or its body), its children, and what it has adopted.
///
/// # Invariants
///
/// 1. The count begins at one, for the owner itself. Zero is final: whoever finds zero is refused. So "closed" is not a flag of
///    its own, and a spawn before the close wins, one after it is refused, with nothing in between (S29).
/// 2. Daemons are counted beside, and do not keep the owner open.
/// 3. Whoever brings the count, daemons aside, to `idle` or below wakes all that wait, after its last look at the count. That somebody does
///    is a mark in the count, put there in one step with the last look of who waits: so a release sees the mark, or is seen.
/// 4. The mark is there as long as wakers are, and after the end; both change under their lock.
#[derive(Debug)]
pub(crate) struct Live {
    /// `regular + DAEMON * daemons`, and `WAITED` if somebody waits.
    count: AtomicUsize,
    /// 0 for a nursery, which ends with its last part; 1 for a root, which stays open until it is closed.
    idle: usize,
    joiners: Mutex<Joiners>,
}

/// Who waits. Nearly always one does, so the first takes no allocation.
#[derive(Debug, Default)]
struct Joiners {
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl Joiners {
    /// Gives the waker back if it is known: it is not dropped under the lock.
    fn add(&mut self, waker: Waker) -> Option<Waker> {
        let Some(first) = &self.first else { return self.first.replace(waker) };
        if first.will_wake(&waker) || self.others.iter().any(|known| known.will_wake(&waker)) {
            return Some(waker);
        }
        self.others.push(waker);
        None
    }
}

const DAEMON: usize = 1 << (usize::BITS / 2);
const REGULAR: usize = DAEMON - 1;
const WAITED: usize = 1 << (usize::BITS - 1);

/// What a part counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Keeps its owner open.
    Regular,
    /// Is cancelled when nothing else is left.
    Daemon,
}

impl Weight {
    fn unit(self) -> usize {
        match self {
            Self::Regular => 1,
            Self::Daemon => DAEMON,
        }
    }
}

impl Live {
    /// A count for an owner that ends with its last part.
    pub(crate) fn new() -> Self {
        Self { count: AtomicUsize::new(1), idle: 0, joiners: Mutex::default() }
    }

    /// A count for an owner that stays open until [`close_if_idle`](Self::close_if_idle).
    pub(crate) fn new_root() -> Self {
        Self { idle: 1, ..Self::new() }
    }

    /// Counts one more part in, unless the owner is closed.
    pub(crate) fn try_acquire(&self, weight: Weight) -> bool {
        let mut seen = self.count.load(Ordering::Relaxed);
        while seen & REGULAR != 0 {
            let next = seen + if sabotage::has(Bug::UncountedChild) { 0 } else { weight.unit() };
            match self.count.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Counts in what the owner has to wait for though it is no child: rescued or adopted work. An owner that has only daemons left
    /// is closed to children but has not ended, and what comes from those daemons counts as they do.
    pub(crate) fn try_adopt(&self) -> Option<Weight> {
        let mut seen = self.count.load(Ordering::Relaxed);
        while seen & !WAITED != 0 {
            let weight = if seen & REGULAR == 0 { Weight::Daemon } else { Weight::Regular };
            match self.count.compare_exchange_weak(seen, seen + weight.unit(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(weight),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Counts one part out. True for the one release that leaves daemons only: it has to cancel them.
    #[must_use]
    pub(crate) fn release(&self, weight: Weight) -> bool {
        let now = self.count.fetch_sub(weight.unit(), Ordering::AcqRel) - weight.unit();
        if now & REGULAR > self.idle {
            return false;
        }
        if now & WAITED != 0 {
            self.wake(now & !WAITED == 0);
        }
        weight == Weight::Regular && now & REGULAR == 0 && now & !WAITED != 0
    }

    /// At the end the mark stays: nobody is counted out after that.
    fn wake(&self, at_end: bool) {
        let mut joiners = self.joiners.lock();
        if !at_end {
            self.count.fetch_and(!WAITED, Ordering::AcqRel);
        }
        let Joiners { first, others } = std::mem::take(&mut *joiners);
        drop(joiners);
        first.into_iter().chain(others).for_each(Waker::wake);
    }

    /// Closes a root that has nothing left but itself.
    #[cfg(any(feature = "signal", test))]
    pub(crate) fn close_if_idle(&self) -> bool {
        let mut seen = self.count.load(Ordering::Acquire);
        while seen & !WAITED == 1 {
            match self.count.compare_exchange_weak(seen, seen & WAITED, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// True once nothing more is taken in.
    #[cfg(all(test, testudo_loom))]
    pub(crate) fn is_closed(&self) -> bool {
        self.count.load(Ordering::Acquire) & REGULAR == 0
    }

    /// Returns how many parts are alive, daemons and the owner itself included.
    pub(crate) fn len(&self) -> usize {
        let count = self.count.load(Ordering::Acquire) & !WAITED;
        (count & REGULAR) + count / DAEMON
    }

    /// Waits until no more than `idle` is left.
    pub(crate) fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_until(cx, |count| count <= self.idle)
    }

    /// Waits until no more than `idle` is left besides daemons.
    #[cfg_attr(
        not(feature = "signal"),
        allow(dead_code, reason = "only a runner waits for tasks that it does not cancel")
    )]
    pub(crate) fn poll_daemons_only(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_until(cx, |count| count & REGULAR <= self.idle)
    }

    fn poll_until(&self, cx: &mut Context<'_>, is_over: impl Fn(usize) -> bool) -> Poll<()> {
        if is_over(self.count.load(Ordering::Acquire) & !WAITED) {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        let mut joiners = self.joiners.lock();
        let known = joiners.add(waker);
        let count = self.count.fetch_or(WAITED, Ordering::AcqRel) & !WAITED;
        drop(joiners);
        drop(known);
        let is_over = !sabotage::has(Bug::UnseenRelease) && is_over(count);
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(all(test, not(testudo_loom)))]
mod tests {
    use std::task::Wake;

    use super::super::sync::Arc;
    use super::*;

    #[test]
    fn zero_is_final() {
        let live = Live::new();
        assert!(live.try_acquire(Weight::Regular));
        assert!(!live.release(Weight::Regular));
        assert!(!live.release(Weight::Regular));
        assert!(!live.try_acquire(Weight::Regular));
    }

    #[test]
    fn daemons_do_not_keep_their_owner_open() {
        let live = Live::new();
        assert!(live.try_acquire(Weight::Daemon));
        assert!(live.try_acquire(Weight::Daemon));
        assert!(!live.release(Weight::Daemon), "the body is still there");
        assert!(live.release(Weight::Regular), "now only a daemon is left");
        assert!(!live.try_acquire(Weight::Daemon), "closed");
        assert_eq!(live.len(), 1);
        assert!(!live.release(Weight::Daemon));
    }

    #[test]
    fn who_waits_for_all_but_daemons_does_not_wait_for_them() {
        let cx = &mut Context::from_waker(Waker::noop());
        let live = Live::new_root();
        assert!(live.try_acquire(Weight::Daemon) && live.try_acquire(Weight::Regular));
        assert!(live.poll_daemons_only(cx).is_pending());
        assert!(!live.release(Weight::Regular));
        assert!(live.joiners.lock().first.is_none(), "woken");
        assert!(live.poll_daemons_only(cx).is_ready() && live.poll_idle(cx).is_pending());
    }

    #[test]
    fn a_root_that_is_left_with_daemons_has_to_cancel_them() {
        let live = Live::new_root();
        assert!(live.try_acquire(Weight::Daemon));
        assert!(live.release(Weight::Regular));
    }

    #[test]
    fn who_waits_is_woken_by_the_last_and_no_earlier() {
        let cx = &mut Context::from_waker(Waker::noop());
        let live = Live::new();
        assert!(live.try_acquire(Weight::Regular) && live.poll_idle(cx).is_pending());
        assert!(!live.release(Weight::Regular));
        assert!(live.joiners.lock().first.is_some());
        assert!(!live.release(Weight::Regular));
        assert!(live.joiners.lock().first.is_none() && live.poll_idle(cx).is_ready());
        assert_eq!((live.len(), live.close_if_idle()), (0, false));
    }

    #[test]
    fn the_mark_of_those_that_wait_goes_with_them_but_for_the_end() {
        let cx = &mut Context::from_waker(Waker::noop());
        let is_marked = |live: &Live| live.count.load(Ordering::Acquire) & WAITED != 0;
        for (live, stays) in [(Live::new_root(), false), (Live::new(), true)] {
            assert!(live.try_acquire(Weight::Regular) && live.poll_idle(cx).is_pending() && is_marked(&live));
            assert!(!live.release(Weight::Regular));
            assert_eq!(is_marked(&live), stays, "a nursery has one part more, and still waits");
            if stays {
                assert!(!live.release(Weight::Regular) && is_marked(&live) && live.poll_idle(cx).is_ready());
            }
        }
    }

    #[test]
    fn who_looks_again_waits_once() {
        let live = Live::new();
        let (one, two) = (Arc::new(Silent), Arc::new(Silent));
        for waker in [&one, &two, &one, &two].map(|silent| Waker::from(Arc::clone(silent))) {
            assert!(live.poll_idle(&mut Context::from_waker(&waker)).is_pending());
        }
        let joiners = live.joiners.lock();
        assert_eq!((joiners.first.is_some(), joiners.others.len()), (true, 1));
    }

    struct Silent;

    impl Wake for Silent {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_root_closes_only_when_it_is_idle() {
        let live = Live::new_root();
        assert!(live.try_acquire(Weight::Regular));
        assert!(!live.close_if_idle());
        assert!(!live.release(Weight::Regular));
        assert!(live.close_if_idle());
        assert!(!live.try_acquire(Weight::Regular));
    }
}
