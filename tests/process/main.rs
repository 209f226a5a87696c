//! Real signals to real child processes: the examples as they are, and scenes that this binary plays when it is its own child.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "real processes, real time")]

mod child;
mod examples;
mod exit;
mod hangs;
mod ladder;
#[expect(non_snake_case, reason = "a port has the name of its origin")]
mod ported;
mod scenes;
mod stop;
mod storm;
#[cfg(all(target_os = "linux", feature = "systemd"))]
mod systemd;
