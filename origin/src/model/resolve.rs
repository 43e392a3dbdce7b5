//! From what a model says to what one device holds.

use std::collections::{BTreeMap, BTreeSet};

use content::FilesetName;
use content::statement::{Item, Times};

use super::key::GroupName;
use super::value::Association;
use super::world::World;

/// What makes a device hold what it holds. Devices of the same profile hold the same.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Profile {
    /// Its groups, as far as they hold anything; `all` among them.
    pub groups: BTreeSet<GroupName>,
    /// What it holds by itself.
    pub own: BTreeMap<FilesetName, Association>,
}

/// The profile of a device that is in `groups` (`all` need not be named) and holds `own` by itself.
#[must_use]
pub fn profile(
    world: &World,
    groups: impl IntoIterator<Item = GroupName>,
    own: BTreeMap<FilesetName, Association>,
) -> Profile {
    let all = groups.into_iter().chain([GroupName::all()]);
    let groups = all.filter(|name| world.held.contains_key(name)).collect();
    Profile { groups, own }
}

/// What a device of that profile holds, in order of names.
///
/// A fileset that it is told to hold more than once is held as its own association says, else as
/// that of the first of its groups by name, else as that of `all`. What a fileset depends on comes
/// along where no association says so: from when it may first be needed, and without an end. What
/// the model does not know, or of which no such revision is kept, is left out: a commit that would
/// lead there is refused.
#[must_use]
pub fn resolve(world: &World, profile: &Profile) -> Vec<Item> {
    let chosen = choose(world, profile);
    let mut items: BTreeMap<FilesetName, Item> = BTreeMap::new();
    for (&name, &association) in &chosen {
        if let Some(item) = item(world, name, association) {
            items.insert(name.clone(), item);
        }
    }
    for (name, times) in needed(world, &chosen) {
        let association = Association {
            revision: None,
            times,
        };
        if let Some(item) = item(world, &name, &association) {
            items.insert(name, item);
        }
    }
    items.into_values().collect()
}

fn choose<'a>(
    world: &'a World,
    profile: &'a Profile,
) -> BTreeMap<&'a FilesetName, &'a Association> {
    let mut chosen: BTreeMap<&FilesetName, &Association> = profile.own.iter().collect();
    let (all, named): (Vec<_>, Vec<_>) = profile.groups.iter().partition(|name| name.is_all());
    for group in named.into_iter().chain(all) {
        for (name, association) in world.held.get(group).into_iter().flatten() {
            chosen.entry(name).or_insert(association);
        }
    }
    chosen
}

/// What comes along with `chosen`, and when.
fn needed(
    world: &World,
    chosen: &BTreeMap<&FilesetName, &Association>,
) -> BTreeMap<FilesetName, Times> {
    let mut needed: BTreeMap<FilesetName, Times> = BTreeMap::new();
    for (root, association) in chosen {
        let mut seen: BTreeSet<&FilesetName> = BTreeSet::new();
        let mut open: Vec<&FilesetName> = vec![*root];
        while let Some(name) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            if let Some(spec) = world.filesets.get(name) {
                open.extend(&spec.depends);
            }
            if !chosen.contains_key(name) {
                let from = &association.times;
                let times = Times {
                    download_from: from.download_from,
                    activate_from: from.activate_from,
                    ..Times::default()
                };
                needed
                    .entry(name.clone())
                    .and_modify(|held| *held = earlier(*held, times))
                    .or_insert(times);
            }
        }
    }
    needed
}

/// The earlier of two beginnings; who has none begins first.
fn earlier(a: Times, b: Times) -> Times {
    let first = |a: Option<i64>, b: Option<i64>| Some(a?.min(b?));
    Times {
        download_from: first(a.download_from, b.download_from),
        activate_from: first(a.activate_from, b.activate_from),
        ..Times::default()
    }
}

fn item(world: &World, name: &FilesetName, association: &Association) -> Option<Item> {
    let spec = world.filesets.get(name)?;
    let revision = association.revision.unwrap_or(spec.revision);
    let statement = world.statements.get(&(name.clone(), revision))?;
    Some(Item {
        fileset: name.clone(),
        revision,
        statement: *statement,
        target: spec.target.clone(),
        mode: spec.mode,
        times: association.times,
        heal: spec.heal.clone(),
        depends: spec.depends.clone(),
        scripts: spec.scripts.clone(),
    })
}
