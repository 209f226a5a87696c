//! The stress test: random programs on real threads and real time, against counts of what they did.
//!
//! What it checks, for each program: every block that began ends once, and nothing that is shielded is cut off or sees a cancel;
//! finalizers and releases run exactly once when they have to; nothing is alive in a nursery that has returned, and
//! nothing is in the tree at the end; every child that was accepted is polled; everything ends (a program that does not has
//! lost a wake-up); and `drain` finds nothing lost and nothing left.
//!
//! A failure prints the seed, the number of the program, and the program. Of the environment:
//!
//! - `TESTUDO_SECONDS`: how long, 20 by default.
//! - `TESTUDO_SEED`: which programs; from the clock by default.
//! - `TESTUDO_PROGRAM`: only the program with this number, again and again.
//! - `TESTUDO_WATCHDOG`: after how many seconds a program counts as hanging, 10 by default.
//!
//! The long run is `TESTUDO_SECONDS=1800 cargo test --release --test stress -- --nocapture`.

#![expect(
    clippy::let_underscore_must_use,
    reason = "a random program does not care how its parts have ended; the counts do"
)]

mod exec;
mod program;

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, park_timeout};
use std::time::{Duration, Instant, SystemTime};
use std::{env, panic};

use testudo::{Runner, all_tasks, drain, dump};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout;

use exec::{State, lock};
use program::{Program, Root};

/// Programs that run at the same time, each on a runtime of its own.
const LANES: usize = 4;

/// How long main waits for plain tasks before it aborts them.
const PATIENCE: Duration = Duration::from_millis(100);
/// After so many programs a lane gets a new runtime.
const RUNTIME_AGE: u64 = 64;

#[test]
fn random_programs_keep_every_promise() {
    let number = |name, default| env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is set");
    let seed = number("TESTUDO_SEED", now.as_secs());
    let seconds = number("TESTUDO_SECONDS", 20);
    let only = env::var("TESTUDO_PROGRAM").ok().map(|text| text.parse().expect("a number"));
    let watchdog = Duration::from_secs(number("TESTUDO_WATCHDOG", 10));
    let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (faults, on_fault) = channel();
    hear_panics(&faults);
    let lanes: Vec<_> = (0..LANES)
        .map(|_| {
            let (stop, next, faults) = (Arc::clone(&stop), Arc::clone(&next), faults.clone());
            Lane::start(move |lane| {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    lane.program(seed, only.unwrap_or(index), &faults);
                }
            })
        })
        .collect();
    let start = Instant::now();
    let fault = watch(&lanes, &on_fault, watchdog, Duration::from_secs(seconds), &stop);
    let (programs, seconds) = (next.load(Ordering::Relaxed), start.elapsed().as_secs());
    say(&format!("stress: seed={seed} programs={programs} seconds={seconds}"));
    if let Some(fault) = fault {
        panic!("stress: FAILED, seed={seed}\n{fault}");
    }
}

#[test]
fn a_seed_always_gives_the_same_programs() {
    let list = |seed| (0..200).map(|index| Program::new(seed, index).to_string()).collect::<Vec<_>>();
    assert_eq!(list(7), list(7));
    assert_ne!(list(7), list(8));
}

/// Past the capture of the test harness, so that a test that passes says its seed, too.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// The programs' own panics do not call the hook.
fn hear_panics(faults: &Sender<String>) {
    let faults = Mutex::new(faults.clone());
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let test = thread::current().name().is_some_and(|name| name.starts_with("random"));
        if !test {
            let _ = lock(&faults).send(format!("a panic that is not of a program: {info}"));
        }
        default(info);
    }));
}

