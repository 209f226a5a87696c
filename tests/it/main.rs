//! The integration tests: one binary, a module for each concept.

mod adversity;
mod smoke;
mod support;
