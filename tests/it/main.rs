//! The integration tests: one binary, a module for each concept.

mod machine;
mod smoke;
mod traps;
