//! The pure state of cancellation: no runtime, no clock, no signal.
//!
//! `node` is the cancel tree, `frame` a region of a task that is cut off as a unit together with what holds it, `live` the count
//! of what an owner waits for, `task` the record of a task, `cause` who cancelled and why, `ladder` what a signal leads to,
//! `sabotage` bugs for the stress test to find.
//! Each file states its invariants and its locks. Lock order of the whole: parent node, child node, frame; `live` alone.

pub(crate) mod cause;
pub(crate) mod frame;
#[cfg(feature = "signal")]
pub(crate) mod ladder;
pub(crate) mod live;
pub(crate) mod node;
pub(crate) mod sabotage;
mod sync;
pub(crate) mod task;

#[cfg(all(test, testudo_loom))]
mod loom_tests;
