//! The runner: builds the runtime, listens to signals, runs main, and drains everything before the runtime goes.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io::IsTerminal;
use std::panic::Location;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::core::cause::Cause;
use crate::core::phase::Event as Happened;
use crate::exit::{Exit, Listening, complain, say_error};
use crate::host::{self, Host, Node};
use crate::main_task;
use crate::outcome::{Outcome, TaskOutput};
use crate::registry;
use crate::report::{Event, Report, Reporter};
use crate::shield::check_budget;
use crate::shutdown::{
    Budget, Config, Control, ExitPolicy, ForceHook, Handler, Hook, MainEnd, Run, Shutdown, ShutdownHandle, Stop,
    StopHook, say_end, status,
};
use crate::signal::{self, Signal};
#[cfg(feature = "testing")]
use crate::testing::Signals;

/// Runs `main` to its end on a multi-thread runtime with the default [`Runner`], and gives how it has ended.
///
/// # Panics
///
/// Inside of a Tokio runtime, so also inside of another run; and if the runtime can not be built, the signal handlers can not be
/// installed, or `TESTUDO_BUDGET` can not be read.
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
/// # Shutdown
///
/// | Signal | first press | second press | third press |
/// |---|---|---|---|
/// | SIGINT | asks to stop | cancels | ends the process: 130 |
/// | SIGINT, nobody takes part | cancels | says what it waits for | ends the process: 130 |
/// | SIGTERM | asks to stop | cancels | ends the process: 143 |
/// | SIGTERM, nobody takes part | cancels | says what it waits for | ends the process: 143 |
/// | SIGQUIT | ends the process: 131 | | |
/// | SIGUSR1 | says what is alive | says what is alive | says what is alive |
/// | SIGHUP | not taken | not taken | not taken |
/// | SIGUSR2 | not taken | not taken | not taken |
/// | CTRL_C | asks to stop | cancels | ends the process: 130 |
/// | CTRL_BREAK | asks to stop | cancels | ends the process: 130 |
/// | CTRL_CLOSE | asks to stop | cancels | ends the process: 143 |
/// | CTRL_LOGOFF | asks to stop | cancels | ends the process: 143 |
/// | CTRL_SHUTDOWN | asks to stop | cancels | ends the process: 143 |
/// | CTRL_SHUTDOWN, nobody takes part | cancels | says what it waits for | ends the process: 143 |
///
/// The last ones are Windows' console events. Only what is not shielded is cancelled. Who takes part in the graceful phase,
/// [`shutdown_requested`](crate::shutdown_requested) tells. What is waited for is said by name and place, and in its tree, and so is
/// what is cut off when the process ends. Signals of one kind within 200 ms are one press (a terminal and a parent may both send it).
/// [`on_signal`](Self::on_signal) and [`stop_signals`](Self::stop_signals) change what a signal does.
///
/// A signal that is *not taken* does what it does to any program: SIGHUP and SIGUSR2 end the process at once, with nothing drained. To
/// have a terminal that is closed stop the run in order, put `Signal::Hangup` among the [`stop_signals`](Self::stop_signals).
///
/// All of it takes place within one [budget](Self::budget). When that is used up, shields and finalizers are cut off as well, and the
/// process ends, if need be without the help of the runtime.
///
/// An inherited "ignore" (`nohup`) is respected on Linux. After a run, signals have their default effect again as far as this process
/// had no other handler when the run began; a listener that the program installs *during* its first run can not be told from ours.
#[derive(Debug)]
#[must_use = "a runner does nothing until `run`"]
pub struct Runner {
    shutdown: Arc<Shutdown>,
    current_thread: bool,
    worker_threads: Option<usize>,
    signals: bool,
    ladder: Vec<Signal>,
    handlers: HashMap<Signal, Handler>,
    press_window: Duration,
    shield_main: bool,
    wait_for_tasks: bool,
    config: Config,
    /// None: the default one.
    reporter: Option<Option<Reporter>>,
    on_stop: Option<StopHook>,
    on_force: Option<ForceHook>,
    pre_stop: Vec<Hook>,
    at_end: Vec<Hook>,
    exit_policy: ExitPolicy,
    #[cfg(feature = "testing")]
    source: Option<Signals>,
}

