//! Runs a program on real threads, and counts what happens.

#![expect(clippy::wildcard_enum_match_arm, reason = "`step` has sorted the operations before")]

use std::fmt;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use testudo::{
    CancelScope, FinalizeExt, Nursery, ScopeHandle, TaskRef, bracket, cancelled, catch_cancelled, checkpoint,
    is_cancelled, nursery, shield, shield_with,
};
use tokio::task::{AbortHandle, JoinHandle, yield_now};
use tokio::time::{Instant, sleep, timeout};

use crate::program::{Action, Block, Child, Ending, Fate, NurserySpec, Op, Program, Rule};

/// What one run of a program has done so far.
pub(crate) struct State {
    pub(crate) program: Program,
    blocks: Vec<Tally>,
    scopes: Vec<(Mutex<Option<CancelScope>>, ScopeHandle)>,
    nurseries: Vec<OnceLock<ScopeHandle>>,
    root: OnceLock<AbortHandle>,
    /// Plain tasks, which nobody else waits for.
    plain: Mutex<Vec<JoinHandle<()>>>,
    /// Set under the lock of `plain`: nobody waits for plain tasks any more, so none begins.
    closed: AtomicBool,
    /// Futures to be dropped by a thread that has no runtime.
    graves: Mutex<Vec<BoxFuture<'static, ()>>>,
    faults: Mutex<Vec<String>>,
    /// Set when the thread outside has done all that it had to do.
    pub(crate) acted: AtomicBool,
}

/// What has happened to one block.
#[derive(Default)]
struct Tally {
    spawned: AtomicUsize,
    begun: AtomicUsize,
    completed: AtomicUsize,
    ended: AtomicUsize,
    task: OnceLock<TaskRef>,
}

/// How much is alive inside a nursery, at any depth.
struct Gauge {
    alive: AtomicUsize,
    outer: Option<Arc<Gauge>>,
}

impl Gauge {
    fn all(this: Option<&Arc<Self>>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(this, |gauge| gauge.outer.as_ref())
    }
}

/// A nursery that code can spawn into.
struct Open {
    nursery: Nursery<Fault>,
    gauge: Arc<Gauge>,
    outer: Option<Arc<Open>>,
}

/// What code knows of the place where it runs.
#[derive(Clone)]
struct Place {
    state: Arc<State>,
    gauge: Option<Arc<Gauge>>,
    open: Option<Arc<Open>>,
}

#[derive(Debug)]
struct Fault;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error of the program")
    }
}

/// A block that is running; gone when its future is.
struct Running {
    place: Place,
    id: usize,
}

impl Running {
    fn new(place: &Place, block: &Block) -> Self {
        if place.state.blocks[block.id].begun.fetch_add(1, Ordering::SeqCst) > 0 {
            place.state.fault(format!("#{} began twice", block.id));
        }
        for gauge in Gauge::all(place.gauge.as_ref()) {
            gauge.alive.fetch_add(1, Ordering::SeqCst);
        }
        Self { place: place.clone(), id: block.id }
    }

