//! The server: the routes, each request a task with a name, and `/livez`, `/readyz`, `/tasks` beside them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use testudo::ShutdownHandle;
use testudo_http::{health, serve};
use testudo_tower::{OnDisconnect, RequestLayer};
use tokio::net::TcpListener;

use crate::routes::{Ledger, routes};
use crate::tasks;

/// How long requests have when the server accepts no more. A transfer that has begun has its own budget.
const GRACE: Duration = Duration::from_millis(1500);

/// How many requests the server has read the head of. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Accepted(Arc<AtomicU64>);

impl Accepted {
    /// So many so far.
    pub fn so_far(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves until the run is asked to stop.
///
/// # Errors
///
/// If the runtime does not take the listener.
pub async fn server(
    listener: std::net::TcpListener,
    ledger: Ledger,
    accepted: Accepted,
    shutdown: ShutdownHandle,
) -> io::Result<()> {
    let count = move |request: Request, next: Next| {
        accepted.0.fetch_add(1, Ordering::Relaxed);
        next.run(request)
    };
    let app = Router::new()
        .merge(routes(ledger))
        // Named and listed, and dropped with its connection: what must go on covers itself.
        .layer(RequestLayer::new(OnDisconnect::Cancel))
        .merge(tasks::routes(shutdown))
        .route_service("/livez", health())
        .route_service("/readyz", health())
        .layer(from_fn(count));
    // Half of a head is waited for as long as a request is, and named like that if it does not come.
    serve(TcpListener::from_std(listener)?, app).name("ledger").budget(GRACE).linger(2 * GRACE).await;
    Ok(())
}
