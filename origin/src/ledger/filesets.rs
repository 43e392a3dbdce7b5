//! Filesets, their revisions, and the signed objects that describe them.

use content::statement::{FilesetEntry, RevisionEntry};
use content::{Digest, FilesetName, RevisionNumber};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, SqliteConnection, query};

use super::packs::BATCH_ROWS;
use super::{LedgerError, blob, failed, parsed, value};

/// A fileset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fileset {
    /// Its name.
    pub name: FilesetName,
    /// How many revisions are retained.
    pub keep: u32,
    /// The highest number ever used.
    pub last: u64,
}

/// A revision, as the ledger keeps it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revision {
    /// The fileset.
    pub fileset: FilesetName,
    /// Its number.
    pub number: RevisionNumber,
    /// Its statement, locator and index root.
    pub statement: Digest,
    /// The locator.
    pub locator: Digest,
    /// The index root.
    pub root: Digest,
    /// How many paths it has.
    pub entries: u64,
    /// How many of them are regular files.
    pub files: u64,
    /// Chunks of its files, each counted as often as it occurs.
    pub chunks: u64,
    /// Bytes of all files.
    pub size: u64,
    /// Bytes of the packs that hold them.
    pub packs_bytes: u64,
    /// Bytes of index packs, index root, locator and statement.
    pub metadata_bytes: u64,
    /// When it was published.
    pub created_at: i64,
}

/// What kind of thing an object is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ObjectKind {
    /// A locator.
    Locator,
    /// A revision's statement.
    Revision,
    /// An index root.
    Root,
}

impl ObjectKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Locator => "locator",
            Self::Revision => "revision",
            Self::Root => "root",
        }
    }
}

/// What the number of the last revision of `name` is called among the numbers that never fall.
#[must_use]
pub fn counter(name: &FilesetName) -> String {
    format!("{COUNTER}{name}")
}

/// The fileset whose last number is called `counter`, if that is one.
#[must_use]
pub fn of_counter(counter: &str) -> Option<FilesetName> {
    counter.strip_prefix(COUNTER)?.parse().ok()
}

const COUNTER: &str = "fileset:";

/// The number that the next revision of `name` gets; makes the fileset if it is new.
///
/// # Errors
///
/// Fails if the database does.
pub async fn next_number(
    db: &mut SqliteConnection,
    name: &FilesetName,
    keep: u32,
    now: i64,
) -> Result<RevisionNumber, LedgerError> {
    let row = query(
        "INSERT INTO filesets (name, keep, last, created_at) VALUES ($1, $2, 1, $3) \
         ON CONFLICT (name) DO UPDATE SET last = last + 1 RETURNING last",
    )
    .bind(name.as_str())
    .bind(keep)
    .bind(now)
    .fetch_one(db)
    .await
    .map_err(failed("number a revision"))?;
    unsigned(&row, "last").map(RevisionNumber)
}

/// Raises the number of the last revision of `name` to at least `least`, so that no lower one is
/// given out again; makes the fileset if it is not there.
///
/// # Errors
///
/// Fails if the database does, or if `least` is over 2^63 − 1.
pub async fn raise(
    db: &mut SqliteConnection,
    name: &FilesetName,
    least: u64,
    keep: u32,
    now: i64,
) -> Result<(), LedgerError> {
    query(
        "INSERT INTO filesets (name, keep, last, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name) DO UPDATE SET last = max(last, excluded.last)",
    )
    .bind(name.as_str())
    .bind(keep)
    .bind(signed(least)?)
    .bind(now)
    .execute(db)
    .await
    .map_err(failed("raise a fileset's number"))?;
    Ok(())
}

