//! The layers, called by hand on paused time, and over real TCP with axum and tonic.

mod deadline;
mod disconnect;
mod grpc;
mod hops;
mod stream;
mod support;
mod tcp;
