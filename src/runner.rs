//! The runner: builds the runtime, listens to signals, runs main, and drains everything before the runtime goes.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::clock;
use crate::core::cause::{Cause, CauseKind};
use crate::core::ladder::{Ladder, Rung};
use crate::core::live::Live;
use crate::core::node::{Info, Kind};
use crate::current::{Current, Enter};
use crate::host::{self, Frame, Host, Node, lock};
use crate::main_task;
use crate::outcome::{Outcome, Panic, TaskOutput};
use crate::region::End;
use crate::registry;
use crate::report::{Event, Report, Reporter};
use crate::shield::{check_budget, shield_scoped};
use crate::signal::{self, Signal, Subscription};
#[cfg(feature = "testing")]
use crate::testing::{Connection, Signals};

/// Runs `main` to its end on a multi-thread runtime with the default [`Runner`], and gives how it has ended.
///
/// # Panics
///
/// Inside of a Tokio runtime, so also inside of another run; and if the runtime can not be built.
///
/// # Examples
///
/// ```
/// let outcome = testudo::run(async { Ok::<_, std::io::Error>(7) });
/// assert_eq!(outcome.unwrap(), 7);
/// ```
#[track_caller]
pub fn run<F>(main: F) -> Outcome<<F::Output as TaskOutput>::Value, <F::Output as TaskOutput>::Error>
where
    F: Future,
    F::Output: TaskOutput,
{
    Runner::new().run(main).outcome
}

/// Builds a runtime, listens to signals, runs main, and drains everything before the runtime goes.
///
/// The first SIGINT or SIGTERM cancels everything that is not shielded; the second says what is still being waited for, by name and
/// place; the third ends the process at once with status 128 + n. Presses of one kind within 200 ms are one (a terminal and a
/// parent may both send it). On Windows the console events take the signals' place.
///
/// An inherited "ignore" (`nohup`) is respected on Linux. After a run, signals have their default effect again as far as this process
/// had no other handler when the run began; a listener that the program installs *during* its first run can not be told from ours.
#[derive(Debug)]
#[must_use = "a runner does nothing until `run`"]
pub struct Runner {
    current_thread: bool,
    worker_threads: Option<usize>,
    signals: bool,
    handlers: HashMap<Signal, Handler>,
    press_window: Duration,
    shield_main: bool,
    wait_for_tasks: bool,
    shield_budget: Option<Duration>,
    reporter: Option<Reporter>,
    on_stop: Option<StopHook>,
    exit_policy: ExitPolicy,
    #[cfg(feature = "testing")]
    source: Option<Signals>,
}

/// How the status of the process follows from the end of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitPolicy {
    /// Main's own: 0 for a value and for a stop that the runner carried out, 1 for an error or another cancel, 101 for a panic;
    /// 128 + n if it was forced by signal n.
    #[default]
    Main,
}

/// How a run has ended.
#[derive(Debug)]
pub struct Finished<T, E> {
    /// How main has ended. Cancelled with cause [`Stopped`](CauseKind::Stopped) is a clean stop.
    pub outcome: Outcome<T, E>,
    /// What nobody else was told.
    pub report: Report,
}

struct Handler(Box<dyn Fn(&Stop<'_>) + Send + Sync>);

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

struct StopHook(Box<dyn Fn(&Cause) + Send + Sync>);

impl fmt::Debug for StopHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StopHook")
    }
}

impl Default for Runner {
    fn default() -> Self {
        Self::new()
    }
}

impl Runner {
    /// Returns a runner with the defaults: multi-thread, SIGINT and SIGTERM, reports on stderr.
    pub fn new() -> Self {
        Self {
            current_thread: false,
            worker_threads: None,
            signals: true,
            handlers: HashMap::new(),
            press_window: Duration::from_millis(200),
            shield_main: false,
            wait_for_tasks: false,
            shield_budget: None,
            reporter: Some(Reporter::stderr()),
            on_stop: None,
            exit_policy: ExitPolicy::default(),
            #[cfg(feature = "testing")]
            source: None,
        }
    }

    /// Listens to `source` in place of the signals of the process, for tests. Nothing ends the process then.
    #[cfg(feature = "testing")]
    pub fn signals_from(mut self, source: &Signals) -> Self {
        self.source = Some(source.clone());
        self
    }

    /// Runs everything on the thread that calls [`run`](Self::run).
    pub fn current_thread(mut self) -> Self {
        self.current_thread = true;
        self
    }

    /// Sets the number of worker threads of a multi-thread runtime; the default is the number of cores.
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[track_caller]
    pub fn worker_threads(mut self, threads: usize) -> Self {
        assert!(
            threads > 0,
            "a runtime needs at least one worker thread; for none besides this one use `current_thread`"
        );
        self.worker_threads = Some(threads);
        self
    }

