//! Inventories as an operator sees them: as JSON, or as text.

use std::fmt;

use protocol::Inventory;
use serde::{Deserialize, Serialize};

use crate::fleet::time;

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
