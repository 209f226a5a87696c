//! P1: spawn and join children that end at once.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
/// Children in the task of their parent.
pub const LOCAL: &str = "children in one task";
/// Tokio's join set.
pub const JOIN_SET: &str = "JoinSet";
/// `tokio_util`'s tracker.
pub const TRACKER: &str = "TaskTracker";

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        one_group(JOIN, OURS, ours),
        one_group(JOIN, JOIN_SET, join_set),
        one_group(JOIN, TRACKER, tracker),
        one_group(JOIN, BARE, countdown),
        groups_of(1, OF_ONE, OURS, ours),
        groups_of(1, OF_ONE, JOIN_SET, join_set),
        groups_of(4, OF_FOUR, OURS, ours),
        groups_of(4, OF_FOUR, JOIN_SET, join_set),
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

/// `n` groups, one after the other.
fn groups_of<F>(size: usize, work: &'static str, by: &'static str, group: fn(usize) -> F) -> Case
where
    F: Future<Output = ()> + Send + 'static,
{
    Case::task(work, by, move |n| async move {
        let laps = Laps::start();
        for _ in 0..n {
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
