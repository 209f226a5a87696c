//! A case: one piece of work, done in one way.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use testudo::Runner;
use tokio::runtime::{Builder, Runtime, RuntimeFlavor};

use crate::work::OURS;

type Run = Box<dyn Fn(&Runtime, usize) -> Laps>;

/// One piece of work, done in one way.
pub struct Case {
    /// What is done. Cases with the same work are compared.
    pub work: &'static str,
    /// Who does it: ours, a peer, or the floor.
    pub by: &'static str,
    run: Run,
}

impl Case {
    /// A case whose body is a task of the runtime, as most code is.
    pub fn task<F>(work: &'static str, by: &'static str, body: impl Fn(usize) -> F + 'static) -> Self
    where
        F: Future<Output = Laps> + Send + 'static,
    {
        let run: Run = Box::new(move |rt, n| {
            if by == OURS {
                let body = infallible(body(n));
                let main = async move { Ok::<_, Infallible>(testudo::spawn(body).await.unwrap()) };
                return runner(rt).run(main).outcome.unwrap();
            }
            let task = rt.spawn(body(n));
            rt.block_on(task).expect("no workload panics")
        });
        Self { work, by, run }
    }

    /// A case whose body is not `Send`, or wants the runtime for itself.
    pub fn local<F>(work: &'static str, by: &'static str, body: impl Fn(usize) -> F + 'static) -> Self
    where
        F: Future<Output = Laps>,
    {
        let run: Run = Box::new(move |rt, n| {
            if by == OURS {
                return runner(rt).run(infallible(body(n))).outcome.unwrap();
            }
            rt.block_on(body(n))
        });
        Self { work, by, run }
    }

    /// Does the work `n` times.
    pub fn run(&self, rt: &Runtime, n: usize) -> Laps {
        (self.run)(rt, n)
    }
}

async fn infallible<F: Future>(body: F) -> Result<F::Output, Infallible> {
    Ok(body.await)
}

/// Ours runs inside of a run, as its programs do; on a runtime like `rt`.
fn runner(rt: &Runtime) -> Runner {
    let runner = Runner::new().signals(false);
    match rt.handle().runtime_flavor() {
        RuntimeFlavor::CurrentThread => runner.current_thread(),
        RuntimeFlavor::MultiThread | _ => runner.worker_threads(2),
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {}", self.work, self.by)
    }
}

/// One part of a run.
#[derive(Debug, Clone, Copy)]
pub struct Lap {
    /// The name of the part.
    pub part: &'static str,
    /// How long it took.
    pub time: Duration,
    /// By how much the live bytes have grown since the run began.
    pub bytes: i64,
}

/// What the parts of one run took.
#[derive(Debug)]
pub struct Laps {
    began: Instant,
    bytes: i64,
    laps: Vec<Lap>,
}

static LIVE_BYTES: OnceLock<fn() -> i64> = OnceLock::new();

/// Says how many bytes are live: a program with an allocator that counts calls this first.
pub fn count_bytes(live: fn() -> i64) {
    LIVE_BYTES.get_or_init(|| live);
}

fn live_bytes() -> i64 {
    LIVE_BYTES.get().map_or(0, |live| live())
}

/// The only lap of a work that has no parts.
pub const WHOLE: &str = "";

impl Laps {
    /// Starts the first lap.
    pub fn start() -> Self {
        let laps = Vec::with_capacity(4);
        Self { bytes: live_bytes(), laps, began: Instant::now() }
    }

    /// Records the lap so far, which goes on.
    pub fn mark(&mut self, part: &'static str) {
        let time = self.began.elapsed();
        self.laps.push(Lap { part, time, bytes: live_bytes() - self.bytes });
    }

    /// Records the lap and starts the next.
    pub fn lap(&mut self, part: &'static str) {
        self.mark(part);
        self.began = Instant::now();
    }

    /// Records the only lap.
    pub fn end(mut self) -> Self {
        self.mark(WHOLE);
        self
    }

    /// The laps in their order.
    pub fn parts(&self) -> &[Lap] {
        &self.laps
    }
}

/// A current-thread runtime.
pub fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime can be built")
}

/// A runtime with two workers.
pub fn two_workers() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime can be built")
}
