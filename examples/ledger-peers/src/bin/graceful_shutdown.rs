//! The ledger under `tokio-graceful-shutdown`: a subsystem under a top level with a timeout. As in its examples; for tasks that come
//! and go they recommend a tracker.

use std::time::Duration;

use clap::Parser;
use ledger::transfer::Cover;
use ledger_peers::{Error, Options, begin};
use tokio_graceful_shutdown::{SubsystemBuilder, SubsystemHandle, Toplevel};
use tokio_util::task::TaskTracker;

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let top = Toplevel::new(async |top: &mut SubsystemHandle| {
        top.start(SubsystemBuilder::new("ledger", serve));
    });
    Ok(top.catch_signals().handle_shutdown_requests(Duration::from_secs(5)).await?)
}

async fn serve(subsystem: &mut SubsystemHandle) -> Result<(), Error> {
    let options = Options::parse();
    let tracker = TaskTracker::new();
    let (listener, app) = begin(&options, if options.in_task { in_task(&tracker) } else { Cover::none() })?;
    let stop = subsystem.create_cancellation_token().cancelled_owned();
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    tracker.close();
    tracker.wait().await;
    Ok(())
}

fn in_task(tracker: &TaskTracker) -> Cover {
    let tracker = tracker.clone();
    Cover::new(move |work, _| {
        let task = tracker.spawn(work);
        Box::pin(async { task.await.expect("a transfer does not panic") })
    })
}
