//! What the peers share: the ledger's own database and routes, and how they begin.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ledger::db::{self, Db};
use ledger::listen::listen;
use ledger::routes::{Ledger, routes};
use ledger::transfer::Cover;
use tokio::net::TcpListener;

/// An error of any kind, for people.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The command line of each peer.
#[derive(Debug, Parser)]
pub struct Options {
    /// The database
    #[arg(long)]
    pub db: PathBuf,
    /// Runs each transfer in a task of its own, so that it goes on without its client
    #[arg(long)]
    pub in_task: bool,
}

/// Opens the database, listens, and says where.
///
/// # Errors
///
/// If one of them can not be.
pub fn begin(options: &Options, cover: Cover) -> Result<(TcpListener, axum::Router), Error> {
    let db = Db::new(db::open(&options.db)?);
    let listener = TcpListener::from_std(listen(0, false)?)?;
    announce(&format_args!("listening on http://{}", listener.local_addr()?));
    Ok((listener, routes(Ledger { db, cover, pause: Duration::from_millis(20) })))
}

/// Waits for SIGINT or SIGTERM.
///
/// # Errors
///
/// If they can not be listened to.
pub async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = terminate.recv() => Ok(()),
    }
}

/// Prints a line.
pub fn announce(line: &dyn std::fmt::Display) {
    println!("{line}");
}
