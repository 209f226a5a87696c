//! The phases of a shutdown, as a machine that says what happens in them.
//!
//! It is pure: `(state, event) -> (state, actions)`. It knows no clock, no signal and no tree; whoever steps it tells it what has
//! happened, and carries out what it asks for. It alone changes the phase.
//!
//! | Phase | It is | It ends | Who says so |
//! |---|---|---|---|
//! | running | nobody has asked for a stop | at a request, or when main has ended | code, a press; main |
//! | initiated | a stop was asked for: not ready any more | at once | – |
//! | draining | everything still accepts: the world has not heard yet | when the delay is over *and* the hooks have ended | clock; hooks |
//! | not accepting | nothing begins to accept any more | at once | – |
//! | in flight | who takes part finishes what it has | when nobody takes part any more, or its time is up | those; clock |
//! | cancelling | everything that is not shielded is cancelled | at once: the flags are set | – |
//! | shielded | shields are waited for | when nothing is alive, or all time but the reserve is up | root; clock |
//! | finalizing | shields are cut off, finalizers go on; then the last hooks run | when they have ended | root; hooks |
//! | exit | all is over | never | – |
//!
//! The second press, and the end of main in a run that nobody asked to stop, skip what lies before *cancelling*. The third press,
//! SIGQUIT, and the end of all time are *force*: no phase, because they end the process.
//!
//! # Invariants
//!
//! 1. The phase only rises, and each is entered at most once, in one step at most; none is skipped but by a press or by main's end.
//! 2. A rung only rises: the first request is *graceful*, the next press *cancel*, the one after it *force*.
//! 3. From any state, three presses force; and from any state in which a stop was asked for, the clock alone leads to the exit or to force.
//! 4. Nothing is asked for after the exit.

/// How far a shutdown has come. Phases only rise, so compare them with `>=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Nobody has asked for a stop.
    #[default]
    Running,
    /// A stop was asked for. [`ready`](crate::ready) is false from here on.
    Initiated,
    /// Everything goes on as before, accepting included, until those who send work here have heard of it.
    Draining,
    /// Nothing begins to accept any more.
    NotAccepting,
    /// Who takes part finishes what it has begun.
    InFlight,
    /// Everything that is not shielded is cancelled.
    Cancelling,
    /// Shields are waited for.
    Shielded,
    /// Only finalizers are waited for; then the hooks of the end run.
    Finalizing,
    /// All is over.
    Exit,
}

impl Phase {
    /// All phases in their order.
    pub const ALL: [Self; 9] = [
        Self::Running,
        Self::Initiated,
        Self::Draining,
        Self::NotAccepting,
        Self::InFlight,
        Self::Cancelling,
        Self::Shielded,
        Self::Finalizing,
        Self::Exit,
    ];

    /// Returns the name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Initiated => "initiated",
            Self::Draining => "draining",
            Self::NotAccepting => "not accepting",
            Self::InFlight => "in flight",
            Self::Cancelling => "cancelling",
            Self::Shielded => "shielded",
            Self::Finalizing => "finalizing",
            Self::Exit => "exit",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Which phases somebody takes part in, at the moment of the request; the others take no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Takers {
    /// Somebody has to hear that this is not ready any more.
    pub(crate) delay: bool,
    /// There are hooks to run before accepting ends.
    pub(crate) hooks: bool,
    /// Somebody finishes what it has when it is asked to stop.
    pub(crate) graceful: bool,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// Code asks for a stop.
    Request(Takers),
    /// One more press, or code that escalates.
    Press(Takers),
    /// SIGQUIT.
    Quit,
    /// The drain delay is over.
    DelayOver,
    /// The hooks before the end of accepting have ended.
    HooksOver,
    /// Nobody takes part in the graceful phase any more.
    PartsGone,
    /// Somebody takes part in it.
    PartsCame,
    /// Main has ended.
    MainEnded,
    /// Nothing of the run is alive, for good.
    Empty,
    /// The hooks of the end have ended, or were cut off.
    Flushed,
    /// The time of this phase is up.
    Elapsed(Phase),
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A stop was asked for the first time: the clock begins, and hooks hear of it.
    Begin,
    /// This phase has begun. *Cancelling* cancels the root.
    Enter(Phase),
    /// Cut off every shield that is no finalizer.
    CutShields,
    /// Say what is being waited for.
    Say,
    /// Say who has not finished yet, because what is not shielded is cancelled next.
    SayUnfinished,
    /// End the process.
    Force(Force),
}

/// What ended the patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Force {
    /// The third press, or SIGQUIT: at once.
    Press,
    /// All of the budget is used up.
    Budget,
}

/// How far presses and requests have climbed; see [`Machine`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Rung {
    #[default]
    None,
    Graceful,
    Cancel,
    Force,
}

/// The state of a shutdown. See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Machine {
    phase: Phase,
    rung: Rung,
    /// What still keeps a phase open. Each is set by the first request, and taken back once.
    open: Takers,
    /// Set once, by `Empty` and by `Flushed`.
    empty: bool,
    flushed: bool,
    /// All time is up: said once.
    forced: bool,
    /// The process is being ended by a press. Never taken back.
    ends: bool,
}

