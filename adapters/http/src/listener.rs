//! Where connections come from.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// Gives connections to a [server](crate::serve), one after the other. A listener for TLS does its handshake in the task of the connection,
/// inside of what it gives, not in `accept`.
pub trait Listener: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future must lose no connection: the server drops it when accepting ends.
    ///
    /// # Errors
    ///
    /// After any error the server goes on accepting: at once if it was one of the peer (aborted, refused, reset, interrupted), else a little
    /// later.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, Peer)>> + Send;
}

impl Listener for TcpListener {
    type Io = tokio::net::TcpStream;

    async fn accept(&mut self) -> io::Result<(Self::Io, Peer)> {
        let (stream, address) = TcpListener::accept(self).await?;
        // Answers are written in one piece, so there is nothing to wait for. If it fails, the connection is slower, or gone.
        stream.set_nodelay(true).unwrap_or_default();
        Ok((stream, Peer::from(address)))
    }
}

#[cfg(unix)]
impl Listener for tokio::net::UnixListener {
    type Io = tokio::net::UnixStream;

    async fn accept(&mut self) -> io::Result<(Self::Io, Peer)> {
        let (stream, _) = tokio::net::UnixListener::accept(self).await?;
        Ok((stream, Peer::named("unix")))
    }
}

/// Who is at the other end of a connection: an extension of each of its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    name: Arc<str>,
    address: Option<SocketAddr>,
}

impl Peer {
    /// Somebody without an address.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), address: None }
    }

    /// Returns the address, if there is one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self { name: address.to_string().into(), address: Some(address) }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}
