//! Presses of a signal without a signal.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use tokio::runtime::Handle;

use crate::clock;
use crate::core::phase::{Action, Phase};
use crate::host::lock;
use crate::shutdown::{Control, Press};
use crate::signal::Signal;

/// A source of signals for a [`Runner`](crate::Runner), for tests: nothing is sent to the process, and nothing ends it.
///
/// Given to [`Runner::signals_from`](crate::Runner::signals_from), it takes the place of the signals of the process. A press does what the
/// signal would do: handlers, hooks and the ladder are those of the runner. Times between presses are read from the clock of
/// the run, so paused time counts. Clones are the same source.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use testudo::testing::{Effect, Signals};
/// use testudo::{CauseKind, Outcome, Runner, Signal, shield};
/// use tokio::time::sleep;
///
/// let signals = Signals::new();
/// let keys = signals.clone();
/// let run = Runner::new().current_thread().reporter(None).signals_from(&signals).run(async move {
///     tokio::time::pause();
///     assert_eq!(keys.press(Signal::Interrupt), Effect::Cancelled);
///     assert_eq!(keys.press(Signal::Interrupt), Effect::SamePress); // within 200 ms
///     shield(sleep(Duration::from_secs(1))).await;
///     assert_eq!(keys.press(Signal::Interrupt), Effect::Reported);
///     shield(sleep(Duration::from_secs(1))).await;
///     assert_eq!(keys.press(Signal::Interrupt), Effect::Forced(130)); // it would have ended here
///     sleep(Duration::from_secs(1)).await;
///     unreachable!("it is cancelled");
/// });
/// assert!(matches!(run.outcome, Outcome::Cancelled(cause) if cause.kind() == CauseKind::Stopped));
/// assert_eq!(keys_after_the_run(&signals), Effect::Nobody);
/// # fn keys_after_the_run(signals: &Signals) -> Effect { signals.press(Signal::Interrupt) }
/// ```
#[derive(Clone, Default)]
pub struct Signals {
    sink: Arc<Mutex<Option<Arc<Control>>>>,
}

/// What a press has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// No run is listening to this signal (any more).
    Nobody,
    /// It came so soon after the last one of its kind that it is the same press.
    SamePress,
    /// A handler of [`Runner::on_signal`](crate::Runner::on_signal) has taken it, and went no rung up the ladder; or it is one
    /// that only says what is alive.
    Handled,
    /// A stop was asked for, and something goes before the cancel: a drain delay, hooks, or somebody who takes part.
    Asked,
    /// All that is not shielded is cancelled.
    Cancelled,
    /// It was said what is being waited for.
    Reported,
    /// The process would have ended here, with this status. The run goes on, because this is a test.
    Forced(i32),
}

impl Signals {
    /// Returns a source that no run listens to yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does what `signal` would do to the run that listens, and says what that was.
    ///
    /// It is done when this returns, on the thread that calls, which stands for the signal thread.
    pub fn press(&self, signal: Signal) -> Effect {
        let Some(control) = lock(&self.sink).clone() else { return Effect::Nobody };
        if !control.signals().contains(&signal) {
            return Effect::Nobody;
        }
        let now = {
            let _clock = control.root().host().and_then(|host| host.handle.as_ref()).map(Handle::enter);
            clock::now() / 1_000_000
        };
        match control.press(signal, now) {
            Press::Nobody => Effect::Nobody,
            Press::Same => Effect::SamePress,
            Press::Handled => Effect::Handled,
            Press::Climbed(actions) => climbed(&actions, signal),
        }
    }

    pub(crate) fn connect(&self, control: Arc<Control>) -> Connection {
        let connected = Arc::downgrade(&control);
        *lock(&self.sink) = Some(control);
        Connection { signals: self.clone(), control: connected }
    }
}

/// The furthest that a press has come.
fn climbed(actions: &[Action], signal: Signal) -> Effect {
    if actions.iter().any(|action| matches!(action, Action::Force(_))) {
        Effect::Forced(Control::forced_status(signal))
    } else if actions.contains(&Action::Enter(Phase::Cancelling)) {
        Effect::Cancelled
    } else if actions.contains(&Action::Begin) {
        Effect::Asked
    } else {
        Effect::Reported
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("connected", &lock(&self.sink).is_some()).finish()
    }
}

/// A run listens as long as this lives.
pub(crate) struct Connection {
    signals: Signals,
    control: Weak<Control>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Another run may have connected itself since.
        let is_own = |control: &mut Arc<Control>| std::ptr::eq(Arc::as_ptr(control), self.control.as_ptr());
        let sink = lock(&self.signals.sink).take_if(is_own);
        drop(sink);
    }
}
