//! The ledger seen from outside: beside its peers, over rolling restarts, in a browser.

mod page;
mod rolls;

use std::process::Command;

use crate::{Result, cargo, run, step, target};

/// The table of the ledger and its peers.
pub(crate) fn peers() -> Result {
    step("build --release -q -p ledger -p ledger-peers", "")?;
    step("run --release -q -p ledger-peers --bin ledger-peers", "")
}

/// So many rolling restarts under load.
pub(crate) fn rolls(count: &str) -> Result {
    let count = count.parse().map_err(|_| format!("`{count}` is no number of rolls: give one such as 10"))?;
    install("wrk")?;
    step("build --release -q -p ledger", "")?;
    rolls::rolls(&target("release/ledger"), count)
}

/// `/tasks` in a browser.
pub(crate) fn page() -> Result {
    install("chromium")?;
    step("build --release -q -p ledger", "")?;
    page::page(&target("release/ledger"))
}

/// The short form of both for the gate, with the program that its tests have built.
pub(crate) fn from_outside() -> Result {
    install("wrk")?;
    install("chromium")?;
    step("build -q --workspace --all-features --bin ledger", "")?;
    rolls::rolls(&target("debug/ledger"), 2)?;
    page::page(&target("debug/ledger"))
}

/// So many signal storms; the gate has ten.
pub(crate) fn storms(count: &str) -> Result {
    run(cargo("test --release -q -p ledger --test process storm -- --nocapture").env("LEDGER_STORMS", count))
}

/// Installs a program from Debian's package of that name if it is missing.
fn install(program: &str) -> Result {
    let is_there = Command::new("which").arg(program).output().is_ok_and(|output| output.status.success());
    if !is_there {
        run(Command::new("apt-get").args(["update", "-q"]))?;
        run(Command::new("apt-get").args(["install", "-q", "-y", "--no-install-recommends", program]))?;
    }
    Ok(())
}
