//! The database: accounts, transfers, and the two steps of a transfer, each a transaction of its own.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// The accounts have the numbers 1 to this.
pub const ACCOUNTS: i64 = 100;
/// What is on each account of a new database: more than any load moves away from it.
pub const BALANCE: i64 = 1_000_000_000;

/// How long a step waits for another process that writes to the same file.
const BUSY: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS accounts (
        id INTEGER PRIMARY KEY,
        balance INTEGER NOT NULL CHECK (balance >= 0)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS transfers (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        debtor INTEGER NOT NULL REFERENCES accounts,
        creditor INTEGER NOT NULL REFERENCES accounts,
        amount INTEGER NOT NULL CHECK (amount > 0),
        state TEXT NOT NULL CHECK (state IN ('pending', 'done'))
    ) STRICT;
    CREATE INDEX IF NOT EXISTS pending ON transfers (id) WHERE state = 'pending';
";

/// A connection to the database. Clones share it, and take turns.
///
/// SQLite has one writer at a time, so more than one connection would only move the waiting into SQLite. The lock is held for
/// one step, on a thread where blocking is allowed.
#[derive(Clone, Debug)]
pub struct Db(Arc<Mutex<Connection>>);

/// What a client wants: so much from one account to another.
#[derive(Clone, Copy, Debug, serde::Deserialize, Serialize)]
pub struct Order {
    /// The account that pays.
    pub from: i64,
    /// The account that receives.
    pub to: i64,
    /// How much.
    pub amount: i64,
}

/// Why a transfer did not take place, or not to its end.
#[derive(Debug)]
pub enum Refusal {
    /// It makes no sense; nothing has happened.
    Bad(&'static str),
    /// There is no such account; nothing has happened.
    NoAccount(i64),
    /// The account has too little; nothing has happened.
    TooLittle(i64),
    /// The database has failed.
    Db(rusqlite::Error),
}

/// What all accounts hold together, and how many transfers are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// How many accounts there are.
    pub accounts: i64,
    /// What they hold.
    pub sum: i64,
    /// Transfers that were debited and are not credited yet.
    pub pending: i64,
    /// Transfers that are finished.
    pub finished: i64,
}

impl Sum {
    /// True if what the accounts hold is what they began with.
    pub fn is_exact(&self) -> bool {
        self.sum == ACCOUNTS * BALANCE
    }
}

/// Opens the database, and makes accounts if it has none.
///
/// # Errors
///
/// If the file can not be made or written, or is no database.
pub fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut conn = Connection::open(path)?;
    conn.busy_timeout(BUSY)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    // What was acknowledged is on the disk.
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    let tx = write(&mut conn)?;
    tx.execute_batch(SCHEMA)?;
    let accounts: i64 = tx.query_row("SELECT count(*) FROM accounts", [], |row| row.get(0))?;
    if accounts == 0 {
        for id in 1..=ACCOUNTS {
            tx.execute("INSERT INTO accounts VALUES (?, ?)", params![id, BALANCE])?;
        }
    }
    tx.commit()?;
    Ok(conn)
}

/// Looks at all of the database.
///
/// # Errors
///
/// If it can not be read.
pub fn sum(conn: &Connection) -> rusqlite::Result<Sum> {
    conn.query_row(
        "SELECT (SELECT count(*) FROM accounts), (SELECT sum(balance) FROM accounts),
                (SELECT count(*) FROM transfers WHERE state = 'pending'),
                (SELECT count(*) FROM transfers WHERE state = 'done')",
        [],
        |row| Ok(Sum { accounts: row.get(0)?, sum: row.get(1)?, pending: row.get(2)?, finished: row.get(3)? }),
    )
}

/// True if the transfer is finished.
///
/// # Errors
///
/// If the database can not be read.
pub fn is_finished(conn: &Connection, transfer: i64) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM transfers WHERE id = ? AND state = 'done'")?.exists([transfer])
}

/// Credits what an earlier process has left half done: it was killed. Gives how many transfers that were.
///
/// # Errors
///
/// If the database can not be written.
pub fn recover(conn: &mut Connection) -> rusqlite::Result<usize> {
    let tx = write(conn)?;
    let pending: Vec<i64> = tx
        .prepare("SELECT id FROM transfers WHERE state = 'pending'")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in &pending {
        credit(&tx, *id)?;
    }
    tx.commit()?;
    Ok(pending.len())
}

