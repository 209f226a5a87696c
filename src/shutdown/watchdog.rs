//! The clock on the wall behind a shutdown: it ends what the timers of the runtime do not end, the process at last.

use std::sync::Arc;
use std::thread;

use super::aside::{self, aside};
use super::clock::Alarm;
use super::exit;
use super::{Run, Shutdown};
use crate::core::phase::{Event as Happened, Force};
use crate::dump::dump_of;
use crate::host::Node;
use crate::registry;
use crate::report::Event;
use crate::signal::Signal;

/// Ends the process when all of the budget is used up and some more, unless the run has ended by then; and before that each phase whose
/// time is up, if the timers do not: what a worker has woken before it got stuck, no other worker takes from it. On a thread of its
/// own, by the clock on the wall: neither a stuck runtime nor a stuck hook nor a paused clock stops it.
pub(super) fn watch(shutdown: &Arc<Shutdown>) {
    let shutdown = Arc::clone(shutdown);
    let watching = thread::Builder::new().name("testudo-last-rung".into()).spawn(move || {
        let Some(run) = shutdown.run.get() else { return };
        let mut told = None;
        loop {
            match shutdown.clock.alarm(told) {
                Alarm::Ended => return,
                Alarm::Overdue => return end_now(run, Force::Budget, None),
                Alarm::Late(phase) => {
                    told = Some(phase);
                    let shutdown = Arc::clone(&shutdown);
                    // It wakes wakers, which may be the program's own.
                    aside(move || shutdown.happened(Happened::Elapsed(phase)));
                }
            }
        }
    });
    // Without a thread there are still the presses.
    drop(watching);
}

/// Says what is cut off, and ends the process; but not that of a test.
#[expect(clippy::disallowed_methods, reason = "force means exactly this")]
pub(super) fn end_now(run: &Run, why: Force, signal: Option<Signal>) {
    aside::report(&run.root, move |root| forced(root, why, signal));
    if let Some(hook) = run.on_force.clone() {
        aside(move || (hook.0)());
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::phase::Phase;
    use crate::host::{self, Host};
    use crate::shutdown::{Budget, Config, Reason};

    #[test]
    fn phases_end_in_their_time_also_when_no_timer_of_the_runtime_does() {
        let new_runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Nothing ever drives it.
        let stuck = new_runtime();
        let shutdown = Shutdown::new();
        let host = Host::of_run(stuck.handle().clone(), None, None, Arc::clone(&shutdown));
        let root = host::new_root(host);
        let config = Config { total: Some(Some(Duration::from_millis(500))), ..Config::default() };
        let (budget, _) = Budget::new(config, &|_| None).unwrap();
        let _over = shutdown.over_at_drop();
        shutdown.attach(Run::new(root, budget));
        shutdown.parts.enter();
        shutdown.request(Reason::Requested("enough".into()));
        // Somebody takes part, and never ends.
        new_runtime().block_on(shutdown.wait(Phase::Finalizing));
        let told = shutdown.story().unwrap();
        let entered: Vec<Phase> = told.phases().iter().map(|(phase, _)| *phase).collect();
        assert_eq!(entered, Phase::ALL[1..8]);
    }
}
