//! The ledger by Tokio's own recipe: a token that says when, a tracker that says whether all have ended. As in the topic "Graceful
//! Shutdown" of its guide, and with axum's graceful shutdown for the connections.

use std::future::IntoFuture;

use clap::Parser;
use ledger::transfer::Cover;
use ledger_peers::{Error, Options, begin, stop_signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let options = Options::parse();
    let (token, tracker) = (CancellationToken::new(), TaskTracker::new());
    let (listener, app) = begin(&options, if options.in_task { in_task(&tracker) } else { Cover::none() })?;
    let stop = token.clone().cancelled_owned();
    let server = tracker.spawn(axum::serve(listener, app).with_graceful_shutdown(stop).into_future());
    stop_signal().await?;
    token.cancel();
    tracker.close();
    tracker.wait().await;
    Ok(server.await??)
}

fn in_task(tracker: &TaskTracker) -> Cover {
    let tracker = tracker.clone();
    Cover::new(move |work, _| {
        let task = tracker.spawn(work);
        Box::pin(async { task.await.expect("a transfer does not panic") })
    })
}