impl Db {
    /// Takes a connection of [`open`].
    pub fn new(conn: Connection) -> Self {
        Self(Arc::new(Mutex::new(conn)))
    }

    /// Step 1: debits, and writes a row that says so. Gives the number of the transfer.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for its turn, nothing happens; later the step takes place, and the number is lost.
    ///
    /// # Errors
    ///
    /// If there is nothing to debit; nothing has happened then.
    pub async fn debit(&self, order: Order) -> Result<i64, Refusal> {
        order.check()?;
        self.step(move |tx| debit(tx, order)).await
    }

    /// Step 2: credits, and marks the row as done; once, however often it is called.
    ///
    /// # Cancel safety
    ///
    /// As [`debit`](Self::debit).
    ///
    /// # Errors
    ///
    /// If the database can not be written; the transfer is half done then, and the next start credits it.
    pub async fn credit(&self, transfer: i64) -> Result<(), Refusal> {
        self.step(move |tx| Ok(credit(tx, transfer)?)).await
    }

    /// Returns what is on an account; none if there is no such account.
    ///
    /// # Errors
    ///
    /// If the database can not be read.
    pub async fn balance(&self, account: i64) -> Result<Option<i64>, Refusal> {
        self.step(move |tx| Ok(balance(tx, account)?)).await
    }

    /// Looks at all of the database.
    ///
    /// # Errors
    ///
    /// If the database can not be read.
    pub async fn sum(&self) -> Result<Sum, Refusal> {
        self.step(|tx| Ok(sum(tx)?)).await
    }

    /// One transaction on a thread where blocking is allowed. Nothing is held when it returns.
    async fn step<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        // Waiting here and not on the thread: else each request that waits would take a thread.
        let mut conn = Arc::clone(&self.0).lock_owned().await;
        let step = spawn_blocking(move || {
            let tx = write(&mut conn)?;
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        });
        step.await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(payload) => std::panic::resume_unwind(payload),
            Err(_) => Err(Refusal::Bad("the server is gone")),
        })
    }
}

/// Begins a transaction that writes. Taking the lock at once is what lets [`BUSY`] wait for it.
fn write(conn: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    conn.transaction_with_behavior(TransactionBehavior::Immediate)
}

impl Order {
    fn check(&self) -> Result<(), Refusal> {
        match self {
            Self { amount: ..=0, .. } => Err(Refusal::Bad("`amount` has to be 1 or more")),
            Self { from, to, .. } if from == to => Err(Refusal::Bad("`from` and `to` have to differ")),
            Self { .. } => Ok(()),
        }
    }
}

fn debit(tx: &Transaction<'_>, Order { from, to, amount }: Order) -> Result<i64, Refusal> {
    balance(tx, to)?.ok_or(Refusal::NoAccount(to))?;
    let has = balance(tx, from)?.ok_or(Refusal::NoAccount(from))?;
    if has < amount {
        return Err(Refusal::TooLittle(from));
    }
    tx.prepare_cached("UPDATE accounts SET balance = balance - ? WHERE id = ?")?.execute([amount, from])?;
    let id = tx
        .prepare_cached("INSERT INTO transfers (debtor, creditor, amount, state) VALUES (?, ?, ?, 'pending')")?
        .insert([from, to, amount])?;
    Ok(id)
}

fn credit(tx: &Transaction<'_>, transfer: i64) -> rusqlite::Result<()> {
    let mut done = tx.prepare_cached(
        "UPDATE transfers SET state = 'done' WHERE id = ? AND state = 'pending' RETURNING creditor, amount",
    )?;
    let credit: Option<(i64, i64)> = done.query_row([transfer], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    if let Some((creditor, amount)) = credit {
        tx.prepare_cached("UPDATE accounts SET balance = balance + ? WHERE id = ?")?.execute([amount, creditor])?;
    }
    Ok(())
}

fn balance(tx: &Transaction<'_>, account: i64) -> rusqlite::Result<Option<i64>> {
    tx.prepare_cached("SELECT balance FROM accounts WHERE id = ?")?.query_row([account], |row| row.get(0)).optional()
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Db(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(why) => f.write_str(why),
            Self::NoAccount(id) => write!(f, "there is no account {id}: they are 1 to {ACCOUNTS}"),
            Self::TooLittle(id) => write!(f, "account {id} has too little"),
            Self::Db(error) => write!(f, "the database: {error}"),
        }
    }
}

impl std::error::Error for Refusal {}
