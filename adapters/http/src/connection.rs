//! One connection, from its acceptance to its end.

use std::fmt::Display;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use testudo::{CancelScope, is_cancelled};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout};

use crate::BoxError;
use crate::doing::Doing;
use crate::executor::Executor;
use crate::io::{Leash, Watched};
use crate::server::{Gate, Tally};

/// What a connection needs besides its bytes and its service.
pub(crate) struct Connection {
    pub(crate) http: auto::Builder<Executor>,
    pub(crate) doing: Arc<Doing>,
    pub(crate) leash: Leash,
    pub(crate) gate: Arc<Gate>,
    pub(crate) head_timeout: Duration,
    pub(crate) linger: Duration,
    /// When it was accepted. It is not told to end before it is as old as the linger: its first request is on its way.
    pub(crate) born: Instant,
    pub(crate) ending: Ending<Arc<Doing>>,
}

/// How the talk with a peer has ended.
enum End {
    Own,
    /// By the linger, with half of a head read, or without the goodbye of an HTTP/2 peer.
    Closed,
}

/// Notes a connection, or a stream of one, that is cut off.
pub(crate) struct Ending<D: Display> {
    tally: Arc<Tally>,
    peer: Arc<str>,
    doing: D,
    is_over: bool,
}

impl<D: Display> Ending<D> {
    pub(crate) fn new(tally: &Arc<Tally>, peer: &Arc<str>, doing: D) -> Self {
        Self { tally: Arc::clone(tally), peer: Arc::clone(peer), doing, is_over: false }
    }

    pub(crate) fn set_over(mut self) {
        self.is_over = true;
    }
}

impl<D: Display> Drop for Ending<D> {
    fn drop(&mut self) {
        // A handler that has panicked took it along; that is reported by itself.
        if !self.is_over && !std::thread::panicking() {
            self.tally.note_cut(format!("{} [{}]", self.peer, self.doing));
        }
    }
}

impl Connection {
    pub(crate) async fn run<I, S, R>(mut self, io: Watched<I>, service: S)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<R>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        R: Body + Send + 'static,
        R::Data: Send,
        R::Error: Into<BoxError>,
    {
        if let End::Closed = self.serve(io, service).await {
            // Noted as cut off, by what it is doing still.
            return;
        }
        if !self.leash.is_gone() {
            self.doing.set_upgraded();
            self.leash.wait_gone().await;
        }
        self.ending.set_over();
    }

    async fn serve<I, S, R>(&self, io: Watched<I>, service: S) -> End
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<R>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        R: Body + Send + 'static,
        R::Data: Send,
        R::Error: Into<BoxError>,
    {
        let mut conn = pin!(self.http.serve_connection_with_upgrades(TokioIo::new(io), service));
        let mut hold = Hold { doing: &self.doing, scope: None };
        let mut stop = pin!(self.gate.wait_stop());
        let mut mute = pin!(self.mute());
        let stops = poll_fn(|cx| {
            // Its errors are those of its peer: nothing can be done about them here.
            if conn.as_mut().poll(cx).is_ready() || mute.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            hold.poll(cx);
            stop.as_mut().poll(cx).map(|()| true)
        });
        if !stops.await {
            return End::Own;
        }
        let mut young = pin!(timeout(self.linger.saturating_sub(self.born.elapsed()), self.doing.wait_begun()));
        let ended = poll_fn(|cx| {
            if conn.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            hold.poll(cx);
            young.as_mut().poll(cx).map(|_| false)
        });
        if ended.await {
            return End::Own;
        }
        conn.as_mut().graceful_shutdown();
        let mut quiet = pin!(quiet_for(self.linger, &self.doing));
        poll_fn(|cx| {
            if conn.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Own);
            }
            hold.poll(cx);
            let closed = if self.doing.is_in_the_middle() { End::Closed } else { End::Own };
            quiet.as_mut().poll(cx).map(|()| closed)
        })
        .await
    }

    /// Waits until a peer has taken too long to say which protocol it speaks: hyper's own clock begins after that.
    async fn mute(&self) {
        sleep(self.head_timeout).await;
        if !self.doing.is_unknown() {
            pending().await
        }
    }
}

/// Waits until nothing has happened for so long that anybody would miss the connection: half of a head, or an HTTP/2 peer that does not
/// acknowledge the goodbye, would keep it for ever. A head that is complete in time is served.
async fn quiet_for(length: Duration, doing: &Doing) {
    let mut changes = doing.changed.subscribe();
    loop {
        changes.mark_unchanged();
        let is_quiet = doing.is_quiet();
        // The sender is in `doing`.
        let change = changes.changed();
        if !is_quiet {
            drop(change.await);
        } else if timeout(length, change).await.is_err() {
            return;
        }
    }
}

/// Keeps a cancelled HTTP/2 connection for as long as streams of it are alive: they are tasks, shields may hold in them, and their
/// answers go out through it.
struct Hold<'a> {
    doing: &'a Arc<Doing>,
    scope: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Hold<'_> {
    /// To be called when the connection has nothing more to do for now.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if !is_cancelled() {
            return;
        }
        self.doing.freeze();
        if self.doing.has_streams() {
            let doing = Arc::clone(self.doing);
            self.scope.get_or_insert_with(|| {
                let streams = CancelScope::new().name("streams").shielded(true).run(wait_streams(doing));
                Box::pin(async { drop(streams.await) })
            });
        }
        if let Some(scope) = &mut self.scope {
            if scope.as_mut().poll(cx).is_ready() {
                self.scope = None;
            }
        }
    }
}

async fn wait_streams(doing: Arc<Doing>) {
    let mut changes = doing.changed.subscribe();
    while doing.has_streams() {
        // The sender is in `doing`.
        drop(changes.changed().await);
    }
}
