//! What is alive: tasks by name and number, and who is being waited for.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::timeout;

#[cfg(all(feature = "systemd", unix))]
use crate::clock;
use crate::core::node::{BudView, Info, Kind};
use crate::current;
#[cfg(feature = "signal")]
use crate::host::Frame;
use crate::host::{self, Member, Node};
use crate::nursery::Nursery;
use crate::outcome::{ChildOutput, TaskOutput};
use crate::report::{Event, Report, Subject};
use crate::task::{Task, TaskId, TaskRef};

/// Begins a task that the run owns (asyncio's `create_task`).
///
/// When main has ended it is cancelled with cause [`MainEnded`](crate::CauseKind::MainEnded) and awaited, unless the runner was told to
/// [wait for tasks](crate::Runner::wait_for_tasks). Its error or panic is its handle's business, and reported if nobody looks. For a
/// task that should not outlive the function that begins it, use a [`nursery`](crate::nursery()).
///
/// # Panics
///
/// Outside of a run, and after its end.
#[doc(alias = "create_task")]
#[doc(alias = "start_soon")]
#[track_caller]
pub fn spawn<F>(fut: F) -> Task<<F::Output as TaskOutput>::Value, <F::Output as TaskOutput>::Error>
where
    F: Future + Send + 'static,
    F::Output: TaskOutput + ChildOutput<<F::Output as TaskOutput>::Error, Value = <F::Output as TaskOutput>::Value>,
    <F::Output as TaskOutput>::Value: Send + 'static,
    <F::Output as TaskOutput>::Error: fmt::Display + Send + Sync + 'static,
{
    root_nursery().spawn(fut)
}

/// Returns the nursery that the run itself is: where [`spawn`] puts its tasks, for names and other options.
///
/// Its policy is [`Supervise`](crate::Policy::Supervise), and each call may choose another error type. Cancelling it cancels
/// everything that is not shielded, main included.
///
/// # Panics
///
/// Outside of a run.
#[track_caller]
pub fn root_nursery<E>() -> Nursery<E> {
    let root = root();
    assert!(root.host().is_some_and(|host| host.is_run), "{NEEDS_RUN}; or spawn into a `nursery`");
    Nursery::new(root)
}

/// What code outside of a run hears that can do nothing there.
pub(crate) const NEEDS_RUN: &str = "this needs a run: start the program with `testudo::run`, `#[testudo::main]` or `Runner`, and take \
    a `Nursery` along to threads of your own";

/// The root of the tree that this code is in.
pub(crate) fn root() -> Arc<Node> {
    let node = current::node();
    std::iter::successors(Some(node), |node| node.parent()).last().unwrap_or_else(host::root)
}

/// Returns all tasks of this run, or of this runtime if there is no run, in the order of their numbers: those that one thread has begun
/// are in the order in which they began.
///
/// Main is one of them. The runner's own are not, nor are tasks that were begun with `tokio::spawn`.
pub fn all_tasks() -> Vec<TaskRef> {
    tasks_in(&root())
}

/// The tasks of a root that have not ended, in the order of their numbers.
pub(crate) fn tasks_in(root: &Arc<Node>) -> Vec<TaskRef> {
    tasks_of(below(root).members)
}

/// Calls code of the program as if from inside the run.
#[cfg(feature = "signal")]
pub(crate) fn inside(root: &Arc<Node>, call: impl FnOnce()) {
    let handle = root.host().and_then(|host| host.handle.clone());
    let _runtime = handle.as_ref().map(|handle| handle.enter());
    current::inside(&Frame::of_node(Arc::clone(root), true), call);
}

/// The tasks among members that have not ended, in the order of their numbers. A task with a node of its own is found twice.
fn tasks_of(members: Vec<Member>) -> Vec<TaskRef> {
    let mut tasks: Vec<_> = members.into_iter().filter_map(TaskRef::new).filter(|task| !task.is_finished()).collect();
    tasks.sort_by_key(TaskRef::id);
    tasks.dedup();
    tasks
}

