//! The layer in axum, over real TCP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use testudo::{Runner, shutdown, shutdown_requested, take_part};
use testudo_tower::{OnDisconnect, RequestLayer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::support::wait_dump;

/// How a client leaves.
#[derive(Clone, Copy)]
enum Leaves {
    /// It closes the connection.
    Closes,
    /// It says that it sends no more, and waits.
    HalfCloses,
}

/// Has the client leave in the middle of `POST /transfer`, stops the run, and lets the handler go on then. Gives whether it came to its end,
/// and the tasks that ended of their own.
fn disconnect(layer: Option<RequestLayer>, leaves: Leaves) -> (bool, Vec<String>) {
    let (done, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
    let (told, went_on) = (Arc::clone(&done), Arc::clone(&go_on));
    let transfer = move || async move {
        went_on.notified().await;
        told.store(true, Ordering::Relaxed);
    };
    let app = Router::new().route("/transfer", post(transfer));
    let app = match layer.clone() {
        Some(layer) => app.layer(layer),
        None => app,
    };
    let runner = Runner::new().reporter(None).budget(Duration::from_secs(20));
    let finished = runner.run(async move {
        let _part = take_part();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serve = axum::serve(listener, app).with_graceful_shutdown(async { drop(shutdown_requested().await) });
        let server = testudo::spawn(async move { serve.await });
        let mut client = TcpStream::connect(address).await?;
        client.write_all(b"POST /transfer HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await?;
        if layer.is_some() {
            wait_dump("task POST /transfer [working]").await;
        }
        let _kept = match leaves {
            Leaves::Closes => {
                drop(client);
                None
            }
            Leaves::HalfCloses => {
                client.shutdown().await?;
                Some(client)
            }
        };
        if layer.is_some() {
            wait_dump("task POST /transfer [its client is gone]").await;
        }
        shutdown("the test is over");
        drop(server.await);
        go_on.notify_one();
        Ok::<_, std::io::Error>(())
    });
    let stop = finished.report.stop().expect("it was stopped");
    (done.load(Ordering::Relaxed), stop.finished().iter().map(ToString::to_string).collect())
}

#[test]
fn a_shutdown_waits_for_a_request_without_a_client_and_names_it() {
    for leaves in [Leaves::Closes, Leaves::HalfCloses] {
        let (done, finished) = disconnect(Some(RequestLayer::new(OnDisconnect::Finish)), leaves);
        assert!(done, "the handler was cut off");
        assert!(finished.iter().any(|who| who.contains("`POST /transfer`")), "{finished:?}");
    }
}

#[test]
fn without_the_layer_the_handler_is_dropped() {
    assert!(!disconnect(None, Leaves::Closes).0, "then the layer is needed no more");
}
