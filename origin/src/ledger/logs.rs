//! Logs of devices: the last end of each that an operator has asked for.

use certs::DeviceId;
use sqlx::{SqliteConnection, query};

use super::{LedgerError, failed, value};

/// A log as it is stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredLog {
    /// Its text, packed.
    pub text: Vec<u8>,
    /// When it came.
    pub received_at: i64,
}

/// Keeps the log of the client `id`, in place of the one before. Whether it is kept: a party that
/// belongs to us no more leaves nothing.
///
/// # Errors
///
/// Fails if the database does.
pub async fn put(
    db: &mut SqliteConnection,
    id: &DeviceId,
    stored: &StoredLog,
) -> Result<bool, LedgerError> {
    let put = query(
        "INSERT INTO logs (device, text, received_at) SELECT id, $2, $3 FROM devices \
         WHERE id = $1 AND role = 'client' AND state = 'enrolled' \
         ON CONFLICT (device) DO UPDATE SET text = excluded.text, \
         received_at = excluded.received_at",
    )
    .bind(id.as_str())
    .bind(&stored.text)
    .bind(stored.received_at)
    .execute(db)
    .await
    .map_err(failed("keep a log"))?;
    Ok(put.rows_affected() > 0)
}

/// The log of the device `id`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn find(
    db: &mut SqliteConnection,
    id: &DeviceId,
) -> Result<Option<StoredLog>, LedgerError> {
    let row = query("SELECT text, received_at FROM logs WHERE device = $1")
        .bind(id.as_str())
        .fetch_optional(db)
        .await
        .map_err(failed("look for a log"))?;
    let read = |row| {
        Ok(StoredLog {
            text: value(&row, "text")?,
            received_at: value(&row, "received_at")?,
        })
    };
    row.map(read).transpose()
}
