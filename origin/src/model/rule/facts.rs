//! What is known of a device, as rules ask for it.

use certs::DeviceId;
use protocol::Inventory;

use super::{Age, Number, Text};

/// What is known of a device at one time.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its name.
    pub id: &'a DeviceId,
    /// The group of its token.
    pub group: Option<&'a str>,
    /// What it says of itself; that of a device which has said nothing is empty.
    pub inventory: &'a Inventory,
    /// When that came.
    pub told_at: Option<i64>,
    /// When it was last heard.
    pub seen_at: Option<i64>,
    /// What time it is.
    pub now: i64,
}

impl Facts<'_> {
    /// Whether `fits` says yes to one of the values of `text`. What is empty is not there.
    pub(super) fn texts(&self, text: &Text, fits: impl Fn(&str) -> bool) -> bool {
        let system = &self.inventory.system;
        let one = |value: &str| !value.is_empty() && fits(value);
        match text {
            Text::Agent => one(&system.agent),
            Text::Arch => one(&system.arch),
            Text::Custom(name) => self.inventory.fields.get(&**name).is_some_and(|it| one(it)),
            Text::Fileset(name) => {
                let held = self.inventory.filesets.get(&**name);
                held.is_some_and(|held| one(held.state.word()))
            }
            Text::Group => self.group.is_some_and(one),
            Text::Hostname => one(&system.hostname),
            Text::Id => one(self.id.as_str()),
            Text::Kernel => one(&system.kernel),
            Text::Os => one(&system.os),
            Text::OsName => one(&system.os_name),
            Text::OsVersion => one(&system.os_version),
            Text::Software(name) => {
                let mut software = self.inventory.software.iter();
                software.any(|package| *package.name == **name && one(&package.version))
            }
        }
    }

    /// What is 0 was not told.
    pub(super) fn number(&self, number: Number) -> Option<u64> {
        let mut disks = self.inventory.disks.iter();
        let root = disks.find(|disk| disk.mount == "/");
        let told = |value: u64| Some(value).filter(|value| *value > 0);
        match number {
            Number::Cpus => told(self.inventory.system.cpus),
            Number::DiskFree => root.map(|disk| disk.free),
            Number::DiskSize => root.map(|disk| disk.size),
            Number::Memory => told(self.inventory.system.memory),
        }
    }

    /// In seconds. What is yet to come is now.
    pub(super) fn age(&self, age: Age) -> Option<u64> {
        let at = match age {
            Age::Seen => self.seen_at,
            Age::Told => self.told_at,
        };
        at.map(|at| u64::try_from(self.now.saturating_sub(at)).unwrap_or_default())
    }
}
