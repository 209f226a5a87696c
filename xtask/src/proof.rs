//! What is run by hand to see how much the tests can see: coverage, the sanitizer.

use std::env;
use std::process::Command;

use crate::{Result, cargo, root, run, target};

/// Runs the tests with counters, and says which share of the lines they have run.
pub(crate) fn coverage() -> Result {
    has("llvm-cov", "cargo install --locked cargo-llvm-cov")?;
    let tools = |command: &mut Command| {
        // Without rustup's `llvm-tools`: those of Debian, of the same version as the compiler's.
        for (key, tool) in [("LLVM_COV", "llvm-cov-22"), ("LLVM_PROFDATA", "llvm-profdata-22")] {
            if env::var_os(key).is_none() && Command::new(tool).arg("--version").output().is_ok() {
                command.env(key, tool);
            }
        }
        run(command)
    };
    let tests = "--all-features --lib --test it --test laws --test conformance --test stress --test process";
    let limits = [("PROPTEST_CASES", "48"), ("TESTUDO_SEED", "1"), ("TESTUDO_SECONDS", "20")];
    // The examples are not built with counters.
    let without = "--skip ui:: --skip examples:: --skip a_person_at_a_terminal";
    tools(cargo(&format!("llvm-cov --no-report {tests} -- {without}")).envs(limits))?;
    tools(&mut cargo("llvm-cov report"))?;
    let not_core = "/src/([a-z_]+.rs|(nursery|region|shield|shutdown|signal|testing)/.*)$|/macros/";
    tools(cargo("llvm-cov report --fail-under-lines 95").args(["--ignore-filename-regex", not_core]))
}

/// Runs the stress test under ThreadSanitizer; `TESTUDO_SECONDS` says how long.
pub(crate) fn tsan() -> Result {
    run(Command::new(root().join("tests/stress/tsan.sh")).arg(target("tsan")))
}

/// Says how to get a tool of cargo that is missing.
pub(crate) fn has(tool: &str, install: &str) -> Result {
    let is_there = cargo(tool).arg("--version").output()?.status.success();
    if is_there { Ok(()) } else { Err(format!("cargo-{tool} is missing: {install}").into()) }
}
