//! The error types.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::core::cause::Cause;
use crate::outcome::Panic;

/// A scope was cut off before its body had ended.
#[derive(Clone, Debug)]
pub struct Cancelled {
    cause: Cause,
}

impl Cancelled {
    pub(crate) fn new(cause: Cause) -> Self {
        Self { cause }
    }

    /// Returns who cancelled it, and why.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cut off: {}", self.cause)
    }
}

impl Error for Cancelled {}

/// The time of a [`fail_after`](crate::fail_after) was over before its future had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(pub(crate) std::time::Duration);

impl Elapsed {
    /// Returns the time that was allowed.
    pub fn timeout(&self) -> std::time::Duration {
        self.0
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not done within {:?}", self.0)
    }
}

impl Error for Elapsed {}

/// Why a nursery did not return the value of its body.
#[derive(Debug)]
pub enum NurseryError<E> {
    /// The nursery was cancelled itself, which cut its body off; nothing has failed.
    Cancelled(Cause),
    /// The body or a child failed.
    Failed(Failures<E>),
}

impl<E> NurseryError<E> {
    /// True if nothing has failed.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled(_))
    }

    /// Returns the failures, if there are any.
    pub fn failures(&self) -> Option<&Failures<E>> {
        match self {
            Self::Cancelled(_) => None,
            Self::Failed(failures) => Some(failures),
        }
    }
}

impl<E: fmt::Display> fmt::Display for NurseryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled(cause) => write!(f, "nursery was cancelled: {cause}"),
            Self::Failed(failures) => failures.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for NurseryError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Cancelled(_) => None,
            Self::Failed(failures) => Some(failures.first().error()),
        }
    }
}

/// Takes the cancel of a nursery for an answer: the short way from a nursery's result to an `Option`.
pub trait AbsorbCancel {
    /// What is left.
    type Absorbed;

    /// Turns "was cancelled" into `None`.
    ///
    /// # Errors
    ///
    /// The failures, if anything failed.
    fn absorb_cancel(self) -> Self::Absorbed;
}

impl<T, E> AbsorbCancel for Result<T, NurseryError<E>> {
    type Absorbed = Result<Option<T>, Failures<E>>;

    fn absorb_cancel(self) -> Self::Absorbed {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(NurseryError::Cancelled(_)) => Ok(None),
            Err(NurseryError::Failed(failures)) => Err(failures),
        }
    }
}

/// Everything that failed in a nursery: at least one failure, and always all of them.
///
/// So one failure more never changes the type (trio's strict exception groups).
#[doc(alias = "ExceptionGroup")]
#[derive(Debug)]
pub struct Failures<E> {
    first: Failure<E>,
    rest: Vec<Failure<E>>,
}

impl<E> Failures<E> {
    pub(crate) fn from_vec(mut all: Vec<Failure<E>>) -> Option<Self> {
        if all.is_empty() {
            return None;
        }
        let first = all.remove(0);
        Some(Self { first, rest: all })
    }

    /// Returns the failure that came first.
    pub fn first(&self) -> &Failure<E> {
        &self.first
    }

    /// Returns how many failures there are; never 0.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        1 + self.rest.len()
    }

    /// Goes over the failures in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &Failure<E>> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}

impl<E> IntoIterator for Failures<E> {
    type Item = Failure<E>;
    type IntoIter = std::iter::Chain<std::iter::Once<Failure<E>>, std::vec::IntoIter<Failure<E>>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.first).chain(self.rest)
    }
}

impl<E: fmt::Display> fmt::Display for Failures<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        match self.rest.len() {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

impl<E: Error + 'static> Error for Failures<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.first.error())
    }
}

/// One task, or the body, that failed in a nursery.
#[derive(Debug)]
pub struct Failure<E> {
    pub(crate) task: Arc<str>,
    pub(crate) what: Failed<E>,
}

impl<E> Clone for Failure<E> {
    fn clone(&self) -> Self {
        Self { task: Arc::clone(&self.task), what: self.what.clone() }
    }
}

/// What became of it.
#[derive(Debug)]
pub enum Failed<E> {
    /// It returned an error. The task's handle shows the same one.
    Error(Arc<E>),
    /// It panicked; only [`Policy::Collect`](crate::Policy::Collect) gives panics back as failures.
    Panic(Panic),
}

impl<E> Clone for Failed<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Error(error) => Self::Error(Arc::clone(error)),
            Self::Panic(panic) => Self::Panic(panic.clone()),
        }
    }
}

impl<E> Failure<E> {
    /// Returns the name of the task; that of the task around the nursery if its body failed.
    pub fn task(&self) -> &str {
        &self.task
    }

    pub(crate) fn is(&self, panic: &Panic) -> bool {
        matches!(&self.what, Failed::Panic(own) if own == panic)
    }

    /// Returns what became of it.
    pub fn what(&self) -> &Failed<E> {
        &self.what
    }
}

impl<E: Error + 'static> Failure<E> {
    /// Returns the error, or the panic as one.
    pub fn error(&self) -> &(dyn Error + 'static) {
        match &self.what {
            Failed::Error(error) => &**error,
            Failed::Panic(panic) => panic,
        }
    }
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Failed::Error(error) => write!(f, "task `{}` failed: {error}", self.task),
            Failed::Panic(panic) => write!(f, "task `{}` {panic}", self.task),
        }
    }
}

/// The nursery has ended, so it takes no more children. The future, which was not polled, comes back.
pub struct SpawnError<F> {
    future: F,
}

impl<F> SpawnError<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future }
    }

    /// Returns the future that was not spawned.
    pub fn into_future(self) -> F {
        self.future
    }
}

impl<F> fmt::Debug for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpawnError")
    }
}

impl<F> fmt::Display for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "nursery is closed to new tasks: its body and all its children had ended when this one came; \
             keep a child or the body alive as long as tasks may come, or spawn into an outer nursery",
        )
    }
}

impl<F> Error for SpawnError<F> {}

/// Why [`Nursery::start`](crate::Nursery::start) gave no value.
#[derive(Debug)]
pub enum StartError<E> {
    /// The child returned this error before it said that it had started.
    Failed(E),
    /// The child ended without saying that it had started.
    NotStarted,
    /// The child was cut off before it said that it had started.
    Cancelled(Cause),
    /// The nursery had ended already; the child was not begun.
    Closed,
    /// The runtime was shut down before the child said that it had started.
    Lost,
}

impl<E: fmt::Display> fmt::Display for StartError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "child failed before it had started: {error}"),
            Self::NotStarted => f.write_str("child ended without calling `started`"),
            Self::Cancelled(cause) => write!(f, "child was cut off before it had started: {cause}"),
            Self::Closed => f.write_str("nursery is closed to new tasks: its body and all its children have ended"),
            Self::Lost => f.write_str("the runtime was shut down before the child had started"),
        }
    }
}

impl<E: Error + 'static> Error for StartError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::NotStarted | Self::Cancelled(_) | Self::Closed | Self::Lost => None,
        }
    }
}
