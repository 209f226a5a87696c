//! What is told of a shutdown at its end: its phases, who finished, and who was cut off.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Reason, Shutdown, aside};
use crate::clock::{self, Ticks};
use crate::core::phase::{Force, Phase};
use crate::core::task::TaskInfo;
use crate::host::{Node, lock};
use crate::registry;
use crate::report::{Event, Report, Subject};
use crate::task::TaskRef;

/// Collects it.
#[derive(Debug, Default)]
pub(super) struct Story(Mutex<Notes>);

#[derive(Clone, Debug, Default)]
struct Notes {
    /// When each phase was entered, in order.
    phases: Vec<(Phase, Ticks)>,
    /// The tasks that were alive when the stop was asked for, or when what is not shielded was cancelled.
    tasks: Vec<TaskRef>,
}

impl Story {
    pub(super) fn note_phase(&self, phase: Phase) {
        lock(&self.0).phases.push((phase, clock::now()));
    }

    /// Notes who is alive now.
    pub(super) fn note_alive(&self, root: &Arc<Node>) {
        let alive: Vec<_> = registry::tasks_in(root).into_iter().filter_map(TaskRef::kept).collect();
        let mut notes = lock(&self.0);
        notes.tasks.extend(alive);
        notes.tasks.sort_unstable_by_key(TaskRef::id);
        notes.tasks.dedup_by_key(|task| task.id());
    }
}

/// How a shutdown went.
#[derive(Clone, Debug)]
pub struct StopReport {
    reason: Reason,
    phases: Vec<(Phase, Duration)>,
    finished: Vec<Subject>,
    cancelled: Vec<Subject>,
    left: Vec<Subject>,
    forced: Option<Force>,
}

impl StopReport {
    /// Returns why the run has stopped.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// Returns the phases that were entered, in their order, and how long each lasted.
    pub fn phases(&self) -> &[(Phase, Duration)] {
        &self.phases
    }

    /// Returns how long it took in all.
    pub fn took(&self) -> Duration {
        self.phases.iter().map(|(_, length)| *length).sum()
    }

    /// Returns the tasks that were alive when the stop began, and ended of their own.
    pub fn finished(&self) -> &[Subject] {
        &self.finished
    }

    /// Returns the tasks that were cut off by a cancel.
    pub fn cancelled(&self) -> &[Subject] {
        &self.cancelled
    }

    /// Returns the tasks that had not ended when the runtime went.
    pub fn left(&self) -> &[Subject] {
        &self.left
    }

    /// True if all of the budget was used up, so that shields and finalizers were cut off as well.
    pub fn is_forced(&self) -> bool {
        self.forced.is_some()
    }
}

impl Shutdown {
    /// What there is to tell; nothing of a run that has not stopped.
    pub(crate) fn story(&self) -> Option<StopReport> {
        // Not under the lock: what a task says of itself is the program's own code.
        let notes = lock(&self.story.0).clone();
        // The last one is *exit*, which has no length: outside of the runtime, its clock can not be read any more.
        let last = notes.phases.last().map(|(_, at)| *at);
        let ends = notes.phases.iter().skip(1).map(|(_, at)| *at).chain(last);
        let length =
            |(began, end): (&(Phase, Ticks), Ticks)| (began.0, Duration::from_nanos(end.saturating_sub(began.1)));
        let phases: Vec<_> = notes.phases.iter().zip(ends).map(length).collect();
        let (ended, left): (Vec<_>, Vec<_>) = notes.tasks.iter().partition(|task| task.is_finished());
        let (cut, finished): (Vec<_>, Vec<_>) = ended.into_iter().partition(|task| task.with_info(TaskInfo::was_cut));
        let subjects = |tasks: Vec<&TaskRef>| tasks.into_iter().map(TaskRef::subject).collect();
        (!phases.is_empty()).then(|| StopReport {
            reason: self.reason(),
            phases,
            finished: subjects(finished),
            cancelled: subjects(cut),
            left: subjects(left),
            forced: self.forced.get().copied(),
        })
    }
}

/// Says at the end of a run what it was that did not come to its end, if anything.
pub(crate) fn say_end(root: &Arc<Node>, report: &Report) {
    if !report.is_clean() {
        let report = Arc::new(report.clone());
        aside::report(root, move |_| Event::Ended(report));
    }
}

impl fmt::Display for StopReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped in {:.1?} ({})", self.took(), self.reason)?;
        if self.is_forced() {
            f.write_str(", by force")?;
        }
        for (phase, length) in self.phases.iter().filter(|(_, length)| *length >= Duration::from_millis(1)) {
            write!(f, "\n  {phase}: {length:.1?}")?;
        }
        for (what, who) in [("finished", &self.finished), ("cancelled", &self.cancelled), ("left", &self.left)] {
            if !who.is_empty() {
                write!(f, "\n  {what}: {}", who.len())?;
            }
        }
        Ok(())
    }
}

#[cfg(feature = "json")]
impl serde::Serialize for StopReport {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let phases: Vec<_> = self.phases.iter().map(|(phase, length)| (phase.name(), length.as_secs_f64())).collect();
        let mut fields = serializer.serialize_struct("StopReport", 6)?;
        fields.serialize_field("reason", &self.reason.to_string())?;
        fields.serialize_field("phases", &phases)?;
        fields.serialize_field("finished", &self.finished)?;
        fields.serialize_field("cancelled", &self.cancelled)?;
        fields.serialize_field("left", &self.left)?;
        fields.serialize_field("forced", &self.is_forced())?;
        fields.end()
    }
}
