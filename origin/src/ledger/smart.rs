//! Smart groups: their rules, who is in by them, and what is known of devices to tell.

use std::collections::{BTreeMap, BTreeSet};

use certs::DeviceId;
use content::Digest;
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use super::inventories::Stored;
use super::{LedgerError, blob, devices, failed, models, parsed, value};
use crate::model::key::{GroupName, Key};
use crate::model::rule::Rule;
use crate::model::value::Value;

/// Who is in which groups by rules.
pub type Members = BTreeMap<DeviceId, BTreeSet<GroupName>>;

/// What is known of a device.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its name.
    pub id: DeviceId,
    /// The group of its token.
    pub group: Option<String>,
    /// Its inventory, if one has come; without its software, if that was not asked for.
    pub stored: Option<Stored>,
}

/// The rules of the current model.
///
/// # Errors
///
/// Fails if the database does.
pub async fn rules(db: &mut SqliteConnection) -> Result<BTreeMap<GroupName, Rule>, LedgerError> {
    let rows = query(
        "SELECT key, body FROM entries \
         WHERE kind = 'group' AND until_model IS NULL AND body <> '{}'",
    )
    .fetch_all(db)
    .await
    .map_err(failed("read the rules"))?;
    let mut found = BTreeMap::new();
    for row in &rows {
        if let (Key::Group(name), Value::Group(spec)) = models::entry(row)?
            && let Some(rule) = spec.rule
        {
            found.insert(name, rule);
        }
    }
    Ok(found)
}

/// The rules that every device was held against, and when.
///
/// # Errors
///
/// Fails if the database does.
pub async fn looked(
    db: &mut SqliteConnection,
) -> Result<BTreeMap<GroupName, (String, i64)>, LedgerError> {
    let rows = query("SELECT device_group, rule, looked_at FROM smart_rules")
        .fetch_all(db)
        .await
        .map_err(failed("read which rules were looked at"))?;
    let one = |row| {
        let looked = (value(row, "rule")?, value(row, "looked_at")?);
        Ok((parsed(row, "device_group")?, looked))
    };
    rows.iter().map(one).collect()
}

/// Notes that every device was held against the rule of `group`; none if it has none any more.
///
/// # Errors
///
/// Fails if the database does.
pub async fn note_looked(
    db: &mut SqliteConnection,
    group: &GroupName,
    rule: Option<&Rule>,
    now: i64,
) -> Result<(), LedgerError> {
    let done = match rule {
        Some(rule) => {
            query(
                "INSERT INTO smart_rules (device_group, rule, looked_at) VALUES ($1, $2, $3) \
                 ON CONFLICT (device_group) DO UPDATE SET rule = excluded.rule, \
                 looked_at = excluded.looked_at",
            )
            .bind(group.as_str())
            .bind(rule.as_str())
            .bind(now)
            .execute(db)
            .await
        }
        None => {
            query("DELETE FROM smart_rules WHERE device_group = $1")
                .bind(group.as_str())
                .execute(db)
                .await
        }
    };
    done.map_err(failed("note that a rule was looked at"))?;
    Ok(())
}

