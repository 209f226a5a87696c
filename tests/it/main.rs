//! The integration tests: one binary, a module for each concept.

mod bad_use;
mod found_by_stress;
mod interop;
mod smoke;
#[cfg(feature = "tracing")]
mod spans;
mod surface;
mod test_macro;
mod ui;
