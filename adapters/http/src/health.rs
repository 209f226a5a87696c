//! Health checks: whether the process lives, and whether it wants work.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use testudo::Readiness;
use tower_service::Service;

/// Returns a service that answers `/livez` and `/readyz`.
///
/// `/readyz` is 200 while the run is [ready](testudo::ready), and 503 from the moment at which a stop is asked for; `/livez` is 200 to
/// the end, because a process that stops in order must not be killed for it. Other paths get 404.
///
/// # Panics
///
/// Outside of a run.
///
/// # Examples
///
/// ```
/// # use axum::Router;
/// # use testudo_http::health;
/// # testudo::Runner::new().current_thread().run(async {
/// let app: Router = Router::new().route_service("/livez", health()).route_service("/readyz", health());
/// # }).outcome.unwrap();
/// ```
#[track_caller]
pub fn health() -> Health {
    Health { readiness: testudo::ready() }
}

/// Made by [`health`].
#[derive(Clone, Debug)]
pub struct Health {
    readiness: Readiness,
}

impl<B> Service<Request<B>> for Health {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (status, text) = match request.uri().path() {
            "/livez" => (StatusCode::OK, "alive\n"),
            "/readyz" if self.readiness.is_ready() => (StatusCode::OK, "ready\n"),
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            _ => (StatusCode::NOT_FOUND, ""),
        };
        let mut answer = Response::new(text.to_owned());
        *answer.status_mut() = status;
        ready(Ok(answer))
    }
}
