//! The programs of the laws, run by the library on paused time, and what is seen of them.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use testudo::{
    CancelScope, Exposed, FinalizeExt, Nursery, NurseryError, ScopeHandle, TaskRef, catch_cancelled, checkpoint, drain,
    nursery, shield_with,
};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::program::{HIDDEN, Id, P, ROOT};

/// A cut from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cut {
    Cancel,
    Drop,
}

/// What is seen of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obs {
    pub(crate) outcome: Outcome,
    /// When main ended, in milliseconds.
    pub(crate) ended: u64,
    /// When everything had ended.
    pub(crate) idle: Option<u64>,
    /// Task by task, each in its order.
    pub(crate) trace: Vec<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Err,
    Panicked,
    Dropped,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) at: u64,
    /// The child, or the main task.
    pub(crate) task: Id,
    pub(crate) id: Id,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The body of a shield, or one with a finalizer, is polled for the first time.
    Begun,
    /// The part is done: an emit, a sleep, a yield.
    Emit,
    /// A region gives what its body has given.
    Done,
    /// A region says that its body was cut off.
    Cut,
    Dropped,
    Failed,
    Refused,
    Finalizing,
    Finalized,
}

impl Obs {
    pub(crate) fn new(outcome: Outcome, ended: u64, idle: Option<u64>, mut trace: Vec<Event>) -> Self {
        trace.sort_by_key(|event| event.task);
        Self { outcome, ended, idle, trace }
    }

    /// Without what a law has put around the program.
    pub(crate) fn seen(mut self) -> Self {
        self.trace.retain(|event| event.id < HIDDEN && event.id != ROOT);
        self
    }

    /// Moments at which something happens.
    pub(crate) fn moments(&self) -> Vec<u64> {
        let mut moments: Vec<u64> = self.trace.iter().map(|event| event.at).chain([0, self.ended]).collect();
        moments.extend(self.idle);
        moments.sort_unstable();
        moments.dedup();
        moments
    }

    pub(crate) fn count(&self, id: Id, what: What) -> usize {
        self.trace.iter().filter(|event| event.id == id && event.what == what).count()
    }
}

/// The error of a program.
#[derive(Debug)]
pub(crate) struct Fault;

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a failure of the program")
    }
}

pub(crate) type Part = BoxFuture<'static, Result<(), Fault>>;

/// All times of a program added up are less.
const HORIZON: Duration = Duration::from_secs(100_000);

/// Runs a program with cuts from outside at these moments.
pub(crate) fn run(p: &P, cuts: &[(u64, Cut)]) -> Obs {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("it needs nothing");
    runtime.block_on(async {
        let world = World::new(p);
        let root = whole(&world, p);
        let mut main = Some(AssertUnwindSafe(root).catch_unwind().boxed());
        let mut ended = None;
        for (at, cut) in cuts {
            let due = world.began + Duration::from_millis(*at);
            let Some(running) = &mut main else { break };
            if let Ok(end) = timeout_at(due, running).await {
                ended = Some((outcome(end), world.now()));
                break;
            }
            match cut {
                Cut::Cancel => drop(world.scopes[&ROOT].1.cancel("from outside")),
                Cut::Drop => {
                    main = None;
                    ended = Some((Outcome::Dropped, world.now()));
                }
            }
        }
        if let (None, Some(running)) = (&ended, &mut main) {
            let end = timeout(HORIZON, running).await;
            ended = end.ok().map(|end| (outcome(end), world.now()));
        }
        let (outcome, ended) = ended.unwrap_or((Outcome::Never, 0));
        let mut idle = None;
        if outcome != Outcome::Never {
            let report = drain(HORIZON).await;
            assert_eq!(report.lost(), 0, "{report}");
            idle = report.left().is_empty().then(|| world.now());
            // Whatever nobody waits for must not happen: here it has the time.
            sleep(HORIZON).await;
        }
        Obs::new(outcome, ended, idle, world.trace())
    })
}

/// A program as one future.
pub(crate) fn whole(world: &Arc<World>, p: &P) -> Part {
    let place = Place { world: Arc::clone(world), task: ROOT };
    place.run(P::Scope(ROOT, None, Box::new(p.clone())))
}

/// A program of which nothing is to be seen.
pub(crate) fn part(p: &P) -> Part {
    Place { world: World::new(p), task: ROOT }.run(p.clone())
}

