//! `/tasks` of a ledger under load, in a headless browser that is asked what it shows.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Result, root, run, target};

/// Fails unless the page shows shielded transfers with their ages and budgets; leaves pictures of it in the target folder.
pub(super) fn page(program: &Path) -> Result {
    let folder = target("ledger-page");
    fs::create_dir_all(&folder)?;
    if !folder.join("node_modules/playwright-core").exists() {
        // It drives the browser that is there, and brings none.
        run(Command::new("npm")
            .args(["install", "--silent", "--no-save", "--prefix"])
            .arg(&folder)
            .arg("playwright-core@1"))?;
    }
    let script = folder.join("page.mjs");
    fs::copy(root().join("examples/ledger/tests/page.mjs"), &script)?;
    let mut ledger = Command::new(program)
        .args(["--load", "6", "--pause", "1500", "--seconds", "60"])
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(ledger.stdout.take().ok_or("stdout is piped")?).read_line(&mut line)?;
    let address =
        line.split([' ', ',']).find(|word| word.starts_with("http://")).ok_or("it did not say where it listens")?;
    let result = run(Command::new("node").arg(script).arg(format!("{address}/tasks")).arg(&folder));
    // In order, so that its temporary database goes with it.
    Command::new("kill").args(["-TERM", &ledger.id().to_string()]).status()?;
    ledger.wait()?;
    result
}
