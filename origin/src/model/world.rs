//! What a model says of filesets and groups, in memory. Who is in which group, and what single
//! devices hold, is looked up for the devices at hand: that may be a hundred thousand rows.

use std::collections::{BTreeMap, BTreeSet};

use content::{Digest, FilesetName, RevisionNumber};

use super::key::{GroupName, Key, Whom};
use super::rule::Rule;
use super::value::{Association, FilesetSpec, Value};

/// What a model says of filesets and groups.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Its number; 0 before the first.
    pub model: u64,
    /// The filesets.
    pub filesets: BTreeMap<FilesetName, FilesetSpec>,
    /// The groups, without `all`.
    pub groups: BTreeSet<GroupName>,
    /// The rules of smart groups.
    pub rules: BTreeMap<GroupName, Rule>,
    /// What groups hold.
    pub held: BTreeMap<GroupName, BTreeMap<FilesetName, Association>>,
    /// The statements of the revisions that are kept.
    pub statements: BTreeMap<(FilesetName, RevisionNumber), Digest>,
}

/// What is put under some keys, and which are removed (`None`).
pub type Edits = BTreeMap<Key, Option<Value>>;

impl World {
    /// Puts or removes one entry; one of a member or a single device changes nothing here.
    pub fn apply(&mut self, key: &Key, value: Option<&Value>) {
        match (key, value) {
            (Key::Fileset(name), Some(Value::Fileset(spec))) => {
                self.filesets.insert(name.clone(), spec.clone());
            }
            (Key::Fileset(name), _) => {
                self.filesets.remove(name);
            }
            (Key::Group(name), Some(Value::Group(spec))) => {
                self.groups.insert(name.clone());
                match &spec.rule {
                    Some(rule) => self.rules.insert(name.clone(), rule.clone()),
                    None => self.rules.remove(name),
                };
            }
            (Key::Group(name), _) => {
                self.groups.remove(name);
                self.rules.remove(name);
            }
            (Key::Association(name, Whom::Group(group)), Some(Value::Association(said))) => {
                let held = self.held.entry(group.clone()).or_default();
                held.insert(name.clone(), said.clone());
            }
            (Key::Association(name, Whom::Group(group)), _) => {
                if let Some(held) = self.held.get_mut(group) {
                    held.remove(name);
                    if held.is_empty() {
                        self.held.remove(group);
                    }
                }
            }
            (Key::Member(..) | Key::Association(_, Whom::Device(_)), _) => {}
        }
    }

    /// The same with `edits` applied.
    #[must_use]
    pub fn with(&self, edits: &Edits) -> Self {
        let mut world = self.clone();
        for (key, value) in edits {
            world.apply(key, value.as_ref());
        }
        world
    }

    /// Whether there is such a group.
    #[must_use]
    pub fn has_group(&self, name: &GroupName) -> bool {
        name.is_all() || self.groups.contains(name)
    }
}
