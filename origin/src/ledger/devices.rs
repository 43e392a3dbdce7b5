//! Devices: boosters and clients, from their first request to their end.

mod stage;

use std::fmt;
use std::str::FromStr;

use certs::crl::RevocationReason;
use certs::name::{DeviceId, Role};
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use super::tokens::TokenId;
use super::{LedgerError, blob, failed, parsed, value};

pub use stage::{Stage, find_staged, list};

/// What the origin knows of a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// Its name, unique in the deployment whatever its role.
    pub id: DeviceId,
    /// Booster or client.
    pub role: Role,
    /// How far it has come.
    pub state: State,
    /// Its public key in DER.
    pub spki: Vec<u8>,
    /// SHA-256 of that.
    pub spki_sha256: [u8; 32],
    /// The group that it belongs to.
    pub group: Option<String>,
    /// Where its request came from: a hint.
    pub address: Option<String>,
    /// What it says of itself. Unverified.
    pub claims: Option<String>,
    /// Whether it came with a token.
    pub with_token: bool,
    /// With which.
    pub token: Option<TokenId>,
    /// When it first asked.
    pub requested_at: i64,
    /// When somebody, or a token, decided about it.
    pub decided_at: Option<i64>,
    /// Why it was revoked.
    pub revoked_for: Option<RevocationReason>,
    /// When it was last heard of in enrolment.
    pub seen_at: i64,
}

/// How far a device has come.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum State {
    /// Somebody has to look at it.
    Pending,
    /// It may fetch its certificate.
    Approved,
    /// It has a certificate.
    Enrolled,
    /// Its key was turned down.
    Denied,
    /// It belonged to us once.
    Revoked,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Approved,
        Self::Enrolled,
        Self::Denied,
        Self::Revoked,
    ];

    /// The state as it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Enrolled => "enrolled",
            Self::Denied => "denied",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = LedgerError;

    fn from_str(text: &str) -> Result<Self, LedgerError> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or(LedgerError::Malformed {
            what: "a device's state",
        })
    }
}

/// Records a new device, in place of one of the same name that was denied or revoked.
///
/// # Errors
///
/// Fails if the name or the key belongs to another device, or the database does not answer.
pub async fn insert(db: &mut SqliteConnection, new: &Device) -> Result<(), LedgerError> {
    query("DELETE FROM devices WHERE id = $1 AND state IN ('denied', 'revoked')")
        .bind(new.id.as_str())
        .execute(&mut *db)
        .await
        .map_err(failed("replace a device"))?;
    query(
        "INSERT INTO devices (id, role, state, spki, spki_sha256, device_group, address, claims, \
         with_token, requested_at, decided_at, seen_at, token_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(new.id.as_str())
    .bind(new.role.as_str())
    .bind(new.state.as_str())
    .bind(&new.spki)
    .bind(new.spki_sha256.as_slice())
    .bind(new.group.as_deref())
    .bind(new.address.as_deref())
    .bind(new.claims.as_deref())
    .bind(new.with_token)
    .bind(new.requested_at)
    .bind(new.decided_at)
    .bind(new.seen_at)
    .bind(new.token.map(|token| token.as_bytes().to_vec()))
    .execute(db)
    .await
    .map_err(failed("record a device"))?;
    Ok(())
}

/// The device called `id`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn find(db: &mut SqliteConnection, id: &DeviceId) -> Result<Option<Device>, LedgerError> {
    let row = query("SELECT * FROM devices WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(db);
    row.await
        .map_err(failed("look for a device"))?
        .as_ref()
        .map(from_row)
        .transpose()
}

/// The device whose key has the SHA-256 `spki_sha256`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn find_by_key(
    db: &mut SqliteConnection,
    spki_sha256: &[u8; 32],
) -> Result<Option<Device>, LedgerError> {
    let row = query("SELECT * FROM devices WHERE spki_sha256 = $1")
        .bind(spki_sha256.as_slice())
        .fetch_optional(db);
    row.await
        .map_err(failed("look for a device"))?
        .as_ref()
        .map(from_row)
        .transpose()
}