    fn complete(&self) {
        self.place.state.blocks[self.id].completed.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for gauge in Gauge::all(self.place.gauge.as_ref()) {
            gauge.alive.fetch_sub(1, Ordering::SeqCst);
        }
        self.place.state.blocks[self.id].ended.fetch_add(1, Ordering::SeqCst);
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(crate) fn new(program: Program) -> Self {
        let scopes = program.scopes.iter().map(|spec| {
            let scope = CancelScope::new().shielded(spec.shielded);
            let scope = spec.timeout.into_iter().fold(scope, |scope, length| scope.timeout(ms(length)));
            let handle = scope.handle();
            (Mutex::new(Some(scope)), handle)
        });
        Self {
            blocks: (0..program.blocks).map(|_| Tally::default()).collect(),
            scopes: scopes.collect(),
            nurseries: (0..program.nurseries).map(|_| OnceLock::new()).collect(),
            root: OnceLock::new(),
            plain: Mutex::default(),
            closed: AtomicBool::new(false),
            graves: Mutex::default(),
            faults: Mutex::default(),
            acted: AtomicBool::new(program.actions.is_empty()),
            program,
        }
    }

    pub(crate) fn fault(&self, what: String) {
        lock(&self.faults).push(what);
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }

    pub(crate) fn root_is(&self, root: AbortHandle) {
        let _ = self.root.set(root);
    }

    pub(crate) fn act(&self, action: Action) {
        let later = |length| Some(Instant::now() + ms(length));
        match action {
            Action::Cancel(id) => drop(self.scopes[id].1.cancel("stress")),
            Action::SetShielded(id, on) => self.scopes[id].1.set_shielded(on),
            Action::SetDeadline(id, length) => self.scopes[id].1.set_deadline(later(length)),
            Action::CancelNursery(id) => {
                self.nurseries[id].get().map(|scope| scope.cancel("stress"));
            }
            Action::ShieldNursery(id, on) => {
                self.nurseries[id].get().into_iter().for_each(|scope| scope.set_shielded(on));
            }
            Action::CancelTask(id) => {
                self.blocks[id].task.get().map(|task| task.cancel("stress"));
            }
            // It is spawned before the thread outside hears of the program.
            Action::AbortRoot => self.root.get().into_iter().for_each(AbortHandle::abort),
        }
    }

    /// Drops what was left for a thread without a runtime.
    pub(crate) fn bury(&self) {
        let graves = std::mem::take(&mut *lock(&self.graves));
        drop(graves);
    }

    /// Lets no plain task begin from now on; false if there is one.
    pub(crate) fn close(&self) -> bool {
        let plain = lock(&self.plain);
        let empty = plain.is_empty();
        self.closed.store(empty, Ordering::SeqCst);
        empty
    }

    /// Aborts what [`settle`](Self::settle) waits for.
    pub(crate) fn abort_plain(&self) {
        lock(&self.plain).iter().for_each(JoinHandle::abort);
    }

    /// Waits for everything that only the test waits for. Dropped, it has forgotten nothing.
    pub(crate) async fn settle(&self) {
        loop {
            let acted = self.acted.load(Ordering::SeqCst);
            if acted {
                self.bury();
            }
            lock(&self.plain).retain(|task| !task.is_finished());
            if acted && lock(&self.plain).is_empty() {
                return;
            }
            // In slices: what a task waits for may be in a grave by now.
            sleep(ms(1)).await;
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        lock(&self.plain).is_empty() && lock(&self.graves).is_empty()
    }

    /// The blocks that are alive now.
    pub(crate) fn alive(&self) -> Vec<usize> {
        let alive = |tally: &Tally| tally.begun.load(Ordering::SeqCst) > tally.ended.load(Ordering::SeqCst);
        (0..self.blocks.len()).filter(|id| alive(&self.blocks[*id])).collect()
    }

    /// Everything has ended: was it right?
    pub(crate) fn check(&self) {
        let begun = |id: usize| self.blocks[id].begun.load(Ordering::SeqCst);
        let completed = |id: usize| self.blocks[id].completed.load(Ordering::SeqCst);
        for id in self.alive() {
            self.fault(format!("#{id} is alive after the drain"));
        }
        for (id, tally) in self.blocks.iter().enumerate() {
            if tally.spawned.load(Ordering::SeqCst) > begun(id) {
                self.fault(format!("child #{id} was spawned and never polled"));
            }
        }
        for &id in &self.program.sure {
            if begun(id) != completed(id) {
                self.fault(format!("#{id} began and was cut off, though nothing may do that"));
            }
        }
        for rule in &self.program.rules {
            let (then, expected) = match *rule {
                Rule::Finally { first, then } => (then, begun(first)),
                Rule::OnCancel { first, then } => (then, begun(first) - completed(first)),
                Rule::Follows { first, then } => (then, completed(first)),
            };
            if begun(then) != expected {
                self.fault(format!("#{then} began {} times, not {expected}: {rule:?}", begun(then)));
            }
        }
    }
}

/// The future of a whole program.
pub(crate) fn run(state: &Arc<State>) -> BoxFuture<'static, ()> {
    let place = Place { state: Arc::clone(state), gauge: None, open: None };
    place.run(&state.program.block)
}

impl Place {
    fn run(&self, block: &Arc<Block>) -> BoxFuture<'static, ()> {
        let (place, block) = (self.clone(), Arc::clone(block));
        async move {
            let running = Running::new(&place, &block);
            for op in &block.ops {
                if block.sure && is_cancelled() {
                    place.state.fault(format!("#{} sees a cancel, though nothing may cancel it", block.id));
                }
                place.step(op).await;
            }
            running.complete();
        }
        .boxed()
    }

