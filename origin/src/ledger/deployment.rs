//! The one row about the deployment itself.

use certs::name::{DeploymentId, DeviceId};
use sqlx::{SqliteConnection, query};

use super::{LedgerError, failed, parsed, value};

/// What `init` decided.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Deployment {
    /// Its name.
    pub id: DeploymentId,
    /// The origin's own id.
    pub origin_id: DeviceId,
    /// Where others reach the origin: a host name or address, without a port.
    pub host: String,
    /// When it was made.
    pub created_at: i64,
}

/// Writes the row, once in the life of a database.
///
/// # Errors
///
/// Fails if it is there already.
pub async fn insert(db: &mut SqliteConnection, new: &Deployment) -> Result<(), LedgerError> {
    query(
        "INSERT INTO deployment (one, id, origin_id, host, created_at) \
         VALUES (1, $1, $2, $3, $4)",
    )
    .bind(new.id.as_str())
    .bind(new.origin_id.as_str())
    .bind(&new.host)
    .bind(new.created_at)
    .execute(db)
    .await
    .map_err(failed("record the deployment"))?;
    Ok(())
}

/// Reads the row. `None` before `init`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn find(db: &mut SqliteConnection) -> Result<Option<Deployment>, LedgerError> {
    let row = query("SELECT id, origin_id, host, created_at FROM deployment WHERE one = 1")
        .fetch_optional(db)
        .await
        .map_err(failed("read the deployment"))?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Deployment {
        id: parsed(&row, "id")?,
        origin_id: parsed(&row, "origin_id")?,
        host: value(&row, "host")?,
        created_at: value(&row, "created_at")?,
    }))
}
