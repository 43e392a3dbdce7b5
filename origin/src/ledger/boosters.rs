//! Where boosters say that they serve.

use certs::DeviceId;
use protocol::BoosterAddresses;
use sqlx::{SqliteConnection, query};

use super::{LedgerError, failed, parsed, value};

/// A booster that has said where it serves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Booster {
    /// Its name.
    pub id: DeviceId,
    /// Where it serves content, as `host:port`.
    pub addresses: Vec<String>,
    /// Where it relays enrolment.
    pub enrol_addresses: Vec<String>,
    /// The site that it stands in: the group that its token named.
    pub site: Option<String>,
}

/// Notes where the booster `id` serves.
///
/// # Errors
///
/// Fails if the database does, or if there is no such device.
pub async fn put_addresses(
    db: &mut SqliteConnection,
    id: &DeviceId,
    addresses: &[String],
    enrol_addresses: &[String],
    now: i64,
) -> Result<(), LedgerError> {
    query(
        "INSERT INTO booster_addresses (booster, addresses, enrol_addresses, updated_at) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (booster) DO UPDATE SET \
         addresses = excluded.addresses, enrol_addresses = excluded.enrol_addresses, \
         updated_at = excluded.updated_at",
    )
    .bind(id.as_str())
    .bind(addresses.join(" "))
    .bind(enrol_addresses.join(" "))
    .bind(now)
    .execute(db)
    .await
    .map_err(failed("note where a booster is"))?;
    Ok(())
}

/// Where the booster `id` said last that it serves.
///
/// # Errors
///
/// Fails if the database does.
pub async fn addresses(
    db: &mut SqliteConnection,
    id: &DeviceId,
) -> Result<Option<BoosterAddresses>, LedgerError> {
    let found =
        query("SELECT addresses, enrol_addresses FROM booster_addresses WHERE booster = $1")
            .bind(id.as_str())
            .fetch_optional(db)
            .await
            .map_err(failed("look where a booster is"))?;
    let said = |row| {
        Ok(BoosterAddresses {
            content: words(value(&row, "addresses")?),
            enrol: words(value(&row, "enrol_addresses")?),
        })
    };
    found.map(said).transpose()
}

/// The enrolled boosters that have said where they serve, in order of their names.
///
/// # Errors
///
/// Fails if the database does.
pub async fn list(db: &mut SqliteConnection) -> Result<Vec<Booster>, LedgerError> {
    let rows = query(
        "SELECT devices.id, device_group, addresses, enrol_addresses \
         FROM booster_addresses JOIN devices ON devices.id = booster \
         WHERE role = 'booster' AND state = 'enrolled' ORDER BY devices.id",
    )
    .fetch_all(db)
    .await
    .map_err(failed("list the boosters"))?;
    rows.iter()
        .map(|row| {
            Ok(Booster {
                id: parsed(row, "id")?,
                addresses: words(value(row, "addresses")?),
                enrol_addresses: words(value(row, "enrol_addresses")?),
                site: value(row, "device_group")?,
            })
        })
        .collect()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