    async fn step(&self, op: &Op) {
        match op {
            Op::Sleep(length) => sleep(ms(*length)).await,
            Op::Yield(times) => {
                for _ in 0..*times {
                    yield_now().await;
                }
            }
            Op::Checkpoint => checkpoint().await,
            Op::Park => pending().await,
            Op::AwaitCancel => drop(cancelled().await),
            Op::Act(action) => self.state.act(*action),
            Op::Spawn { up, child } => self.spawn(*up, child).await,
            Op::Start { before, after } => self.start(before, after).await,
            Op::SpawnAtRoot(part) => self.spawn_at_root(part),
            Op::Tokio { part, abort } => self.plain(part, *abort).await,
            Op::Shield(_) | Op::ShieldWith { .. } => self.shield(op).await,
            Op::Finally { .. } | Op::OnCancel { .. } | Op::Bracket { .. } => self.finalizer(op).await,
            Op::Stall { ms, held, then, fate } => self.stall(*ms, held, then, *fate).await,
            Op::Scope(..) | Op::Nursery(..) | Op::Catch(_) | Op::Join { .. } | Op::Select { .. } | Op::Timeout(..) => {
                self.region(op).await;
            }
        }
    }

    async fn region(&self, op: &Op) {
        match op {
            Op::Scope(id, part) => self.scope(*id, part).await,
            Op::Nursery(spec, part) => self.nursery(spec, part).await,
            Op::Catch(part) => {
                let result = catch_cancelled(self.run(part)).await;
                self.agrees(part, result.is_ok());
            }
            Op::Join { a, b, unordered: false } => drop(tokio::join!(self.run(a), self.run(b))),
            Op::Join { a, b, .. } => {
                let all = FuturesUnordered::from_iter([self.run(a), self.run(b)]);
                all.for_each(|()| async {}).await;
            }
            Op::Select { a, b } => tokio::select! {
                () = self.run(a) => {}
                () = self.run(b) => {}
            },
            Op::Timeout(length, part) => {
                let result = timeout(ms(*length), self.run(part)).await;
                self.agrees(part, result.is_ok());
            }
            _ => unreachable!("not a region: {op:?}"),
        }
    }

    /// A region says that its body has ended iff it has.
    fn agrees(&self, part: &Block, ended_well: bool) {
        let completed = self.state.blocks[part.id].completed.load(Ordering::SeqCst) == 1;
        if completed != ended_well {
            self.state.fault(format!("#{}: completed is {completed}, its result says {ended_well}", part.id));
        }
    }

    async fn scope(&self, id: usize, part: &Arc<Block>) {
        let Some(scope) = lock(&self.state.scopes[id].0).take() else {
            return;
        };
        let result = scope.run(self.run(part)).await;
        self.agrees(part, result.is_ok());
    }

    async fn nursery(&self, spec: &NurserySpec, part: &Arc<Block>) {
        let gauge = Arc::new(Gauge { alive: AtomicUsize::new(0), outer: self.gauge.clone() });
        let (place, inside, part, id, end) = (self.clone(), Arc::clone(&gauge), Arc::clone(part), spec.id, spec.end);
        let run = nursery(move |nursery| {
            let _ = place.state.nurseries[id].set(nursery.scope());
            let open = Open { nursery, gauge: Arc::clone(&inside), outer: place.open.clone() };
            let place = Self { open: Some(Arc::new(open)), gauge: Some(inside), ..place };
            async move {
                place.run(&part).await;
                end.give()
            }
        });
        let run = run.policy(spec.policy).shielded(spec.shielded);
        let run = spec.timeout.into_iter().fold(run, |run, length| run.timeout(ms(length)));
        // A panic of the program ends here; its nursery has ended all the same.
        let _ = AssertUnwindSafe(run).catch_unwind().await;
        let alive = gauge.alive.load(Ordering::SeqCst);
        if alive > 0 {
            self.state.fault(format!("{alive} blocks outlive nursery {id}: {:?}", self.state.alive()));
        }
    }

    /// The place of a child of a nursery around this one.
    fn child_of(&self, open: &Arc<Open>) -> Self {
        Self { gauge: Some(Arc::clone(&open.gauge)), open: Some(Arc::clone(open)), ..self.clone() }
    }

