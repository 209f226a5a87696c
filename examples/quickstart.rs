//! Press Ctrl-C: what is shielded ends its work, everything else stops at once.

use std::time::Duration;

use testudo::{catch_cancelled, nursery, shield};
use tokio::time::sleep;

async fn work(name: &'static str, seconds: u64) {
    println!("{name} begins");
    match catch_cancelled(sleep(Duration::from_secs(seconds))).await {
        Ok(()) => println!("{name} is done"),
        Err(why) => println!("{name} is {why}"),
    }
}

#[testudo::main]
async fn main() {
    println!("Press Ctrl-C once to stop, twice to see what is being waited for, three times to leave at once.");
    let tasks = nursery(|n| async move {
        for (name, seconds) in [("payment", 6), ("upload", 8), ("journal", 10)] {
            n.task().name(name).spawn(shield(work(name, seconds)));
        }
        for name in ["ticker", "cache", "poller"] {
            n.task().name(name).spawn(work(name, 60));
        }
    });
    // Cancelled or not: when the nursery has ended, all of its tasks have.
    drop(catch_cancelled(tasks).await);
    println!("everything has ended");
}
