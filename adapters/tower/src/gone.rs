//! The word that the client of a request has gone.

use std::fmt;

use tokio::sync::watch;

/// Tells a request that nobody waits for its answer any more; the [layer](crate::RequestLayer) puts it among the extensions.
///
/// It is a hint: a server learns of a disconnect only while it reads from the connection, so a client can be gone for long before it
/// is said. A client whose answer is being streamed is gone when the stream is dropped before its end.
///
/// # Examples
///
/// ```
/// # use testudo_tower::ClientGone;
/// async fn report(request: http::Request<()>) {
///     let gone = request.extensions().get::<ClientGone>().cloned();
///     for part in 0..1000 {
///         if gone.as_ref().is_some_and(ClientGone::is_gone) {
///             return; // Nobody is going to read it.
///         }
///         // … the next part …
///         # drop(part);
///     }
/// }
/// ```
#[derive(Clone)]
pub struct ClientGone(watch::Receiver<bool>);

impl ClientGone {
    /// True if the client has gone before it had all of its answer.
    pub fn is_gone(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the client has gone; for ever, if it gets its answer.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop and to call again: nothing is lost.
    pub async fn wait_gone(&self) {
        if self.0.clone().wait_for(|gone| *gone).await.is_err() {
            std::future::pending().await
        }
    }
}

impl fmt::Debug for ClientGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientGone").field(&self.is_gone()).finish()
    }
}

/// Says that the client has gone when it is dropped, unless the answer was given.
#[derive(Debug)]
pub(crate) struct Waiting(Option<watch::Sender<bool>>);

impl Waiting {
    pub(crate) fn new() -> (Self, ClientGone) {
        let (send, receive) = watch::channel(false);
        (Self(Some(send)), ClientGone(receive))
    }

    pub(crate) fn answered(&mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(send) = &self.0 {
            send.send_replace(true);
        }
    }
}
