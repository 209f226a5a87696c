//! What a run or a tree has to say: events, who hears them, and the report at the end.

use std::fmt::{self, Write as _};
use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::core::node::{Info, Kind};
use crate::core::task::TaskInfo;
use crate::dump::Dump;
use crate::host::Node;
#[cfg(feature = "signal")]
use crate::shutdown::StopReport;

/// Who an event is about: its kind, name, age, and the place where it was made.
#[derive(Clone, Debug)]
pub struct Subject {
    what: &'static str,
    name: Option<Arc<str>>,
    status: Option<Arc<str>>,
    place: &'static Location<'static>,
    age: Duration,
}

impl Subject {
    pub(crate) fn of_node(node: &Node) -> Self {
        let subject = Self::of_info(&node.info);
        if node.is_rescued() { Self { what: "rescued shield", ..subject } } else { subject }
    }

    pub(crate) fn of_info(info: &Info) -> Self {
        let what = match info.kind {
            Kind::Root => "root",
            Kind::Scope => "scope",
            Kind::Catch => "catch point",
            Kind::Shield => "shield",
            Kind::Exposed => "exposed part",
            Kind::Outside => "outside of a shield",
            Kind::Nursery => "nursery",
            Kind::Task => "task",
        };
        Self::new(what, info, info.name.get().cloned())
    }

    /// A shield without a name goes by that of the task that it is in.
    pub(crate) fn of_shield(node: &Arc<Node>) -> Self {
        let own = Self::of_node(node);
        let around = std::iter::successors(node.parent(), |node| node.parent());
        let task = around.filter(|node| node.info.kind == Kind::Task).find_map(|node| {
            let members = node.inside().members;
            members.iter().find_map(|member| member.with_task(TaskInfo::name))
        });
        match (&own.name, task) {
            (None, Some(task)) => Self { what: "shield in task", name: Some(task), ..own },
            (Some(_), _) | (None, None) => own,
        }
    }

    pub(crate) fn of_task(task: &TaskInfo) -> Self {
        let what = match (task.traits.blocking, task.traits.daemon) {
            (true, _) => "blocking task (can not be cancelled)",
            (false, true) => "daemon",
            (false, false) => "task",
        };
        Self { status: task.status().map(Into::into), ..Self::new(what, &task.info, Some(task.name())) }
    }

    fn new(what: &'static str, info: &Info, name: Option<Arc<str>>) -> Self {
        Self { what, name, status: None, place: info.place, age: clock::age(info.born) }
    }

    /// The child of that name of a nursery, at the place of that.
    pub(crate) fn child_of(nursery: &Node, name: &Arc<str>) -> Self {
        Self { what: "child", name: Some(Arc::clone(name)), ..Self::of_node(nursery) }
    }

    /// Returns the kind of thing: "task", "shield", "rescued shield" and so on.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Returns the name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns what it is doing, if it says so; see [`TaskBuilder::status`](crate::TaskBuilder::status).
    pub fn status(&self) -> Option<&str> {
        self.status.as_deref()
    }

    /// Returns the place in the source where it was made.
    pub fn place(&self) -> &'static Location<'static> {
        self.place
    }

    /// Returns how old it was when the event happened.
    pub fn age(&self) -> Duration {
        self.age
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut OneLine(f);
        f.write_str(self.what)?;
        if let Some(name) = &self.name {
            write!(f, " `{name}`")?;
        }
        if let Some(status) = &self.status {
            write!(f, " [{status}]")?;
        }
        write!(f, " ({}:{}, {:.1?} old)", self.place.file(), self.place.line(), self.age)
    }
}

/// Names and causes may be made of what somebody has sent: they must not make lines, nor move the cursor of a terminal.
pub(crate) struct OneLine<W>(pub(crate) W);

impl<W: fmt::Write> fmt::Write for OneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|char| match char.is_control() {
            true => write!(self.0, "{}", char.escape_default()),
            false => self.0.write_char(char),
        })
    }
}

