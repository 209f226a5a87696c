//! The tally: what clients were told, beside what is in the database.

use std::fmt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::db;

/// What has become of the requests. Its text is the last line that the program prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Requests whose head the server has read.
    pub accepted: u64,
    /// Replies with status 200 that a client has seen.
    pub acknowledged: usize,
    /// Finished transfers in the database.
    pub committed: i64,
    /// Transfers in the database that are debited and not credited.
    pub half_done: i64,
    /// Transfers that were acknowledged, and are not finished in the database.
    pub lost: usize,
    /// All accounts together hold what they began with.
    pub is_exact: bool,
}

impl Tally {
    /// Opens the database anew, and compares it with what the clients have seen.
    ///
    /// # Errors
    ///
    /// If the database can not be read.
    pub fn take(database: &Path, accepted: u64, acknowledged: &[i64]) -> rusqlite::Result<Self> {
        let conn = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let sum = db::sum(&conn)?;
        let mut lost = 0;
        for transfer in acknowledged {
            lost += usize::from(!db::is_finished(&conn, *transfer)?);
        }
        Ok(Self {
            accepted,
            acknowledged: acknowledged.len(),
            committed: sum.finished,
            half_done: sum.pending,
            lost,
            is_exact: sum.is_exact(),
        })
    }

    /// True if nothing was lost.
    pub fn is_good(&self) -> bool {
        self.half_done == 0 && self.lost == 0 && self.is_exact
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, acknowledged, committed, half_done, lost, is_exact } = self;
        let sum = if *is_exact { "exact" } else { "off" };
        write!(
            f,
            "accepted={accepted} acknowledged={acknowledged} committed={committed} half_done={half_done} lost={lost} sum={sum}"
        )
    }
}
