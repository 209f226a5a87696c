//! P7: a tree of groups, four to a group, cancelled at its root.

use futures::future::BoxFuture;
use testudo::nursery;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::OURS;
use super::storm::{CANCEL, SET_AND_CHILD_TOKENS, SET_UP, all_parked, cancel, end, park, until_cancelled};
use crate::case::{Case, Laps};

/// The largest full tree of at most `n` groups and leaves.
pub const TREE: &str = "tree of groups";

const FAN_OUT: usize = 4;

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![Case::task(TREE, OURS, ours), Case::task(TREE, SET_AND_CHILD_TOKENS, join_sets)]
}

/// How many levels there are below the root, and how many leaves.
fn shape(n: usize) -> (usize, usize) {
    let (mut levels, mut leaves, mut size) = (0, 1, 1);
    while size + leaves * FAN_OUT <= n {
        levels += 1;
        leaves *= FAN_OUT;
        size += leaves;
    }
    (levels, leaves)
}

async fn ours(n: usize) -> Laps {
    let (levels, leaves) = shape(n);
    let mut laps = Laps::start();
    let clock = &mut laps;
    let root = nursery(|nursery| async move {
        for _ in 0..FAN_OUT {
            nursery.spawn(our_branch(levels - 1));
        }
        all_parked(leaves).await;
        clock.lap(SET_UP);
        nursery.cancel("enough");
        clock.mark(CANCEL);
    });
    drop(root.await);
    end(laps)
}

fn our_branch(levels: usize) -> BoxFuture<'static, ()> {
    if levels == 0 {
        return Box::pin(park());
    }
    Box::pin(async move {
        let branch = nursery(|nursery| async move {
            for _ in 0..FAN_OUT {
                nursery.spawn(our_branch(levels - 1));
            }
        });
        drop(branch.await);
    })
}

async fn join_sets(n: usize) -> Laps {
    let (levels, leaves) = shape(n);
    let root = CancellationToken::new();
    let mut laps = Laps::start();
    let tree = tokio::spawn(their_branch(levels, root.clone()));
    cancel(&root, leaves, &mut laps).await;
    tree.await.expect("no workload panics");
    end(laps)
}

fn their_branch(levels: usize, token: CancellationToken) -> BoxFuture<'static, ()> {
    if levels == 0 {
        return Box::pin(until_cancelled(token));
    }
    Box::pin(async move {
        let mut set = JoinSet::new();
        for _ in 0..FAN_OUT {
            set.spawn(their_branch(levels - 1, token.child_token()));
        }
        while set.join_next().await.is_some() {}
    })
}
