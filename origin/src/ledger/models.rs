//! Models, and the entries that hold in them.

mod belonging;

use std::collections::BTreeMap;

use certs::DeviceId;
use content::{Digest, FilesetName, RevisionNumber};
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use super::{LedgerError, blob, counters, failed, parsed, value};
use crate::model::key::{GroupName, Key, Kind};
use crate::model::value::Value;
use crate::model::world::{Edits, World};

pub use belonging::{Belongs, belonging, named, of_group, unknown};

/// A model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Model {
    /// Its number, which only rises.
    pub number: u64,
    /// Who committed it, as the audit log knows them.
    pub author: String,
    /// Why.
    pub message: String,
    /// When.
    pub made_at: i64,
    /// How many keys say something else than in the one before.
    pub changes: u64,
    /// Which one it repeats, if it is a rollback.
    pub of_model: Option<u64>,
}

/// What the number of the last model is called among the numbers that never fall.
pub const COUNTER: &str = "model";

/// The number of the current model; 0 if there is none.
///
/// # Errors
///
/// Fails if the database does.
pub async fn current(db: &mut SqliteConnection) -> Result<u64, LedgerError> {
    let row = query("SELECT coalesce(max(number), 0) AS number FROM models")
        .fetch_one(db)
        .await
        .map_err(failed("look for the model"))?;
    unsigned(&row, "number")
}

/// At most `limit` models before the number `before`, the newest first.
///
/// # Errors
///
/// Fails if the database does.
pub async fn list(
    db: &mut SqliteConnection,
    before: u64,
    limit: u32,
) -> Result<Vec<Model>, LedgerError> {
    let rows = query("SELECT * FROM models WHERE number < $1 ORDER BY number DESC LIMIT $2")
        .bind(i64::try_from(before).unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(db)
        .await
        .map_err(failed("list the models"))?;
    rows.iter().map(read).collect()
}

/// The model `number`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn find(db: &mut SqliteConnection, number: u64) -> Result<Option<Model>, LedgerError> {
    let row = query("SELECT * FROM models WHERE number = $1")
        .bind(signed(number)?)
        .fetch_optional(db)
        .await
        .map_err(failed("look for a model"))?;
    row.as_ref().map(read).transpose()
}

/// Makes the next model out of the current one and `edits`, which each change something; its
/// number.
///
/// # Errors
///
/// Fails if the database does.
pub async fn insert(
    db: &mut SqliteConnection,
    edits: &Edits,
    new: &Model,
) -> Result<u64, LedgerError> {
    let number = counters::next(db, COUNTER).await?;
    let at = signed(number)?;
    query(
        "INSERT INTO models (number, author, message, made_at, changes, of_model) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(at)
    .bind(&new.author)
    .bind(&new.message)
    .bind(new.made_at)
    .bind(signed(edits.len() as u64)?)
    .bind(new.of_model.map(signed).transpose()?)
    .execute(&mut *db)
    .await
    .map_err(failed("enter a model"))?;
    for (key, value) in edits {
        query("UPDATE entries SET until_model = $2 WHERE key = $1 AND until_model IS NULL")
            .bind(key.to_string())
            .bind(at)
            .execute(&mut *db)
            .await
            .map_err(failed("end an entry"))?;
        if let Some(value) = value {
            enter(db, key, value, at).await?;
        }
    }
    Ok(number)
}

async fn enter(
    db: &mut SqliteConnection,
    key: &Key,
    value: &Value,
    at: i64,
) -> Result<(), LedgerError> {
    query(
        "INSERT INTO entries \
         (key, from_model, kind, fileset, device_group, device, revision, body) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(key.to_string())
    .bind(at)
    .bind(key.kind().as_str())
    .bind(key.fileset().map(FilesetName::as_str))
    .bind(key.group().map(GroupName::as_str))
    .bind(key.device().map(DeviceId::as_str))
    .bind(
        value
            .revision()
            .map(|number| signed(number.0))
            .transpose()?,
    )
    .bind(value.encode())
    .execute(db)
    .await
    .map_err(failed("enter an entry"))?;
    Ok(())
}

/// What the current model says of filesets and groups.
///
/// # Errors
///
/// Fails if the database does.
pub async fn world(db: &mut SqliteConnection) -> Result<World, LedgerError> {
    let mut world = World {
        model: current(&mut *db).await?,
        ..World::default()
    };
    for kind in [Kind::Fileset, Kind::Group, Kind::GroupAssociation] {
        let rows = query("SELECT key, body FROM entries WHERE kind = $1 AND until_model IS NULL")
            .bind(kind.as_str())
            .fetch_all(&mut *db)
            .await
            .map_err(failed("read the model"))?;
        for row in &rows {
            let (key, value) = entry(row)?;
            world.apply(&key, Some(&value));
        }
    }
    world.statements = statements(db).await?;
    Ok(world)
}

/// The statements of all revisions that are kept.
async fn statements(
    db: &mut SqliteConnection,
) -> Result<BTreeMap<(FilesetName, RevisionNumber), Digest>, LedgerError> {
    let rows = query("SELECT fileset, number, statement FROM revisions")
        .fetch_all(db)
        .await
        .map_err(failed("list the revisions"))?;
    let statement = |row| {
        let number = RevisionNumber(unsigned(row, "number")?);
        let digest = Digest::from_raw(blob(row, "statement")?);
        Ok(((parsed(row, "fileset")?, number), digest))
    };
    rows.iter().map(statement).collect()
}

/// What the current model says under `key`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn said(db: &mut SqliteConnection, key: &Key) -> Result<Option<Value>, LedgerError> {
    let row = query("SELECT key, body FROM entries WHERE key = $1 AND until_model IS NULL")
        .bind(key.to_string())
        .fetch_optional(db)
        .await
        .map_err(failed("look for an entry"))?;
    row.map(|row| entry(&row).map(|(_, value)| value))
        .transpose()
}

/// At most `limit` entries that hold in the model `number`, after the key `after`, by key.
///
/// # Errors
///
/// Fails if the database does.
pub async fn page(
    db: &mut SqliteConnection,
    number: u64,
    after: &str,
    limit: u32,
) -> Result<Vec<(Key, Value)>, LedgerError> {
    let rows = query(
        "SELECT key, body FROM entries WHERE key > $2 AND from_model <= $1 \
         AND (until_model IS NULL OR until_model > $1) ORDER BY key LIMIT $3",
    )
    .bind(signed(number)?)
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
    .map_err(failed("read a model"))?;
    rows.iter().map(entry).collect()
}

/// What leads from the current model back to what held in the model `number`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn back_to(db: &mut SqliteConnection, number: u64) -> Result<Edits, LedgerError> {
    let number = signed(number)?;
    let mut edits = Edits::new();
    let since = query("SELECT key FROM entries WHERE from_model > $1 AND until_model IS NULL")
        .bind(number)
        .fetch_all(&mut *db)
        .await
        .map_err(failed("read what came since"))?;
    for row in &since {
        edits.insert(parsed(row, "key")?, None);
    }
    let held = query(
        "SELECT key, body FROM entries \
         WHERE from_model <= $1 AND until_model IS NOT NULL AND until_model > $1",
    )
    .bind(number)
    .fetch_all(db)
    .await
    .map_err(failed("read what held then"))?;
    for row in &held {
        let (key, value) = entry(row)?;
        edits.insert(key, Some(value));
    }
    Ok(edits)
}

