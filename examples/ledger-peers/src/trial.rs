//! One server in a process of its own, from its start to its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ledger::load::Load;
use ledger::tally::Tally;
use ledger_peers::Error;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long it is under load until it is told to stop.
const LOAD: Duration = Duration::from_secs(2);
/// After so long it is killed, as whoever has started it would do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
    pub(crate) args: &'static [&'static str],
}

pub(crate) struct Trial<'a> {
    pub(crate) server: &'a Server,
    /// Two more clients: one that has sent half of a head, one that has sent some of a body. They stay.
    pub(crate) has_stalled: bool,
}

/// What came of it.
pub(crate) struct Came {
    pub(crate) tally: Tally,
    /// From the signal to the end of the process; none if it had to be killed.
    pub(crate) took: Option<Duration>,
    /// All that it has printed from the signal on.
    pub(crate) said: String,
    /// That names each of the stalled clients, by its address or its request.
    pub(crate) is_named: bool,
}

impl Trial<'_> {
    pub(crate) fn run(&self) -> Result<Came, Error> {
        let folder = TempDir::new()?;
        let db = folder.path().join("ledger.db");
        let own = std::env::current_exe()?;
        let mut child = Command::new(own.with_file_name(self.server.program))
            .arg("--db")
            .arg(&db)
            .args(self.server.args)
            // As much as the peers that have a bound are given.
            .env("TESTUDO_BUDGET", "5s")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                format!("{error}: build all of the workspace's ledger first, `cargo xtask ledger peers` does")
            })?;
        let mut out = BufReader::new(child.stdout.take().ok_or("stdout is piped")?);
        let address = address(&mut out)?;
        let err = child.stderr.take().ok_or("stderr is piped")?;
        let said = Said::default();
        let readers = [said.read(out), said.read(err)];
        let load = Load::start(address, 8, 1)?;
        let stalled = if self.has_stalled { stall(address)? } else { Vec::new() };
        pause(LOAD);
        said.take();
        let took = stop(&mut child)?;
        let names = stalled.iter().map(TcpStream::local_addr).collect::<Result<Vec<_>, _>>()?;
        drop(stalled);
        let acknowledged = load.stop();
        readers.into_iter().for_each(|reader| drop(reader.join()));
        let said = said.take();
        let is_named = names.iter().all(|name| said.contains(&name.to_string()) || said.contains("POST /transfer"));
        Ok(Came { tally: Tally::take(&db, 0, &acknowledged)?, took, said, is_named })
    }
}

fn address(out: &mut impl BufRead) -> Result<SocketAddr, Error> {
    let mut line = String::new();
    out.read_line(&mut line)?;
    let address = line.split("http://").nth(1).and_then(|rest| rest.split([',', '\n']).next());
    Ok(address.ok_or_else(|| format!("it did not say where it listens, but `{line}`"))?.parse()?)
}

/// What a server has printed.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Said {
    fn read(&self, from: impl Read + Send + 'static) -> thread::JoinHandle<()> {
        let said = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                *said.0.lock().unwrap_or_else(PoisonError::into_inner) += &(line + "\n");
            }
        })
    }

    fn take(&self) -> String {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn stall(address: SocketAddr) -> Result<Vec<TcpStream>, Error> {
    let begun = [
        "POST /transfer HTTP/1.1\r\nhost: l",
        "POST /transfer HTTP/1.1\r\nhost: l\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"f",
    ];
    let stall = |text: &str| -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(text.as_bytes())?;
        Ok(stream)
    };
    Ok(begun.into_iter().map(stall).collect::<Result<_, _>>()?)
}

/// Sends SIGTERM, and waits. Gives none if it had to be killed.
fn stop(child: &mut Child) -> Result<Option<Duration>, Error> {
    let began = Instant::now();
    kill(Pid::from_raw(child.id().try_into()?), Signal::SIGTERM)?;
    while began.elapsed() < PATIENCE {
        if child.try_wait()?.is_some() {
            return Ok(Some(began.elapsed()));
        }
        pause(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

#[expect(clippy::disallowed_methods, reason = "other processes are what goes on meanwhile")]
fn pause(length: Duration) {
    thread::sleep(length);
}
