//! Inventories as an operator sees them: as JSON, or as text.

use std::fmt;

use protocol::Inventory;
use serde::{Deserialize, Serialize};

use crate::fleet::time;
use crate::ledger::LedgerError;
use crate::ledger::smart::Known;
use crate::model::Rule;
use crate::model::rule::Facts;

/// What a device says of itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InventoryView {
    /// The device.
    pub device: String,
    /// When it was last heard, in Unix seconds; none if it never was.
    pub seen_at: Option<i64>,
    /// When this came.
    pub received_at: i64,
    /// Its digest.
    pub digest: String,
    /// What it says: untrusted.
    pub inventory: Inventory,
}

/// Devices that are looked for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Those after this name.
    #[serde(default)]
    pub after: String,
    /// Those that fit this rule; all if there is none.
    #[serde(default)]
    pub rule: Option<String>,
}

/// A page of devices.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Found {
    /// Those that fit.
    pub devices: Vec<InventoryRow>,
    /// The last that was looked at; none if there are no more.
    pub after: Option<String>,
}

/// What a device says of itself, in short.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InventoryRow {
    /// The device.
    pub device: String,
    /// The group of its token.
    pub group: Option<String>,
    /// When it was last heard, in Unix seconds.
    pub seen_at: Option<i64>,
    /// When its inventory came.
    pub received_at: Option<i64>,
    /// Its system, and which version of it.
    pub os: String,
    /// Its kernel.
    pub kernel: String,
    /// The agent's release.
    pub agent: String,
}

/// Devices that are looked at for one page of an answer.
pub(super) const PAGE: u32 = 200;

/// The row of a device; none if it does not fit `rule`.
pub(super) fn row(
    known: Known,
    rule: Option<&Rule>,
    seen_at: Option<i64>,
    now: i64,
) -> Result<Option<InventoryRow>, LedgerError> {
    let needs_software = rule.is_some_and(|rule| rule.needs().software);
    let inventory = match &known.stored {
        Some(stored) if needs_software => stored.unpack()?,
        Some(stored) => stored.facts()?,
        None => Inventory::default(),
    };
    let received_at = known.stored.map(|stored| stored.received_at);
    let facts = Facts {
        id: &known.id,
        group: known.group.as_deref(),
        inventory: &inventory,
        told_at: received_at,
        seen_at,
        now,
    };
    if !rule.is_none_or(|rule| rule.holds(&facts)) {
        return Ok(None);
    }
    let system = inventory.system;
    Ok(Some(InventoryRow {
        device: known.id.to_string(),
        group: known.group,
        seen_at,
        received_at,
        os: format!("{} {}", system.os, system.os_version)
            .trim()
            .to_owned(),
        kernel: system.kernel,
        agent: system.agent,
    }))
}

impl fmt::Display for InventoryRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.seen_at.map_or_else(|| "never".to_owned(), time);
        let (device, os, kernel, agent) = (&self.device, &self.os, &self.kernel, &self.agent);
        write!(
            f,
            "{device:<32} {os:<16} {kernel:<24} {agent:<8} seen {seen}"
        )
    }
}

impl fmt::Display for InventoryView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inventory {
            system,
            disks,
            software,
            filesets,
            fields,
        } = &self.inventory;
        let size = |bytes| bytesize::ByteSize(bytes).to_string();
        let seen = self.seen_at.map_or_else(|| "never".to_owned(), time);
        writeln!(f, "{}", self.device)?;
        writeln!(f, "  seen       {seen}")?;
        writeln!(f, "  told       {}", time(self.received_at))?;
        writeln!(f, "  hostname   {}", system.hostname)?;
        writeln!(
            f,
            "  system     {} ({} {})",
            system.os_name, system.os, system.os_version
        )?;
        writeln!(f, "  kernel     {} on {}", system.kernel, system.arch)?;
        writeln!(
            f,
            "  machine    {} processors, {}",
            system.cpus,
            size(system.memory)
        )?;
        write!(f, "  agent      {}", system.agent)?;
        for disk in disks {
            let (free, all) = (size(disk.free), size(disk.size));
            write!(
                f,
                "\n  disk       {} ({}): {free} of {all} free",
                disk.mount, disk.kind
            )?;
        }
        for (name, held) in filesets {
            write!(
                f,
                "\n  fileset    {name}@{} {}",
                held.revision,
                held.state.word()
            )?;
        }
        for (name, value) in fields {
            write!(f, "\n  field      {name} = {value}")?;
        }
        for package in software {
            write!(
                f,
                "\n  software   {} {} {}",
                package.name, package.version, package.arch
            )?;
        }
        Ok(())
    }
}
