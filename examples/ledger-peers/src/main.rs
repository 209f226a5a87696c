//! One table: the ledger and its peers under the same load and the same signal.

mod table;
mod trial;

use std::process::ExitCode;

use crate::table::Row;
use crate::trial::{Server, Trial};

/// Each as its own documentation has it. `in_task` is what its users write by hand, so that a transfer goes on without its client.
const SERVERS: [Server; 8] = [
    Server { name: "testudo", program: "ledger", args: &["--port", "0"] },
    Server { name: "testudo, unshielded", program: "ledger", args: &["--port", "0", "--unshielded"] },
    Server { name: "tokio recipe", program: "tokio_recipe", args: &[] },
    Server { name: "tokio recipe, transfers in tasks", program: "tokio_recipe", args: &["--in-task"] },
    Server { name: "tokio-graceful-shutdown", program: "graceful_shutdown", args: &[] },
    Server { name: "tokio-graceful-shutdown, transfers in tasks", program: "graceful_shutdown", args: &["--in-task"] },
    Server { name: "swansong", program: "with_swansong", args: &[] },
    Server { name: "swansong, transfers in tasks", program: "with_swansong", args: &["--in-task"] },
];

fn main() -> ExitCode {
    let mut rows = Vec::new();
    for server in &SERVERS {
        let run = |has_stalled| Trial { server, has_stalled }.run();
        match run(false).and_then(|plain| Ok((plain, run(true)?))) {
            Ok((plain, stalled)) => rows.push(Row { name: server.name, plain, stalled }),
            Err(error) => {
                eprintln!("{}: {error}", server.name);
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{}", table::of(&rows));
    ExitCode::SUCCESS
}
