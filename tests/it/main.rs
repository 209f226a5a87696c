//! The integration tests: one binary, a module for each concept.

mod adversity;
mod finalizers;
mod ownership;
mod scopes;
mod smoke;
mod support;
