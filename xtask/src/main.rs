//! The tools of this repository: the gate, the loom tests, the comparison with trio, the snapshot of the public API.

mod cross;
mod ledger;
mod mutants;
mod proof;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;
use std::{env, fs};

use public_api::Builder;

const USAGE: &str = "\
usage: cargo xtask <command>

  ci             everything that must hold for a change
  loom           the interleavings of `src/core`
  sabotage       the stress test against a library with bugs in it
  mutants [--again] [paths]
                 the tests against changed code, in files or folders of `src`; what is known stays known but for `--again`
  coverage       which lines of `src` the tests run; fails below 95 % of `src/core`
  tsan           the stress test under ThreadSanitizer
  conformance [options]
                 random programs on trio and on this library; `--help` lists the options
  msrv           check with the oldest Rust that is promised
  windows        the tests under wine, and Ctrl-C at a console
  cross          check the types for macOS, FreeBSD and Linux on ARM
  api            compare the public API with api/testudo.txt
  api --bless    write api/testudo.txt
  instructions   compare instruction counts with benches/instructions.toml
  instructions --bless
                 write benches/instructions.toml
  ledger storms [100]
                 signal storms against the ledger; the gate has ten
  ledger rolls [10]
                 rolling restarts of the ledger under load from outside
  ledger page    its page of tasks, in a headless browser
  ledger peers   the ledger served by testudo and by others, in one table
  bench [--quick] [--rounds 7] [--only P1] [--json FILE]
                 time everything beside its peers
  bench page     make docs/benchmarks.md of the last full run";

/// The names of the bugs in `src/core/sabotage.rs` that strike by count. `unseen-release` is nothing but a race: how soon it is found
/// is chance, so it is for measuring the delays by hand.
const BUGS: [&str; 5] = ["lost-wake", "double-release", "uncounted-child", "orphan-on-drop", "shield-not-inherited"];

type Error = Box<dyn std::error::Error>;
type Result<T = ()> = std::result::Result<T, Error>;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["ci"] => ci(),
        ["loom"] => loom(),
        ["sabotage"] => sabotage(),
        ["conformance", ref options @ ..] => conformance(options),
        ["msrv"] => cross::msrv(),
        ["windows"] => cross::windows(),
        ["cross"] => cross::cross(),
        ["mutants", ref options @ ..] => mutants::mutants(options),
        ["coverage"] => proof::coverage(),
        ["tsan"] => proof::tsan(),
        ["api"] => api(false),
        ["api", "--bless"] => api(true),
        ["instructions"] => instructions(""),
        ["instructions", "--bless"] => instructions("--bless"),
        ["ledger", "storms"] => ledger::storms("100"),
        ["ledger", "storms", count] => ledger::storms(count),
        ["ledger", "rolls"] => ledger::rolls("10"),
        ["ledger", "rolls", count] => ledger::rolls(count),
        ["ledger", "page"] => ledger::page(),
        ["ledger", "peers"] => ledger::peers(),
        ["bench", ..] => step("bench -q -p testudo-bench --bench times", &args[1..].join(" ")),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The gate, cheap steps first.
