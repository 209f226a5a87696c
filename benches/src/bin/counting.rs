//! The measured program with an allocator that counts what is live.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    testudo_bench::case::count_bytes(|| {
        let stats = ALLOCATOR.stats();
        // What grows or shrinks in place is in both of these, too.
        (stats.bytes_allocated as i64) - (stats.bytes_deallocated as i64)
    });
    testudo_bench::program::run("counting");
}
