//! Counts instructions with callgrind and compares them with `benches/instructions.toml`.
//!
//! Each case does its work N times and 2 N times in a process of its own; the difference is that of N units, without what it takes
//! to start and to end. The counts do not depend on what else the machine does, so they may fail a build.
#![expect(clippy::print_stdout, reason = "a program may write to the terminal")]

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::{env, fs, thread};

use testudo_bench::book::{Book, Counts};
use testudo_bench::page;
use testudo_bench::work::{self, deadline, scope, spawn, storm, tree};

type Error = Box<dyn std::error::Error + Send + Sync>;

const HEADER: &str = "\
# Instructions for a unit of each case, and the bars. Counted by `cargo xtask instructions`; what is not under `[[bar]]`, and
# `met`, is written by `cargo xtask instructions --bless`.

";

/// Enough for what grows by doubling to settle, and little enough to take no time.
const UNITS: u32 = 1000;

/// What says nothing about instructions for a unit: trees are not made of units, ages are not the same twice, and the rest is there
/// for two threads.
const NOT_COUNTED: [&str; 10] = [
    spawn::BY_TWO,
    spawn::OF_1000,
    scope::TURN_BY_TWO,
    scope::YIELD_BY_TWO,
    scope::LOOK_BY_TWO,
    scope::CHILD_BY_TWO,
    deadline::YIELD_BY_TWO,
    deadline::YIELD_IN_PLAIN,
    storm::LIST,
    tree::TREE,
];

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Error> {
    let bless = env::args().any(|arg| arg == "--bless");
    if !cfg!(target_os = "linux") {
        println!("instructions: skipped, valgrind is asked for on Linux only");
        return Ok(ExitCode::SUCCESS);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.toml");
    let mut book: Book = toml::from_str(&fs::read_to_string(&path)?)?;
    let counts = count_all()?;
    let made_with = made_with()?;
    print!("{}", book.table(&counts));
    if bless {
        book.bless(counts, made_with);
        fs::write(path, HEADER.to_owned() + &toml::to_string(&book)?)?;
        // The page shows the counts.
        page::write()?;
        return Ok(ExitCode::SUCCESS);
    }
    if made_with != book.made_with {
        println!("\nthe book was made with {}, this is {made_with}: only ratios are compared", book.made_with);
    }
    let faults = book.faults(&counts, &made_with);
    if faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("\n{}\n\nif that is meant, run\n\n    cargo xtask instructions --bless\n", faults.join("\n"));
    println!("and commit benches/instructions.toml and docs/benchmarks.md with the change");
    Ok(ExitCode::FAILURE)
}

/// Counts every case, as many at a time as there are processors.
fn count_all() -> Result<Counts, Error> {
    let counted = work::all().into_iter().filter(|case| !NOT_COUNTED.contains(&case.work));
    let names = Mutex::new(counted.map(|case| format!("{case:?}")).collect::<Vec<_>>());
    let counts = Mutex::new(Counts::new());
    let worker = || -> Result<(), Error> {
        loop {
            let name = names.lock().expect("nobody panics").pop();
            let Some(name) = name else { return Ok(()) };
            let units = count(&name, 2 * UNITS)? - count(&name, UNITS)?;
            counts.lock().expect("nobody panics").insert(name, (units / f64::from(UNITS)).round());
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker returns its error"))
    })?;
    Ok(counts.into_inner().expect("nobody panics"))
}

fn count(name: &str, units: u32) -> Result<f64, Error> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", env!("CARGO_BIN_EXE_glibc"), "count", name]);
    let output = command.arg(units.to_string()).output()?;
    let text = String::from_utf8(output.stderr)?;
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    match collected {
        Some((_, count)) if output.status.success() => Ok(count.trim().parse()?),
        _ => Err(format!("{name}: callgrind says\n{text}").into()),
    }
}

/// Everything that has a part in the counts without being in this repository.
fn made_with() -> Result<String, Error> {
    let first_line = |program: &str, arg: &str| -> Result<String, Error> {
        let output = Command::new(program).arg(arg).output()?;
        Ok(String::from_utf8(output.stdout)?.lines().next().unwrap_or_default().to_owned())
    };
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let versions =
        [first_line(&rustc, "-V")?, first_line("getconf", "GNU_LIBC_VERSION")?, env::consts::ARCH.to_owned()];
    Ok(versions.join(", "))
}
