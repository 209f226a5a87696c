//! The two bodies of a request, which tell how far it has come.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use crate::doing::{Active, Part, Request};

pin_project! {
    /// The body of a request as the service gets it.
    #[derive(Debug)]
    pub struct RequestBody {
        #[pin]
        inner: Incoming,
        reading: Reading,
    }
}

/// Ends the reading when it is dropped.
struct Reading(Arc<Request>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.rise(Part::Working);
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl RequestBody {
    pub(crate) fn new(inner: Incoming, request: &Arc<Request>) -> Self {
        if inner.is_end_stream() {
            request.rise(Part::Working);
        }
        Self { inner, reading: Reading(Arc::clone(request)) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.project();
        let frame = this.inner.poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = frame {
            this.reading.0.rise(Part::Working);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    /// The body of an answer as the connection gets it. Until it is dropped, its request counts.
    pub struct AnswerBody<B> {
        #[pin]
        inner: B,
        active: Active,
    }
}

impl<B> AnswerBody<B> {
    pub(crate) fn new(inner: B, active: Active) -> Self {
        active.request.rise(Part::Answering);
        Self { inner, active }
    }
}

impl<B: Body> Body for AnswerBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: std::fmt::Debug> std::fmt::Debug for AnswerBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AnswerBody").field(&self.inner).finish()
    }
}
