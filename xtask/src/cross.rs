//! What needs another compiler or another system: the oldest Rust, Windows under wine, and types on what runs nowhere here.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::{Result, cargo, root, run, shown, target};

const PACKAGES: &str = "rustc-web cargo-web rust-web-src gcc-mingw-w64-x86-64-posix wine64 wine";
const WINDOWS: &str = "x86_64-pc-windows-gnu";
const CHECKED: [&str; 3] = ["aarch64-apple-darwin", "x86_64-unknown-freebsd", "aarch64-unknown-linux-gnu"];
const MINGW: &str = "x86_64-w64-mingw32-gcc-posix";

/// A program that says nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// wine 8 has no `bcryptprimitives.dll`, which Rust's hash maps ask for random numbers.
const RANDOM: &str = "#include <windows.h>
#include <ntsecapi.h>
__declspec(dllexport) BOOL ProcessPrng(PBYTE p, SIZE_T n) { return RtlGenRandom(p, (ULONG)n); }
";

/// The compiler of Debian's package `rustc-web`, if it is installed.
fn debian_rustc() -> Option<String> {
    let list = Command::new("dpkg").args(["-L", "rustc-web"]).output().ok()?;
    let list = String::from_utf8(list.stdout).ok()?;
    list.lines().find(|line| line.ends_with("/bin/rustc")).map(str::to_owned)
}

/// The sources of the standard library that belong to a compiler, if they are installed.
fn has_sources(rustc: &str) -> Result<bool> {
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output()?;
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout)?.trim());
    Ok(sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").exists())
}

/// Debian's cargo, which builds the standard library from its sources: they and the compiler belong together.
fn debian_cargo(rustc: &str, args: &str, system: &str, target: &Path) -> Command {
    let mut command = Command::new(Path::new(rustc).with_file_name("cargo"));
    command.current_dir(root()).args(args.split(' ')).args(["--target", system]);
    command.arg("-Zbuild-std=std,panic_unwind,test").arg("--target-dir").arg(target);
    command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
    command
}

fn skip(what: &str) -> Result {
    println!("skipped: {what} needs the packages {PACKAGES}");
    Ok(())
}

/// Checks everything with the oldest compiler that is promised, where Debian has it.
pub(crate) fn msrv() -> Result {
    let Some(rustc) = debian_rustc() else { return skip("the oldest Rust") };
    let version = Command::new(&rustc).arg("--version").output()?;
    println!("{}", String::from_utf8_lossy(&version.stdout).trim());
    let mut command = cargo("check -p testudo --all-features --all-targets");
    run(command.arg("--target-dir").arg(target("msrv")).env("RUSTC", rustc))
}

/// Checks the types, tests and examples included, for systems that nothing here can link for, let alone run.
pub(crate) fn cross() -> Result {
    let Some(rustc) = debian_rustc() else { return skip("another system") };
    if !has_sources(&rustc)? {
        return skip("another system");
    }
    for system in CHECKED {
        run(&mut debian_cargo(&rustc, "check -p testudo --all-features --all-targets", system, &target("cross")))?;
    }
    Ok(())
}

/// The tests that run under wine. Left out are `process` and `tidy`, which are about signals of Unix and about files, and `stress`, which
/// takes long.
const TESTS: &str = "test --lib --test it --test laws --test conformance --features json";

/// Of those, what can not: `ui` starts compilers, of which there are none; the other one compares a place in the program, which is a path of
/// this system.
const SKIPPED: [&str; 2] = ["ui::", "testing::an_unshielded_transfer_is_found_out_with_its_place"];

/// What is played at the console; see `tests/console.rs`.
struct Play {
    scene: &'static str,
    /// Ctrl-C is typed when this was said, one after the other.
    signs: &'static [&'static str],
    /// What was said at the end, besides.
    said: &'static str,
    status: i32,
}

/// What is left of Windows' status for "ended by Ctrl-C", 0xC000013A, where a status is a byte.
const ENDED_BY_CTRL_C: i32 = 0x3A;

const PLAYS: [Play; 4] = [
    Play { scene: "finishes", signs: &["@ ready"], said: "@ asked by CTRL_C", status: ENDED_BY_CTRL_C },
    Play { scene: "is_cancelled", signs: &["@ ready", "@ asked"], said: "@ cancelled", status: ENDED_BY_CTRL_C },
    Play {
        scene: "is_forced",
        signs: &["@ ready", "@ asked", "@ cancelled"],
        said: "ending the process now (CTRL_C), cutting off 2:",
        status: 130,
    },
    Play { scene: "is_wedged", signs: &["@ ready"], said: "ending the process now (out of time)", status: 124 },
];

