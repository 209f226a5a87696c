//! A Python process that runs programs on trio.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::program::{Program, Trace};

/// One process, for one program after the other.
pub(crate) struct Trio {
    process: Child,
    requests: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

#[derive(Serialize)]
struct Request<'a> {
    program: &'a Program,
    care: Care,
}

/// How hard trio is asked to show another order of what is ready at one instant.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Care {
    Usual,
    /// Before a difference counts, so that it is not a race of which trio has shown one end by chance.
    Sure,
}

/// What trio makes of a program.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Trace(Trace),
    /// The program does not count, and why.
    Skip(String),
    /// The interpreter has a bug.
    Error(String),
}

impl Trio {
    /// Starts the interpreter.
    pub(crate) fn start(python: &Path) -> std::io::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interpret.py");
        let mut process = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let requests = process.stdin.take();
        let replies = BufReader::new(process.stdout.take().expect("it is piped"));
        Ok(Self { process, requests, replies })
    }

    /// Runs a program under several seeds.
    pub(crate) fn ask(&mut self, program: &Program, care: Care) -> std::io::Result<Reply> {
        let mut line = serde_json::to_string(&Request { program, care })?;
        line.push('\n');
        let requests = self.requests.as_mut().expect("it is open until the drop");
        requests.write_all(line.as_bytes())?;
        requests.flush()?;
        line.clear();
        self.replies.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Trio {
    fn drop(&mut self) {
        // The end of its input is the end of the interpreter.
        self.requests = None;
        drop(self.process.wait());
    }
}