/// Something that nobody else would hear of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// What was configured does not fit together.
    Warning(Arc<str>),
    /// The run was told to stop.
    Stopping {
        /// Who asked.
        why: Arc<str>,
        /// Those who take part are waited for before everything that is not shielded is cancelled.
        graceful: bool,
        /// What was alive then. The text has no room for it.
        dump: Dump,
    },
    /// Those who take part in the graceful phase are not waited for any more: what is not shielded is cancelled next.
    Unfinished {
        /// Who asked once more; none if the time for it is up.
        why: Option<Arc<str>>,
        /// What was alive then, by name.
        whom: Vec<Subject>,
        /// The same in its tree.
        dump: Dump,
    },
    /// The run was told to stop once more, and this is what it still waits for.
    Waiting {
        /// What is being waited for, by name.
        whom: Vec<Subject>,
        /// The same in its tree.
        dump: Dump,
    },
    /// The run is given up, and the process ends.
    Forced {
        /// Who asked, or what was used up.
        why: Arc<str>,
        /// What is cut off, by name.
        whom: Vec<Subject>,
        /// The same in its tree.
        dump: Dump,
    },
    /// Somebody asked for the tree, by SIGUSR1.
    Dump(Dump),
    /// Work that was promised to be carried to its end could not be: its runtime was gone.
    Lost(Subject),
    /// A borrowed shield was dropped half-way; it can not be rescued.
    Dropped(Subject),
    /// A shield used up its budget and was cut off.
    Overran(Subject),
    /// A task returned an error that nobody looked at.
    Failed(Subject, Arc<str>),
    /// A task or a rescued shield panicked, and nobody is left who could go on with the panic.
    Panicked(Subject, Arc<str>),
    /// The run has ended, and not in order: something was cut off or lost on its way. Nothing is heard of the end of any other.
    Ended(Arc<Report>),
}

impl Event {
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Dropped(_) | Self::Overran(_))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warning(what) => write!(f, "warning: {what}"),
            Self::Stopping { why, graceful: true, .. } => {
                write!(
                    f,
                    "stopping ({why}): who takes part finishes what it has; once more cancels what is not shielded"
                )
            }
            Self::Stopping { why, graceful: false, .. } => write!(
                f,
                "stopping ({why}): everything that is not shielded is cancelled; once more says what is being waited for"
            ),
            Self::Unfinished { why, whom, dump } => {
                let (why, next) = match why {
                    Some(why) => (&**why, "ends the process at once"),
                    None => ("its time is up", "says what is being waited for"),
                };
                write!(f, "the graceful phase is cut short ({why}): everything that is not shielded is cancelled; ")?;
                write!(f, "once more {next}; it waited for {}\nin this tree:\n{dump}", Count(whom))
            }
            Self::Dump(dump) => write!(f, "this is alive:\n{dump}"),
            Self::Waiting { whom, dump } => {
                write!(f, "still waiting for {}; once more ends the process at once", whom.len())?;
                whom.iter()
                    .enumerate()
                    .try_for_each(|(n, who)| write!(f, "{}\n  {who}", if n == 0 { ":" } else { "" }))?;
                write!(f, "\nin this tree:\n{dump}")
            }
            Self::Forced { why, whom, dump } => {
                write!(f, "ending the process now ({why}), cutting off {}\nin this tree:\n{dump}", Count(whom))
            }
            Self::Lost(who) => write!(f, "lost {who}: its runtime was gone before it had ended"),
            Self::Dropped(who) => {
                write!(f, "{who} was dropped half-way: a borrowed shield holds against cancel, not against drop")
            }
            Self::Overran(who) => write!(f, "{who} used up its budget and is cut off"),
            Self::Failed(who, error) => write!(f, "{who} failed, and nobody looked: {error}"),
            Self::Panicked(who, message) => write!(f, "{who} panicked, and nobody looked: {message}"),
            Self::Ended(report) => {
                // All else was said when it happened.
                let losses = report.events.iter().filter(|event| event.is_loss());
                f.write_str("the run has ended, but not in order\n")?;
                losses.into_iter().try_for_each(|event| writeln!(f, "  {event}"))?;
                report.sum_up(f)
            }
        }
    }
}

struct Count<'a>(&'a [Subject]);

impl fmt::Display for Count<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("nothing that is known by name"),
            [one] => one.fmt(f),
            all => {
                write!(f, "{}:", all.len())?;
                all.iter().try_for_each(|who| write!(f, "\n  {who}"))
            }
        }
    }
}

/// Hears the events of a run, on whatever thread they happen.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(&Event) + Send + Sync>);

