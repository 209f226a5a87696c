//! trio's own tests. Read at 0.34.0 and the development after it.

mod cancelled;
mod clock;
mod primitives;
mod run;
mod run_nursery;
mod run_scope;
mod run_token;
mod threads;
mod timeouts;
