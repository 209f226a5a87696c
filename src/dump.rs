//! The tree of what is alive, as a value, as text and as JSON.

use std::fmt::{self, Write as _};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{self, Ticks};
use crate::core::node::{BudView, Inside, Kind};
use crate::host::{Member, Node};
use crate::registry;
use crate::report::{OneLine, Subject};
use crate::task::TaskId;

/// Everything that is alive in a run, or on a runtime: nurseries, scopes, shields and tasks, each inside what it is inside of.
///
/// Made by [`dump`]. Its text is one line for each, with two spaces more for each level.
#[derive(Clone, Debug)]
pub struct Dump {
    /// Each after its parent, and after all that is inside its elder siblings.
    entries: Vec<Entry>,
}

/// One line of a [`Dump`].
#[derive(Clone, Debug)]
pub struct Entry {
    depth: usize,
    who: Subject,
    id: Option<u64>,
    state: &'static str,
    budget: Option<Duration>,
    left: Option<Duration>,
    cause: Option<String>,
}

impl Dump {
    /// Returns everything, each after what it is inside of.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the dump as JSON: a list of objects, each with its `depth`.
    #[cfg(feature = "json")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.entries).unwrap_or_default()
    }
}

impl Entry {
    /// Returns how many others it is inside of; 0 is the root.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Returns what it is, with its name, age and place.
    pub fn who(&self) -> &Subject {
        &self.who
    }

    /// Returns its number, if it is a task.
    pub fn id(&self) -> Option<TaskId> {
        self.id.map(TaskId)
    }

    /// Returns "running", "cancelled", or "holding" for a shield that holds a cancel off.
    pub fn state(&self) -> &'static str {
        self.state
    }

    /// Returns how long it may hold something off, if it is a shield that has a limit of its own. Until it does so, no clock runs.
    pub fn budget(&self) -> Option<Duration> {
        self.budget
    }

    /// Returns what is left of its budget, or to its deadline, if that runs.
    pub fn time_left(&self) -> Option<Duration> {
        self.left
    }

    /// Returns why it is cancelled, if it is.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }
}

