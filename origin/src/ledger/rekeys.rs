//! Devices that changed their key, and have not been seen with the new one yet.

use certs::name::{DeviceId, Role};
use sqlx::{SqliteConnection, query};

use super::{LedgerError, blob, failed, parsed};

/// Notes that the device `id` has left the key `before` (SHA-256 of its public key info), which it
/// has just shown.
///
/// # Errors
///
/// Fails if the database does, or if there is no such device.
pub async fn put(
    db: &mut SqliteConnection,
    id: &DeviceId,
    before: &[u8; 32],
) -> Result<(), LedgerError> {
    query(
        "INSERT INTO rekeys (device, before_sha256) VALUES ($1, $2) \
         ON CONFLICT (device) DO UPDATE SET before_sha256 = excluded.before_sha256",
    )
    .bind(id.as_str())
    .bind(before.as_slice())
    .execute(db)
    .await
    .map_err(failed("note a key that was left"))?;
    Ok(())
}

/// The key that the device `id` has left, if it has not been seen with the new one yet.
///
/// # Errors
///
/// Fails if the database does.
pub async fn left(
    db: &mut SqliteConnection,
    id: &DeviceId,
) -> Result<Option<[u8; 32]>, LedgerError> {
    let row = query("SELECT before_sha256 FROM rekeys WHERE device = $1")
        .bind(id.as_str())
        .fetch_optional(db)
        .await
        .map_err(failed("look for a key that was left"))?;
    row.map(|row| blob(&row, "before_sha256")).transpose()
}

/// With which key the enrolled device `id` has to be seen, and what it is; none if it need not be.
///
/// # Errors
///
/// Fails if the database does.
pub async fn awaited(
    db: &mut SqliteConnection,
    id: &DeviceId,
) -> Result<Option<(Role, [u8; 32])>, LedgerError> {
    let row = query(
        "SELECT role, spki_sha256 FROM rekeys JOIN devices ON id = device \
         WHERE device = $1 AND state = 'enrolled'",
    )
    .bind(id.as_str())
    .fetch_optional(db)
    .await
    .map_err(failed("look for a new key"))?;
    row.map(|row| Ok((parsed(&row, "role")?, blob(&row, "spki_sha256")?)))
        .transpose()
}

/// The devices that have to be seen with a new key.
///
/// # Errors
///
/// Fails if the database does.
pub async fn list(db: &mut SqliteConnection) -> Result<Vec<DeviceId>, LedgerError> {
    let rows = query("SELECT device FROM rekeys")
        .fetch_all(db)
        .await
        .map_err(failed("list the new keys"))?;
    rows.iter().map(|row| parsed(row, "device")).collect()
}

/// Notes that the device `id` need not be seen any more.
///
/// # Errors
///
/// Fails if the database does.
pub async fn settle(db: &mut SqliteConnection, id: &DeviceId) -> Result<(), LedgerError> {
    query("DELETE FROM rekeys WHERE device = $1")
        .bind(id.as_str())
        .execute(db)
        .await
        .map_err(failed("settle a change of keys"))?;
    Ok(())
}
