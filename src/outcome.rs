//! How a piece of work has ended.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::core::cause::Cause;
use crate::host::lock;

/// How a task has ended.
///
/// A cancel is neither a value nor an error, so it can not be taken for a crash, nor a crash for it (cats-effect's `Outcome`; in
/// Tokio, `JoinError` is both).
#[doc(alias = "JoinError")]
#[doc(alias = "Exit")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an outcome may hold an error or a panic that nobody has looked at"]
pub enum Outcome<T, E> {
    /// It returned a value.
    Ok(T),
    /// It returned an error.
    Err(E),
    /// It was cut off by a cancel.
    Cancelled(Cause),
    /// It panicked.
    Panicked(Panic),
    /// The runtime was shut down under it, or had been before it began; or it was dropped with its `nursery_local`.
    Lost,
}

impl<T, E> Outcome<T, E> {
    /// Returns the value, if there is one.
    pub fn ok(self) -> Option<T> {
        match self {
            Self::Ok(value) => Some(value),
            Self::Err(_) | Self::Cancelled(_) | Self::Panicked(_) | Self::Lost => None,
        }
    }

    /// True if the work returned a value.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok(_))
    }

    /// True if the work was cut off by a cancel.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled(_))
    }

    /// Changes the value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Outcome<U, E> {
        match self {
            Self::Ok(value) => Outcome::Ok(change(value)),
            Self::Err(error) => Outcome::Err(error),
            Self::Cancelled(cause) => Outcome::Cancelled(cause),
            Self::Panicked(panic) => Outcome::Panicked(panic),
            Self::Lost => Outcome::Lost,
        }
    }

    /// Returns the value.
    ///
    /// # Panics
    ///
    /// If there is none: goes on with the panic of the work if it panicked, else says how it ended.
    #[track_caller]
    pub fn unwrap(self) -> T
    where
        E: fmt::Debug,
    {
        match self {
            Self::Ok(value) => value,
            Self::Err(error) => panic!("the task returned an error: {error:?}"),
            Self::Cancelled(cause) => panic!("the task was cancelled: {cause}"),
            Self::Panicked(panic) => panic.resume(),
            Self::Lost => {
                panic!("the task was lost: its runtime was shut down under it, or it was dropped with its nursery")
            }
        }
    }
}

/// A panic that was caught at the edge of a task. Clones share the payload.
#[derive(Clone)]
pub struct Panic {
    caught: Arc<Caught>,
}

struct Caught {
    message: Box<str>,
    payload: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Panic {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => Box::from(*text),
            (None, Some(text)) => text.as_str().into(),
            (None, None) => Box::from("a payload that is not a string"),
        };
        Self { caught: Arc::new(Caught { message, payload: Mutex::new(Some(payload)) }) }
    }

    /// Returns the message of the panic, or says that its payload is not a string.
    pub fn message(&self) -> &str {
        &self.caught.message
    }

    /// Takes the payload out; only one clone gets it.
    pub fn take_payload(&self) -> Option<Box<dyn Any + Send>> {
        lock(&self.caught.payload).take()
    }

    /// Goes on with the panic in this thread, with its own payload, or with its message if another clone has taken that.
    ///
    /// # Panics
    ///
    /// Always.
    pub fn resume(self) -> ! {
        let payload = self.take_payload().unwrap_or_else(|| Box::new(self.message().to_owned()));
        std::panic::resume_unwind(payload)
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panic").field(&self.message()).finish()
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked: {}", self.message())
    }
}

impl std::error::Error for Panic {}

impl PartialEq for Panic {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.caught, &other.caught)
    }
}

impl Eq for Panic {}

/// What a task, or the body of a nursery, may return: `()` or a `Result`.
///
/// The error is what the policy of a nursery acts on, so it has to be visible in the type.
#[diagnostic::on_unimplemented(
    message = "a task returns `()` or a `Result`, not `{Self}`",
    label = "this future returns `{Self}`",
    note = "for a value, end the block with `Ok::<_, Infallible>(value)` or with `Ok(value)` where the error type is known"
)]
pub trait TaskOutput: Sized {
    /// The type of the value.
    type Value;
    /// The type of the error; `Infallible` for `()`.
    type Error;

    /// Splits the output into value and error.
    ///
    /// # Errors
    ///
    /// The error that the task returned.
    fn into_result(self) -> Result<Self::Value, Self::Error>;
}

impl TaskOutput for () {
    type Value = ();
    type Error = Infallible;

    fn into_result(self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl<T, E> TaskOutput for Result<T, E> {
    type Value = T;
    type Error = E;

    fn into_result(self) -> Self {
        self
    }
}

/// A task that never returns, as a server's `loop`. Since edition 2024 that is `!`, which can be named only as what a function
/// pointer returns.
#[diagnostic::do_not_recommend]
impl TaskOutput for Never {
    type Value = Infallible;
    type Error = Infallible;

    fn into_result(self) -> Result<Infallible, Infallible> {
        self
    }
}

type Never = <fn() -> ! as Returns>::Output;

#[doc(hidden)]
pub trait Returns {
    type Output;
}

impl<T> Returns for fn() -> T {
    type Output = T;
}

/// What a child of a nursery with errors of type `E` may return: `()` or `Result<_, E>`.
#[diagnostic::on_unimplemented(
    message = "a child of this nursery returns `()` or `Result<_, {E}>`, not `{Self}`",
    label = "this future returns `{Self}`",
    note = "for a value, end the block with `Ok(value)`; the error type is that of the body, which can end with `Ok::<_, Error>(..)`",
    note = "all children of a nursery share that type: convert with `map_err`"
)]
pub trait ChildOutput<E>: Sized {
    /// The type of the value.
    type Value;

    /// Splits the output into value and error.
    ///
    /// # Errors
    ///
    /// The error that the child returned.
    fn into_child_result(self) -> Result<Self::Value, E>;
}

impl<E> ChildOutput<E> for () {
    type Value = ();

    fn into_child_result(self) -> Result<(), E> {
        Ok(())
    }
}

impl<T, E> ChildOutput<E> for Result<T, E> {
    type Value = T;

    fn into_child_result(self) -> Self {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<E> ChildOutput<E> for Never {
    type Value = Infallible;

    fn into_child_result(self) -> Result<Infallible, E> {
        self
    }
}
