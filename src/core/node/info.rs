//! What a node or a task is, for people: kind, name, place, age.

use std::panic::Location;

use crate::core::sync::{Arc, OnceLock};

/// What a node or a task is, for people.
#[derive(Clone, Debug)]
pub(crate) struct Info {
    pub(crate) kind: Kind,
    /// Set at most once.
    pub(crate) name: OnceLock<Arc<str>>,
    pub(crate) place: &'static Location<'static>,
    /// When it began, in the ticks of its host.
    pub(crate) born: u64,
}

/// What kind of thing a node belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Root,
    Scope,
    /// What unwinds inside it stops there, whatever is cancelled around it.
    Catch,
    Shield,
    /// Catches as well: an exposed part gives an error to the shield that it is in.
    Exposed,
    /// What a shield sees of the outside.
    Outside,
    Nursery,
    Task,
}

impl Kind {
    /// True if what unwinds inside it stops there.
    pub(super) fn catches(self) -> bool {
        matches!(self, Self::Catch | Self::Exposed)
    }
}

impl Info {
    /// Gives it a name; the first one stays.
    pub(crate) fn set_name(&self, name: Arc<str>) {
        self.name.get_or_init(|| name);
    }

    pub(crate) fn new(kind: Kind, place: &'static Location<'static>, born: u64) -> Self {
        Self { kind, name: OnceLock::new(), place, born }
    }
}
