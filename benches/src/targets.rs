//! The targets: what ours may take beside a peer in the same rounds.

use crate::case::WHOLE;
use crate::plan::{Sample, Threads, median, units};
use crate::work::scope::{self, TOKEN};
use crate::work::shield::SPAWN;
use crate::work::spawn::{JOIN_SET, LOCKED_SET};
use crate::work::storm::{self, CANCEL, END, SET_AND_CHILD_TOKENS, SET_UP, TRACKER_AND_TOKEN};
use crate::work::{BARE, OURS, deadline, server, shield, spawn, tree};

/// What a figure of ours is held against.
#[derive(Debug, Clone, Copy)]
pub enum Against {
    /// Ours as a part of another case.
    Peer {
        /// What is done there.
        work: &'static str,
        /// By whom.
        by: &'static str,
        /// A work that both need anyway, so that it counts for neither.
        floor: Option<&'static str>,
    },
    /// Nanoseconds of ours.
    Time {
        /// A work that is needed anyway, so that it does not count.
        floor: Option<&'static str>,
    },
    /// Ours for each of many units as a multiple of ours for each of so few.
    Few(usize),
}

/// One figure and its bar.
#[derive(Debug)]
pub struct Target {
    /// The row of the table of targets.
    pub row: &'static str,
    /// What is done.
    pub work: &'static str,
    /// Which part of it.
    pub part: &'static str,
    /// How many units.
    pub n: usize,
    /// Where.
    pub threads: Threads,
    /// What ours is held against.
    pub against: Against,
    /// The most that is allowed.
    pub bar: f64,
    /// What would be better still.
    pub stretch: f64,
}

const fn target(row: &'static str, work: &'static str, n: usize, threads: Threads, limits: [f64; 2]) -> Target {
    let [bar, stretch] = limits;
    Target { row, work, part: WHOLE, n, threads, against: Against::Time { floor: None }, bar, stretch }
}

impl Target {
    const fn part(self, part: &'static str) -> Self {
        Self { part, ..self }
    }

    const fn beside(self, by: &'static str) -> Self {
        let work = self.work;
        self.beside_work(work, by)
    }

    const fn beside_work(self, work: &'static str, by: &'static str) -> Self {
        Self { against: Against::Peer { work, by, floor: None }, ..self }
    }

    const fn over(self, floor: &'static str) -> Self {
        let against = match self.against {
            Against::Peer { work, by, .. } => Against::Peer { work, by, floor: Some(floor) },
            Against::Time { .. } | Against::Few(_) => Against::Time { floor: Some(floor) },
        };
        Self { against, ..self }
    }

    const fn growth(self, few: usize) -> Self {
        Self { against: Against::Few(few), ..self }
    }

    /// What the bar is about, found in the samples of one allocator in a full or a short run.
    pub fn figure(&self, samples: &[Sample], allocator: &str, quick: bool) -> Option<f64> {
        let rounds = |work: &str, by: &str, n: usize| {
            let case = format!("{work} / {by}");
            let found = samples.iter().find(|sample| {
                sample.target == self.row
                    && sample.threads == self.threads
                    && sample.allocator == allocator
                    && sample.n == units(n, quick)
                    && sample.case == case
                    && (sample.part == self.part || by == BARE)
            });
            found.map(|sample| sample.rounds.clone())
        };
        let ours = rounds(self.work, OURS, self.n)?;
        let floor_of =
            |floor: Option<&str>| floor.map_or(Some(vec![0.0; ours.len()]), |work| rounds(work, BARE, self.n));
        match self.against {
            Against::Peer { work, by, floor } => {
                let (peer, floor) = (rounds(work, by, self.n)?, floor_of(floor)?);
                let ratios =
                    ours.iter().zip(&peer).zip(&floor).map(|((ours, peer), floor)| (ours - floor) / (peer - floor));
                median(&ratios.collect::<Vec<_>>())
            }
            Against::Time { floor } => {
                let floor = floor_of(floor)?;
                median(&ours.iter().zip(&floor).map(|(ours, floor)| ours - floor).collect::<Vec<_>>())
            }
            // A short run is not long enough for growth.
            Against::Few(_) if quick => None,
            Against::Few(few) => Some(median(&ours)? / median(&rounds(self.work, OURS, few)?)?),
        }
    }
}

const CT: Threads = Threads::One;
const MT: Threads = Threads::Two;
const M: usize = 1_000_000;
const K: usize = 1_000;