/// Returns the task that this code is part of; none outside of any.
pub fn current_task() -> Option<TaskRef> {
    current::task().map(Member::Frame).and_then(TaskRef::new)
}

/// Returns all tasks of that name that have not ended. Names need not be unique.
pub fn find(name: &str) -> Vec<TaskRef> {
    all_tasks().into_iter().filter(|task| &*task.name() == name).collect()
}

/// A task, by number or by name.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Which {
    /// The task with this number.
    Id(TaskId),
    /// The one task with this name.
    Name(Cow<'static, str>),
}

impl From<TaskId> for Which {
    fn from(id: TaskId) -> Self {
        Self::Id(id)
    }
}

impl From<&'static str> for Which {
    fn from(name: &'static str) -> Self {
        Self::Name(name.into())
    }
}

impl From<String> for Which {
    fn from(name: String) -> Self {
        Self::Name(name.into())
    }
}

/// Cancels one task by number or name. Gives true if it was still possible, as [`TaskRef::cancel`].
///
/// # Errors
///
/// If no task fits, or a name fits several; then the error lists their numbers.
pub fn cancel(which: impl Into<Which>, reason: impl Into<Cow<'static, str>>) -> Result<bool, FindError> {
    let which = which.into();
    let fits: Vec<TaskRef> = match &which {
        Which::Id(id) => all_tasks().into_iter().filter(|task| task.id() == *id).collect(),
        Which::Name(name) => find(name),
    };
    match fits.as_slice() {
        [task] => Ok(task.cancel(reason)),
        _ => Err(FindError { which, ids: fits.iter().map(TaskRef::id).collect() }),
    }
}

/// No task fits, or several do.
#[derive(Clone, Debug)]
pub struct FindError {
    which: Which,
    ids: Vec<TaskId>,
}

impl FindError {
    /// Returns the numbers of the tasks that fit; empty if none does.
    pub fn ids(&self) -> &[TaskId] {
        &self.ids
    }
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.which {
            Which::Id(id) => write!(f, "no task with number {id} is running"),
            Which::Name(name) if self.ids.is_empty() => write!(f, "no task named `{name}` is running"),
            Which::Name(name) => {
                let ids: Vec<String> = self.ids.iter().map(ToString::to_string).collect();
                write!(f, "{} tasks are named `{name}`: name one by its number, {}", ids.len(), ids.join(", "))
            }
        }
    }
}

impl Error for FindError {}

/// Everything below a node, in no particular order. No lock is held over more than one node.
#[derive(Default)]
struct Below {
    nodes: Vec<Arc<Node>>,
    members: Vec<Member>,
    /// With the nodes in which they wait.
    buds: Vec<(Arc<Node>, BudView)>,
}

fn below(root: &Arc<Node>) -> Below {
    let mut below = Below { nodes: vec![Arc::clone(root)], ..Below::default() };
    let mut next = 0;
    while let Some(node) = below.nodes.get(next) {
        let inside = node.inside();
        below.buds.extend(inside.buds.into_iter().map(|bud| (Arc::clone(node), bud)));
        below.nodes.extend(inside.nodes);
        below.members.extend(inside.members);
        next += 1;
    }
    below
}

/// What a root waits for, by name: its tasks, and the shields that are named or stand for themselves.
pub(crate) fn alive(root: &Arc<Node>) -> Vec<Subject> {
    // First those without a place in the tree: who gets one meanwhile is seen twice, rather than not at all.
    let unmade = root.host().map(|host| host.unmade.list()).unwrap_or_default();
    let Below { nodes, members, buds } = below(root);
    let tasks = tasks_of(members);
    // Nothing else that is listed stands for it: it is in no task of ours, and in no other shield.
    let is_alone = |around: Option<Arc<Node>>| {
        let mut around = std::iter::successors(around, |node| node.parent());
        around.all(|node| !matches!(node.info.kind, Kind::Task | Kind::Shield))
    };
    let is_named = |info: &Info| info.name.get().is_some();
    let made = nodes.iter().filter(|node| node.info.kind == Kind::Shield);
    let made = made.filter(|node| is_named(&node.info) || node.is_rescued() || is_alone(node.parent()));
    let waiting = buds.iter().filter(|(_, bud)| bud.info.kind == Kind::Shield);
    let waiting =
        waiting.filter(|(home, bud)| is_named(&bud.info) || !bud.in_shield && is_alone(Some(Arc::clone(home))));
    let shields = made.map(|node| Subject::of_node(node)).chain(waiting.map(|(_, bud)| Subject::of_info(&bud.info)));
    tasks.iter().map(TaskRef::subject).chain(shields).chain(unmade.iter().map(Subject::of_info)).collect()
}

