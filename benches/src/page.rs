//! The page `docs/benchmarks.md`, made from the results of a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::book::Book;
use crate::plan::{Sample, Threads, median};
use crate::targets::{Against, TARGETS, Target};
use crate::work::OURS;
use crate::work::storm::{SET_AND_CHILD_TOKENS, STORM, TRACKER_AND_TOKEN};

/// What one run of the benchmark found out.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// The command that was run.
    pub command: String,
    /// Whether it was a short one, which tells no more than that it runs.
    pub quick: bool,
    /// The day.
    pub date: String,
    /// Processor, cores and system.
    pub machine: String,
    /// Compiler and crates.
    pub versions: String,
    /// The times.
    pub samples: Vec<Sample>,
    /// Live bytes for each parked child, by case.
    pub bytes: BTreeMap<String, f64>,
    /// Wake-ups a second of an idle runtime.
    pub idle: Option<f64>,
}

/// The allocator that the bars are about.
pub const FIRST: &str = "glibc";
/// The allocator that is shown beside it.
pub const SECOND: &str = "mimalloc";

/// A row of figures and bars: what, ours with the first and second allocator, bar, stretch.
struct Row {
    name: String,
    unit: &'static str,
    figures: [Option<f64>; 2],
    limits: [f64; 2],
}

impl Row {
    fn text(&self) -> Option<String> {
        let first = self.figures[0]?;
        let [bar, stretch] = self.limits;
        let met = if first <= stretch {
            "stretch"
        } else if first <= bar {
            "yes"
        } else {
            "**no**"
        };
        let shown =
            |figure: Option<f64>| figure.map_or("–".to_owned(), |figure| format!("{}{}", short(figure), self.unit));
        let figures = self.figures.map(shown).join(" | ");
        let unit = self.unit;
        Some(format!("| {} | {figures} | {}{unit} | {}{unit} | {met} |\n", self.name, short(bar), short(stretch)))
    }
}

/// The table of the bars, for what was measured.
pub fn targets(results: &Results, book: &Book) -> String {
    let mut text =
        "| what | ours, glibc | mimalloc | bar | stretch | met |\n|---|---:|---:|---:|---:|---|\n".to_owned();
    let timed = TARGETS.iter().map(|target| timed(target, results));
    let rows = timed.chain([bytes(results), idle(results)]).chain(book.bar.iter().map(|bar| Row {
        name: format!("instructions: {} beside {}{}", bar.ours, bar.peer, over(bar.over.is_some())),
        unit: "",
        figures: [bar.ratio(&book.counts), None],
        limits: [bar.bar, bar.stretch],
    }));
    text.extend(rows.filter_map(|row| row.text()));
    text
}

fn timed(target: &Target, results: &Results) -> Row {
    let (beside, unit) = match target.against {
        Against::Peer { work, by, floor } => {
            let work = if work == target.work { String::new() } else { format!("{work} / ") };
            (format!(" beside {work}{by}{}", over(floor.is_some())), "")
        }
        Against::Time { floor } => (over(floor.is_some()).to_owned(), " ns"),
        Against::Few(few) => (format!(", a unit beside one of {few}"), ""),
    };
    let Target { row, work, part, n, threads, .. } = target;
    let part = if part.is_empty() { String::new() } else { format!(", {part}") };
    Row {
        name: format!("{row} {threads}: {work}{part}, {n} units{beside}"),
        unit,
        figures: [FIRST, SECOND].map(|allocator| target.figure(&results.samples, allocator, results.quick)),
        limits: [target.bar, target.stretch],
    }
}

fn over(is_over: bool) -> &'static str {
    if is_over { ", over bare" } else { "" }
}

fn bytes(results: &Results) -> Row {
    let of = |by: &str| results.bytes.get(&format!("{STORM} / {by}"));
    let ratio = of(OURS).zip(of(TRACKER_AND_TOKEN)).map(|(ours, theirs)| ours / theirs);
    let name = format!("P3: live bytes of a parked child beside {TRACKER_AND_TOKEN}");
    Row { name, unit: "", figures: [ratio, None], limits: [0.8, 0.65] }
}

