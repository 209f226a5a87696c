//! The integration tests: one binary, a module for each concept.

mod bad_use;
mod smoke;
mod ui;
