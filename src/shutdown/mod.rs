//! The shutdown of a run: one machine, and what it asks for carried out.
//!
//! [`Shutdown`] is what a run knows of its own end. The machine in `core/phase.rs` decides; here its actions are carried out by
//! whoever has brought the event: the signal thread, the thread that calls `shutdown`, a task that ends, a timer. So nothing
//! waits for a runtime whose workers are all stuck.
//!
//! # Invariants
//!
//! 1. The phase that others see only rises, whatever the order in which two threads carry out what they were told.
//! 2. No lock is held while an action is carried out.

mod aside;
mod asked;
pub(crate) mod budget;
mod clock;
mod control;
mod exit;
mod handle;
mod parts;
#[cfg(feature = "progress")]
mod progress;
mod reason;
mod story;
#[cfg(all(feature = "systemd", unix))]
mod systemd;
mod timers;
mod watchdog;

use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Wake, Waker};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

pub use self::asked::{Participant, Readiness, ready, shutdown_requested, take_part};
pub use self::control::Stop;
pub use self::exit::ExitPolicy;
pub use self::handle::{ShutdownHandle, shutdown};
pub use self::reason::Reason;
pub use self::story::StopReport;

use self::aside::aside;
pub(crate) use self::budget::{Budget, Config};
#[cfg(feature = "testing")]
pub(crate) use self::control::Press;
pub(crate) use self::control::{Control, Handler};
pub(crate) use self::exit::{How, MainEnd, Status, status};
pub(crate) use self::story::say_end;
pub(crate) use self::timers::Hook;

use self::clock::Clock;
use self::parts::Parts;
use crate::core::cause::{Cause, CauseKind};
use crate::core::phase::{Action, Event as Happened, Force, Machine, Phase, Takers};
use crate::dump::dump_of;
use crate::host::{self, Node, lock};
use crate::registry;
use crate::report::Event;
use crate::shield::cut_shields;
use crate::signal::Signal;
use crate::trace;

/// What a run knows of its own end.
#[derive(Debug)]
pub(crate) struct Shutdown {
    machine: Mutex<Machine>,
    phase: watch::Sender<Phase>,
    ready: watch::Sender<bool>,
    parts: Parts,
    clock: Clock,
    reason: OnceLock<Reason>,
    /// Set at the first request: a person at a terminal asked.
    interactive: OnceLock<bool>,
    forced: OnceLock<Force>,
    /// Set when the run begins. Before that a request is only remembered.
    run: OnceLock<Run>,
    early: Mutex<Option<Reason>>,
    story: story::Story,
}

/// What the shutdown of a run that has begun works on.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) root: Arc<Node>,
    pub(crate) budget: Budget,
    pub(crate) hooks: Mutex<Vec<Hook>>,
    pub(crate) on_stop: Option<StopHook>,
    pub(crate) on_force: Option<ForceHook>,
    /// A person is at a terminal, and nobody else reports.
    #[cfg_attr(not(feature = "progress"), allow(dead_code, reason = "nobody shows it"))]
    pub(crate) has_progress: bool,
    /// Its signals are injected by a test, and the last rung must not end the process of that.
    pub(crate) is_test: bool,
}

impl Run {
    /// A run of a test, without hooks.
    #[cfg(any(feature = "testing", test))]
    pub(crate) fn new(root: Arc<Node>, budget: Budget) -> Self {
        Self {
            root,
            budget,
            hooks: Mutex::default(),
            on_stop: None,
            on_force: None,
            has_progress: false,
            is_test: true,
        }
    }
}

/// The hook of [`Runner::on_stop`](crate::Runner::on_stop).
#[derive(Clone)]
pub(crate) struct StopHook(pub(crate) Arc<dyn Fn(&Cause) + Send + Sync>);

impl std::fmt::Debug for StopHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StopHook")
    }
}

/// The hook of [`Runner::on_force`](crate::Runner::on_force).
#[derive(Clone)]
pub(crate) struct ForceHook(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for ForceHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ForceHook")
    }
}

