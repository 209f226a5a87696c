//! The signal side of a run: what each signal does.

use std::collections::HashMap;
use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[cfg(feature = "testing")]
use super::exit;
use super::{Shutdown, aside};
#[cfg(feature = "testing")]
use crate::core::phase::Force;
use crate::core::phase::{Action, Phase};
use crate::core::press::Presses;
use crate::dump::dump_of;
use crate::host::{Node, lock};
use crate::registry;
use crate::report::Event;
use crate::signal::Signal;

/// What the program does on a signal itself; see [`Runner::on_signal`](crate::Runner::on_signal).
#[derive(Clone)]
pub(crate) struct Handler(Arc<dyn Fn(&Stop<'_>) + Send + Sync>);

impl Handler {
    pub(crate) fn new(handle: impl Fn(&Stop<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(handle))
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

/// What became of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Press {
    /// The run is over.
    Nobody,
    /// It is the same press as the last one.
    Same,
    /// A handler took it, and went no rung up; or it says what is alive.
    Handled,
    Climbed(Vec<Action>),
}

/// The signals of a run, and where they lead.
pub(crate) struct Control {
    shutdown: Arc<Shutdown>,
    root: Arc<Node>,
    presses: Mutex<Presses>,
    /// What the last press that climbed has led to.
    climbed: Mutex<Option<Vec<Action>>>,
    /// The signals that climb the ladder.
    ladder: Vec<Signal>,
    handlers: HashMap<Signal, Handler>,
}

/// What a handler of a signal can do; see [`Runner::on_signal`](crate::Runner::on_signal).
pub struct Stop<'a> {
    control: &'a Control,
    signal: Signal,
}

impl Stop<'_> {
    /// Returns the signal.
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// Goes one rung up the ladder, as the runner does by default: stop gracefully, then cancel everything that is not shielded (or say
    /// what is being waited for, if that is done), then end the process.
    pub fn escalate(&self) {
        self.control.climb(self.signal);
    }
}

impl fmt::Debug for Stop<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("signal", &self.signal).finish_non_exhaustive()
    }
}

impl Control {
    pub(crate) fn new(
        shutdown: Arc<Shutdown>,
        root: Arc<Node>,
        window: Duration,
        ladder: Vec<Signal>,
        handlers: HashMap<Signal, Handler>,
    ) -> Arc<Self> {
        let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let presses = Mutex::new(Presses::new(window));
        Arc::new(Self { shutdown, root, presses, climbed: Mutex::default(), ladder, handlers })
    }

    /// The signals that mean something to this run.
    pub(crate) fn signals(&self) -> Vec<Signal> {
        let mut signals = self.ladder.clone();
        let others = [Signal::Quit, Signal::User1].into_iter().chain(self.handlers.keys().copied());
        signals.extend(others.filter(|signal| !self.ladder.contains(signal)));
        signals.sort_unstable_by_key(|signal| *signal as u8);
        signals.dedup();
        signals
    }

    /// Runs on the signal thread, so also when every worker is stuck. Code of the program runs elsewhere: nothing that it does keeps
    /// the next press from being seen.
    pub(crate) fn press(self: &Arc<Self>, signal: Signal, now_ms: u64) -> Press {
        if self.shutdown.asked_phase() == Phase::Exit {
            return Press::Nobody; // Nothing is left to stop, and the status stands.
        }
        if !lock(&self.presses).count(signal as u8, now_ms) {
            return Press::Same;
        }
        *lock(&self.climbed) = None;
        let handled = self.handlers.get(&signal).map(|handler| self.handle(handler.clone(), signal)).is_some();
        let climbs = self.ladder.contains(&signal);
        if signal == Signal::Quit && !climbs {
            return Press::Climbed(self.shutdown.quit(signal));
        } else if !handled && climbs {
            self.climb(signal);
        } else if !handled {
            aside::report(&self.root, |root| Event::Dump(dump_of(root)));
        }
        lock(&self.climbed).take().map_or(Press::Handled, Press::Climbed)
    }

    /// What ends the process on the last rung, as its status.
    #[cfg(feature = "testing")]
    pub(crate) fn forced_status(signal: Signal) -> i32 {
        exit::forced(Force::Press, Some(signal)).into()
    }

    #[cfg(feature = "testing")]
    pub(crate) fn root(&self) -> &Arc<Node> {
        &self.root
    }

    fn handle(self: &Arc<Self>, handler: Handler, signal: Signal) {
        let control = Arc::clone(self);
        aside(move || {
            let stop = Stop { control: &control, signal };
            registry::inside(&control.root, || (handler.0)(&stop));
        });
    }

    fn climb(&self, signal: Signal) {
        let interactive = signal == Signal::Interrupt && std::io::stdin().is_terminal();
        let actions = self.shutdown.press(signal, interactive);
        *lock(&self.climbed) = Some(actions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{self, Host};
    use crate::shutdown::{Budget, Config, Reason, Run};

    /// What a console of Windows sends can not be sent elsewhere; from here on it is the same code everywhere.
    #[test]
    fn console_events_stop_a_run_and_closing_caps_its_budget() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (signal, left) in
            [(Signal::Break, 28.0), (Signal::Close, 4.5), (Signal::Logoff, 4.5), (Signal::Shutdown, 4.5)]
        {
            let shutdown = Shutdown::new();
            let host = Host::of_run(runtime.handle().clone(), None, None, Arc::clone(&shutdown));
            let root = host::new_root(host);
            let (budget, _) = Budget::new(Config::default(), &|_| None).unwrap();
            let _over = shutdown.over_at_drop();
            shutdown.attach(Run::new(Arc::clone(&root), budget));
            let ladder = vec![signal];
            let control = Control::new(Arc::clone(&shutdown), root, Duration::ZERO, ladder, HashMap::new());
            assert_eq!(control.signals().iter().filter(|known| **known == signal).count(), 1);
            drop(control.press(signal, 0));
            assert_eq!((shutdown.phase(), shutdown.reason()), (Phase::Shielded, Reason::Signal(signal)));
            let now = shutdown.clock.left().unwrap().as_secs_f64();
            assert!(now <= left && now > left - 2.0, "{signal:?}: {now} s left");
        }
    }
}
