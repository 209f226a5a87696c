//! P1: spawn and join children that end at once.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use testudo::{nursery, nursery_local};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::{BARE, OURS};
use crate::case::{Case, Laps};

/// Spawn and join `n` children of one group.
pub const JOIN: &str = "spawn and join";
/// The whole life of `n` groups of one.
pub const OF_ONE: &str = "nursery of 1";
/// The whole life of `n` groups of four.
pub const OF_FOUR: &str = "nursery of 4";
/// `n` children, a thousand to a group.
pub const OF_1000: &str = "nursery of 1,000";
/// `n` children of one group, spawned by two tasks at once.
pub const BY_TWO: &str = "2 producers";
/// Children in the task of their parent.
pub const LOCAL: &str = "children in one task";
/// Tokio's join set.
pub const JOIN_SET: &str = "JoinSet";
/// A join set that two tasks share.
pub const LOCKED_SET: &str = "JoinSet in a mutex";
/// `tokio_util`'s tracker.
pub const TRACKER: &str = "TaskTracker";

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        one_group(JOIN, OURS, ours),
        one_group(JOIN, JOIN_SET, join_set),
        one_group(JOIN, TRACKER, tracker),
        one_group(JOIN, BARE, countdown),
        groups_of([1, 1], OF_ONE, OURS, ours),
        groups_of([1, 1], OF_ONE, JOIN_SET, join_set),
        groups_of([4, 1], OF_FOUR, OURS, ours),
        groups_of([4, 1], OF_FOUR, JOIN_SET, join_set),
        groups_of([1000, 1000], OF_1000, OURS, ours),
        groups_of([1000, 1000], OF_1000, JOIN_SET, join_set),
        groups_of([1000, 1000], OF_1000, TRACKER, tracker),
        groups_of([1000, 1000], OF_1000, BARE, countdown),
        one_group(BY_TWO, OURS, ours_by_two),
        one_group(BY_TWO, LOCKED_SET, locked_set_by_two),
        Case::local(LOCAL, OURS, |n| async move {
            let laps = Laps::start();
            local(n).await;
            laps.end()
        }),
    ]
}

/// `n` children of one group.
fn one_group<F>(work: &'static str, by: &'static str, group: fn(usize) -> F) -> Case
where
    F: Future<Output = ()> + Send + 'static,
{
    Case::task(work, by, move |n| async move {
        let laps = Laps::start();
        group(n).await;
        laps.end()
    })
}

/// Groups of a size, one after the other; each counts for so many units.
fn groups_of<F>([size, units]: [usize; 2], work: &'static str, by: &'static str, group: fn(usize) -> F) -> Case
where
    F: Future<Output = ()> + Send + 'static,
{
    Case::task(work, by, move |n| async move {
        let laps = Laps::start();
        for _ in 0..n / units {
            group(size).await;
        }
        laps.end()
    })
}

async fn ours(n: usize) {
    let run = nursery(|nursery| async move {
        for _ in 0..n {
            nursery.spawn(async {});
        }
    });
    run.await.expect("no child fails");
}

async fn local(n: usize) {
    let run = nursery_local(|nursery| {
        for _ in 0..n {
            nursery.spawn(async {});
        }
        async {}
    });
    run.await.expect("no child fails");
}

async fn join_set(n: usize) {
    let mut set = JoinSet::new();
    for _ in 0..n {
        set.spawn(async {});
    }
    while set.join_next().await.is_some() {}
}

async fn tracker(n: usize) {
    let tracker = TaskTracker::new();
    for _ in 0..n {
        tracker.spawn(async {});
    }
    tracker.close();
    tracker.wait().await;
}

/// The least with the same effect: the last of the tasks wakes the one that waits.
async fn countdown(n: usize) {
    let group = Arc::new((AtomicUsize::new(n), Notify::new()));
    for _ in 0..n {
        let group = Arc::clone(&group);
        tokio::spawn(async move {
            if group.0.fetch_sub(1, Ordering::AcqRel) == 1 {
                group.1.notify_one();
            }
        });
    }
    group.1.notified().await;
}

async fn ours_by_two(n: usize) {
    let run = nursery(|nursery| async move {
        for _ in 0..2 {
            let owner = nursery.clone();
            nursery.spawn(async move {
                for _ in 0..n / 2 {
                    owner.spawn(async {});
                }
            });
        }
    });
    run.await.expect("no child fails");
}

async fn locked_set_by_two(n: usize) {
    let set = Arc::new(Mutex::new(JoinSet::new()));
    let producers = [Arc::clone(&set), Arc::clone(&set)].map(|set| {
        tokio::spawn(async move {
            for _ in 0..n / 2 {
                set.lock().expect("no workload panics").spawn(async {});
            }
        })
    });
    for producer in producers {
        producer.await.expect("no workload panics");
    }
    let mut set = std::mem::take(&mut *set.lock().expect("no workload panics"));
    while set.join_next().await.is_some() {}
}
