//! What a run on Testudo's side keeps: who is alive by name, what has happened, who waits.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use send_wrapper::SendWrapper;
use testudo::{CancelScope, LocalNursery, LocalTask, Nursery, ScopeHandle, Task};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::program::{Program, Trace, What, walk};

/// When whatever still waits counts as waiting for ever.
pub(crate) const END: u64 = 1_000_000;

/// The failures of a program, by the numbers of the operations that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Errs(pub(crate) Vec<u32>);

impl fmt::Display for Errs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Errs {}

pub(crate) enum AnyNursery {
    Regular(Nursery<Errs>),
    /// Everything of a run is in one thread.
    Local(SendWrapper<LocalNursery<'static, Errs>>),
}

pub(crate) enum AnyTask {
    Regular(Arc<tokio::sync::Mutex<Task<(), Errs>>>, testudo::TaskRef),
    Local(SendWrapper<LocalTask<(), Errs>>),
}

#[derive(Default)]
struct State {
    trace: Trace,
    over: bool,
    blocked: BTreeSet<u32>,
    /// Scopes that have not begun.
    unbound: HashMap<u32, CancelScope>,
    scopes: HashMap<u32, ScopeHandle>,
    /// Scopes whose deadline can be moved: those that run, and before that, those without a timeout.
    movable: HashSet<u32>,
    tasks: HashMap<u32, AnyTask>,
    /// Tasks that were cancelled before they were begun.
    doomed: HashSet<u32>,
    nurseries: HashMap<u32, AnyNursery>,
    rng: Option<fastrand::Rng>,
}

/// One run.
pub(crate) struct World {
    start: Instant,
    state: Mutex<State>,
    events: Vec<Flag>,
    done: HashMap<u32, Flag>,
    end: Flag,
}

/// Set once, for all who wait.
pub(crate) struct Flag(watch::Sender<bool>);

impl Flag {
    fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn set(&self) {
        self.0.send_replace(true);
    }

    /// As trio's events: one that is set already is a checkpoint.
    pub(crate) async fn wait(&self) {
        let mut receiver = self.0.subscribe();
        if *receiver.borrow() {
            testudo::checkpoint().await;
            return;
        }
        receiver.wait_for(|set| *set).await.expect("the sender is here");
    }
}

impl World {
    /// Makes what can be named before it begins. Seed 0 runs without stepping aside.
    pub(crate) fn new(program: &mut Program, seed: u64) -> Self {
        let mut state = State { rng: (seed != 0).then(|| fastrand::Rng::with_seed(seed)), ..State::default() };
        let mut done = HashMap::new();
        walk(&mut program.body, &mut |id, what| {
            if let What::Scope { deadline, timeout, shield, .. } = what {
                if timeout.is_none() {
                    state.movable.insert(id);
                }
                let mut scope = CancelScope::new().shielded(*shield);
                if let Some(ms) = deadline {
                    scope = scope.deadline(Instant::now() + length(*ms));
                }
                state.scopes.insert(id, scope.handle());
                state.unbound.insert(id, scope);
            }
            if let What::Spawn { .. } = what {
                done.insert(id, Flag::new());
            }
        });
        Self {
            start: Instant::now(),
            state: Mutex::new(state),
            events: (0..program.events).map(|_| Flag::new()).collect(),
            done,
            end: Flag::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    pub(crate) fn now(&self) -> u64 {
        self.ms(Instant::now())
    }

    pub(crate) fn ms(&self, at: Instant) -> u64 {
        u64::try_from((at - self.start).as_millis()).expect("a run is short")
    }

    pub(crate) fn emit(&self, task: u32, what: impl Into<String>) {
        let now = self.now();
        let mut state = self.state();
        if !state.over {
            state.trace.events.push((now, task, what.into()));
        }
    }

    /// Says how something has ended that can not end so.
    pub(crate) fn odd(&self, task: u32, what: impl fmt::Debug) {
        self.emit(task, format!("odd: {what:?}"));
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state().over
    }

    /// Ends the run: what is blocked now waits for ever.
    pub(crate) fn close(&self) {
        let blocked = format!("blocked {:?}", self.state().blocked.iter().collect::<Vec<_>>());
        self.emit(0, blocked);
        self.state().over = true;
    }

    /// The trace, with what was reported besides.
    pub(crate) fn trace(&self, reported: Vec<u32>) -> Trace {
        let mut trace = std::mem::take(&mut self.state().trace);
        // Stable: the order of one task at one instant stays.
        trace.events.sort_by_key(|(at, task, _)| (*at, *task));
        trace.reported = reported;
        trace
    }

    pub(crate) fn event(&self, event: usize) -> &Flag {
        &self.events[event]
    }

    pub(crate) fn end(&self) -> &Flag {
        &self.end
    }

    pub(crate) fn done(&self, task: u32) -> &Flag {
        // One that is not in the program never ends.
        self.done.get(&task).unwrap_or(&self.end)
    }

    pub(crate) fn block_on(&self, id: u32) -> Blocked<'_> {
        self.state().blocked.insert(id);
        Blocked { world: self, id }
    }

    /// How often somebody who was woken steps aside before it goes on.
    pub(crate) fn steps_aside(&self) -> u32 {
        self.state().rng.as_mut().map_or(0, |rng| *rng.choice(&[0, 0, 1, 2, 5]).expect("there are some"))
    }

    // ------------------------------------------------------------------------------------ by name

    pub(crate) fn take_scope(&self, id: u32) -> CancelScope {
        self.state().unbound.remove(&id).expect("each scope runs once")
    }

    pub(crate) fn scope(&self, id: u32) -> Option<ScopeHandle> {
        self.state().scopes.get(&id).cloned()
    }

    pub(crate) fn movable_scope(&self, id: u32) -> Option<ScopeHandle> {
        let state = self.state();
        state.movable.contains(&id).then(|| state.scopes.get(&id).cloned()).flatten()
    }

    /// A scope is running until the guard goes.
    pub(crate) fn activate(&self, id: u32) -> Active<'_> {
        self.state().movable.insert(id);
        Active { world: self, id }
    }