/// All targets that are about time.
pub const TARGETS: &[Target] = &[
    target("P1", spawn::JOIN, M, CT, [0.8, 0.6]).beside(JOIN_SET),
    target("P1", spawn::JOIN, M, MT, [1.05, 0.85]).beside(JOIN_SET),
    target("P1", spawn::OF_1000, 300 * K, CT, [0.8, 0.6]).beside(JOIN_SET),
    target("P1", spawn::OF_1000, 300 * K, MT, [1.05, 0.85]).beside(JOIN_SET),
    target("P1", spawn::OF_ONE, 100 * K, CT, [0.85, 0.75]).beside(JOIN_SET),
    target("P1", spawn::OF_FOUR, 50 * K, CT, [0.75, 0.65]).beside(JOIN_SET),
    target("P1", spawn::BY_TWO, M, MT, [0.9, 0.8]).beside(LOCKED_SET),
    target("P1", spawn::LOCAL, M, CT, [0.3, 0.2]).beside_work(spawn::JOIN, JOIN_SET),
    target("P2", storm::STORM, 100 * K, CT, [0.85, 0.7]).part(END).beside(TRACKER_AND_TOKEN),
    target("P2", storm::STORM, 100 * K, MT, [1.1, 0.7]).part(END).beside(TRACKER_AND_TOKEN),
    target("P2", storm::STORM, 100 * K, CT, [0.4, 0.3]).part(END).beside(SET_AND_CHILD_TOKENS),
    target("P2", storm::STORM, 100 * K, MT, [1.15, 0.8]).part(END).beside(SET_AND_CHILD_TOKENS),
    target("P2", storm::STORM, M, CT, [0.85, 0.7]).part(END).beside(TRACKER_AND_TOKEN),
    target("P2", storm::STORM, M, MT, [1.1, 0.7]).part(END).beside(TRACKER_AND_TOKEN),
    target("P2", storm::STORM, M, CT, [0.4, 0.3]).part(END).beside(SET_AND_CHILD_TOKENS),
    target("P2", storm::STORM, M, MT, [1.15, 0.8]).part(END).beside(SET_AND_CHILD_TOKENS),
    target("P2", storm::STORM, M, CT, [0.05, 0.001]).part(CANCEL).beside(TRACKER_AND_TOKEN),
    target("P4", scope::POLL, 2 * M, CT, [2.0, 1.0]).over(scope::POLL),
    target("P4", scope::POLL_8, 2 * M, CT, [14.0, 7.0]).over(scope::POLL),
    target("P4", scope::TURN, 200 * K, CT, [0.3, 0.2]).beside(TOKEN).over(scope::YIELD),
    target("P4", scope::TURN_BY_TWO, 200 * K, MT, [0.1, 0.05]).beside(TOKEN).over(scope::YIELD_BY_TWO),
    target("P5", scope::LOOK, 5 * M, CT, [1.0, 0.4]),
    target("P5", scope::LOOK_BY_TWO, 5 * M, CT, [1.0, 0.4]),
    target("P5", scope::CHILD, 300 * K, CT, [0.4, 0.3]).beside(TOKEN),
    target("P5", scope::CHILD_BY_TWO, 300 * K, MT, [0.25, 0.1]).beside(TOKEN),
    target("P5", scope::CLONE, 2 * M, CT, [0.4, 0.3]).beside(TOKEN),
    target("P6", shield::READY, 100 * K, CT, [0.08, 0.05]).beside(SPAWN),
    target("P6", shield::YIELD, 100 * K, CT, [0.1, 0.04]).beside(SPAWN).over(scope::YIELD),
    target("P6", shield::BORROWED, 100 * K, CT, [0.02, 0.01]).beside_work(shield::READY, SPAWN),
    target("P7", tree::TREE, 349_525, CT, [0.65, 0.5]).part(END).beside(SET_AND_CHILD_TOKENS),
    target("P7", tree::TREE, 349_525, CT, [1.0, 0.9]).part(SET_UP).beside(SET_AND_CHILD_TOKENS),
    target("P7", tree::TREE, 349_525, CT, [0.2, 0.1]).part(CANCEL).beside(SET_AND_CHILD_TOKENS),
    target("P8", deadline::READY, 100 * K, CT, [0.65, 0.1]).beside(deadline::TIMEOUT),
    target("P8", deadline::YIELD, 100 * K, CT, [0.6, 0.4]).beside(deadline::TIMEOUT).over(scope::YIELD),
    target("P8", deadline::YIELD, 100 * K, MT, [0.3, 0.12]).beside(deadline::TIMEOUT).over(scope::YIELD),
    target("P8", deadline::YIELD_BY_TWO, 100 * K, MT, [0.3, 0.12]).beside(deadline::TIMEOUT).over(scope::YIELD_BY_TWO),
    target("P8", deadline::YIELD_8, 100 * K, CT, [0.3, 0.15]).beside(deadline::TIMEOUT).over(scope::YIELD),
    // Linear means that a unit does not get dearer, but for what no longer fits into the caches.
    target("P9", spawn::JOIN, M, CT, [3.0, 2.0]).growth(K),
    target("P9", storm::STORM, M, CT, [3.0, 2.0]).part(END).growth(K),
    target("P9", tree::TREE, 349_525, CT, [3.0, 2.0]).part(END).growth(1_365),
    target("P9", storm::LIST, M, CT, [1_000.0, 500.0]).part(storm::LIST),
    target("P9", storm::LIST, M, CT, [1_000.0, 500.0]).part(storm::DUMP),
    target("P10", server::REQUEST, 20 * K, CT, [1.03, 1.01]).beside(BARE),
];

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use crate::plan::{PLAN, Sample};
    use crate::work::{self, OURS};

    /// Samples as a full run would give them, without running anything.
    fn samples() -> Vec<Sample> {
        let mut samples = Vec::new();
        for target in TARGETS {
            let groups = PLAN.iter().filter(|group| group.target == target.row && group.on.contains(&target.threads));
            for group in groups {
                let cases = work::all().into_iter().filter(|case| group.works.contains(&case.work));
                samples.extend(cases.map(|case| Sample {
                    target: target.row.to_owned(),
                    threads: target.threads,
                    allocator: "a".to_owned(),
                    n: group.n,
                    part: target.part.to_owned(),
                    rounds: vec![if case.by == OURS { 1.0 } else { 2.0 }; 3],
                    case: format!("{case:?}"),
                }));
            }
        }
        samples
    }

    #[test]
    fn every_target_is_measured_by_the_plan() {
        let samples = samples();
        for target in TARGETS {
            assert!(target.figure(&samples, "a", false).is_some(), "nothing measures {target:?}");
        }
    }

    #[test]
    fn a_ratio_is_that_of_the_middle_round() {
        let mut samples = samples();
        for sample in samples.iter_mut().filter(|sample| sample.case.ends_with(OURS)) {
            sample.rounds = vec![1.0, 1.0, 9.0];
        }
        assert_eq!(TARGETS[0].figure(&samples, "a", false), Some(0.5));
    }
}
