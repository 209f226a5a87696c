//! What is timed, and one run of it: rounds in which all that is compared takes turns.
//!
//! No harness of others is used: criterion and divan measure one case after the other, so a machine whose mood changes in between
//! decides. Here every case runs once in each round, and what is compared is the median over rounds of the ratio in a round.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::case::{one_thread, two_workers};
use crate::work::{self, deadline, scope, server, shield, spawn, storm, tree};

/// Where a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Threads {
    /// A current-thread runtime.
    One,
    /// A runtime with two workers, or two plain threads where the work says so.
    Two,
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "ct",
            Self::Two => "mt",
        })
    }
}

/// Works that take turns.
#[derive(Debug)]
pub struct Group {
    /// The row of the table of targets.
    pub target: &'static str,
    /// What takes turns.
    pub works: &'static [&'static str],
    /// How often, in a full run.
    pub n: usize,
    /// Where.
    pub on: &'static [Threads],
}

const ONE: &[Threads] = &[Threads::One];
const TWO: &[Threads] = &[Threads::Two];
const BOTH: &[Threads] = &[Threads::One, Threads::Two];

const fn group(target: &'static str, works: &'static [&'static str], n: usize, on: &'static [Threads]) -> Group {
    Group { target, works, n, on }
}

/// All that is timed.
pub const PLAN: &[Group] = &[
    group("P1", &[spawn::JOIN, spawn::LOCAL], 1_000_000, BOTH),
    group("P1", &[spawn::OF_1000], 300_000, BOTH),
    group("P1", &[spawn::OF_ONE], 100_000, BOTH),
    group("P1", &[spawn::OF_FOUR], 50_000, BOTH),
    group("P1", &[spawn::BY_TWO], 1_000_000, TWO),
    group("P2", &[storm::STORM], 100_000, BOTH),
    group("P2", &[storm::STORM], 1_000_000, BOTH),
    group("P4", &[scope::POLL, scope::POLL_8], 2_000_000, ONE),
    group("P4", &[scope::TURN, scope::YIELD], 200_000, BOTH),
    group("P4", &[scope::TURN_BY_TWO, scope::YIELD_BY_TWO], 200_000, TWO),
    group("P5", &[scope::LOOK, scope::LOOK_BY_TWO], 5_000_000, ONE),
    group("P5", &[scope::CHILD], 300_000, ONE),
    group("P5", &[scope::CHILD_BY_TWO], 300_000, TWO),
    group("P5", &[scope::CLONE], 2_000_000, ONE),
    group("P6", &[shield::READY, shield::YIELD, shield::BORROWED, scope::YIELD], 100_000, BOTH),
    group("P7", &[tree::TREE], 349_525, BOTH),
    group("P8", &[deadline::READY, deadline::YIELD, deadline::YIELD_8, scope::YIELD], 100_000, BOTH),
    group("P8", &[deadline::YIELD_BY_TWO, scope::YIELD_BY_TWO], 100_000, TWO),
    group("P8", &[deadline::YIELD_IN_PLAIN], 100_000, TWO),
    group("P9", &[spawn::JOIN, storm::STORM], 1_000, ONE),
    group("P9", &[spawn::JOIN, storm::STORM], 10_000, ONE),
    group("P9", &[spawn::JOIN, storm::STORM], 100_000, ONE),
    group("P9", &[spawn::JOIN, storm::STORM], 1_000_000, ONE),
    // Full trees of 5, 7 and 9 levels.
    group("P9", &[tree::TREE], 1_365, ONE),
    group("P9", &[tree::TREE], 21_845, ONE),
    group("P9", &[tree::TREE], 349_525, ONE),
    group("P9", &[storm::LIST], 1_000_000, ONE),
    group("P10", &[server::REQUEST], 20_000, BOTH),
];

/// How many units a round has: a short run has fewer.
pub fn units(n: usize, quick: bool) -> usize {
    if quick { (n / 20).max(1_000).min(n) } else { n }
}

/// How long one part of one case took, round by round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The row of the table of targets.
    pub target: String,
    /// Where it ran.
    pub threads: Threads,
    /// The allocator it ran with.
    pub allocator: String,
    /// How many units a round had.
    pub n: usize,
    /// The name of the case.
    pub case: String,
    /// The part of the case.
    pub part: String,
    /// Nanoseconds a unit, in the order of the rounds.
    pub rounds: Vec<f64>,
}

/// Runs one group: a round that does not count, then `rounds` of them.
pub fn measure(group: &Group, threads: Threads, allocator: &str, n: usize, rounds: usize) -> Vec<Sample> {
    let cases: Vec<_> = work::all().into_iter().filter(|case| group.works.contains(&case.work)).collect();
    let mut samples: Vec<Sample> = Vec::new();
    let rt = match threads {
        Threads::One => one_thread(),
        Threads::Two => two_workers(),
    };
    for round in 0..=rounds {
        for case in &cases {
            let laps = case.run(&rt, n);
            if round == 0 {
                continue;
            }
            for lap in laps.parts() {
                let (case, part) = (format!("{case:?}"), lap.part.to_owned());
                let time = nanoseconds(lap.time, n);
                if let Some(sample) = samples.iter_mut().find(|sample| sample.case == case && sample.part == part) {
                    sample.rounds.push(time);
                    continue;
                }
                let (target, allocator) = (group.target.to_owned(), allocator.to_owned());
                samples.push(Sample { target, threads, allocator, n, case, part, rounds: vec![time] });
            }
        }
    }
    samples
}

/// The one in the middle; none of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// For one of `n` units, with as many digits as mean anything.
fn nanoseconds(time: Duration, n: usize) -> f64 {
    (time.as_secs_f64() * 1e12 / n as f64).round() / 1e3
}
