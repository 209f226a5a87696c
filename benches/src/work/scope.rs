//! P4 and P5: what a scope costs those that are inside it, look at it, or make one.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn, ready};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::thread;

use testudo::{CancelScope, Cancelled};
use tokio_util::sync::CancellationToken;

use super::{BARE, OURS, eight, pass, turns, turns_by_two};
use crate::case::{Case, Laps};

/// A poll of a future that is inside one scope.
pub const POLL: &str = "poll through a scope";
/// A poll of a future that is inside eight.
pub const POLL_8: &str = "poll through 8 scopes";
/// A scope that is opened and closed around one suspension.
pub const TURN: &str = "scope around a yield";
/// The same in two threads at once, below one parent.
pub const TURN_BY_TWO: &str = "scope around a yield, 2 threads";
/// One suspension, alone.
pub const YIELD: &str = "yield";
/// The same in two threads at once.
pub const YIELD_BY_TWO: &str = "yield, 2 threads";
/// A look at the flag.
pub const LOOK: &str = "is_cancelled()";
/// The same in two threads at once, at one flag.
pub const LOOK_BY_TWO: &str = "is_cancelled(), 2 threads";
/// A scope inside a scope, for nothing.
pub const CHILD: &str = "child scope and drop";
/// The same in two threads at once, below one parent.
pub const CHILD_BY_TWO: &str = "child scope and drop, 2 threads";
/// A clone of a handle and its drop.
pub const CLONE: &str = "clone of a handle";
/// `tokio_util`'s token.
pub const TOKEN: &str = "CancellationToken";

/// A number in a thread-local for the time of the poll, a look at a flag, and panics caught.
const LEAST: &str = "the least";

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        polls(POLL, OURS, || scope(pending::<()>())),
        polls(POLL, TOKEN, || until(pending::<()>())),
        polls(POLL, LEAST, || least(pending::<()>())),
        polls(POLL, BARE, pending::<()>),
        polls(POLL_8, OURS, || eight!(scope, pending::<()>())),
        polls(POLL_8, TOKEN, || eight!(until, pending::<()>())),
        polls(POLL_8, LEAST, || eight!(least, pending::<()>())),
        turns(TURN, OURS, |_| scope(pass())),
        turns(TURN, TOKEN, |token| token.child_token().run_until_cancelled_owned(pass())),
        turns(YIELD, BARE, |_| pass()),
        turns_by_two(TURN_BY_TWO, OURS, |_| scope(pass())),
        turns_by_two(TURN_BY_TWO, TOKEN, |token| token.child_token().run_until_cancelled_owned(pass())),
        turns_by_two(YIELD_BY_TWO, BARE, |_| pass()),
        looks(LOOK, 1, OURS, our_look),
        looks(LOOK, 1, TOKEN, their_look),
        looks(LOOK, 1, BARE, || || black_box(false)),
        looks(LOOK_BY_TWO, 2, OURS, our_look),
        looks(LOOK_BY_TWO, 2, TOKEN, their_look),
        turns(CHILD, OURS, |_| scope(ready(()))),
        turns(CHILD, TOKEN, |token| ready(token.child_token())),
        turns_by_two(CHILD_BY_TWO, OURS, |_| scope(ready(()))),
        turns_by_two(CHILD_BY_TWO, TOKEN, |token| ready(token.child_token())),
        clones(OURS, || CancelScope::new().handle()),
        clones(TOKEN, CancellationToken::new),
    ]
}

fn scope<F: Future>(fut: F) -> impl Future<Output = Result<F::Output, Cancelled>> {
    CancelScope::new().run(fut)
}

fn until<F: Future>(fut: F) -> impl Future<Output = Option<F::Output>> {
    CancellationToken::new().run_until_cancelled_owned(fut)
}

thread_local! { static INSIDE: Cell<usize> = const { Cell::new(0) } }

/// What a poll has to do at least, in safe code, so that what is inside finds its scope and a panic leaves none behind.
async fn least<F: Future>(fut: F) -> F::Output {
    let is_cancelled = AtomicBool::new(false);
    let mut fut = pin!(fut);
    let steps = poll_fn(|cx| {
        assert!(!black_box(&is_cancelled).load(Ordering::Relaxed), "nobody cancels");
        let before = INSIDE.replace(black_box(1));
        let poll = catch_unwind(AssertUnwindSafe(|| fut.as_mut().poll(cx)));
        INSIDE.set(before);
        poll.unwrap_or_else(|payload| resume_unwind(payload))
    });
    steps.await
}

/// Polls by hand, so that only the way through is seen, and not the runtime.
fn polls<F: Future + 'static>(work: &'static str, by: &'static str, make: fn() -> F) -> Case {
    Case::local(work, by, move |n| async move {
        let mut fut = pin!(make());
        let mut cx = Context::from_waker(Waker::noop());
        let laps = Laps::start();
        for _ in 0..n {
            assert!(black_box(fut.as_mut()).poll(&mut cx).is_pending(), "it waits for ever");
        }
        laps.end()
    })
}

fn our_look() -> impl Fn() -> bool + Sync {
    let scope = CancelScope::new().handle();
    move || scope.is_cancelled()
}

fn their_look() -> impl Fn() -> bool + Sync {
    let token = CancellationToken::new();
    move || token.is_cancelled()
}

/// The same look by some threads at once.
fn looks<L>(work: &'static str, threads: usize, by: &'static str, make: fn() -> L) -> Case
where
    L: Fn() -> bool + Sync + 'static,
{
    // The looks are loads that the compiler does not leave out; nothing else is in the loop.
    let times = |n: usize, look: &L| assert!(!black_box((0..n).fold(false, |any, _| any | look())), "nobody cancels");
    Case::local(work, by, move |n| async move {
        let look = make();
        let laps = Laps::start();
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| times(n, &look));
            }
            times(n, &look);
        });
        laps.end()
    })
}

fn clones<T: Clone + 'static>(by: &'static str, make: fn() -> T) -> Case {
    Case::local(CLONE, by, move |n| async move {
        let handle = make();
        let laps = Laps::start();
        for _ in 0..n {
            drop(black_box(black_box(&handle).clone()));
        }
        laps.end()
    })
}
