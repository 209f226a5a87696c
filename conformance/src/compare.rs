//! Running a program on both sides, and finding the smallest one on which they differ.

use std::collections::BTreeMap;
use std::fmt;

use proptest::strategy::{Strategy, ValueTree};

use crate::program::{Program, Trace};
use crate::testudo_side;
use crate::trio_side::{Reply, Trio};

/// How often trio runs a program, each time with another order of what is ready at one instant.
pub(crate) const TRIO_SEEDS: u32 = 5;
/// The same for Testudo; seed 0 is the plain order.
const TESTUDO_SEEDS: u64 = 3;
/// Programs that are tried to make one smaller.
const SHRINKS_MAX: usize = 4_000;

/// What came of one program.
#[derive(Debug)]
pub(crate) enum Verdict {
    Equal,
    Skipped(String),
    Different(Box<Difference>),
}

#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) program: Program,
    pub(crate) seed: u64,
    pub(crate) trio: Trace,
    pub(crate) testudo: Trace,
}

/// Runs a program on both sides.
pub(crate) fn check(trio: &mut Trio, program: &Program) -> Result<Verdict, String> {
    let expected = match trio.ask(program, TRIO_SEEDS) {
        Ok(Reply::Trace(trace)) => trace,
        Ok(Reply::Skip(why)) => return Ok(Verdict::Skipped(why)),
        Ok(Reply::Error(why)) => return Err(why),
        Err(error) => return Err(format!("the interpreter of trio is gone: {error}")),
    };
    for seed in 0..TESTUDO_SEEDS {
        let found = testudo_side::run(program, seed);
        if found != expected {
            let program = program.clone();
            let difference = Difference { program, seed, trio: expected, testudo: found };
            return Ok(Verdict::Different(Box::new(difference)));
        }
    }
    Ok(Verdict::Equal)
}

/// Makes a program from `source`; if the two sides differ on it, finds a small one that shows the same.
pub(crate) fn check_and_shrink<S>(trio: &mut Trio, strategy: &S, source: &mut proptest::test_runner::TestRunner) -> Result<Verdict, String>
where
    S: Strategy<Value = Program>,
{
    let mut tree = strategy.new_tree(source).map_err(|reason| reason.to_string())?;
    let mut verdict = check(trio, &tree.current())?;
    if !matches!(verdict, Verdict::Different(_)) {
        return Ok(verdict);
    }
    let mut tries = 0;
    while tries < SHRINKS_MAX && tree.simplify() {
        loop {
            tries += 1;
            let smaller = check(trio, &tree.current())?;
            if matches!(smaller, Verdict::Different(_)) {
                verdict = smaller;
                break;
            }
            if !tree.complicate() {
                return Ok(verdict);
            }
        }
    }
    Ok(verdict)
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = serde_json::to_string(&self.program).map_err(|_| fmt::Error)?;
        writeln!(f, "{program}\nunder Testudo's order {} (- trio, + testudo):", self.seed)?;
        let mut instants: BTreeMap<u64, (Vec<String>, Vec<String>)> = BTreeMap::new();
        for (at, task, what) in &self.trio.events {
            instants.entry(*at).or_default().0.push(format!("{task}: {what}"));
        }
        for (at, task, what) in &self.testudo.events {
            instants.entry(*at).or_default().1.push(format!("{task}: {what}"));
        }
        for (at, (trio, testudo)) in instants {
            let (sign_a, sign_b) = if trio == testudo { (" ", None) } else { ("-", Some("+")) };
            writeln!(f, "  {sign_a} {at:>7} {}", trio.join(" | "))?;
            if let Some(sign) = sign_b {
                writeln!(f, "  {sign} {at:>7} {}", testudo.join(" | "))?;
            }
        }
        writeln!(f, "    reported: {:?} by trio, {:?} by testudo", self.trio.reported, self.testudo.reported)
    }
}
