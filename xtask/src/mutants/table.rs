//! What became of each mutant, kept from one run to the next, and the table of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Mutant;
use crate::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It does not compile.
    Unviable,
    /// It changes what is computed when the library is compiled, where no switch can be.
    Constant,
    /// A test fails.
    Killed,
    /// A test does not end.
    ByTime,
    Alive,
}

const FATES: [(Fate, &str); 5] = [
    (Fate::Unviable, "unviable"),
    (Fate::Constant, "constant"),
    (Fate::Killed, "killed"),
    (Fate::ByTime, "by time"),
    (Fate::Alive, "alive"),
];

impl Fate {
    fn text(self) -> &'static str {
        FATES.iter().find(|(fate, _)| *fate == self).map_or("", |(_, text)| text)
    }
}

/// What is known from earlier runs, by file, name and seal; each line of its file is one mutant, the last one counts.
#[derive(Debug)]
pub(super) struct Known {
    fates: BTreeMap<(String, String, u64), Fate>,
    file: File,
}

impl Known {
    pub(super) fn load(path: PathBuf, anew: bool) -> Result<Self> {
        fs::create_dir_all(path.parent().expect("it lies in the target folder"))?;
        let text = if anew { String::new() } else { fs::read_to_string(&path).unwrap_or_default() };
        let file = OpenOptions::new().create(true).append(!anew).write(true).truncate(anew).open(path)?;
        let mut known = Self { fates: BTreeMap::new(), file };
        for line in text.lines() {
            let line: Value = serde_json::from_str(line)?;
            let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            let fate = FATES.iter().find(|(_, text)| *text == word("fate")).ok_or("an unknown end of a mutant")?.0;
            known.fates.insert((word("file"), word("name"), line["seal"].as_u64().unwrap_or_default()), fate);
        }
        Ok(known)
    }

    /// What has become of it, if it and the function around it are as they were.
    pub(super) fn fate(&self, mutant: &Mutant) -> Option<Fate> {
        self.fates.get(&(mutant.file.clone(), mutant.name.clone(), mutant.seal)).copied()
    }

    pub(super) fn add(&mut self, mutant: &Mutant, fate: Fate, by: &str) -> Result {
        let Mutant { file, name, line, seal, .. } = mutant;
        self.fates.insert((file.clone(), name.clone(), *seal), fate);
        let text = json!({ "file": file, "line": line, "name": name, "seal": seal, "fate": fate.text(), "by": by });
        Ok(writeln!(self.file, "{text}")?)
    }
}

/// A number for a text.
pub(super) fn seal(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Prints the table of `tests/mutants.md`, and what is alive without being explained there.
pub(super) fn report(mutants: &[Mutant], known: &Known, explained: &str) -> Result {
    // What is listed as open is not explained.
    let explained = explained.split("\n## Open").next().unwrap_or_default();
    let is_explained = |mutant: &Mutant| explains(explained, &mutant.file, &mutant.name);
    let files: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.file.as_str()).collect();
    println!(
        "\n| File | Changes | Unviable | Constant | Killed | By time | Explained | Open |\n|---|---|---|---|---|---|---|---|"
    );
    for file in files.iter().copied().chain([""]) {
        let of_file = || mutants.iter().filter(move |mutant| mutant.file.starts_with(file));
        let count = |fate: Fate| of_file().filter(|mutant| known.fate(mutant) == Some(fate)).count();
        let explained =
            of_file().filter(|mutant| known.fate(mutant) == Some(Fate::Alive) && is_explained(mutant)).count();
        let open =
            of_file().filter(|mutant| known.fate(mutant).is_none_or(|fate| fate == Fate::Alive)).count() - explained;
        let counts = [Fate::Unviable, Fate::Constant, Fate::Killed, Fate::ByTime].map(count);
        let [unviable, constant, killed, by_time] = counts;
        let name = if file.is_empty() { "all".to_owned() } else { format!("`{}`", &file["src/".len()..]) };
        let all = of_file().count();
        println!("| {name} | {all} | {unviable} | {constant} | {killed} | {by_time} | {explained} | {open} |");
    }
    let is_open = |mutant: &&Mutant| known.fate(mutant).is_none_or(|fate| fate == Fate::Alive) && !is_explained(mutant);
    let open: Vec<_> = mutants.iter().filter(is_open).collect();
    for mutant in &open {
        println!("open: {}:{} {}", mutant.file, mutant.line, mutant.name);
    }
    if open.is_empty() { Ok(()) } else { Err(format!("{} mutants are alive and not explained", open.len()).into()) }
}

/// True if a row of the list names the mutant: its file, without `src`, and its name, in backticks.
fn explains(list: &str, file: &str, name: &str) -> bool {
    let file = format!("`{}`", file.trim_start_matches("src/"));
    let name = format!("`{}`", name.replace('|', "\\|"));
    list.lines().any(|line| line.contains(&file) && line.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_explains_the_mutant_that_it_names_and_no_other() {
        let list = "| `core/a.rs` | `replace \\| with & in f` | why |";
        assert!(explains(list, "src/core/a.rs", "replace | with & in f"));
        assert!(!explains(list, "src/core/a.rs", "replace | with & in f (2)"));
        assert!(!explains(list, "src/core/b.rs", "replace | with & in f"));
    }
}
