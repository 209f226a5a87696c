//! Requests under Testudo: a tower layer for servers, and one for clients.
//!
//! Every server drops the future of a handler when its client disconnects, at whatever `await` it stands. [`RequestLayer`] runs each
//! request in a task of its own instead, in axum, tonic and whatever else speaks [`tower_service`]:
//!
//! - the task is listed by method and path (`POST /transfer`), and a shutdown waits for it and names it;
//! - what the client's disconnect does to it is chosen, for a server or for one route: [`OnDisconnect`];
//! - it is told of the disconnect: [`ClientGone`] is among the extensions of the request;
//! - it has a deadline: the shorter one of [a setting](RequestLayer::timeout) and what the client says (`grpc-timeout`, or
//!   [a header](RequestLayer::header)). What runs out of time is answered with 504, or `DEADLINE_EXCEEDED` in gRPC; what a shutdown
//!   cuts off with 503, or `UNAVAILABLE`;
//! - a body that streams is part of the request: it counts until its end, and is cut with it.
//!
//! [`DeadlineLayer`] is for clients: it writes what is left of the deadline into each request that goes out, so that a deadline holds
//! over any number of hops.
//!
//! # Examples
//!
//! A transfer that has begun is finished, whatever its client does:
//!
//! ```
//! use axum::{Router, routing::post};
//! use std::time::Duration;
//! use testudo_tower::{OnDisconnect, RequestLayer};
//!
//! async fn transfer() -> &'static str {
//!     "done"
//! }
//!
//! let finish = RequestLayer::new(OnDisconnect::Finish).timeout(Duration::from_secs(10));
//! let app: Router = Router::new().route("/transfer", post(transfer)).layer(finish);
//! ```
//!
//! # Who owns the task
//!
//! The nursery given by [`RequestLayer::nursery`]; else the one that the server offers as the extension [`Owner`], as `testudo-http`
//! does; else the root nursery of the run. Outside of a run it is a plain Tokio task, of which only shields are known.
//!
//! # What a cancel looks like
//!
//! A request that is cancelled, by its deadline, its client or a shutdown, ends at its next suspension as everything that is
//! cancelled does: `catch_cancelled`, finalizers and shields inside it hold. A deadline and a disconnect are the cancel of a scope, so code
//! that must not be cut off is wrapped into [`testudo::shield()`], however the layer is set.

mod answer;
mod body;
mod client;
mod deadline;
mod gone;
mod layer;
mod owner;
mod work;

pub use body::{StreamCut, TrackedBody};
pub use client::{DeadlineLayer, DeadlineService};
pub use gone::ClientGone;
pub use layer::{OnDisconnect, RequestLayer, RequestService};
pub use owner::Owner;
pub use work::ResponseFuture;

/// An error of any kind, as tower and its friends have it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
