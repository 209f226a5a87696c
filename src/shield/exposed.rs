//! Cancellable islands inside a shield.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::body::Body;
use super::owned::Shield;
use crate::clock;
use crate::core::node::{Info, Kind, Node as CoreNode};
use crate::error::Cancelled;
use crate::host::Node;
use crate::placed::Placed;
use crate::plan::Plan;
use crate::region::{Cutting, End};
use crate::seat::View;

/// Shields the future that `make` returns, and gives it the right to open its own shield for parts of its work.
///
/// The way to write "wait for a connection, which may be cancelled; then use it, which must not be". What runs inside
/// [`Exposed::run`] sees the cancels outside of *this* shield, and the drop of the caller as a cancel with cause
/// [`Dropped`](crate::CauseKind::Dropped). It does not open any other shield: a callee that shields itself stays shielded
/// (as with cats-effect's `poll`; in ZIO and GHC, `restore` opens too much).
///
/// # Cancel safety
///
/// That of [`Shield`].
///
/// # Examples
///
/// ```
/// # use testudo::{CancelScope, shield_with};
/// # use std::time::Duration;
/// # use tokio::time::sleep;
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let scope = CancelScope::new().timeout(Duration::from_secs(1));
/// let end = scope.run(shield_with(|exposed| async move {
///     if exposed.run(sleep(Duration::from_secs(60))).await.is_err() {
///         return "nothing was begun";
///     }
///     sleep(Duration::from_secs(60)).await; // not cancelled
///     "done"
/// }));
/// assert_eq!(end.await.unwrap(), "nothing was begun");
/// # }
/// ```
#[doc(alias = "uncancelable")]
#[doc(alias = "uninterruptibleMask")]
#[doc(alias = "poll")]
#[track_caller]
pub fn shield_with<F>(make: impl FnOnce(Exposed) -> F) -> Shield<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let node = |kind, shielded| CoreNode::unbound(Info::new(kind, Location::caller(), clock::now()), None, shielded);
    let exposed = Exposed { shield: node(Kind::Shield, true), outside: node(Kind::Outside, false) };
    let view = View::Outside(Arc::clone(&exposed.outside));
    let plan = Plan::new(Kind::Shield).with_node(Arc::clone(&exposed.shield)).with_view(view);
    Shield::from_body(Body::new(plan, make(exposed)))
}

/// The right to open one shield from inside; given by [`shield_with`].
///
/// Elsewhere, inside another shield that is closed, or after the end of its own, it opens nothing: [`run`](Self::run) just runs.
#[derive(Clone)]
pub struct Exposed {
    shield: Arc<Node>,
    outside: Arc<Node>,
}

impl Exposed {
    /// Runs `fut` where the cancels outside of the shield are seen. Gives `Err` if they cut it off; the code after it is
    /// shielded again.
    ///
    /// Whether another shield lies between is looked at when the future is first polled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `fut` where it stands.
    #[doc(alias = "restore")]
    #[doc(alias = "unmask")]
    #[track_caller]
    pub fn run<F: Future>(&self, fut: F) -> ExposedRun<F> {
        let plan = Plan::new(Kind::Exposed).with_view(View::Opens(self.clone()));
        ExposedRun { placed: Placed::new(plan, fut, Cutting::Caught) }
    }

    /// Makes `node` see what the shield holds off, unless another shield is between the two.
    pub(crate) fn open(&self, node: &Arc<Node>) {
        let mut opened: Vec<Arc<Node>> = Vec::new();
        let mut around = std::iter::successors(node.parent(), |node| node.parent());
        // A shield that is open here already (its outside is just around it) is not between the two.
        let shield = around.find(|node| {
            opened.extend(node.outside());
            let is_open = || node.parent().is_some_and(|outside| opened.iter().any(|open| Arc::ptr_eq(open, &outside)));
            node.is_shielded() && !is_open()
        });
        if shield.is_some_and(|shield| Arc::ptr_eq(&shield, &self.shield)) {
            node.expose(&self.outside);
        }
    }
}

impl fmt::Debug for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposed").field("shield", &self.shield).finish_non_exhaustive()
    }
}

pin_project! {
    /// Made by [`Exposed::run`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the future inside where it stands, as [`Scoped`](crate::Scoped) does.
    #[must_use = "futures do nothing unless polled"]
    pub struct ExposedRun<F> {
        #[pin]
        placed: Placed<F>,
    }
}

impl<F: Future> Future for ExposedRun<F> {
    type Output = Result<F::Output, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().placed.poll(cx).map(End::caught)
    }
}

impl<F> fmt::Debug for ExposedRun<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExposedRun").field("node", &self.placed.node()).finish_non_exhaustive()
    }
}
