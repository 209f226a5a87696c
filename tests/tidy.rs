//! Tidy is a test: the house rules that a program can check, each with its reason.
//!
//! A rule takes files and returns what it found. Each test first shows its rule a small bad and a
//! small good example, so that no rule can rot into one that never fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

struct File {
    /// Relative to the root folder, with `/`.
    path: String,
    text: String,
    /// `text` without the insides of comments and literals, line by line.
    code: String,
}

type Rule = fn(&[File]) -> Vec<String>;

impl File {
    fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { code(text) } else { text.to_owned() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    fn is_rust_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder) && self.path.ends_with(".rs")
    }

    /// Whether it is Rust that is not a test: the library, and the members beside it.
    fn is_code(&self) -> bool {
        let folders = ["src/", "macros/", "xtask/", "benches/", "adapters/"];
        folders.iter().any(|folder| self.is_rust_in(folder)) && !self.path.contains("/tests/")
    }

    /// Whether it is Rust whose docs are for users: the library, and the adapters beside it.
    fn is_public(&self) -> bool {
        self.is_code() && ["src/", "adapters/"].iter().any(|folder| self.is_rust_in(folder))
    }

    /// The place of the byte `at`, then `what`.
    fn fault(&self, at: usize, what: &str) -> String {
        let line = self.code[..at].matches('\n').count() + 1;
        format!("{}:{line}: {what}", self.path)
    }
}

// ---------------------------------------------------------------------------------------- rules

#[test]
fn every_file_begins_with_its_sentence() {
    fn rule(files: &[File]) -> Vec<String> {
        let rust = files.iter().filter(|file| file.is_code());
        rust.filter(|file| !file.text.starts_with("//! ")).map(|f| f.fault(0, "no `//!`")).collect()
    }
    let reason = "the first line of a file says what the file is for";
    enforce(reason, rule, &[("src/a.rs", "use b;")], &[("src/a.rs", "//! A.\nuse b;")]);
}

#[test]
fn the_code_map_says_what_the_files_say() {
    fn rule(files: &[File]) -> Vec<String> {
        let map = text_of(files, "ARCHITECTURE.md");
        let rust = files.iter().filter(|file| file.is_code());
        let code = rust.filter(|file| !file.path.contains("loom_tests"));
        code.map(|file| {
            let sentence = file.text.lines().next().unwrap_or_default();
            let sentence = sentence.trim_start_matches("//! ");
            format!("| `{}` | {sentence} |", file.path)
        })
        .filter(|line| !map.lines().any(|known| known == line))
        .map(|line| format!("ARCHITECTURE.md: no line `{line}`"))
        .collect()
    }
    let reason = "a map that differs from the country leads astray";
    let file = ("src/a.rs", "//! A.\nuse b;");
    enforce(
        reason,
        rule,
        &[file, ("ARCHITECTURE.md", "| `src/a.rs` | B. |")],
        &[file, ("ARCHITECTURE.md", "| `src/a.rs` | A. |")],
    );
}

#[test]
fn what_the_tables_offer_is_compiled() {
    fn rule(files: &[File]) -> Vec<String> {
        let guide = text_of(files, "src/lib.rs");
        let mut faults = Vec::new();
        for section in guide.split("//! # Coming from ").skip(1) {
            let mut parts = section.split("//! ```");
            let (table, program) = (parts.next(), parts.next().unwrap_or_default());
            let rows = table.into_iter().flat_map(str::lines);
            let cells = rows.filter_map(|row| row.strip_prefix("//! |")?.rsplit('|').nth(1));
            for link in cells.flat_map(|cell| cell.split("[`").skip(1)) {
                let name = link.split("`]").next().unwrap_or_default();
                let item = name.rsplit("::").next().unwrap_or(name);
                if words(program, item).next().is_none() {
                    faults.push(format!("src/lib.rs: `{name}` is not in the program"));
                }
            }
        }
        faults
    }
    let reason = "a table of names is right only as far as a program below it compiles";
    let section = "//! # Coming from a\n//! | a | b |\n//! |---|---|\n//! | `a` | [`b::c`] |\n";
    let (bad, good) = (format!("{section}//! ```\n//! d();\n//! ```"), format!("{section}//! ```\n//! c();\n//! ```"));
    enforce(reason, rule, &[("src/lib.rs", &bad)], &[("src/lib.rs", &good)]);
}

