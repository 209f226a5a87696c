//! What a nursery or a run gave, in short, and a few shapes that many origins share.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use testudo::{Failed, Finished, NurseryError, Runner, TaskOutput, catch_cancelled, checkpoint};

use crate::support::{Heard, Log};

/// How a nursery with such errors ends.
pub(crate) type End<T = ()> = Result<T, NurseryError<&'static str>>;

/// All errors of a nursery, sorted.
#[track_caller]
pub(crate) fn errors<T: Debug>(end: End<T>) -> Vec<&'static str> {
    let failures = match end {
        Err(NurseryError::Failed(failures)) => failures,
        other => panic!("no failures but {other:?}"),
    };
    let text = |what: &Failed<&'static str>| match what {
        Failed::Error(error) => **error,
        Failed::Panic(_) => "panic",
    };
    let mut all: Vec<_> = failures.iter().map(|failure| text(failure.what())).collect();
    all.sort_unstable();
    all
}

/// What a run of such a main gives.
type FinishedBy<F> =
    Finished<<<F as Future>::Output as TaskOutput>::Value, <<F as Future>::Output as TaskOutput>::Error>;

/// A run without signals and without a word.
pub(crate) fn run_quietly<F: Future<Output: TaskOutput>>(main: F) -> FinishedBy<F> {
    Runner::new().current_thread().signals(false).reporter(None).run(main)
}

/// The same, and what was reported in it.
pub(crate) fn run_heard<F: Future<Output: TaskOutput>>(main: F) -> (FinishedBy<F>, Vec<String>) {
    let heard = Heard::default();
    let finished = Runner::new().current_thread().signals(false).reporter(heard.reporter()).run(main);
    (finished, crate::support::said(&heard.events()))
}

/// The message with which `call` panics.
#[track_caller]
pub(crate) fn panic_of<T>(call: impl FnOnce() -> T) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(call)) else { panic!("it did not panic") };
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).expect("a text")
}

/// Python's `try: await fut; except Cancelled: note; raise`.
pub(crate) async fn note_cancel<F: Future>(log: Log, what: &'static str, fut: F) {
    if catch_cancelled(fut).await.is_err() {
        log.push(what);
        checkpoint().await;
        log.push("too far");
    }
}

/// The text of the first error that a nursery gave.
pub(crate) fn first_text<T, E: Display>(end: Result<T, NurseryError<E>>) -> String {
    end.err().map(|error| error.to_string()).unwrap_or_default()
}
