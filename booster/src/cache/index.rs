//! What the cache holds and what it would give up first: decided here, without touching a disk.

#[cfg(test)]
mod tests;

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
    /// What was found to be damaged, kept for whoever wants to know how. Never served.
    Quarantined,
}

/// Names a file of the cache.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) digest: Digest,
}

/// What the origin's word and the operator's make of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// A revision that is the latest of its fileset names it, or nothing is known of it yet.
    Current,
    /// Only revisions that are kept, but are not the latest, name it.
    Older,
    /// Somebody wants it to stay.
    Pinned,
    /// Named by no revision that is kept.
    Superseded,
}

/// Who asked for a pack: as much of a device's name as is needed to tell one from many.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Asker(u32);

impl Asker {
    /// Nobody in particular: the booster itself, which fetches something ahead of time.
    pub const NOBODY: Self = Self(0);

    /// The device of that name.
    #[must_use]
    pub fn device(name: &str) -> Self {
        let [a, b, c, d, ..] = *Digest::of(name.as_bytes()).as_raw();
        Self(u32::from_be_bytes([a, b, c, d]).max(1))
    }
}

/// In which order files are given up, first to last; within a rank the least recently used first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Rank {
    /// A fill that nobody waits for, or what is damaged.
    Abandoned,
    /// Named by no revision that is kept.
    Superseded,
    /// Named only by revisions that are not the latest.
    Older,
    /// Asked for by one device only.
    OneClient,
    /// All else.
    Current,
    /// Pinned, as far as there is room for pins.
    Pinned,
}

/// One file. With its place in the map and in the order it takes about 130 bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The first who asked for it.
    asker: Asker,
    bytes: u64,
    /// When it was made, by the index's own count: tells it from a later file of the same name.
    born: u64,
    /// When it was last used, likewise.
    used: u64,
    holders: u32,
    rank: Rank,
    /// Whether another than the first asked for it, too.
    shared: bool,
    standing: Standing,
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

/// A file as somebody sees it who looks but does not use it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Glimpse {
    pub(crate) bytes: u64,
    pub(crate) in_use: bool,
    pub(crate) rank: Rank,
    /// When it was last used: a higher count is later.
    pub(crate) used: u64,
    pub(crate) verified: bool,
}

/// Files of one kind and rank.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Total {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
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
    /// Bytes of the files that are pinned.
    pinned_bytes: u64,
}

impl Index {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            count: 0,
            pinned_bytes: 0,
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
        let standing = Standing::Current;
        // What a fill's readers have left behind goes over to the pack.
        let partial = Key {
            kind: Kind::Partial,
            ..key
        };
        let before = self
            .entries
            .get(&partial)
            .map_or((Asker::NOBODY, false), |entry| (entry.asker, entry.shared));
        let mut entry = Entry {
            asker: before.0,
            bytes,
            born: self.count,
            used: self.count,
            holders,
            rank: Rank::Current,
            shared: before.1,
            standing,
            uses: 0,
            verified,
        };
        entry.rank = rank_of(key.kind, &entry);
        self.entries.insert(key, entry);
        self.order.insert((entry.rank, entry.used), key);
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

    /// Holds a file without using it: its place in the order stays.
    pub(crate) fn hold_unused(&mut self, key: Key) -> Option<Found> {
        let entry = self.entries.get_mut(&key)?;
        entry.holders += 1;
        Some(Found {
            born: entry.born,
            bytes: entry.bytes,
            uses: entry.uses,
            verified: entry.verified,
        })
    }

    /// Looks at a file without using or holding it.
    pub(crate) fn glimpse(&self, key: Key) -> Option<Glimpse> {
        let entry = self.entries.get(&key)?;
        Some(Glimpse {
            bytes: entry.bytes,
            in_use: entry.holders > 0,
            rank: entry.rank,
            used: entry.used,
            verified: entry.verified,
        })
    }

    /// How many uses there have been: the count that the next is higher than.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// What there is, by kind and rank.
    pub(crate) fn totals(&self) -> BTreeMap<(Kind, Rank), Total> {
        let mut totals = BTreeMap::<_, Total>::new();
        for (key, entry) in &self.entries {
            let total = totals.entry((key.kind, entry.rank)).or_default();
            total.bytes += entry.bytes;
            total.files += 1;
        }
        totals
    }

