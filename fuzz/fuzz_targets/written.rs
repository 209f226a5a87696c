//! Dumps and reports, as JSON and as text.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| testudo::fuzzed::written(bytes));
