//! The tests against changed code: all changes are built into one copy of the library, and a switch chooses one.

mod build;
mod rewrite;
mod table;
mod trial;

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::proof::has;
use crate::{Result, cargo, root, target};
use build::Kind;
use rewrite::Change;
use table::{Fate, Known};
use trial::Verdict;

/// A change that the tests should see.
#[derive(Clone, Debug)]
struct Mutant {
    pub(super) file: String,
    /// What is changed where, without the line: the same as long as the function is.
    pub(super) name: String,
    /// The line, for people.
    pub(super) line: u64,
    /// The text of the function around it, as a number.
    pub(super) seal: u64,
    pub(super) change: Change,
}

const PLAIN: Kind =
    Kind { name: "plain", args: "--all-features --lib --test it --test conformance --test laws", flags: "" };
/// The models: they see what the others leave alive.
const LOOM: Kind = Kind { name: "loom", args: "--release --all-features --lib", flags: "--cfg testudo_loom" };

/// Runs the tests against each change in the files or folders that are named (all of `.cargo/mutants.toml` without), but for those
/// whose end is known from before. Fails if any is alive that `tests/mutants.md` does not explain.
pub(crate) fn mutants(options: &[&str]) -> Result {
    let (again, paths): (Vec<&str>, Vec<&str>) = options.iter().partition(|option| option.starts_with("--"));
    has("mutants", "cargo install --locked cargo-mutants")?;
    let mutants: Vec<Mutant> = list()?
        .into_iter()
        .filter(|mutant| paths.is_empty() || paths.iter().any(|p| mutant.file.starts_with(p)))
        .collect();
    let mut known = Known::load(target("mutants/known.jsonl"), again == ["--again"])?;
    run(PLAIN, &mutants, &mut known, |mutant, known| known.fate(mutant).is_none_or(|fate| fate == Fate::Alive))?;
    // A model takes long, and the other tests see nearly all.
    let core: Vec<Mutant> = mutants.iter().filter(|mutant| mutant.file.starts_with("src/core/")).cloned().collect();
    run(LOOM, &core, &mut known, |mutant, known| known.fate(mutant) == Some(Fate::Alive))?;
    table::report(&mutants, &known, &fs::read_to_string(root().join("tests/mutants.md"))?)
}

/// Builds a copy of one kind and runs its tests against those changes that are chosen.
fn run(kind: Kind, mutants: &[Mutant], known: &mut Known, is_chosen: impl Fn(&Mutant, &Known) -> bool) -> Result {
    if !mutants.iter().any(|mutant| is_chosen(mutant, known)) {
        return Ok(());
    }
    // Also those whose end is known: so the copy is the same the next time.
    let is_viable = |mutant: &&Mutant| !matches!(known.fate(mutant), Some(Fate::Unviable | Fate::Constant));
    let viable: Vec<Mutant> = mutants.iter().filter(is_viable).cloned().collect();
    let built = build::build(kind, &viable)?;
    let find = |id: usize| viable.iter().find(|mutant| mutant.change.id == id).expect("only these were built");
    // What only the models do not compile is still alive.
    if kind.name == PLAIN.name {
        built.unviable.iter().try_for_each(|&id| known.add(find(id), Fate::Unviable, ""))?;
        built.constant.iter().try_for_each(|&id| known.add(find(id), Fate::Constant, ""))?;
    }
    let is_left = |mutant: &&Mutant| {
        let id = mutant.change.id;
        !built.unviable.contains(&id) && !built.constant.contains(&id) && is_chosen(mutant, known)
    };
    let ids: Vec<usize> = viable.iter().filter(is_left).map(|mutant| mutant.change.id).collect();
    let tests = trial::measure(&built)?;
    println!("{} tests against {} changes", tests.len(), ids.len());
    let known = std::sync::Mutex::new(known);
    trial::judge(&built, &tests, &ids, |id, verdict| {
        let (fate, by) = match verdict {
            Verdict::Killed(by) => (Fate::Killed, by),
            Verdict::Hangs(by) => (Fate::ByTime, by),
            Verdict::Survived => (Fate::Alive, String::new()),
        };
        if fate == Fate::Alive {
            println!("alive: {}:{} {}", find(id).file, find(id).line, find(id).name);
        }
        known.lock().expect("nothing panics under it").add(find(id), fate, &by)
    });
    Ok(())
}

/// The changes of cargo-mutants.
fn list() -> Result<Vec<Mutant>> {
    let output = cargo("mutants --list --json").output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let found: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let (mut texts, mut names) = (BTreeMap::new(), BTreeMap::new());
    let mut mutants = Vec::new();
    for (id, value) in found.iter().enumerate() {
        let file = value["file"].as_str().ok_or("a mutant without a file")?;
        if !texts.contains_key(file) {
            texts.insert(file.to_owned(), fs::read_to_string(root().join(file))?);
        }
        let mut mutant = mutant(id, file, &texts[file], value).ok_or("a mutant that is not understood")?;
        // The same change of the same function in several places: they are counted.
        let count =
            names.entry((mutant.file.clone(), mutant.name.clone())).and_modify(|count| *count += 1).or_insert(1);
        if *count > 1 {
            mutant.name += &format!(" ({count})");
        }
        mutants.push(mutant);
    }
    // What all else stands on comes first.
    mutants.sort_by_key(|mutant| !mutant.file.starts_with("src/core/"));
    Ok(mutants)
}

fn mutant(id: usize, file: &str, text: &str, value: &Value) -> Option<Mutant> {
    let offset = |place: &Value| -> Option<usize> {
        let number = |key: &str| place[key].as_u64().and_then(|number| usize::try_from(number).ok());
        let (line, column) = (number("line")? - 1, number("column")? - 1);
        let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
        Some(before + text[before..].chars().take(column).map(char::len_utf8).sum::<usize>())
    };
    let range = |span: &Value| Some(offset(&span["start"])?..offset(&span["end"])?);
    let change = Change {
        id,
        is_body: value["genre"] == "FnValue",
        span: range(&value["span"])?,
        replacement: value["replacement"].as_str()?.to_owned(),
    };
    let function = range(&value["function"]["span"]).map_or(text, |function| &text[function]);
    let name = value["name"].as_str()?.splitn(4, ':').nth(3)?.trim();
    let line = value["span"]["start"]["line"].as_u64()?;
    Some(Mutant { file: file.to_owned(), name: name.to_owned(), line, seal: table::seal(function), change })
}