#[test]
fn cancelled_has_two_l() {
    fn rule(files: &[File]) -> Vec<String> {
        let one_l = concat!("ance", "led");
        // The examples print what Python prints, and their tests look for that line.
        let printed = concat!("Cance", "led!");
        let judged = files.iter().filter(|file| !file.path.starts_with("examples/"));
        judged
            .filter_map(|file| {
                let text = match file.path.starts_with("src/") {
                    true => file.text.clone(),
                    false => file.text.replace(printed, "=printed="),
                };
                let at = text.find(one_l)?;
                let line = text[..at].matches('\n').count() + 1;
                Some(format!("{}:{line}: write `cancelled`", file.path))
            })
            .collect()
    }
    let reason = "two spellings are two words for one thing";
    let bad = concat!("//! Was cance", "led.");
    enforce(reason, rule, &[("src/a.rs", bad)], &[("src/a.rs", "//! Was cancelled.")]);
    let printed = concat!("\"Cance", "led!\"");
    enforce(reason, rule, &[("src/a.rs", printed)], &[("tests/a.rs", printed)]);
}

#[test]
fn nothing_is_left_over() {
    fn rule(files: &[File]) -> Vec<String> {
        let words = ["todo!", "unimplemented!", "dbg!", "#[ignore"];
        let rust = files.iter().filter(|file| file.path.ends_with(".rs"));
        rust.flat_map(|file| words.iter().flat_map(|word| find(file, word))).collect()
    }
    let reason = "unfinished code does not pass; a test that is not run is worse than none";
    enforce(reason, rule, &[("src/a.rs", "fn a() { todo!() }")], &[("src/a.rs", "// todo!")]);
    enforce(reason, rule, &[("tests/a.rs", "#[ignore = \"x\"]")], &[("tests/a.rs", "#[test]")]);
}

#[test]
fn core_is_pure() {
    fn rule(files: &[File]) -> Vec<String> {
        // A nested `use std::{..}` would hide a name from this rule.
        let words = ["tokio", "std::time", "Instant", "signal", "std::{"];
        let core = files.iter().filter(|file| file.is_rust_in("src/core/"));
        core.flat_map(|file| words.iter().flat_map(|word| find(file, word))).collect()
    }
    let reason = "`core` is state: it knows no runtime, no clock, no signal";
    enforce(
        reason,
        rule,
        &[("src/core/a.rs", "use std::time::Instant;")],
        &[("src/core/a.rs", "// tokio\nuse std::task::Waker;"), ("src/a.rs", "use tokio::time;")],
    );
}

#[test]
fn core_takes_its_locks_from_one_file() {
    fn rule(files: &[File]) -> Vec<String> {
        let core = files.iter().filter(|file| file.is_rust_in("src/core/"));
        core.filter(|file| file.path != "src/core/sync.rs")
            .flat_map(|file| ["std::sync", "loom"].iter().flat_map(|word| find(file, word)))
            .collect()
    }
    let reason = "loom sees only what goes through `core/sync.rs`";
    let text = "use std::sync::Mutex;";
    enforce(reason, rule, &[("src/core/a.rs", text)], &[("src/core/sync.rs", text)]);
    enforce(reason, rule, &[("src/core/a.rs", "loom::model")], &[("src/core/a.rs", "loom_tests")]);
}

#[test]
fn each_model_stands_with_its_pair_of_operations() {
    fn rule(files: &[File]) -> Vec<String> {
        let table = text_of(files, "tests/CONFORMANCE.md").split("## Models").nth(1).unwrap_or_default();
        let table = table.split("\n## ").next().unwrap_or_default();
        let listed: BTreeSet<&str> = table.split('`').filter(|name| name.contains("::")).collect();
        let mut models = BTreeSet::new();
        for file in files.iter().filter(|file| file.is_rust_in("src/core/loom_tests/")) {
            let module = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
            let tests = file.code.split("#[test]\nfn ").skip(1);
            models.extend(tests.map(|test| format!("{module}::{}", word_at(test))));
        }
        let unlisted = models.iter().filter(|name| !listed.contains(name.as_str()));
        let unlisted = unlisted.map(|name| format!("tests/CONFORMANCE.md: no pair has `{name}`"));
        let gone = listed.iter().filter(|name| !models.contains(**name));
        unlisted.chain(gone.map(|name| format!("tests/CONFORMANCE.md: no model `{name}`"))).collect()
    }
    let reason = "a pair without a model is seen only in a complete table";
    let model = ("src/core/loom_tests/a.rs", "#[test]\nfn b() {}");
    let table = |text| ("tests/CONFORMANCE.md", text);
    enforce(reason, rule, &[model, table("## Models\n")], &[model, table("## Models\n| a x b | `a::b` |")]);
    enforce(reason, rule, &[table("## Models\n`a::b`")], &[table("## Models\n")]);
}

