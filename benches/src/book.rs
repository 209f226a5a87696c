//! The book of instruction counts: what the last change left, and the bars that must not be lost again.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// Instructions for one unit of a case, by the name of the case.
pub type Counts = BTreeMap<String, f64>;

/// The file `benches/instructions.toml`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Book {
    /// The compiler, the C library and the tool: another one counts otherwise.
    pub made_with: String,
    /// By how much a count may differ, as a part of it.
    pub tolerance: f64,
    /// By how much a ratio to a peer may differ, if the book was made with something else.
    pub tolerance_elsewhere: f64,
    /// What each case needed.
    pub counts: Counts,
    /// What ours may need beside a peer.
    pub bar: Vec<Bar>,
}

/// What ours may need beside a peer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Bar {
    /// The name of our case.
    pub ours: String,
    /// The name of the peer's case.
    pub peer: String,
    /// What both need anyway, which counts for neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// The most that ours may be of the peer's.
    pub bar: f64,
    /// What would be better still.
    pub stretch: f64,
    /// It was met once, so it must be met from then on. Blessing never takes this back.
    pub met: bool,
}

impl Bar {
    /// Ours as a part of the peer's; none if a case is missing.
    pub fn ratio(&self, counts: &Counts) -> Option<f64> {
        let floor = self.over.as_ref().map_or(Some(0.0), |floor| counts.get(floor).copied())?;
        Some((counts.get(&self.ours)? - floor) / (counts.get(&self.peer)? - floor))
    }

    fn is_met_by(&self, counts: &Counts) -> bool {
        self.ratio(counts).is_some_and(|ratio| ratio <= self.bar)
    }
}

impl Book {
    /// Takes over what was counted, and which bars are met now.
    pub fn bless(&mut self, counts: Counts, made_with: String) {
        for bar in &mut self.bar {
            bar.met |= bar.is_met_by(&counts);
        }
        (self.counts, self.made_with) = (counts, made_with);
    }

    /// Says what is worse than it was, or better without being written down.
    pub fn faults(&self, now: &Counts, made_with: &str) -> Vec<String> {
        let mut faults = if made_with == self.made_with { self.moved(now) } else { self.moved_beside_peers(now) };
        let lost = self.bar.iter().filter(|bar| bar.met && !bar.is_met_by(now));
        faults.extend(lost.map(|bar| {
            let ratio = bar.ratio(now).unwrap_or(f64::NAN);
            format!("{}: {ratio:.2} x {}, and at most {} was met before", bar.ours, bar.peer, bar.bar)
        }));
        faults
    }

    fn moved(&self, now: &Counts) -> Vec<String> {
        let names = self.counts.keys().chain(now.keys().filter(|name| !self.counts.contains_key(*name)));
        names
            .filter_map(|name| match (self.counts.get(name), now.get(name)) {
                // A count of a few instructions moves by whole ones.
                (Some(old), Some(new)) if (new - old).abs() <= (old * self.tolerance).max(1.5) => None,
                (Some(old), Some(new)) => {
                    let word = if new > old { "worse" } else { "better" };
                    Some(format!("{name}: {word}, {new:.0} instead of {old:.0} instructions"))
                }
                (Some(_), None) => Some(format!("{name}: in the book, but not counted")),
                (None, _) => Some(format!("{name}: not in the book")),
            })
            .collect()
    }

    fn moved_beside_peers(&self, now: &Counts) -> Vec<String> {
        let ratios = self.bar.iter().map(|bar| (bar, bar.ratio(&self.counts), bar.ratio(now)));
        ratios
            .filter(|(_, old, new)| match (old, new) {
                (Some(old), Some(new)) => *new > old * (1.0 + self.tolerance_elsewhere),
                _ => true,
            })
            .map(|(bar, old, new)| format!("{} beside {}: {new:.2?} instead of {old:.2?}", bar.ours, bar.peer))
            .collect()
    }

    /// What was counted beside what was, as a table.
    pub fn table(&self, now: &Counts) -> String {
        let mut text = format!("{:<48}{:>10}{:>10}{:>12}\n", "instructions a unit", "before", "now", "now/before");
        for (name, new) in now {
            let (old, change) = match self.counts.get(name) {
                Some(old) => (format!("{old:.0}"), format!("{:.3}", new / old)),
                None => ("-".to_owned(), "-".to_owned()),
            };
            writeln!(text, "{name:<48}{old:>10}{new:>10.0}{change:>12}").expect("a string takes all");
        }
        writeln!(text, "\n{:<34}{:<52}{:>8}{:>6}{:>9}", "ours", "beside", "ratio", "bar", "stretch")
            .expect("a string takes all");
        for bar in &self.bar {
            let over = if bar.over.is_some() { ", over bare" } else { "" };
            let peer = format!("{}{over}", bar.peer);
            let ratio = bar.ratio(now).unwrap_or(f64::NAN);
            let met = if bar.is_met_by(now) { "met" } else { "not met" };
            writeln!(text, "{:<34}{peer:<52}{ratio:>8.2}{:>6}{:>9}  {met}", bar.ours, bar.bar, bar.stretch)
                .expect("a string takes all");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Bar, Book, Counts};

    fn counts(ours: f64, peer: f64) -> Counts {
        [("a / ours".to_owned(), ours), ("a / peer".to_owned(), peer), ("bare".to_owned(), 100.0)].into()
    }

    fn book(met: bool) -> Book {
        let over = Some("bare".to_owned());
        let bar = Bar { ours: "a / ours".into(), peer: "a / peer".into(), over, bar: 0.5, stretch: 0.4, met };
        let counts = counts(150.0, 200.0);
        Book { made_with: "x".into(), tolerance: 0.03, tolerance_elsewhere: 0.1, counts, bar: vec![bar] }
    }

    #[test]
    fn a_count_that_stays_is_no_fault() {
        assert_eq!(book(false).faults(&counts(153.0, 200.0), "x"), [""; 0]);
    }

    #[test]
    fn a_count_that_moves_either_way_is_a_fault() {
        assert_eq!(book(false).faults(&counts(156.0, 200.0), "x").len(), 1);
        assert_eq!(book(false).faults(&counts(144.0, 200.0), "x").len(), 1);
    }

    #[test]
    fn a_case_on_one_side_only_is_a_fault() {
        let mut now = counts(150.0, 200.0);
        now.insert("new".to_owned(), 1.0);
        now.remove("bare");
        assert_eq!(book(false).faults(&now, "x").len(), 2);
    }

    #[test]
    fn a_bar_that_was_met_is_enforced_and_another_is_not() {
        let now = counts(152.0, 200.0);
        assert_eq!(book(true).faults(&now, "x").len(), 1);
        assert_eq!(book(false).faults(&now, "x"), [""; 0]);
    }

    #[test]
    fn elsewhere_only_ratios_count() {
        assert_eq!(book(false).faults(&counts(300.0, 500.0), "y"), [""; 0]);
        assert_eq!(book(false).faults(&counts(160.0, 200.0), "y").len(), 1);
    }

    #[test]
    fn blessing_raises_what_is_met_and_never_lowers_it() {
        let mut book = book(false);
        book.bless(counts(150.0, 200.0), "y".to_owned());
        assert!(book.bar[0].met, "it is met now");
        book.bless(counts(190.0, 200.0), "y".to_owned());
        assert!(book.bar[0].met, "it was met once");
    }
}
