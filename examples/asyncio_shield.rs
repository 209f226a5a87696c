//! Task shielding by hand, as with pure asyncio: flat tasks, a set of those not to cancel, a signal handler of its own.

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use testudo::{ExitPolicy, Runner, Signal, TaskRef, all_tasks, catch_cancelled, current_task, spawn};
use tokio::time::sleep;

#[derive(Parser)]
struct Args {
    /// How long one task takes.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How many tasks are shielded.
    #[arg(long, default_value_t = 3)]
    shielded: usize,
    /// How many are not.
    #[arg(long, default_value_t = 3)]
    plain: usize,
}

/// The tasks that we should not cancel.
type Shielded = Arc<Mutex<HashSet<TaskRef>>>;

/// Some random, I/O intensive work to test shielding.
async fn work(n: usize, length: Duration) {
    println!("[{n}] Task start!");
    match catch_cancelled(sleep(length)).await {
        Ok(()) => println!("[{n}] Task done!"),
        Err(_) => println!("[{n}] Canceled!"),
    }
}

fn handle(signal: Signal, shielded: &Shielded) {
    // What is cancelled here speaks after this.
    let _first = std::io::stdout().lock();
    println!("Received {signal}");
    let all = all_tasks();
    let shielded = shielded.lock().expect("nobody panics with it");
    let cancelled = all.iter().filter(|task| !shielded.contains(task)).filter(|task| task.cancel("shutting down"));
    println!("Cancelling {} out of {}", cancelled.count(), all.len());
}

async fn main_task(args: Args, shielded: Shielded) {
    println!("PID: {}", std::process::id());
    // When main has ended, all other tasks are cancelled. So main is shielded, too.
    let keep = |task| shielded.lock().expect("nobody panics with it").insert(task);
    keep(current_task().expect("main is a task"));
    let length = Duration::from_secs_f64(args.seconds);
    let mut tasks = Vec::new();
    for n in 0..args.shielded {
        tasks.push(spawn(work(n, length)));
        keep(tasks[n].as_ref());
    }
    for n in args.shielded..args.shielded + args.plain {
        tasks.push(spawn(work(n, length)));
    }
    // Main has to live until all are done, or cancelled.
    for task in tasks {
        drop(task.await);
    }
}

fn main() -> ExitCode {
    let shielded = Shielded::default();
    let handler = |shielded: Shielded| move |stop: &testudo::Stop<'_>| handle(stop.signal(), &shielded);
    Runner::new()
        .exit_policy(ExitPolicy::Main)
        .on_signal(Signal::Interrupt, handler(Arc::clone(&shielded)))
        .on_signal(Signal::Terminate, handler(Arc::clone(&shielded)))
        .run_and_exit(main_task(Args::parse(), shielded))
}