fn outcome(end: std::thread::Result<Result<(), Fault>>) -> Outcome {
    match end {
        Ok(Ok(())) => Outcome::Ok,
        Ok(Err(Fault)) => Outcome::Err,
        Err(_) => Outcome::Panicked,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

/// What all parts of a program refer to.
pub(crate) struct World {
    began: Instant,
    trace: Mutex<Vec<Event>>,
    scopes: BTreeMap<Id, (Mutex<Option<CancelScope>>, ScopeHandle)>,
    nurseries: Mutex<BTreeMap<Id, Nursery<Fault>>>,
    shields: Mutex<BTreeMap<Id, Exposed>>,
    children: Mutex<BTreeMap<Id, TaskRef>>,
    /// The right to open a shield that has never begun.
    foreign: Exposed,
}

impl World {
    pub(crate) fn new(p: &P) -> Arc<Self> {
        let mut ids = p.all(|p| if let P::Scope(id, ..) = p { Some(*id) } else { None });
        ids.insert(ROOT);
        let scopes = ids.into_iter().map(|id| {
            let scope = CancelScope::new();
            let handle = scope.handle();
            (id, (Mutex::new(Some(scope)), handle))
        });
        let mut foreign = None;
        drop(shield_with(|exposed| {
            foreign = Some(exposed);
            async {}
        }));
        Arc::new(Self {
            began: Instant::now(),
            trace: Mutex::default(),
            scopes: scopes.collect(),
            nurseries: Mutex::default(),
            shields: Mutex::default(),
            children: Mutex::default(),
            foreign: foreign.expect("it is called at once"),
        })
    }

    pub(crate) fn trace(&self) -> Vec<Event> {
        lock(&self.trace).clone()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).expect("it is small")
    }
}

/// Where a part runs.
#[derive(Clone)]
pub(crate) struct Place {
    world: Arc<World>,
    task: Id,
}

impl Place {
    fn log(&self, id: Id, what: What) {
        let event = Event { at: self.world.now(), task: self.task, id, what };
        lock(&self.world.trace).push(event);
    }

    /// What a region says of its body, and what goes on.
    fn result<E>(&self, id: Id, result: Result<Result<(), Fault>, E>) -> Result<(), Fault> {
        self.log(id, if result.is_ok() { What::Done } else { What::Cut });
        result.unwrap_or(Ok(()))
    }

    fn run(&self, p: P) -> Part {
        let place = self.clone();
        async move {
            match p {
                P::Emit(id) => place.log(id, What::Emit),
                P::Sleep(id, ms) => {
                    sleep(Duration::from_millis(ms)).await;
                    place.log(id, What::Emit);
                }
                P::Yield(id) => {
                    checkpoint().await;
                    place.log(id, What::Emit);
                }
                P::Never => std::future::pending().await,
                P::Fail => return Err(Fault),
                P::Panic => std::panic::resume_unwind(Box::new("a panic of the program")),
                P::Seq(parts) => {
                    for part in parts {
                        place.run(part).await?;
                    }
                }
                P::Cancel(id) => place.cancel(id),
                P::CancelChild(id) => {
                    let child = lock(&place.world.children).get(&id).cloned();
                    child.map(|child| child.cancel("law"));
                }
                P::Spawn(id, nursery, p) => place.spawn(id, nursery, *p),
                region => return place.region(region).await,
            }
            Ok(())
        }
        .boxed()
    }

    async fn region(&self, p: P) -> Result<(), Fault> {
        let place = self.clone();
        match p {
            P::Mask(id, p) => {
                let run = shield_with(|exposed| {
                    lock(&place.world.shields).insert(id, exposed);
                    async move {
                        place.log(id, What::Begun);
                        // Said inside: the caller may be gone by then.
                        let result = place.run(*p).await;
                        place.result(id, Ok::<_, Fault>(result))
                    }
                });
                run.await
            }
            P::Expose(id, shield, p) => {
                let exposed = lock(&self.world.shields).get(&shield).cloned();
                let result = exposed.unwrap_or_else(|| self.world.foreign.clone()).run(self.run(*p)).await;
                self.result(id, result)
            }
            P::Scope(id, length, p) => {
                let scope = lock(&self.world.scopes[&id].0).take().expect("each part is run once");
                let scope = length.into_iter().fold(scope, |scope, ms| scope.timeout(Duration::from_millis(ms)));
                let result = scope.run(self.run(*p)).await;
                self.result(id, result)
            }
            P::Catch(id, p) => {
                let result = catch_cancelled(self.run(*p)).await;
                self.result(id, result)
            }
            P::DropAfter(id, ms, p) => {
                let result = timeout(Duration::from_millis(ms), self.run(*p)).await;
                if result.is_ok() {
                    return self.result(id, result);
                }
                self.log(id, What::Dropped);
                Ok(())
            }
            P::OnCancel(id, p, fin) => {
                self.log(id, What::Begun);
                self.run(*p).on_cancel(self.clone().finalizer(id, *fin)).await
            }
            P::Finally(id, p, fin) => {
                self.log(id, What::Begun);
                self.run(*p).finally(self.clone().finalizer(id, *fin)).await
            }
            P::Nursery(id, p) => {
                let result = nursery(|n| {
                    lock(&place.world.nurseries).insert(id, n);
                    place.run(*p)
                });
                match result.await {
                    Ok(()) => self.log(id, What::Done),
                    Err(NurseryError::Failed(_)) => self.log(id, What::Failed),
                    Err(NurseryError::Cancelled(_)) => self.log(id, What::Cut),
                }
                Ok(())
            }
            other => unreachable!("not a region: {other:?}"),
        }
    }

    fn cancel(&self, id: Id) {
        let nursery = lock(&self.world.nurseries).get(&id).cloned();
        match (self.world.scopes.get(&id), nursery) {
            (Some((_, handle)), _) => drop(handle.cancel("law")),
            (None, nursery) => drop(nursery.map(|nursery| nursery.cancel("law"))),
        }
    }

    async fn finalizer(self, id: Id, p: P) {
        self.log(id, What::Finalizing);
        self.run(p).await.expect("a finalizer has no way to fail");
        self.log(id, What::Finalized);
    }

    fn spawn(&self, id: Id, nursery: Id, p: P) {
        let open = lock(&self.world.nurseries).get(&nursery).cloned();
        let child = Self { task: id, ..self.clone() }.run(p);
        let task = open.and_then(|nursery| nursery.try_spawn(child).ok());
        match task {
            Some(task) => drop(lock(&self.world.children).insert(id, task.as_ref())),
            None => self.log(id, What::Refused),
        }
    }
}
