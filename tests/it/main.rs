//! The integration tests: one binary, a module for each concept.

mod adversity;
mod bad_use;
mod finalizers;
mod found_by_stress;
mod interop;
mod machine;
mod ownership;
mod scopes;
mod smoke;
#[cfg(feature = "tracing")]
mod spans;
mod support;
mod surface;
mod test_macro;
mod traps;
mod ui;
