//! The integration tests: one binary, a module for each concept.

mod adversity;
mod finalizers;
mod smoke;
mod support;