    /// Sets whether the runner listens to signals at all; it does by default.
    pub fn signals(mut self, listen: bool) -> Self {
        self.signals = listen;
        self
    }

    /// Calls `handle` on this signal instead of the ladder: nothing is cancelled unless `handle` does it, or asks for the
    /// [next rung](Stop::escalate).
    ///
    /// Signals that are [one press](Self::press_window) are one call. It is called on the signal thread, in the context of the run: `all_tasks`, `cancel` and `spawn` work in it. It must not wait
    /// for long: later signals wait meanwhile.
    pub fn on_signal(mut self, signal: Signal, handle: impl Fn(&Stop<'_>) + Send + Sync + 'static) -> Self {
        self.handlers.insert(signal, Handler(Box::new(handle)));
        self
    }

    /// Calls `hook` with the cause when the run is stopped, before anything is cancelled.
    pub fn on_stop(mut self, hook: impl Fn(&Cause) + Send + Sync + 'static) -> Self {
        self.on_stop = Some(StopHook(Box::new(hook)));
        self
    }

    /// Sets how close two signals of one kind must be to be one press; the default is 200 ms. Zero counts every one.
    pub fn press_window(mut self, window: Duration) -> Self {
        self.press_window = window;
        self
    }

    /// Shields main from any number of cancels, by a stop, by name or by handle.
    pub fn shield_main(mut self, shield: bool) -> Self {
        self.shield_main = shield;
        self
    }

    /// When main has ended, waits for all tasks (as trio) instead of cancelling them (as asyncio).
    pub fn wait_for_tasks(mut self, wait: bool) -> Self {
        self.wait_for_tasks = wait;
        self
    }

    /// Sets the budget of shields that name none, also of [main's](Self::shield_main); the default is none: they may hold off a
    /// stop for ever.
    ///
    /// # Panics
    ///
    /// If the budget is zero.
    #[track_caller]
    pub fn shield_budget(mut self, budget: impl Into<Option<Duration>>) -> Self {
        self.shield_budget = check_budget(budget.into());
        self
    }

    /// Sets who hears the events of the run; `None` silences it. The default is [`Reporter::stderr`].
    pub fn reporter(mut self, reporter: impl Into<Option<Reporter>>) -> Self {
        self.reporter = reporter.into();
        self
    }

    /// Sets how the status of the process follows from the end of the run, for [`run_and_exit`](Self::run_and_exit).
    pub fn exit_policy(mut self, policy: ExitPolicy) -> Self {
        self.exit_policy = policy;
        self
    }

    /// Runs `main` to its end, then cancels and awaits what it has left. The handlers are installed before main starts, and a
    /// signal that comes before main's first poll is not lost.
    ///
    /// Every started shield of the runtime has ended when this returns, also those in plain `tokio::spawn` tasks; other such
    /// tasks are dropped with the runtime. Blocking work that does not return is left behind. It never ends the process, unless
    /// it is forced.
    ///
    /// # Panics
    ///
    /// Inside of a Tokio runtime, so also inside of another run; and if the runtime can not be built or the signal handlers can
    /// not be installed.
    #[track_caller]
    pub fn run<F>(self, main: F) -> Finished<<F::Output as TaskOutput>::Value, <F::Output as TaskOutput>::Error>
    where
        F: Future,
        F::Output: TaskOutput,
    {
        self.run_with(main, Location::caller()).0
    }

    /// Runs `main` like [`run`](Self::run) and gives the status of the process, to return from the program's own `main`. An error
    /// is printed to stderr as the standard library does it.
    ///
    /// Until the process has ended, signals are taken and have no effect.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    #[track_caller]
    pub fn run_and_exit<F>(self, main: F) -> ExitCode
    where
        F: Future,
        F::Output: TaskOutput,
        <F::Output as TaskOutput>::Error: fmt::Debug,
    {
        let ExitPolicy::Main = self.exit_policy;
        let (finished, subscription) = self.run_with(main, Location::caller());
        // A signal that was sent twice, and arrives now, must not change the status.
        std::mem::forget(subscription);
        exit_code(finished.outcome)
    }

    fn run_with<F>(self, main: F, place: &'static Location<'static>) -> (FinishedOf<F::Output>, Option<Listening>)
    where
        F: Future,
        F::Output: TaskOutput,
    {
        assert!(
            Handle::try_current().is_err(),
            "`run` was called inside of a Tokio runtime, perhaps inside of another run: \
             there is one run a thread; `.await` the future here, or open a `nursery`"
        );
        let runtime = self.build();
        let host = Host::of_run(runtime.handle().clone(), self.shield_budget, self.reporter.clone());
        let root = host::install(runtime.handle(), host::new_root(host));
        let (shield_main, wait_for_tasks) = (self.shield_main, self.wait_for_tasks);
        let subscription = self.listen(&root, runtime.handle());
        let outcome = runtime.block_on(async {
            let outcome = run_main(&root, main, shield_main, place).await;
            if let (true, Some(live)) = (wait_for_tasks, &root.live) {
                std::future::poll_fn(|cx| live.poll_daemons_only(cx)).await;
            }
            host::cancel(&root, Cause::new(CauseKind::MainEnded));
            drain_root(&root).await;
            outcome
        });
        runtime.shutdown_timeout(TEARDOWN);
        let report = registry::report_of(&root, Vec::new());
        (Finished { outcome, report }, subscription)
    }

    fn build(&self) -> Runtime {
        let mut builder = if self.current_thread { Builder::new_current_thread() } else { Builder::new_multi_thread() };
        if let Some(threads) = self.worker_threads {
            builder.worker_threads(threads);
        }
        builder.enable_all().build().unwrap_or_else(|error| panic!("the runtime could not be built: {error}"))
    }

    fn listen(self, root: &Arc<Node>, handle: &Handle) -> Option<Listening> {
        if !self.signals {
            return None;
        }
        let ladder =
            [Signal::Interrupt, Signal::Terminate, Signal::Break, Signal::Close, Signal::Logoff, Signal::Shutdown];
        let mut signals = ladder.to_vec();
        signals.extend(self.handlers.keys().filter(|signal| !ladder.contains(signal)));
        let window = u64::try_from(self.press_window.as_millis()).unwrap_or(u64::MAX);
        let control = Control {
            root: Arc::clone(root),
            handle: handle.clone(),
            ladder: Mutex::new(Ladder::new(window)),
            handlers: self.handlers,
            on_stop: self.on_stop,
            end: end_process,
        };
        #[cfg(feature = "testing")]
        if let Some(source) = self.source {
            let control = Control { end: |_| {}, ..control };
            let press = move |signal, now_ms| match signals.contains(&signal) {
                true => control.press(signal, now_ms),
                false => Press::Nobody,
            };
            return Some(Listening::Injected(source.connect(handle.clone(), press)));
        }
        // The ladder's own clock, which no paused time stops.
        let began = Instant::now();
        let press = move |signal| {
            control.press(signal, u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        };
        let subscription = signal::subscribe(&signals, press);
        let subscription =
            subscription.unwrap_or_else(|error| panic!("the signal handlers could not be installed: {error}"));
        Some(Listening::Process(subscription))
    }
}

type OutcomeOf<O> = Outcome<<O as TaskOutput>::Value, <O as TaskOutput>::Error>;
type FinishedOf<O> = Finished<<O as TaskOutput>::Value, <O as TaskOutput>::Error>;

/// How long the runtime may take to drop plain Tokio tasks after everything of ours has ended; blocking threads that are still
/// busy then are left behind.
const TEARDOWN: Duration = Duration::from_millis(100);

/// How long a press waits until it has been reported.
const REPORT_MAX: Duration = Duration::from_millis(500);

/// Runs main as the task of that name.
async fn run_main<F>(
    root: &Arc<Node>,
    main: F,
    shielded: bool,
    place: &'static Location<'static>,
) -> OutcomeOf<F::Output>
where
    F: Future,
    F::Output: TaskOutput,
{
    let info = Info::new(Kind::Task, place, clock::now());
    info.set_name("main".into());
    let main = async move { if shielded { shield_scoped(main).await } else { main.await } };
    match main_task::run(root, info, main).await {
        End::Done(output) => match output.into_result() {
            Ok(value) => Outcome::Ok(value),
            Err(error) => Outcome::Err(error),
        },
        End::Cut(cut) => Outcome::Cancelled(cut.cause),
        End::Panicked(payload) => Outcome::Panicked(Panic::new(payload)),
    }
}

/// Waits until the root owns nothing any more, and closes it.
async fn drain_root(root: &Arc<Node>) {
    let Some(live) = &root.live else { return };
    while !live.close_if_idle() {
        std::future::poll_fn(|cx| live.poll_idle(cx)).await;
    }
}

fn exit_code<T, E: fmt::Debug>(outcome: Outcome<T, E>) -> ExitCode {
    let complain = |text: fmt::Arguments<'_>| {
        use std::io::Write;
        // A closed stderr is no reason to fail: there is nobody to tell.
        writeln!(std::io::stderr().lock(), "{text}").unwrap_or_default();
    };
    match outcome {
        Outcome::Ok(_) => ExitCode::SUCCESS,
        Outcome::Cancelled(cause) if cause.kind() == CauseKind::Stopped => ExitCode::SUCCESS,
        Outcome::Err(error) => {
            complain(format_args!("Error: {error:?}"));
            ExitCode::FAILURE
        }
        Outcome::Cancelled(cause) => {
            complain(format_args!("Error: main was cut off: {cause}"));
            ExitCode::FAILURE
        }
        Outcome::Panicked(_) => ExitCode::from(101),
        Outcome::Lost => ExitCode::FAILURE,
    }
}

/// A run hears signals as long as this lives.
#[expect(dead_code, reason = "kept for their destructors")]
enum Listening {
    Process(Subscription),
    #[cfg(feature = "testing")]
    Injected(Connection),
}

/// The signal side of a run.
struct Control {
    root: Arc<Node>,
    handle: Handle,
    ladder: Mutex<Ladder>,
    handlers: HashMap<Signal, Handler>,
    on_stop: Option<StopHook>,
    /// The end of the process with this status; for injected signals, nothing.
    end: fn(i32),
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Press {
    /// The run is over, or does not listen to it.
    Nobody,
    /// It is the same press as the last one.
    Same,
    /// A handler took it, and went no rung up.
    Handled,
    Climbed(Rung),
}

#[expect(clippy::disallowed_methods, reason = "the third press asks for exactly this")]
fn end_process(status: i32) {
    std::process::exit(status);
}

/// The status of a process that was forced to end.
pub(crate) fn forced_status(signal: Signal) -> i32 {
    128 + signal.number().unwrap_or(1)
}
/// What a handler of a signal can do; see [`Runner::on_signal`].
pub struct Stop<'a> {
    control: &'a Control,
    signal: Signal,
    /// The last rung that the handler asked for.
    reached: Mutex<Option<Rung>>,
}

impl Stop<'_> {
    /// Returns the signal.
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// Goes one rung up the ladder, as the runner does by default: cancel everything that is not shielded, then say what is being
    /// waited for, then end the process.
    pub fn escalate(&self) {
        let rung = self.control.escalate(self.signal);
        *lock(&self.reached) = Some(rung);
    }
}