fn idle(results: &Results) -> Row {
    let name = "P11 mt: wake-ups of an idle runtime, 10,000 children with deadlines".to_owned();
    // A thread that lost its processor is not one that woke up; Linux counts a few of those all the same.
    Row { name, unit: "/s", figures: [results.idle, None], limits: [0.5, 0.0] }
}

/// Every figure, as nanoseconds a unit.
pub fn figures(results: &Results) -> String {
    let mut text =
        "| row | case | units | ct | mt | ct, mimalloc | mt, mimalloc |\n|---|---|---:|---:|---:|---:|---:|\n"
            .to_owned();
    let mut seen = Vec::new();
    for sample in &results.samples {
        let key = (&sample.target, &sample.case, &sample.part, sample.n);
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let cell = |threads: Threads, allocator: &str| {
            let same = |other: &&Sample| {
                (&other.target, &other.case, &other.part, other.n) == key
                    && other.threads == threads
                    && other.allocator == allocator
            };
            let times = results.samples.iter().find(same).map(|sample| sample.rounds.as_slice()).unwrap_or_default();
            let least = times.iter().copied().min_by(f64::total_cmp);
            least
                .zip(median(times))
                .map_or("–".to_owned(), |(least, middle)| format!("{} / {}", short(least), short(middle)))
        };
        let cells = [FIRST, SECOND]
            .map(|allocator| [Threads::One, Threads::Two].map(|threads| cell(threads, allocator)).join(" | "));
        let part = if sample.part.is_empty() { String::new() } else { format!(", {}", sample.part) };
        let Sample { target, case, n, .. } = sample;
        text += &format!("| {target} | {case}{part} | {n} | {} |\n", cells.join(" | "));
    }
    for (case, bytes) in &results.bytes {
        text += &format!("| P3 | {case}, live bytes | – | {} | – | – | – |\n", short(*bytes));
    }
    text
}

/// The whole page; `notes` is what was written by hand.
pub fn page(results: &Results, book: &Book, notes: &str) -> String {
    let Results { command, date, machine, versions, .. } = results;
    format!(
        "# Benchmarks\n\n\
         <!-- Made by `cargo xtask bench page` from benches/results.json, benches/instructions.toml and benches/notes.md. -->\n\n\
         Last run: {date}, with `{command}`.\n\n\
         - machine: {machine}\n\
         - versions: {versions}\n\
         - instructions: counted with {}\n\n\
         {notes}\n\
         ## Bars\n\n{}\n\
         ## All figures\n\nNanoseconds a unit, least / median of the rounds.\n\n{}",
        book.made_with,
        targets(results, book),
        figures(results),
    )
}

/// Three digits, no more than can be trusted.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 || size == 0.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The cases whose memory is measured.
pub const REMEMBERED: [&str; 3] = [OURS, TRACKER_AND_TOKEN, SET_AND_CHILD_TOKENS];

/// Makes the page anew from the files that it is made of.
///
/// # Errors
///
/// If one of them can not be read or written.
pub fn write() -> io::Result<()> {
    let page = here("../docs/benchmarks.md");
    fs::create_dir_all(here("../docs"))?;
    fs::write(page, from_files()?)
}

fn from_files() -> io::Result<String> {
    let results = serde_json::from_str(&fs::read_to_string(here("results.json"))?)?;
    let book = toml::from_str(&fs::read_to_string(here("instructions.toml"))?).map_err(io::Error::other)?;
    Ok(page(&results, &book, &fs::read_to_string(here("notes.md"))?))
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[cfg(test)]
mod tests {
    use super::{from_files, fs, here};

    #[test]
    fn the_page_is_what_the_results_give() {
        let old = fs::read_to_string(here("../docs/benchmarks.md")).expect("the page is there");
        let new = from_files().expect("the files were written by the benchmark");
        assert!(old == new, "run `cargo xtask bench page` and commit docs/benchmarks.md");
    }
}
