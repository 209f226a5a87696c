//! The tables of the laws in `CONFORMANCE.md` are complete, and right.

use std::fs;
use std::path::Path;

/// Each law has a row; what it names as its test exists, and each test of a law is named.
#[test]
fn every_law_has_a_test_or_the_rule_that_decides_otherwise() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let page = read(&root.join("tests/CONFORMANCE.md"));
    let section = page.split("\n## ").find(|section| section.starts_with("Laws")).expect("a section `## Laws`");
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| L"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let sources: String = fs::read_dir(root.join("tests/laws"))
        .expect("the laws lie there")
        .map(|entry| read(&entry.expect("it can be read").path()))
        .collect();
    let tests: Vec<&str> = sources
        .split("fn l")
        .skip(1)
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        .map(|rest| rest.split('(').next().unwrap_or_default())
        .collect();
    for number in 1..=39 {
        let name = format!("L{number}");
        let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("no row for {name}"));
        let is_name = |word: &&str| {
            word.starts_with("tests/")
                || word.strip_prefix('l').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let named: Vec<&str> = row[2].split('`').skip(1).step_by(2).filter(is_name).collect();
        let is_there = |test: &&str| tests.iter().any(|known| test.strip_prefix('l') == Some(*known));
        let is_file = |path: &&str| path.ends_with(".rs") && root.join(path).exists();
        assert!(named.iter().all(|test| is_there(test) || is_file(test)), "{name}: {named:?} is not all there");
        let rule = row[2].split(|c: char| !c.is_alphanumeric()).any(|word| {
            word.strip_prefix(['S', 'M'])
                .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit()))
        });
        assert!(!named.is_empty() || rule, "{name} has neither a test nor a rule");
    }
    let forgotten: Vec<_> = tests.iter().filter(|test| !section.contains(&format!("`l{test}`"))).collect();
    assert!(forgotten.is_empty(), "tests without a row: {forgotten:?}");
}

/// Each law of a shutdown has a row; what a row names is a test, and each test of such a law is named.
#[test]
fn every_law_and_demand_of_a_shutdown_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("tests/CONFORMANCE.md")).expect("it lies there");
    let section = page.split("\n## ").find(|section| section.starts_with("Shutdown")).expect("a section `## Shutdown`");
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .skip(1)
        .map(|line| line.trim_end_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let mut sources = String::new();
    ["tests/it", "tests/process", "src"].iter().for_each(|folder| read_all(&root.join(folder), &mut sources));
    let tests: Vec<&str> = sources.split("fn ").skip(1).filter_map(|rest| Some(rest.split_once('(')?.0)).collect();
    let shown: Vec<&str> = rows.iter().flat_map(|row| row[2].split('`').skip(1).step_by(2)).collect();
    for row in &rows {
        assert!(row.len() == 3 && row[2].contains('`'), "{row:?}");
    }
    let unknown: Vec<_> = shown.iter().filter(|test| !tests.contains(test)).collect();
    assert!(unknown.is_empty(), "no such tests: {unknown:?}");
    for law in 40..=51 {
        let row = rows.iter().find(|row| row[0] == format!("L{law}")).unwrap_or_else(|| panic!("no row for L{law}"));
        let forgotten: Vec<_> =
            tests.iter().filter(|test| test.starts_with(&format!("l{law}_")) && !row[2].contains(**test)).collect();
        assert!(forgotten.is_empty(), "tests of L{law} that its row does not name: {forgotten:?}");
    }
}

fn read_all(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            read_all(&path, into);
        } else {
            *into += &fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}