/// Moves a device to `state`. A decision (`decided_at`) is recorded where there is one.
///
/// # Errors
///
/// Fails if the database does.
pub async fn change(
    db: &mut SqliteConnection,
    id: &DeviceId,
    state: State,
    decided_at: Option<i64>,
) -> Result<(), LedgerError> {
    query("UPDATE devices SET state = $2, decided_at = coalesce($3, decided_at) WHERE id = $1")
        .bind(id.as_str())
        .bind(state.as_str())
        .bind(decided_at)
        .execute(db)
        .await
        .map_err(failed("change a device"))?;
    Ok(())
}

/// Binds a device to a new key, for which it has proved that it holds the old one.
///
/// # Errors
///
/// Fails if the key belongs to another device, or the database does not answer.
pub async fn rekey(
    db: &mut SqliteConnection,
    id: &DeviceId,
    spki: &[u8],
    spki_sha256: &[u8; 32],
) -> Result<(), LedgerError> {
    query("UPDATE devices SET spki = $2, spki_sha256 = $3 WHERE id = $1")
        .bind(id.as_str())
        .bind(spki)
        .bind(spki_sha256.as_slice())
        .execute(db)
        .await
        .map_err(failed("rekey a device"))?;
    Ok(())
}

/// Somebody who is to be revoked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Doomed {
    /// The name that was said.
    pub id: DeviceId,
    /// What it is; none if there is no such device.
    pub role: Option<Role>,
    /// How far it has come.
    pub state: Option<State>,
}

/// Looks up each of `ids` once.
///
/// # Errors
///
/// Fails if the database does.
pub async fn doomed(
    db: &mut SqliteConnection,
    ids: &[DeviceId],
) -> Result<Vec<Doomed>, LedgerError> {
    let rows = query(
        "SELECT DISTINCT named.value AS id, d.role, d.state FROM json_each($1) AS named \
         LEFT JOIN devices AS d ON d.id = named.value ORDER BY 1",
    )
    .bind(json(ids))
    .fetch_all(db)
    .await
    .map_err(failed("look for devices"))?;
    let doomed = |row| {
        let found: Option<&str> = value(row, "state")?;
        Ok(Doomed {
            id: parsed(row, "id")?,
            role: found.map(|_| parsed(row, "role")).transpose()?,
            state: found.map(|_| parsed(row, "state")).transpose()?,
        })
    };
    rows.iter().map(doomed).collect()
}

/// Moves devices to the end of their time with us.
///
/// # Errors
///
/// Fails if the database does.
pub async fn revoke(
    db: &mut SqliteConnection,
    ids: &[DeviceId],
    reason: RevocationReason,
    now: i64,
) -> Result<(), LedgerError> {
    query(
        "UPDATE devices SET state = 'revoked', decided_at = $3, revoked_for = $2 \
         WHERE id IN (SELECT value FROM json_each($1))",
    )
    .bind(json(ids))
    .bind(reason.code())
    .bind(now)
    .execute(db)
    .await
    .map_err(failed("revoke devices"))?;
    Ok(())
}

/// Notes that a pending device has brought a token meanwhile, and joins the token's group.
///
/// # Errors
///
/// Fails if the database does.
pub async fn bring_token(
    db: &mut SqliteConnection,
    id: &DeviceId,
    token: TokenId,
    group: Option<&str>,
) -> Result<(), LedgerError> {
    query(
        "UPDATE devices SET with_token = 1, token_id = $2, \
         device_group = coalesce($3, device_group) WHERE id = $1",
    )
    .bind(id.as_str())
    .bind(token.as_bytes().as_slice())
    .bind(group)
    .execute(db)
    .await
    .map_err(failed("note a token"))?;
    Ok(())
}

