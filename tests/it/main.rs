//! The integration tests: one binary, a module for each concept.

#![expect(clippy::unwrap_used, reason = "a test that unwraps in vain has failed, and says where")]

mod adversity;
mod bad_use;
mod edges;
mod finalizers;
mod found_by_compose;
mod found_by_fuzz;
mod found_by_laws;
mod found_by_mutants;
mod found_by_review;
mod found_by_stress;
mod found_by_trio;
mod interop;
mod machine;
mod ownership;
mod scopes;
mod shutdown;
mod smoke;
#[cfg(feature = "tracing")]
mod spans;
mod stages;
mod storms;
mod support;
mod surface;
mod test_macro;
mod testing;
mod traps;
mod ui;
mod waiting;
