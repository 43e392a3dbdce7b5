//! Inventories: the last of each device, and when it was heard.

use std::io;

use certs::DeviceId;
use content::Digest;
use protocol::Inventory;
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use super::{LedgerError, blob, failed, parsed, value};

/// An inventory as it is stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// SHA-256 of the bytes that came.
    pub digest: Digest,
    /// All but its software, as JSON.
    pub facts: String,
    /// Its software, packed.
    pub software: Vec<u8>,
    /// When it came.
    pub received_at: i64,
}

/// Keeps the inventory of the client `id`, in place of the one before. Whether it is kept: a party
/// that belongs to us no more leaves nothing.
///
/// # Errors
///
/// Fails if the database does.
pub async fn put(
    db: &mut SqliteConnection,
    id: &DeviceId,
    stored: &Stored,
) -> Result<bool, LedgerError> {
    let put = query(
        "INSERT INTO inventories (device, digest, facts, software, received_at) \
         SELECT id, $2, $3, $4, $5 FROM devices \
         WHERE id = $1 AND role = 'client' AND state = 'enrolled' \
         ON CONFLICT (device) DO UPDATE SET digest = excluded.digest, facts = excluded.facts, \
         software = excluded.software, received_at = excluded.received_at",
    )
    .bind(id.as_str())
    .bind(stored.digest.as_raw().as_slice())
    .bind(&stored.facts)
    .bind(&stored.software)
    .bind(stored.received_at)
    .execute(db)
    .await
    .map_err(failed("keep an inventory"))?;
    Ok(put.rows_affected() > 0)
}

/// The inventory of the device `id`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn find(db: &mut SqliteConnection, id: &DeviceId) -> Result<Option<Stored>, LedgerError> {
    let row = query("SELECT * FROM inventories WHERE device = $1")
        .bind(id.as_str())
        .fetch_optional(db)
        .await
        .map_err(failed("look for an inventory"))?;
    row.as_ref().map(read).transpose()
}

/// Which inventory is kept of whom.
///
/// # Errors
///
/// Fails if the database does.
pub async fn digests(db: &mut SqliteConnection) -> Result<Vec<(DeviceId, Digest)>, LedgerError> {
    let rows = query("SELECT device, digest FROM inventories")
        .fetch_all(db)
        .await
        .map_err(failed("list the inventories"))?;
    let of = |row| {
        Ok((
            parsed(row, "device")?,
            Digest::from_raw(blob(row, "digest")?),
        ))
    };
    rows.iter().map(of).collect()
}

/// When devices were last heard.
///
/// # Errors
///
/// Fails if the database does.
pub async fn seen(db: &mut SqliteConnection) -> Result<Vec<(DeviceId, i64)>, LedgerError> {
    let rows = query("SELECT device, at FROM seen")
        .fetch_all(db)
        .await
        .map_err(failed("look when devices were heard"))?;
    let of = |row| Ok((parsed(row, "device")?, value(row, "at")?));
    rows.iter().map(of).collect()
}

/// Writes down when devices were heard.
///
/// # Errors
///
/// Fails if the database does.
pub async fn note_seen(
    db: &mut SqliteConnection,
    heard: &[(DeviceId, i64)],
) -> Result<(), LedgerError> {
    let pairs: Vec<(&str, i64)> = heard.iter().map(|(id, at)| (id.as_str(), *at)).collect();
    let pairs = serde_json::to_string(&pairs).expect("texts and numbers always encode");
    query(
        "INSERT INTO seen (device, at) \
         SELECT devices.id, value ->> 1 FROM json_each($1) \
         JOIN devices ON devices.id = value ->> 0 WHERE role = 'client' AND state = 'enrolled' \
         ON CONFLICT (device) DO UPDATE SET at = max(at, excluded.at)",
    )
    .bind(pairs)
    .execute(db)
    .await
    .map_err(failed("write down when devices were heard"))?;
    Ok(())
}

impl Stored {
    /// What `inventory`, which came as `bytes` at `received_at`, is stored as: the work of some
    /// milliseconds.
    ///
    /// # Errors
    ///
    /// Fails only if zstd cannot get memory.
    pub fn pack(mut inventory: Inventory, bytes: &[u8], received_at: i64) -> io::Result<Self> {
        let software = std::mem::take(&mut inventory.software);
        let software = serde_json::to_vec(&software).expect("texts and lists always encode");
        let facts = serde_json::to_string(&inventory).expect("texts and lists always encode");
        Ok(Self {
            digest: Digest::of(bytes),
            facts,
            software: zstd::bulk::compress(&software, LEVEL)?,
            received_at,
        })
    }

    /// What it says, but for its software.
    ///
    /// # Errors
    ///
    /// Fails if it is none that we have stored.
    pub fn facts(&self) -> Result<Inventory, LedgerError> {
        serde_json::from_str(&self.facts).map_err(|_| LedgerError::Malformed {
            what: "an inventory",
        })
    }

    /// What it says.
    ///
    /// # Errors
    ///
    /// Fails if it is none that we have stored.
    pub fn unpack(&self) -> Result<Inventory, LedgerError> {
        let mut inventory = self.facts()?;
        let malformed = LedgerError::Malformed {
            what: "an inventory",
        };
        let software = zstd::bulk::decompress(&self.software, 2 * Inventory::BYTES_MAX);
        let software = software
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok());
        inventory.software = software.ok_or(malformed)?;
        Ok(inventory)
    }
}

fn read(row: &SqliteRow) -> Result<Stored, LedgerError> {
    Ok(Stored {
        digest: Digest::from_raw(blob(row, "digest")?),
        facts: value(row, "facts")?,
        software: value(row, "software")?,
        received_at: value(row, "received_at")?,
    })
}

/// As zstd's own program does it by default: an inventory shrinks to a fifth.
const LEVEL: i32 = 3;
