//! The laws of cancellation, as properties of generated programs: of the library and of a reference model alike.
//!
//! A failure prints the smallest program that shows it, and the seed. Of the environment:
//!
//! - `PROPTEST_CASES`: how many programs for each law, in place of its own number.
//! - `TESTUDO_SEED`: which programs, 1 by default.
//!
//! A long run is `PROPTEST_CASES=100000 TESTUDO_SEED=7 cargo test --test laws`.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a law concerns a few forms of the language, and leaves all others as they are"
)]

mod cancel;
mod exec;
mod finalizers;
mod masking;
mod model;
mod nurseries;
mod program;
mod reference;
mod table;
mod time;
