//! Task shielding as with trio: a nursery inside a shielded scope inside a nursery.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use testudo::{CancelScope, ExitPolicy, Runner, catch_cancelled, checkpoint, nursery};
use tokio::time::sleep;

#[derive(Parser)]
struct Args {
    /// How long one task takes.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// Some random, I/O intensive work to test shielding.
async fn work(n: usize, length: Duration) {
    println!("[{n}] Task start!");
    match catch_cancelled(sleep(length)).await {
        Ok(()) => println!("[{n}] Task done!"),
        Err(_) => {
            println!("[{n}] Canceled!");
            checkpoint().await; // Still cancelled, so this is the end of it: trio's `raise`.
        }
    }
}

async fn shielded(length: Duration) {
    // All tasks of a nursery inside a shielded scope are shielded.
    let tasks = nursery(move |n| async move {
        for i in 0..3 {
            n.spawn(work(i, length));
        }
    });
    drop(CancelScope::new().shielded(true).run(tasks).await);
}

async fn main_task(length: Duration) {
    println!("PID: {}", std::process::id());
    let tasks = nursery(move |n| async move {
        n.spawn(shielded(length));
        for i in 3..6 {
            n.spawn(work(i, length));
        }
    });
    // A nursery always waits until all its tasks have ended, one way or another.
    if catch_cancelled(tasks).await.is_err() {
        println!("Nursery Cancelled!");
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    Runner::new().exit_policy(ExitPolicy::Main).run_and_exit(main_task(Duration::from_secs_f64(args.seconds)))
}
