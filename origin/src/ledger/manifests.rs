//! Manifests: the current one of each device, and whose is due to be made anew.

use certs::DeviceId;
use content::Digest;
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use super::{LedgerError, blob, devices, failed, parsed, value};

/// What the highest number of any manifest is called among the numbers that never fall. A device
/// begins above what it was when the ledger was restored last: see [`FLOOR`].
pub const COUNTER: &str = "manifest";
/// Above which number manifests of devices begin that the ledger has none of.
pub const FLOOR: &str = "manifest-floor";

/// The manifest of a device, without its bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Made {
    /// The device.
    pub device: DeviceId,
    /// Its number.
    pub number: u64,
    /// The model that it was made from.
    pub model: u64,
    /// The digest of its envelope.
    pub digest: Digest,
    /// SHA-256 of its items.
    pub said: Digest,
    /// When it was made.
    pub made_at: i64,
}

/// At most `limit` of all manifests, after the device `after`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn page(
    db: &mut SqliteConnection,
    after: &str,
    limit: u32,
) -> Result<Vec<Made>, LedgerError> {
    let rows = query(
        "SELECT device, number, model, digest, said, made_at FROM manifests \
         WHERE device > $1 ORDER BY device LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
    .map_err(failed("list the manifests"))?;
    rows.iter().map(read).collect()
}

/// The manifests of `ids`, as far as they have any.
///
/// # Errors
///
/// Fails if the database does.
pub async fn of(db: &mut SqliteConnection, ids: &[DeviceId]) -> Result<Vec<Made>, LedgerError> {
    let rows = query(
        "SELECT device, number, model, digest, said, made_at FROM manifests \
         WHERE device IN (SELECT value FROM json_each($1))",
    )
    .bind(devices::json(ids))
    .fetch_all(db)
    .await
    .map_err(failed("look for manifests"))?;
    rows.iter().map(read).collect()
}

/// The envelope of the device `id`, if it is the one called `digest`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn envelope(
    db: &mut SqliteConnection,
    id: &DeviceId,
    digest: Digest,
) -> Result<Option<Vec<u8>>, LedgerError> {
    let row = query("SELECT envelope FROM manifests WHERE device = $1 AND digest = $2")
        .bind(id.as_str())
        .bind(digest.as_raw().as_slice())
        .fetch_optional(db)
        .await
        .map_err(failed("look for a manifest"))?;
    row.map(|row| value(&row, "envelope")).transpose()
}

/// Enters the manifest of a device, in place of the one before.
///
/// # Errors
///
/// Fails if the database does.
pub async fn put(
    db: &mut SqliteConnection,
    made: &Made,
    envelope: &[u8],
) -> Result<(), LedgerError> {
    query(
        "INSERT INTO manifests (device, number, model, digest, said, envelope, made_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (device) DO UPDATE SET \
         number = excluded.number, model = excluded.model, digest = excluded.digest, \
         said = excluded.said, envelope = excluded.envelope, made_at = excluded.made_at",
    )
    .bind(made.device.as_str())
    .bind(signed(made.number)?)
    .bind(signed(made.model)?)
    .bind(made.digest.as_raw().as_slice())
    .bind(made.said.as_raw().as_slice())
    .bind(envelope)
    .bind(made.made_at)
    .execute(db)
    .await
    .map_err(failed("enter a manifest"))?;
    Ok(())
}

/// Notes that the manifests of `ids` are due to be made anew.
///
/// # Errors
///
/// Fails if the database does.
pub async fn mark_due(db: &mut SqliteConnection, ids: &[DeviceId]) -> Result<(), LedgerError> {
    query("INSERT OR IGNORE INTO manifests_due (device) SELECT value FROM json_each($1)")
        .bind(devices::json(ids))
        .execute(db)
        .await
        .map_err(failed("note whose manifest is due"))?;
    Ok(())
}

/// At most `limit` devices whose manifest is due.
///
/// # Errors
///
/// Fails if the database does.
pub async fn due(db: &mut SqliteConnection, limit: u32) -> Result<Vec<DeviceId>, LedgerError> {
    let rows = query("SELECT device FROM manifests_due ORDER BY device LIMIT $1")
        .bind(limit)
        .fetch_all(db)
        .await
        .map_err(failed("look whose manifest is due"))?;
    rows.iter().map(|row| parsed(row, "device")).collect()
}

/// How many are due.
///
/// # Errors
///
/// Fails if the database does.
pub async fn count_due(db: &mut SqliteConnection) -> Result<i64, LedgerError> {
    let row = query("SELECT count(*) AS n FROM manifests_due")
        .fetch_one(db)
        .await
        .map_err(failed("count the manifests that are due"))?;
    value(&row, "n")
}

/// Notes that the manifests of `ids` are as they should be.
///
/// # Errors
///
/// Fails if the database does.
pub async fn done(db: &mut SqliteConnection, ids: &[DeviceId]) -> Result<(), LedgerError> {
    query("DELETE FROM manifests_due WHERE device IN (SELECT value FROM json_each($1))")
        .bind(devices::json(ids))
        .execute(db)
        .await
        .map_err(failed("note whose manifest is made"))?;
    Ok(())
}

/// Raises the numbers of all manifests to at least `floor`, and lets all of them be made anew:
/// what was given out since a backup was taken is unknown.
///
/// # Errors
///
/// Fails if the database does, or if `floor` is over 2^63 − 1.
pub async fn raise_all(db: &mut SqliteConnection, floor: u64) -> Result<(), LedgerError> {
    let floor = signed(floor)?;
    for sql in [
        "UPDATE manifests SET number = max(number, $1), said = zeroblob(32)",
        "INSERT OR IGNORE INTO manifests_due (device) SELECT device FROM manifests WHERE $1 >= 0",
        "INSERT OR IGNORE INTO manifests_due (device) SELECT id FROM devices \
         WHERE role = 'client' AND state = 'enrolled' AND $1 >= 0",
    ] {
        query(sql)
            .bind(floor)
            .execute(&mut *db)
            .await
            .map_err(failed("raise the manifests' numbers"))?;
    }
    Ok(())
}

fn read(row: &SqliteRow) -> Result<Made, LedgerError> {
    let unsigned = |column| {
        let number: i64 = value(row, column)?;
        u64::try_from(number).map_err(|_| LedgerError::Malformed { what: column })
    };
    Ok(Made {
        device: parsed(row, "device")?,
        number: unsigned("number")?,
        model: unsigned("model")?,
        digest: Digest::from_raw(blob(row, "digest")?),
        said: Digest::from_raw(blob(row, "said")?),
        made_at: value(row, "made_at")?,
    })
}

fn signed(value: u64) -> Result<i64, LedgerError> {
    i64::try_from(value).map_err(|_| LedgerError::Malformed { what: "a number" })
}