    async fn spawn(&self, up: usize, child: &Child) {
        let Some(open) = std::iter::successors(self.open.as_ref(), |open| open.outer.as_ref()).nth(up) else {
            return;
        };
        let (place, part, end) = (self.child_of(open), Arc::clone(&child.part), child.end);
        let run = async move {
            place.run(&part).await;
            end.give()
        };
        let task = open.nursery.task().shielded(child.shielded);
        let task = if child.daemon { task.daemon() } else { task };
        let Ok(task) = task.try_spawn(run) else {
            return;
        };
        let tally = &self.state.blocks[child.part.id];
        tally.spawned.fetch_add(1, Ordering::SeqCst);
        let _ = tally.task.set(task.as_ref());
        if child.joined {
            let _ = task.await;
        }
    }

    async fn start(&self, before: &Arc<Block>, after: &Arc<Block>) {
        let Some(open) = &self.open else { return };
        let (place, before, after) = (self.child_of(open), Arc::clone(before), Arc::clone(after));
        // What is rescued until then is with the owner around this code, which for a plain task is not that nursery.
        let caller = Self { gauge: self.gauge.as_ref().and(place.gauge.clone()), ..place.clone() };
        let start = open.nursery.start(|started| async move {
            caller.run(&before).await;
            started.started(());
            place.run(&after).await;
        });
        drop(start.await);
    }

    fn spawn_at_root(&self, part: &Arc<Block>) {
        let place = Self { gauge: None, open: None, ..self.clone() };
        let child = place.run(part);
        if testudo::root_nursery::<Fault>().try_spawn(child).is_ok() {
            self.state.blocks[part.id].spawned.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn plain(&self, part: &Arc<Block>, abort: Option<u64>) {
        let place = Self { gauge: None, ..self.clone() };
        let abort_handle = {
            let mut plain = lock(&self.state.plain);
            if self.state.closed.load(Ordering::SeqCst) {
                return;
            }
            let task = spawn(place.run(part));
            let abort_handle = task.abort_handle();
            plain.push(task);
            abort_handle
        };
        let Some(length) = abort else { return };
        // Also if this is cut off.
        let _guard = Abort(abort_handle);
        sleep(ms(length)).await;
    }

    async fn shield(&self, op: &Op) {
        match op {
            Op::Shield(part) => {
                shield(self.run(part)).budget(None).await;
                self.agrees(part, true);
            }
            Op::ShieldWith { before, exposed, after } => {
                let [before, after] = [before, after].map(|part| self.run(part));
                let (place, part) = (self.clone(), Arc::clone(exposed));
                let run = shield_with(|exposed| async move {
                    before.await;
                    let result = exposed.run(place.run(&part)).await;
                    place.agrees(&part, result.is_ok());
                    after.await;
                });
                run.name("with an exposed part").await;
            }
            _ => unreachable!("not a shield: {op:?}"),
        }
    }

    async fn finalizer(&self, op: &Op) {
        match op {
            Op::Finally { body, then } => self.run(body).finally(self.run(then)).await,
            Op::OnCancel { body, then } => self.run(body).on_cancel(self.run(then)).await,
            Op::Bracket { wait, acquire, body, release } => {
                let [wait, acquire, body, release] = [wait, acquire, body, release].map(|part| self.run(part));
                let acquire = |exposed: testudo::Exposed| async move {
                    let _ = exposed.run(wait).await;
                    acquire.await;
                };
                bracket(acquire, |()| body, |()| release).await;
            }
            _ => unreachable!("not a finalizer: {op:?}"),
        }
    }

    async fn stall(&self, length: u64, held: &Arc<Block>, then: &Arc<Block>, fate: Fate) {
        let mut held = self.run(held);
        let ended = timeout(ms(length), &mut held).await.is_ok();
        self.run(then).await;
        if ended {
            return;
        }
        match fate {
            Fate::Drop => drop(held),
            Fate::Resume => drop(timeout(ms(1), held).await),
            Fate::InScope => drop(CancelScope::new().timeout(ms(1)).run(held).await),
            Fate::InTask => {
                let mut plain = lock(&self.state.plain);
                if !self.state.closed.load(Ordering::SeqCst) {
                    plain.push(spawn(timeout(ms(1), held).map(drop)));
                }
            }
            Fate::Elsewhere => lock(&self.state.graves).push(held),
        }
    }
}

impl Ending {
    fn give(self) -> Result<(), Fault> {
        match self {
            Self::Ok => Ok(()),
            Self::Err => Err(Fault),
            // Does not call the panic hook, so what that hears is a bug.
            Self::Panic => resume_unwind(Box::new("a panic of the program")),
        }
    }
}

struct Abort(AbortHandle);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "the test waits for plain tasks itself")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}
