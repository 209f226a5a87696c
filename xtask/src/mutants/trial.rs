//! Runs tests against one mutant at a time, those that come to the changed place.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use wait_timeout::ChildExt;

use super::build::{Built, Program};
use crate::{Result, target};

/// A test, each run of which is a process of its own.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) program: Program,
    pub(super) name: String,
    /// How long it takes without a change.
    time: Duration,
    /// The changes that it comes to.
    reaches: BTreeSet<usize>,
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// That test fails.
    Killed(String),
    /// That test does not end.
    Hangs(String),
    Survived,
}

/// Not run: tests that start compilers, or other programs for a long time.
const LEFT_OUT: [&str; 4] = ["ui::", "smoke::", "adversity::", "storms::"];
/// A test that takes longer without a change is left out, too.
const LONG: Duration = Duration::from_secs(120);
/// How long a test may take with a change in it; so many times as long as without, if that is more.
const PATIENCE: Duration = Duration::from_secs(4);
const FACTOR: u32 = 5;
/// A test that takes so long is asked last.
const SLOW: Duration = Duration::from_secs(2);

/// What one change does to one test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Passes,
    Fails,
    Hangs,
}

/// Runs each test twice without a change, to see where it comes; those that fail are no evidence.
pub(super) fn measure(built: &Built) -> Result<Vec<Test>> {
    let mut all = Vec::new();
    for program in &built.programs {
        let list = Command::new(&program.path).arg("--list").current_dir(&built.tree).output()?;
        let list = String::from_utf8(list.stdout)?;
        let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
        let names = names.filter(|name| !LEFT_OUT.iter().any(|left_out| name.starts_with(left_out)));
        all.extend(names.map(|name| (program.clone(), name.to_owned())));
    }
    let tests = Mutex::new(Vec::new());
    fs::create_dir_all(target("mutants/reached"))?;
    each(&all, |number, (program, name)| {
        match first_runs(built, program, name, &target(&format!("mutants/reached/{number}"))) {
            Ok(test) => tests.lock().expect("nothing panics under it").push(test),
            Err(reason) => println!("left out: {} {name}: {reason}", program.name),
        }
        ControlFlow::Continue(())
    });
    let mut tests = tests.into_inner()?;
    // The most special first, but for the slow.
    tests.sort_by_key(|test| (test.program.name == "laws" || test.time > SLOW, test.reaches.len(), test.name.clone()));
    Ok(tests)
}

fn first_runs(built: &Built, program: &Program, name: &str, reached: &PathBuf) -> Result<Test> {
    drop(fs::remove_file(reached));
    let mut time = Duration::ZERO;
    for _ in 0..2 {
        let start = Instant::now();
        let end = finish(test(program, name, &built.tree).env("TESTUDO_MUTANT_REACHED", reached), LONG)?;
        if !end.ok_or("it takes too long")?.success() {
            return Err("it fails without a change".into());
        }
        time = time.max(start.elapsed());
    }
    let reaches = fs::read_to_string(reached).unwrap_or_default();
    let reaches = reaches.lines().map(str::parse).collect::<std::result::Result<_, _>>()?;
    Ok(Test { program: program.clone(), name: name.into(), time, reaches })
}

/// The command of one test. It must not take all the memory, which some changes would.
fn test(program: &Program, name: &str, tree: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 8000000; exec \"$0\" \"$@\""]).arg(&program.path);
    command.args([name, "--exact", "--test-threads=1"]).current_dir(tree);
    // A backtrace takes longer than most of the tests.
    command
        .env("RUST_BACKTRACE", "0")
        .env("PROPTEST_CASES", "24")
        .env("TESTUDO_SEED", "1")
        .env("LOOM_MAX_PREEMPTIONS", "2");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The end of a process; none if it had to be killed.
fn finish(command: &mut Command, limit: Duration) -> Result<Option<ExitStatus>> {
    let mut child = command.spawn()?;
    let end = child.wait_timeout(limit)?;
    if end.is_none() {
        child.kill()?;
        child.wait()?;
    }
    Ok(end)
}

/// Judges each of the mutants, two or more at a time, and hands on what became of it.
pub(super) fn judge(built: &Built, tests: &[Test], ids: &[usize], done: impl Fn(usize, Verdict) -> Result + Sync) {
    // A change near the last one is often seen by the same test.
    let killers = Mutex::new(Vec::new());
    each(ids, |_, &id| {
        let last = killers.lock().expect("nothing panics under it").clone();
        let verdict = verdict(built, tests, id, &last).inspect(|verdict| {
            if let Verdict::Killed(by) = verdict {
                let mut killers = killers.lock().expect("nothing panics under it");
                killers.retain(|known| known != by);
                killers.insert(0, by.clone());
                killers.truncate(4);
            }
        });
        match verdict.and_then(|verdict| done(id, verdict)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                println!("{error}");
                ControlFlow::Break(())
            }
        }
    });
}

fn verdict(built: &Built, tests: &[Test], id: usize, killers: &[String]) -> Result<Verdict> {
    let mut asked: Vec<&Test> = tests.iter().filter(|test| test.reaches.contains(&id)).collect();
    asked.sort_by_key(|test| killers.iter().position(|killer| *killer == test.label()).unwrap_or(usize::MAX));
    let mut hangs: Option<&Test> = None;
    for test in asked {
        match (test.run(built, id)?, &hangs) {
            (Run::Passes, _) => {}
            (Run::Fails, _) => return Ok(Verdict::Killed(test.label())),
            (Run::Hangs, Some(first)) => return Ok(Verdict::Hangs(first.label())),
            (Run::Hangs, None) => hangs = Some(test),
        }
    }
    // The machine may have been slow once.
    match hangs {
        Some(test) if test.run(built, id)? != Run::Passes => Ok(Verdict::Hangs(test.label())),
        Some(_) | None => Ok(Verdict::Survived),
    }
}

impl Test {
    fn label(&self) -> String {
        format!("{} {}", self.program.name, self.name)
    }

    /// One run; if it fails, a second, because a test that fails by chance is no evidence.
    fn run(&self, built: &Built, id: usize) -> Result<Run> {
        let limit = PATIENCE.max(self.time * FACTOR);
        let once = || finish(test(&self.program, &self.name, &built.tree).env("TESTUDO_MUTANT", id.to_string()), limit);
        Ok(match once()? {
            None => Run::Hangs,
            Some(end) if end.success() => Run::Passes,
            Some(_) => match once()? {
                Some(end) if end.success() => Run::Passes,
                Some(_) | None => Run::Fails,
            },
        })
    }
}

/// Does something for each item, on as many threads as there are processors.
fn each<T: Sync>(items: &[T], act: impl Fn(usize, &T) -> ControlFlow<()> + Sync) {
    let next = AtomicUsize::new(0);
    let jobs = env::var("TESTUDO_JOBS").ok().and_then(|jobs| jobs.parse().ok());
    let jobs = jobs.or(thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let work = || {
        while let Some((number, item)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, items.get(n)?)))
        {
            if act(number, item).is_break() {
                next.store(items.len(), Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
}
