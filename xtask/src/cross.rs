//! What needs another compiler or another system: the oldest Rust, Windows under wine, and types on what runs nowhere here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::{Result, cargo, root, run, target};

const PACKAGES: &str = "rustc-web cargo-web rust-web-src gcc-mingw-w64-x86-64-posix wine64 wine";
const WINDOWS: &str = "x86_64-pc-windows-gnu";
const CHECKED: [&str; 3] = ["aarch64-apple-darwin", "x86_64-unknown-freebsd", "aarch64-unknown-linux-gnu"];
const MINGW: &str = "x86_64-w64-mingw32-gcc-posix";

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

/// Builds the unit tests for Windows, standard library included, and runs them under wine.
pub(crate) fn windows() -> Result {
    let Some(rustc) = debian_rustc() else { return skip("Windows") };
    if ![MINGW, "wine"].iter().all(|tool| Command::new(tool).arg("--version").output().is_ok()) {
        return skip("Windows");
    }
    let target = target("windows");
    let deps = target.join(WINDOWS).join("debug/deps");
    fs::create_dir_all(&deps)?;
    fs::write(target.join("random.c"), RANDOM)?;
    let mut mingw = Command::new(MINGW);
    mingw
        .arg("-shared")
        .arg("-o")
        .arg(deps.join("bcryptprimitives.dll"))
        .arg(target.join("random.c"))
        .arg("-ladvapi32");
    run(&mut mingw)?;
    let linker = linker(&target, &rustc)?;
    let mut command = debian_cargo(&rustc, "test --lib --features json", WINDOWS, &target);
    command.env("WINEDEBUG", "-all").env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", linker);
    run(command.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", "wine"))
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