impl fmt::Debug for Stop<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("signal", &self.signal).finish_non_exhaustive()
    }
}

impl Control {
    /// Runs on the signal thread, so also when every worker is stuck.
    fn press(&self, signal: Signal, now_ms: u64) -> Press {
        if self.root.live.as_ref().is_some_and(Live::is_closed) {
            return Press::Nobody; // Nothing is left to stop, and the status stands.
        }
        if !lock(&self.ladder).count(signal as u8, now_ms) {
            return Press::Same;
        }
        let Some(handler) = self.handlers.get(&signal) else { return Press::Climbed(self.escalate(signal)) };
        let stop = Stop { control: self, signal, reached: Mutex::new(None) };
        self.inside(|| (handler.0)(&stop));
        let reached = *lock(&stop.reached);
        reached.map_or(Press::Handled, Press::Climbed)
    }

    fn escalate(&self, signal: Signal) -> Rung {
        let rung = lock(&self.ladder).escalate();
        match rung {
            Rung::Cancel => self.stop(signal),
            Rung::Report => self.report(Event::Waiting(registry::alive(&self.root))),
            Rung::Force => {
                // The last rung needs nothing of the runtime.
                self.report(Event::Forced(registry::alive(&self.root)));
                (self.end)(forced_status(signal));
            }
        }
        rung
    }

