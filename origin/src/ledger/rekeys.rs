//! Devices that changed their key, until what was issued for those before is revoked.

use certs::name::{DeviceId, Role};
use sqlx::{SqliteConnection, query};

use super::{LedgerError, blob, failed, parsed, value};

/// A device whose new key has been seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shown {
    /// Its name.
    pub id: DeviceId,
    /// What it is.
    pub role: Role,
    /// The key that it has now: SHA-256 of its public key info.
    pub key: [u8; 32],
}

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
        "INSERT INTO rekeys (device, before_sha256) VALUES ($1, $2) ON CONFLICT (device) \
         DO UPDATE SET before_sha256 = excluded.before_sha256, shown_at = NULL",
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
    let row = query("SELECT before_sha256 FROM rekeys WHERE device = $1 AND shown_at IS NULL")
        .bind(id.as_str())
        .fetch_optional(db)
        .await
        .map_err(failed("look for a key that was left"))?;
    row.map(|row| blob(&row, "before_sha256")).transpose()
}

/// The key with which the device `id` has to be seen, and whether it was; none once nothing is left
/// to do about it.
///
/// # Errors
///
/// Fails if the database does.
pub async fn awaited(
    db: &mut SqliteConnection,
    id: &DeviceId,
) -> Result<Option<([u8; 32], bool)>, LedgerError> {
    let row = query(
        "SELECT spki_sha256, shown_at IS NOT NULL AS is_shown \
         FROM rekeys JOIN devices ON id = device WHERE device = $1",
    )
    .bind(id.as_str())
    .fetch_optional(db)
    .await
    .map_err(failed("look for a new key"))?;
    row.map(|row| Ok((blob(&row, "spki_sha256")?, value(&row, "is_shown")?)))
        .transpose()
}

/// Notes that the device `id` was seen with `key` at `now`. Changes nothing if that is not the key
/// which it has to be seen with.
///
/// # Errors
///
/// Fails if the database does.
pub async fn show(
    db: &mut SqliteConnection,
    id: &DeviceId,
    key: &[u8; 32],
    now: i64,
) -> Result<(), LedgerError> {
    query(
        "UPDATE rekeys SET shown_at = $3 WHERE device = $1 AND shown_at IS NULL \
         AND EXISTS (SELECT 1 FROM devices WHERE id = $1 AND spki_sha256 = $2)",
    )
    .bind(id.as_str())
    .bind(key.as_slice())
    .bind(now)
    .execute(db)
    .await
    .map_err(failed("note a new key"))?;
    Ok(())
}

/// The devices that have to be seen with a new key.
///
/// # Errors
///
/// Fails if the database does.
pub async fn list(db: &mut SqliteConnection) -> Result<Vec<DeviceId>, LedgerError> {
    let rows = query("SELECT device FROM rekeys WHERE shown_at IS NULL")
        .fetch_all(db)
        .await
        .map_err(failed("list the new keys"))?;
    rows.iter().map(|row| parsed(row, "device")).collect()
}

/// The devices that have been seen with a new key, and hold certificates for those before.
///
/// # Errors
///
/// Fails if the database does.
pub async fn shown(db: &mut SqliteConnection) -> Result<Vec<Shown>, LedgerError> {
    let rows = query(
        "SELECT id, role, spki_sha256 FROM rekeys JOIN devices ON id = device \
         WHERE shown_at IS NOT NULL",
    )
    .fetch_all(db)
    .await
    .map_err(failed("list the keys that were seen"))?;
    let shown = |row| {
        Ok(Shown {
            id: parsed(row, "id")?,
            role: parsed(row, "role")?,
            key: blob(row, "spki_sha256")?,
        })
    };
    rows.iter().map(shown).collect()
}

/// Notes that nothing is left to do about the change of keys of the device `id`.
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
