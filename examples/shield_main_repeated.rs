//! The runner shields main from any number of cancels, by name and by handle.

use std::process::ExitCode;
use std::time::Duration;

use testudo::{ExitPolicy, Runner, TaskRef, cancel, current_task, spawn};
use tokio::time::sleep;

async fn other_task(main: TaskRef) {
    for n in 0..5 {
        println!("Canceling task: {main}");
        let result = match n {
            0 => cancel("main", "first by name").expect("one task is named main"),
            _ => main.cancel("then by handle"),
        };
        println!("Cancellation successful: {result}");
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_millis(500)).await;
    println!("Other task done.");
}

async fn main_task() {
    println!("Main is running");
    spawn(other_task(current_task().expect("main is a task")));
    sleep(Duration::from_secs(2)).await;
    println!("Main is done.");
}

fn main() -> ExitCode {
    Runner::new().shield_main(true).exit_policy(ExitPolicy::Main).run_and_exit(main_task())
}
