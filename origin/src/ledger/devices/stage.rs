//! How far devices have come, as an operator is told.

use std::fmt;
use std::str::FromStr;

use certs::name::DeviceId;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, SqliteConnection, query};

use super::{Device, State, from_row};
use crate::ledger::{LedgerError, failed, parsed};

/// How far a device has come, as an operator is told: its state, and for one that is enrolled what
/// has become of its certificate since.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Stage {
    /// As it is stored.
    Stored(State),
    /// Enrolled, and over half of its certificate's life: it should be renewing.
    Renewing,
    /// Enrolled once, and its certificate is over.
    Expired,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 7] = [
        Self::Stored(State::Pending),
        Self::Stored(State::Approved),
        Self::Stored(State::Enrolled),
        Self::Renewing,
        Self::Expired,
        Self::Stored(State::Denied),
        Self::Stored(State::Revoked),
    ];

    /// The stage as it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored(state) => state.as_str(),
            Self::Renewing => "renewing",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Stage {
    type Err = LedgerError;

    fn from_str(text: &str) -> Result<Self, LedgerError> {
        let found = Self::ALL.into_iter().find(|stage| stage.as_str() == text);
        found.ok_or(LedgerError::Malformed {
            what: "a device's stage",
        })
    }
}

/// Every device with its stage at the time `$1`, which the last certificate of its key tells.
const STAGED: &str = "SELECT *, CASE \
     WHEN state <> 'enrolled' THEN state \
     WHEN ends <= $1 THEN 'expired' \
     WHEN begins + ends <= 2 * $1 THEN 'renewing' \
     ELSE state END AS stage \
     FROM (SELECT d.*, \
       (SELECT c.not_before FROM certificates AS c WHERE c.spki_sha256 = d.spki_sha256 \
        ORDER BY c.not_after DESC LIMIT 1) AS begins, \
       (SELECT max(c.not_after) FROM certificates AS c \
        WHERE c.spki_sha256 = d.spki_sha256) AS ends \
       FROM devices AS d WHERE d.id > $2 OR d.id = $3)";

/// At most `limit` devices after the name `after`, by name, each with its stage at `now`; with
/// `stage`, only those in it.
///
/// # Errors
///
/// Fails if the database does.
pub async fn list(
    db: &mut SqliteConnection,
    stage: Option<Stage>,
    after: &str,
    limit: u32,
    now: i64,
) -> Result<Vec<(Device, Stage)>, LedgerError> {
    // A constant and a constant: nothing of it comes from outside.
    let sql = format!("{STAGED} WHERE $4 IS NULL OR stage = $4 ORDER BY id LIMIT $5");
    let rows = query(AssertSqlSafe(sql))
        .bind(now)
        .bind(after)
        .bind(None::<&str>)
        .bind(stage.map(Stage::as_str))
        .bind(limit)
        .fetch_all(db)
        .await
        .map_err(failed("list the devices"))?;
    rows.iter().map(staged_from_row).collect()
}

/// The device called `id`, with its stage at `now`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn find_staged(
    db: &mut SqliteConnection,
    id: &DeviceId,
    now: i64,
) -> Result<Option<(Device, Stage)>, LedgerError> {
    let row = query(AssertSqlSafe(STAGED.to_owned()))
        .bind(now)
        .bind(None::<&str>)
        .bind(id.as_str())
        .fetch_optional(db)
        .await
        .map_err(failed("look for a device"))?;
    row.as_ref().map(staged_from_row).transpose()
}

fn staged_from_row(row: &SqliteRow) -> Result<(Device, Stage), LedgerError> {
    Ok((from_row(row)?, parsed(row, "stage")?))
}