/// Returns the tree of what is alive in this run, or on this runtime if there is no run.
///
/// It is put together node by node, and no lock is held over two of them: nothing waits for it, and what begins or ends meanwhile
/// may be there or not.
///
/// # Examples
///
/// ```
/// # use testudo::{dump, nursery};
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let shop = nursery(|n| async move {
///     n.task().name("watch").daemon().spawn(std::future::pending::<()>());
///     assert!(dump().to_string().contains("daemon watch at "));
/// });
/// shop.await.unwrap();
/// # }
/// ```
#[doc(alias = "tree")]
#[doc(alias = "snapshot")]
pub fn dump() -> Dump {
    dump_of(&registry::root())
}

pub(crate) fn dump_of(root: &Arc<Node>) -> Dump {
    let mut entries = Vec::new();
    let mut stack = vec![Item::Node(Arc::clone(root), 0)];
    while let Some(item) = stack.pop() {
        match item {
            Item::Node(node, depth) => {
                // First those without a place in the tree: who gets one meanwhile is seen twice, rather than not at all.
                let unmade = if node.info.kind == Kind::Root { Entry::of_unmade(&node, depth + 1) } else { Vec::new() };
                let Inside { nodes, members, buds } = node.inside();
                let own = members.first().filter(|_| node.info.kind == Kind::Task);
                entries.push(Entry::of_node(&node, own, depth));
                entries.extend(unmade);
                let nodes = nodes.into_iter().map(|inner| (inner.info.born, Item::Node(inner, depth + 1)));
                let waiting = begun(buds).map(|(born, bud)| (born, Item::Bud(bud, Arc::clone(&node), depth + 1)));
                let mut inside: Vec<_> = nodes.chain(waiting).collect();
                inside.sort_by_key(|(born, _)| *born);
                // What is popped first was begun first.
                stack.extend(inside.into_iter().rev().map(|(_, item)| item));
                let leaves = members.into_iter().rev().filter(|member| is_leaf(member, &node));
                stack.extend(leaves.map(|task| Item::Task(task, depth + 1)));
            }
            Item::Bud(bud, home, depth) => entries.push(Entry::of_bud(&bud, &home, depth)),
            Item::Task(task, depth) => entries.extend(Entry::of_task(&task, depth)),
        }
    }
    Dump { entries }
}

enum Item {
    Node(Arc<Node>, usize),
    /// With the node in which it waits.
    Bud(BudView, Arc<Node>, usize),
    Task(Member, usize),
}

/// Buds with the time at which the outermost of those that they are in began: they stay together.
fn begun(buds: Vec<BudView>) -> impl Iterator<Item = (Ticks, BudView)> {
    let mut outermost = 0;
    buds.into_iter().map(move |bud| {
        if bud.depth == 0 {
            outermost = bud.info.born;
        }
        (outermost, bud)
    })
}

/// True for a task that has no node of its own, and is alive. One that has is found as that node.
fn is_leaf(member: &Member, home: &Arc<Node>) -> bool {
    let is_alive = match member {
        Member::Frame(frame) => frame.task().is_some_and(|task| !task.has_ended()),
        Member::Leaf(_) => true,
    };
    is_alive && home.info.kind != Kind::Task && Arc::ptr_eq(member.node(), home)
}

impl Entry {
    fn of_node(node: &Arc<Node>, own: Option<&Member>, depth: usize) -> Self {
        let task = own.and_then(|member| member.with_task(|task| (task.id, Subject::of_task(task))));
        let (id, who) = task.unzip();
        let holds =
            node.is_shielded() && !node.is_cancelled() && node.parent().is_some_and(|outer| outer.is_cancelled());
        Self {
            depth,
            who: who.unwrap_or_else(|| Subject::of_node(node)),
            id,
            state: if holds || node.is_rescued() { "holding" } else { state(node) },
            budget: node.on_held_off.get().map(|held_off| Duration::from_nanos(held_off.budget)),
            left: node.deadline().map(|at| Duration::from_nanos(at.saturating_sub(clock::now()))),
            cause: node.cause().map(|cause| cause.to_string()),
        }
    }

    /// A region that waits in `home` and has no node.
    fn of_bud(bud: &BudView, home: &Node, depth: usize) -> Self {
        // It is a node as soon as a cancel of what is around it has come down to it.
        let is_reached = home.is_cancelled() && !bud.in_shield;
        Self {
            depth: depth + bud.depth,
            who: Subject::of_info(&bud.info),
            id: None,
            state: match (is_reached, bud.shielded) {
                (true, true) => "holding",
                (true, false) => "cancelled",
                (false, _) => "running",
            },
            budget: bud.budget.map(Duration::from_nanos),
            left: bud.deadline.map(|at| Duration::from_nanos(at.saturating_sub(clock::now()))),
            cause: home.cause().filter(|_| is_reached && !bud.shielded).map(|cause| cause.to_string()),
        }
    }

    /// The shields that only the root waits for, in their first polls.
    fn of_unmade(root: &Node, depth: usize) -> Vec<Self> {
        let state = if root.is_cancelled() { "holding" } else { "running" };
        let entry = |info| {
            let who = Subject::of_info(info);
            Self { depth, who, id: None, state, budget: None, left: None, cause: None }
        };
        let unmade = root.host().map(|host| host.unmade.list()).unwrap_or_default();
        unmade.iter().map(entry).collect()
    }

    fn of_task(task: &Member, depth: usize) -> Option<Self> {
        let (id, who) = task.with_task(|task| (task.id, Subject::of_task(task)))?;
        let node = task.node();
        let cause = node.cause().map(|cause| cause.to_string());
        Some(Self { depth, who, id: Some(id), state: state(node), budget: None, left: None, cause })
    }
}

fn state(node: &Node) -> &'static str {
    if node.is_cancelled() { "cancelled" } else { "running" }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut OneLine(f);
        f.write_str(self.who.what())?;
        if let Some(name) = self.who.name() {
            write!(f, " {name}")?;
        }
        if let Some(status) = self.who.status() {
            write!(f, " [{status}]")?;
        }
        let place: &Location<'_> = self.who.place();
        write!(f, " at {}:{}, {}, age {:.1?}", place.file(), place.line(), self.state, self.who.age())?;
        if let Some(left) = self.left {
            write!(f, ", {left:.1?} left")?;
        }
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |(n, entry): (usize, &Entry)| {
            let end = if n + 1 < self.entries.len() { "\n" } else { "" };
            write!(f, "{:1$}{entry}{end}", "", 2 * entry.depth)
        };
        self.entries.iter().enumerate().try_for_each(line)
    }
}

