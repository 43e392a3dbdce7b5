//! Numbers that were promised never to fall.

use std::collections::BTreeMap;

use sqlx::{SqliteConnection, query};

use super::{LedgerError, failed, filesets, value};

/// The number of this deployment's database: raised by each `restore`, so that nothing signed
/// after it can be taken for older than what was signed before.
pub const EPOCH: &str = "epoch";
/// The version of the timestamp.
pub const TIMESTAMP: &str = "timestamp";

/// Raises the counter `name` by one, from 0 if it is new, and returns its new value.
///
/// # Errors
///
/// Fails if the database does.
pub async fn next(db: &mut SqliteConnection, name: &str) -> Result<u64, LedgerError> {
    let row = query(
        "INSERT INTO counters (name, value) VALUES ($1, 1) \
         ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
    )
    .bind(name)
    .fetch_one(db)
    .await
    .map_err(failed("raise a counter"))?;
    unsigned(value(&row, "value")?)
}

/// Raises the counter `name` to at least `least`.
///
/// # Errors
///
/// Fails if the database does, or if `least` is over 2^63 − 1.
pub async fn raise(db: &mut SqliteConnection, name: &str, least: u64) -> Result<(), LedgerError> {
    let least = i64::try_from(least).map_err(|_| LedgerError::Malformed { what: "a counter" })?;
    query(
        "INSERT INTO counters (name, value) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
    )
    .bind(name)
    .bind(least)
    .execute(db)
    .await
    .map_err(failed("raise a counter"))?;
    Ok(())
}

/// Every counter with its value.
///
/// # Errors
///
/// Fails if the database does.
pub async fn all(db: &mut SqliteConnection) -> Result<BTreeMap<String, u64>, LedgerError> {
    let rows = query("SELECT name, value FROM counters")
        .fetch_all(db)
        .await
        .map_err(failed("read the counters"))?;
    rows.iter()
        .map(|row| Ok((value(row, "name")?, unsigned(value(row, "value")?)?)))
        .collect()
}

/// Every number that was promised never to fall: every counter, and for each fileset the last
/// number that it gave out, called [`filesets::counter`].
///
/// # Errors
///
/// Fails if the database does.
pub async fn promised(db: &mut SqliteConnection) -> Result<BTreeMap<String, u64>, LedgerError> {
    let mut promised = all(&mut *db).await?;
    for fileset in filesets::list(db).await? {
        promised.insert(filesets::counter(&fileset.name), fileset.last);
    }
    Ok(promised)
}

fn unsigned(value: i64) -> Result<u64, LedgerError> {
    u64::try_from(value).map_err(|_| LedgerError::Malformed { what: "a counter" })
}
