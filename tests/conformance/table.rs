//! `tests/CONFORMANCE.md` against the ports: each row has its test or a reason, each port its row, and the figures are right.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const ORIGINS: [&str; 4] = ["trio", "asyncio", "aiorun", "anyio"];

/// The ports by path, with their documentation in one line.
type Ports = BTreeMap<String, String>;

/// A line of a table of an origin.
#[derive(Debug)]
struct Row<'a> {
    origin: &'static str,
    name: &'a str,
    test: &'a str,
    verdict: Verdict<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    Same,
    Differs(&'a str),
    NotPortable(&'a str),
    Unknown(&'a str),
}

impl<'a> Verdict<'a> {
    fn of(text: &'a str) -> Self {
        match (text, text.strip_prefix("differs: "), text.strip_prefix("can not exist: ")) {
            ("same", ..) => Self::Same,
            (_, Some(rule), _) => Self::Differs(rule),
            (.., Some(reason)) => Self::NotPortable(reason),
            _ => Self::Unknown(text),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where an origin's section is in the page; other sections belong to others.
fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let sections = page.split("\n## ").skip(1);
    let of_title = |section: &&str| section.lines().next() == Some(title);
    sections.filter(of_title).map(|section| &section[title.len()..]).next().unwrap_or_default()
}

/// The cells of all lines of tables, without heads.
fn cells(section: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    lines.map(|line| line.split(" | ").collect::<Vec<_>>()).filter(|cells| cells[0] != "origin")
}

fn rows(page: &str) -> Vec<Row<'_>> {
    let of_origin = |origin: &'static str| {
        cells(section(page, origin)).map(move |cells| {
            let [name, test, verdict] = cells[..] else { panic!("{origin}: not three cells: {cells:?}") };
            let (name, test) = (name.trim_matches('`'), test.trim_matches('`'));
            Row { origin, name, test, verdict: Verdict::of(verdict) }
        })
    };
    ORIGINS.into_iter().flat_map(of_origin).collect()
}

/// Adds the tests of a source file: `test_*` functions, also those in a module of the file.
fn add_ports(ports: &mut Ports, module: &str, source: &str) {
    let (mut inner, mut doc, mut is_test) = (String::new(), String::new(), false);
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(" {")) {
            inner = format!("::{name}");
        }
        let line = line.trim_start();
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn test_");
        if let Some(text) = line.strip_prefix("///") {
            doc.push_str(text);
        } else if line.starts_with("#[") {
            is_test |= line.contains("test]") || line.contains("test(");
        } else if let Some(name) = function.filter(|_| is_test) {
            let name = name.split('(').next().unwrap_or_default();
            ports.insert(format!("{module}{inner}::test_{name}"), std::mem::take(&mut doc));
        }
        if !line.starts_with("///") && !line.starts_with("#[") {
            (doc, is_test) = (String::new(), false);
        }
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

fn ports() -> Ports {
    let (mut ports, folder) = (Ports::new(), root().join("tests/conformance"));
    for path in sources(&folder) {
        let module = path.strip_prefix(&folder).unwrap().with_extension("");
        let module: Vec<_> = module.iter().map(|part| part.to_str().unwrap()).collect();
        add_ports(&mut ports, &module.join("::"), &fs::read_to_string(&path).unwrap());
    }
    let signals = fs::read_to_string(root().join("tests/process/ported.rs")).unwrap();
    add_ports(&mut ports, "process::ported", &signals);
    ports
}

/// What is wrong with one row.
fn faults_of(row: &Row<'_>, ports: &Ports) -> Option<&'static str> {
    let port = ports.get(row.test);
    let says_differs = port.is_some_and(|doc| doc.to_lowercase().contains("differs ("));
    match row.verdict {
        Verdict::Unknown(_) => Some("no verdict"),
        Verdict::NotPortable(reason) if reason.len() < 8 => Some("no reason"),
        Verdict::NotPortable(_) => (row.test != "none").then_some("it can not exist, and has a test"),
        Verdict::Same | Verdict::Differs(_) if port.is_none() => Some("no such test"),
        Verdict::Same | Verdict::Differs(_) if row.test.rsplit("::").next() != Some(row.name) => Some("another name"),
        Verdict::Same => says_differs.then_some("its test says that it differs"),
        Verdict::Differs(rule) if !rule.contains('S') => Some("no rule"),
        Verdict::Differs(_) => (!says_differs).then_some("its test does not say that it differs"),
    }
}

/// Ports without a row, and with several.
fn faults_of_ports(rows: &[Row<'_>], ports: &Ports) -> Vec<String> {
    let count = |path: &str| rows.iter().filter(|row| row.test == path).count();
    ports.keys().filter(|path| count(path) != 1).map(|path| format!("{path}: not in one row")).collect()
}

/// A line of the figures: rows, same, differs, not portable.
fn figures(rows: &[Row<'_>], origin: &str) -> String {
    let of_origin: Vec<_> = rows.iter().filter(|row| origin == "all" || row.origin == origin).collect();
    let count = |is: fn(&Verdict<'_>) -> bool| of_origin.iter().filter(|row| is(&row.verdict)).count();
    let same = count(|verdict| matches!(verdict, Verdict::Same));
    let differs = count(|verdict| matches!(verdict, Verdict::Differs(_)));
    let not_portable = count(|verdict| matches!(verdict, Verdict::NotPortable(_)));
    format!("| {origin} | {} | {same} | {differs} | {not_portable} |", of_origin.len())
}

/// Everything that is wrong with the page.
fn faults(page: &str, ports: &Ports) -> Vec<String> {
    let rows = rows(page);
    let stated = section(page, "Figures");
    let lines = ORIGINS.into_iter().chain(["all"]).map(|origin| figures(&rows, origin));
    let wrong = lines.filter(|line| !stated.lines().any(|stated| stated == line));
    let wrong = wrong.map(|line| format!("figures: should have `{line}`"));
    let bad = rows.iter().filter_map(|row| Some(format!("{}: {}: {}", row.origin, row.name, faults_of(row, ports)?)));
    bad.chain(faults_of_ports(&rows, ports)).chain(wrong).collect()
}

#[test]
fn the_page_is_right() {
    let page = fs::read_to_string(root().join("tests/CONFORMANCE.md")).unwrap();
    let found = faults(&page, &ports());
    assert!(found.is_empty(), "tests/CONFORMANCE.md:\n  {}", found.join("\n  "));
}

/// A page with one row, and figures that are right for it.
fn page(row: &str) -> String {
    let page =
        format!("# Conformance\n\n## Figures\n\n@\n## trio\n\n| origin | test | verdict |\n|---|---|---|\n{row}\n");
    let rows = rows(&page);
    let lines: String = ORIGINS.into_iter().chain(["all"]).map(|origin| figures(&rows, origin) + "\n").collect();
    page.replace('@', &lines)
}

#[test]
fn a_wrong_page_is_seen() {
    let source = "/// Same.\n#[test]\nfn test_a() {}\n/// Differs (S1).\n#[testudo::test(start_paused = true)]\nasync fn test_b() {}\nfn test_not() {}";
    let ported = |names: &[&str]| {
        let mut ports = Ports::new();
        add_ports(&mut ports, "trio", source);
        ports.retain(|path, _| names.contains(&path.as_str()));
        ports
    };
    let cases: [(&str, &[&str], &str); 11] = [
        ("| `test_a` | `trio::test_a` | same |", &["trio::test_a"], ""),
        ("| `test_b` | `trio::test_b` | differs: S1; why |", &["trio::test_b"], ""),
        ("| `test_c` | none | can not exist: no such thing |", &[], ""),
        ("| `test_a` | `trio::test_a` | same |", &[], "no such test"),
        ("| `test_n` | `trio::test_not` | same |", &["trio::test_not"], "no such test"),
        ("| `test_a` | `trio::test_a` | perhaps |", &["trio::test_a"], "no verdict"),
        ("| `test_c` | none | can not exist: no |", &[], "no reason"),
        ("| `test_x` | `trio::test_a` | same |", &["trio::test_a"], "another name"),
        ("| `test_b` | `trio::test_b` | same |", &["trio::test_b"], "its test says that it differs"),
        ("| `test_a` | `trio::test_a` | differs: S1 |", &["trio::test_a"], "its test does not say that it differs"),
        ("| `test_a` | `trio::test_a` | same |", &["trio::test_a", "trio::test_b"], "trio::test_b: not in one row"),
    ];
    for (row, names, expected) in cases {
        let found = faults(&page(row), &ported(names));
        assert_eq!(found.len(), usize::from(!expected.is_empty()), "{row}: {found:?}");
        assert!(found.iter().all(|fault| fault.ends_with(expected)), "{row}: {found:?}");
    }
    let miscounted = page("| `test_c` | none | can not exist: no such thing |").replace("| all | 1 |", "| all | 2 |");
    assert_eq!(faults(&miscounted, &Ports::new()), ["figures: should have `| all | 1 | 0 | 0 | 1 |`"]);
}
