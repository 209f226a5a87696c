//! The user's service as a connection calls it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use pin_project_lite::pin_project;
use testudo_tower::Owner;

use crate::body::{AnswerBody, RequestBody};
use crate::doing::{Active, Doing};
use crate::listener::Peer;
use crate::server::Gate;

/// Notes each request, and says goodbye to HTTP/1 clients when the run stops.
#[derive(Clone)]
pub(crate) struct Noted<S> {
    pub(crate) inner: TowerToHyperService<S>,
    pub(crate) doing: Arc<Doing>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) peer: Peer,
    pub(crate) owner: Owner,
}

impl<S, R> Service<Request<Incoming>> for Noted<S>
where
    S: tower_service::Service<Request<RequestBody>, Response = Response<R>> + Clone,
{
    type Response = Response<AnswerBody<R>>;
    type Error = S::Error;
    type Future = Answering<<TowerToHyperService<S> as Service<Request<RequestBody>>>::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let name = format!("{} {}", request.method(), request.uri().path());
        let active = self.doing.begin(name.into());
        let is_http1 = request.version() <= Version::HTTP_11;
        let mut request = request.map(|body| RequestBody::new(body, &active.request));
        request.extensions_mut().insert(self.peer.clone());
        request.extensions_mut().insert(self.owner.clone());
        let gate = is_http1.then(|| Arc::clone(&self.gate));
        Answering { fut: self.inner.call(request), active: Some(active), gate }
    }
}

pin_project! {
    pub(crate) struct Answering<F> {
        #[pin]
        fut: F,
        active: Option<Active>,
        gate: Option<Arc<Gate>>,
    }
}

impl<F, R, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<AnswerBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Poll::Ready(answer) = this.fut.poll(cx) else { return Poll::Pending };
        let Some(active) = this.active.take() else { return Poll::Pending };
        Poll::Ready(answer.map(|mut answer| {
            // An upgrade has a word of its own there.
            let is_upgrade = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            if !is_upgrade && this.gate.as_ref().is_some_and(|gate| gate.is_closing()) {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer.map(|body| AnswerBody::new(body, active))
        }))
    }
}