#[test]
fn headings_are_the_known_ones_in_order() {
    const KNOWN: [&str; 9] = [
        // What is not public says what holds inside it.
        "# Invariants",
        "# Lock order",
        "# Cancel safety",
        "# Shutdown",
        "# Drop",
        "# Panics",
        "# Errors",
        "# Safety",
        "# Examples",
    ];
    fn rule(files: &[File]) -> Vec<String> {
        let mut faults = Vec::new();
        for file in files.iter().filter(|file| file.is_public()) {
            let (mut in_code, mut last) = (false, None);
            for (number, line) in file.text.lines().enumerate() {
                let Some(doc) = line.trim_start().strip_prefix("///") else {
                    (in_code, last) = (false, None);
                    continue;
                };
                let doc = doc.trim();
                in_code ^= doc.starts_with("```");
                if in_code || !doc.starts_with('#') || doc.starts_with("#[") {
                    continue;
                }
                let place = KNOWN.iter().position(|known| *known == doc);
                if place.is_none() || place <= last {
                    faults.push(format!("{}:{}: `{doc}`", file.path, number + 1));
                }
                last = place;
            }
        }
        faults
    }
    let reason = "one list of headings, in one order, so that a reader can rely on them:\n\
                  Cancel safety, Shutdown, Drop, Panics, Errors, Safety, Examples;\n\
                  before them, in what is private: Invariants, Lock order";
    let good = "/// # Drop\n/// ```\n/// # hidden();\n/// ```\n/// # Examples\nfn a() {}";
    enforce(reason, rule, &[("src/a.rs", "/// # Cancellation")], &[("src/a.rs", good)]);
    let other_order = "/// # Examples\n/// A.\n/// # Drop\nfn a() {}";
    enforce(reason, rule, &[("src/a.rs", other_order)], &[("src/a.rs", "//! # Why")]);
}

#[test]
fn futures_say_what_dropping_them_loses() {
    fn rule(files: &[File]) -> Vec<String> {
        let src = || files.iter().filter(|file| file.is_public());
        let futures: BTreeSet<&str> = src()
            .flat_map(|file| file.code.split("Future for ").skip(1))
            .map(|rest| rest.split(|c| !is_word(c) && c != ':').next().unwrap_or_default())
            .map(|path| path.rsplit("::").next().unwrap_or(path))
            .collect();
        let mut faults = Vec::new();
        for file in src() {
            let asyncs = file.code.match_indices("pub async fn ").map(|(at, _)| at);
            let structs = file
                .code
                .match_indices("pub struct ")
                .filter_map(|(at, keyword)| futures.contains(word_at(&file.code[at + keyword.len()..])).then_some(at));
            for at in asyncs.chain(structs) {
                if !doc_above(file, at).contains("# Cancel safety") {
                    faults.push(file.fault(at, "no `# Cancel safety`"));
                }
            }
        }
        faults
    }
    let reason = "cancelling is dropping: the docs of every public future say what is lost";
    let good = "/// Waits.\n///\n/// # Cancel safety\n///\n/// Safe.\n#[inline]\npub async fn a() {}";
    enforce(reason, rule, &[("src/a.rs", "/// A.\npub async fn a() {}")], &[("src/a.rs", good)]);
    let named = "/// A.\npub struct A<T>(T);\nimpl<T> Future for super::A<T> {}";
    enforce(reason, rule, &[("src/a.rs", named)], &[("src/a.rs", "/// A.\npub struct A;")]);
}

#[test]
fn files_are_short() {
    const MAX: usize = 400;
    fn rule(files: &[File]) -> Vec<String> {
        let code = files.iter().filter(|file| file.is_code());
        code.map(|file| (file, lines(&file.code)))
            .filter(|(_, count)| *count > MAX)
            .map(|(file, count)| file.fault(0, &format!("{count} code lines, at most {MAX}")))
            .collect()
    }
    let (bad, good) = ("a();\n".repeat(MAX + 1), "a();\n// b\n".repeat(MAX));
    let reason = "one concept a file; split by concept";
    enforce(reason, rule, &[("src/a.rs", &bad)], &[("src/a.rs", &good)]);
}

