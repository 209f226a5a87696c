//! Task shielding, structured concurrency and graceful shutdown for Tokio.
//!
//! # Crate features
//!
//! - `signal` (default): the runner.
//! - `macros` (default): `#[testudo::main]`.
//! - `test-util`: `#[testudo::test]`.
//! - `tracing`: events.
//! - `interop`: tokens.

mod blocking;
mod clock;
mod core;
mod current;
mod deadline;
mod delivery;
mod error;
mod finalize;
mod host;
mod interop;
mod nursery;
mod outcome;
mod policy;
#[cfg(feature = "signal")]
mod main_task;
mod region;
mod registry;
mod report;
#[cfg(feature = "signal")]
mod runner;
mod scope;
mod seat;
mod shield;
#[cfg(feature = "signal")]
mod signal;
mod task;
#[cfg(feature = "test-util")]
mod test_run;
mod trace;

pub use blocking::BlockingCx;
pub use crate::core::cause::{Cause, CauseKind};
pub use deadline::{EffectiveDeadline, current_deadline};
pub use delivery::{CatchCancelled, Checkpoint, WaitCancelled, cancelled, catch_cancelled, checkpoint, is_cancelled};
pub use error::{AbsorbCancel, Cancelled, Elapsed, Failed, Failure, Failures, NurseryError, SpawnError, StartError};
pub use finalize::{FinalizeExt, Finalized, bracket};
#[cfg(feature = "interop")]
pub use interop::run_until_token;
pub use interop::{Adoptable, adopt};
pub use nursery::{
    LocalNursery, LocalNurseryRun, LocalTask, Nursery, NurseryRun, Start, Started, TaskBuilder, nursery, nursery_local,
};
pub use outcome::{ChildOutput, Outcome, Panic, TaskOutput};
pub use policy::Policy;
pub use registry::{FindError, Which, all_tasks, cancel, current_task, drain, find, root_nursery, spawn};
pub use report::{Event, Report, Reporter, Subject};
#[cfg(feature = "signal")]
pub use runner::{ExitPolicy, Finished, Runner, Stop, run};
pub use scope::{CancelScope, ScopeCancelled, ScopeHandle, Scoped, fail_after, move_on_after};
pub use shield::{
    Exposed, ExposedRun, LocalShield, ScopedShield, Shield, shield, shield_local, shield_scoped, shield_with,
};
#[cfg(feature = "signal")]
pub use signal::Signal;
pub use task::{Task, TaskId, TaskRef};
#[cfg(feature = "macros")]
pub use testudo_macros::main;
#[cfg(feature = "test-util")]
pub use testudo_macros::test;

#[doc(hidden)]
#[cfg(feature = "test-util")]
pub mod __private {
    pub use crate::test_run::{TestOptions, run_test};
}
