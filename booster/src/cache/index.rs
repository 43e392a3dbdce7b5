//! What the cache holds and what it would give up first: decided here, without touching a disk.

use std::collections::{BTreeMap, HashMap};

use content::Digest;

/// What kind of thing a file of the cache is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    /// A small object, whose name is the digest of its bytes.
    Object,
    /// A whole pack, whose name is the digest of its header.
    Pack,
    /// A pack of which only the first frames are there.
    Partial,
}

/// Names a file of the cache.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) digest: Digest,
}

/// In which order files are given up, first to last; within a rank the least recently used first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Rank {
    /// A fill that nobody waits for.
    Abandoned,
    /// Named by no revision that is kept.
    Superseded,
    /// All else.
    Current,
}

/// One file. With its place in the map and in the order it takes about 130 bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    bytes: u64,
    /// When it was made, by the index's own count: tells it from a later file of the same name.
    born: u64,
    /// When it was last used, likewise.
    used: u64,
    holders: u32,
    rank: Rank,
    uses: u8,
    verified: bool,
}

/// What a look-up found. The entry stays in use until [`Index::release`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Found {
    pub(crate) born: u64,
    pub(crate) bytes: u64,
    /// How often it has been looked up, this time included, as far as a byte can count.
    pub(crate) uses: u8,
    pub(crate) verified: bool,
}

/// There is no room, and what is not in use would not make enough of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NoRoom;

/// All files of the cache, and what they may take.
#[derive(Debug)]
pub(crate) struct Index {
    entries: HashMap<Key, Entry>,
    /// The entries as they would be given up: rank, last use, name. Uses are never equal.
    order: BTreeMap<(Rank, u64), Key>,
    bytes: u64,
    bytes_max: u64,
    count: u64,
}

