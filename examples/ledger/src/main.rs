//! A ledger over HTTP that loses nothing, whatever stops it.

use std::process::ExitCode;

use clap::Parser;
use ledger::options::Options;
use ledger::program::{complain, run};

fn main() -> ExitCode {
    run(&Options::parse()).unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}
