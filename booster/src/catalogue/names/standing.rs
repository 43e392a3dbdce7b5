//! What packs are worth, by the revisions that name them, by pins, and by who asks for them.

use std::collections::{BTreeSet, HashMap};

use content::{FilesetName, PackId};

use super::{Fileset, Lookup, Names};
use crate::cache::{Asker, Standing};
use crate::pins::{At, Pin};

impl Names {
    /// What is known of a pack, for which `asker` asks.
    pub(in super::super) fn pack_for(
        &self,
        name: &FilesetName,
        id: PackId,
        asker: Asker,
    ) -> Lookup {
        let known = self.pack(name, id);
        if let (Lookup::Known(_), Some(fileset)) = (known, self.filesets.get(name)) {
            fileset.askers.note(asker);
        }
        known
    }

    /// All packs that are named, each with its standing, given what is pinned.
    pub(in super::super) fn standings(&self, pins: &BTreeSet<Pin>) -> HashMap<PackId, Standing> {
        let mut standings = HashMap::new();
        for fileset in self.filesets.values() {
            for id in fileset.packs.keys() {
                standings.entry(*id).or_insert(Standing::Older);
            }
            for pack in fileset.newest_read().iter().flat_map(|read| &read.packs) {
                let standing = standings.entry(pack.id).or_insert(Standing::Current);
                if *standing != Standing::Awaited {
                    *standing = fileset.latest();
                }
            }
        }
        for pack in pins.iter().flat_map(|pin| self.packs_of(pin)) {
            standings.insert(pack.id, Standing::Pinned);
        }
        standings
    }

    /// What is known of a pack, given what is pinned.
    pub(in super::super) fn standing(&self, id: PackId, pins: &BTreeSet<Pin>) -> Standing {
        let is_named = |pin: &Pin| self.packs_of(pin).iter().any(|pack| pack.id == id);
        let latest = |name: &FilesetName| Pin {
            fileset: name.clone(),
            at: At::Latest,
        };
        let with = self.filesets_with(id);
        let mut pins = pins.iter().filter(|pin| with.contains(&pin.fileset));
        if pins.any(is_named) {
            Standing::Pinned
        } else if let Some(latest) = with
            .iter()
            .filter(|name| is_named(&latest(name)))
            .map(|name| self.filesets[name].latest())
            .max_by_key(|standing| *standing == Standing::Awaited)
        {
            latest
        } else if with.is_empty() {
            Standing::Superseded
        } else {
            Standing::Older
        }
    }
}

impl Fileset {
    /// What its latest revision's packs are worth.
    fn latest(&self) -> Standing {
        if self.askers.is_many() {
            Standing::Awaited
        } else {
            Standing::Current
        }
    }
}
