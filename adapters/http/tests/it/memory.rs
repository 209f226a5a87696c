//! Pipes in place of sockets, so that time can be paused.

use std::io;

use testudo_http::{Listener, Peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

/// The side of the clients.
#[derive(Clone)]
pub(crate) struct Clients(mpsc::UnboundedSender<io::Result<DuplexStream>>);

/// The side of the server.
pub(crate) struct Queue(mpsc::UnboundedReceiver<io::Result<DuplexStream>>);

pub(crate) fn queue() -> (Clients, Queue) {
    let (send, receive) = mpsc::unbounded_channel();
    (Clients(send), Queue(receive))
}

impl Clients {
    pub(crate) fn connect(&self) -> DuplexStream {
        let (near, far) = duplex(64 << 10);
        self.0.send(Ok(far)).unwrap();
        near
    }

    pub(crate) fn fail(&self, error: io::Error) {
        self.0.send(Err(error)).unwrap();
    }

    pub(crate) async fn send(&self, bytes: &[u8]) -> DuplexStream {
        let mut stream = self.connect();
        stream.write_all(bytes).await.unwrap();
        stream
    }
}

/// All that comes until the end of the connection.
pub(crate) async fn read_all(mut stream: DuplexStream) -> String {
    let mut text = String::new();
    drop(stream.read_to_string(&mut text).await);
    text
}

impl Listener for Queue {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Peer)> {
        match self.0.recv().await {
            Some(accepted) => Ok((accepted?, Peer::named("pipe"))),
            None => std::future::pending().await,
        }
    }
}
