//! Both ways between this crate and Tokio's own handles: join handles, join sets, `tokio_util`'s tokens.

use std::future::Future;
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

    /// Asks all tasks to end: dropped at their next suspension.
    fn abort(&mut self);

    /// Waits for all tasks.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses the values that it has collected so far; the tasks are not touched.
    fn join(&mut self) -> impl Future<Output = Result<Self::Output, JoinError>> + Send;
}

impl<T: Send> Adoptable for JoinHandle<T> {
    type Output = T;

    fn abort(&mut self) {
        Self::abort(self);
    }

    fn join(&mut self) -> impl Future<Output = Result<T, JoinError>> + Send {
        self
    }
}

impl<T: Send + 'static> Adoptable for JoinSet<T> {
    type Output = Vec<T>;

    fn abort(&mut self) {
        self.abort_all();
    }

    /// Gives the values in the order in which the tasks ended. After an error the rest is aborted and awaited.
    async fn join(&mut self) -> Result<Vec<T>, JoinError> {
        let mut values = Vec::with_capacity(self.len());
        let mut failed = None;
        while let Some(result) = self.join_next().await {
            match result {
                Ok(value) => values.push(value),
                Err(error) => {
                    failed.get_or_insert(error);
                    self.abort_all();
                }
            }
        }
        failed.map_or(Ok(values), Err)
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
    let ended = match select(pin!(tasks.join()), cancelled()).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    };
    if let Some(result) = ended {
        return result;
    }
    tasks.abort();
    let result = ScopedShield::at(place, tasks.join()).await;
    if result.as_ref().is_err_and(JoinError::is_cancelled) {
        checkpoint().await; // The end of it, unless the cancel was taken back: then it is an error like any other.
    }
    result
}

#[cfg(feature = "interop")]
mod token {
    use std::future::Future;
    use std::sync::Arc;

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
        pub fn to_token(&self) -> CancellationToken {
            let token = CancellationToken::new();
            let (theirs, cancelled) = (token.clone(), self.cancelled());
            if let Some(host) = root().host() {
                host.spawn(async move {
                    cancelled.await;
                    theirs.cancel();
                });
            }
            token
        }
    }

    /// Runs `fut` in a scope that is cancelled when `token` is, whether or not it is being polled then.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `fut` where it stands, as [`Scoped`](crate::Scoped) does.
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
            let (running, ended) = oneshot::channel::<()>();
            if let Some(host) = root().host().map(Arc::clone) {
                host.spawn(async move {
                    select(std::pin::pin!(token.cancelled()), ended).await;
                    if token.is_cancelled() {
                        handle.cancel("its token was cancelled");
                    }
                });
            }
            let result = scope.run(fut).await;
            drop(running);
            result
        }
    }
}

#[cfg(feature = "interop")]
pub use token::run_until_token;