/// At most `limit` clients of ours after `after`, by name; with their software if it is asked for.
///
/// # Errors
///
/// Fails if the database does.
pub async fn page(
    db: &mut SqliteConnection,
    after: &str,
    limit: u32,
    with_software: bool,
) -> Result<Vec<Known>, LedgerError> {
    let rows = query(
        "SELECT id, device_group, digest, facts, received_at, \
         CASE WHEN $3 THEN software END AS software \
         FROM devices LEFT JOIN inventories ON device = id \
         WHERE id > $1 AND role = 'client' AND state = 'enrolled' ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .bind(with_software)
    .fetch_all(db)
    .await
    .map_err(failed("look through the devices"))?;
    rows.iter().map(known).collect()
}

/// The group of the token of the device `id`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn group_of(
    db: &mut SqliteConnection,
    id: &DeviceId,
) -> Result<Option<String>, LedgerError> {
    let row = query("SELECT device_group FROM devices WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(db)
        .await
        .map_err(failed("look for a device"))?;
    row.map_or(Ok(None), |row| value(&row, "device_group"))
}

/// Which inventories of `ids` there are.
///
/// # Errors
///
/// Fails if the database does.
pub async fn digests_of(
    db: &mut SqliteConnection,
    ids: &[DeviceId],
) -> Result<BTreeMap<DeviceId, Digest>, LedgerError> {
    let rows = query(
        "SELECT device, digest FROM inventories \
         WHERE device IN (SELECT value FROM json_each($1))",
    )
    .bind(devices::json(ids))
    .fetch_all(db)
    .await
    .map_err(failed("look for inventories"))?;
    let one = |row| {
        Ok((
            parsed(row, "device")?,
            Digest::from_raw(blob(row, "digest")?),
        ))
    };
    rows.iter().map(one).collect()
}

/// In which groups `ids` are by rules.
///
/// # Errors
///
/// Fails if the database does.
pub async fn members(db: &mut SqliteConnection, ids: &[DeviceId]) -> Result<Members, LedgerError> {
    let rows = query(
        "SELECT device, device_group FROM smart_members \
         WHERE device IN (SELECT value FROM json_each($1))",
    )
    .bind(devices::json(ids))
    .fetch_all(db)
    .await
    .map_err(failed("look who is in by rules"))?;
    let mut found = Members::new();
    for row in &rows {
        let groups = found.entry(parsed(row, "device")?).or_default();
        groups.insert(parsed(row, "device_group")?);
    }
    Ok(found)
}

/// Who is in `group` by its rule.
///
/// # Errors
///
/// Fails if the database does.
pub async fn members_of(
    db: &mut SqliteConnection,
    group: &GroupName,
) -> Result<BTreeSet<DeviceId>, LedgerError> {
    let rows = query("SELECT device FROM smart_members WHERE device_group = $1")
        .bind(group.as_str())
        .fetch_all(db)
        .await
        .map_err(failed("list a smart group"))?;
    rows.iter().map(|row| parsed(row, "device")).collect()
}

/// Lets devices into groups, and others out of them.
///
/// # Errors
///
/// Fails if the database does.
pub async fn change(
    db: &mut SqliteConnection,
    come: &[(DeviceId, GroupName)],
    go: &[(DeviceId, GroupName)],
) -> Result<(), LedgerError> {
    let pairs = |pairs: &[(DeviceId, GroupName)]| {
        let pairs = pairs
            .iter()
            .map(|(id, group)| (id.as_str(), group.as_str()));
        let pairs: Vec<(&str, &str)> = pairs.collect();
        serde_json::to_string(&pairs).expect("texts always encode")
    };
    for (sql, pairs) in [
        (
            "INSERT OR IGNORE INTO smart_members (device, device_group) \
             SELECT devices.id, value ->> 1 FROM json_each($1) \
             JOIN devices ON devices.id = value ->> 0 WHERE role = 'client' AND state = 'enrolled'",
            pairs(come),
        ),
        (
            "DELETE FROM smart_members WHERE (device, device_group) IN \
             (SELECT value ->> 0, value ->> 1 FROM json_each($1))",
            pairs(go),
        ),
    ] {
        query(sql)
            .bind(pairs)
            .execute(&mut *db)
            .await
            .map_err(failed("change who is in by rules"))?;
    }
    Ok(())
}

fn known(row: &SqliteRow) -> Result<Known, LedgerError> {
    let facts: Option<String> = value(row, "facts")?;
    let software: Option<Vec<u8>> = value(row, "software")?;
    let stored = match facts {
        Some(facts) => Some(Stored {
            digest: Digest::from_raw(blob(row, "digest")?),
            facts,
            software: software.unwrap_or_default(),
            received_at: value(row, "received_at")?,
        }),
        None => None,
    };
    Ok(Known {
        id: parsed(row, "id")?,
        group: value(row, "device_group")?,
        stored,
    })
}
