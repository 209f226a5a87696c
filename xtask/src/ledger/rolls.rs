//! Rolling restarts: two ledgers on one port, one takes over from the other, and a load tool outside counts what goes wrong.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;
use std::{env, fs};

use crate::{Result, root};

/// How long a ledger goes on accepting when it is told to stop.
const DRAIN_DELAY: &str = "1";
/// How long each ledger serves alone.
const ALONE: Duration = Duration::from_millis(300);

/// Rolls the ledger over to a new process so many times while `wrk` sends transfers.
pub(super) fn rolls(program: &Path, count: u32) -> Result {
    let folder = env::temp_dir().join(format!("ledger-rolls-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let result = roll(program, count, &folder);
    fs::remove_dir_all(&folder)?;
    result
}

fn roll(program: &Path, count: u32, folder: &Path) -> Result {
    let db = folder.join("ledger.db");
    let mut old = Ledger::start(program, &db, "0")?;
    let port = old.port.clone();
    let wrk = wrk(folder, &port, count)?;
    for n in 1..=count {
        alone();
        let new = Ledger::start(program, &db, &port)?;
        println!("roll {n}: {} follows {}", new.child.id(), old.child.id());
        let last = std::mem::replace(&mut old, new).stop()?;
        println!("  {last}");
    }
    let output = wrk.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    print!("{text}");
    let last = old.stop()?;
    println!("{last}");
    if text.contains("Socket errors") || text.contains("Non-2xx") || !output.status.success() {
        return Err("the load tool has seen errors".into());
    }
    if !text.contains("Requests/sec") || !last.ends_with(" half_done=0 lost=0 sum=exact") {
        return Err("there was no load, or transfers are missing".into());
    }
    println!("{count} rolls: 0 transport errors, 0 answers other than 2xx");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "other processes are what goes on meanwhile")]
fn alone() {
    thread::sleep(ALONE);
}

/// The load tool, for as long as the rolls take and a little longer.
fn wrk(folder: &Path, port: &str, rolls: u32) -> Result<Child> {
    let script = folder.join("transfer.lua");
    let body = r#"{"from":1,"to":2,"amount":1}"#;
    let head = r#"wrk.headers["content-type"] = "application/json""#;
    fs::write(&script, format!("wrk.method = \"POST\"\n{head}\nwrk.body = '{body}'\n"))?;
    let seconds = rolls * 2 + 1;
    let wrk = Command::new("wrk")
        .args(["-t", "2", "-c", "32", "--timeout", "5s", "-d", &format!("{seconds}s"), "-s"])
        .arg(script)
        .arg(format!("http://127.0.0.1:{port}/transfer"))
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(wrk)
}

struct Ledger {
    child: Child,
    out: BufReader<ChildStdout>,
    port: String,
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // Where the rolls were given up, nobody else ends it.
        self.child.kill().unwrap_or_default();
    }
}

impl Ledger {
    /// Starts one, and waits until it listens.
    fn start(program: &Path, db: &Path, port: &str) -> Result<Self> {
        let mut child = Command::new(program)
            .arg("--db")
            .arg(db)
            .args(["--reuse-port", "--port", port, "--drain-delay", DRAIN_DELAY])
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut out = BufReader::new(child.stdout.take().ok_or("stdout is piped")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(',').next());
        let port = port.ok_or("it did not say where it listens")?.to_owned();
        Ok(Self { child, out, port })
    }

    /// Sends SIGTERM, waits for the end, and gives the last line.
    fn stop(mut self) -> Result<String> {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        let mut text = String::new();
        self.out.read_to_string(&mut text)?;
        let status = self.child.wait()?;
        if !kill.success() || !status.success() {
            return Err(format!("a ledger ended badly: {status}").into());
        }
        Ok(text.lines().last().unwrap_or_default().to_owned())
    }
}