    fn stop(&self, signal: Signal) {
        let cause = Cause::with_reason(CauseKind::Stopped, signal.to_string().into());
        if let Some(hook) = &self.on_stop {
            // The panic hook has said it; the press counts all the same.
            drop(catch_unwind(AssertUnwindSafe(|| self.inside(|| (hook.0)(&cause)))));
        }
        self.report(Event::Stopping(signal.to_string().into()));
        host::cancel(&self.root, cause);
    }

    /// Reports from a thread of its own: a reporter that panics or hangs, as in a write to a full stderr, must not stop the ladder.
    fn report(&self, event: Event) {
        let Some(host) = self.root.host().map(Arc::clone) else { return };
        let (done, is_done) = mpsc::channel::<()>();
        let reporting = thread::Builder::new().name("testudo-report".into()).spawn(move || {
            let _done = done;
            host.report(event);
        });
        if reporting.is_ok() {
            is_done.recv_timeout(REPORT_MAX).unwrap_or_default();
        }
    }

    /// Calls the program's own code as if from inside the run.
    fn inside(&self, call: impl FnOnce()) {
        let _runtime = self.handle.enter();
        let frame = Frame::of_node(Arc::clone(&self.root), true);
        let mut slot = Some(Current::at(frame));
        let _inside = Enter::new(&mut slot);
        call();
    }
}