fn ci() -> Result {
    let start = Instant::now();
    let workspace = "--workspace --all-targets";
    step("fmt --all --check", "")?;
    step(&format!("clippy {workspace}"), "-D warnings")?;
    step("clippy -p testudo --lib --no-default-features", "-D warnings")?;
    step(&format!("clippy {workspace} --all-features"), "-D warnings")?;
    // Only a program may write to the terminal.
    let quiet = "-D warnings -D clippy::print_stdout -D clippy::print_stderr";
    step("clippy -p testudo --lib --all-features", quiet)?;
    step("test --workspace --all-features", "")?;
    run(cargo("doc -p testudo -p testudo-macros -p testudo-tower -p testudo-http --no-deps --all-features")
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    ledger::from_outside()?;
    loom()?;
    sabotage()?;
    conformance(&["--programs", "2000", "--seed", "7"])?;
    api(false)?;
    instructions("")?;
    step("bench -q -p testudo-bench --bench times", "--quick")?;
    println!("ci: all good after {} s", start.elapsed().as_secs());
    Ok(())
}

/// Runs the loom tests in a target directory of their own, because the cfg rebuilds everything.
fn loom() -> Result {
    let test = || {
        let mut command = cargo("test --release --lib --all-features");
        command
            .arg("--target-dir")
            .arg(target("loom"))
            .arg("loom")
            .env("RUSTFLAGS", "--cfg testudo_loom")
            .env("LOOM_MAX_PREEMPTIONS", "2");
        command
    };
    run(&mut test())?;
    // A filter that matches nothing passes, too.
    let list = test().args(["-q", "--", "--list"]).output()?;
    let found = String::from_utf8(list.stdout)?.lines().any(|line| line.ends_with(": test"));
    if found { Ok(()) } else { Err("there is no test with `loom` in its name".into()) }
}

/// Shows that the stress test finds each bug of `src/core/sabotage.rs`, and nothing without them.
fn sabotage() -> Result {
    let test = || {
        let mut command = cargo("test -q --test stress");
        command
            .arg("--target-dir")
            .arg(target("sabotage"))
            // Without the compiler's checks of arithmetic: it is the test that has to find a wrong count.
            // And with delays between the steps of threads: a race is no matter of luck.
            .env("RUSTFLAGS", "--cfg testudo_sabotage --cfg testudo_stress -C overflow-checks=off")
            .env("TESTUDO_SEED", "1")
            .env("TESTUDO_SECONDS", "10")
            .env("TESTUDO_WATCHDOG", "3");
        command
    };
    run(&mut test())?;
    for bug in BUGS {
        let mut command = test();
        command.env("TESTUDO_SABOTAGE", bug);
        println!("$ {}", shown(&command));
        if command.output()?.status.success() {
            return Err(format!("the stress test does not find the sabotage `{bug}`").into());
        }
    }
    Ok(())
}

/// Runs random programs on trio and on this library, in an environment for Python that is made if it is missing.
fn conformance(options: &[&str]) -> Result {
    let venv = target("trio");
    run(Command::new(root().join("conformance/setup.sh")).arg(&venv))?;
    let python = venv.join("bin/python");
    run(cargo("run -q -p conformance --").arg("--python").arg(python).args(options))
}

/// Compares the public API with its snapshot, or writes the snapshot.
fn api(bless: bool) -> Result {
    let path = root().join("api/testudo.txt");
    let new = public_api()?;
    if bless {
        fs::create_dir_all(root().join("api"))?;
        return Ok(fs::write(path, new)?);
    }
    let old = fs::read_to_string(path).unwrap_or_default();
    if old == new {
        return Ok(());
    }
    println!("{}", changes(&old, &new));
    Err("the public API is not the one in api/testudo.txt; if that is meant, run\n\
         \n    cargo xtask api --bless\n\nand commit the file with the change"
        .into())
}

/// Lists the public API, an item a line; without blanket and auto trait implementations.
fn public_api() -> Result<String> {
    // Dependencies look at `RUSTC_BOOTSTRAP`, too: in the common directory it would rebuild them.
    let dir = target("api");
    run(cargo("rustdoc -q -p testudo --lib --all-features")
        .arg("--target-dir")
        .arg(&dir)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .env("RUSTC_BOOTSTRAP", "1"))?;
    let api = Builder::from_rustdoc_json(dir.join("doc/testudo.json"))
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()?;
    Ok(api.to_string())
}

/// The lines that only one of two texts has.
fn changes(old: &str, new: &str) -> String {
    let only = |sign: char, a: &str, b: &str| -> String {
        let gone = a.lines().filter(|line| !b.lines().any(|other| other == *line));
        gone.map(|line| format!("{sign} {line}\n")).collect()
    };
    only('-', old, new) + &only('+', new, old)
}

/// Counts instructions, which do not depend on what else the machine does.
fn instructions(args: &str) -> Result {
    let is_there = Command::new("valgrind").arg("--version").output().is_ok();
    if !is_there && cfg!(target_os = "linux") {
        run(Command::new("apt-get").args(["update", "-q"]))?;
        run(Command::new("apt-get").args(["install", "-q", "-y", "valgrind"]))?;
    }
    step("bench -q -p testudo-bench --bench instructions", args)
}

/// Runs one cargo command; `behind` goes to the program behind it.
fn step(args: &str, behind: &str) -> Result {
    let mut command = cargo(args);
    if !behind.is_empty() {
        command.arg("--").args(behind.split(' '));
    }
    run(&mut command)
}

fn run(command: &mut Command) -> Result {
    let text = shown(command);
    println!("$ {text}");
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("failed ({status}): {text}").into()) }
}

/// The command as one would type it in the root folder.
fn shown(command: &Command) -> String {
    let root = format!("{}/", root().display());
    let env = command
        .get_envs()
        .filter_map(|(key, value)| Some(format!("{}='{}' ", key.to_string_lossy(), value?.to_string_lossy())));
    let args = command.get_args().map(|arg| format!(" {}", arg.to_string_lossy()));
    // The name of cargo, whose place is nobody's business; the path of a script of ours, which is shortened below.
    let program = command.get_program().to_string_lossy();
    let name = if program.starts_with(&root) { &*program } else { program.rsplit('/').next().unwrap_or(&program) };
    let text: String = env.chain([name.to_owned()]).chain(args).collect();
    text.replace(&root, "")
}

fn cargo(args: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args.split(' ')).current_dir(root());
    command
}

fn target(name: &str) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root().join(target).join(name)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root folder")
}
