//! An order of steps for several tasks, written down in numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::host::lock;

/// Lets the steps of several tasks happen in the order of their numbers (trio's `testing.Sequencer`).
///
/// A step begins when all steps with lower numbers have ended, and ends when its guard is dropped. Clones are the same sequence.
///
/// # Examples
///
/// ```
/// # use std::sync::{Arc, Mutex};
/// # use testudo::nursery;
/// # use testudo::testing::Sequencer;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let steps = Sequencer::new();
/// let log = Arc::new(Mutex::new(Vec::new()));
/// let run = nursery(|n| {
///     let log = Arc::clone(&log);
///     async move {
///         for number in [2, 0, 1] {
///             let (steps, log) = (steps.clone(), Arc::clone(&log));
///             n.spawn(async move {
///                 let _turn = steps.step(number).await;
///                 log.lock().unwrap().push(number);
///             });
///         }
///     }
/// });
/// run.await.unwrap();
/// assert_eq!(*log.lock().unwrap(), [0, 1, 2]);
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Sequencer {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The step whose turn it is, or whose guard is out.
    now: usize,
    asked: BTreeSet<usize>,
    waiting: BTreeMap<usize, Waker>,
    /// A step that was given up before its turn: all after it would wait for ever.
    given_up: Option<usize>,
}

impl Sequencer {
    /// Returns a sequence whose first step is number 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until it is the turn of step `number`. The next step begins when the guard is dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future after its first poll and before the turn breaks the sequence, because the steps after it would wait for
    /// ever: whoever waits for them panics.
    ///
    /// # Panics
    ///
    /// The future panics if the sequence is broken, or if somebody has asked for this step before.
    pub fn step(&self, number: usize) -> Step {
        Step { state: Arc::clone(&self.state), number, asked: false, over: false }
    }
}

impl fmt::Debug for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        let waiting: Vec<_> = state.waiting.keys().collect();
        f.debug_struct("Sequencer").field("now", &state.now).field("waiting", &waiting).finish_non_exhaustive()
    }
}

/// Made by [`Sequencer::step`].
///
/// # Cancel safety
///
/// Dropping it after its first poll and before its turn breaks the sequence: whoever waits for a later step panics.
#[must_use = "futures do nothing unless polled"]
pub struct Step {
    state: Arc<Mutex<State>>,
    number: usize,
    asked: bool,
    over: bool,
}

impl Future for Step {
    type Output = StepGuard;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StepGuard> {
        let number = self.number;
        let first = !std::mem::replace(&mut self.asked, true);
        let mut state = lock(&self.state);
        let (twice, broken) = (first && !state.asked.insert(number), state.given_up);
        let turn = state.now == number;
        if twice || broken.is_some() {
            drop(state);
            self.over = true;
            assert!(!twice, "step {number} is asked for twice");
            panic!("the sequence is broken at step {}: it was given up before its turn", broken.unwrap_or(number));
        }
        if !turn {
            let old = state.waiting.insert(number, cx.waker().clone());
            drop(state);
            drop(old);
            return Poll::Pending;
        }
        drop(state);
        self.over = true;
        Poll::Ready(StepGuard { state: Arc::clone(&self.state), number })
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.asked || self.over {
            return;
        }
        let mut state = lock(&self.state);
        state.given_up.get_or_insert(self.number);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_values().for_each(Waker::wake);
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The turn of one step.
///
/// # Drop
///
/// Ends the step: the next one begins.
#[must_use = "the step ends when this is dropped"]
pub struct StepGuard {
    state: Arc<Mutex<State>>,
    number: usize,
}

impl Drop for StepGuard {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.now = self.number + 1;
        let next = state.waiting.remove(&(self.number + 1));
        drop(state);
        next.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for StepGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepGuard").field("number", &self.number).finish_non_exhaustive()
    }
}
