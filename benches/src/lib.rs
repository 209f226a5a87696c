//! Testudo measured beside its peers: the workloads, and what the programs that run them share.
#![expect(clippy::disallowed_methods, reason = "to begin a task without an owner is what most peers do")]

pub mod book;
pub mod case;
pub mod work;
