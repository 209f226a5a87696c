//! The body of an answer, which belongs to its request until it has ended.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::oneshot;

use crate::BoxError;
use crate::gone::Waiting;

pin_project! {
    /// The body of an answer that went through [`RequestLayer`](crate::RequestLayer).
    ///
    /// # Drop
    ///
    /// Before its end, the request is told that its client has gone.
    pub struct TrackedBody<B> {
        #[pin]
        inner: Option<B>,
        stream: Option<Stream>,
    }
}

/// What ties a body to its request.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Gone when the request was cut off.
    pub(crate) cut: oneshot::Receiver<Infallible>,
    pub(crate) was_cut: bool,
    /// Dropped when the body has ended.
    pub(crate) ended: oneshot::Sender<Infallible>,
    pub(crate) waiting: Waiting,
}

/// Whether a request has been cut off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IsCut {
    Not,
    /// Since the last frame. What is there goes out all the same: it was done.
    Now,
    /// Before the last frame. A body that always has one would go on for ever.
    Before,
}

impl Stream {
    fn look(&mut self, cx: &mut Context<'_>) -> IsCut {
        if self.was_cut {
            return IsCut::Before;
        }
        self.was_cut = Pin::new(&mut self.cut).poll(cx).is_ready();
        if self.was_cut { IsCut::Now } else { IsCut::Not }
    }

    fn end(mut self) {
        self.waiting.answered();
        drop(self.ended);
    }
}

impl<B> TrackedBody<B> {
    pub(crate) fn new(inner: B, stream: Option<Stream>) -> Self {
        Self { inner: Some(inner), stream }
    }

    pub(crate) fn empty() -> Self {
        Self { inner: None, stream: None }
    }
}

impl<B> Body for TrackedBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let cut = this.stream.as_mut().map_or(IsCut::Not, |stream| stream.look(cx));
        let frame = if cut == IsCut::Before { Poll::Pending } else { inner.poll_frame(cx) };
        if let Poll::Ready(frame) = frame {
            let frame = frame.map(|frame| frame.map_err(Into::into));
            let has_ended =
                !matches!(frame, Some(Ok(_))) || this.inner.as_ref().as_pin_ref().is_none_or(|b| b.is_end_stream());
            if has_ended {
                this.stream.take().into_iter().for_each(Stream::end);
            }
            return Poll::Ready(frame);
        }
        if cut == IsCut::Not {
            return Poll::Pending;
        }
        this.stream.take().into_iter().for_each(Stream::end);
        this.inner.set(None);
        Poll::Ready(Some(Err(Box::new(StreamCut(())))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), B::size_hint)
    }
}

impl<B: fmt::Debug> fmt::Debug for TrackedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrackedBody").field(&self.inner).finish()
    }
}

/// The error of a body whose request was cut off, by its deadline or by a shutdown, before all of it was there.
#[derive(Debug)]
pub struct StreamCut(());

impl fmt::Display for StreamCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was cut off while its answer was streamed")
    }
}

impl Error for StreamCut {}