impl Machine {
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// True once a press ends the process.
    pub(crate) fn ends(&self) -> bool {
        self.ends
    }

    /// True once somebody has asked for a stop; main's own end is none.
    pub(crate) fn is_requested(&self) -> bool {
        self.rung != Rung::None
    }

    /// What the next press does, for people.
    #[cfg(feature = "progress")]
    pub(crate) fn next_press(&self) -> &'static str {
        match self.rung {
            Rung::None => "stops",
            Rung::Graceful if self.phase < Phase::Cancelling => "cancels",
            Rung::Graceful => "says more",
            Rung::Cancel | Rung::Force => "ends it",
        }
    }

    /// Takes one event in, and says what is to be done.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase == Phase::Exit {
            return actions;
        }
        match event {
            Event::Request(takers) if self.rung == Rung::None => self.begin(takers, &mut actions),
            Event::Request(_) => {}
            Event::Press(takers) => self.press(takers, &mut actions),
            Event::Quit => self.force(Force::Press, &mut actions),
            Event::DelayOver => self.open.delay = false,
            Event::HooksOver => self.open.hooks = false,
            Event::PartsGone => self.open.graceful = false,
            Event::PartsCame => self.open.graceful |= self.rung == Rung::Graceful && self.phase < Phase::InFlight,
            Event::MainEnded if self.phase == Phase::Running => self.enter(Phase::Cancelling, &mut actions),
            Event::MainEnded => {}
            Event::Empty => {
                self.open = Takers::default();
                self.empty = true;
            }
            Event::Flushed => self.flushed = true,
            Event::Elapsed(phase) if phase == self.phase => self.elapsed(&mut actions),
            Event::Elapsed(_) => {}
        }
        self.settle(&mut actions);
        actions
    }

    fn begin(&mut self, takers: Takers, actions: &mut Vec<Action>) {
        self.rung = Rung::Graceful;
        if self.phase == Phase::Running {
            self.open = takers;
            self.enter(Phase::Initiated, actions);
        }
        actions.push(Action::Begin);
    }

    fn press(&mut self, takers: Takers, actions: &mut Vec<Action>) {
        match self.rung {
            Rung::None => self.begin(takers, actions),
            Rung::Graceful if self.phase < Phase::Cancelling => {
                self.rung = Rung::Cancel;
                actions.push(Action::SayUnfinished);
                self.enter(Phase::Cancelling, actions);
            }
            Rung::Graceful => {
                self.rung = Rung::Cancel;
                actions.push(Action::Say);
            }
            Rung::Cancel | Rung::Force => self.force(Force::Press, actions),
        }
    }

    fn force(&mut self, why: Force, actions: &mut Vec<Action>) {
        self.rung = Rung::Force;
        self.ends |= why == Force::Press;
        actions.push(Action::Force(why));
    }

    fn elapsed(&mut self, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Draining => (self.open.delay, self.open.hooks) = (false, false),
            Phase::InFlight => {
                self.open.graceful = false;
                actions.push(Action::SayUnfinished);
            }
            Phase::Shielded => {
                actions.push(Action::CutShields);
                self.enter(Phase::Finalizing, actions);
            }
            Phase::Finalizing if !self.empty && !self.forced => {
                self.forced = true;
                self.force(Force::Budget, actions);
            }
            // What has no length of its own, and what is over but for its hooks, whose time somebody else keeps.
            Phase::Running
            | Phase::Initiated
            | Phase::NotAccepting
            | Phase::Cancelling
            | Phase::Finalizing
            | Phase::Exit => {}
        }
    }

    /// Leaves each phase that nothing keeps open.
    fn settle(&mut self, actions: &mut Vec<Action>) {
        while let Some(next) = self.next() {
            self.enter(next, actions);
        }
    }

    fn next(&self) -> Option<Phase> {
        match self.phase {
            Phase::Running if self.empty => Some(Phase::Cancelling),
            Phase::Initiated => Some(Phase::Draining),
            Phase::Draining if !self.open.delay && !self.open.hooks => Some(Phase::NotAccepting),
            Phase::NotAccepting => Some(Phase::InFlight),
            Phase::InFlight if !self.open.graceful => Some(Phase::Cancelling),
            Phase::Cancelling => Some(Phase::Shielded),
            Phase::Shielded if self.empty => Some(Phase::Finalizing),
            Phase::Finalizing if self.empty && self.flushed => Some(Phase::Exit),
            Phase::Running | Phase::Draining | Phase::InFlight | Phase::Shielded | Phase::Finalizing | Phase::Exit => {
                None
            }
        }
    }

    fn enter(&mut self, phase: Phase, actions: &mut Vec<Action>) {
        self.phase = phase;
        actions.push(Action::Enter(phase));
    }
}

#[cfg(test)]
mod tests;
