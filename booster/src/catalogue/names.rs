//! What the origin names: objects by the snapshot, packs by locators. Decided here, without I/O.

mod order;
mod standing;

use std::collections::{BTreeMap, HashMap, HashSet};

use content::index::ROOT_BYTES_MAX;
use content::locator::{Locator, PackEntry};
use content::statement::{Payload as _, Revision, RevisionEntry, Snapshot};
use content::{Digest, FilesetName, PackId, RevisionNumber};
use thiserror::Error;

use crate::admin::list::Contents;
use crate::cache::Company;
use crate::pins::{At, Pin};
use order::Marked;

/// Which small object a digest names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Named {
    Document,
    Locator(FilesetName, RevisionNumber),
    Revision(FilesetName, RevisionNumber),
    Root,
    Snapshot,
}

impl Named {
    /// The most bytes that such an object may have.
    pub(super) fn bytes_max(&self) -> usize {
        match self {
            Self::Document => content::statement::Deployment::ENVELOPE_BYTES_MAX,
            Self::Locator(..) => Locator::ENVELOPE_BYTES_MAX,
            Self::Revision(..) => Revision::ENVELOPE_BYTES_MAX,
            Self::Root => ROOT_BYTES_MAX,
            Self::Snapshot => Snapshot::ENVELOPE_BYTES_MAX,
        }
    }
}

/// What is known of a pack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lookup {
    /// A verified locator names it.
    Known(PackEntry),
    /// No locator that we have read names it; some are still to be read.
    Maybe,
    /// There is no such fileset.
    NoFileset,
    /// None names it.
    Unknown,
}

/// Everything that is named.
#[derive(Debug, Default)]
pub(super) struct Names {
    filesets: BTreeMap<FilesetName, Fileset>,
    objects: HashMap<Digest, Named>,
}

#[derive(Debug, Default)]
struct Fileset {
    /// Who has asked for its packs.
    askers: Company,
    current: Option<RevisionNumber>,
    /// What the revisions that are kept consist of, as far as it has been read.
    read: HashMap<RevisionNumber, Read>,
    retained: Vec<RevisionEntry>,
    packs: HashMap<PackId, Known>,
}

/// A pack of a fileset.
#[derive(Clone, Copy, Debug)]
struct Known {
    entry: PackEntry,
    /// The newest revision that has been read and has it, and how many of its packs come before.
    newest: (RevisionNumber, u32),
}

#[derive(Debug, Default)]
struct Read {
    /// Its locator's digest, by which it is known to be still the one that was read.
    locator: Option<Digest>,
    /// Which of its packs no older revision has that has been read.
    new: Marked,
    packs: Vec<PackEntry>,
    root: Option<Digest>,
    statement: Option<Digest>,
}

/// A locator that is at odds with what else is known.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(super) enum Contradiction {
    #[error("it is of another fileset or revision than the snapshot says")]
    Other,
    #[error("it gives {pack} another length than another locator does")]
    Pack { pack: PackId },
    #[error("it is of another index root than the revision's statement")]
    Root,
}

