//! The last rung: it needs no runtime, so it works with every worker stuck.

use std::sync::Arc;
use std::thread;

use super::exit;
use super::{Run, Shutdown, aside};
use crate::core::phase::Force;
use crate::dump::dump_of;
use crate::host::Node;
use crate::registry;
use crate::report::Event;
use crate::signal::Signal;

/// Ends the process when all of the budget is used up and some more, unless the run has ended by then. On a thread of its own, by
/// the clock on the wall: neither a stuck runtime nor a stuck hook nor a paused clock stops it.
pub(super) fn watch(shutdown: &Arc<Shutdown>) {
    let shutdown = Arc::clone(shutdown);
    let watching = thread::Builder::new().name("testudo-last-rung".into()).spawn(move || {
        if let (true, Some(run)) = (shutdown.clock.is_overdue(), shutdown.run.get()) {
            end_now(run, Force::Budget, None);
        }
    });
    // Without a thread there are still the presses.
    drop(watching);
}

/// Says what is cut off, and ends the process; but not that of a test.
#[expect(clippy::disallowed_methods, reason = "force means exactly this")]
pub(super) fn end_now(run: &Run, why: Force, signal: Option<Signal>) {
    aside::report(&run.root, forced(&run.root, why, signal));
    if let Some(hook) = run.on_force.clone() {
        aside::aside(move || (hook.0)());
    }
    if !run.is_test {
        std::process::exit(exit::forced(why, signal).into());
    }
}

/// What is to be said of it.
pub(super) fn forced(root: &Arc<Node>, why: Force, signal: Option<Signal>) -> Event {
    let why = match (why, signal) {
        (Force::Budget, _) => "out of time".into(),
        (Force::Press, Some(signal)) => signal.to_string(),
        (Force::Press, None) => "asked for by code".into(),
    };
    Event::Forced { why: why.into(), whom: registry::alive(root), dump: dump_of(root) }
}
