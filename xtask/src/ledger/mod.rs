//! The ledger seen from outside: beside its peers, over rolling restarts, in a browser.

mod page;
mod rolls;

use std::process::Command;

use super::{Result, run, step};

/// The table of the ledger and its peers.
pub(crate) fn peers() -> Result {
    step("build --release -q -p ledger -p ledger-peers", "")?;
    step("run --release -q -p ledger-peers --bin ledger-peers", "")
}

/// So many rolling restarts under load.
pub(crate) fn rolls(count: &str) -> Result {
    let count = count.parse().map_err(|_| format!("`{count}` is no number of rolls: give one such as 10"))?;
    install("wrk", "wrk")?;
    step("build --release -q -p ledger", "")?;
    rolls::rolls(count)
}

/// `/tasks` in a browser.
pub(crate) fn page() -> Result {
    install("chromium", "chromium")?;
    step("build --release -q -p ledger", "")?;
    page::page()
}

/// So many signal storms; the gate has ten.
pub(crate) fn storms(count: &str) -> Result {
    run(super::cargo("test --release -q -p ledger --test process storm -- --nocapture").env("LEDGER_STORMS", count))
}

/// Installs a package of Debian if its program is missing.
fn install(program: &str, package: &str) -> Result {
    let is_there = Command::new("which").arg(program).output().is_ok_and(|output| output.status.success());
    if !is_there {
        run(Command::new("apt-get").args(["update", "-q"]))?;
        run(Command::new("apt-get").args(["install", "-q", "-y", "--no-install-recommends", package]))?;
    }
    Ok(())
}
