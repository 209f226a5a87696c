//! Bugs on purpose, one at a time: the stress test has to find each of them.
//!
//! They exist only under `--cfg testudo_sabotage`, and do their harm only if `TESTUDO_SABOTAGE` names one of them.

/// What can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    LostWake,
    DoubleRelease,
    UncountedChild,
    OrphanOnDrop,
    ShieldNotInherited,
    /// A race only: it needs a release just between a look at the count and the waker's going in.
    UnseenRelease,
}

/// True if `bug` is to be made here and now.
#[cfg(not(testudo_sabotage))]
pub(crate) const fn has(bug: Bug) -> bool {
    let _ = bug;
    false
}

#[cfg(testudo_sabotage)]
pub(crate) use active::has;

#[cfg(testudo_sabotage)]
mod active {
    use super::Bug;
    use crate::core::sync::{AtomicUsize, OnceLock, Ordering};

    /// A bug that shows every time would be no test of a stress test; one that needs a race does not.
    const fn one_in(bug: Bug) -> usize {
        match bug {
            Bug::LostWake | Bug::DoubleRelease | Bug::UncountedChild | Bug::OrphanOnDrop | Bug::ShieldNotInherited => 8,
            Bug::UnseenRelease => 1,
        }
    }

    pub(crate) fn has(bug: Bug) -> bool {
        static CHOSEN: OnceLock<Option<Bug>> = OnceLock::new();
        static COUNT: OnceLock<AtomicUsize> = OnceLock::new();
        let count = || COUNT.get_or_init(|| AtomicUsize::new(1)).fetch_add(1, Ordering::Relaxed);
        *CHOSEN.get_or_init(chosen) == Some(bug) && count() % one_in(bug) == 0
    }

    fn chosen() -> Option<Bug> {
        let name = std::env::var("TESTUDO_SABOTAGE").ok()?;
        Some(match name.as_str() {
            "lost-wake" => Bug::LostWake,
            "double-release" => Bug::DoubleRelease,
            "uncounted-child" => Bug::UncountedChild,
            "orphan-on-drop" => Bug::OrphanOnDrop,
            "shield-not-inherited" => Bug::ShieldNotInherited,
            "unseen-release" => Bug::UnseenRelease,
            _ => panic!("there is no sabotage named `{name}`"),
        })
    }
}