/// How a run has ended.
#[derive(Debug)]
pub struct Finished<T, E> {
    /// How main has ended. Cancelled with cause [`Stopped`](crate::CauseKind::Stopped) is a clean stop.
    pub outcome: Outcome<T, E>,
    /// What was reported, and how the run has stopped.
    pub report: Report,
}

impl Default for Runner {
    fn default() -> Self {
        Self::new()
    }
}

impl Runner {
    /// Returns a runner with the defaults: multi-thread, SIGINT and SIGTERM, 28 s to stop, reports on stderr.
    pub fn new() -> Self {
        Self {
            shutdown: Shutdown::new(),
            current_thread: false,
            worker_threads: None,
            signals: true,
            ladder: vec![
                Signal::Interrupt,
                Signal::Terminate,
                Signal::Break,
                Signal::Close,
                Signal::Logoff,
                Signal::Shutdown,
            ],
            handlers: HashMap::new(),
            press_window: Duration::from_millis(200),
            shield_main: false,
            wait_for_tasks: false,
            config: Config::default(),
            reporter: None,
            on_stop: None,
            on_force: None,
            pre_stop: Vec::new(),
            at_end: Vec::new(),
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

    /// Returns a handle on the shutdown of this run, for code that is not inside of it. It works before the run, too.
    pub fn handle(&self) -> ShutdownHandle {
        ShutdownHandle::new(Arc::clone(&self.shutdown))
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

    /// Sets the signals that climb the ladder; see [Shutdown](Self#shutdown) for the default. One that is left out of them keeps its effect
    /// on any program: without `Signal::Terminate` a SIGTERM ends the process with nothing drained. SIGQUIT among them climbs as well, and
    /// does not end the process at once any more.
    pub fn stop_signals(mut self, signals: impl IntoIterator<Item = Signal>) -> Self {
        self.ladder = signals.into_iter().collect();
        self
    }

    /// Calls `handle` on this signal instead of the ladder: nothing is cancelled unless `handle` does it, or asks for the
    /// [next rung](Stop::escalate). SIGQUIT ends the process after it all the same. For SIGHUP it is the hook to reload.
    ///
    /// A later call for the same signal replaces an earlier one. Signals that are [one press](Self::press_window) are one call of `handle`. It
    /// is called on a thread of its own, in the context of the run: `all_tasks`, `cancel` and `spawn` work in it. Half a second is waited for
    /// it until later signals are looked at.
    pub fn on_signal(mut self, signal: Signal, handle: impl Fn(&Stop<'_>) + Send + Sync + 'static) -> Self {
        self.handlers.insert(signal, Handler::new(handle));
        self
    }

    /// Calls `hook` with the cause when the run is asked to stop, before anything is cancelled. On a thread of its own, in the context
    /// of the run; half a second is waited for it. A later call replaces an earlier one.
    pub fn on_stop(mut self, hook: impl Fn(&Cause) + Send + Sync + 'static) -> Self {
        self.on_stop = Some(StopHook(Arc::new(hook)));
        self
    }

    /// Calls `hook` right before the process is ended by force, for a last word: by a third press, by SIGQUIT, or because all time is
    /// up. On a thread of its own, also with every worker stuck; half a second is waited for it. A later call replaces an
    /// earlier one.
    pub fn on_force(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_force = Some(ForceHook(Arc::new(hook)));
        self
    }

    /// Runs `hook` when the run is asked to stop, beside the [drain delay](Self::drain_delay): accepting goes on until both are over. For
    /// what Kubernetes calls a pre-stop hook. It runs outside of all tasks, and the time for this phase is its limit.
    pub fn pre_stop<F>(mut self, hook: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.pre_stop.push(Hook::new(hook));
        self
    }

    /// Runs `hook` at the very end, when everything else has ended: to flush telemetry. It runs outside of all tasks, and the
    /// [reserve](Self::reserve) is its limit.
    pub fn at_end<F>(mut self, hook: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.at_end.push(Hook::new(hook));
        self
    }

    /// Sets how long stopping may take in all, from the request to the end; `None` is no limit. The default is 28 s, and 8 s in a
    /// container of Podman, which gives 10 s, and says so by the variable `container`. Docker gives 10 s as well, but says nothing: state
    /// the budget there. The variable `TESTUDO_BUDGET` overrides it: `20s`, `1m 30s`, `none`.
    ///
    /// What the phases may take is derived from it: a fifth for draining, half of what is left for those who take part, all but the
    /// [reserve](Self::reserve) for shields, and the reserve for finalizers. These are limits: a phase that nobody takes part in takes
    /// no time. When main ends and nobody has asked for a stop, no clock runs.
    ///
    /// # Panics
    ///
    /// If the budget is zero.
    #[track_caller]
    pub fn budget(mut self, budget: impl Into<Option<Duration>>) -> Self {
        let budget = budget.into();
        assert!(
            budget != Some(Duration::ZERO),
            "nothing can stop in no time: give it a budget, or `None` for no limit"
        );
        self.config.total = Some(budget);
        self
    }

    /// Sets how long accepting goes on after the request, so that those who send work here can hear of it. The default is 0 s, and 5 s in
    /// Kubernetes. It is skipped if nobody [accepts](crate::Participant::accept) or asks whether the run is [`ready`](crate::ready), and
    /// after a Ctrl-C at a terminal.
    pub fn drain_delay(mut self, delay: Duration) -> Self {
        self.config.delay = Some(delay);
        self
    }

    /// Sets how long the graceful phase may take at most, and has it entered also if nobody is known to take part: then it lasts until
    /// everything has ended, or its time is up.
    pub fn graceful_budget(mut self, budget: Duration) -> Self {
        self.config.graceful = Some(budget);
        self
    }

    /// Sets what no other phase may eat of the budget: the time for finalizers when shields have used up theirs. The default is a tenth
    /// of the budget, at least a second, at most half of it; and 3 s without a limit.
    pub fn reserve(mut self, reserve: Duration) -> Self {
        self.config.reserve = Some(reserve);
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
    /// stop until its [budget](Self::budget) is used up.
    ///
    /// # Panics
    ///
    /// If the budget is zero.
    #[track_caller]
    pub fn shield_budget(mut self, budget: impl Into<Option<Duration>>) -> Self {
        self.config.shield = check_budget(budget.into());
        self
    }

    /// Sets who hears the events of the run; `None` silences it. The default is [`Reporter::standard`], and with the feature `progress`
    /// a line at the terminal while a stop takes long.
    pub fn reporter(mut self, reporter: impl Into<Option<Reporter>>) -> Self {
        self.reporter = Some(reporter.into());
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
    /// tasks are dropped with the runtime. Blocking work that does not return is left behind, but for that of
    /// [nurseries](crate::TaskBuilder::spawn_blocking), which is waited for as any child. It never ends the process, unless
    /// it is forced: by a third press, by SIGQUIT, or half a second after the [budget](Self::budget).
    ///
    /// # Panics
    ///
    /// Inside of a Tokio runtime, so also inside of another run; and if the runtime can not be built, the signal handlers can
    /// not be installed, or `TESTUDO_BUDGET` can not be read.
    #[track_caller]
    pub fn run<F>(self, main: F) -> Finished<<F::Output as TaskOutput>::Value, <F::Output as TaskOutput>::Error>
    where
        F: Future,
        F::Output: TaskOutput,
    {
        self.run_with(main, Location::caller()).0
    }

    /// Runs `main` like [`run`](Self::run) and gives the status of the process, to return from the program's own `main`; see
    /// [`ExitPolicy`]. Where that says that the process dies by a signal, this does not return. An error is printed to stderr as the
    /// standard library does it.
    ///
    /// Until the process has ended, signals are taken and have no effect.
    ///
    /// A `TESTUDO_BUDGET` that can not be read is an error as well: main does not run, and the status is 1.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run), but for the budget.
    #[track_caller]
    pub fn run_and_exit<F>(self, main: F) -> ExitCode
    where
        F: Future,
        F::Output: TaskOutput,
        <F::Output as TaskOutput>::Error: fmt::Debug,
    {
        if let Err(error) = Budget::read(self.config) {
            // It is not the program that is wrong, but who has started it.
            say_error(&error);
            return ExitCode::FAILURE;
        }
        let (finished, exit) = self.run_to_exit(main);
        complain(&finished.outcome);
        exit.leave()
    }

    /// Runs `main` like [`run`](Self::run), and gives the end of the process beside the end of the run: for a program that has
    /// something to do in between, as to print a last line. With nothing in between, and an error printed, it is
    /// [`run_and_exit`](Self::run_and_exit).
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::process::ExitCode;
    /// use testudo::Runner;
    ///
    /// fn main() -> ExitCode {
    ///     let (finished, exit) = Runner::new().run_to_exit(async { Ok::<_, std::io::Error>(7) });
    ///     println!("the end: {}", finished.outcome.unwrap()); // a second Ctrl-C does not hinder it
    ///     exit.leave()
    /// }
    /// ```
    #[track_caller]
    pub fn run_to_exit<F>(self, main: F) -> (FinishedOf<F::Output>, Exit)
    where
        F: Future,
        F::Output: TaskOutput,
    {
        let (policy, shutdown) = (self.exit_policy, Arc::clone(&self.shutdown));
        let (finished, listening) = self.run_with(main, Location::caller());
        let status = status(policy, shutdown.how(MainEnd::of(&finished.outcome)));
        (finished, Exit::new(status, listening))
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
        let (budget, faults) = Budget::read(self.config).unwrap_or_else(|error| panic!("{error}"));
        let runtime = self.build();
        let shutdown = Arc::clone(&self.shutdown);
        let over = shutdown.over_at_drop();
        let reporter = self.reporter.clone().unwrap_or_else(|| Some(Reporter::standard()));
        let host = Host::of_run(runtime.handle().clone(), self.config.shield, reporter, Arc::clone(&shutdown));
        let root = host::install(runtime.handle(), host::new_root_at(host, place));
        faults.into_iter().for_each(|fault| host::report(&root, Event::Warning(fault.into())));
        let (shield_main, wait_for_tasks) = (self.shield_main, self.wait_for_tasks);
        let (subscription, at_end) = self.begin(&root, budget);
        let (outcome, in_time) = runtime.block_on(async {
            let outcome = main_task::outcome(&root, main, shield_main, place).await;
            if let (true, Some(live)) = (wait_for_tasks, root.live()) {
                std::future::poll_fn(|cx| live.poll_daemons_only(cx)).await;
            }
            shutdown.happened(Happened::MainEnded);
            if let Some(live) = root.live() {
                std::future::poll_fn(|cx| live.poll_idle(cx)).await;
            }
            (outcome, shutdown.flush(at_end).await)
        });
        if !in_time {
            host::report(&root, Event::Warning("hooks of the end used up the reserve and are cut off".into()));
        }
        runtime.shutdown_timeout(TEARDOWN);
        drop(over);
        shutdown.make_way_for_force();
        let report = Report { stop: shutdown.story(), ..registry::report_of(&root, Vec::new()) };
        say_end(&root, &report);
        (Finished { outcome, report }, subscription)
    }

    fn build(&self) -> Runtime {
        let mut builder = if self.current_thread { Builder::new_current_thread() } else { Builder::new_multi_thread() };
        if let Some(threads) = self.worker_threads {
            builder.worker_threads(threads);
        }
        builder.enable_all().build().unwrap_or_else(|error| panic!("the runtime could not be built: {error}"))
    }

    /// Binds the shutdown to the run, and listens to signals. Gives the hooks of the end.
    fn begin(self, root: &Arc<Node>, budget: Budget) -> (Option<Listening>, Vec<Hook>) {
        let has_progress = self.reporter.is_none() && std::io::stderr().is_terminal();
        let (hooks, on_stop, on_force) = (Mutex::new(self.pre_stop), self.on_stop, self.on_force);
        #[cfg(feature = "testing")]
        let is_test = self.source.is_some();
        #[cfg(not(feature = "testing"))]
        let is_test = false;
        let root_of_run = Arc::clone(root);
        self.shutdown.attach(Run { root: root_of_run, budget, hooks, on_stop, on_force, has_progress, is_test });
        if !self.signals {
            return (None, self.at_end);
        }
        let control = Control::new(self.shutdown, Arc::clone(root), self.press_window, self.ladder, self.handlers);
        #[cfg(feature = "testing")]
        if let Some(source) = self.source {
            return (Some(Listening::Injected(source.connect(control))), self.at_end);
        }
        let signals = control.signals();
        // The clock of presses, which no paused time stops.
        let began = Instant::now();
        let press = move |signal| {
            let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            drop(control.press(signal, now));
        };
        let subscription = signal::subscribe(&signals, press);
        let subscription =
            subscription.unwrap_or_else(|error| panic!("the signal handlers could not be installed: {error}"));
        (Some(Listening::Process(subscription)), self.at_end)
    }
}

type FinishedOf<O> = Finished<<O as TaskOutput>::Value, <O as TaskOutput>::Error>;

/// How long the runtime may take to drop plain Tokio tasks after everything of ours has ended; blocking threads that are still
/// busy then are left behind.
const TEARDOWN: Duration = Duration::from_millis(100);

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::shutdown::take_part;
    use crate::testing::{Effect, Signals};

    const SIGNALS: [(&str, Signal); 11] = [
        ("SIGINT", Signal::Interrupt),
        ("SIGTERM", Signal::Terminate),
        ("SIGQUIT", Signal::Quit),
        ("SIGUSR1", Signal::User1),
        ("SIGUSR2", Signal::User2),
        ("SIGHUP", Signal::Hangup),
        ("CTRL_C", Signal::Interrupt),
        ("CTRL_BREAK", Signal::Break),
        ("CTRL_CLOSE", Signal::Close),
        ("CTRL_LOGOFF", Signal::Logoff),
        ("CTRL_SHUTDOWN", Signal::Shutdown),
    ];

    /// What three presses do to a run as it is by default.
    fn three_presses(signal: Signal, somebody_takes_part: bool) -> Vec<Effect> {
        let (signals, mut effects) = (Signals::new(), Vec::new());
        let runner = Runner::new().current_thread().reporter(None).press_window(Duration::ZERO).signals_from(&signals);
        drop(runner.run(async {
            let _part = somebody_takes_part.then(take_part);
            effects.extend((0..3).map(|_| signals.press(signal)));
        }));
        effects
    }

    /// An effect in the words of the table. The system that has a signal says which number it has.
    fn said(effect: Effect, signal: Signal, expected: &str) -> String {
        match effect {
            Effect::Nobody => "not taken".into(),
            Effect::Handled => "says what is alive".into(),
            Effect::Asked => "asks to stop".into(),
            Effect::Cancelled => "cancels".into(),
            Effect::Reported => "says what it waits for".into(),
            Effect::SamePress => "is no press".into(),
            Effect::Forced(_) if signal.number().is_none() && expected.starts_with("ends the process: ") => {
                expected.into()
            }
            Effect::Forced(status) => format!("ends the process: {status}"),
        }
    }

    #[test]
    fn the_table_of_signals_in_the_documentation_is_what_presses_do() {
        let lines = include_str!("runner.rs").lines().take_while(|line| !line.starts_with("pub struct Runner"));
        let rows: Vec<&str> = lines.filter_map(|line| line.strip_prefix("/// | ")).skip(1).collect();
        for row in &rows {
            let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
            let name = cells[0].strip_suffix(", nobody takes part").unwrap_or(cells[0]);
            let signal = SIGNALS.iter().find(|(other, _)| *other == name).expect("a row names a signal").1;
            let effects = three_presses(signal, name == cells[0]);
            assert_eq!((cells.len(), effects.len()), (4, 3), "{row}");
            // Behind the end of the process there is nothing to say.
            for (effect, expected) in effects.into_iter().zip(&cells[1..]).filter(|(_, cell)| !cell.is_empty()) {
                assert_eq!(said(effect, signal, expected), *expected, "{row}");
            }
        }
        assert!(rows.len() > SIGNALS.len(), "the table names each: {rows:?}");
    }
}