impl Names {
    /// Takes over what a new snapshot, called `digest`, names together with the deployment
    /// document. What had been read of revisions that are still kept stays.
    pub(super) fn take(&mut self, digest: Digest, document: Digest, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.filesets);
        for entry in &snapshot.filesets {
            let mut fileset = before.remove(&entry.name).unwrap_or_default();
            fileset.current = Some(entry.current);
            fileset.retained.clone_from(&entry.retained);
            fileset.forget();
            self.filesets.insert(entry.name.clone(), fileset);
        }
        self.objects = HashMap::from([(digest, Named::Snapshot), (document, Named::Document)]);
        for (name, fileset) in &self.filesets {
            for entry in &fileset.retained {
                let revision = Named::Revision(name.clone(), entry.number);
                let locator = Named::Locator(name.clone(), entry.number);
                self.objects.insert(entry.statement, revision);
                self.objects.insert(entry.locator, locator);
            }
            let roots = fileset.read.values().filter_map(|read| read.root);
            self.objects.extend(roots.map(|root| (root, Named::Root)));
        }
    }

    /// What `digest` names.
    pub(super) fn object(&self, digest: &Digest) -> Option<&Named> {
        self.objects.get(digest)
    }

    /// All objects that are named.
    pub(super) fn object_digests(&self) -> HashSet<Digest> {
        self.objects.keys().copied().collect()
    }

    /// What is known of a pack.
    pub(super) fn pack(&self, name: &FilesetName, id: PackId) -> Lookup {
        let Some(fileset) = self.filesets.get(name) else {
            return Lookup::NoFileset;
        };
        match fileset.packs.get(&id) {
            Some(known) => Lookup::Known(known.entry),
            None if fileset.unread().next().is_some() => Lookup::Maybe,
            None => Lookup::Unknown,
        }
    }

    /// The digest of a revision's statement, if the revision is kept and has not been learnt.
    pub(super) fn unknown_revision(
        &self,
        name: &FilesetName,
        number: RevisionNumber,
    ) -> Option<Digest> {
        let fileset = self.filesets.get(name)?;
        let known = fileset.read.get(&number).and_then(|read| read.root);
        let mut retained = fileset.retained.iter();
        let entry = retained.find(|entry| entry.number == number)?;
        known.is_none().then_some(entry.statement)
    }

    /// All filesets, in the order of their names.
    pub(super) fn filesets(&self) -> Vec<FilesetName> {
        self.filesets.keys().cloned().collect()
    }

    /// The filesets that have a pack.
    pub(super) fn filesets_with(&self, id: PackId) -> Vec<FilesetName> {
        let filesets = self.filesets.iter();
        let with = filesets.filter(|(_, fileset)| fileset.packs.contains_key(&id));
        with.map(|(name, _)| name.clone()).collect()
    }

    /// What is known of a fileset.
    pub(super) fn contents(&self, name: &FilesetName) -> Option<Contents> {
        let fileset = self.filesets.get(name)?;
        let mut contents = Contents {
            current: fileset.current,
            packs: BTreeMap::new(),
            unread: fileset.unread().count() as u64,
        };
        let mut numbers: Vec<&RevisionNumber> = fileset.read.keys().collect();
        numbers.sort_unstable();
        for number in numbers {
            for pack in &fileset.read[number].packs {
                let named = contents.packs.entry(pack.id);
                let (_, revisions) = named.or_insert_with(|| (*pack, Vec::new()));
                revisions.push(*number);
            }
        }
        Some(contents)
    }

    /// Whether the snapshot lists the revision that a pin means.
    pub(super) fn has(&self, pin: &Pin) -> bool {
        let fileset = self.filesets.get(&pin.fileset);
        fileset.is_some_and(|fileset| match pin.at {
            At::Latest => true,
            At::Revision(number) => fileset.retained.iter().any(|it| it.number == number),
        })
    }

    /// The packs that a pin means, as far as they are known: of the latest revision, those of the
    /// newest that has been read.
    pub(super) fn packs_of(&self, pin: &Pin) -> &[PackEntry] {
        let found = self
            .filesets
            .get(&pin.fileset)
            .and_then(|fileset| match pin.at {
                At::Latest => fileset.newest_read(),
                At::Revision(number) => fileset.read.get(&number),
            });
        found.map_or(&[], |read| &read.packs)
    }

    /// The pack called `id`, with a fileset that has it.
    pub(super) fn find(&self, id: PackId) -> Option<(FilesetName, PackEntry)> {
        let mut filesets = self.filesets.iter();
        filesets.find_map(|(name, fileset)| Some((name.clone(), fileset.packs.get(&id)?.entry)))
    }

    /// The revisions of a fileset whose locators are still to be read, the current one first.
    pub(super) fn unread(&self, name: &FilesetName) -> Vec<RevisionEntry> {
        let Some(fileset) = self.filesets.get(name) else {
            return Vec::new();
        };
        let mut unread: Vec<RevisionEntry> = fileset.unread().copied().collect();
        unread.sort_by_key(|entry| Some(entry.number) != fileset.current);
        unread
    }

    /// All revisions that are kept, with their filesets.
    pub(super) fn retained(&self) -> Vec<(FilesetName, RevisionEntry)> {
        let of = |(name, fileset): (&FilesetName, &Fileset)| {
            let entries = fileset.retained.iter();
            entries
                .map(|entry| (name.clone(), *entry))
                .collect::<Vec<_>>()
        };
        self.filesets.iter().flat_map(of).collect()
    }

    /// Takes note of a verified statement of a revision. One that is not kept any more is ignored.
    pub(super) fn learn_revision(
        &mut self,
        digest: Digest,
        revision: &Revision,
    ) -> Result<(), Contradiction> {
        let expected = Named::Revision(revision.fileset.clone(), revision.number);
        match self.objects.get(&digest) {
            None => return Ok(()),
            Some(named) if *named != expected => return Err(Contradiction::Other),
            Some(_) => {}
        }
        if let Some(fileset) = self.filesets.get_mut(&revision.fileset) {
            let read = fileset.read.entry(revision.number).or_default();
            read.root = Some(revision.root);
            read.statement = Some(digest);
            self.objects.insert(revision.root, Named::Root);
        }
        Ok(())
    }

    /// Takes note of a verified locator, whose revision must have been learnt before. One that is
    /// not kept any more is ignored.
    pub(super) fn learn_locator(
        &mut self,
        digest: Digest,
        locator: &Locator,
    ) -> Result<(), Contradiction> {
        let expected = Named::Locator(locator.fileset.clone(), locator.number);
        match self.objects.get(&digest) {
            None => return Ok(()),
            Some(named) if *named != expected => return Err(Contradiction::Other),
            Some(_) => {}
        }
        let Some(fileset) = self.filesets.get_mut(&locator.fileset) else {
            return Ok(());
        };
        let read = fileset.read.entry(locator.number).or_default();
        if read.root != Some(locator.root) {
            return Err(Contradiction::Root);
        }
        let other = |pack: &&PackEntry| {
            let known = fileset.packs.get(&pack.id);
            known.is_some_and(|known| known.entry != **pack)
        };
        if let Some(pack) = locator.packs.iter().find(other) {
            return Err(Contradiction::Pack { pack: pack.id });
        }
        if read.locator == Some(digest) {
            return Ok(());
        }
        read.locator = Some(digest);
        read.packs.clone_from(&locator.packs);
        fileset.enter(locator.number);
        Ok(())
    }
}