/// Puts a device that was enrolled once back into the operator's queue, as it asks now from
/// `address`. Whatever token it came with then counts no more.
///
/// # Errors
///
/// Fails if the database does.
pub async fn ask_again(
    db: &mut SqliteConnection,
    id: &DeviceId,
    address: &str,
    claims: Option<&str>,
) -> Result<(), LedgerError> {
    query(
        "UPDATE devices SET state = 'pending', with_token = 0, token_id = NULL, address = $2, \
         claims = $3 WHERE id = $1",
    )
    .bind(id.as_str())
    .bind(address)
    .bind(claims)
    .execute(db)
    .await
    .map_err(failed("queue a device"))?;
    Ok(())
}

/// Notes that a device was heard of at `now`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn seen(db: &mut SqliteConnection, id: &DeviceId, now: i64) -> Result<(), LedgerError> {
    query("UPDATE devices SET seen_at = $2 WHERE id = $1")
        .bind(id.as_str())
        .bind(now)
        .execute(db)
        .await
        .map_err(failed("note a device"))?;
    Ok(())
}

/// How many devices are in each state.
///
/// # Errors
///
/// Fails if the database does.
pub async fn count_by_state(db: &mut SqliteConnection) -> Result<Vec<(State, i64)>, LedgerError> {
    let rows = query("SELECT state, count(*) AS n FROM devices GROUP BY state")
        .fetch_all(db)
        .await
        .map_err(failed("count the devices"))?;
    rows.iter()
        .map(|row| Ok((parsed(row, "state")?, value(row, "n")?)))
        .collect()
}

/// How many requests are pending: in all, and those without a token from `address`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn count_pending(
    db: &mut SqliteConnection,
    address: &str,
) -> Result<(i64, i64), LedgerError> {
    let row = query(
        "SELECT count(*) AS total, \
         coalesce(sum(address = $1 AND NOT with_token), 0) AS here \
         FROM devices WHERE state = 'pending'",
    )
    .bind(address)
    .fetch_one(db)
    .await
    .map_err(failed("count the pending requests"))?;
    Ok((value(&row, "total")?, value(&row, "here")?))
}

/// Forgets pending requests that were last repeated before `before`; returns how many. A device
/// that had been enrolled before keeps its name: it only waits no more.
///
/// # Errors
///
/// Fails if the database does.
pub async fn prune_pending(db: &mut SqliteConnection, before: i64) -> Result<u64, LedgerError> {
    let kept = query(
        "UPDATE devices SET state = 'enrolled' \
         WHERE state = 'pending' AND seen_at < $1 AND decided_at IS NOT NULL",
    );
    kept.bind(before)
        .execute(&mut *db)
        .await
        .map_err(failed("take a device out of the queue"))?;
    let gone = query("DELETE FROM devices WHERE state = 'pending' AND seen_at < $1")
        .bind(before)
        .execute(db)
        .await
        .map_err(failed("forget old requests"))?;
    Ok(gone.rows_affected())
}

fn from_row(row: &SqliteRow) -> Result<Device, LedgerError> {
    let token: Option<Vec<u8>> = value(row, "token_id")?;
    let token = token.map(<[u8; 8]>::try_from).transpose();
    let revoked_for: Option<u8> = value(row, "revoked_for")?;
    Ok(Device {
        id: parsed(row, "id")?,
        role: parsed(row, "role")?,
        state: parsed(row, "state")?,
        spki: value(row, "spki")?,
        spki_sha256: blob(row, "spki_sha256")?,
        group: value(row, "device_group")?,
        address: value(row, "address")?,
        claims: value(row, "claims")?,
        with_token: value(row, "with_token")?,
        token: token
            .map_err(|_| LedgerError::Malformed { what: "token_id" })?
            .map(TokenId::from_bytes),
        requested_at: value(row, "requested_at")?,
        decided_at: value(row, "decided_at")?,
        revoked_for: revoked_for.map(RevocationReason::from_code),
        seen_at: value(row, "seen_at")?,
    })
}

/// Names as SQLite takes many at once.
pub(super) fn json(ids: &[DeviceId]) -> String {
    // A name has neither quotes nor backslashes.
    let quoted: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    format!("[{}]", quoted.join(","))
}
