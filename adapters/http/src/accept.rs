//! Accepting connections until the run, or whoever started the server, wants it to stop.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use testudo::Participant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use crate::listener::{Listener, Peer};

/// How long is waited after an error before the next try; doubled each time, and halved by each connection.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often it is said: at the limit, each connection that ends lets one in.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// A listener with its gates.
pub(crate) struct Accepting<'a, L> {
    pub(crate) listener: L,
    pub(crate) part: Option<&'a Participant>,
    pub(crate) stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    pub(crate) room: Option<Arc<Semaphore>>,
    pub(crate) name: Arc<str>,
    pub(crate) pause: Duration,
    /// When errors were last warned of.
    pub(crate) warned: Option<Instant>,
}

/// A connection, and the room that it takes.
pub(crate) type Accepted<L> = (<L as Listener>::Io, Peer, Option<OwnedSemaphorePermit>);

impl<'a, L: Listener> Accepting<'a, L> {
    /// The next connection; none when accepting has ended.
    pub(crate) async fn next(&mut self) -> Option<Accepted<L>> {
        loop {
            let room = self.room.clone();
            let accept = async {
                let room = match room {
                    Some(room) => room.acquire_owned().await.ok(),
                    None => None,
                };
                self.listener.accept().await.map(|(io, peer)| (io, peer, room))
            };
            match gated(self.part, &mut self.stop, accept).await? {
                Ok(accepted) => {
                    self.pause /= 2;
                    return Some(accepted);
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    let pause = self.back_off(&error);
                    gated(self.part, &mut self.stop, tokio::time::sleep(pause)).await?;
                }
            }
        }
    }

    /// A connection that waits in the queue of the listener, which would be reset with that.
    pub(crate) async fn left(&mut self) -> Option<Accepted<L>> {
        loop {
            // A queue that is longer than Tokio's coop budget would look empty.
            let mut accept = pin!(unconstrained(self.listener.accept()));
            let looked = poll_fn(|cx| Poll::Ready(accept.as_mut().poll(cx))).await;
            match looked {
                Poll::Ready(Ok((io, peer))) => return Some((io, peer, None)),
                Poll::Ready(Err(error)) if is_of_the_peer(&error) => {}
                Poll::Ready(Err(_)) | Poll::Pending => return None,
            }
        }
    }

    /// Out of file descriptors, for instance: connections that end give some back.
    fn back_off(&mut self, error: &io::Error) -> Duration {
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            testudo::warn(format!("server `{}` can not accept connections, and goes on trying: {error}", self.name));
        }
        self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
        self.pause
    }
}

/// Waits for `fut`, unless accepting ends.
async fn gated<F: Future>(
    part: Option<&Participant>,
    stop: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    fut: F,
) -> Option<F::Output> {
    let mut fut = pin!(async {
        match part {
            Some(part) => part.accept(fut).await,
            None => Some(fut.await),
        }
    });
    poll_fn(|cx| match stop.as_mut().map(|stop| stop.as_mut().poll(cx)) {
        Some(Poll::Ready(())) => Poll::Ready(None),
        Some(Poll::Pending) | None => fut.as_mut().poll(cx),
    })
    .await
}

/// Whether the next connection may be well.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted].contains(&error.kind())
}
