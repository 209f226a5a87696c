//! The workloads, a file for each group of the table in `docs/benchmarks.md`.

pub mod deadline;
pub mod scope;
pub mod server;
pub mod shield;
pub mod spawn;
pub mod storm;
pub mod tree;

use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::task::Poll;

use testudo::{CancelScope, nursery};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::case::{Case, Laps};

/// The library itself, as the doer of a work.
pub const OURS: &str = "testudo";
/// The same without anybody's help.
pub const BARE: &str = "bare";

/// Every case.
pub fn all() -> Vec<Case> {
    [spawn::cases(), storm::cases(), tree::cases(), scope::cases(), shield::cases(), deadline::cases(), server::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Wraps a future eight times.
macro_rules! eight {
    ($wrap:path, $fut:expr) => {
        $wrap($wrap($wrap($wrap($wrap($wrap($wrap($wrap($fut))))))))
    };
}
use eight;

/// A loop that makes and awaits a future in each turn; ours inside of a scope, as theirs may be inside of a token.
fn turns<F>(work: &'static str, by: &'static str, make: fn(&CancellationToken) -> F) -> Case
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    Case::task(work, by, move |n| async move {
        let token = CancellationToken::new();
        let laps = Laps::start();
        let body = turn(n, token, make);
        if by == OURS {
            CancelScope::new().run(body).await.expect("nobody cancels");
        } else {
            body.await;
        }
        laps.end()
    })
}

/// The same in two tasks at once, below one parent, each on a worker of its own.
fn turns_by_two<F>(work: &'static str, by: &'static str, make: fn(&CancellationToken) -> F) -> Case
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    by_two(work, by, by == OURS, make)
}

/// The same in tasks of the runtime, with nothing of ours around them: where a program begins that takes us up.
fn turns_in_plain_tasks<F>(work: &'static str, by: &'static str, make: fn(&CancellationToken) -> F) -> Case
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    by_two(work, by, false, make)
}

fn by_two<F>(work: &'static str, by: &'static str, in_nursery: bool, make: fn(&CancellationToken) -> F) -> Case
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    Case::task(work, by, move |n| async move {
        let token = CancellationToken::new();
        // A task that waits and is woken by the other would run on the worker of that, after it.
        let start = Arc::new(Barrier::new(2));
        let bodies = [token.clone(), token].map(|token| {
            let start = Arc::clone(&start);
            async move {
                start.wait();
                turn(n, token, make).await;
            }
        });
        let laps = Laps::start();
        if in_nursery {
            let run = nursery(|nursery| async move { bodies.into_iter().for_each(|body| drop(nursery.spawn(body))) });
            run.await.expect("no child fails");
        } else {
            let mut set: JoinSet<()> = bodies.into_iter().collect();
            while set.join_next().await.is_some() {}
        }
        laps.end()
    })
}

async fn turn<F: Future>(n: usize, token: CancellationToken, make: fn(&CancellationToken) -> F) {
    for _ in 0..n {
        black_box(make(black_box(&token)).await);
    }
}

/// One suspension, and nothing else: Tokio's `yield_now` also has the runtime look at its timers and sockets.
async fn pass() {
    let mut passed = false;
    let once = poll_fn(|cx| {
        if passed {
            return Poll::Ready(());
        }
        passed = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    once.await;
}