    pub(crate) fn add_nursery(&self, id: u32, nursery: AnyNursery, scope: ScopeHandle) {
        let mut state = self.state();
        state.scopes.insert(id, scope);
        state.nurseries.insert(id, nursery);
    }

    pub(crate) fn with_nursery<T>(&self, id: u32, look: impl FnOnce(Option<&AnyNursery>) -> T) -> T {
        let nursery = self.state().nurseries.remove(&id);
        let result = look(nursery.as_ref());
        if let Some(nursery) = nursery {
            self.state().nurseries.insert(id, nursery);
        }
        result
    }

    /// A local nursery that has ended can not be asked whether it has.
    pub(crate) fn forget_nursery(&self, id: u32) {
        let nursery = self.state().nurseries.remove(&id);
        drop(nursery);
    }

    pub(crate) fn add_task(&self, id: u32, task: AnyTask) {
        if self.state().doomed.contains(&id) {
            cancel_task(&task);
        }
        self.state().tasks.insert(id, task);
    }

    pub(crate) fn task(&self, id: u32) -> Option<Arc<tokio::sync::Mutex<Task<(), Errs>>>> {
        match self.state().tasks.get(&id) {
            Some(AnyTask::Regular(task, _)) => Some(Arc::clone(task)),
            Some(AnyTask::Local(_)) | None => None,
        }
    }

    pub(crate) fn cancel(&self, id: u32) {
        if let Some(scope) = self.scope(id) {
            scope.cancel("the program says so");
            return;
        }
        let task = self.state().tasks.remove(&id);
        match task {
            Some(task) => {
                cancel_task(&task);
                self.state().tasks.insert(id, task);
            }
            None => {
                self.state().doomed.insert(id);
            }
        }
    }
}

fn cancel_task(task: &AnyTask) {
    match task {
        AnyTask::Regular(_, task) => task.cancel("the program says so"),
        AnyTask::Local(task) => task.cancel("the program says so"),
    };
}

pub(crate) fn length(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Kept by whoever waits.
pub(crate) struct Blocked<'a> {
    world: &'a World,
    id: u32,
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.world.state().blocked.remove(&self.id);
    }
}

/// Kept by a scope that runs.
pub(crate) struct Active<'a> {
    world: &'a World,
    id: u32,
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.world.state().movable.remove(&self.id);
    }
}

/// Says what was cut off, when it is dropped before it was disarmed.
pub(crate) struct Watch {
    world: Arc<World>,
    task: u32,
    what: Option<Box<dyn Fn() -> String + Send>>,
}

impl Watch {
    pub(crate) fn new(world: &Arc<World>, task: u32, what: impl Fn() -> String + Send + 'static) -> Self {
        Self { world: Arc::clone(world), task, what: Some(Box::new(what)) }
    }

    /// It was not cut off; what comes of it is said later.
    pub(crate) fn what_follows(mut self) {
        self.what = None;
    }

    /// It has ended otherwise.
    pub(crate) fn ends(mut self, how: impl Into<String>) {
        self.what = None;
        self.world.emit(self.task, how);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(what) = &self.what {
            self.world.emit(self.task, what());
        }
    }
}
