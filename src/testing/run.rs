//! One test as the main task of a run: what `#[testudo::test]` expands to.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle};

use crate::clock;
use crate::core::node::{Info, Kind};
use crate::host::{self, Host};
use crate::main_task;
use crate::region::End;
use crate::registry;
use crate::report::Reporter;
use crate::shutdown::{Budget, Run, Shutdown};

/// The options of `#[testudo::test]`.
#[derive(Clone, Copy, Debug)]
pub struct TestOptions {
    /// The name of the test.
    pub name: &'static str,
    /// Whether time stands still unless everything waits.
    pub start_paused: bool,
}

/// Runs a test on a current-thread runtime, as the main task of a run without signals.
///
/// # Panics
///
/// With the panic of the test; if tasks are still alive when it returns; if it was cancelled.
#[track_caller]
pub fn run_test<F: Future>(options: TestOptions, test: F) -> F::Output {
    assert!(Handle::try_current().is_err(), "a test is not run inside of a Tokio runtime");
    let runtime = Builder::new_current_thread().enable_all().start_paused(options.start_paused).build();
    let runtime = runtime.unwrap_or_else(|error| panic!("the runtime could not be built: {error}"));
    let shutdown = Shutdown::new();
    let host = Host::of_run(runtime.handle().clone(), None, Some(Reporter::stderr()), Arc::clone(&shutdown));
    let root = host::install(runtime.handle(), host::new_root(host));
    let over = shutdown.over_at_drop();
    shutdown.attach(Run::new(Arc::clone(&root), Budget::default()));
    let info = Info::new(Kind::Task, Location::caller(), clock::now());
    info.set_name(options.name.into());
    let end = runtime.block_on(main_task::run(&root, info, test));
    drop(over);
    let left = registry::alive(&root);
    // What its tasks do when they are dropped is of this run.
    drop(runtime);
    let output = match end {
        End::Done(output) => output,
        End::Cut(cut) => panic!("the test was cancelled: {}", cut.cause),
        End::Panicked(payload) => std::panic::resume_unwind(payload),
    };
    let names: Vec<String> = left.iter().map(ToString::to_string).collect();
    assert!(
        left.is_empty(),
        "the test left {} behind; await them, or open a nursery around them:\n  {}",
        if left.len() == 1 { "a task".into() } else { format!("{} tasks", left.len()) },
        names.join("\n  ")
    );
    output
}
