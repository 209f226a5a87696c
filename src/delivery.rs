//! How running code meets a cancel: looking, yielding, waiting, catching.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::core::cause::Cause;
use crate::core::node::Kind;
use crate::current::{self, Spot};
use crate::deadline;
use crate::error::Cancelled;
use crate::host::Frame;
use crate::placed::Placed;
use crate::plan::Plan;
use crate::region::{Cutting, End};
use crate::seat::Seat;

/// Returns whether the code that asks is cancelled.
///
/// If so, it ends at its next suspension that nothing holds. Does not yield. A shield around the code makes it false again. Outside
/// of any scope, nursery or run it is false.
#[doc(alias = "check_cancelled")]
pub fn is_cancelled() -> bool {
    current::is_cancelled()
}

/// Yields to other tasks, and ends here if cancelled (trio's `checkpoint`).
///
/// It is the one suspension that is exact: no code runs past it after a cancel, or after a deadline that has passed. Elsewhere an
/// operation that had already finished still gives its value first. In code that a sibling branch holds (a shield beside it in
/// `join!`) it only yields.
///
/// # Cancel safety
///
/// Safe to drop: nothing is lost.
#[doc(alias = "yield_now")]
#[doc(alias = "throw_if_cancelled")]
pub fn checkpoint() -> Checkpoint {
    Checkpoint { yielded: false }
}

/// Made by [`checkpoint`].
///
/// # Cancel safety
///
/// Safe to drop: nothing is lost.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Checkpoint {
    yielded: bool,
}

impl Future for Checkpoint {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        deadline::check_current();
        let ends = |frame: &Frame| frame.is_cancelled() && !frame.is_held();
        let ends_here = current::with_spot(|spot| match spot {
            Some(Spot::Leaf(leaf)) => leaf.is_cancelled(),
            Some(Spot::Bud(bud)) => bud.is_cancelled(),
            Some(Spot::Frame(frame)) => ends(frame),
            None => false,
        });
        if std::mem::replace(&mut self.yielded, true) && !ends_here {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Waits until the code that waits is cancelled, and returns the cause.
///
/// It is always delivered before the code around it is dropped, also inside `select!`. What is awaited after it ends at its first
/// suspension, unless it is shielded. Outside of any scope, nursery or run it waits for ever. To look at a scope from elsewhere,
/// use [`ScopeHandle::cancelled`](crate::ScopeHandle::cancelled).
///
/// # Cancel safety
///
/// Safe to drop and to make again: nothing is lost.
///
/// # Examples
///
/// ```
/// # use testudo::{CancelScope, CauseKind, cancelled};
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let why = CancelScope::new().timeout(Duration::from_secs(1)).run(cancelled()).await;
/// assert_eq!(why.unwrap().kind(), CauseKind::Deadline);
/// # }
/// ```
#[doc(alias = "wait_cancelled")]
pub fn cancelled() -> WaitCancelled {
    WaitCancelled { seat: Seat::default() }
}

/// Made by [`cancelled`].
///
/// # Cancel safety
///
/// Safe to drop and to make again: nothing is lost.
#[must_use = "futures do nothing unless polled"]
pub struct WaitCancelled {
    seat: Seat,
}

impl Future for WaitCancelled {
    type Output = Cause;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Cause> {
        let cause = current::with(|current| current.and_then(|(frame, _)| frame.node().cause()));
        match cause {
            Some(cause) => {
                self.seat.leave();
                Poll::Ready(cause)
            }
            None => {
                self.seat.stay(cx);
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for WaitCancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitCancelled")
    }
}

/// Runs `fut` and catches a cancel that cuts it off, so that the code after it runs on.
///
/// That code may print, undo, or raise a shield and clean up. It is still cancelled: its next suspension that nothing holds is the
/// end of it (trio's `except Cancelled`; [`checkpoint`] stands for `raise`). A `fut` that ends in spite of the cancel gives `Ok`.
///
/// # Cancel safety
///
/// Dropping it drops `fut` where it stands, and catches nothing: a drop is not a cancel.
///
/// # Examples
///
/// ```
/// # use testudo::{CancelScope, catch_cancelled, shield};
/// # use std::time::Duration;
/// # use tokio::time::sleep;
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let done = CancelScope::new().timeout(Duration::from_secs(1)).run(async {
///     let work = catch_cancelled(sleep(Duration::from_secs(60))).await;
///     assert!(work.is_err());
///     shield(sleep(Duration::from_secs(5))).await; // the clean-up
///     "cleaned up"
/// });
/// assert_eq!(done.await.unwrap(), "cleaned up");
/// # }
/// ```
#[doc(alias = "except")]
#[doc(alias = "CancelledError")]
#[track_caller]
pub fn catch_cancelled<F: Future>(fut: F) -> CatchCancelled<F> {
    // A node of its own, so that the unwinding of a scope inside it is fixed to end here (M3).
    CatchCancelled { placed: Placed::new(Plan::new(Kind::Catch), fut, Cutting::Caught) }
}

pin_project! {
    /// Made by [`catch_cancelled`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the future inside where it stands, as [`Scoped`](crate::Scoped) does.
    #[must_use = "futures do nothing unless polled"]
    pub struct CatchCancelled<F> {
        #[pin]
        placed: Placed<F>,
    }
}

impl<F: Future> Future for CatchCancelled<F> {
    type Output = Result<F::Output, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().placed.poll(cx).map(End::caught)
    }
}

impl<F> fmt::Debug for CatchCancelled<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatchCancelled").finish_non_exhaustive()
    }
}
