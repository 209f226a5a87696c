//! Which of the changes in this copy is made: `TESTUDO_MUTANT` says its number.
#![allow(missing_docs, clippy::all, reason = "nobody reads the copy")]

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{LazyLock, Mutex};

static CHOSEN: LazyLock<usize> =
    LazyLock::new(|| std::env::var("TESTUDO_MUTANT").map_or(usize::MAX, |text| text.parse().expect("a number")));

/// Where to write which changes a test comes to.
static REACHED: LazyLock<Option<Mutex<(File, BTreeSet<usize>)>>> = LazyLock::new(|| {
    let path = std::env::var_os("TESTUDO_MUTANT_REACHED")?;
    let file = OpenOptions::new().append(true).create(true).open(path).expect("a file that can be written");
    Some(Mutex::new((file, BTreeSet::new())))
});

/// True if this change is to be made.
pub(crate) fn is(id: usize) -> bool {
    if let Some(reached) = &*REACHED {
        let mut reached = reached.lock().expect("nothing panics under it");
        if reached.1.insert(id) {
            writeln!(reached.0, "{id}").expect("it can be written");
        }
    }
    *CHOSEN == id
}
