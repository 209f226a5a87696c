//! Random programs, run by trio and by Testudo, whose traces must be equal.

mod census;
mod compare;
mod generate;
mod program;
mod testudo_side;
mod trio_side;
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;

use crate::census::Census;
use crate::compare::{Difference, Verdict, check, shrink};
use crate::program::Program;
use crate::trio_side::Trio;

/// Runs random programs on trio and on Testudo, and compares what they do.
#[derive(Parser)]
struct Args {
    /// A Python that has trio.
    #[arg(long)]
    python: PathBuf,
    /// How many programs.
    #[arg(long, default_value_t = 2_000)]
    programs: u64,
    /// The seed from which all follow.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of the first program.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Ends the run after so many seconds, however many programs are left.
    #[arg(long, default_value_t = u64::MAX)]
    seconds: u64,
    /// How many threads, each with a Python of its own.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Shows what the programs that were equal did, and how many of them.
    #[arg(long)]
    count: bool,
    /// Only these programs, each a line of JSON in a file.
    #[arg(long)]
    replay: Option<PathBuf>,
}

/// How many differences are made smaller; of the others only the numbers are shown.
const SHRUNK_MAX: usize = 12;

/// What a run has come to so far.
#[derive(Default)]
struct Tally {
    equal: u64,
    /// In the traces that were equal.
    events: usize,
    skipped: BTreeMap<String, u64>,
    census: Census,
    /// By the number of the program.
    different: BTreeMap<u64, Difference>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A local nursery that is closed panics, and that is the answer to a spawn there.
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_answer = |text: &String| text.starts_with("nursery is closed");
        if !panic.payload().downcast_ref().is_some_and(is_answer) {
            shown(panic);
        }
    }));
    let result = match &args.replay {
        Some(file) => replay(&args.python, file),
        None => cases(&args.python).and_then(|()| fuzz(&args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the smallest programs that have shown a bug once.
fn cases(python: &Path) -> Result<(), String> {
    replay(python, &Path::new(env!("CARGO_MANIFEST_DIR")).join("cases.jsonl"))
}

fn replay(python: &Path, file: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut trio = Trio::start(python).map_err(|error| error.to_string())?;
    for (number, line) in text.lines().enumerate() {
        let program: Program = serde_json::from_str(line).map_err(|error| error.to_string())?;
        match check(&mut trio, &program)? {
            Verdict::Equal(_) => {}
            Verdict::Skipped(why) => return Err(format!("line {} does not count: {why}", number + 1)),
            Verdict::Different(difference) => return Err(format!("line {} differs:\n{difference}", number + 1)),
        }
    }
    println!("{} programs of {} are equal", text.lines().count(), file.display());
    Ok(())
}

fn fuzz(args: &Args) -> Result<(), String> {
    println!("seed {}, programs {}..{}", args.seed, args.first, args.first + args.programs);
    let began = Instant::now();
    let next = AtomicU64::new(args.first);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.threads).map(|_| scope.spawn(|| work(args, began, &next, &tally))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a thread has panicked")?)
    })?;
    let Tally { equal, events, skipped, census, different } = tally.into_inner().map_err(|error| error.to_string())?;
    let sum: u64 = skipped.values().sum();
    let (count, seconds) = (different.len(), began.elapsed().as_secs());
    println!("{equal} equal ({events} events), {count} different, {sum} skipped, {seconds} s");
    for (why, count) in skipped {
        println!("  skipped {count:>6}: {why}");
    }
    if args.count {
        print!("{census}");
    }
    report(args, different)
}

/// Shows the differences of a run, each as small as it gets, and fails if there are any.
fn report(args: &Args, different: BTreeMap<u64, Difference>) -> Result<(), String> {
    if different.is_empty() {
        return Ok(());
    }
    let numbers: Vec<u64> = different.keys().copied().collect();
    let mut trio = Trio::start(&args.python).map_err(|error| error.to_string())?;
    for (index, difference) in different.into_iter().take(SHRUNK_MAX) {
        let smallest = shrink(&mut trio, difference)?;
        println!("seed {} program {index} differs, shrunk:\n{smallest}", args.seed);
    }
    Err(format!("{} programs of seed {} differ: {numbers:?}", numbers.len(), args.seed))
}

fn work(args: &Args, began: Instant, next: &AtomicU64, tally: &Mutex<Tally>) -> Result<(), String> {
    let mut trio = Trio::start(&args.python).map_err(|error| error.to_string())?;
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= args.first + args.programs || began.elapsed().as_secs() >= args.seconds {
            return Ok(());
        }
        let program = generate::program(args.seed, index)?;
        let verdict =
            check(&mut trio, &program).map_err(|error| format!("seed {} program {index}: {error}", args.seed))?;
        let mut tally = tally.lock().map_err(|error| error.to_string())?;
        match verdict {
            Verdict::Equal(trace) => {
                tally.equal += 1;
                tally.events += trace.events.len();
                if args.count {
                    tally.census.add(&program, &trace);
                }
                if tally.equal % 5_000 == 0 {
                    println!("{} are equal, {} s", tally.equal, began.elapsed().as_secs());
                }
            }
            Verdict::Skipped(why) => *tally.skipped.entry(why).or_default() += 1,
            Verdict::Different(difference) => {
                println!("seed {} program {index} differs", args.seed);
                tally.different.insert(index, *difference);
            }
        }
    }
}