impl Index {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            count: 0,
        }
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes by which the files exceed what they may take.
    pub(crate) fn excess(&self) -> u64 {
        self.bytes.saturating_sub(self.bytes_max)
    }

    /// How many files of that kind there are.
    pub(crate) fn files(&self, kind: Kind) -> usize {
        self.entries.keys().filter(|key| key.kind == kind).count()
    }

    /// How many files of that kind are not known to be good.
    pub(crate) fn unverified(&self, kind: Kind) -> usize {
        let is_unverified = |(key, entry): &(&Key, &Entry)| key.kind == kind && !entry.verified;
        self.entries.iter().filter(is_unverified).count()
    }

    /// The files of that kind that nobody uses.
    pub(crate) fn idle(&self, kind: Kind) -> Vec<Key> {
        let idle =
            |(key, entry): (&Key, &Entry)| (key.kind == kind && entry.holders == 0).then_some(*key);
        self.entries.iter().filter_map(idle).collect()
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        self.entries.contains_key(&key)
    }

    /// Adds a file, as the most recently used, held by `holders`; replaces one of the same name.
    /// Says when it was born.
    pub(crate) fn insert(&mut self, key: Key, bytes: u64, verified: bool, holders: u32) -> u64 {
        self.remove(key);
        self.count += 1;
        let rank = match key.kind {
            Kind::Object | Kind::Pack => Rank::Current,
            Kind::Partial => Rank::Abandoned,
        };
        let entry = Entry {
            bytes,
            born: self.count,
            used: self.count,
            holders,
            rank,
            uses: 0,
            verified,
        };
        self.entries.insert(key, entry);
        self.order.insert((rank, entry.used), key);
        self.bytes += bytes;
        entry.born
    }

    /// Looks a file up, which counts as a use, and holds it.
    pub(crate) fn hold(&mut self, key: Key) -> Option<Found> {
        let entry = self.entries.get_mut(&key)?;
        self.order.remove(&(entry.rank, entry.used));
        self.count += 1;
        entry.used = self.count;
        entry.uses = entry.uses.saturating_add(1);
        entry.holders += 1;
        self.order.insert((entry.rank, entry.used), key);
        Some(Found {
            born: entry.born,
            bytes: entry.bytes,
            uses: entry.uses,
            verified: entry.verified,
        })
    }

    /// Lets go of a file that was born then. One that has gone since is no matter.
    pub(crate) fn release(&mut self, key: Key, born: u64) {
        if let Some(entry) = self.current(key, born) {
            entry.holders = entry.holders.saturating_sub(1);
        }
    }

    /// Takes note of whether the bytes of a file are known to be good.
    pub(crate) fn set_verified(&mut self, key: Key, verified: bool) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.verified = verified;
        }
    }

    /// Whether the bytes of a file that was born then are known to be good.
    pub(crate) fn is_verified(&mut self, key: Key, born: u64) -> bool {
        self.current(key, born).is_some_and(|entry| entry.verified)
    }

    /// Takes note that a file born then has `bytes` bytes.
    pub(crate) fn resize(&mut self, key: Key, born: u64, bytes: u64) {
        if let Some(entry) = self.current(key, born) {
            let before = std::mem::replace(&mut entry.bytes, bytes);
            self.bytes = self.bytes - before + bytes;
        }
    }

    /// Forgets a file. False if there is none.
    pub(crate) fn remove(&mut self, key: Key) -> bool {
        let Some(entry) = self.entries.remove(&key) else {
            return false;
        };
        self.order.remove(&(entry.rank, entry.used));
        self.bytes -= entry.bytes;
        true
    }

    /// Forgets a file if it is still the one that was born then.
    pub(crate) fn remove_born(&mut self, key: Key, born: u64) -> bool {
        self.current(key, born).is_some() && self.remove(key)
    }

    /// Forgets a file unless it is in use.
    pub(crate) fn remove_idle(&mut self, key: Key) -> bool {
        let idle = self
            .entries
            .get(&key)
            .is_some_and(|entry| entry.holders == 0);
        idle && self.remove(key)
    }

    /// Decides what to give up so that `bytes` more fit, and forgets it: the caller removes the
    /// files. Nothing that is in use is given up, and nothing at all if it would not be enough.
    pub(crate) fn make_room(&mut self, bytes: u64) -> Result<Vec<Key>, NoRoom> {
        let wanted = (self.bytes + bytes).saturating_sub(self.bytes_max);
        let mut victims = Vec::new();
        let mut freed = 0;
        for key in self.order.values() {
            if freed >= wanted {
                break;
            }
            let entry = &self.entries[key];
            if entry.holders == 0 {
                freed += entry.bytes;
                victims.push(*key);
            }
        }
        if freed < wanted {
            return Err(NoRoom);
        }
        for key in &victims {
            self.remove(*key);
        }
        Ok(victims)
    }

    /// Sorts packs and objects anew into those that are still `named` by what the origin keeps,
    /// and those that have been superseded.
    pub(crate) fn rank(&mut self, named: impl Fn(Key) -> bool) {
        for (key, entry) in &mut self.entries {
            let rank = match key.kind {
                Kind::Partial => Rank::Abandoned,
                Kind::Object | Kind::Pack if named(*key) => Rank::Current,
                Kind::Object | Kind::Pack => Rank::Superseded,
            };
            if rank != entry.rank {
                self.order.remove(&(entry.rank, entry.used));
                entry.rank = rank;
                self.order.insert((rank, entry.used), *key);
            }
        }
    }

    fn current(&mut self, key: Key, born: u64) -> Option<&mut Entry> {
        self.entries
            .get_mut(&key)
            .filter(|entry| entry.born == born)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(kind: Kind, name: u8) -> Key {
        Key {
            kind,
            digest: Digest::from_raw([name; 32]),
        }
    }

    fn names(keys: &[Key]) -> Vec<u8> {
        keys.iter().map(|key| key.digest.as_raw()[0]).collect()
    }

    #[test]
    fn abandoned_fills_go_first_then_what_is_superseded_then_the_least_recently_used() {
        let mut index = Index::new(60);
        for name in 1..=5 {
            index.insert(key(Kind::Pack, name), 10, true, 0);
        }
        index.insert(key(Kind::Partial, 6), 10, false, 0);
        let born = index.hold(key(Kind::Pack, 1)).unwrap().born;
        index.release(key(Kind::Pack, 1), born);
        index.rank(|key| key.digest.as_raw()[0] != 4);
        let mut order = Vec::new();
        for name in 7..13 {
            order.push(names(&index.make_room(10).unwrap()));
            index.insert(key(Kind::Pack, name), 10, true, 1);
        }
        assert_eq!(order, [[6], [4], [2], [3], [5], [1]]);
        assert_eq!(index.make_room(10), Err(NoRoom));
        assert_eq!(index.bytes(), 60);
    }

    #[test]
    fn what_is_in_use_stays_and_nothing_goes_in_vain() {
        let mut index = Index::new(30);
        for name in 1..=3 {
            index.insert(key(Kind::Pack, name), 10, true, 0);
        }
        let held = index.hold(key(Kind::Pack, 1)).unwrap();
        assert_eq!(index.make_room(25), Err(NoRoom));
        assert_eq!(index.files(Kind::Pack), 3);
        assert_eq!(names(&index.make_room(20).unwrap()), [2, 3]);
        index.release(key(Kind::Pack, 1), held.born);
        assert_eq!(names(&index.make_room(30).unwrap()), [1]);
    }

    #[test]
    fn a_holder_of_a_file_that_has_gone_does_not_let_go_of_its_successor() {
        let mut index = Index::new(30);
        let first = index.insert(key(Kind::Pack, 1), 10, true, 1);
        index.remove(key(Kind::Pack, 1));
        index.insert(key(Kind::Pack, 1), 10, true, 1);
        index.release(key(Kind::Pack, 1), first);
        assert!(!index.remove_born(key(Kind::Pack, 1), first));
        assert_eq!(index.make_room(30), Err(NoRoom));
    }

    proptest! {
        /// Whatever happens, the sum is that of the parts, within the limit once room was made.
        #[test]
        fn the_sum_is_exact(
            steps in proptest::collection::vec((0u8..5, 0u8..8, 1u64..40), 1..200)
        ) {
            let mut index = Index::new(100);
            let mut model: BTreeMap<u8, u64> = BTreeMap::new();
            for (step, name, bytes) in steps {
                let pack = key(Kind::Pack, name);
                match step {
                    0 | 1 => {
                        if let Ok(victims) = index.make_room(bytes) {
                            for victim in names(&victims) {
                                model.remove(&victim);
                            }
                            index.insert(pack, bytes, false, 0);
                            model.insert(name, bytes);
                        }
                    }
                    2 => {
                        index.remove(pack);
                        model.remove(&name);
                    }
                    3 => index.rank(|key| key.digest.as_raw()[0] % 2 == 0),
                    _ => {
                        if let Some(found) = index.hold(pack) {
                            prop_assert_eq!(Some(&found.bytes), model.get(&name));
                            index.release(pack, found.born);
                        }
                    }
                }
                prop_assert_eq!(index.bytes(), model.values().sum::<u64>());
                prop_assert!(index.excess() == 0);
                prop_assert_eq!(index.order.len(), index.entries.len());
            }
        }
    }
}
