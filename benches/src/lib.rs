//! Testudo measured beside its peers: the workloads, and what the programs that run them share.
#![expect(clippy::disallowed_methods, reason = "to begin a task without an owner is what most peers do")]
#![expect(clippy::missing_panics_doc, reason = "a benchmark panics if anything at all is wrong")]

pub mod book;
pub mod case;
pub mod idle;
pub mod page;
pub mod plan;
pub mod program;
pub mod targets;
pub mod work;
