//! The pure state of cancellation: no runtime, no clock, no signal.
//!
//! `node` is the cancel tree, `frame` a region of a task that is cut off as a unit together with what holds it, `owner` what a node
//! keeps that owns work, `live` the count of what it waits for, `task` the record of a task, `cause` who cancelled and why, `phase` how
//! far a shutdown has come and what happens in it, `press` which signals are one, `order` that of stages, `parts` what threads share in
//! parts, `sabotage` bugs for the stress test to find.
//! Each file states its invariants and its locks. Lock order of the whole: parent node, its beds, child node, frame; `live` and `owner` alone.

pub(crate) mod cause;
pub(crate) mod frame;
pub(crate) mod live;
pub(crate) mod node;
#[cfg(feature = "signal")]
pub(crate) mod order;
pub(crate) mod owner;
pub(crate) mod parts;
#[cfg(feature = "signal")]
pub(crate) mod phase;
#[cfg(feature = "signal")]
pub(crate) mod press;
pub(crate) mod sabotage;
mod sync;
pub(crate) mod task;

#[cfg(all(test, testudo_loom))]
mod loom_tests;
