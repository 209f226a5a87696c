//! Where the task of a request belongs.

use std::fmt;

use testudo::Nursery;

use crate::BoxError;

/// The nursery of the server that has read a request: an extension of the request.
///
/// What a handler spawns into it belongs to the server: the server's end waits for it, and its shutdown cancels and names it. It is
/// for work that outlives the request, such as the task of a WebSocket.
///
/// # Examples
///
/// ```
/// # use testudo_tower::Owner;
/// async fn follow(request: http::Request<()>) {
///     if let Some(owner) = request.extensions().get::<Owner>() {
///         let mail = async { /* … */ };
///         owner.nursery().task().name("mail").spawn(mail);
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Owner(Nursery<BoxError>);

impl Owner {
    /// Offers a nursery. It should [supervise](testudo::Policy::Supervise), or the panic of one request cancels all others.
    pub fn new(nursery: Nursery<BoxError>) -> Self {
        Self(nursery)
    }

    /// Returns the nursery.
    pub fn nursery(&self) -> &Nursery<BoxError> {
        &self.0
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Owner").field(&self.0).finish()
    }
}
