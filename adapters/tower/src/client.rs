//! The client's side: what is left of a deadline goes with each request.

use std::task::{Context, Poll};
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderValue, Request};
use testudo::{EffectiveDeadline, current_deadline};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::deadline::{GRPC_TIMEOUT, format_grpc, format_millis, is_grpc, parse_grpc, parse_millis};

/// Writes what is left of the current [deadline](testudo::current_deadline) into each request that goes out.
///
/// A gRPC request gets `grpc-timeout`, another one the [plain header](Self::header) if there is one. A shorter one that is there is left
/// as it is, and without a deadline nothing is written. It only tells the server: the client's own scope ends the wait.
///
/// # Examples
///
/// ```
/// # use testudo_tower::DeadlineLayer;
/// # use tower_layer::Layer;
/// # use std::time::Duration;
/// # fn channel(inner: u32) {
/// let client = DeadlineLayer::new().margin(Duration::from_millis(10)).layer(inner); // around a tonic `Channel`, for instance
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct DeadlineLayer {
    header: Option<HeaderName>,
    margin: Duration,
}

impl DeadlineLayer {
    /// Returns a layer that writes `grpc-timeout` only, and all of what is left.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the header for requests that are not gRPC; it gets whole milliseconds.
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = Some(name);
        self
    }

    /// Keeps this much of what is left for the way back.
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    fn write<B>(&self, request: &mut Request<B>) {
        let EffectiveDeadline::At(at) = current_deadline() else { return };
        let left = at.saturating_duration_since(Instant::now()).saturating_sub(self.margin);
        let headers = request.headers_mut();
        let is_grpc = is_grpc(headers);
        let name = if is_grpc { Some(&GRPC_TIMEOUT) } else { self.header.as_ref() };
        let Some(name) = name else { return };
        let parse = if is_grpc { parse_grpc } else { parse_millis };
        let known = headers.get(name).and_then(|value| value.to_str().ok()).and_then(parse);
        if known.is_some_and(|known| known <= left) {
            return;
        }
        let text = if is_grpc { format_grpc(left) } else { format_millis(left) };
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name.clone(), value);
        }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        DeadlineService { inner, layer: self.clone() }
    }
}

/// Made by [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct DeadlineService<S> {
    inner: S,
    layer: DeadlineLayer,
}

impl<S, B> Service<Request<B>> for DeadlineService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        self.layer.write(&mut request);
        self.inner.call(request)
    }
}
