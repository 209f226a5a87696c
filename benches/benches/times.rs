//! Times every workload beside its peers; prints the table, and writes all figures as JSON.
//!
//! `--quick` runs a small part of each, to show that it runs; `--only P1` one row; `--rounds 7` says how many rounds; `--json FILE` writes
//! there instead of `benches/results.json`; `page` makes `docs/benchmarks.md` of the last full run.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program may write to the terminal")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use serde::de::DeserializeOwned;
use testudo_bench::book::Book;
use testudo_bench::page::{self, REMEMBERED, Results, figures, targets};
use testudo_bench::plan::{Group, PLAN, units};
use testudo_bench::work::storm::STORM;

type Error = Box<dyn std::error::Error>;

const GLIBC: &str = env!("CARGO_BIN_EXE_glibc");
const MIMALLOC: &str = env!("CARGO_BIN_EXE_mimalloc");
const COUNTING: &str = env!("CARGO_BIN_EXE_counting");

struct Options {
    quick: bool,
    rounds: Option<usize>,
    only: Option<String>,
    json: Option<PathBuf>,
    page: bool,
}

impl Options {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 7 })
    }
}

fn main() -> ExitCode {
    let done = options().and_then(|options| if options.page { Ok(page::write()?) } else { run(&options) });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, Error> {
    let mut options = Options { quick: false, rounds: None, only: None, json: None, page: false };
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--rounds" => options.rounds = Some(args.next().unwrap_or_default().parse()?),
            "--only" => options.only = args.next(),
            "--json" => options.json = args.next().map(|file| here("..").join(file)),
            "page" => options.page = true,
            // Cargo says so to every benchmark.
            "--bench" => {}
            _ => {
                return Err(
                    format!("unknown: {arg}; there are --quick, --rounds 7, --only P1, --json FILE, page").into()
                );
            }
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<(), Error> {
    let wanted = |row: &str| options.only.as_ref().is_none_or(|only| only == row);
    let mut results = describe(options)?;
    for (index, group) in PLAN.iter().enumerate().filter(|(_, group)| wanted(group.target)) {
        time(index, group, options, &mut results)?;
    }
    if wanted("P3") {
        let n = if options.quick { "10000" } else { "100000" };
        for by in REMEMBERED {
            let case = format!("{STORM} / {by}");
            let bytes = ask(COUNTING, &["bytes", &case, n])?;
            results.bytes.insert(case, bytes);
        }
    }
    if wanted("P11") {
        let seconds = if options.quick { "2" } else { "20" };
        results.idle = Some(ask(GLIBC, &["idle", "10000", seconds])?);
    }
    print!("{}\n{}", targets(&results, &book()?), figures(&results));
    let file =
        options.json.clone().or_else(|| (!options.quick && options.only.is_none()).then(|| here("results.json")));
    if let Some(file) = file {
        fs::write(file, serde_json::to_string(&results)? + "\n")?;
    }
    Ok(())
}

/// Measures one group with each allocator, each in a process of its own.
fn time(index: usize, group: &Group, options: &Options, results: &mut Results) -> Result<(), Error> {
    let quick = options.quick;
    let (n, rounds) = (units(group.n, quick), options.rounds());
    // A round of little work is short, so it takes more of them to tell anything.
    let rounds = rounds * (20_000 / n).clamp(1, 10);
    let programs = if quick { &[GLIBC][..] } else { &[GLIBC, MIMALLOC] };
    for threads in group.on {
        for program in programs {
            eprintln!("{} {threads} {}", group.target, group.works.join(", "));
            let args = [&index.to_string(), &threads.to_string(), &n.to_string(), &rounds.to_string()];
            let samples: Vec<_> = ask(program, &["time", args[0], args[1], args[2], args[3]])?;
            results.samples.extend(samples);
        }
    }
    Ok(())
}

fn ask<T: DeserializeOwned>(program: &str, args: &[&str]) -> Result<T, Error> {
    let mut command = Command::new(program);
    // The heap keeps its memory, so that page faults are paid in the first round, which does not count.
    for threshold in ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"] {
        command.env(threshold, "34359738368");
    }
    let output = command.args(args).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{args:?} failed ({})", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn describe(options: &Options) -> Result<Results, Error> {
    let said = |program: &str, args: &[&str]| -> Result<String, Error> {
        let output = Command::new(program).args(args).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism()?;
    let lock = fs::read_to_string(here("../Cargo.lock"))?;
    let version = |name: &str| {
        let entry = lock.split(&format!("name = \"{name}\"\nversion = \"")).nth(1).unwrap_or_default();
        format!("{name} {}", entry.split('"').next().unwrap_or_default())
    };
    let crates = ["tokio", "tokio-util", "futures", "axum", "mimalloc"].map(version).join(", ");
    let only = options.only.as_ref().map(|row| format!(" --only {row}")).unwrap_or_default();
    let quick = if options.quick { " --quick" } else { "" };
    Ok(Results {
        command: format!("cargo xtask bench{quick} --rounds {}{only}", options.rounds()),
        quick: options.quick,
        date: said("date", &["-I"])?,
        machine: format!(
            "{}, {cores} processors, {}",
            processor.trim_start_matches([' ', '\t', ':']),
            said("uname", &["-sr"])?
        ),
        versions: format!("{}, {}, {crates}", said("rustc", &["-V"])?, said("getconf", &["GNU_LIBC_VERSION"])?),
        ..Results::default()
    })
}

fn book() -> Result<Book, Error> {
    Ok(toml::from_str(&fs::read_to_string(here("instructions.toml"))?)?)
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
