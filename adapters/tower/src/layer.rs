//! The layer for servers, and its settings.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::HeaderName;
use http::{Request, Response};
use http_body::Body;
use testudo::Nursery;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::BoxError;
use crate::body::TrackedBody;
use crate::deadline::{asked, is_grpc};
use crate::gone::Waiting;
use crate::owner::Owner;
use crate::work::{ResponseFuture, Work, begin};

/// What becomes of a request whose client has gone before it had its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It is cancelled. Shields and finalizers that are alive in it hold, as long as they are allowed to.
    Cancel,
    /// It runs to its end, and holds off the cancel of a shutdown, too: the whole handler is a [shield](testudo::shield()). Its deadline
    /// still ends it.
    Finish,
    /// It is cancelled, as is what a shutdown cancels, and its clean-up has so long from then on: shields and finalizers alive after that
    /// are cut off, and reported.
    Grace(Duration),
}

/// Runs each request in a task that is listed, waited for and has a deadline. See the [crate](crate).
///
/// # Examples
///
/// ```
/// # use testudo_tower::{OnDisconnect, RequestLayer};
/// # use std::time::Duration;
/// use http::HeaderName;
///
/// let layer = RequestLayer::new(OnDisconnect::Grace(Duration::from_secs(1)))
///     .timeout(Duration::from_secs(30))
///     .header(HeaderName::from_static("x-request-timeout-ms"));
/// # drop(layer);
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it is laid around a service"]
pub struct RequestLayer {
    on_disconnect: OnDisconnect,
    timeout: Option<Duration>,
    header: Option<HeaderName>,
    shield_budget: Option<Duration>,
    detached: Option<Arc<Semaphore>>,
    nursery: Option<Nursery<BoxError>>,
}

impl RequestLayer {
    /// Returns a layer for which only the client sets deadlines.
    pub fn new(on_disconnect: OnDisconnect) -> Self {
        Self { on_disconnect, timeout: None, header: None, shield_budget: None, detached: None, nursery: None }
    }

    /// Sets how long a request may take from the arrival of its head, its streamed answer included. A client can shorten it.
    pub fn timeout(mut self, length: Duration) -> Self {
        self.timeout = Some(length);
        self
    }

    /// Reads the client's timeout from this header, too: whole milliseconds, as envoy's `x-envoy-expected-rq-timeout-ms`.
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = Some(name);
        self
    }

    /// Allows a request that [finishes](OnDisconnect::Finish) to hold off a shutdown for so long; the default is that of the
    /// [run](testudo::Runner::shield_budget).
    ///
    /// # Panics
    ///
    /// If the budget is zero.
    #[track_caller]
    pub fn shield_budget(mut self, budget: Duration) -> Self {
        assert!(!budget.is_zero(), "a shield with a budget of zero holds nothing off");
        self.shield_budget = Some(budget);
        self
    }

    /// Lets at most `max` requests go on without their clients; when one more client goes, its request is cancelled.
    ///
    /// Without a limit, clients that give up and try again can pile up any amount of work that [finishes](OnDisconnect::Finish). All
    /// services made from this layer, and from its clones, share the limit.
    pub fn detached_max(mut self, max: usize) -> Self {
        self.detached = Some(Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))));
        self
    }

    /// Sets the nursery that owns the requests. It should [supervise](testudo::Policy::Supervise), or the panic of one request cancels
    /// all others.
    pub fn nursery(mut self, nursery: &Nursery<BoxError>) -> Self {
        self.nursery = Some(nursery.clone());
        self
    }

    fn work<B>(&self, request: &Request<B>) -> Work {
        let asked = asked(request.headers(), self.header.as_ref());
        let owner = request.extensions().get::<Owner>().map(Owner::nursery);
        Work {
            name: format!("{} {}", request.method(), request.uri().path()).into(),
            is_grpc: is_grpc(request.headers()),
            is_head: request.method() == http::Method::HEAD,
            deadline: asked.into_iter().chain(self.timeout).min().and_then(|left| Instant::now().checked_add(left)),
            on_disconnect: self.on_disconnect,
            shield_budget: self.shield_budget,
            detached: self.detached.clone(),
            owner: self.nursery.as_ref().or(owner).cloned(),
        }
    }
}

impl<S> Layer<S> for RequestLayer {
    type Service = RequestService<S>;

    fn layer(&self, inner: S) -> RequestService<S> {
        RequestService { inner, layer: self.clone() }
    }
}

/// Made by [`RequestLayer`].
#[derive(Clone, Debug)]
pub struct RequestService<S> {
    inner: S,
    layer: RequestLayer,
}

impl<S, B, R> Service<Request<B>> for RequestService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Body + Send + 'static,
{
    type Response = Response<TrackedBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<R, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let work = self.layer.work(&request);
        let (waiting, gone) = Waiting::new();
        request.extensions_mut().insert(gone);
        begin(work, self.inner.call(request), waiting)
    }
}
