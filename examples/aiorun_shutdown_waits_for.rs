//! Task shielding as with asyncio and aiorun: what is in a shield, shutdown waits for.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use testudo::{ExitPolicy, Runner, catch_cancelled, shield, spawn};
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
        Err(_) => println!("[{n}] Canceled!"),
    }
}

async fn main_task(length: Duration) {
    println!("PID: {}", std::process::id());
    let mut tasks = Vec::new();
    // Spawn tasks that shutdown waits for …
    tasks.extend((0..3).map(|n| spawn(shield(work(n, length)))));
    // … and tasks without a shield, for comparison.
    tasks.extend((3..6).map(|n| spawn(work(n, length))));
    for task in tasks {
        drop(task.await);
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    Runner::new()
        .exit_policy(ExitPolicy::Main)
        .on_stop(|_| println!("Stopping the loop"))
        .run_and_exit(main_task(Duration::from_secs_f64(args.seconds)))
}
