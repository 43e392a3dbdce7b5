//! Scripts that filesets of the model name, by the digest of their bytes.

use content::Digest;
use sqlx::{SqliteConnection, query};

use super::{LedgerError, failed, value};

/// Keeps a script; its digest.
///
/// # Errors
///
/// Fails if the database does.
pub async fn put(db: &mut SqliteConnection, bytes: &[u8], now: i64) -> Result<Digest, LedgerError> {
    let digest = Digest::of(bytes);
    query(
        "INSERT INTO scripts (digest, bytes, added_at) VALUES ($1, $2, $3) \
         ON CONFLICT (digest) DO UPDATE SET added_at = excluded.added_at",
    )
    .bind(digest.as_raw().as_slice())
    .bind(bytes)
    .bind(now)
    .execute(db)
    .await
    .map_err(failed("keep a script"))?;
    Ok(digest)
}

/// The script called `digest`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn find(
    db: &mut SqliteConnection,
    digest: Digest,
) -> Result<Option<Vec<u8>>, LedgerError> {
    let row = query("SELECT bytes FROM scripts WHERE digest = $1")
        .bind(digest.as_raw().as_slice())
        .fetch_optional(db)
        .await
        .map_err(failed("look for a script"))?;
    row.map(|row| value(&row, "bytes")).transpose()
}
