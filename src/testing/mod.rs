//! Tools for the tests of programs that use this crate (feature `testing`).
//!
//! | You want to know | You use |
//! |---|---|
//! | whether a future may be cancelled or dropped anywhere | [`assert_cancel_safe`], [`Sweep`] |
//! | what happens in exactly this order of steps | [`Sequencer`] |
//! | what a Ctrl-C does to the program | [`Signals`] |
//! | the rest | [`#[testudo::test]`](macro@crate::test) |
//!
//! # A transfer
//!
//! The money leaves one account, something is awaited, it arrives at the other. Cut off in between, it is gone:
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//! use testudo::shield;
//! use testudo::testing::{Sweep, assert_cancel_safe};
//! use tokio::time::sleep;
//!
//! type Bank = Arc<Mutex<[u32; 2]>>;
//!
//! async fn transfer(bank: &Bank) {
//!     bank.lock().unwrap()[0] -= 30;
//!     sleep(Duration::from_millis(20)).await; // (1)
//!     bank.lock().unwrap()[1] += 30;
//! }
//!
//! async fn safe_transfer(bank: &Bank) {
//!     let bank = Arc::clone(bank);
//!     shield(async move { transfer(&bank).await }).await
//! }
//!
//! fn open() -> Bank {
//!     Arc::new(Mutex::new([100, 0]))
//! }
//!
//! fn nothing_is_lost(bank: &Bank) -> Result<(), String> {
//!     match bank.lock().unwrap().iter().sum() {
//!         100 => Ok(()),
//!         sum => Err(format!("the accounts hold {sum}, not 100")),
//!     }
//! }
//!
//! let flaw = Sweep::new().try_check(open, transfer, nothing_is_lost).unwrap_err();
//! assert_eq!(flaw.cuts(), "cancel@1"); // at (1)
//! assert!(flaw.to_string().contains("the accounts hold 70, not 100"));
//!
//! assert_cancel_safe(open, safe_transfer, nothing_is_lost);
//! ```
//!
//! The message of a failure names the place, what was open around it, and how to run only this cut again:
//!
//! ```text
//! not cancel safe: a cancel at suspension 1 of 1 (cancel@1)
//!   where:     src/bank.rs:11:39, 0ns after the beginning
//!   invariant: the accounts hold 70, not 100
//!   again:     Sweep::only("cancel@1"), or TESTUDO_SWEEP=cancel@1 in the environment
//!   also:      drop@1
//! ```

pub(crate) mod cuts;
mod place;
mod run;
mod sequencer;
mod signals;
mod sweep;

pub use run::{TestOptions, run_test};
pub use sequencer::{Sequencer, Step, StepGuard};
pub(crate) use signals::Connection;
pub use signals::{Effect, Signals};
pub use sweep::{Flaw, Holds, Sweep, Swept, assert_cancel_safe};
