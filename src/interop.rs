//! Both ways between this crate and Tokio's own handles: join handles, join sets, `tokio_util`'s tokens.

use std::future::Future;
use std::mem;
use std::panic::Location;
use std::pin::pin;

use futures_util::future::{Either, select};
use tokio::task::{JoinError, JoinHandle, JoinSet};

use crate::delivery::{cancelled, checkpoint};
use crate::shield::ScopedShield;

/// Something of Tokio's that runs tasks, and that a nursery can adopt.
///
/// `n.spawn(adopt(handle))` makes a plain Tokio task a child: a cancel aborts it, and the nursery waits until it has really ended.
pub trait Adoptable {
    /// What it gives in the end.
    type Output;

    /// What is known of those tasks that have ended, while others have not.
    type Ended: Default + Send;

    /// Asks all tasks to end: dropped at their next suspension.
    fn abort(&mut self);

    /// Waits for all tasks. What it learns on the way is kept in `ended`.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop and to call again with the same `ended`: nothing is lost.
    fn join(&mut self, ended: &mut Self::Ended) -> impl Future<Output = Result<Self::Output, JoinError>> + Send;
}

impl<T: Send> Adoptable for JoinHandle<T> {
    type Output = T;
    type Ended = ();

    fn abort(&mut self) {
        Self::abort(self);
    }

    fn join(&mut self, (): &mut ()) -> impl Future<Output = Result<T, JoinError>> + Send {
        self
    }
}

impl<T: Send + 'static> Adoptable for JoinSet<T> {
    type Output = Vec<T>;
    type Ended = Vec<Result<T, JoinError>>;

    fn abort(&mut self) {
        self.abort_all();
    }

    /// Gives the values in the order in which the tasks ended. After an error the rest is aborted and awaited.
    async fn join(&mut self, ended: &mut Self::Ended) -> Result<Vec<T>, JoinError> {
        while let Some(result) = self.join_next().await {
            if result.is_err() {
                self.abort_all();
            }
            ended.push(result);
        }
        let mut ended = mem::take(ended);
        // A panic says more than the end of a task that was aborted for it.
        if let Some(panicked) = ended.iter().position(|end| end.as_ref().is_err_and(JoinError::is_panic)) {
            ended.swap(0, panicked);
        }
        ended.into_iter().collect()
    }
}

/// Waits for a `JoinHandle` or `JoinSet` as a child should: a cancel aborts its tasks and waits for them.
///
/// # Cancel safety
///
/// Dropping it drops the handle as Tokio does: a `JoinHandle` detaches its task, a `JoinSet` aborts them.
///
/// # Errors
///
/// If a task panicked or was aborted by somebody else.
#[track_caller]
pub fn adopt<A: Adoptable>(tasks: A) -> impl Future<Output = Result<A::Output, JoinError>> {
    join_or_abort(tasks, Location::caller())
}

async fn join_or_abort<A: Adoptable>(mut tasks: A, place: &'static Location<'static>) -> Result<A::Output, JoinError> {
    let mut ended = A::Ended::default();
    let all = match select(pin!(tasks.join(&mut ended)), cancelled()).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    };
    if let Some(result) = all {
        return result;
    }
    tasks.abort();
    let result = ScopedShield::at(place, tasks.join(&mut ended)).await;
    if result.as_ref().is_err_and(JoinError::is_cancelled) {
        checkpoint().await; // The end of it, unless the cancel was taken back: then it is an error like any other.
    }
    result
}

#[cfg(feature = "interop")]
mod token {
    use std::future::Future;

    use futures_util::future::select;
    use tokio::sync::oneshot;
    use tokio_util::sync::CancellationToken;

    use crate::error::Cancelled;
    use crate::host::root;
    use crate::scope::{CancelScope, ScopeHandle};

    impl ScopeHandle {
        /// Returns a token that is cancelled when this scope is, by itself or by a scope outside. Cancelling the token does not
        /// cancel the scope. A shield that is raised later does not take a token's cancel back: a token has no way to.
        ///
        /// A task of the calling code's runtime serves it; it ends with the scope's cancel or with that runtime.
        ///
        /// # Panics
        ///
        /// Outside of a Tokio runtime.
        pub fn to_token(&self) -> CancellationToken {
            let token = CancellationToken::new();
            let (theirs, cancelled) = (token.clone(), self.cancelled());
            serve(async move {
                cancelled.await;
                theirs.cancel();
            });
            token
        }
    }

    /// Runs what listens to a token or to a scope for the other.
    ///
    /// # Panics
    ///
    /// Outside of a runtime nobody would.
    fn serve(listening: impl Future<Output = ()> + Send + 'static) {
        let root = root();
        let host = root.host().filter(|host| host.handle.is_some());
        host.expect("a task of a Tokio runtime serves the token: this has to be called inside of one").spawn(listening);
    }

    /// Runs `fut` in a scope that is cancelled when `token` is, whether or not it is being polled then.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `fut` where it stands, as [`Scoped`](crate::Scoped) does.
    ///
    /// # Panics
    ///
    /// The future panics outside of a Tokio runtime.
    ///
    /// # Errors
    ///
    /// The future gives `Err` if the token cut `fut` off. A cancel from outside is not taken for that.
    #[track_caller]
    pub fn run_until_token<F: Future>(
        token: CancellationToken,
        fut: F,
    ) -> impl Future<Output = Result<F::Output, Cancelled>> {
        let scope = CancelScope::new();
        let handle = scope.handle();
        async move {
            if token.is_cancelled() {
                handle.cancel("its token was cancelled");
            }
            let (running, ended) = oneshot::channel::<()>();
            serve(async move {
                select(std::pin::pin!(token.cancelled()), ended).await;
                if token.is_cancelled() {
                    handle.cancel("its token was cancelled");
                }
            });
            let result = scope.run(fut).await;
            drop(running);
            result
        }
    }
}

#[cfg(feature = "interop")]
pub use token::run_until_token;
