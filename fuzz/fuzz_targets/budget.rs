//! The budget of a run, from the environment and from the code.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| testudo::fuzzed::budget(bytes));
