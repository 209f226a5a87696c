//! What the programs of a run did: which construct, in which place, with which end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::program::{Block, Op, Program, Trace, What};

/// How many programs have done a thing.
#[derive(Default)]
pub(crate) struct Census(BTreeMap<String, u64>);

impl Census {
    /// Counts what one program has done.
    pub(crate) fn add(&mut self, program: &Program, trace: &Trace) {
        let mut labels = Labels::default();
        labels.list(&program.body, Place::default());
        let done = trace.events.iter().filter_map(|(_, task, what)| labels.of(*task, what));
        for what in done.collect::<BTreeSet<_>>() {
            *self.0.entry(what).or_default() += 1;
        }
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>8} {what}"))
    }
}

/// What stands around an operation in its task.
#[derive(Clone, Default)]
struct Place {
    /// Scopes, nurseries and the task itself.
    around: Vec<u32>,
    is_shielded: bool,
}

/// The operations of a program, each with what it is called in the count.
#[derive(Default)]
struct Labels {
    ops: BTreeMap<u32, (What, Place)>,
}

impl Labels {
    fn list(&mut self, block: &Block, place: Place) {
        for Op { id, what } in block {
            self.ops.insert(*id, (what.clone(), place.clone()));
            let is_child = matches!(what, What::Spawn { .. } | What::Start { .. });
            let mut inside = if is_child { Place::default() } else { place.clone() };
            inside.around.push(*id);
            let mut what = what.clone();
            let is_shield = matches!(what, What::Shielded { .. });
            let blocks = what.blocks();
            // The second of two is a finalizer (or what a child does when it has started); of three, the one in the middle is open.
            let covered = match blocks.len() {
                1 => [is_shield, false, false],
                2 => [false, !is_child, false],
                _ => [true, false, true],
            };
            for (block, is_covered) in blocks.into_iter().zip(covered) {
                self.list(block, Place { is_shielded: inside.is_shielded || is_covered, ..inside.clone() });
            }
        }
    }

    /// What an event says, without the numbers of this program.
    fn of(&self, task: u32, what: &str) -> Option<String> {
        let (id, how) = match what.split_once(' ').and_then(|(id, how)| Some((id.parse().ok()?, how))) {
            Some((id, how)) => (id, how),
            None => (task, what),
        };
        let (op, place) = self.ops.get(&id)?;
        let several = if how.contains(',') { " several" } else { "" };
        let how = how.split('[').next().unwrap_or(how).trim_end_matches(|c: char| c.is_ascii_digit());
        Some(format!("{}: {how}{several}", self.label(op, place)))
    }

    fn label(&self, op: &What, place: &Place) -> String {
        let text = serde_json::to_value(op).expect("it is plain data");
        let kind = text["op"].as_str().expect("it has a kind");
        let is_on = |name: &str| text[name].as_bool() == Some(true);
        let target = ["target", "nursery"].iter().find_map(|name| text[name].as_u64());
        let target = target.and_then(|id| u32::try_from(id).ok()).map(|id| self.target(id, place));
        let time = ["timeout", "ms"].iter().find_map(|name| text.get(name)).and_then(serde_json::Value::as_u64);
        let facts = [
            (is_on("shield"), "shielded"),
            (is_on("on"), "up"),
            (text["on"] == false, "down"),
            (is_on("local"), "local"),
            (text["starts"] == false, "never starts"),
            (text["deadline"].is_u64(), "until"),
            (time == Some(0), "now"),
            (time.is_some_and(|ms| ms > 0) && kind != "sleep", "timed"),
            (place.is_shielded, "in a shield"),
        ];
        let facts = facts.into_iter().filter(|(is_true, _)| *is_true).map(|(_, fact)| fact.to_owned());
        let words: Vec<String> = [kind.to_owned()].into_iter().chain(target).chain(facts).collect();
        words.join(", ")
    }

    fn target(&self, id: u32, place: &Place) -> String {
        let what = match self.ops.get(&id) {
            Some((What::Scope { .. }, _)) => "scope",
            Some((What::Nursery { .. }, _)) => "nursery",
            _ => "task",
        };
        format!("{what} {}", if place.around.contains(&id) { "around" } else { "elsewhere" })
    }
}
