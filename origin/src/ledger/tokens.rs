//! Tokens that let a device in. Only their SHA-256 is kept.

use std::fmt;
use std::str::FromStr;

use certs::name::{DeviceId, Role};
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};
use thiserror::Error;

use super::{LedgerError, blob, failed, parsed, value};

/// What a token allows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    /// Who may enrol with it.
    pub role: Role,
    /// Whether nobody needs to approve.
    pub auto_approve: bool,
    /// The group that its devices join.
    pub group: Option<String>,
    /// The one name that may be claimed with it; none if any may.
    pub device: Option<DeviceId>,
    /// How many devices could use it when it was made.
    pub uses: u32,
    /// How many more may.
    pub uses_left: u32,
    /// When it was made.
    pub created_at: i64,
    /// From when on it is worth nothing.
    pub expires_at: i64,
}

/// What a token is called: the first 8 bytes of its SHA-256, written as 16 digits. It tells tokens
/// apart, and lets nobody in.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TokenId([u8; 8]);

/// A text that names no token.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("cannot read a token's id: want 16 lower-case hexadecimal digits")]
pub struct TokenIdError;

impl TokenId {
    /// What the token with this SHA-256 is called.
    #[must_use]
    pub fn of(token_sha256: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *token_sha256;
        Self([a, b, c, d, e, f, g, h])
    }

    /// Takes back an id that was stored.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for TokenId {
    type Err = TokenIdError;

    fn from_str(text: &str) -> Result<Self, TokenIdError> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 16 || !text.bytes().all(is_digit) {
            return Err(TokenIdError);
        }
        let number = u64::from_str_radix(text, 16).map_err(|_| TokenIdError)?;
        Ok(Self(number.to_be_bytes()))
    }
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
        "INSERT INTO tokens (token_sha256, role, auto_approve, device_group, device, uses, \
         uses_left, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(token_sha256.as_slice())
    .bind(token.role.as_str())
    .bind(token.auto_approve)
    .bind(token.group.as_deref())
    .bind(token.device.as_ref().map(DeviceId::as_str))
    .bind(token.uses)
    .bind(token.uses_left)
    .bind(token.created_at)
    .bind(token.expires_at)
    .execute(db)
    .await
    .map_err(failed("record a token"))?;
    Ok(())
}

/// Takes one use of the token at `now`, for a party of `role` that claims to be called `device`.
/// `None` if there is no such token, it is for another role or name, used up or expired: the
/// caller is not to tell which.
///
/// # Errors
///
/// Fails if the database does.
pub async fn take(
    db: &mut SqliteConnection,
    token_sha256: &[u8; 32],
    role: Role,
    device: &DeviceId,
    now: i64,
) -> Result<Option<Token>, LedgerError> {
    let row = query(
        "UPDATE tokens SET uses_left = uses_left - 1 \
         WHERE token_sha256 = $1 AND role = $2 AND (device IS NULL OR device = $3) \
         AND uses_left > 0 AND expires_at > $4 RETURNING *",
    )
    .bind(token_sha256.as_slice())
    .bind(role.as_str())
    .bind(device.as_str())
    .bind(now)
    .fetch_optional(db)
    .await
    .map_err(failed("use a token"))?;
    row.as_ref().map(from_row).transpose()
}

/// Whether somebody could still use the token at `now`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn is_good(
    db: &mut SqliteConnection,
    token_sha256: &[u8; 32],
    now: i64,
) -> Result<bool, LedgerError> {
    let row =
        query("SELECT 1 FROM tokens WHERE token_sha256 = $1 AND uses_left > 0 AND expires_at > $2")
            .bind(token_sha256.as_slice())
            .bind(now)
            .fetch_optional(db)
            .await
            .map_err(failed("look for a token"))?;
    Ok(row.is_some())
}

/// At most `limit` tokens after the one called `after`, by id.
///
/// # Errors
///
/// Fails if the database does.
pub async fn list(
    db: &mut SqliteConnection,
    after: Option<TokenId>,
    limit: u32,
) -> Result<Vec<(TokenId, Token)>, LedgerError> {
    let rows = query(
        "SELECT * FROM tokens WHERE $1 IS NULL OR substr(token_sha256, 1, 8) > $1 \
         ORDER BY token_sha256 LIMIT $2",
    )
    .bind(after.map(|id| id.0.to_vec()))
    .bind(limit)
    .fetch_all(db)
    .await
    .map_err(failed("list the tokens"))?;
    let listed = |row| Ok((TokenId::of(&blob(row, "token_sha256")?), from_row(row)?));
    rows.iter().map(listed).collect()
}

/// Removes the token called `id`, and returns what it allowed. `None` if there is none.
///
/// # Errors
///
/// Fails if the database does.
pub async fn remove(db: &mut SqliteConnection, id: TokenId) -> Result<Option<Token>, LedgerError> {
    let row = query("DELETE FROM tokens WHERE substr(token_sha256, 1, 8) = $1 RETURNING *")
        .bind(id.0.as_slice())
        .fetch_optional(db)
        .await
        .map_err(failed("revoke a token"))?;
    row.as_ref().map(from_row).transpose()
}

/// Removes what expired before `now`; returns how many. Those that are used up stay until then,
/// for whoever asks who came with which.
///
/// # Errors
///
/// Fails if the database does.
pub async fn prune(db: &mut SqliteConnection, now: i64) -> Result<u64, LedgerError> {
    let gone = query("DELETE FROM tokens WHERE expires_at <= $1")
        .bind(now)
        .execute(db)
        .await
        .map_err(failed("remove old tokens"))?;
    Ok(gone.rows_affected())
}

fn from_row(row: &SqliteRow) -> Result<Token, LedgerError> {
    let device: Option<&str> = value(row, "device")?;
    let device = device.map(str::parse).transpose();
    Ok(Token {
        role: parsed(row, "role")?,
        auto_approve: value(row, "auto_approve")?,
        group: value(row, "device_group")?,
        device: device.map_err(|_| LedgerError::Malformed { what: "device" })?,
        uses: value(row, "uses")?,
        uses_left: value(row, "uses_left")?,
        created_at: value(row, "created_at")?,
        expires_at: value(row, "expires_at")?,
    })
}
