//! The body of an answer, which belongs to its request until it has ended.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf;
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
    cut: oneshot::Receiver<Infallible>,
    /// Set once it was cut off.
    frames_left: Option<u8>,
    /// Dropped when the body has ended.
    ended: oneshot::Sender<Infallible>,
    waiting: Waiting,
    /// How many bytes the client still waits for, if its answer says how long it is: a server drops a body that is complete, and need
    /// not see its end.
    owed: Option<u64>,
}

/// What is there when a request is cut off goes out all the same: it was done. So many frames at most, since a body that always has one
/// would go on for ever.
const LAST_FRAMES: u8 = 16;

impl Stream {
    pub(crate) fn new(
        cut: oneshot::Receiver<Infallible>,
        ended: oneshot::Sender<Infallible>,
        waiting: Waiting,
        owed: Option<u64>,
    ) -> Self {
        let mut new = Self { cut, frames_left: None, ended, waiting, owed };
        new.give(0);
        new
    }

    /// How many frames may go out still; none if there is no end to that.
    fn frames_left(&mut self, cx: &mut Context<'_>) -> Option<&mut u8> {
        if self.frames_left.is_none() && Pin::new(&mut self.cut).poll(cx).is_ready() {
            self.frames_left = Some(LAST_FRAMES);
        }
        self.frames_left.as_mut()
    }

    /// So many bytes go out.
    fn give(&mut self, bytes: u64) {
        self.owed = self.owed.map(|owed| owed.saturating_sub(bytes));
        if self.owed == Some(0) {
            self.waiting.answered();
        }
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
        let left = this.stream.as_mut().and_then(|stream| stream.frames_left(cx));
        let is_cut = left.is_some();
        let frame = match left {
            Some(0) => Poll::Pending,
            Some(left) => {
                *left -= 1;
                inner.poll_frame(cx)
            }
            None => inner.poll_frame(cx),
        };
        if let Poll::Ready(frame) = frame {
            if let (Some(stream), Some(Ok(frame))) = (this.stream.as_mut(), &frame) {
                stream.give(frame.data_ref().map_or(0, |data| data.remaining() as u64));
            }
            let frame = frame.map(|frame| frame.map_err(Into::into));
            let has_ended =
                !matches!(frame, Some(Ok(_))) || this.inner.as_ref().as_pin_ref().is_none_or(|b| b.is_end_stream());
            if has_ended {
                this.stream.take().into_iter().for_each(Stream::end);
            }
            return Poll::Ready(frame);
        }
        if !is_cut {
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