impl Fileset {
    fn unread(&self) -> impl Iterator<Item = &RevisionEntry> {
        let is_read = |entry: &&RevisionEntry| {
            let read = self.read.get(&entry.number);
            read.is_none_or(|read| read.locator != Some(entry.locator))
        };
        self.retained.iter().filter(is_read)
    }

    /// Forgets what was read of revisions that are no longer kept, or whose locator is another.
    fn forget(&mut self) {
        let retained: HashMap<RevisionNumber, RevisionEntry> = self
            .retained
            .iter()
            .map(|entry| (entry.number, *entry))
            .collect();
        self.read.retain(|number, read| {
            let entry = retained.get(number);
            let same = entry.is_some_and(|entry| read.statement == Some(entry.statement));
            if same && entry.is_some_and(|entry| read.locator != Some(entry.locator)) {
                read.locator = None;
                read.packs.clear();
            }
            same
        });
        self.packs.clear();
        let mut numbers: Vec<RevisionNumber> = self.read.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.enter(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use content::statement::FilesetEntry;

    use super::*;
    use crate::cache::{Asker, Standing};

    fn name() -> FilesetName {
        "tools".parse().unwrap()
    }

    fn digest(what: &str, number: u64) -> Digest {
        Digest::of(format!("{what} {number}").as_bytes())
    }

    fn snapshot(numbers: &[u64]) -> Snapshot {
        let retained = numbers.iter().map(|&number| RevisionEntry {
            number: RevisionNumber(number),
            statement: digest("statement", number),
            locator: digest("locator", number),
        });
        Snapshot {
            deployment: "acme".to_owned(),
            created: 0,
            filesets: vec![FilesetEntry {
                name: name(),
                current: RevisionNumber(*numbers.last().unwrap()),
                retained: retained.collect(),
            }],
        }
    }

    fn pack(id: u8, total_bytes: u32) -> PackEntry {
        PackEntry {
            id: PackId(Digest::from_raw([id; 32])),
            header_bytes: 100,
            total_bytes,
        }
    }

    fn learn(names: &mut Names, number: u64, packs: &[PackEntry]) -> Result<(), Contradiction> {
        let revision = Revision {
            deployment: "acme".to_owned(),
            fileset: name(),
            number: RevisionNumber(number),
            root: digest("root", number),
            root_bytes: 1,
            size: 1,
            entries: 1,
            created: 0,
        };
        names.learn_revision(digest("statement", number), &revision)?;
        let locator = Locator {
            deployment: "acme".to_owned(),
            fileset: name(),
            number: RevisionNumber(number),
            root: digest("root", number),
            created: 0,
            index_packs: 0,
            packs: packs.to_vec(),
            runs: Vec::new(),
        };
        names.learn_locator(digest("locator", number), &locator)
    }

    fn take(names: &mut Names, numbers: &[u64]) {
        names.take(
            digest("snapshot", 0),
            digest("document", 0),
            &snapshot(numbers),
        );
    }

    #[test]
    fn what_was_read_of_revisions_that_stay_stays() {
        let mut names = Names::default();
        assert_eq!(names.pack(&name(), pack(1, 900).id), Lookup::NoFileset);
        take(&mut names, &[1, 2]);
        assert_eq!(names.pack(&name(), pack(1, 900).id), Lookup::Maybe);
        let order: Vec<u64> = names.unread(&name()).iter().map(|it| it.number.0).collect();
        assert_eq!(order, [2, 1], "the current one is wanted first");
        learn(&mut names, 1, &[pack(1, 900), pack(2, 900)]).unwrap();
        learn(&mut names, 2, &[pack(2, 900), pack(3, 900)]).unwrap();
        assert_eq!(names.pack(&name(), pack(4, 900).id), Lookup::Unknown);
        take(&mut names, &[2, 3]);
        assert_eq!(names.pack(&name(), pack(1, 900).id), Lookup::Maybe);
        assert_eq!(
            names.pack(&name(), pack(3, 900).id),
            Lookup::Known(pack(3, 900))
        );
        // The newest that is known counts as the latest.
        for (pins, standing) in [(None, Standing::Current), (Some("tools"), Standing::Pinned)] {
            let pins: BTreeSet<Pin> = pins.into_iter().map(|it| it.parse().unwrap()).collect();
            let standings = [2, 3].map(|it| (pack(it, 900).id, standing));
            assert_eq!(names.standings(&pins), standings.into());
            assert!(
                standings
                    .iter()
                    .all(|(id, it)| names.standing(*id, &pins) == *it)
            );
        }
        assert_eq!(names.unread(&name()).len(), 1);
        learn(&mut names, 3, &[pack(3, 900)]).unwrap();
        let standings = [2, 3].map(|it| names.standings(&BTreeSet::new())[&pack(it, 900).id]);
        assert_eq!(standings, [Standing::Older, Standing::Current]);
        // Only of what more than one device has asked for is a new revision awaited.
        for (device, expected) in [
            ("a", Standing::Current),
            ("a", Standing::Current),
            ("b", Standing::Awaited),
        ] {
            names.pack_for(&name(), pack(2, 900).id, Asker::device(device));
            let none = BTreeSet::new();
            let all = [
                names.standings(&none)[&pack(3, 900).id],
                names.standing(pack(3, 900).id, &none),
            ];
            assert_eq!(all, [expected; 2], "{device}");
        }
        let roots = [1, 2, 3].map(|number| names.object(&digest("root", number)).is_some());
        assert_eq!(roots, [false, true, true]);
    }

    #[test]
    fn what_contradicts_is_refused() {
        let mut names = Names::default();
        take(&mut names, &[1, 2]);
        learn(&mut names, 1, &[pack(1, 900)]).unwrap();
        let refused = Contradiction::Pack {
            pack: pack(1, 900).id,
        };
        assert_eq!(learn(&mut names, 2, &[pack(1, 901)]), Err(refused));
        let mut other = Names::default();
        let mut swapped = snapshot(&[1, 2]);
        let retained = &mut swapped.filesets[0].retained;
        (retained[0].statement, retained[1].statement) =
            (retained[1].statement, retained[0].statement);
        other.take(digest("snapshot", 0), digest("document", 0), &swapped);
        assert_eq!(learn(&mut other, 1, &[]), Err(Contradiction::Other));
    }
}
