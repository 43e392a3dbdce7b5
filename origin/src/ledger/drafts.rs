//! Drafts: edits of the model that are not committed yet.

use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use super::models::entry;
use super::{LedgerError, failed, parsed, value};
use crate::model::key::Key;
use crate::model::value::Value;
use crate::model::world::Edits;

/// A draft.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Draft {
    /// Its name.
    pub name: String,
    /// The model that it began from; 0 for none.
    pub base: u64,
    /// Who began it.
    pub author: String,
    /// When.
    pub made_at: i64,
    /// How many keys it edits.
    pub edits: u64,
}

/// Every draft, by name.
///
/// # Errors
///
/// Fails if the database does.
pub async fn list(db: &mut SqliteConnection) -> Result<Vec<Draft>, LedgerError> {
    let rows = query(
        "SELECT *, (SELECT count(*) FROM draft_edits WHERE draft = name) AS edits \
         FROM drafts ORDER BY name",
    )
    .fetch_all(db)
    .await
    .map_err(failed("list the drafts"))?;
    rows.iter().map(read).collect()
}

/// The draft called `name`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn find(db: &mut SqliteConnection, name: &str) -> Result<Option<Draft>, LedgerError> {
    let row = query(
        "SELECT *, (SELECT count(*) FROM draft_edits WHERE draft = name) AS edits \
         FROM drafts WHERE name = $1",
    )
    .bind(name)
    .fetch_optional(db)
    .await
    .map_err(failed("look for a draft"))?;
    row.as_ref().map(read).transpose()
}

/// Begins the draft `name` on the model `base`, unless it is there.
///
/// # Errors
///
/// Fails if the database does.
pub async fn begin(
    db: &mut SqliteConnection,
    name: &str,
    base: u64,
    author: &str,
    now: i64,
) -> Result<(), LedgerError> {
    query(
        "INSERT INTO drafts (name, base, author, made_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING",
    )
    .bind(name)
    .bind(i64::try_from(base).unwrap_or(i64::MAX))
    .bind(author)
    .bind(now)
    .execute(db)
    .await
    .map_err(failed("begin a draft"))?;
    Ok(())
}

/// Lets the draft `name` stand on the model `base`, whatever was changed before.
///
/// # Errors
///
/// Fails if the database does.
pub async fn rebase(db: &mut SqliteConnection, name: &str, base: u64) -> Result<(), LedgerError> {
    query("UPDATE drafts SET base = $2 WHERE name = $1")
        .bind(name)
        .bind(i64::try_from(base).unwrap_or(i64::MAX))
        .execute(db)
        .await
        .map_err(failed("rebase a draft"))?;
    Ok(())
}

/// Removes the draft `name`; false if there is none.
///
/// # Errors
///
/// Fails if the database does.
pub async fn remove(db: &mut SqliteConnection, name: &str) -> Result<bool, LedgerError> {
    let gone = query("DELETE FROM drafts WHERE name = $1")
        .bind(name)
        .execute(db)
        .await
        .map_err(failed("remove a draft"))?;
    Ok(gone.rows_affected() == 1)
}

/// Puts `edits` into the draft `name`, in place of what it said of those keys.
///
/// # Errors
///
/// Fails if the database does.
pub async fn edit(db: &mut SqliteConnection, name: &str, edits: &Edits) -> Result<(), LedgerError> {
    for (key, value) in edits {
        query(
            "INSERT INTO draft_edits (draft, key, body) VALUES ($1, $2, $3) \
             ON CONFLICT (draft, key) DO UPDATE SET body = excluded.body",
        )
        .bind(name)
        .bind(key.to_string())
        .bind(value.as_ref().map(Value::encode))
        .execute(&mut *db)
        .await
        .map_err(failed("edit a draft"))?;
    }
    Ok(())
}

/// What the draft `name` edits.
///
/// # Errors
///
/// Fails if the database does.
pub async fn edits(db: &mut SqliteConnection, name: &str) -> Result<Edits, LedgerError> {
    let rows = query("SELECT key, body FROM draft_edits WHERE draft = $1")
        .bind(name)
        .fetch_all(db)
        .await
        .map_err(failed("read a draft"))?;
    rows.iter().map(one).collect()
}

/// What the draft `name` says of `key`: nothing, that it is removed, or a value.
///
/// # Errors
///
/// Fails if the database does.
pub async fn said(
    db: &mut SqliteConnection,
    name: &str,
    key: &Key,
) -> Result<Option<Option<Value>>, LedgerError> {
    let row = query("SELECT key, body FROM draft_edits WHERE draft = $1 AND key = $2")
        .bind(name)
        .bind(key.to_string())
        .fetch_optional(db)
        .await
        .map_err(failed("read a draft"))?;
    row.as_ref()
        .map(|row| one(row).map(|(_, value)| value))
        .transpose()
}

fn one(row: &SqliteRow) -> Result<(Key, Option<Value>), LedgerError> {
    let body: Option<&str> = value(row, "body")?;
    match body {
        Some(_) => entry(row).map(|(key, value)| (key, Some(value))),
        None => Ok((parsed(row, "key")?, None)),
    }
}

fn read(row: &SqliteRow) -> Result<Draft, LedgerError> {
    let unsigned = |column| {
        let number: i64 = value(row, column)?;
        u64::try_from(number).map_err(|_| LedgerError::Malformed { what: column })
    };
    Ok(Draft {
        name: value(row, "name")?,
        base: unsigned("base")?,
        author: value(row, "author")?,
        made_at: value(row, "made_at")?,
        edits: unsigned("edits")?,
    })
}
