//! A task finds main among all tasks and cancels it.

use std::process::ExitCode;
use std::time::Duration;

use testudo::{ExitPolicy, Runner, all_tasks, catch_cancelled, spawn};
use tokio::time::sleep;

async fn other_task() {
    for task in all_tasks() {
        if &*task.name() == "main" {
            println!("Canceling task: {task}");
            let result = task.cancel("the other task says so");
            println!("Cancellation successful: {result}");
        }
    }
    sleep(Duration::from_secs(1)).await;
    println!("Other task done.");
}

async fn main_task() {
    println!("Main is running");
    spawn(other_task());
    match catch_cancelled(sleep(Duration::from_secs(2))).await {
        Ok(()) => println!("Main is done."),
        Err(_) => println!("Main task cancelled"),
    }
}

fn main() -> ExitCode {
    // On one thread, as an event loop: here nobody speaks before `cancel` has returned.
    Runner::new().current_thread().exit_policy(ExitPolicy::Main).run_and_exit(main_task())
}
