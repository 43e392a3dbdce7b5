//! What a model must not say: each thing is an offender, and all of them are named.

use std::collections::{BTreeMap, BTreeSet};

use content::statement::{InstallMode, Item, Manifest};
use content::{FilesetName, RevisionNumber};

use super::key::{GroupName, Key, Whom};
use super::value::Association;
use super::world::{Edits, World};

/// What contradicts itself in `world` or in what `edits` say of members and single devices.
#[must_use]
pub fn offenders(world: &World, edits: &Edits) -> Vec<String> {
    let mut found = Vec::new();
    for (name, spec) in &world.filesets {
        kept(
            world,
            &Key::Fileset(name.clone()),
            name,
            spec.revision,
            &mut found,
        );
        for other in &spec.depends {
            if !world.filesets.contains_key(other) {
                found.push(format!(
                    "fileset/{name} depends on {other}, which is not in the model"
                ));
            }
        }
    }
    for (group, held) in &world.held {
        for (name, association) in held {
            let key = Key::Association(name.clone(), Whom::Group(group.clone()));
            associated(world, &key, name, association, &mut found);
            grouped(world, &key, group, &mut found);
        }
    }
    for (key, value) in edits {
        match (key, value) {
            (Key::Member(group, _), Some(_)) => grouped(world, key, group, &mut found),
            (
                Key::Association(name, Whom::Device(_)),
                Some(super::Value::Association(association)),
            ) => associated(world, key, name, association, &mut found),
            (_, _) => {}
        }
    }
    found.extend(circle(world));
    found
}

fn kept(
    world: &World,
    key: &Key,
    name: &FilesetName,
    revision: RevisionNumber,
    found: &mut Vec<String>,
) {
    if !world.statements.contains_key(&(name.clone(), revision)) {
        found.push(format!("{key} names {name}@{revision}, which is not kept"));
    }
}

fn associated(
    world: &World,
    key: &Key,
    name: &FilesetName,
    association: &Association,
    found: &mut Vec<String>,
) {
    if !world.filesets.contains_key(name) {
        found.push(format!("{key}: fileset/{name} is not in the model"));
    }
    if let Some(revision) = association.revision {
        kept(world, key, name, revision, found);
    }
}

fn grouped(world: &World, key: &Key, group: &GroupName, found: &mut Vec<String>) {
    if !world.has_group(group) {
        found.push(format!("{key}: group/{group} is not in the model"));
    }
}

/// The filesets that depend on themselves in the end.
fn circle(world: &World) -> Option<String> {
    // What depends on nothing that is left is taken away, until nothing can be.
    let mut left: BTreeMap<&FilesetName, BTreeSet<&FilesetName>> = world
        .filesets
        .iter()
        .map(|(name, spec)| (name, spec.depends.iter().collect()))
        .collect();
    loop {
        let free: Vec<&FilesetName> = left
            .iter()
            .filter(|(_, needs)| !needs.iter().any(|name| left.contains_key(*name)))
            .map(|(name, _)| *name)
            .collect();
        if free.is_empty() {
            break;
        }
        for name in free {
            left.remove(name);
        }
    }
    let names: Vec<&str> = left.keys().map(|name| name.as_str()).collect();
    (!names.is_empty()).then(|| format!("filesets depend in a circle: {}", names.join(", ")))
}

/// Pairs of filesets of one device that are in each other's way: one in `tree` mode owns its
/// target alone. And `None`, if it holds more than a manifest may list.
#[must_use]
pub fn clashes(items: &[Item]) -> Vec<String> {
    let mut found = Vec::new();
    if items.len() > Manifest::ITEMS_MAX {
        let (count, max) = (items.len(), Manifest::ITEMS_MAX);
        found.push(format!(
            "{count} filesets for one device are more than {max}"
        ));
        return found;
    }
    // In the order of paths component by component, what lies within a folder follows it.
    let mut by_target: Vec<(Vec<&str>, &Item)> = items
        .iter()
        .map(|item| (item.target.split('/').collect(), item))
        .collect();
    by_target.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.fileset.cmp(&y.fileset)));
    for (at, (outer, item)) in by_target.iter().enumerate() {
        let within = by_target
            .iter()
            .skip(at + 1)
            .take_while(|(inner, _)| inner.starts_with(outer));
        for (_, other) in within {
            if item.mode == InstallMode::Tree || other.mode == InstallMode::Tree {
                found.push(format!(
                    "{} ({}) and {} ({}) are in each other's way",
                    item.fileset, item.target, other.fileset, other.target
                ));
            }
        }
    }
    found
}
