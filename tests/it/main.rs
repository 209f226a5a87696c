//! The integration tests: one binary, a module for each concept.

mod found_by_stress;
mod smoke;
