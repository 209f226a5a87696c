//! Which of the changes in this copy is made: `TESTUDO_MUTANT` says its number.
#![allow(missing_docs, clippy::all, reason = "nobody reads the copy")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};

static CHOSEN: LazyLock<usize> =
    LazyLock::new(|| std::env::var("TESTUDO_MUTANT").map_or(usize::MAX, |text| text.parse().expect("a number")));

/// Where to write which changes a test comes to.
static REACHED: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
    let path = std::env::var_os("TESTUDO_MUTANT_REACHED")?;
    let file = OpenOptions::new().append(true).create(true).open(path).expect("a file that can be written");
    Some(Mutex::new(file))
});

/// What was written already: without a lock, because some tests ask millions of times.
static WRITTEN: [AtomicBool; 1 << 14] = [const { AtomicBool::new(false) }; 1 << 14];

/// True if this change is to be made.
pub(crate) fn is(id: usize) -> bool {
    if let Some(file) = &*REACHED {
        if !WRITTEN[id].load(Ordering::Relaxed) && !WRITTEN[id].swap(true, Ordering::Relaxed) {
            writeln!(file.lock().expect("nothing panics under it"), "{id}").expect("it can be written");
        }
    }
    *CHOSEN == id
}
