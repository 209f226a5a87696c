//! What is in the queue, and for how long.

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
    assert_eq!(tokio::spawn(timed(60).run(held)).await.unwrap().unwrap().unwrap(), Some(2), "it is a shield itself");
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
