//! What devices said became of filesets, and what they were asked to do.

use certs::DeviceId;
use protocol::{CommandKind, FilesetResult, FilesetState};
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use super::{LedgerError, counters, failed, parsed, value};

/// What the number of the last command is called among the numbers that never fall.
pub const COUNTER: &str = "command";

/// A command that was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Given {
    /// Its number, which only rises.
    pub id: u64,
    /// To whom.
    pub device: DeviceId,
    /// What.
    pub what: CommandKind,
    /// By whom.
    pub author: String,
    /// When.
    pub made_at: i64,
    /// When the device said that it is done.
    pub done_at: Option<i64>,
}

/// Keeps what the device `id` said at `now`, if it is not older than what it said before. A time
/// that has not come is taken for now: else a clock that was ahead once would be believed for years.
///
/// Of a fileset that nobody published, nothing is kept.
///
/// # Errors
///
/// Fails if the database does.
pub async fn put(
    db: &mut SqliteConnection,
    id: &DeviceId,
    said: &FilesetResult,
    now: i64,
) -> Result<(), LedgerError> {
    let sources = serde_json::to_string(&said.sources);
    query(
        "INSERT INTO results \
         (device, fileset, revision, state, at, note, sources, received_at) \
         SELECT $1, name, $3, $4, $5, $6, $7, $8 FROM filesets WHERE name = $2 \
         AND EXISTS (SELECT 1 FROM devices WHERE id = $1) \
         ON CONFLICT (device, fileset) DO UPDATE SET revision = excluded.revision, \
         state = excluded.state, at = excluded.at, note = excluded.note, \
         sources = excluded.sources, received_at = excluded.received_at \
         WHERE excluded.at >= at",
    )
    .bind(id.as_str())
    .bind(said.fileset.as_str())
    .bind(i64::try_from(said.revision).unwrap_or(i64::MAX))
    .bind(said.state.word())
    .bind(said.at.min(now))
    .bind(&said.note)
    .bind(sources.expect("names and numbers always encode"))
    .bind(now)
    .execute(db)
    .await
    .map_err(failed("keep a result"))?;
    Ok(())
}

/// What the device `id` said last of each fileset, with when that was heard.
///
/// # Errors
///
/// Fails if the database does.
pub async fn of_device(
    db: &mut SqliteConnection,
    id: &DeviceId,
) -> Result<Vec<(FilesetResult, i64)>, LedgerError> {
    let rows = query("SELECT * FROM results WHERE device = $1 ORDER BY fileset")
        .bind(id.as_str())
        .fetch_all(db)
        .await
        .map_err(failed("read results"))?;
    rows.iter().map(read).collect()
}

/// Asks `what` of the device `id`; what is asked of it already is asked once.
///
/// # Errors
///
/// Fails if the database does.
pub async fn command(
    db: &mut SqliteConnection,
    id: &DeviceId,
    what: CommandKind,
    author: &str,
    now: i64,
) -> Result<Given, LedgerError> {
    let known =
        query("SELECT * FROM commands WHERE device = $1 AND what = $2 AND done_at IS NULL LIMIT 1")
            .bind(id.as_str())
            .bind(what.word())
            .fetch_optional(&mut *db)
            .await
            .map_err(failed("look for a command"))?;
    if let Some(row) = known {
        return given(&row);
    }
    let number = counters::next(db, COUNTER).await?;
    query("INSERT INTO commands (id, device, what, author, made_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(i64::try_from(number).unwrap_or(i64::MAX))
        .bind(id.as_str())
        .bind(what.word())
        .bind(author)
        .bind(now)
        .execute(db)
        .await
        .map_err(failed("enter a command"))?;
    Ok(Given {
        id: number,
        device: id.clone(),
        what,
        author: author.to_owned(),
        made_at: now,
        done_at: None,
    })
}

/// Notes that the device `id` has done the command numbered `number`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn done(
    db: &mut SqliteConnection,
    id: &DeviceId,
    number: u64,
    now: i64,
) -> Result<(), LedgerError> {
    query("UPDATE commands SET done_at = $3 WHERE id = $1 AND device = $2 AND done_at IS NULL")
        .bind(i64::try_from(number).unwrap_or(i64::MAX))
        .bind(id.as_str())
        .bind(now)
        .execute(db)
        .await
        .map_err(failed("note a command"))?;
    Ok(())
}

/// Every command that is not done, by number.
///
/// # Errors
///
/// Fails if the database does.
pub async fn pending(db: &mut SqliteConnection) -> Result<Vec<Given>, LedgerError> {
    let rows = query("SELECT * FROM commands WHERE done_at IS NULL ORDER BY id")
        .fetch_all(db)
        .await
        .map_err(failed("list the commands"))?;
    rows.iter().map(given).collect()
}

/// The last commands of the device `id`, at most `limit`, the newest first.
///
/// # Errors
///
/// Fails if the database does.
pub async fn commands_of(
    db: &mut SqliteConnection,
    id: &DeviceId,
    limit: u32,
) -> Result<Vec<Given>, LedgerError> {
    let rows = query("SELECT * FROM commands WHERE device = $1 ORDER BY id DESC LIMIT $2")
        .bind(id.as_str())
        .bind(limit)
        .fetch_all(db)
        .await
        .map_err(failed("list the commands"))?;
    rows.iter().map(given).collect()
}

/// Forgets commands that were done before `before`; how many.
///
/// # Errors
///
/// Fails if the database does.
pub async fn prune(db: &mut SqliteConnection, before: i64) -> Result<u64, LedgerError> {
    let gone = query("DELETE FROM commands WHERE done_at < $1")
        .bind(before)
        .execute(db)
        .await
        .map_err(failed("forget old commands"))?;
    Ok(gone.rows_affected())
}

fn read(row: &SqliteRow) -> Result<(FilesetResult, i64), LedgerError> {
    let malformed = |what| LedgerError::Malformed { what };
    let revision: i64 = value(row, "revision")?;
    let sources: &str = value(row, "sources")?;
    let result = FilesetResult {
        fileset: parsed(row, "fileset")?,
        revision: u64::try_from(revision).map_err(|_| malformed("revision"))?,
        state: FilesetState::from_word(value(row, "state")?).ok_or_else(|| malformed("state"))?,
        at: value(row, "at")?,
        note: value(row, "note")?,
        sources: serde_json::from_str(sources).map_err(|_| malformed("sources"))?,
    };
    Ok((result, value(row, "received_at")?))
}

fn given(row: &SqliteRow) -> Result<Given, LedgerError> {
    let malformed = |what| LedgerError::Malformed { what };
    let id: i64 = value(row, "id")?;
    Ok(Given {
        id: u64::try_from(id).map_err(|_| malformed("id"))?,
        device: parsed(row, "device")?,
        what: CommandKind::from_word(value(row, "what")?).ok_or_else(|| malformed("what"))?,
        author: value(row, "author")?,
        made_at: value(row, "made_at")?,
        done_at: value(row, "done_at")?,
    })
}