#[test]
fn functions_are_short() {
    const MAX: usize = 60;
    fn rule(files: &[File]) -> Vec<String> {
        let code = files.iter().filter(|file| file.is_code());
        code.flat_map(|file| functions(&file.code).into_iter().map(move |range| (file, range)))
            .map(|(file, range)| (file, range.start, lines(&file.code[range])))
            .filter(|(_, _, count)| *count > MAX)
            .map(|(file, at, count)| file.fault(at, &format!("{count} code lines, at most {MAX}")))
            .collect()
    }
    let function = |count| format!("fn a(b: [u8; 2]) {{{}}}", "\na();".repeat(count) + "\n");
    let (bad, good) = (function(MAX + 1), function(MAX));
    let reason = "a function fits a screen: branch in the parent, straight lines in the helpers";
    enforce(reason, rule, &[("src/a.rs", &bad)], &[("src/a.rs", &good)]);
}

#[test]
fn functions_are_flat() {
    const MAX: usize = 6;
    fn rule(files: &[File]) -> Vec<String> {
        let code = files.iter().filter(|file| file.is_code());
        code.flat_map(|file| functions(&file.code).into_iter().map(move |range| (file, range)))
            .map(|(file, range)| (file, range.start, depth(&file.code[range]) + 1))
            .filter(|(_, _, depth)| *depth > MAX)
            .map(|(file, at, depth)| file.fault(at, &format!("{depth} braces deep, at most {MAX}")))
            .collect()
    }
    let function = |depth| format!("fn a() {}{}", "{".repeat(depth), "}".repeat(depth));
    let (bad, good) = (function(MAX + 1), function(MAX));
    let reason = "nobody keeps more levels in mind";
    enforce(reason, rule, &[("src/a.rs", &bad)], &[("src/a.rs", &good)]);
}

#[test]
fn tests_do_not_wait_for_real_time() {
    fn rule(files: &[File]) -> Vec<String> {
        let real = ["tests/process", "tests/stress", "tests/examples"];
        let tests = files.iter().filter(|file| file.is_rust_in("tests/"));
        tests
            .filter(|file| !real.iter().any(|folder| file.path.starts_with(folder)))
            .filter(|file| !file.code.contains("start_paused"))
            .flat_map(|file| find(file, "sleep("))
            .collect()
    }
    let reason = "a sleep is slow, flaky, and hides the order of events: use `start_paused`";
    let (bad, good) = ("sleep(a)", "#[testudo::test(start_paused = true)] sleep(a)");
    enforce(reason, rule, &[("tests/a.rs", bad)], &[("tests/a.rs", good)]);
    enforce(reason, rule, &[("tests/it/a.rs", bad)], &[("tests/process/a.rs", bad)]);
}

#[test]
fn examples_are_listed() {
    fn rule(files: &[File]) -> Vec<String> {
        let list = files.iter().find(|file| file.path == "examples/README.md");
        let list = list.map_or("", |file| &file.text);
        let rust = files.iter().filter(|file| file.is_rust_in("examples/"));
        rust.filter_map(|file| {
            // Either examples/NAME.rs or examples/NAME/main.rs, perhaps with modules beside it.
            let name = file.path.split('/').nth(1)?.trim_end_matches(".rs");
            (!list.contains(name)).then(|| format!("examples/README.md: `{name}` is missing"))
        })
        .collect()
    }
    let reason = "an example that nobody finds helps nobody";
    let (example, list) = (("examples/01_a.rs", ""), ("examples/README.md", "`01_a`: a"));
    enforce(reason, rule, &[example], &[example, list]);
}

