//! Running a program on both sides, and finding the smallest one on which they differ.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::program::{Block, Op, Program, Trace, walk};
use crate::testudo_side;
use crate::trio_side::{Care, Reply, Trio};

/// How often Testudo runs a program, each time with another order of what is ready at one instant; seed 0 is the plain order.
const TESTUDO_SEEDS: u64 = 3;
/// Some thousand times as long as it takes.
const RUN_MAX: Duration = Duration::from_secs(60);
/// Programs that are tried to make one smaller.
const SHRINKS_MAX: usize = 4_000;

/// What came of one program.
#[derive(Debug)]
pub(crate) enum Verdict {
    Equal(Trace),
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
    let verdict = check_with(trio, program, Care::Usual)?;
    if !matches!(verdict, Verdict::Different(_)) {
        return Ok(verdict);
    }
    Ok(match check_with(trio, program, Care::Sure)? {
        Verdict::Skipped(why) => Verdict::Skipped(format!("{why}, after a difference")),
        Verdict::Equal(trace) => Verdict::Equal(trace),
        Verdict::Different(difference) => Verdict::Different(difference),
    })
}

fn check_with(trio: &mut Trio, program: &Program, care: Care) -> Result<Verdict, String> {
    let expected = match trio.ask(program, care) {
        Ok(Reply::Trace(trace)) => trace,
        Ok(Reply::Skip(why)) => return Ok(Verdict::Skipped(why)),
        Ok(Reply::Error(why)) => return Err(why),
        Err(error) => return Err(format!("the interpreter of trio is gone: {error}")),
    };
    let watched = Watched::new(program);
    for seed in 0..TESTUDO_SEEDS {
        let found = testudo_side::run(program, seed);
        if found != expected {
            let program = program.clone();
            let difference = Difference { program, seed, trio: expected, testudo: found };
            return Ok(Verdict::Different(Box::new(difference)));
        }
    }
    drop(watched);
    Ok(Verdict::Equal(expected))
}

/// A program that Testudo runs. One that never waits, and never ends, can not be given up: it ends the run.
struct Watched(#[expect(dead_code, reason = "its drop is the end")] Sender<()>);

impl Watched {
    #[expect(clippy::disallowed_methods, reason = "the thread that runs it does not come back")]
    fn new(program: &Program) -> Self {
        let (end, ended) = channel();
        let program = program.clone();
        std::thread::spawn(move || {
            if ended.recv_timeout(RUN_MAX) == Err(RecvTimeoutError::Timeout) {
                let program = serde_json::to_string(&program).unwrap_or_default();
                eprintln!("Testudo runs this for ever:\n{program}");
                std::process::exit(1);
            }
        });
        Self(end)
    }
}

/// Makes a program smaller for as long as the two sides still differ on it. Much smaller ones come first: an operation is gone, or in
/// its place stands what was inside it, or its time is short.
pub(crate) fn shrink(trio: &mut Trio, difference: Difference) -> Result<Difference, String> {
    let mut smallest = difference;
    let mut tries = 0;
    loop {
        let before = smallest.program.clone();
        for edit in [Edit::Remove, Edit::Hoist, Edit::Hurry] {
            let mut at = 0;
            while at < size(&smallest.program.body) && tries < SHRINKS_MAX {
                let mut program = smallest.program.clone();
                if !edit.apply(&mut program.body, &mut { at }) {
                    at += 1;
                    continue;
                }
                tries += 1;
                match check(trio, &program)? {
                    // What stands in this place now is tried next.
                    Verdict::Different(difference) => smallest = *difference,
                    Verdict::Equal(_) | Verdict::Skipped(_) => at += 1,
                }
            }
        }
        if smallest.program == before {
            return Ok(smallest);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Remove,
    Hoist,
    Hurry,
}

impl Edit {
    /// Edits the operation with that place in the order of the text; false if there is nothing to do.
    fn apply(self, block: &mut Block, at: &mut usize) -> bool {
        let mut index = 0;
        while index < block.len() {
            if *at == 0 {
                return self.apply_to(block, index);
            }
            *at -= 1;
            let inner = block[index].what.blocks();
            let inside: usize = inner.iter().map(|block| size(block)).sum();
            if *at < inside {
                return inner.into_iter().any(|block| self.apply_in(block, at));
            }
            *at -= inside;
            index += 1;
        }
        false
    }

    /// As `apply`, but goes past a block that does not reach so far.
    fn apply_in(self, block: &mut Block, at: &mut usize) -> bool {
        let inside = size(block);
        if *at < inside {
            let done = self.apply(block, at);
            *at = usize::MAX;
            return done;
        }
        *at = at.saturating_sub(inside);
        false
    }

    fn apply_to(self, block: &mut Block, index: usize) -> bool {
        match self {
            Self::Remove => {
                block.remove(index);
                true
            }
            Self::Hoist => {
                let inner: Block = block[index].what.blocks().into_iter().flat_map(std::mem::take).collect();
                let hoists = !inner.is_empty();
                block.splice(index..=index, inner);
                hoists
            }
            Self::Hurry => {
                let Op { id, what } = &mut block[index];
                what.hurry(u64::from(*id))
            }
        }
    }
}

fn size(block: &Block) -> usize {
    let mut count = 0;
    walk(&mut block.clone(), &mut |_, _| count += 1);
    count
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
