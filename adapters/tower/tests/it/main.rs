//! The layers, called by hand on paused time, and over real TCP with axum and tonic.

#![expect(clippy::disallowed_methods, reason = "clients and peers are not of the run")]
#![expect(clippy::unwrap_used, reason = "it is a test, also in its helpers")]

mod deadline;
mod disconnect;
mod grpc;
mod hops;
mod spans;
mod stream;
mod support;
mod tcp;
