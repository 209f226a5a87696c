//! A transfer that is cancelled, and dropped, at each of its suspensions.

use std::path::PathBuf;
use std::time::Duration;

use ledger::db::{self, Db, Order};
use ledger::tally::Tally;
use ledger::transfer::Cover;
use tempfile::TempDir;
use testudo::testing::{Flaw, Sweep, Swept};

const ORDER: Order = Order { from: 1, to: 2, amount: 5 };

struct Bank {
    db: Db,
    file: PathBuf,
    _folder: TempDir,
}

impl Bank {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder for a test");
        let file = folder.path().join("ledger.db");
        Self { db: Db::new(db::open(&file).expect("it can be written")), file, _folder: folder }
    }

    /// Opened anew, as the program does at its end.
    fn holds(&self) -> Result<(), String> {
        let tally = Tally::take(&self.file, 0, &[]).expect("it is there");
        if tally.is_good() { Ok(()) } else { Err(tally.to_string()) }
    }
}

fn swept(cover: &Cover) -> Result<Swept, Flaw> {
    let pause = Duration::from_millis(20);
    Sweep::new().pairs().try_check(
        Bank::new,
        async |bank| drop(cover.transfer(&bank.db, ORDER, pause).await),
        Bank::holds,
    )
}

#[test]
fn a_shielded_transfer_takes_place_in_full_or_not_at_all() {
    let swept = swept(&Cover::shield()).unwrap_or_else(|flaw| panic!("{flaw}"));
    // It waits for each of its steps, and between them.
    assert!(swept.suspensions() >= 3, "{swept:?}");
}

#[test]
fn without_a_shield_the_sweep_finds_half_a_transfer_and_says_where() {
    let flaw = swept(&Cover::none()).expect_err("a transfer can be cut off");
    let text = flaw.to_string();
    assert!(text.contains("half_done=1") && text.contains("sum=off"), "{text}");
    assert!(text.contains("again:     Sweep::only(\""), "{text}");
}