/// Those of the keys that the draft `draft` edits which another changed since the model `base`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn changed_since(
    db: &mut SqliteConnection,
    draft: &str,
    base: u64,
) -> Result<Vec<String>, LedgerError> {
    let rows = query(
        "SELECT DISTINCT entries.key FROM draft_edits JOIN entries USING (key) \
         WHERE draft = $1 AND (from_model > $2 OR until_model > $2) ORDER BY 1",
    )
    .bind(draft)
    .bind(signed(base)?)
    .fetch_all(db)
    .await
    .map_err(failed("look for what others changed"))?;
    rows.iter().map(|row| value(row, "key")).collect()
}

/// The keys of current entries of `kind` that name `fileset` or `group`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn naming(
    db: &mut SqliteConnection,
    kind: Kind,
    fileset: Option<&FilesetName>,
    group: Option<&GroupName>,
) -> Result<Vec<Key>, LedgerError> {
    let rows = query(
        "SELECT key FROM entries WHERE kind = $1 AND until_model IS NULL \
         AND (fileset = $2 OR device_group = $3) ORDER BY key",
    )
    .bind(kind.as_str())
    .bind(fileset.map(FilesetName::as_str))
    .bind(group.map(GroupName::as_str))
    .fetch_all(db)
    .await
    .map_err(failed("look for entries"))?;
    rows.iter().map(|row| parsed(row, "key")).collect()
}

/// What a device that held `old` of `fileset` has to fetch for `new`: bytes of packs that `old`
/// does not need, all of them if there is no `old`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn bytes_between(
    db: &mut SqliteConnection,
    fileset: &FilesetName,
    old: Option<RevisionNumber>,
    new: RevisionNumber,
) -> Result<u64, LedgerError> {
    let row = query(
        "SELECT coalesce(sum(total_bytes), 0) AS bytes FROM revision_packs JOIN packs USING (pack) \
         WHERE fileset = $1 AND number = $2 AND pack NOT IN \
         (SELECT pack FROM revision_packs WHERE fileset = $1 AND number = $3)",
    )
    .bind(fileset.as_str())
    .bind(signed(new.0)?)
    .bind(old.map(|old| signed(old.0)).transpose()?)
    .fetch_one(db)
    .await
    .map_err(failed("add up packs"))?;
    unsigned(&row, "bytes")
}

pub(super) fn entry(row: &SqliteRow) -> Result<(Key, Value), LedgerError> {
    let key: Key = parsed(row, "key")?;
    let body: &str = value(row, "body")?;
    let value = Value::decode(&key, body);
    let value = value.map_err(|_| LedgerError::Malformed { what: "an entry" })?;
    Ok((key, value))
}

fn read(row: &SqliteRow) -> Result<Model, LedgerError> {
    let of_model: Option<i64> = value(row, "of_model")?;
    Ok(Model {
        number: unsigned(row, "number")?,
        author: value(row, "author")?,
        message: value(row, "message")?,
        made_at: value(row, "made_at")?,
        changes: unsigned(row, "changes")?,
        of_model: of_model.and_then(|number| u64::try_from(number).ok()),
    })
}

fn unsigned(row: &SqliteRow, column: &'static str) -> Result<u64, LedgerError> {
    let value: i64 = value(row, column)?;
    u64::try_from(value).map_err(|_| LedgerError::Malformed { what: column })
}

fn signed(value: u64) -> Result<i64, LedgerError> {
    i64::try_from(value).map_err(|_| LedgerError::Malformed { what: "a number" })
}
