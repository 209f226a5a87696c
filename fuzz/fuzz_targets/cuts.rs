//! The cuts of a sweep, from the environment.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| testudo::fuzzed::cuts(bytes));
