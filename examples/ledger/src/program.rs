//! The program: opens, listens, serves, and says at its end what has become of all transfers.

use std::fmt;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use testudo::{Runner, shutdown, shutdown_requested};
use tokio::time::timeout;

use crate::db::{self, Db};
use crate::listen::listen;
use crate::load::{Acknowledged, Load};
use crate::options::Options;
use crate::routes::Ledger;
use crate::server::{Accepted, server};
use crate::tally::Tally;
use crate::transfer::Cover;

/// An error of any kind, for people.
pub type Error = Box<dyn std::error::Error>;

/// Runs the program that the options describe, to the status that it ends with.
///
/// # Errors
///
/// If it can not begin, or can not look at the database at its end.
pub fn run(options: &Options) -> Result<ExitCode, Error> {
    let file = DbFile::of(options)?;
    let (conn, recovered) = open(&file.path)?;
    let listener = listen(options.port(), options.reuse_port)?;
    let address = listener.local_addr()?;
    say(&Greeting { address, db: &file.path, options });
    if recovered > 0 {
        say(&format_args!("{recovered} transfers that another process had begun are credited now"));
    }
    let load = options.load.map(|clients| Load::start(address, clients.into(), options.seed)).transpose()?;
    let cover = if options.unshielded { Cover::none() } else { Cover::shield() };
    let ledger = Ledger { db: Db::new(conn), cover, pause: options.pause };
    let accepted = Accepted::default();
    let runner = runner(options, &file, &accepted, load.as_ref().map(Load::acknowledged));
    let main = main_task(listener, ledger, accepted.clone(), runner.handle(), options.seconds);
    let (finished, exit) = runner.run_to_exit(main);
    // The clients stop after the server: until here they have seen whatever its end did to them.
    let acknowledged = load.map(Load::stop).unwrap_or_default();
    let tally = Tally::take(&file.path, accepted.so_far(), &acknowledged)?;
    if let Some(stop) = finished.report.stop() {
        complain(stop);
        stop.cancelled().iter().for_each(|who| complain(&format_args!("cut off {who}")));
    }
    say(&tally);
    // Now: where the process dies by a signal, nothing is dropped behind this.
    drop(file);
    if let testudo::Outcome::Err(error) = finished.outcome {
        return Err(error.into());
    }
    Ok(if options.load.is_some() && !tally.is_good() { ExitCode::FAILURE } else { exit.leave() })
}

/// The runner of the program: if it is ended by force, it still says how things stand.
fn runner(options: &Options, file: &DbFile, accepted: &Accepted, acknowledged: Option<Acknowledged>) -> Runner {
    let (path, accepted) = (file.path.clone(), accepted.clone());
    let runner = Runner::new().on_force(move || {
        let acknowledged = acknowledged.as_ref().map(Acknowledged::so_far).unwrap_or_default();
        match Tally::take(&path, accepted.so_far(), &acknowledged) {
            Ok(tally) => say(&tally),
            Err(error) => complain(&error),
        }
    });
    match options.drain_delay {
        Some(delay) => runner.drain_delay(delay),
        None => runner,
    }
}

async fn main_task(
    listener: TcpListener,
    ledger: Ledger,
    accepted: Accepted,
    handle: testudo::ShutdownHandle,
    seconds: Option<Duration>,
) -> std::io::Result<()> {
    if let Some(seconds) = seconds {
        let alarm = async move {
            // Asked by somebody else before that, it has nothing left to do, and nothing of it is cut off.
            if timeout(seconds, shutdown_requested()).await.is_err() {
                shutdown(format!("{} s are over", seconds.as_secs_f64()));
            }
        };
        testudo::root_nursery::<std::io::Error>().task().name("alarm").spawn(alarm);
    }
    server(listener, ledger, accepted, handle).await
}

/// Opens the database. What a process has left that was killed is credited; if that process is alive, and shares the port with this one,
/// it finds its transfers done.
fn open(path: &Path) -> Result<(Connection, usize), Error> {
    let refused = |error| {
        format!(
            "can not open the database {}: {error}; give --db a file that you may write, in a folder that is there",
            path.display()
        )
    };
    let mut conn = db::open(path).map_err(refused)?;
    let recovered = db::recover(&mut conn)?;
    Ok((conn, recovered))
}

/// The database, and the folder that it goes away with.
struct DbFile {
    path: PathBuf,
    _folder: Option<TempDir>,
}

impl DbFile {
    fn of(options: &Options) -> Result<Self, Error> {
        match (&options.db, options.load) {
            (Some(path), _) => Ok(Self { path: path.clone(), _folder: None }),
            (None, None) => Ok(Self { path: "ledger.db".into(), _folder: None }),
            (None, Some(_)) => {
                let folder = TempDir::with_prefix("ledger-")
                    .map_err(|error| format!("can not make a temporary folder: {error}; give --db FILE"))?;
                Ok(Self { path: folder.path().join("ledger.db"), _folder: Some(folder) })
            }
        }
    }
}

struct Greeting<'a> {
    address: SocketAddr,
    db: &'a Path,
    options: &'a Options,
}

impl fmt::Display for Greeting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, db, options } = self;
        writeln!(f, "listening on http://{address}, database {}", db.display())?;
        writeln!(f, "  curl --json '{{\"from\":1,\"to\":2,\"amount\":5}}' http://{address}/transfer")?;
        writeln!(f, "  curl http://{address}/balance; curl http://{address}/readyz")?;
        writeln!(f, "  in a browser: http://{address}/tasks")?;
        if let Some(clients) = options.load {
            writeln!(f, "{clients} clients make transfers; a third of their requests ends in the middle")?;
        }
        if options.unshielded {
            writeln!(f, "no transfer is shielded: some will be lost")?;
        }
        match options.seconds {
            Some(seconds) => write!(f, "it stops in {} s, or on Ctrl-C", seconds.as_secs_f64()),
            None => f.write_str("Ctrl-C stops it"),
        }
    }
}

/// Prints a line. A closed stdout is no reason to fail: there is nobody to tell.
fn say(line: &dyn fmt::Display) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// Prints what went wrong.
pub fn complain(error: &dyn fmt::Display) {
    drop(writeln!(std::io::stderr().lock(), "ledger: {error}"));
}