/// Builds tests for Windows, standard library included, and runs them under wine; then types Ctrl-C at a console.
pub(crate) fn windows() -> Result {
    let Some(rustc) = debian_rustc() else { return skip("Windows") };
    let is_there = |tool: &&str| Command::new(tool).arg("--version").output().is_ok();
    if ![MINGW, "wine", "script"].iter().all(is_there) || !has_sources(&rustc)? {
        return skip("Windows");
    }
    let target = target("windows");
    let deps = target.join(WINDOWS).join("debug/deps");
    fs::create_dir_all(&deps)?;
    fs::write(target.join("random.c"), RANDOM)?;
    let mut mingw = Command::new(MINGW);
    mingw.arg("-shared").arg("-o").arg(deps.join("bcryptprimitives.dll")).arg(target.join("random.c"));
    run(mingw.arg("-ladvapi32"))?;
    let linker = linker(&target, &rustc)?;
    let cargo = |args: &str| {
        let mut command = debian_cargo(&rustc, args, WINDOWS, &target);
        command.env("WINEDEBUG", "-all").env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", &linker);
        // Without the lines of backtraces it is built in half of the time.
        command.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", "wine").env("CARGO_PROFILE_DEV_DEBUG", "0");
        command
    };
    run(cargo(TESTS).arg("--").args(SKIPPED.iter().flat_map(|name| ["--skip", name])))?;
    let built = cargo("test --no-run --test console --features json").output()?;
    let said = String::from_utf8(built.stderr)?;
    let program = said.rsplit_once('(').and_then(|(_, rest)| rest.split_once(')')).ok_or(said.clone())?.0;
    PLAYS.iter().try_for_each(|play| at_the_console(Path::new(program), play, &target.join("console.txt")))
}

/// Plays one scene. Wine has a console where there is a terminal, and `script` makes one; what is said goes to a file.
#[expect(clippy::disallowed_methods, reason = "another process is what goes on meanwhile")]
fn at_the_console(program: &Path, play: &Play, file: &Path) -> Result {
    let line = format!("exec wine '{}' --exact actor --nocapture >'{}' 2>&1", program.display(), file.display());
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::null());
    command.env("WINEDEBUG", "-all").env("TESTUDO_SCENE", play.scene);
    println!("$ {} # Ctrl-C, {} times", shown(&command), play.signs.len());
    let mut child = command.spawn()?;
    let mut keys = child.stdin.take().ok_or("piped")?;
    let seen = || fs::read_to_string(file).unwrap_or_default();
    fs::write(file, "")?;
    for sign in play.signs {
        let began = Instant::now();
        while !seen().contains(sign) {
            if began.elapsed() > PATIENCE {
                child.kill()?;
                return Err(format!("{}: no `{sign}`: {}", play.scene, seen()).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        // More than the time within which presses are one.
        thread::sleep(Duration::from_millis(300));
        keys.write_all(b"\x03")?;
        keys.flush()?;
    }
    let status = child.wait()?;
    if status.code() == Some(play.status) && seen().contains(play.said) {
        return Ok(());
    }
    Err(format!("{}: {status}, not {} and `{}`: {}", play.scene, play.status, play.said, seen()).into())
}

/// A linker that knows where the objects are that older compilers bring along for this target; Debian has only their sources.
fn linker(target: &Path, rustc: &str) -> Result<PathBuf> {
    let version = Command::new(rustc).arg("--version").output()?;
    let version = String::from_utf8(version.stdout)?;
    let number = version.split(' ').nth(1).ok_or("rustc has a version")?;
    let sources = PathBuf::from(format!("/usr/src/rustc-{number}/library/rtstartup"));
    let mut script = "#!/bin/sh\nfor a; do shift; case \"$a\" in\n".to_owned();
    for name in ["rsbegin", "rsend"] {
        let source = sources.join(name).with_extension("rs");
        if source.exists() {
            let object = target.join(name).with_extension("o");
            let mut command = Command::new(rustc);
            command.args(["--edition", "2021", "--target", WINDOWS, "--emit=obj", "-o"]).arg(&object).arg(&source);
            run(command.env("RUSTC_BOOTSTRAP", "1"))?;
            script += &format!("{name}.o) set -- \"$@\" '{}';;\n", object.display());
        }
    }
    script += &format!("*) set -- \"$@\" \"$a\";; esac; done\nexec {MINGW} \"$@\"\n");
    // The name tells rustc what kind of linker it is.
    let path = env::current_dir()?.join(target).join("mingw32-gcc");
    fs::write(&path, script)?;
    run(Command::new("chmod").arg("+x").arg(&path))?;
    Ok(path)
}
