//! P8: deadlines that do not pass.

use std::future::{Future, ready};
use std::time::Duration;

use testudo::move_on_after;
use tokio::time::{Timeout, timeout};

use super::{OURS, eight, pass, turns, turns_by_two, turns_in_plain_tasks};
use crate::case::Case;

/// A deadline around what is ready at once.
pub const READY: &str = "deadline, ready";
/// A deadline around one suspension.
pub const YIELD: &str = "deadline, one yield";
/// The same in two threads at once.
pub const YIELD_BY_TWO: &str = "deadline, one yield, 2 threads";
/// The same in two plain tasks of the runtime.
pub const YIELD_IN_PLAIN: &str = "deadline, one yield, 2 plain tasks";
/// Eight of them.
pub const YIELD_8: &str = "8 deadlines, one yield";
/// Tokio's timeout.
pub const TIMEOUT: &str = "tokio timeout";

const LONG: Duration = Duration::from_secs(10);

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        turns(READY, OURS, |_| ours(ready(()))),
        turns(READY, TIMEOUT, |_| theirs(ready(()))),
        turns(YIELD, OURS, |_| ours(pass())),
        turns(YIELD, TIMEOUT, |_| theirs(pass())),
        turns_by_two(YIELD_BY_TWO, OURS, |_| ours(pass())),
        turns_by_two(YIELD_BY_TWO, TIMEOUT, |_| theirs(pass())),
        turns_in_plain_tasks(YIELD_IN_PLAIN, OURS, |_| ours(pass())),
        turns_in_plain_tasks(YIELD_IN_PLAIN, TIMEOUT, |_| theirs(pass())),
        turns(YIELD_8, OURS, |_| eight!(ours, pass())),
        turns(YIELD_8, TIMEOUT, |_| eight!(theirs, pass())),
    ]
}

fn ours<F: Future>(fut: F) -> impl Future<Output = Option<F::Output>> {
    move_on_after(LONG, fut)
}

fn theirs<F: Future>(fut: F) -> Timeout<F> {
    timeout(LONG, fut)
}
