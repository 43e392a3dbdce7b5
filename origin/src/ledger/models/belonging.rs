//! Which devices belong where, and what single devices hold.

use std::collections::{BTreeMap, BTreeSet};

use certs::DeviceId;
use content::FilesetName;
use sqlx::{SqliteConnection, query};

use super::super::{LedgerError, devices, failed, parsed, smart, value};
use super::entry;
use crate::model::key::{GroupName, Key, Whom};
use crate::model::value::{Association, Value};

/// What the ledger says of one device: its groups, and what it holds by itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Belongs {
    /// Its groups, without `all`: those that are named, and those by rules.
    pub groups: BTreeSet<GroupName>,
    /// Those that the model names it a member of, and that of its token.
    pub named: BTreeSet<GroupName>,
    /// The smart groups whose rules it fits.
    pub by_rule: BTreeSet<GroupName>,
    /// The group of its token, which is its site as far as anybody knows.
    pub site: Option<String>,
    /// What it holds by itself.
    pub own: BTreeMap<FilesetName, Association>,
}

/// Of `ids`, those that are clients of ours, and where they belong by the current model.
///
/// # Errors
///
/// Fails if the database does.
pub async fn belonging(
    db: &mut SqliteConnection,
    ids: &[DeviceId],
) -> Result<BTreeMap<DeviceId, Belongs>, LedgerError> {
    let named = devices::json(ids);
    let rows = query(
        "SELECT id, device_group FROM devices WHERE id IN (SELECT value FROM json_each($1)) \
         AND role = 'client' AND state = 'enrolled'",
    )
    .bind(&named)
    .fetch_all(&mut *db)
    .await
    .map_err(failed("look for devices"))?;
    let mut found = BTreeMap::new();
    for row in &rows {
        let site: Option<String> = value(row, "device_group")?;
        let named = site.iter().filter_map(|name| name.parse().ok()).collect();
        let belongs = Belongs {
            named,
            site,
            ..Belongs::default()
        };
        found.insert(parsed(row, "id")?, belongs);
    }
    let rows = query(
        "SELECT key, body FROM entries WHERE device IN (SELECT value FROM json_each($1)) \
         AND kind IN ('member', 'device-association') AND until_model IS NULL",
    )
    .bind(&named)
    .fetch_all(&mut *db)
    .await
    .map_err(failed("look where devices belong"))?;
    for row in &rows {
        match entry(row)? {
            (Key::Member(group, device), _) => {
                if let Some(belongs) = found.get_mut(&device) {
                    belongs.named.insert(group);
                }
            }
            (Key::Association(name, Whom::Device(device)), Value::Association(said)) => {
                if let Some(belongs) = found.get_mut(&device) {
                    belongs.own.insert(name, said);
                }
            }
            (_, _) => return Err(LedgerError::Malformed { what: "an entry" }),
        }
    }
    for (device, groups) in smart::members(db, ids).await? {
        if let Some(belongs) = found.get_mut(&device) {
            belongs.by_rule = groups;
        }
    }
    for belongs in found.values_mut() {
        belongs.groups = belongs.named.union(&belongs.by_rule).cloned().collect();
    }
    Ok(found)
}

/// The devices of the group `group`, by the current model, their tokens or its rule; of `all`, every
/// client of ours.
///
/// # Errors
///
/// Fails if the database does.
pub async fn of_group(
    db: &mut SqliteConnection,
    group: &GroupName,
) -> Result<Vec<DeviceId>, LedgerError> {
    let found = if group.is_all() {
        query("SELECT id FROM devices WHERE role = 'client' AND state = 'enrolled'")
            .fetch_all(db)
            .await
    } else {
        query(
            "SELECT id FROM devices WHERE role = 'client' AND device_group = $1 \
             UNION SELECT device FROM entries \
             WHERE device_group = $1 AND kind = 'member' AND until_model IS NULL \
             UNION SELECT device FROM smart_members WHERE device_group = $1",
        )
        .bind(group.as_str())
        .fetch_all(db)
        .await
    };
    let rows = found.map_err(failed("list a group"))?;
    rows.iter().map(|row| parsed(row, "id")).collect()
}

/// The devices that the current model or their tokens name as members of `group`; of `all`, every
/// client of ours.
///
/// # Errors
///
/// Fails if the database does.
pub async fn named(
    db: &mut SqliteConnection,
    group: &GroupName,
) -> Result<Vec<DeviceId>, LedgerError> {
    if group.is_all() {
        return of_group(db, group).await;
    }
    let rows = query(
        "SELECT id FROM devices WHERE role = 'client' AND device_group = $1 \
         UNION SELECT device FROM entries \
         WHERE device_group = $1 AND kind = 'member' AND until_model IS NULL",
    )
    .bind(group.as_str())
    .fetch_all(db)
    .await
    .map_err(failed("list a group"))?;
    rows.iter().map(|row| parsed(row, "id")).collect()
}

/// Those of `ids` that no party bears, whatever its state.
///
/// # Errors
///
/// Fails if the database does.
pub async fn unknown(
    db: &mut SqliteConnection,
    ids: &[DeviceId],
) -> Result<Vec<DeviceId>, LedgerError> {
    let rows = query(
        "SELECT value AS id FROM json_each($1) \
         WHERE value NOT IN (SELECT id FROM devices WHERE role = 'client') ORDER BY 1",
    )
    .bind(devices::json(ids))
    .fetch_all(db)
    .await
    .map_err(failed("look for devices"))?;
    rows.iter().map(|row| parsed(row, "id")).collect()
}
