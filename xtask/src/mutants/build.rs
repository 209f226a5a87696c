//! Builds a copy of the repository with all mutants in it, less those that do not compile.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use serde_json::Value;

use super::Mutant;
use super::rewrite::{Blame, blamed, rewrite};
use crate::{Result, root, shown, target};

/// How a copy is built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// The folder of the copy.
    pub(super) name: &'static str,
    /// What cargo is told, beyond `test --no-run`.
    pub(super) args: &'static str,
    pub(super) flags: &'static str,
}

/// The test programs, and what is not in them.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub(super) programs: Vec<Program>,
    pub(super) tree: PathBuf,
    pub(super) unviable: BTreeSet<usize>,
    pub(super) constant: BTreeSet<usize>,
}

/// A test program.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// How many rounds of taking out what does not compile: types, then borrows, then what only one of the crates shows.
const ROUNDS: usize = 12;

const SWITCH: &str = include_str!("switch.rs");

pub(super) fn build(kind: Kind, mutants: &[Mutant]) -> Result<Built> {
    let home = target("mutants").join(kind.name);
    let mut built = Built { tree: home.join("tree"), ..Built::default() };
    copy(&built.tree, mutants)?;
    for _ in 0..ROUNDS {
        let texts = write(&mut built, mutants)?;
        let messages = compile(kind, &home)?;
        let errors: Vec<_> = messages.iter().filter(|message| message["message"]["level"] == "error").collect();
        if errors.is_empty() {
            built.programs = messages.iter().filter_map(program).collect();
            return Ok(built);
        }
        let found: BTreeSet<usize> = errors.iter().flat_map(|error| guilty(&error["message"], &texts)).collect();
        println!("{} of the changes do not compile", found.len());
        if found.is_empty() {
            let text: String = errors.iter().filter_map(|error| error["message"]["rendered"].as_str()).collect();
            return Err(format!("{text}\nno change is to blame for this").into());
        }
        built.unviable.extend(found);
    }
    Err(format!("there are still errors after {ROUNDS} rounds").into())
}

/// Copies what git knows of, but for what is written with changes.
fn copy(tree: &Path, mutants: &[Mutant]) -> Result {
    let list = Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root()).output()?;
    let list = String::from_utf8(list.stdout)?;
    let is_changed = |file: &str| file == "src/lib.rs" || mutants.iter().any(|mutant| mutant.file == file);
    for file in list.lines().filter(|file| root().join(file).is_file() && !is_changed(file)) {
        put(&tree.join(file), &fs::read(root().join(file))?)?;
    }
    Ok(())
}

/// Writes a file. One that is the same keeps its time, so that it is not compiled again.
fn put(path: &Path, new: &[u8]) -> Result {
    if fs::read(path).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().expect("it lies in the tree"))?;
    Ok(fs::write(path, new)?)
}

/// Writes the files with their changes, but for those that do not compile, and the switch.
fn write(built: &mut Built, mutants: &[Mutant]) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    let files: BTreeSet<&String> = mutants.iter().map(|mutant| &mutant.file).collect();
    for file in files {
        let of_file =
            mutants.iter().filter(|mutant| mutant.file == *file && !built.unviable.contains(&mutant.change.id));
        let changes: Vec<_> = of_file.map(|mutant| mutant.change.clone()).collect();
        let rewritten = rewrite(&fs::read_to_string(root().join(file))?, &changes)?;
        built.constant.extend(rewritten.constant);
        put(&built.tree.join(file), rewritten.text.as_bytes())?;
        texts.insert(file.clone(), rewritten.text);
    }
    put(&built.tree.join("src/mutant.rs"), SWITCH.as_bytes())?;
    let root = fs::read_to_string(root().join("src/lib.rs"))?;
    put(&built.tree.join("src/lib.rs"), format!("{root}\nmod mutant;\n").as_bytes())?;
    Ok(texts)
}

/// What the compiler says, a message a line. An error of cargo itself ends it.
fn compile(kind: Kind, home: &Path) -> Result<Vec<Value>> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--no-run", "--message-format=json", "-q"]).args(kind.args.split(' '));
    command.current_dir(home.join("tree")).env("CARGO_TARGET_DIR", home.join("target")).env("RUSTFLAGS", kind.flags);
    println!("$ {}", shown(&command));
    let output = command.stderr(Stdio::inherit()).output()?;
    let messages: Vec<Value> =
        String::from_utf8(output.stdout)?.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    let is_said = messages.iter().any(|message| message["message"]["level"] == "error");
    if output.status.success() || is_said { Ok(messages) } else { Err("cargo has failed".into()) }
}

fn program(message: &Value) -> Option<Program> {
    let path = message["executable"].as_str()?;
    let is_lib = message["target"]["kind"][0] == "lib";
    let name = if is_lib { "lib" } else { message["target"]["name"].as_str()? };
    (message["profile"]["test"] == true).then(|| Program { name: name.into(), path: path.into() })
}

/// The changes that an error is due to: those at its main place; else those at the other places that it names, as where two ways have
/// not the same type; else those that its main place chooses from.
fn guilty(error: &Value, texts: &BTreeMap<String, String>) -> BTreeSet<usize> {
    let blame = |span: &Value| -> Option<Blame> {
        let text = texts.get(span["file_name"].as_str()?)?;
        let at = |key: &str| span[key].as_u64().and_then(|at| usize::try_from(at).ok());
        Some(blamed(text, &Range { start: at("byte_start")?, end: at("byte_end")? }))
    };
    let (main, others): (Vec<_>, Vec<_>) =
        error["spans"].as_array().into_iter().flatten().partition(|span| span["is_primary"] == true);
    let main: Vec<Blame> = main.into_iter().filter_map(blame).collect();
    let touched = |blames: &[Blame]| blames.iter().flat_map(|blame| blame.touched.clone()).collect::<BTreeSet<_>>();
    let others: Vec<Blame> = others.into_iter().filter_map(blame).collect();
    let asked = main.iter().flat_map(|blame| blame.asked.clone()).collect();
    [touched(&main), touched(&others), asked].into_iter().find(|ids| !ids.is_empty()).unwrap_or_default()
}