#[cfg(feature = "json")]
impl serde::Serialize for Entry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("Entry", 7)?;
        fields.serialize_field("depth", &self.depth)?;
        fields.serialize_field("id", &self.id)?;
        fields.serialize_field("who", &self.who)?;
        fields.serialize_field("state", self.state)?;
        fields.serialize_field("budget", &self.budget.map(|budget| budget.as_secs_f64()))?;
        fields.serialize_field("time_left", &self.left.map(|left| left.as_secs_f64()))?;
        fields.serialize_field("cause", &self.cause)?;
        fields.end()
    }
}

#[cfg(all(any(test, fuzzing), feature = "json"))]
pub(crate) mod fuzzed {
    use serde_json::{Value, from_str, json};

    use super::*;
    use crate::core::node::{Info, Node};
    use crate::fuzzed::Bytes;
    use crate::report::{Event, Report};

    /// The JSON of a dump and of a report is read back as what they hold, and a dump has a line for each entry, whatever is named how.
    pub(crate) fn what_is_written_is_read_back(bytes: Bytes<'_>) {
        let texts: Vec<String> = bytes.rest().split('|').map(Into::into).collect();
        let who = |text: &String| {
            let node = Node::unbound(Info::new(Kind::Scope, Location::caller(), 0), None, false);
            node.info.set_name(text.as_str().into());
            Subject::of_node(&node)
        };
        let entry = |(depth, text): (usize, &String)| {
            let (left, cause) = (Some(Duration::from_millis(500)), Some(text.clone()));
            Entry { depth, who: who(text), id: None, state: "running", budget: None, left, cause }
        };
        let dump = Dump { entries: texts.iter().enumerate().map(entry).collect() };
        let Ok(Value::Array(read)) = from_str(&dump.to_json()) else { panic!("it is a list: {}", dump.to_json()) };
        assert_eq!(read.len(), texts.len());
        for (depth, (read, text)) in read.iter().zip(&texts).enumerate() {
            let name = &read["who"]["name"];
            assert_eq!((name, &read["cause"], &read["depth"]), (&json!(text), &json!(text), &json!(depth)));
            assert_eq!(read["time_left"], json!(0.5));
        }
        assert_eq!(dump.to_string().lines().count(), texts.len(), "{dump}");
        assert!(!texts.iter().any(|text| who(text).to_string().contains(char::is_control)), "{texts:?}");

        let events: Vec<Event> = texts.iter().map(|text| Event::Warning(text.clone().into())).collect();
        let shown: Vec<String> = events.iter().map(ToString::to_string).collect();
        let report = Report {
            events,
            omitted: 0,
            lost: texts.len(),
            left: texts.iter().map(who).collect(),
            #[cfg(feature = "signal")]
            stop: None,
        };
        let read: Value = from_str(&report.to_json()).expect("it is JSON");
        assert_eq!((&read["events"], &read["lost"]), (&json!(shown), &json!(texts.len())));
        let left: Vec<&str> = report.left().iter().filter_map(Subject::name).collect();
        assert_eq!(left, texts);
        assert!(read["left"].as_array().is_some_and(|read| read.iter().map(|one| &one["name"]).eq(&texts)));
    }
}