/// Enters a revision and the packs that it needs.
///
/// # Errors
///
/// Fails if the database does.
pub async fn insert(
    db: &mut SqliteConnection,
    new: &Revision,
    packs: &[i64],
) -> Result<(), LedgerError> {
    query(
        "INSERT INTO revisions (fileset, number, statement, locator, root, entries, files, size, \
         packs_bytes, metadata_bytes, created_at, chunks) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(new.fileset.as_str())
    .bind(signed(new.number.0)?)
    .bind(new.statement.as_raw().as_slice())
    .bind(new.locator.as_raw().as_slice())
    .bind(new.root.as_raw().as_slice())
    .bind(signed(new.entries)?)
    .bind(signed(new.files)?)
    .bind(signed(new.size)?)
    .bind(signed(new.packs_bytes)?)
    .bind(signed(new.metadata_bytes)?)
    .bind(new.created_at)
    .bind(signed(new.chunks)?)
    .execute(&mut *db)
    .await
    .map_err(failed("enter a revision"))?;
    for batch in packs.chunks(BATCH_ROWS) {
        let mut insert = QueryBuilder::new("INSERT INTO revision_packs (fileset, number, pack) ");
        insert.push_values(batch, |mut row, pack| {
            row.push_bind(new.fileset.as_str().to_owned());
            row.push_bind(new.number.0 as i64);
            row.push_bind(*pack);
        });
        insert
            .build()
            .execute(&mut *db)
            .await
            .map_err(failed("enter a revision's packs"))?;
    }
    Ok(())
}

/// Enters an object; one that is there already stays.
///
/// # Errors
///
/// Fails if the database does.
pub async fn put_object(
    db: &mut SqliteConnection,
    kind: ObjectKind,
    bytes: &[u8],
) -> Result<Digest, LedgerError> {
    let digest = Digest::of(bytes);
    query("INSERT INTO objects (digest, kind, bytes) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(digest.as_raw().as_slice())
        .bind(kind.as_str())
        .bind(bytes)
        .execute(db)
        .await
        .map_err(failed("enter an object"))?;
    Ok(digest)
}

/// The bytes of an object that is served under `kinds`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn object(
    db: &mut SqliteConnection,
    digest: Digest,
    kinds: &[ObjectKind],
) -> Result<Option<(ObjectKind, Vec<u8>)>, LedgerError> {
    let row = query("SELECT kind, bytes FROM objects WHERE digest = $1")
        .bind(digest.as_raw().as_slice())
        .fetch_optional(db)
        .await
        .map_err(failed("find an object"))?;
    let Some(row) = row else { return Ok(None) };
    let text: String = value(&row, "kind")?;
    let kind = kinds.iter().find(|kind| kind.as_str() == text);
    kind.map(|kind| Ok((*kind, value(&row, "bytes")?)))
        .transpose()
}

/// Removes the oldest revisions beyond those that their filesets keep, unless the current model
/// names them, and the objects that nobody names any more; returns how many revisions went.
///
/// # Errors
///
/// Fails if the database does.
pub async fn prune(db: &mut SqliteConnection) -> Result<u64, LedgerError> {
    // Counted, not reckoned from the last number: a restore leaves a gap before the next one.
    let gone = query(
        "DELETE FROM revisions AS old WHERE (\
         SELECT count(*) FROM revisions WHERE fileset = old.fileset AND number > old.number\
         ) >= (SELECT keep FROM filesets WHERE name = old.fileset) \
         AND NOT EXISTS (SELECT 1 FROM entries WHERE fileset = old.fileset \
         AND revision = old.number AND until_model IS NULL)",
    )
    .execute(&mut *db)
    .await
    .map_err(failed("remove old revisions"))?;
    query(
        "DELETE FROM objects WHERE digest NOT IN (SELECT statement FROM revisions \
         UNION SELECT locator FROM revisions UNION SELECT root FROM revisions)",
    )
    .execute(db)
    .await
    .map_err(failed("remove old objects"))?;
    Ok(gone.rows_affected())
}

/// Says how many revisions of `name` to keep; false if there is no such fileset.
///
/// # Errors
///
/// Fails if the database does.
pub async fn set_keep(
    db: &mut SqliteConnection,
    name: &FilesetName,
    keep: u32,
) -> Result<bool, LedgerError> {
    let changed = query("UPDATE filesets SET keep = $2 WHERE name = $1")
        .bind(name.as_str())
        .bind(keep)
        .execute(db)
        .await
        .map_err(failed("change what is kept"))?;
    Ok(changed.rows_affected() == 1)
}

/// Every fileset, in order of names.
///
/// # Errors
///
/// Fails if the database does.
pub async fn list(db: &mut SqliteConnection) -> Result<Vec<Fileset>, LedgerError> {
    let rows = query("SELECT * FROM filesets ORDER BY name")
        .fetch_all(db)
        .await
        .map_err(failed("list the filesets"))?;
    let fileset = |row: &SqliteRow| {
        Ok(Fileset {
            name: parsed(row, "name")?,
            keep: value(row, "keep")?,
            last: unsigned(row, "last")?,
        })
    };
    rows.iter().map(fileset).collect()
}

/// The retained revisions of `name`, in rising order; of all filesets if none is named.
///
/// # Errors
///
/// Fails if the database does.
pub async fn revisions(
    db: &mut SqliteConnection,
    name: Option<&FilesetName>,
) -> Result<Vec<Revision>, LedgerError> {
    let rows =
        query("SELECT * FROM revisions WHERE $1 IS NULL OR fileset = $1 ORDER BY fileset, number")
            .bind(name.map(FilesetName::as_str))
            .fetch_all(db)
            .await
            .map_err(failed("list the revisions"))?;
    rows.iter().map(read).collect()
}

/// What a snapshot says of all filesets that have a revision.
///
/// # Errors
///
/// Fails if the database does.
pub async fn snapshot(db: &mut SqliteConnection) -> Result<Vec<FilesetEntry>, LedgerError> {
    let mut filesets: Vec<FilesetEntry> = Vec::new();
    for revision in revisions(db, None).await? {
        let entry = RevisionEntry {
            number: revision.number,
            statement: revision.statement,
            locator: revision.locator,
        };
        match filesets
            .last_mut()
            .filter(|last| last.name == revision.fileset)
        {
            Some(fileset) => {
                fileset.current = revision.number;
                fileset.retained.push(entry);
            }
            None => filesets.push(FilesetEntry {
                name: revision.fileset,
                current: revision.number,
                retained: vec![entry],
            }),
        }
    }
    Ok(filesets)
}

/// The names of filesets of which a revision is kept that was made before `before`, at most
/// `limit`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn with_revisions_before(
    db: &mut SqliteConnection,
    before: i64,
    limit: u32,
) -> Result<Vec<String>, LedgerError> {
    let rows = query(
        "SELECT DISTINCT fileset FROM revisions WHERE created_at < $1 ORDER BY fileset LIMIT $2",
    )
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await
    .map_err(failed("look for old revisions"))?;
    rows.iter().map(|row| value(row, "fileset")).collect()
}

fn read(row: &SqliteRow) -> Result<Revision, LedgerError> {
    let digest = |column| blob(row, column).map(Digest::from_raw);
    Ok(Revision {
        fileset: parsed(row, "fileset")?,
        number: RevisionNumber(unsigned(row, "number")?),
        statement: digest("statement")?,
        locator: digest("locator")?,
        root: digest("root")?,
        entries: unsigned(row, "entries")?,
        files: unsigned(row, "files")?,
        chunks: unsigned(row, "chunks")?,
        size: unsigned(row, "size")?,
        packs_bytes: unsigned(row, "packs_bytes")?,
        metadata_bytes: unsigned(row, "metadata_bytes")?,
        created_at: value(row, "created_at")?,
    })
}

fn unsigned(row: &SqliteRow, column: &'static str) -> Result<u64, LedgerError> {
    let value: i64 = value(row, column)?;
    u64::try_from(value).map_err(|_| LedgerError::Malformed { what: column })
}

fn signed(value: u64) -> Result<i64, LedgerError> {
    i64::try_from(value).map_err(|_| LedgerError::Malformed { what: "a count" })
}