    /// The files of that kind and their bytes, the least recently used first.
    pub(crate) fn of_kind(&self, kind: Kind) -> Vec<(Key, u64)> {
        let of_kind = self.entries.iter().filter(|(key, _)| key.kind == kind);
        let mut found: Vec<_> = of_kind.collect();
        found.sort_unstable_by_key(|(_, entry)| entry.used);
        let found = found.into_iter();
        found.map(|(key, entry)| (*key, entry.bytes)).collect()
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
        if entry.rank == Rank::Pinned {
            self.pinned_bytes -= entry.bytes;
        }
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
        for key in self.in_order() {
            if freed >= wanted {
                break;
            }
            freed += self.entries[&key].bytes;
            victims.push(key);
        }
        if freed < wanted {
            return Err(NoRoom);
        }
        for key in &victims {
            self.remove(*key);
        }
        Ok(victims)
    }

    /// What is not in use, as it would be given up. Pins beyond their share of the limit, the
    /// least recently used first, count like what is not pinned.
    fn in_order(&self) -> impl Iterator<Item = Key> {
        let idle = |(_, key): &(&(Rank, u64), &Key)| self.entries[*key].holders == 0;
        let split = (Rank::Current, 0);
        let mut pins = self
            .order
            .range((Rank::Pinned, 0)..)
            .filter(idle)
            .peekable();
        let mut current = self
            .order
            .range(split..(Rank::Pinned, 0))
            .filter(idle)
            .peekable();
        let mut over = self
            .pinned_bytes
            .saturating_sub(self.bytes_max / 10 * PINS_TENTHS_MAX);
        let ranked = std::iter::from_fn(move || {
            let (pin, other) = (pins.peek().copied(), current.peek().copied());
            let pin_goes = match (pin, other) {
                (Some(((_, pin), _)), Some(((_, other), _))) => over > 0 && pin < other,
                (pin, None) => pin.is_some(),
                (None, Some(_)) => false,
            };
            if !pin_goes {
                return current.next();
            }
            over = over.saturating_sub(pin.map_or(0, |(_, key)| self.entries[key].bytes));
            pins.next()
        });
        self.order
            .range(..split)
            .filter(idle)
            .chain(ranked)
            .map(|(_, key)| *key)
    }

    /// Takes note that `asker` has been given a pack, or what is there of it: a use.
    pub(crate) fn use_by(&mut self, digest: Digest, asker: Asker) {
        let kinds = [Kind::Pack, Kind::Partial].map(|kind| Key { kind, digest });
        let Some(key) = kinds.into_iter().find(|key| self.contains(*key)) else {
            return;
        };
        self.count += 1;
        let used = self.count;
        self.change(key, |entry| {
            entry.used = used;
            if entry.asker == Asker::NOBODY {
                entry.asker = asker;
            } else if asker != Asker::NOBODY && asker != entry.asker {
                entry.shared = true;
            }
        });
    }

    /// Sorts packs and objects anew.
    pub(crate) fn rank(&mut self, standing: impl Fn(Key) -> Standing) {
        let keys: Vec<Key> = self.entries.keys().copied().collect();
        for key in keys {
            self.change(key, |entry| entry.standing = standing(key));
        }
    }

    /// Sorts one file in by its standing.
    pub(crate) fn sort_in(&mut self, key: Key, standing: Standing) {
        self.change(key, |entry| entry.standing = standing);
    }

    /// Changes an entry, and its place in the order with it.
    fn change(&mut self, key: Key, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        self.order.remove(&(entry.rank, entry.used));
        if entry.rank == Rank::Pinned {
            self.pinned_bytes -= entry.bytes;
        }
        change(entry);
        entry.rank = rank_of(key.kind, entry);
        if entry.rank == Rank::Pinned {
            self.pinned_bytes += entry.bytes;
        }
        self.order.insert((entry.rank, entry.used), key);
    }

    fn current(&mut self, key: Key, born: u64) -> Option<&mut Entry> {
        self.entries
            .get_mut(&key)
            .filter(|entry| entry.born == born)
    }
}

fn rank_of(kind: Kind, entry: &Entry) -> Rank {
    match (kind, entry.standing) {
        (Kind::Partial | Kind::Quarantined, _) => Rank::Abandoned,
        (_, Standing::Superseded) => Rank::Superseded,
        (_, Standing::Older) => Rank::Older,
        (_, Standing::Pinned) => Rank::Pinned,
        (_, Standing::Current) if entry.asker != Asker::NOBODY && !entry.shared => Rank::OneClient,
        (_, Standing::Current) => Rank::Current,
    }
}

/// So many tenths of the limit are for pins.
const PINS_TENTHS_MAX: u64 = 7;
