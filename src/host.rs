//! The runtime that a tree of ours lives on: where rescued work goes, who keeps its deadlines, who hears its reports.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::runtime::{Handle, Id, RuntimeFlavor};

use crate::core::cause::Cause;
use crate::core::frame as frames;
use crate::core::node::{self as nodes, Info, Kind};
use crate::core::owner::Owner;
use crate::counted::Unmade;
use crate::deadline::Timers;
use crate::numbers::Numbers;
use crate::policy::Policy;
use crate::report::{Event, Reporter};
#[cfg(feature = "signal")]
use crate::shutdown::Shutdown;
use crate::trace;

pub(crate) type Node = nodes::Node<Host>;
pub(crate) type Frame = frames::Frame<Host>;
pub(crate) type Hold = frames::Hold<Host>;
pub(crate) type LeafSeat<'a> = nodes::LeafSeat<'a, Host>;
pub(crate) type Bud = nodes::Bud<Host>;
pub(crate) type BudSeat = nodes::BudSeat<Host>;
pub(crate) type Left = nodes::Left<Host>;
pub(crate) type Member = nodes::Member<Host>;
type Crowd = nodes::Crowd<Host>;

/// What a tree needs of its runtime. One for each runtime, made when the first future of ours is polled on it, or by a runner.
#[derive(Debug)]
pub(crate) struct Host {
    /// None outside of any runtime: then nothing can be rescued, and every loss is reported.
    pub(crate) handle: Option<Handle>,
    /// Its tasks may end on another thread than the one that spawns them.
    pub(crate) has_workers: bool,
    pub(crate) timers: Timers,
    pub(crate) unmade: Unmade,
    /// What a shield gets as its budget if it names none; none for ever.
    pub(crate) budget: Option<std::time::Duration>,
    /// True while a runner is in charge: `testudo::spawn` is legal.
    pub(crate) is_run: bool,
    /// How far its run has come with stopping; none outside of a run.
    /// Not kept: it keeps the root, and so the host.
    #[cfg(feature = "signal")]
    pub(crate) shutdown: Option<Weak<Shutdown>>,
    reporter: Option<Reporter>,
    unclaimed: Mutex<Vec<Event>>,
    /// Events that found no place among the unclaimed.
    omitted: AtomicUsize,
    lost: AtomicUsize,
}

/// Beyond this many, reports that nobody has fetched are only counted: a program that never drains must not leak.
const UNCLAIMED_MAX: usize = 1024;

impl Host {
    fn new(handle: Option<Handle>) -> Self {
        let flavor = handle.as_ref().map(Handle::runtime_flavor);
        Self {
            handle,
            has_workers: flavor.is_some_and(|flavor| flavor != RuntimeFlavor::CurrentThread),
            timers: Timers::default(),
            unmade: Unmade::default(),
            budget: None,
            is_run: false,
            #[cfg(feature = "signal")]
            shutdown: None,
            reporter: None,
            unclaimed: Mutex::default(),
            omitted: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        }
    }

    /// The host of a runtime that a runner owns.
    #[cfg(feature = "signal")]
    pub(crate) fn of_run(
        handle: Handle,
        budget: Option<std::time::Duration>,
        reporter: Option<Reporter>,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self { budget, is_run: true, reporter, shutdown: Some(Arc::downgrade(&shutdown)), ..Self::new(Some(handle)) }
    }

