//! P10: a web server that covers each request.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use testudo::{CancelScope, shield};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tower::util::MapFutureLayer;

use super::{BARE, OURS};
use crate::case::{Case, Laps};

/// A request and its answer through HTTP/1, over a pipe in memory.
pub const REQUEST: &str = "axum hello";

/// A layer of the same kind that does nothing: what it costs to have one at all.
const LAYER: &str = "an empty layer";

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    let covered = || hello().layer(MapFutureLayer::new(cover));
    let layered = || hello().layer(MapFutureLayer::new(pass));
    vec![requests(OURS, covered), requests(LAYER, layered), requests(BARE, hello)]
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// A scope for each request, so that it can be cancelled, and a shield in it, so that a disconnect does not end it half-way.
async fn cover<F>(request: F) -> Result<Response, Infallible>
where
    F: Future<Output = Result<Response, Infallible>> + Send + 'static,
{
    match CancelScope::new().run(shield(request)).await {
        Ok(response) => response,
        Err(_) => Ok(StatusCode::SERVICE_UNAVAILABLE.into_response()),
    }
}

async fn pass<F: Future>(request: F) -> F::Output {
    request.await
}

fn requests(by: &'static str, router: fn() -> Router) -> Case {
    Case::task(REQUEST, by, move |n| async move {
        let (mut client, server) = duplex(4096);
        let server = tokio::spawn(axum::serve(Pipe(Some(server)), router()).into_future());
        let mut answer = [0; 4096];
        let laps = Laps::start();
        for _ in 0..n {
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("the server listens");
            let mut length = 0;
            while !answer[..length].ends_with(b"hello") {
                length += client.read(&mut answer[length..]).await.expect("the server answers");
            }
        }
        server.abort();
        laps.end()
    })
}

/// Listens for the one connection that there is.
struct Pipe(Option<DuplexStream>);

impl Listener for Pipe {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.take() {
            Some(stream) => (stream, ()),
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}