impl Shutdown {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            machine: Mutex::default(),
            phase: watch::Sender::new(Phase::Running),
            ready: watch::Sender::new(true),
            parts: Parts::default(),
            clock: Clock::default(),
            reason: OnceLock::new(),
            interactive: OnceLock::new(),
            forced: OnceLock::new(),
            run: OnceLock::new(),
            early: Mutex::default(),
            story: story::Story::default(),
        })
    }

    /// The run begins. What was asked for before it is asked for now (L42).
    pub(crate) fn attach(self: &Arc<Self>, run: Run) {
        if run.budget.is_graceful() {
            // For all that the root owns, until that is over.
            self.parts.enter();
        }
        assert!(self.run.set(run).is_ok(), "a runner runs once");
        handle::enlist(self);
        #[cfg(all(feature = "systemd", unix))]
        systemd::begin(self);
        // After the run was set: whoever finds none from now on has left its reason here before this look.
        let early = lock(&self.early).take();
        // Taken all the same, or it would stop the next run as well.
        let of_process = handle::take_early();
        if let Some(reason) = early.or(of_process) {
            self.request(reason);
        }
    }

    /// Asks for a stop from code. It makes a difference the first time only.
    pub(crate) fn request(self: &Arc<Self>, reason: Reason) {
        {
            let mut early = lock(&self.early);
            if self.run.get().is_none() {
                early.get_or_insert(reason);
                return;
            }
        }
        let shutdown = Arc::clone(self);
        let ask = move || drop(shutdown.ask(reason, false, Happened::Request));
        // What a worker wakes last, no other worker takes from it: if it blocks after this call, that would never hear of the stop.
        let is_worker = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
        match self.run.get() {
            Some(run) if is_worker => {
                let root = Arc::clone(&run.root);
                aside(move || registry::inside(&root, ask));
            }
            Some(_) | None => ask(),
        }
    }

    /// One more press, or code that asks for the next rung. Gives what it has led to.
    pub(crate) fn press(self: &Arc<Self>, signal: Signal, interactive: bool) -> Vec<Action> {
        self.ask(Reason::Signal(signal), interactive, Happened::Press)
    }

    /// No rung but the last.
    pub(crate) fn quit(self: &Arc<Self>, signal: Signal) -> Vec<Action> {
        let actions = lock(&self.machine).step(Happened::Quit);
        self.carry_out(&actions, Some(signal));
        actions
    }

    fn ask(self: &Arc<Self>, reason: Reason, interactive: bool, event: impl FnOnce(Takers) -> Happened) -> Vec<Action> {
        let signal = reason.signal();
        let mut machine = lock(&self.machine);
        if !machine.is_requested() && machine.phase() < Phase::Exit {
            // Under the lock of the machine: the reason is that of the request which it takes for the first.
            self.reason.get_or_init(|| reason);
            self.interactive.get_or_init(|| interactive);
        }
        let takers = self.takers(interactive);
        let actions = machine.step(event(takers));
        drop(machine);
        self.carry_out(&actions, signal);
        // Whoever took part may have ended between the look and the step.
        self.look_at_parts();
        actions
    }

    /// A person at a terminal does not wait for those who send work here.
    fn takers(&self, interactive: bool) -> Takers {
        let Some(run) = self.run.get() else { return Takers::default() };
        Takers {
            delay: !interactive && self.parts.hears() && !run.budget.delay.is_zero(),
            hooks: !lock(&run.hooks).is_empty(),
            graceful: !self.parts.is_empty(),
        }
    }

    /// Takes an event in that nobody asked for.
    pub(crate) fn happened(self: &Arc<Self>, event: Happened) {
        let actions = lock(&self.machine).step(event);
        self.carry_out(&actions, None);
    }

    /// Somebody takes part who may not have when the stop was asked for.
    fn part_came(self: &Arc<Self>) {
        if (Phase::Initiated..Phase::InFlight).contains(&self.phase()) {
            self.happened(Happened::PartsCame);
        }
    }

    fn look_at_parts(self: &Arc<Self>) {
        if self.phase() >= Phase::Initiated && self.parts.is_empty() {
            self.happened(Happened::PartsGone);
            // Who came between the two looks has been heard before this.
            if !self.parts.is_empty() {
                self.part_came();
            }
        }
    }

    fn carry_out(self: &Arc<Self>, actions: &[Action], signal: Option<Signal>) {
        let Some(run) = self.run.get() else { return };
        for action in actions {
            match *action {
                Action::Begin => self.begin(run),
                Action::Enter(phase) => self.enter(run, phase),
                Action::CutShields => cut_shields(&run.root),
                Action::Say => aside::report(&run.root, waiting),
                Action::SayUnfinished => aside::report(&run.root, move |root| unfinished(root, signal)),
                Action::Force(Force::Press) => watchdog::end_now(run, Force::Press, signal),
                Action::Force(Force::Budget) => self.out_of_time(run),
            }
        }
    }

    /// The clock begins, and everybody hears of it; first of all those who end the process when nothing else does.
    fn begin(self: &Arc<Self>, run: &Run) {
        let reason = self.reason();
        self.clock.begin(run.budget.for_reason(&reason));
        watchdog::watch(self);
        timers::begin(self);
        #[cfg(feature = "progress")]
        if run.has_progress {
            progress::show(self);
        }
        if let Some(hook) = run.on_stop.clone() {
            let (root, cause) = (Arc::clone(&run.root), reason.cause());
            aside(move || registry::inside(&root, || (hook.0)(&cause)));
        }
        let graceful = self.asked_phase() < Phase::Cancelling;
        aside::report(&run.root, move |root| Event::Stopping {
            why: reason.to_string().into(),
            graceful,
            dump: dump_of(root),
        });
    }

    /// The phase that the machine is in, which those who wait may not have seen yet.
    fn asked_phase(&self) -> Phase {
        lock(&self.machine).phase()
    }

    fn enter(self: &Arc<Self>, run: &Run, phase: Phase) {
        if phase == Phase::Cancelling {
            self.story.note_alive(&run.root);
        }
        let rises = |now: &mut Phase| {
            let is_new = phase > *now;
            if is_new {
                *now = phase;
                // Before anybody hears of it: whoever has waited for a phase finds it in the story.
                self.story.note_phase(phase);
            }
            is_new
        };
        if !self.phase.send_if_modified(rises) {
            return;
        }
        self.ready.send_replace(false);
        self.clock.enter(phase);
        aside::trace(move || trace::phase(phase));
        match phase {
            Phase::Initiated => self.story.note_alive(&run.root),
            Phase::Cancelling => self.cancel(&run.root),
            Phase::Running
            | Phase::Draining
            | Phase::NotAccepting
            | Phase::InFlight
            | Phase::Shielded
            | Phase::Finalizing
            | Phase::Exit => {}
        }
    }

    fn cancel(&self, root: &Arc<Node>) {
        let cause = self.reason().cause();
        let (told, why) = (Arc::clone(root), cause.clone());
        aside::trace(move || trace::cancelled(&told, &why));
        host::cancel_untold(root, cause);
    }

    /// To be dropped when the runtime is gone, also by a panic: nothing can keep the process any more, and the next run hears of later
    /// requests.
    pub(crate) fn over_at_drop(self: &Arc<Self>) -> impl Drop + use<> {
        Over(Arc::clone(self))
    }

    /// To be called when all else of the run is over. It does not return if the process is being ended: the status is that of the force, and who
    /// forces may still be saying what is cut off.
    pub(crate) fn make_way_for_force(&self) {
        let is_test = self.run.get().is_none_or(|run| run.is_test);
        while !is_test && (lock(&self.machine).ends() || self.clock.is_overdue()) {
            std::thread::park();
        }
    }

    /// All time is up: shields and finalizers are cut off. What does not even then let go is left to the watchdog.
    fn out_of_time(self: &Arc<Self>, run: &Run) {
        self.forced.get_or_init(|| Force::Budget);
        aside::report(&run.root, |root| watchdog::forced(root, Force::Budget, None));
        run.root.pierce(Cause::new(CauseKind::Budget));
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits for a phase; at once if it is over.
    pub(crate) async fn wait(&self, phase: Phase) {
        // The sender is ours, so it is there.
        drop(self.phase.subscribe().wait_for(|now| *now >= phase).await);
    }

    /// Why this run stops: who asked first, or that main has ended.
    pub(crate) fn reason(&self) -> Reason {
        self.reason.get().cloned().unwrap_or(Reason::MainEnded)
    }

    /// How the run has ended, as far as the status of the process goes.
    pub(crate) fn how(&self, main: MainEnd) -> How<'_> {
        How {
            reason: self.reason.get(),
            interactive: self.interactive.get().copied().unwrap_or(false),
            forced: self.forced.get().copied(),
            main,
        }
    }

    fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::new(PartEnded(Arc::downgrade(self))))
    }
}

/// What is to be said on the second press.
fn waiting(root: &Arc<Node>) -> Event {
    Event::Waiting { whom: registry::alive(root), dump: dump_of(root) }
}

/// What is to be said when those who take part are not waited for any more.
fn unfinished(root: &Arc<Node>, signal: Option<Signal>) -> Event {
    let why = signal.map(|signal| signal.to_string().into());
    Event::Unfinished { why, whom: registry::alive(root), dump: dump_of(root) }
}

struct Over(Arc<Shutdown>);

impl Drop for Over {
    fn drop(&mut self) {
        handle::delist(&self.0);
        self.0.clock.end();
    }
}

/// Woken when a task that takes part has ended. The tasks are kept by the shutdown, so they do not keep it.
struct PartEnded(Weak<Shutdown>);

impl Wake for PartEnded {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.upgrade().iter().for_each(Shutdown::look_at_parts);
    }
}
