//! The ledger under `swansong`: a guard for the server and for each transfer, and a report of the guards that are left when the
//! shutdown stalls. As in its documentation.

use std::future::IntoFuture;
use std::time::Duration;

use clap::Parser;
use ledger::transfer::Cover;
use ledger_peers::{Error, Options, announce, begin, stop_signal};
use swansong::Swansong;
use tokio::task::JoinSet;
use tokio::time::timeout;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let options = Options::parse();
    let swansong = Swansong::with_guard_report();
    let (listener, app) = begin(&options, cover(&swansong, options.in_task))?;
    let server = axum::serve(listener, app).with_graceful_shutdown(swansong.shutting_down().into_future());
    let mut tasks = JoinSet::new();
    tasks.spawn(swansong.guarded(server.into_future()));
    stop_signal().await?;
    let mut end = swansong.shut_down().into_future();
    while timeout(Duration::from_secs(5), &mut end).await.is_err() {
        announce(&swansong.guard_report());
    }
    Ok(())
}

fn cover(swansong: &Swansong, in_task: bool) -> Cover {
    let swansong = swansong.clone();
    Cover::new(move |work, _| {
        let guarded = swansong.guarded(work);
        if !in_task {
            return Box::pin(guarded);
        }
        #[expect(clippy::disallowed_methods, reason = "it is the guard that is waited for")]
        let task = tokio::spawn(guarded);
        Box::pin(async { task.await.expect("a transfer does not panic") })
    })
}