#[test]
fn features_are_documented() {
    fn rule(files: &[File]) -> Vec<String> {
        let manifest = text_of(files, "Cargo.toml");
        let features = manifest.split("[features]").nth(1).unwrap_or_default();
        let features = features.lines().take_while(|line| !line.starts_with('['));
        let guide = text_of(files, "src/lib.rs").split("//! # Crate features").nth(1);
        let guide = guide.and_then(|rest| rest.split("//! # ").next()).unwrap_or_default();
        features
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
            .filter(|name| *name != "default" && !guide.contains(&format!("`{name}`")))
            .map(|name| format!("src/lib.rs: no `{name}` under `# Crate features`"))
            .collect()
    }
    let reason = "a feature that is not in the guide does not exist for its reader";
    let manifest = ("Cargo.toml", "[features]\ndefault = []\n# B.\nb = []\n[dependencies]\nc = 1");
    let (bad, good) = ("//! `b`", "//! # Crate features\n//!\n//! - `b`: b");
    enforce(reason, rule, &[manifest, ("src/lib.rs", bad)], &[manifest, ("src/lib.rs", good)]);
}

#[test]
fn the_rust_version_stands_once() {
    fn rule(files: &[File]) -> Vec<String> {
        let manifest = text_of(files, "Cargo.toml");
        let version = manifest.split("rust-version = \"").nth(1).and_then(|s| s.split('"').next());
        let Some(version) = version else {
            return vec!["Cargo.toml: no `rust-version`".to_owned()];
        };
        let configs = files.iter().filter(|file| file.path.ends_with(".toml"));
        let count: usize = configs.map(|file| words(&file.text, version).count()).sum();
        if count == 1 { vec![] } else { vec![format!("`{version}` stands {count} times")] }
    }
    let reason = "a fact in two places is wrong in one of them";
    let manifest = ("Cargo.toml", "rust-version = \"1.85\"");
    enforce(reason, rule, &[manifest, ("clippy.toml", "msrv = \"1.85\"")], &[manifest]);
}

#[test]
fn every_source_file_is_compiled() {
    fn rule(files: &[File]) -> Vec<String> {
        let src: BTreeMap<&str, &File> =
            files.iter().filter(|file| file.is_rust_in("src/")).map(|file| (file.path.as_str(), file)).collect();
        let (mut seen, mut next) = (BTreeSet::new(), vec!["src/lib.rs".to_owned()]);
        while let Some(path) = next.pop() {
            let Some(file) = src.get(path.as_str()) else {
                continue;
            };
            if !seen.insert(path.clone()) {
                continue;
            }
            let folder = path.trim_end_matches(".rs");
            let folder = folder.trim_end_matches("/lib").trim_end_matches("/mod");
            let modules = words(&file.code, "mod").map(|at| &file.code[at + "mod".len()..]);
            for name in modules.map(|rest| word_at(rest.trim_start())) {
                next.extend([format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")]);
            }
        }
        src.keys().filter(|path| !seen.contains(**path)).map(|path| (*path).to_owned()).collect()
    }
    let reason = "no `mod` leads to this file: the compiler never sees it";
    let (lib, sub) = (("src/lib.rs", "pub(crate) mod a;"), ("src/a/mod.rs", "mod b;"));
    let end = ("src/a/b.rs", "");
    enforce(reason, rule, &[lib, end], &[lib, sub, end]);
}

#[test]
fn the_version_is_in_the_change_log_once() {
    fn rule(files: &[File]) -> Vec<String> {
        let version = env!("CARGO_PKG_VERSION");
        let count = words(text_of(files, "CHANGELOG.md"), version).count();
        if count == 1 { vec![] } else { vec![format!("CHANGELOG.md: `{version}` {count} times")] }
    }
    let reason = "a release has one entry in the change log";
    let good = concat!("## ", env!("CARGO_PKG_VERSION"), "\n");
    enforce(reason, rule, &[("CHANGELOG.md", "")], &[("CHANGELOG.md", good)]);
}

// -------------------------------------------------------------------------------------- helpers

/// Shows that `rule` can fail and can pass, then applies it to the repository.
#[track_caller]
fn enforce(reason: &str, rule: Rule, bad: &[(&str, &str)], good: &[(&str, &str)]) {
    let files = |of: &[(&str, &str)]| -> Vec<File> { of.iter().map(|(path, text)| File::new(path, text)).collect() };
    assert!(!rule(&files(bad)).is_empty(), "the rule does not see what is wrong in {bad:?}");
    assert_eq!(rule(&files(good)), [""; 0], "the rule refuses {good:?}");
    let faults = rule(&repository());
    assert!(faults.is_empty(), "{reason}\n\n{}\n", faults.join("\n"));
}

/// Every text file that is ours.
fn repository() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut folders) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository can be read") {
            let path = entry.expect("an entry of the repository can be read").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if [".rs", ".md", ".toml"].iter().any(|end| name.ends_with(end)) {
                let text = fs::read_to_string(&path).expect("a source file can be read");
                let inside = path.strip_prefix(root).expect("the walk began at the root");
                files.push(File::new(&inside.to_string_lossy().replace('\\', "/"), &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn text_of<'a>(files: &'a [File], path: &str) -> &'a str {
    files.iter().find(|file| file.path == path).map_or("", |file| &file.text)
}

/// The faults for each place where the code of `file` names `word`.
fn find(file: &File, word: &str) -> Vec<String> {
    words(&file.code, word).map(|at| file.fault(at, &format!("`{word}`"))).collect()
}

/// Where `word` stands in `text` as a word of its own.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let starts = !word.starts_with(is_word) || !text[..at].ends_with(is_word);
        starts && (!word.ends_with(is_word) || !text[at + word.len()..].starts_with(is_word))
    })
}

