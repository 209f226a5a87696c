//! The order in which stages start and stop, from who needs whom.
//!
//! It is pure: `(state, event) -> actions`. Stages are numbers; who starts and stops them is somebody else's business.
//!
//! # Invariants
//!
//! 1. A stage starts after all that it needs have started, or have ended well.
//! 2. A stage stops after all that need it have ended. So one that ends early neither delays nor reorders the others.
//! 3. After the first stop nothing starts. What has not started is never stopped.
//! 4. Each stage is started at most once and told to stop at most once.

/// How far one stage has come; it only rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    #[default]
    Waiting,
    Starting,
    Started,
    Stopping,
    Ended,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// Nothing: the first look.
    Begin,
    /// This stage says that it is ready.
    Started(usize),
    /// This stage has ended well, by itself or because it was told to.
    Ended(usize),
    /// This stage has failed: everything is to stop.
    Failed(usize),
    /// Somebody asks for a stop of everything.
    Stop,
}

/// What is to be done. All of one step may be done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Start this stage.
    Start(usize),
    /// Tell this stage to stop.
    Stop(usize),
}

/// The stages, who needs whom, and how far each has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Plan {
    /// For each stage those that it needs. Never a cycle.
    needs: Vec<Vec<usize>>,
    stages: Vec<Stage>,
    stopping: bool,
}

impl Plan {
    /// A plan for stages that need each other so.
    ///
    /// # Errors
    ///
    /// The stages of one cycle, in the order in which they need each other.
    pub(crate) fn new(needs: Vec<Vec<usize>>) -> Result<Self, Vec<usize>> {
        match cycle(&needs) {
            Some(cycle) => Err(cycle),
            None => Ok(Self { stages: vec![Stage::default(); needs.len()], needs, stopping: false }),
        }
    }

    /// Takes one event in, and says what is to be done.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Begin => {}
            Event::Started(stage) => self.raise(stage, Stage::Started),
            Event::Ended(stage) => self.raise(stage, Stage::Ended),
            Event::Failed(stage) => {
                self.raise(stage, Stage::Ended);
                self.stopping = true;
            }
            Event::Stop => self.stopping = true,
        }
        let all = 0..self.stages.len();
        if self.stopping {
            let due: Vec<usize> = all.filter(|stage| self.may_stop(*stage)).collect();
            due.iter().for_each(|stage| self.raise(*stage, Stage::Stopping));
            due.into_iter().map(Action::Stop).collect()
        } else {
            let due: Vec<usize> = all.filter(|stage| self.may_start(*stage)).collect();
            due.iter().for_each(|stage| self.raise(*stage, Stage::Starting));
            due.into_iter().map(Action::Start).collect()
        }
    }

    /// True when nothing runs any more and nothing will be started.
    pub(crate) fn is_over(&self) -> bool {
        let idle = |stage: &Stage| *stage == Stage::Ended || (self.stopping && *stage == Stage::Waiting);
        self.stages.iter().all(idle)
    }

    /// True if this stage was ever started.
    #[cfg(test)]
    fn was_started(&self, stage: usize) -> bool {
        self.stages[stage] > Stage::Waiting
    }

    fn raise(&mut self, stage: usize, to: Stage) {
        self.stages[stage] = self.stages[stage].max(to);
    }

    fn may_start(&self, stage: usize) -> bool {
        let is_up = |need: &usize| matches!(self.stages[*need], Stage::Started | Stage::Ended);
        self.stages[stage] == Stage::Waiting && self.needs[stage].iter().all(is_up)
    }

    fn may_stop(&self, stage: usize) -> bool {
        let is_up = matches!(self.stages[stage], Stage::Starting | Stage::Started);
        is_up && (0..self.stages.len()).all(|other| !self.needs[other].contains(&stage) || self.is_down(other))
    }

    fn is_down(&self, stage: usize) -> bool {
        matches!(self.stages[stage], Stage::Waiting | Stage::Ended)
    }
}

