//! The laws of cancellation, as properties of generated programs: of the library and of a reference model alike.

mod exec;
mod finalizers;
mod masking;
mod model;
mod program;
mod reference;
