//! Tokens that let a device in. Only their SHA-256 is kept.

use certs::name::Role;
use sqlx::{SqliteConnection, query};

use super::{LedgerError, failed, parsed, value};

/// What a token allows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    /// Who may enrol with it.
    pub role: Role,
    /// Whether nobody needs to approve.
    pub auto_approve: bool,
    /// The group that its devices join.
    pub group: Option<String>,
    /// How many more devices may use it.
    pub uses_left: u32,
    /// When it was made.
    pub created_at: i64,
    /// From when on it is worth nothing.
    pub expires_at: i64,
}

/// Records a token by its SHA-256.
///
/// # Errors
///
/// Fails if the database does.
pub async fn insert(
    db: &mut SqliteConnection,
    token_sha256: &[u8; 32],
    token: &Token,
) -> Result<(), LedgerError> {
    query(
        "INSERT INTO tokens \
         (token_sha256, role, auto_approve, device_group, uses_left, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(token_sha256.as_slice())
    .bind(token.role.as_str())
    .bind(token.auto_approve)
    .bind(token.group.as_deref())
    .bind(token.uses_left)
    .bind(token.created_at)
    .bind(token.expires_at)
    .execute(db)
    .await
    .map_err(failed("record a token"))?;
    Ok(())
}

/// Takes one use of the token for `role` at `now`. `None` if there is no such token, it is for
/// another role, used up or expired: the caller is not to tell which.
///
/// # Errors
///
/// Fails if the database does.
pub async fn take(
    db: &mut SqliteConnection,
    token_sha256: &[u8; 32],
    role: Role,
    now: i64,
) -> Result<Option<Token>, LedgerError> {
    let row = query(
        "UPDATE tokens SET uses_left = uses_left - 1 \
         WHERE token_sha256 = $1 AND role = $2 AND uses_left > 0 AND expires_at > $3 \
         RETURNING role, auto_approve, device_group, uses_left, created_at, expires_at",
    )
    .bind(token_sha256.as_slice())
    .bind(role.as_str())
    .bind(now)
    .fetch_optional(db)
    .await
    .map_err(failed("use a token"))?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Token {
        role: parsed(&row, "role")?,
        auto_approve: value(&row, "auto_approve")?,
        group: value(&row, "device_group")?,
        uses_left: value(&row, "uses_left")?,
        created_at: value(&row, "created_at")?,
        expires_at: value(&row, "expires_at")?,
    }))
}

/// Removes what expired before `now` or is used up; returns how many.
///
/// # Errors
///
/// Fails if the database does.
pub async fn prune(db: &mut SqliteConnection, now: i64) -> Result<u64, LedgerError> {
    let gone = query("DELETE FROM tokens WHERE expires_at <= $1 OR uses_left = 0")
        .bind(now)
        .execute(db)
        .await
        .map_err(failed("remove old tokens"))?;
    Ok(gone.rows_affected())
}
