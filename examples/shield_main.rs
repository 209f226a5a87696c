//! The runner shields main from a cancel.

use std::process::ExitCode;
use std::time::Duration;

use testudo::{ExitPolicy, Runner, all_tasks, spawn};
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
    sleep(Duration::from_secs(2)).await;
    println!("Main is done.");
}

fn main() -> ExitCode {
    Runner::new().shield_main(true).exit_policy(ExitPolicy::Main).run_and_exit(main_task())
}
