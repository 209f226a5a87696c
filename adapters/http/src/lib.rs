//! HTTP under Testudo: a server whose stop is bounded, and whose connections are known by name.
//!
//! [`serve`] takes a listener and a tower service, an axum `Router` or a tonic `Routes` for instance, and accepts until the run is
//! asked to stop. It is hyper below; what is added is the end:
//!
//! | When | what happens |
//! |---|---|
//! | a stop is asked for | [`testudo::ready`] is false, so [`health`] says 503 at `/readyz`; accepting goes on for the [drain delay](testudo::Runner::drain_delay), with `Connection: close` on each answer of HTTP/1 |
//! | accepting ends | what waits in the listener's queue is taken, then the listener is closed; idle connections are closed at once, and those on which a first request, or the rest of a head, may be on its way, after the [linger](Server::linger); requests go on |
//! | the graceful phase is over, or the server's own [budget](Server::budget) | what is left is cancelled, and named in the report; shields hold |
//!
//! Each connection is a task in the nursery of the server, named by the address of its peer, and says what it is doing:
//!
//! ```text
//! nursery http at src/main.rs:7, running, age 12.0s
//!   task 10.0.0.7:52044 [idle] at …
//!   task 10.0.0.9:40112 [POST /upload, reading its body] at …
//!   task 10.0.0.9:40113 [GET /ws, upgraded] at …
//! ```
//!
//! # Examples
//!
//! ```
//! use axum::{Router, routing::get};
//! use testudo_http::{health, serve};
//! use tokio::net::TcpListener;
//!
//! # let finished =
//! testudo::Runner::new().run(async {
//!     let app = Router::new()
//!         .route("/", get(|| async { "hello" }))
//!         .route_service("/livez", health())
//!         .route_service("/readyz", health());
//!     let listener = TcpListener::bind("127.0.0.1:0").await?;
//!     # testudo::shutdown("enough");
//!     serve(listener, app).name("hello").await; // until the run is asked to stop
//!     Ok::<_, std::io::Error>(())
//! });
//! # finished.outcome.unwrap();
//! ```
//!
//! # Streams that have no end
//!
//! Server-sent events, long polls and WebSockets run until their client goes, so they have to hear of the stop:
//! `testudo::shutdown_requested()` in a `select!` is how. What does not listen is cut off when its time is up. A connection that was
//! upgraded still belongs to the server, whoever reads from it: the server waits for it, names it, and cuts it off.
//!
//! # Rolling restarts
//!
//! Two instances can listen on one port (`SO_REUSEPORT`), so that the new one is there before the old one stops. Give the old one a
//! [drain delay](testudo::Runner::drain_delay), in which its clients are sent away. On Linux set `net.ipv4.tcp_migrate_req=1`: else the
//! kernel resets the connections that are just being made to a listener that is closed, and no program can prevent that. Or let
//! both accept from one socket, which systemd can hold for them.
//!
//! # Handlers that must not be cut off
//!
//! hyper drops a handler when its client disconnects. `testudo_tower::RequestLayer` is for that, per server or per route; and any
//! handler can raise a [`testudo::shield()`] or spawn into the nursery of the server, which is among the extensions of each request
//! as [`Owner`].

mod accept;
mod body;
mod connection;
mod doing;
mod executor;
mod health;
mod io;
mod listener;
mod server;
mod service;

pub use body::{AnswerBody, RequestBody};
pub use health::{Health, health};
pub use listener::{Listener, Peer};
pub use server::{Served, Server, serve};
pub use testudo_tower::Owner;

/// An error of any kind, as tower and its friends have it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
