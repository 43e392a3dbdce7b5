//! Certificates that were issued, and those that were revoked.

use certs::crl::{RevocationReason, RevokedCert};
use certs::name::{DeviceId, Role};
use certs::serial::Serial;
use futures_util::StreamExt as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use super::{LedgerError, blob, devices, failed, parsed, value};

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

/// The key (SHA-256 of its public key info) that the certificate `serial` of `issuer` is for.
///
/// # Errors
///
/// Fails if the database does.
pub async fn key_of(
    db: &mut SqliteConnection,
    issuer: certs::IssuerId,
    serial: Serial,
) -> Result<Option<[u8; 32]>, LedgerError> {
    let row = query("SELECT spki_sha256 FROM certificates WHERE issuer = $1 AND serial = $2")
        .bind(&issuer.as_bytes()[..])
        .bind(&serial.as_bytes()[..])
        .fetch_optional(db)
        .await
        .map_err(failed("look for a certificate's key"))?;
    row.map(|row| blob::<32>(&row, "spki_sha256")).transpose()
}

/// Revokes the certificate `serial` of an issuing CA, which is valid until `not_after`, on the list
/// of its root. Twice is no error.
///
/// # Errors
///
/// Fails if the database does.
pub async fn revoke_ca(
    db: &mut SqliteConnection,
    root: &[u8; 32],
    serial: Serial,
    not_after: i64,
    reason: RevocationReason,
    now: i64,
) -> Result<(), LedgerError> {
    query(
        "INSERT INTO revocations (issuer, serial, revoked_at, not_after, reason) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(root.as_slice())
    .bind(serial.as_bytes().as_slice())
    .bind(now)
    .bind(not_after)
    .bind(reason.code())
    .execute(db)
    .await
    .map_err(failed("revoke a CA"))?;
    Ok(())
}

/// When the last certificate of `issuer` ends. `None` if it has none.
///
/// # Errors
///
/// Fails if the database does.
pub async fn last_end(
    db: &mut SqliteConnection,
    issuer: &[u8; 32],
) -> Result<Option<i64>, LedgerError> {
    let row = query("SELECT max(not_after) AS ends FROM certificates WHERE issuer = $1")
        .bind(issuer.as_slice())
        .fetch_one(db)
        .await
        .map_err(failed("look for certificates"))?;
    value(&row, "ends")
}

/// Whether somebody of that name and role has had a certificate.
///
/// # Errors
///
/// Fails if the database does.
pub async fn is_holder(
    db: &mut SqliteConnection,
    role: Role,
    holder: &DeviceId,
) -> Result<bool, LedgerError> {
    let row = query("SELECT 1 FROM certificates WHERE role = $1 AND holder = $2 LIMIT 1")
        .bind(role.as_str())
        .bind(holder.as_str())
        .fetch_optional(db)
        .await
        .map_err(failed("look for a certificate"))?;
    Ok(row.is_some())
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

/// Revokes every certificate of the devices `holders` that is valid after `now`; returns all of
/// their issuers. Each is to sign a list then, even if it says nothing new: by a clock that is ahead
/// everything is over, and it is from that list that [`revoke_missed`] is known to be needed.
///
/// # Errors
///
/// Fails if the database does.
pub async fn revoke_holders(
    db: &mut SqliteConnection,
    holders: &[DeviceId],
    reason: RevocationReason,
    now: i64,
) -> Result<Vec<[u8; 32]>, LedgerError> {
    // An origin or a signer may bear a device's name.
    query(
        "INSERT INTO revocations (issuer, serial, revoked_at, not_after, reason) \
         SELECT issuer, serial, $2, not_after, $3 FROM certificates \
         WHERE role IN ('booster', 'client') AND not_after > $2 \
         AND holder IN (SELECT value FROM json_each($1)) ON CONFLICT DO NOTHING",
    )
    .bind(devices::json(holders))
    .bind(now)
    .bind(reason.code())
    .execute(&mut *db)
    .await
    .map_err(failed("revoke certificates"))?;
    let rows = query(
        "SELECT DISTINCT issuer FROM certificates WHERE role IN ('booster', 'client') \
         AND holder IN (SELECT value FROM json_each($1))",
    )
    .bind(devices::json(holders))
    .fetch_all(db)
    .await
    .map_err(failed("look for the issuers"))?;
    rows.iter().map(|row| blob(row, "issuer")).collect()
}

/// Revokes every certificate of `holder` for another key than `key` that is valid after `now`, as
/// superseded; returns the issuers of all that is for other keys, as [`revoke_holders`] does.
///
/// # Errors
///
/// Fails if the database does.
pub async fn supersede(
    db: &mut SqliteConnection,
    role: Role,
    holder: &DeviceId,
    key: &[u8; 32],
    now: i64,
) -> Result<Vec<[u8; 32]>, LedgerError> {
    query(
        "INSERT INTO revocations (issuer, serial, revoked_at, not_after, reason) \
         SELECT issuer, serial, $4, not_after, $5 FROM certificates \
         WHERE role = $1 AND holder = $2 AND spki_sha256 <> $3 AND not_after > $4 \
         ON CONFLICT DO NOTHING",
    )
    .bind(role.as_str())
    .bind(holder.as_str())
    .bind(key.as_slice())
    .bind(now)
    .bind(RevocationReason::Superseded.code())
    .execute(&mut *db)
    .await
    .map_err(failed("revoke what was superseded"))?;
    let rows = query(
        "SELECT DISTINCT issuer FROM certificates \
         WHERE role = $1 AND holder = $2 AND spki_sha256 <> $3",
    )
    .bind(role.as_str())
    .bind(holder.as_str())
    .bind(key.as_slice())
    .fetch_all(db)
    .await
    .map_err(failed("look for the issuers"))?;
    rows.iter().map(|row| blob(row, "issuer")).collect()
}

/// Revokes what `issuer` has issued, is valid after `now`, and should have been revoked when a clock
/// that was ahead took it for over: what revoked devices hold, and what is for keys that devices
/// have left and nobody has to be seen with any more. How many that were.
///
/// # Errors
///
/// Fails if the database does.
pub async fn revoke_missed(
    db: &mut SqliteConnection,
    issuer: &[u8; 32],
    now: i64,
) -> Result<u64, LedgerError> {
    let missed = query(
        // Device by device: each has a few that are valid, and long rows of those that are not.
        "INSERT INTO revocations (issuer, serial, revoked_at, not_after, reason) \
         SELECT c.issuer, c.serial, $2, c.not_after, \
           CASE d.state WHEN 'revoked' THEN coalesce(d.revoked_for, 0) ELSE $3 END \
         FROM devices AS d CROSS JOIN certificates AS c \
         WHERE c.role = d.role AND c.holder = d.id AND c.not_after > $2 AND c.issuer = $1 \
         AND (d.state = 'revoked' OR c.spki_sha256 <> d.spki_sha256 \
              AND NOT EXISTS (SELECT 1 FROM rekeys AS r WHERE r.device = d.id)) \
         ON CONFLICT DO NOTHING",
    )
    .bind(issuer.as_slice())
    .bind(now)
    .bind(RevocationReason::Superseded.code())
    .execute(db)
    .await
    .map_err(failed("revoke what was missed"))?;
    Ok(missed.rows_affected())
}

/// The entries of the next list of `issuer`, in the order of their serials: certificates that were
/// still valid at `expired_before`. Read one by one: a million take 32 MB, and no more on the way.
///
/// # Errors
///
/// Fails if the database does.
pub async fn revoked(
    db: &mut SqliteConnection,
    issuer: &[u8; 32],
    expired_before: i64,
) -> Result<Vec<RevokedCert>, LedgerError> {
    let count =
        query("SELECT count(*) AS n FROM revocations WHERE issuer = $1 AND not_after >= $2")
            .bind(issuer.as_slice())
            .bind(expired_before)
            .fetch_one(&mut *db)
            .await
            .map_err(failed("count the revoked certificates"))?;
    let count: u32 = value(&count, "n")?;
    let mut rows = query(
        "SELECT serial, revoked_at, reason FROM revocations \
         WHERE issuer = $1 AND not_after >= $2 ORDER BY serial",
    )
    .bind(issuer.as_slice())
    .bind(expired_before)
    .fetch(db);
    let mut entries = Vec::with_capacity(count as usize);
    while let Some(row) = rows.next().await {
        let row = row.map_err(failed("list the revoked certificates"))?;
        entries.push(RevokedCert {
            serial: Serial::from_bytes(blob(&row, "serial")?),
            revoked_at: value(&row, "revoked_at")?,
            reason: RevocationReason::from_code(value(&row, "reason")?),
        });
    }
    Ok(entries)
}

/// From when on the newest list of `issuer` counts; none if there is none.
///
/// # Errors
///
/// Fails if the database does.
pub async fn listed_at(
    db: &mut SqliteConnection,
    issuer: &[u8; 32],
) -> Result<Option<i64>, LedgerError> {
    let row = query("SELECT this_update FROM crls WHERE issuer = $1")
        .bind(issuer.as_slice())
        .fetch_optional(db)
        .await
        .map_err(failed("look for a CRL"))?;
    row.map(|row| value(&row, "this_update")).transpose()
}

/// Forgets certificates that expired before `before`, except revoked ones, and those after whose end
/// none was issued for their key: by a clock that is ahead, one that still counts has expired, and
/// what is forgotten cannot be revoked. Returns how many.
///
/// # Errors
///
/// Fails if the database does.
pub async fn prune(db: &mut SqliteConnection, before: i64) -> Result<u64, LedgerError> {
    let gone = query(
        "DELETE FROM certificates AS c WHERE not_after < $1 \
         AND EXISTS (SELECT 1 FROM certificates AS later \
                     WHERE later.spki_sha256 = c.spki_sha256 AND later.not_before > c.not_after) \
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
