//! What reporters had to give up for want of room.

use sqlx::{SqliteConnection, query};

use crate::ledger::{LedgerError, failed, value};

/// How many refusals one reporter gave up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dropped {
    /// Who: role and id.
    pub reporter: String,
    /// How many, over all its runs.
    pub total: i64,
    /// When that rose last, by the origin's clock.
    pub last_at: i64,
}

/// Takes note that `reporter` says at `now` that it has given up `told` since its start; how many
/// of them are new. A number that has fallen is that of a new start.
///
/// # Errors
///
/// Fails if the database does.
pub async fn note(
    db: &mut SqliteConnection,
    reporter: &str,
    told: u64,
    now: i64,
) -> Result<u64, LedgerError> {
    let told = i64::try_from(told).unwrap_or(i64::MAX);
    let known = query("SELECT told FROM report_drops WHERE reporter = $1")
        .bind(reporter)
        .fetch_optional(&mut *db)
        .await
        .map_err(failed("look what was dropped"))?;
    let known = known.map(|row| value::<i64>(&row, "told")).transpose()?;
    let before = known.unwrap_or(0);
    if told == before {
        return Ok(0);
    }
    let new = if told < before { told } else { told - before };
    // Whoever lies about it lies about itself; the sum must not overflow for it.
    let new = new.min(NEW_MAX);
    query(
        "INSERT INTO report_drops (reporter, told, total, last_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (reporter) DO UPDATE SET told = $2, \
         total = min(total, $5) + $3, last_at = CASE WHEN $3 > 0 THEN $4 ELSE last_at END",
    )
    .bind(reporter)
    .bind(told)
    .bind(new)
    .bind(now)
    .bind(i64::MAX - NEW_MAX)
    .execute(db)
    .await
    .map_err(failed("note what was dropped"))?;
    Ok(u64::try_from(new).unwrap_or_default())
}

/// Who dropped something, of which the origin heard at `since` or later; with `reporter`, only that
/// one. Who dropped most comes first, at most `limit`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn list(
    db: &mut SqliteConnection,
    reporter: Option<&str>,
    since: i64,
    limit: u32,
) -> Result<Vec<Dropped>, LedgerError> {
    let rows = query(
        "SELECT reporter, total, last_at FROM report_drops \
         WHERE last_at >= $1 AND total > 0 AND ($2 IS NULL OR reporter = $2) \
         ORDER BY total DESC, reporter LIMIT $3",
    )
    .bind(since)
    .bind(reporter)
    .bind(limit)
    .fetch_all(db)
    .await
    .map_err(failed("list what was dropped"))?;
    let dropped = |row| {
        Ok(Dropped {
            reporter: value(row, "reporter")?,
            total: value(row, "total")?,
            last_at: value(row, "last_at")?,
        })
    };
    rows.iter().map(dropped).collect()
}

/// As many as a flood makes a party give up between two bodies, and far more.
const NEW_MAX: i64 = 1 << 32;