    /// Says what happened, to whoever is there to hear it, and keeps it for the report at the end.
    pub(crate) fn report(&self, event: Event) {
        trace::event(&event);
        if event.is_loss() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(reporter) = &self.reporter {
            reporter.report(&event);
        }
        if let Event::Dump(_) = event {
            return; // It was asked for, and is as large as the tree: kept, each would be a leak.
        }
        let mut unclaimed = lock(&self.unclaimed);
        if unclaimed.len() < UNCLAIMED_MAX {
            unclaimed.push(event);
        } else {
            self.omitted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was reported since the last time, how many events more there were, and how much has been lost in all.
    pub(crate) fn claim(&self) -> (Vec<Event>, usize, usize) {
        let events = std::mem::take(&mut *lock(&self.unclaimed));
        (events, self.omitted.swap(0, Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }

    /// Begins a task on this runtime. If that is gone, the future is dropped at once; its destructor reports the loss.
    pub(crate) fn spawn(&self, fut: impl Future<Output = ()> + Send + 'static) {
        if let Some(handle) = &self.handle {
            drop(handle.spawn(fut));
        }
    }
}

/// Names the next task of this process. Ids are never used twice.
#[inline]
pub(crate) fn next_task_id() -> u64 {
    // Few, since people read them: where one thread spawns all there are no gaps, and else small ones.
    const BLOCK: u64 = 8;
    static IDS: Numbers<BLOCK> = Numbers::new();
    thread_local! { static LAST: Cell<u64> = const { Cell::new(Numbers::<BLOCK>::NONE) } }
    LAST.with(|last| IDS.next(last)).get()
}

/// A number of this thread, by which it has its own part of what the threads of a runtime share.
pub(crate) fn thread_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local! { static NUMBER: Cell<Option<u32>> = const { Cell::new(None) } }
    NUMBER.with(|number| {
        if let Some(known) = number.get() {
            return known;
        }
        let this = NEXT.fetch_add(1, Ordering::Relaxed);
        number.set(Some(this));
        this
    })
}

/// The root of the runtime that this code runs on.
pub(crate) fn root() -> Arc<Node> {
    match Handle::try_current() {
        Ok(handle) => root_of(handle),
        Err(_) => nowhere(),
    }
}

/// The root of what is polled outside of any runtime.
fn nowhere() -> Arc<Node> {
    static NOWHERE: OnceLock<Arc<Node>> = OnceLock::new();
    Arc::clone(NOWHERE.get_or_init(|| new_root(Host::new(None))))
}

/// Makes the root of a tree. For people, it is at the place of whoever calls.
#[track_caller]
pub(crate) fn new_root(host: Host) -> Arc<Node> {
    new_root_at(host, Location::caller())
}

/// The same at another place.
pub(crate) fn new_root_at(host: Host, place: &'static Location<'static>) -> Arc<Node> {
    let info = Info::new(Kind::Root, place, crate::clock::now());
    Node::root(info, Arc::new(host), Owner::root(Policy::Supervise as usize))
}

/// The roots by their runtimes. Each lives as long as its resident, or as a runner that wants its report: what is begun while
/// the runtime drops its tasks still finds it.
fn roots() -> MutexGuard<'static, HashMap<Id, Weak<Node>>> {
    static ROOTS: OnceLock<Mutex<HashMap<Id, Weak<Node>>>> = OnceLock::new();
    lock(ROOTS.get_or_init(Mutex::default))
}

thread_local! {
    /// The root that this thread has asked for last: the requests of a server, on all its threads, do not wait for each other here.
    static LAST: RefCell<Option<(Id, Weak<Node>)>> = const { RefCell::new(None) };
}

fn root_of(handle: Handle) -> Arc<Node> {
    let id = handle.id();
    let last = LAST.try_with(|last| last.borrow().as_ref().filter(|(known, _)| *known == id)?.1.upgrade());
    if let Ok(Some(root)) = last {
        return root;
    }
    let known = roots().get(&id).and_then(Weak::upgrade);
    let root = known.unwrap_or_else(|| install(&handle, new_root(Host::new(Some(handle.clone())))));
    let now = Some((id, Arc::downgrade(&root)));
    drop(LAST.try_with(|last| last.replace(now)));
    root
}

/// Makes `root` the root of its runtime, unless there is one; gives back the one that counts.
pub(crate) fn install(handle: &Handle, root: Arc<Node>) -> Arc<Node> {
    let id = handle.id();
    let known = {
        let mut roots = roots();
        roots.retain(|_, root| root.strong_count() > 0);
        roots.entry(id).or_insert_with(|| Arc::downgrade(&root)).upgrade()
    };
    // None if it went between the two looks; then this one lives for its caller only.
    let Some(known) = known else { return root };
    if Arc::ptr_eq(&known, &root) {
        // The runtime drops its tasks when it ends, and this one lets the root go. No lock is held: a runtime that is gone
        // already drops it here.
        let resident = Resident { root };
        drop(handle.spawn(async move { resident.keep().await }));
    }
    known
}

/// Lives on a runtime as long as that does: keeps the deadlines and the root.
struct Resident {
    root: Arc<Node>,
}

impl Resident {
    async fn keep(&self) {
        match self.root.host() {
            Some(host) => host.timers.keep().await,
            None => std::future::pending().await,
        }
    }
}

/// Says what happened in the tree of `node`.
pub(crate) fn report(node: &Node, event: Event) {
    match node.host() {
        Some(host) => host.report(event),
        None => trace::event(&event),
    }
}

/// So many tasks are woken by whoever cancels them. More are left to a task of the runtime, so that a cancel returns when all flags
/// stand, however many it reaches.
const CROWD_MAX: usize = 1024;

/// Cancels a node, and says so to `tracing`.
pub(crate) fn cancel(node: &Arc<Node>, cause: Cause) -> bool {
    trace::cancelled(node, &cause);
    cancel_untold(node, cause)
}

/// The same when somebody else says so.
pub(crate) fn cancel_untold(node: &Arc<Node>, cause: Cause) -> bool {
    node.cancel_and(cause, |crowd| match node.host() {
        Some(host) if crowd.tasks() > CROWD_MAX => {
            host.spawn(wake(crowd));
            // What a worker begins last, no other worker takes from it, and this one may block now: so that is this.
            host.spawn(async {});
        }
        Some(_) | None => drop(crowd),
    })
}

async fn wake(mut crowd: Crowd) {
    while crowd.wake_some() {
        tokio::task::yield_now().await;
    }
}

/// Locks a mutex whose content is changed by code that can not panic half-way.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
