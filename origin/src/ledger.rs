//! The ledger: what the origin knows, in SQLite. All SQL of the origin stands in this module.
//!
//! One connection writes, behind a pool of one, so that a transaction that writes never meets
//! another; others read beside it. Times are Unix seconds, digests are blobs.

pub mod audit;
pub mod authorities;
pub mod boosters;
pub mod certificates;
pub mod counters;
pub mod deployment;
pub mod devices;
pub mod drafts;
pub mod filesets;
pub mod inventories;
pub mod logs;
pub mod manifests;
pub mod models;
pub mod packs;
pub mod publishes;
pub mod rekeys;
pub mod reports;
pub mod results;
pub mod scripts;
pub mod smart;
#[cfg(test)]
mod tests;
pub mod tokens;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Decode, Row as _, Sqlite, Transaction, Type};
use thiserror::Error;

/// What the origin knows. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Ledger {
    reader: SqlitePool,
    writer: SqlitePool,
}

/// A transaction that may write. Dropped before its `commit`, it leaves no trace.
pub type Write = Transaction<'static, Sqlite>;

/// A transaction that only reads: what it sees does not change.
pub type Snapshot = Transaction<'static, Sqlite>;

/// A connection that only reads.
pub type Read = PoolConnection<Sqlite>;

/// Why the ledger cannot do what it is asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// A row holds what this program never wrote.
    #[error("cannot use the ledger: {what} is malformed")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// The database is from a newer program, or damaged.
    #[error("cannot bring the ledger {path} up to date", path = path.display())]
    Migrate {
        /// The database.
        path: PathBuf,
        /// What went wrong.
        source: MigrateError,
    },
    /// The database cannot be opened.
    #[error("cannot open the ledger {path}", path = path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// What went wrong.
        source: sqlx::Error,
    },
    /// The database refused.
    #[error("cannot {what}")]
    Query {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: sqlx::Error,
    },
}

/// Readers beside the writer: more than the cores of a small server gain nothing.
const READERS_MAX: u32 = 4;
/// How long to wait for a lock or a free connection: longer than any transaction of ours lasts.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(10);

/// SQLite's page cache for each connection: 16 MiB, written as SQLite wants it (negative: KiB).
const CACHE_KIB: &str = "-16384";
/// The same for each connection that reads: all of them take part in a commit, turn by turn.
const READER_CACHE_KIB: &str = "-4096";
/// Pages of the log after which SQLite copies them into the database: 32 MiB, so that a page which
/// a publish touches often is copied once.
const LOG_PAGES: &str = "8192";

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

impl Ledger {
    /// Opens the database at `path`, makes it if it is not there, and brings it up to date.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be used, or comes from a newer program.
    pub async fn open(path: &Path) -> Result<Self, LedgerError> {
        // SQLite would let everybody read it; its log files take their mode from it.
        let made = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path);
        made.map_err(|error| LedgerError::Open {
            path: path.to_owned(),
            source: error.into(),
        })?;
        let fail = |source| LedgerError::Open {
            path: path.to_owned(),
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A serial, a revocation or a counter that was told must survive a power cut.
            .synchronous(SqliteSynchronous::Full)
            // Chunks are looked up in random order: SQLite's 2 MiB would read each page anew.
            .pragma("cache_size", CACHE_KIB)
            .pragma("wal_autocheckpoint", LOG_PAGES)
            .busy_timeout(BUSY_WAIT_MAX);
        let pool = || SqlitePoolOptions::new().acquire_timeout(BUSY_WAIT_MAX);
        let writer = pool()
            .max_connections(1)
            .connect_with(options.clone().create_if_missing(true))
            .await
            .map_err(fail)?;
        MIGRATIONS
            .run(&writer)
            .await
            .map_err(|source| LedgerError::Migrate {
                path: path.to_owned(),
                source,
            })?;
        let reader = pool()
            .max_connections(READERS_MAX)
            .connect_with(
                options
                    .read_only(true)
                    .pragma("cache_size", READER_CACHE_KIB),
            )
            .await
            .map_err(fail)?;
        Ok(Self { reader, writer })
    }

    /// A connection that reads the database at `path` as it is: for a look beside the origin that
    /// runs.
    ///
    /// # Errors
    ///
    /// Fails if there is none, or it cannot be opened.
    pub async fn look(path: &Path) -> Result<Read, LedgerError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(BUSY_WAIT_MAX);
        let pool = SqlitePoolOptions::new().max_connections(1);
        let opened = async { pool.connect_with(options).await?.acquire().await };
        opened.await.map_err(|source| LedgerError::Open {
            path: path.to_owned(),
            source,
        })
    }

    /// Begins a transaction that may write. It waits for the one before it.
    ///
    /// # Errors
    ///
    /// Fails if the writer is not free in time.
    pub async fn write(&self) -> Result<Write, LedgerError> {
        // At once, not at the first write: what is read in it must still hold when it writes.
        self.writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed("begin a transaction"))
    }

    /// Takes a connection that only reads.
    ///
    /// # Errors
    ///
    /// Fails if none is free in time.
    pub async fn read(&self) -> Result<Read, LedgerError> {
        self.reader
            .acquire()
            .await
            .map_err(failed("read the ledger"))
    }

    /// Begins to read the database as it is now, whatever is written meanwhile.
    ///
    /// # Errors
    ///
    /// Fails if no connection is free in time.
    pub async fn snapshot(&self) -> Result<Snapshot, LedgerError> {
        self.reader.begin().await.map_err(failed("read the ledger"))
    }

    /// Closes the database, when nobody uses it any more.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Commits `tx`: from now on all of it is durable, or none of it is.
///
/// # Errors
///
/// Fails if the disk does.
pub async fn commit(tx: Write) -> Result<(), LedgerError> {
    tx.commit().await.map_err(failed("commit"))
}

/// Names what was tried when the database refuses.
pub(crate) fn failed(what: &'static str) -> impl FnOnce(sqlx::Error) -> LedgerError {
    move |source| LedgerError::Query { what, source }
}

/// The value of `column`.
pub(crate) fn value<'r, T>(row: &'r SqliteRow, column: &'static str) -> Result<T, LedgerError>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
{
    row.try_get(column).map_err(|source| LedgerError::Query {
        what: column,
        source,
    })
}

/// The value of `column`, which is a blob of exactly `N` bytes.
pub(crate) fn blob<const N: usize>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<[u8; N], LedgerError> {
    let bytes: &[u8] = value(row, column)?;
    bytes
        .try_into()
        .map_err(|_| LedgerError::Malformed { what: column })
}

/// The value of `column`, which is the text form of a `T`.
pub(crate) fn parsed<T: std::str::FromStr>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<T, LedgerError> {
    let text: &str = value(row, column)?;
    text.parse()
        .map_err(|_| LedgerError::Malformed { what: column })
}
