//! Certificates that were issued, and those that were revoked.

use certs::name::{DeviceId, Role};
use certs::serial::Serial;
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use super::{LedgerError, blob, failed, parsed, value};

/// A certificate that was issued.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    /// The SHA-256 of its issuer's public key.
    pub issuer: [u8; 32],
    /// Its serial number, unique with that issuer.
    pub serial: Serial,
    /// What its holder is.
    pub role: Role,
    /// What its holder is called.
    pub holder: DeviceId,
    /// The SHA-256 of its public key.
    pub spki_sha256: [u8; 32],
    /// From when on it is valid.
    pub not_before: i64,
    /// Until when it is valid.
    pub not_after: i64,
    /// The certificate.
    pub der: Vec<u8>,
}

/// Records a certificate.
///
/// # Errors
///
/// Fails if the database does, or its issuer used this serial before.
pub async fn insert(db: &mut SqliteConnection, new: &Certificate) -> Result<(), LedgerError> {
    query(
        "INSERT INTO certificates \
         (issuer, serial, role, holder, spki_sha256, not_before, not_after, der) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(new.issuer.as_slice())
    .bind(new.serial.as_bytes().as_slice())
    .bind(new.role.as_str())
    .bind(new.holder.as_str())
    .bind(new.spki_sha256.as_slice())
    .bind(new.not_before)
    .bind(new.not_after)
    .bind(&new.der)
    .execute(db)
    .await
    .map_err(failed("record a certificate"))?;
    Ok(())
}

/// The certificate of this key that lasts longest, if it is not revoked.
///
/// # Errors
///
/// Fails if the database does.
pub async fn newest_by_key(
    db: &mut SqliteConnection,
    spki_sha256: &[u8; 32],
) -> Result<Option<Certificate>, LedgerError> {
    let row = query(
        "SELECT * FROM certificates AS c WHERE spki_sha256 = $1 AND NOT EXISTS \
         (SELECT 1 FROM revocations AS r WHERE r.issuer = c.issuer AND r.serial = c.serial) \
         ORDER BY not_after DESC LIMIT 1",
    )
    .bind(spki_sha256.as_slice())
    .fetch_optional(db)
    .await
    .map_err(failed("look for a certificate"))?;
    row.as_ref().map(from_row).transpose()
}

/// The certificates of one holder that are valid after `now`, newest first, at most `limit`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn list_by_holder(
    db: &mut SqliteConnection,
    role: Role,
    holder: &DeviceId,
    now: i64,
    limit: u32,
) -> Result<Vec<Certificate>, LedgerError> {
    let rows = query(
        "SELECT * FROM certificates WHERE role = $1 AND holder = $2 AND not_after > $3 \
         ORDER BY not_after DESC LIMIT $4",
    )
    .bind(role.as_str())
    .bind(holder.as_str())
    .bind(now)
    .bind(limit)
    .fetch_all(db)
    .await
    .map_err(failed("list certificates"))?;
    rows.iter().map(from_row).collect()
}

/// Revokes every certificate of `holder` that is valid after `now`; returns the issuers that have
/// something new to say.
///
/// # Errors
///
/// Fails if the database does.
pub async fn revoke_holder(
    db: &mut SqliteConnection,
    role: Role,
    holder: &DeviceId,
    now: i64,
) -> Result<Vec<[u8; 32]>, LedgerError> {
    let rows = query(
        "INSERT INTO revocations (issuer, serial, revoked_at, not_after) \
         SELECT issuer, serial, $3, not_after FROM certificates \
         WHERE role = $1 AND holder = $2 AND not_after > $3 \
         ON CONFLICT DO NOTHING RETURNING issuer",
    )
    .bind(role.as_str())
    .bind(holder.as_str())
    .bind(now)
    .fetch_all(db)
    .await
    .map_err(failed("revoke certificates"))?;
    let mut issuers = rows
        .iter()
        .map(|row| blob(row, "issuer"))
        .collect::<Result<Vec<_>, _>>()?;
    issuers.sort_unstable();
    issuers.dedup();
    Ok(issuers)
}

/// The serials that the next CRL of `issuer` must carry, with the time of each revocation: those
/// of certificates that were still valid at `expired_before`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn revoked(
    db: &mut SqliteConnection,
    issuer: &[u8; 32],
    expired_before: i64,
) -> Result<Vec<(Serial, i64)>, LedgerError> {
    let rows = query(
        "SELECT serial, revoked_at FROM revocations WHERE issuer = $1 AND not_after >= $2 \
         ORDER BY serial",
    )
    .bind(issuer.as_slice())
    .bind(expired_before)
    .fetch_all(db)
    .await
    .map_err(failed("list the revoked certificates"))?;
    let entry = |row| {
        Ok((
            Serial::from_bytes(blob(row, "serial")?),
            value(row, "revoked_at")?,
        ))
    };
    rows.iter().map(entry).collect()
}

/// Forgets certificates that expired before `before`, except revoked ones and each key's last;
/// returns how many.
///
/// # Errors
///
/// Fails if the database does.
pub async fn prune(db: &mut SqliteConnection, before: i64) -> Result<u64, LedgerError> {
    let gone = query(
        "DELETE FROM certificates AS c WHERE not_after < $1 \
         AND EXISTS (SELECT 1 FROM certificates AS later \
                     WHERE later.spki_sha256 = c.spki_sha256 AND later.not_after > c.not_after) \
         AND NOT EXISTS (SELECT 1 FROM revocations AS r \
                         WHERE r.issuer = c.issuer AND r.serial = c.serial)",
    )
    .bind(before)
    .execute(db)
    .await
    .map_err(failed("forget old certificates"))?;
    Ok(gone.rows_affected())
}

fn from_row(row: &SqliteRow) -> Result<Certificate, LedgerError> {
    Ok(Certificate {
        issuer: blob(row, "issuer")?,
        serial: Serial::from_bytes(blob(row, "serial")?),
        role: parsed(row, "role")?,
        holder: parsed(row, "holder")?,
        spki_sha256: blob(row, "spki_sha256")?,
        not_before: value(row, "not_before")?,
        not_after: value(row, "not_after")?,
        der: value(row, "der")?,
    })
}