/// How long the shield may still hold something off that may the longest; none if one has no limit, or there is no shield.
#[cfg(all(feature = "systemd", unix))]
pub(crate) fn shield_time(root: &Arc<Node>) -> Option<Duration> {
    let now = clock::now();
    let left = |node: &Arc<Node>| match node.deadline() {
        Some(at) => Some(at.saturating_sub(now)),
        None => node.on_held_off.get().map(|held_off| held_off.budget),
    };
    let Below { nodes, buds, .. } = below(root);
    let made = nodes.iter().filter(|node| node.info.kind == Kind::Shield).map(left);
    // The budget of one that waits does not run yet.
    let waiting = buds.iter().filter(|(_, bud)| bud.info.kind == Kind::Shield).map(|(_, bud)| bud.budget);
    let longest = made.chain(waiting).reduce(|one, other| Some(one?.max(other?))).flatten();
    longest.map(Duration::from_nanos)
}

/// Waits until every started shield of this runtime has ended, in place or rescued, and everything that was adopted; at most for
/// `budget`. For programs without the runner, at the end of `main`: the guarantee of a shield lasts until this returns.
///
/// It cancels nothing. What was still running after the budget is in the report, and so are errors, panics and losses that nobody
/// else was told. A task of a run that is not main, or a child that was adopted by the root, that calls this waits for itself as well, until the
/// budget is over. What was lost outside of any Tokio runtime is in the report of a drain that is polled there, too.
///
/// # Cancel safety
///
/// Safe to drop and to call again: events stay for the next report.
///
/// # Panics
///
/// The future panics if it has to wait outside of a Tokio runtime, or on one without a timer.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// #[tokio::main]
/// async fn main() {
///     // … the program …
///     let report = testudo::drain(Duration::from_secs(5)).await;
///     assert!(report.is_clean(), "{report}");
/// }
/// ```
pub async fn drain(budget: Duration) -> Report {
    let root = root();
    let poll_idle = |cx: &mut Context<'_>| root.live().map_or(Poll::Ready(()), |live| live.poll_idle(cx));
    // A look first: it needs no timer, so what was lost outside of any runtime can be fetched there.
    let is_idle = poll_fn(|cx| Poll::Ready(poll_idle(cx).is_ready())).await;
    let is_idle = is_idle || timeout(budget, poll_fn(poll_idle)).await.is_ok();
    let left = if is_idle { Vec::new() } else { alive(&root) };
    report_of(&root, left)
}

/// Says `what` to whoever hears the events of this run, as an [`Event::Warning`]; outside of a run it is kept for what [`drain`] returns.
///
/// For code that serves a run and writes to no terminal itself, such as an adapter.
///
/// # Examples
///
/// ```
/// # use testudo::{Runner, warn};
/// let finished = Runner::new().current_thread().reporter(None).run(async { warn("the disk is nearly full") });
/// assert_eq!(finished.report.events()[0].to_string(), "warning: the disk is nearly full");
/// ```
pub fn warn(what: impl Into<Arc<str>>) {
    host::report(&root(), Event::Warning(what.into()));
}

/// Takes what was reported so far.
pub(crate) fn report_of(root: &Node, left: Vec<Subject>) -> Report {
    let (events, omitted, lost) = root.host().map(|host| host.claim()).unwrap_or_default();
    Report {
        events,
        omitted,
        lost,
        left,
        #[cfg(feature = "signal")]
        stop: None,
    }
}