/// Waits for the first fault, for a program that hangs, or for the end of the time.
fn watch(
    lanes: &[Arc<Lane>],
    on_fault: &Receiver<String>,
    watchdog: Duration,
    length: Duration,
    stop: &AtomicBool,
) -> Option<String> {
    let start = Instant::now();
    loop {
        match on_fault.recv_timeout(Duration::from_millis(100)) {
            // What else is known of it comes right after.
            Ok(fault) => {
                let more = on_fault.recv_timeout(Duration::from_millis(500)).unwrap_or_default();
                return Some(format!("{fault}\n{more}"));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Some("all lanes are gone".into()),
        }
        if let Some(hanging) = lanes.iter().find_map(|lane| lane.hangs(watchdog)) {
            return Some(hanging);
        }
        if start.elapsed() > length {
            stop.store(true, Ordering::Relaxed);
            if lanes.iter().all(|lane| lane.ended.load(Ordering::SeqCst)) {
                return None;
            }
        }
    }
}

/// A thread that runs one program after the other, with another that acts on them from outside.
#[derive(Default)]
struct Lane {
    now: Mutex<Option<Now>>,
    ended: AtomicBool,
}

/// What a lane is doing.
#[derive(Clone)]
struct Now {
    index: u64,
    since: Instant,
    state: Arc<State>,
    handle: Option<Handle>,
}

/// What the thread of a lane keeps.
struct Driver {
    lane: Arc<Lane>,
    runtime: Option<Runtime>,
    age: u64,
    outside: Sender<Arc<State>>,
}

impl Lane {
    fn start(run: impl FnOnce(&mut Driver) + Send + 'static) -> Arc<Self> {
        let lane = Arc::new(Self::default());
        let (outside, programs) = channel();
        thread::spawn(move || act_from_outside(&programs));
        let mut driver = Driver { lane: Arc::clone(&lane), runtime: None, age: 0, outside };
        thread::spawn(move || {
            run(&mut driver);
            driver.lane.ended.store(true, Ordering::SeqCst);
        });
        lane
    }

    fn hangs(&self, watchdog: Duration) -> Option<String> {
        let now = lock(&self.now).clone().filter(|now| now.since.elapsed() > watchdog)?;
        let _inside = now.handle.as_ref().map(Handle::enter);
        let tasks = if now.handle.is_some() { all_tasks() } else { Vec::new() };
        let alive = now.state.alive();
        Some(format!(
            "program {} hangs\nalive blocks: {alive:?}\ntasks: {tasks:#?}\n{}",
            now.index,
            describe(&now.state)
        ))
    }
}

fn describe(state: &State) -> String {
    format!("{}\n{}", state.faults().join("\n"), state.program)
}

impl Driver {
    fn program(&mut self, seed: u64, index: u64, faults: &Sender<String>) {
        let program = Program::new(seed, index);
        let root = program.root;
        let state = Arc::new(State::new(program));
        if root == Root::Run {
            self.begin(index, &state, None);
            self.in_a_run(&state);
        } else {
            let runtime = self.runtime();
            let handle = runtime.handle().clone();
            self.begin(index, &state, Some(handle));
            in_a_runtime(&runtime, &state, &self.outside);
            self.runtime = Some(runtime);
        }
        state.check();
        *lock(&self.lane.now) = None;
        if !state.faults().is_empty() {
            let _ = faults.send(format!("program {index}\n{}", describe(&state)));
        }
    }

    fn begin(&self, index: u64, state: &Arc<State>, handle: Option<Handle>) {
        let now = Now { index, since: Instant::now(), state: Arc::clone(state), handle };
        *lock(&self.lane.now) = Some(now);
    }

    fn runtime(&mut self) -> Runtime {
        self.age += 1;
        let old = self.runtime.take().filter(|_| self.age % RUNTIME_AGE != 0);
        old.unwrap_or_else(|| {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("threads are to be had")
        })
    }

    fn in_a_run(&self, state: &Arc<State>) {
        let runner = Runner::new().worker_threads(2).signals(false).reporter(None);
        let (program, outside) = (Arc::clone(state), self.outside.clone());
        let finished = runner.run(async move {
            let _ = outside.send(Arc::clone(&program));
            exec::run(&program).await;
            // Plain tasks may wait for children of the root that park, and those for the cancel that comes with main's end.
            while timeout(PATIENCE, program.settle()).await.is_err() || !program.close() {
                program.abort_plain();
            }
        });
        if !finished.outcome.is_ok() {
            state.fault(format!("main has ended as {:?}", finished.outcome));
        }
        if !finished.report.is_clean() {
            state.fault(format!("the run is not clean: {}", finished.report));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the test waits for its plain tasks itself")]
fn in_a_runtime(runtime: &Runtime, state: &Arc<State>, outside: &Sender<Arc<State>>) {
    let run = exec::run(state);
    runtime.block_on(async {
        if let Root::Task { .. } = state.program.root {
            let task = tokio::spawn(run);
            state.root_is(task.abort_handle());
            let _ = outside.send(Arc::clone(state));
            let _ = task.await;
        } else {
            let _ = outside.send(Arc::clone(state));
            run.await;
        }
        loop {
            state.settle().await;
            state.bury();
            // In slices: what it waits for may be in a grave by now.
            let report = drain(Duration::from_millis(10)).await;
            if report.lost() > 0 {
                state.fault(format!("something was lost: {report}"));
            }
            if report.is_clean() && state.is_settled() || report.lost() > 0 {
                break;
            }
        }
        let tasks = all_tasks();
        if !tasks.is_empty() {
            state.fault(format!("tasks are listed after the drain: {tasks:?}"));
        }
        // Whoever has dropped something from outside may be at it still.
        let start = Instant::now();
        while dump().entries().len() > 1 {
            if start.elapsed() > Duration::from_secs(2) {
                state.fault(format!("something is in the tree after the drain: {}", dump()));
                break;
            }
            tokio::task::yield_now().await;
        }
    });
    // Tokio counts a task out a little later than its last word. What stays is the task that keeps the deadlines.
    let (metrics, start) = (runtime.metrics(), Instant::now());
    while metrics.num_alive_tasks() > 1 {
        if start.elapsed() > Duration::from_secs(2) {
            state.fault(format!("{} tasks of Tokio are alive at the end", metrics.num_alive_tasks()));
            break;
        }
        park_timeout(Duration::from_micros(50));
    }
}

/// Cancels, toggles, moves and drops from a thread that is not of the runtime.
fn act_from_outside(programs: &Receiver<Arc<State>>) {
    for state in programs {
        let start = Instant::now();
        for (at, action) in &state.program.actions {
            let due = start + Duration::from_micros(*at);
            while let Some(rest) = due.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
                state.bury();
                wait(rest);
            }
            state.act(*action);
        }
        state.bury();
        state.acted.store(true, Ordering::SeqCst);
    }
}

/// Sleeps while there is time, then spins: the interesting moments are short.
fn wait(rest: Duration) {
    if rest > Duration::from_micros(200) {
        park_timeout(rest / 2);
    } else {
        thread::yield_now();
    }
}
