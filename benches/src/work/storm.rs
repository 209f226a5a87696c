//! P2: cancel children that are parked, until the last of them has ended.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use testudo::{all_tasks, nursery};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{OURS, pass};
use crate::case::{Case, Laps};

/// Park, cancel and end `n` children.
pub const STORM: &str = "life of a parked child";
/// A join set and a child token for each task, which is the job that a nursery really does.
pub const SET_AND_CHILD_TOKENS: &str = "JoinSet + child token";
/// A tracker and one token for all.
pub const TRACKER_AND_TOKEN: &str = "TaskTracker + token";

/// A look at `n` parked children: all of them, and each of them as text.
pub const LIST: &str = "all_tasks()";

/// The part in which the children begin and park.
pub const SET_UP: &str = "set-up";
/// The part of the call that cancels.
pub const CANCEL: &str = "cancel()";
/// The part from that call until the last child has ended.
pub const END: &str = "storm";

/// The part in which each task is made text.
pub const DUMP: &str = "as text";

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::task(STORM, OURS, ours),
        Case::task(STORM, SET_AND_CHILD_TOKENS, join_set_with_child_tokens),
        Case::task(STORM, TRACKER_AND_TOKEN, tracker_with_token),
        Case::task(LIST, OURS, list),
    ]
}

/// How many children wait. Not a part of the children, so that it does not make them bigger.
static PARKED: AtomicUsize = AtomicUsize::new(0);

/// A child that waits for ever once it has been polled.
pub async fn park() {
    PARKED.fetch_add(1, Ordering::Relaxed);
    pending().await
}

/// Waits until `n` children are parked, and forgets them.
pub async fn all_parked(n: usize) {
    while PARKED.load(Ordering::Relaxed) < n {
        pass().await;
    }
    PARKED.store(0, Ordering::Relaxed);
}

async fn ours(n: usize) -> Laps {
    let mut laps = Laps::start();
    let clock = &mut laps;
    let run = nursery(|nursery| async move {
        for _ in 0..n {
            nursery.spawn(park());
        }
        all_parked(n).await;
        clock.lap(SET_UP);
        nursery.cancel("enough");
        clock.mark(CANCEL);
    });
    drop(run.await);
    end(laps)
}

async fn list(n: usize) -> Laps {
    let mut laps = Laps::start();
    let clock = &mut laps;
    let run = nursery(|nursery| async move {
        for _ in 0..n {
            nursery.spawn(park());
        }
        all_parked(n).await;
        clock.lap(SET_UP);
        let tasks = all_tasks();
        clock.lap(LIST);
        let text: usize = tasks.iter().map(|task| format!("{task} {} {:?}", task.place(), task.age()).len()).sum();
        assert!(text > n, "each task has a text");
        clock.mark(DUMP);
        nursery.cancel("enough");
    });
    drop(run.await);
    laps
}

async fn join_set_with_child_tokens(n: usize) -> Laps {
    let mut set = JoinSet::new();
    let token = CancellationToken::new();
    let mut laps = Laps::start();
    for _ in 0..n {
        set.spawn(until_cancelled(token.child_token()));
    }
    cancel(&token, n, &mut laps).await;
    while set.join_next().await.is_some() {}
    end(laps)
}

async fn tracker_with_token(n: usize) -> Laps {
    let tracker = TaskTracker::new();
    let token = CancellationToken::new();
    let mut laps = Laps::start();
    for _ in 0..n {
        tracker.spawn(until_cancelled(token.clone()));
    }
    tracker.close();
    cancel(&token, n, &mut laps).await;
    tracker.wait().await;
    end(laps)
}

/// A child that waits for a token.
pub async fn until_cancelled(token: CancellationToken) {
    token.run_until_cancelled(park()).await;
}

/// Cancels once `n` children are parked.
pub async fn cancel(token: &CancellationToken, n: usize, laps: &mut Laps) {
    all_parked(n).await;
    laps.lap(SET_UP);
    token.cancel();
    laps.mark(CANCEL);
}

/// Records the part from the cancel until now.
pub fn end(mut laps: Laps) -> Laps {
    laps.mark(END);
    laps
}