/// One cycle, if there is any.
fn cycle(needs: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut left: Vec<usize> = (0..needs.len()).collect();
    loop {
        let before = left.len();
        let rest = left.clone();
        left.retain(|stage| needs[*stage].iter().any(|need| rest.contains(need)));
        if left.len() == before {
            break;
        }
    }
    // Each one that is left needs one that is left: a walk along those comes back to itself.
    let mut path = vec![*left.first()?];
    loop {
        let last = *path.last()?;
        let next = *needs[last].iter().find(|need| left.contains(need))?;
        if let Some(at) = path.iter().position(|stage| *stage == next) {
            return Some(path.split_off(at));
        }
        path.push(next);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Every way in which up to `count` stages can need each other without a cycle, numbered in one of their orders.
    fn all_plans(count: usize) -> Vec<Plan> {
        let pairs: Vec<(usize, usize)> = (0..count).flat_map(|a| (0..a).map(move |b| (a, b))).collect();
        let plan = |bits: usize| {
            let mut needs = vec![Vec::new(); count];
            let chosen = pairs.iter().enumerate().filter(|(n, _)| bits & 1 << n != 0);
            chosen.for_each(|(_, (a, b))| needs[*a].push(*b));
            Plan::new(needs).expect("each needs only those before it")
        };
        (0..1 << pairs.len()).map(plan).collect()
    }

    /// What may happen next, to stages that do as they are told or end early.
    fn events(plan: &Plan) -> Vec<Event> {
        let of = |stage: usize| match plan.stages[stage] {
            Stage::Starting => vec![Event::Started(stage), Event::Ended(stage), Event::Failed(stage)],
            Stage::Started | Stage::Stopping => vec![Event::Ended(stage), Event::Failed(stage)],
            Stage::Waiting | Stage::Ended => vec![],
        };
        (0..plan.stages.len()).flat_map(of).chain([Event::Begin, Event::Stop]).collect()
    }

    /// Looks at every step from every state that can be reached.
    fn each_step(mut check: impl FnMut(&Plan, Event, &[Action], &Plan)) {
        for start in (1..=4).flat_map(all_plans) {
            let (mut seen, mut next) = (HashSet::new(), vec![start]);
            while let Some(plan) = next.pop() {
                for event in events(&plan) {
                    let mut after = plan.clone();
                    let actions = after.step(event);
                    check(&plan, event, &actions, &after);
                    if seen.insert(after.clone()) {
                        next.push(after);
                    }
                }
            }
        }
    }

    #[test]
    fn l47_a_stage_stops_only_after_all_that_need_it_have_ended() {
        each_step(|_, event, actions, after| {
            for action in actions {
                let Action::Stop(stage) = *action else { continue };
                for other in 0..after.stages.len() {
                    let needs = after.needs[other].contains(&stage);
                    assert!(!needs || after.is_down(other), "{after:?} {event:?}");
                }
            }
        });
    }

    #[test]
    fn a_stage_starts_only_after_all_that_it_needs() {
        each_step(|before, event, actions, after| {
            for action in actions {
                let Action::Start(stage) = *action else { continue };
                assert!(!after.stopping && !before.was_started(stage), "{before:?} {event:?}");
                let needs = &after.needs[stage];
                assert!(
                    needs.iter().all(|need| matches!(after.stages[*need], Stage::Started | Stage::Ended)),
                    "{before:?} {event:?}"
                );
            }
        });
    }

    #[test]
    fn independent_stages_start_and_stop_together() {
        let mut plan = Plan::new(vec![vec![], vec![0], vec![0]]).unwrap();
        assert_eq!(plan.step(Event::Begin), [Action::Start(0)]);
        assert_eq!(plan.step(Event::Started(0)), [Action::Start(1), Action::Start(2)]);
        plan.step(Event::Started(1));
        plan.step(Event::Started(2));
        assert_eq!(plan.step(Event::Stop), [Action::Stop(1), Action::Stop(2)]);
        assert_eq!(plan.step(Event::Ended(2)), []);
        assert_eq!(plan.step(Event::Ended(1)), [Action::Stop(0)]);
        assert!(!plan.is_over());
        plan.step(Event::Ended(0));
        assert!(plan.is_over());
    }

    #[test]
    fn a_failed_start_rolls_back_only_what_was_started() {
        let mut plan = Plan::new(vec![vec![], vec![0], vec![1]]).unwrap();
        plan.step(Event::Begin);
        plan.step(Event::Started(0));
        assert_eq!(plan.step(Event::Failed(1)), [Action::Stop(0)]);
        plan.step(Event::Ended(0));
        assert!(plan.is_over() && !plan.was_started(2));
    }

    #[test]
    fn what_was_told_to_stop_and_ends_leads_to_the_end() {
        for start in (1..=4).flat_map(all_plans) {
            let mut plan = start;
            plan.step(Event::Begin);
            for _ in 0..4 {
                for stage in 0..plan.stages.len() {
                    if plan.stages[stage] == Stage::Starting {
                        plan.step(Event::Started(stage));
                    }
                }
            }
            let mut due = plan.step(Event::Stop);
            while let Some(Action::Stop(stage)) = due.pop() {
                due.extend(plan.step(Event::Ended(stage)));
            }
            assert!(plan.is_over(), "{plan:?}");
        }
    }

    #[test]
    fn a_stage_that_has_ended_well_is_there_for_those_that_need_it() {
        let mut plan = Plan::new(vec![vec![], vec![0]]).unwrap();
        plan.step(Event::Begin);
        assert_eq!(plan.step(Event::Ended(0)), [Action::Start(1)]);
        assert!(!plan.is_over());
        assert_eq!(plan.step(Event::Stop), [Action::Stop(1)]);
        plan.step(Event::Ended(1));
        assert!(plan.is_over());
    }

    #[test]
    fn a_cycle_is_named() {
        assert_eq!(Plan::new(vec![vec![1], vec![2], vec![0], vec![]]), Err(vec![0, 1, 2]));
        assert_eq!(Plan::new(vec![vec![0]]), Err(vec![0]));
        assert!(Plan::new(vec![vec![], vec![0], vec![0, 1]]).is_ok());
    }
}
