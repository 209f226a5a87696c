//! Who asked for a cancel, and why.

use std::borrow::Cow;
use std::fmt;

use super::sync::Arc;

/// Why something was cancelled: what kind of event it was, the reason that was given, and the task that asked.
///
/// The first cause of a node wins and is never overwritten; later ones are kept behind it. A node that is cancelled because
/// its parent is shows the parent's cause (trio's `CancelReason`; Go's `context.Cause`).
#[doc(alias = "CancelReason")]
#[derive(Clone)]
pub struct Cause(Arc<Inner>);

struct Inner {
    kind: CauseKind,
    reason: Option<Cow<'static, str>>,
    by: Option<Arc<str>>,
}

/// The kind of event that cancelled something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CauseKind {
    /// Somebody called `cancel`.
    Requested,
    /// A deadline or timeout passed.
    Deadline,
    /// A shield used up its budget.
    Budget,
    /// A sibling, or the body of the nursery, returned an error.
    Failed,
    /// A sibling, or the body of the nursery, panicked.
    Panicked,
    /// Another child was the first to succeed, and the policy asked for one success only.
    Succeeded,
    /// Only daemons were left in the nursery.
    OnlyDaemons,
    /// The future that owned the work was dropped.
    Dropped,
    /// The main task of the run has ended.
    MainEnded,
    /// The run was told to stop, by a signal or by code.
    Stopped,
}

impl Cause {
    pub(crate) fn new(kind: CauseKind) -> Self {
        Self::build(kind, None, None)
    }

    /// The cause of an explicit request: a reason for people, and the name of the task that asked, where there is one.
    pub(crate) fn requested(reason: Cow<'static, str>, by: Option<Arc<str>>) -> Self {
        Self::build(CauseKind::Requested, Some(reason), by)
    }

    #[cfg(feature = "signal")]
    pub(crate) fn with_reason(kind: CauseKind, reason: Cow<'static, str>) -> Self {
        Self::build(kind, Some(reason), None)
    }

    /// The cause that the siblings of a task see when it has failed.
    pub(crate) fn by(kind: CauseKind, task: Arc<str>) -> Self {
        Self::build(kind, None, Some(task))
    }

    fn build(kind: CauseKind, reason: Option<Cow<'static, str>>, by: Option<Arc<str>>) -> Self {
        Self(Arc::new(Inner { kind, reason, by }))
    }

    /// Returns the kind of event.
    pub fn kind(&self) -> CauseKind {
        self.0.kind
    }

    /// Returns the reason that was given, if one was.
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// Returns the name of the task that asked, or that failed, if it is known.
    pub fn task(&self) -> Option<&str> {
        self.0.by.as_deref()
    }
}

/// What has cancelled a node: the cause that won, then all later requests in their order. One takes no allocation.
#[derive(Default)]
pub(super) struct Causes {
    first: Option<Cause>,
    later: Vec<Cause>,
}

impl Causes {
    pub(super) fn push(&mut self, cause: Cause) {
        match self.first {
            None => self.first = Some(cause),
            Some(_) => self.later.push(cause),
        }
    }

    pub(super) fn first(&self) -> Option<&Cause> {
        self.first.as_ref()
    }

    pub(super) fn clear(&mut self) {
        if self.first.take().is_some() {
            self.later.clear();
        }
    }

    pub(super) fn to_vec(&self) -> Vec<Cause> {
        self.first.iter().chain(&self.later).cloned().collect()
    }
}

/// Two causes are equal if they are the same event.
impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Cause {}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind() {
            CauseKind::Requested => "cancelled",
            CauseKind::Deadline => "deadline passed",
            CauseKind::Budget => "shield used up its budget",
            CauseKind::Failed => "task failed",
            CauseKind::Panicked => "task panicked",
            CauseKind::Succeeded => "another task succeeded first",
            CauseKind::OnlyDaemons => "only daemons were left",
            CauseKind::Dropped => "the owner was dropped",
            CauseKind::MainEnded => "main has ended",
            CauseKind::Stopped => "the run was stopped",
        })?;
        if let Some(task) = self.task() {
            let by = if self.kind() == CauseKind::Requested { " by task " } else { ": " };
            write!(f, "{by}{task}")?;
        }
        match self.reason() {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cause")
            .field("kind", &self.kind())
            .field("reason", &self.reason())
            .field("task", &self.task())
            .finish()
    }
}

#[cfg(all(test, not(testudo_loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_kind_reads_as_a_sentence_of_its_own() {
        let text = |kind| Cause::new(kind).to_string();
        assert_eq!(text(CauseKind::Requested), "cancelled");
        assert_eq!(text(CauseKind::Deadline), "deadline passed");
        assert_eq!(text(CauseKind::Budget), "shield used up its budget");
        assert_eq!(text(CauseKind::OnlyDaemons), "only daemons were left");
        assert_eq!(text(CauseKind::Dropped), "the owner was dropped");
        assert_eq!(text(CauseKind::MainEnded), "main has ended");
        assert_eq!(text(CauseKind::Stopped), "the run was stopped");
        let text = |kind| Cause::by(kind, "T".into()).to_string();
        assert_eq!(text(CauseKind::Requested), "cancelled by task T");
        assert_eq!(text(CauseKind::Failed), "task failed: T");
        assert_eq!(text(CauseKind::Panicked), "task panicked: T");
        assert_eq!(text(CauseKind::Succeeded), "another task succeeded first: T");
    }

    #[test]
    fn a_cause_says_its_reason_and_is_equal_to_itself_only() {
        let cause = Cause::requested("too slow".into(), Some("T".into()));
        assert_eq!(cause.to_string(), "cancelled by task T (too slow)");
        assert_eq!((cause.reason(), cause.task()), (Some("too slow"), Some("T")));
        assert_eq!(Cause::requested("too slow".into(), None).to_string(), "cancelled (too slow)");
        assert_eq!(format!("{cause:?}"), r#"Cause { kind: Requested, reason: Some("too slow"), task: Some("T") }"#);
        assert_eq!(cause, cause.clone());
        assert_ne!(cause, Cause::requested("too slow".into(), Some("T".into())));
    }
}
