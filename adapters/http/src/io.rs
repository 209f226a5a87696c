//! The bytes of a connection, watched: what has come, when it is over, and cut off from outside.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::doing::Doing;

/// A connection. Whoever has it last, hyper or the code that an upgrade was given to, its end is seen.
pub(crate) struct Watched<I> {
    io: I,
    doing: Arc<Doing>,
    knife: Arc<Knife>,
    /// Closed when this is dropped.
    _alive: watch::Sender<()>,
}

/// The other end of a [`Watched`], in the task of the connection.
///
/// # Drop
///
/// Cuts the connection off: reading and writing give errors from then on.
pub(crate) struct Leash {
    knife: Arc<Knife>,
    alive: watch::Receiver<()>,
}

#[derive(Default)]
struct Knife(Mutex<Edge>);

#[derive(Default)]
struct Edge {
    is_cut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl<I> Watched<I> {
    pub(crate) fn new(io: I, doing: &Arc<Doing>) -> (Self, Leash) {
        let knife = Arc::<Knife>::default();
        let (send, alive) = watch::channel(());
        let leash = Leash { knife: Arc::clone(&knife), alive };
        (Self { io, doing: Arc::clone(doing), knife, _alive: send }, leash)
    }
}

impl Leash {
    /// Waits until nobody has the connection any more.
    pub(crate) async fn wait_gone(&mut self) {
        while self.alive.changed().await.is_ok() {}
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.alive.has_changed().is_err()
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        let mut edge = self.knife.0.lock().unwrap_or_else(PoisonError::into_inner);
        edge.is_cut = true;
        let wakers = [edge.reader.take(), edge.writer.take()];
        drop(edge);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Knife {
    /// Looks whether it was cut, and asks to be woken when it is.
    fn check(&self, cx: &Context<'_>, side: impl FnOnce(&mut Edge) -> &mut Option<Waker>) -> io::Result<()> {
        let mut edge = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if edge.is_cut {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has ended this connection"));
        }
        let slot = side(&mut edge);
        if slot.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *slot = Some(cx.waker().clone());
        }
        Ok(())
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.knife.check(cx, |edge| &mut edge.reader)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if let [_, ..] = &buf.filled()[before..] {
            this.doing.read(&buf.filled()[before..]);
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> Watched<I> {
    fn write<R>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut I>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        let this = &mut *self;
        this.knife.check(cx, |edge| &mut edge.writer)?;
        let written = write(Pin::new(&mut this.io), cx);
        this.doing.set_write_blocked(written.is_pending());
        written
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |io, cx| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, |io, cx| io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, |io, cx| io.poll_shutdown(cx))
    }
}
