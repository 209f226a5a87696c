//! A ledger in a process of its own, and what it has said at its end.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) struct Ledger {
    child: Child,
    out: BufReader<ChildStdout>,
    /// Where it listens, `127.0.0.1:PORT`; empty if it never did.
    pub(crate) address: String,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    /// Its last line.
    pub(crate) last: String,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ledger {
    /// Starts it, and waits until it listens or has ended.
    pub(crate) fn start(db: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ledger"))
            .arg("--db")
            .arg(db)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cargo has built it");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut address = String::new();
        let mut line = String::new();
        while address.is_empty() && out.read_line(&mut line).expect("it prints text") > 0 {
            let rest = line.split("listening on http://").nth(1).unwrap_or_default();
            address = rest.split(',').next().unwrap_or_default().to_owned();
            line.clear();
        }
        Self { child, out, address }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a process number"));
        // It may have ended; until it is waited for, the number is nobody else's.
        kill(pid, signal).unwrap_or_default();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> End {
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).expect("it prints text");
        self.child.stderr.take().expect("piped").read_to_string(&mut err).expect("it prints text");
        let status = self.child.wait().expect("it is our child");
        let last = out.lines().last().unwrap_or_default().to_owned();
        End { status, last, out, err }
    }
}

impl End {
    /// A number of the last line.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let number = self.last.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {name}: {self:#?}"))
    }

    pub(crate) fn is_good(&self) -> bool {
        self.last.ends_with(" half_done=0 lost=0 sum=exact")
    }
}
