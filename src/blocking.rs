//! Blocking work: it can be told of a cancel, but not cut off.

use std::fmt;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::core::cause::Cause;
use crate::current;
use crate::host::Frame;
use crate::seat::Seat;

/// Tells blocking work whether it was cancelled; given to it by [`Nursery::spawn_blocking`](crate::Nursery::spawn_blocking).
pub struct BlockingCx {
    frame: Arc<Frame>,
}

impl BlockingCx {
    /// True once the work should end: it, or its nursery, was cancelled. One load; look as often as you like.
    pub fn is_cancelled(&self) -> bool {
        self.frame.is_cancelled()
    }

    /// Returns who cancelled it, and why.
    pub fn cause(&self) -> Option<Cause> {
        self.frame.node().cause()
    }
}

impl fmt::Debug for BlockingCx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingCx").field("is_cancelled", &self.is_cancelled()).finish()
    }
}

/// Begins the work at the first poll, inside `frame`.
pub(crate) fn run<F, O>(
    handle: &Handle,
    frame: Arc<Frame>,
    abandon: bool,
    work: F,
) -> Blocking<impl FnOnce() -> O + Send + 'static, O>
where
    F: FnOnce(&BlockingCx) -> O + Send + 'static,
{
    let work = move || {
        let cx = BlockingCx { frame };
        current::inside_for_long(&cx.frame, || work(&cx))
    };
    Blocking { handle: handle.clone(), work: Some(work), join: None, seat: Seat::default(), abandon }
}

/// Waits for blocking work. It holds its frame, unless it may abandon the work.
pub(crate) struct Blocking<F, O> {
    handle: Handle,
    work: Option<F>,
    join: Option<JoinHandle<O>>,
    seat: Seat,
    abandon: bool,
}

impl<F, O> Unpin for Blocking<F, O> {}

impl<F, O> Future for Blocking<F, O>
where
    F: FnOnce() -> O + Send + 'static,
    O: Send + 'static,
{
    type Output = O;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        let this = &mut *self;
        if let Some(work) = this.work.take() {
            this.join = Some(this.handle.spawn_blocking(work));
        }
        let Some(join) = &mut this.join else { return Poll::Pending };
        match Pin::new(join).poll(cx) {
            Poll::Ready(Ok(output)) => {
                this.seat.leave();
                Poll::Ready(output)
            }
            Poll::Ready(Err(error)) => match error.try_into_panic() {
                Ok(payload) => resume_unwind(payload),
                Err(_) => Poll::Pending, // The runtime is going down, and this task with it.
            },
            Poll::Pending => {
                if !this.abandon {
                    this.seat.stay(cx);
                }
                Poll::Pending
            }
        }
    }
}