fn word_at(text: &str) -> &str {
    text.split(|c| !is_word(c)).next().unwrap_or_default()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The documentation and attributes right above the item at `at`.
fn doc_above(file: &File, at: usize) -> String {
    let item = file.code[..at].matches('\n').count();
    let lines: Vec<_> = file.text.lines().zip(file.code.lines()).take(item).collect();
    let above = lines
        .iter()
        .rev()
        .take_while(|(text, code)| !text.trim().is_empty() && !code.trim_end().ends_with(['{', '}', ';']));
    above.map(|(text, _)| format!("{text}\n")).collect()
}

fn lines(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

fn depth(code: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for c in code.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// What is between the braces of each function with a body.
fn functions(code: &str) -> Vec<std::ops::Range<usize>> {
    words(code, "fn")
        .filter(|at| code[at + 2..].trim_start().starts_with(is_word))
        .filter_map(|at| {
            let start = at + body(&code[at..])? + 1;
            let mut depth = 1;
            let end = code[start..].find(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                depth == 0
            })?;
            Some(start..start + end)
        })
        .collect()
}

/// Where the body of a function begins: the first `{` outside of brackets; a `;` means none.
fn body(function: &str) -> Option<usize> {
    let mut brackets = 0;
    let at = function.find(|c| {
        brackets += i32::from("([".contains(c)) - i32::from(")]".contains(c));
        brackets == 0 && "{;".contains(c)
    })?;
    function[at..].starts_with('{').then_some(at)
}

/// Rust source with the insides of comments and literals blanked out, newlines kept.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after_word = code.ends_with(is_word);
        let length = opaque(rest, after_word).unwrap_or(c.len_utf8());
        let (token, tail) = rest.split_at(length);
        if length == c.len_utf8() {
            code.push(c);
        } else if token.starts_with('/') {
            code.extend(token.chars().filter(|c| *c == '\n'));
        } else {
            code.push('"');
            code.extend(token.chars().filter(|c| *c == '\n'));
            code.push('"');
        }
        rest = tail;
    }
    code
}

/// The length of the comment or literal at the beginning of `text`, if there is one.
fn opaque(text: &str, after_word: bool) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(text.find("*/").map_or(text.len(), |end| end + 2));
    }
    if text.starts_with('r') && !after_word {
        let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
        let inside = text[1 + hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(2 + hashes + inside.find(&end)? + end.len());
    }
    let quote = text.chars().next().filter(|c| "\"'".contains(*c))?;
    if quote == '\'' && !text[1..].starts_with('\\') && text.chars().nth(2) != Some('\'') {
        return None; // A lifetime.
    }
    let mut escaped = false;
    let end = text[1..].find(|c| {
        let closes = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    })?;
    Some(end + 2)
}

#[test]
fn only_code_is_code() {
    let text = "a<'b>('\\'', '\"', \"// c\\\"\", r#\"d\"e\"#); // f\n/* g\n*/ h \"\ni\"";
    assert_eq!(code(text), "a<'b>(\"\", \"\", \"\", \"\"); \n\n h \"\n\"");
    let text = "fn a(); fn b(c: fn(d)) -> [u8; 2] where e: F {g{h}}";
    let bodies: Vec<&str> = functions(text).into_iter().map(|range| &text[range]).collect();
    assert_eq!(bodies, ["g{h}"]);
}