impl Reporter {
    /// A reporter that calls `hear`. It is called on workers, and for what a stop says on a thread of its own, for which half a second is
    /// waited; so it must not wait. A panic in it is not passed on: the panic hook has said it.
    pub fn new(hear: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// One line an event on stderr.
    pub fn stderr() -> Self {
        Self::new(print)
    }

    /// The default: as [`stderr`](Self::stderr), but that the run stops is said to a person at a terminal only. A log has its own
    /// words for that, and hears of what was cut off, with a report at the end, of errors that nobody saw, and of what was asked for.
    pub fn standard() -> Self {
        Self::new(|event| {
            if !matches!(event, Event::Stopping { .. }) || std::io::stderr().is_terminal() {
                print(event);
            }
        })
    }

    pub(crate) fn report(&self, event: &Event) {
        // Whoever has something to report may be unwinding.
        drop(catch_unwind(AssertUnwindSafe(|| (self.0)(event))));
    }
}

fn print(event: &Event) {
    // In one piece, or lines of the program come in between. A closed stderr is no reason to fail: there is nobody to tell.
    let line = format!("testudo: {event}\n");
    std::io::stderr().lock().write_all(line.as_bytes()).unwrap_or_default();
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}

/// What a run, or a [`drain`](crate::drain), has to say at its end.
#[derive(Clone, Debug)]
#[must_use = "a report may hold errors, panics and losses that nobody has looked at"]
pub struct Report {
    pub(crate) events: Vec<Event>,
    pub(crate) omitted: usize,
    pub(crate) lost: usize,
    pub(crate) left: Vec<Subject>,
    #[cfg(feature = "signal")]
    pub(crate) stop: Option<StopReport>,
}

impl Report {
    /// Returns what was reported, in its order: what a [`Reporter`] has heard as well, but for dumps that were asked for.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Returns how many events more there were than [`events`](Self::events) holds: only so many are kept for whom nobody asks.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Returns how much was lost, dropped half-way or cut off by its budget, since the runtime began.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// Returns what was still running when the wait of [`drain`](crate::drain()) was given up; empty if everything has ended. Of a run it is
    /// empty: what that has left is in the report of its stop.
    pub fn left(&self) -> &[Subject] {
        &self.left
    }

    /// Returns how the run has stopped; none for a drain.
    #[cfg(feature = "signal")]
    pub fn stop(&self) -> Option<&StopReport> {
        self.stop.as_ref()
    }

    /// Returns the report as JSON.
    #[cfg(feature = "json")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// True if everything has ended, and nothing was lost, nor cut off because all time was up.
    pub fn is_clean(&self) -> bool {
        #[cfg(feature = "signal")]
        if self.stop.as_ref().is_some_and(|stop| stop.is_forced() || !stop.left().is_empty()) {
            return false;
        }
        self.left.is_empty() && self.lost == 0
    }

    /// Writes everything but the events.
    fn sum_up(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "signal")]
        if let Some(stop) = &self.stop {
            writeln!(f, "{stop}")?;
        }
        match self.left.as_slice() {
            [] => write!(f, "everything has ended, {} lost", self.lost),
            left => write!(f, "{} lost, still running {}", self.lost, Count(left)),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))?;
        if self.omitted > 0 {
            writeln!(f, "and {} more events", self.omitted)?;
        }
        self.sum_up(f)
    }
}

#[cfg(feature = "json")]
impl serde::Serialize for Subject {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("Subject", 5)?;
        fields.serialize_field("what", self.what)?;
        fields.serialize_field("name", &self.name.as_deref())?;
        fields.serialize_field("status", &self.status.as_deref())?;
        fields.serialize_field("place", &format_args!("{}:{}", self.place.file(), self.place.line()))?;
        fields.serialize_field("age", &self.age.as_secs_f64())?;
        fields.end()
    }
}

#[cfg(feature = "json")]
impl serde::Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let events: Vec<String> = self.events.iter().map(ToString::to_string).collect();
        let mut fields = serializer.serialize_struct("Report", 5)?;
        #[cfg(feature = "signal")]
        fields.serialize_field("stop", &self.stop)?;
        fields.serialize_field("events", &events)?;
        fields.serialize_field("omitted", &self.omitted)?;
        fields.serialize_field("lost", &self.lost)?;
        fields.serialize_field("left", &self.left)?;
        fields.end()
    }
}
