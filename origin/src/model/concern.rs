//! Whom a change can concern.

use std::collections::BTreeSet;

use certs::DeviceId;
use content::FilesetName;

use super::key::{GroupName, Key, Whom};
use super::world::{Edits, World};

/// Whom a change can concern: nobody else holds anything else after it than before.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Concern {
    /// Every device.
    pub everybody: bool,
    /// Every device of these groups.
    pub groups: BTreeSet<GroupName>,
    /// These devices.
    pub devices: BTreeSet<DeviceId>,
    /// Every device that holds one of these by itself.
    pub filesets: BTreeSet<FilesetName>,
}

/// Whom `edits` can concern, which lead from the model `before` to the model `after`.
#[must_use]
pub fn concerned(before: &World, after: &World, edits: &Edits) -> Concern {
    let mut concern = Concern::default();
    for key in edits.keys() {
        match key {
            Key::Fileset(name) => {
                concern.filesets.insert(name.clone());
            }
            Key::Association(_, Whom::Group(group)) => {
                concern.groups.insert(group.clone());
            }
            Key::Member(_, device) | Key::Association(_, Whom::Device(device)) => {
                concern.devices.insert(device.clone());
            }
            // That it is there changes nothing: what it holds and who is in it does. Who is in by
            // another rule is found out later, by `smart`.
            Key::Group(_) => {}
        }
    }
    for world in [before, after] {
        concern
            .filesets
            .extend(dependents(world, &concern.filesets));
        let holds = |group: &&GroupName| {
            let held = world.held.get(*group);
            held.is_some_and(|held| held.keys().any(|name| concern.filesets.contains(name)))
        };
        let groups: Vec<GroupName> = world.held.keys().filter(holds).cloned().collect();
        concern.groups.extend(groups);
    }
    concern.everybody = concern.groups.iter().any(GroupName::is_all);
    concern
}

/// What depends on `filesets`, directly or not.
fn dependents(world: &World, filesets: &BTreeSet<FilesetName>) -> BTreeSet<FilesetName> {
    let mut found = filesets.clone();
    loop {
        let more: Vec<FilesetName> = world
            .filesets
            .iter()
            .filter(|(name, spec)| {
                !found.contains(name) && spec.depends.iter().any(|name| found.contains(name))
            })
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}
