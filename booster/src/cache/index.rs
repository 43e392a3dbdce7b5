//! What the cache holds and what it would give up first: decided here, without touching a disk.
//!
//! Looking up, using and adding a file take the same time however many there are, and finding one
//! asks for no memory.

mod ghosts;
mod slab;
mod standing;
#[cfg(test)]
mod tests;
mod views;

use std::cmp::Reverse;

use content::Digest;

use ghosts::Ghosts;
use slab::{At, Slab, Slot};
use standing::RANKS;
pub use standing::{Asker, Standing};
pub(crate) use standing::{Company, Errand, Rank};
pub(crate) use views::{Glimpse, Total};

/// What kind of thing a file of the cache is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// A small object, whose name is the digest of its bytes.
    Object,
    /// The same, but for those alone who are entitled to it: never given to whoever knows its name.
    Private,
    /// A whole pack, whose name is the digest of its header.
    Pack,
    /// A pack of which only the first frames are there.
    Partial,
    /// What was found to be damaged, kept for whoever wants to know how. Never served.
    Quarantined,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Object,
        Self::Private,
        Self::Pack,
        Self::Partial,
        Self::Quarantined,
    ];
}

/// Names a file of the cache.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub digest: Digest,
}

/// What a look-up found. The entry stays in use until [`Index::release`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Found {
    /// When it was made, by the index's own count.
    pub born: u32,
    /// Its length.
    pub bytes: u64,
    /// How often it has been looked up, this time included, as far as a byte can count.
    pub uses: u8,
    /// Whether its bytes are known to be good.
    pub verified: bool,
}

/// There is no room, and what is not in use would not make enough of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoRoom;

/// A file whose standing has changed, until `Index::place` has been told.
#[derive(Clone, Copy, Debug)]
pub struct Misplaced {
    /// How many uses of any file ago it was last used.
    age: u32,
    at: At,
    born: u32,
    standing: Standing,
}

/// All files of the cache, and what they may take.
///
/// A file takes as many whole blocks of the file system as its bytes need; limits and sums are of
/// those.
#[derive(Debug)]
pub struct Index {
    slab: Slab,
    ghosts: Ghosts,
    block_bytes: u64,
    bytes: u64,
    bytes_max: u64,
    /// Uses so far, of all files.
    count: u64,
    files: [usize; Kind::ALL.len()],
    /// Bytes of the files that are pinned.
    pinned_bytes: u64,
}

impl Index {
    /// An empty one, for files of at most `bytes_max` bytes in all, on a file system with blocks of
    /// `block_bytes`.
    #[must_use]
    pub fn new(bytes_max: u64, block_bytes: u64) -> Self {
        Self {
            slab: Slab::new(),
            ghosts: Ghosts::default(),
            block_bytes: block_bytes.max(1),
            bytes: 0,
            bytes_max,
            count: 0,
            files: [0; Kind::ALL.len()],
            pinned_bytes: 0,
        }
    }

    /// Bytes that all files take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the files that are pinned.
    #[must_use]
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// Bytes by which the files exceed what they may take.
    pub(crate) fn excess(&self) -> u64 {
        self.bytes.saturating_sub(self.bytes_max)
    }

    /// How many files of that kind there are.
    #[must_use]
    pub fn files(&self, kind: Kind) -> usize {
        self.files[kind as usize]
    }

    /// Whether there is such a file.
    #[must_use]
    pub fn contains(&self, key: Key) -> bool {
        self.slab.find(key).is_some()
    }

    /// Adds a file, as the most recently used, held by `holders`; replaces one of the same name.
    /// Says when it was born. A pack takes over who asked for it from its fill, if that is there,
    /// or from when it was last here.
    pub fn insert(&mut self, key: Key, bytes: u64, verified: bool, holders: u32) -> u32 {
        self.remove(key);
        self.count += 1;
        let mut slot = Slot::new(key);
        if key.kind == Kind::Pack {
            let fill = self.slab.find(Key {
                kind: Kind::Partial,
                ..key
            });
            slot.asker = fill.map_or(Asker::NOBODY, |at| self.slab.get(at).asker);
            slot.asker = slot.asker.and(self.ghosts.take(&key.digest));
        }
        slot.born = self.count as u32;
        slot.used = self.count as u32;
        slot.bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        slot.holders = holders;
        slot.verified = verified;
        self.slab.add(slot);
        self.bytes += self.taken(bytes);
        self.files[key.kind as usize] += 1;
        slot.born
    }

    /// Looks a file up, which counts as a use, and holds it.
    pub fn hold(&mut self, key: Key) -> Option<Found> {
        let at = self.slab.find(key)?;
        self.touch(at, Asker::NOBODY);
        let slot = self.slab.get_mut(at);
        slot.uses = slot.uses.saturating_add(1);
        self.hold_unused(key)
    }

    /// Holds a file without using it: its place in the order stays.
    pub(crate) fn hold_unused(&mut self, key: Key) -> Option<Found> {
        let at = self.slab.find(key)?;
        let slot = self.slab.get_mut(at);
        slot.holders += 1;
        Some(Found {
            born: slot.born,
            bytes: u64::from(slot.bytes),
            uses: slot.uses,
            verified: slot.verified,
        })
    }

    /// Lets go of a file that was born then. One that has gone since is no matter.
    pub fn release(&mut self, key: Key, born: u32) {
        if let Some(slot) = self.current(key, born) {
            slot.holders = slot.holders.saturating_sub(1);
        }
    }

    /// Takes note that `asker` has been given a pack, or what is there of it: a use.
    pub fn use_by(&mut self, digest: Digest, asker: Asker) {
        let kinds = [Kind::Pack, Kind::Partial];
        let find = |kind| self.slab.find(Key { kind, digest });
        if let Some(at) = kinds.into_iter().find_map(find) {
            self.touch(at, asker);
        }
    }

    /// Takes note that the bytes of a file that was born then are known to be good. One that has
    /// taken its place since is not the one that was checked.
    pub(crate) fn set_verified(&mut self, key: Key, born: u32) {
        if let Some(slot) = self.current(key, born) {
            slot.verified = true;
        }
    }

    /// Takes note that the bytes of a file, whichever it is by now, are not known to be good.
    pub(crate) fn doubt(&mut self, key: Key) {
        if let Some(at) = self.slab.find(key) {
            self.slab.get_mut(at).verified = false;
        }
    }

    /// Whether a file is still the one that was born then.
    pub(crate) fn is_current(&mut self, key: Key, born: u32) -> bool {
        self.current(key, born).is_some()
    }

    /// Whether the bytes of a file that was born then are known to be good.
    pub(crate) fn is_verified(&mut self, key: Key, born: u32) -> bool {
        self.current(key, born).is_some_and(|slot| slot.verified)
    }

    /// Takes note that a file born then has `bytes` bytes.
    pub(crate) fn resize(&mut self, key: Key, born: u32, bytes: u64) {
        let after = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Some(slot) = self.current(key, born) else {
            return;
        };
        let before = u64::from(std::mem::replace(&mut slot.bytes, after));
        let (before, after) = (self.taken(before), self.taken(u64::from(after)));
        self.bytes = self.bytes - before + after;
    }

    /// Forgets a file. False if there is none.
    pub fn remove(&mut self, key: Key) -> bool {
        let found = self.slab.find(key);
        found.is_some_and(|at| {
            self.forget(at);
            true
        })
    }

    /// Forgets a file if it is still the one that was born then.
    pub(crate) fn remove_born(&mut self, key: Key, born: u32) -> bool {
        self.current(key, born).is_some() && self.remove(key)
    }

    /// Forgets a file unless it is in use.
    pub(crate) fn remove_idle(&mut self, key: Key) -> bool {
        let found = self.slab.find(key);
        found.is_some_and(|at| self.slab.get(at).holders == 0) && self.remove(key)
    }

    /// Decides what to give up so that `bytes` more fit, and forgets it: the caller removes the
    /// files. Nothing that is in use is given up, and nothing at all if it would not be enough.
    ///
    /// # Errors
    ///
    /// Fails if it would not be enough.
    pub fn make_room(&mut self, bytes: u64) -> Result<Vec<Key>, NoRoom> {
        self.make_room_for(Errand::Somebody, bytes, 0)
    }

    /// The same, on an errand, if the file system `lacks` so many bytes besides: at least those go.
    pub(crate) fn make_room_for(
        &mut self,
        errand: Errand,
        bytes: u64,
        lacks: u64,
    ) -> Result<Vec<Key>, NoRoom> {
        let wanted = (self.bytes + self.taken(bytes)).saturating_sub(self.bytes_max);
        self.give_up(wanted.max(lacks), errand.takes_up_to())
    }

    /// Decides what to give up, of what has no higher a rank than `most`, so that at least `wanted`
    /// bytes of what is here go.
    fn give_up(&mut self, wanted: u64, most: Rank) -> Result<Vec<Key>, NoRoom> {
        let (mut victims, mut freed) = (Vec::new(), 0);
        let may_go = self.in_order().filter(|(_, slot)| slot.rank() <= most);
        for (at, slot) in may_go {
            if freed >= wanted {
                break;
            }
            freed += self.taken(u64::from(slot.bytes));
            victims.push(at);
        }
        if freed < wanted {
            return Err(NoRoom);
        }
        let give_up = |at| {
            let Slot { asker, kind, .. } = *self.slab.get(at);
            let key = self.slab.get(at).key();
            if kind == Kind::Pack {
                self.ghosts.put(&key.digest, asker, self.slab.live());
            }
            self.forget(at);
            key
        };
        Ok(victims.into_iter().map(give_up).collect())
    }

    /// Which of `pieces` of the index (see [`Index::pieces`]) have another standing now than they
    /// had. Adds them to `misplaced`.
    pub(crate) fn look_at(
        &self,
        piece: usize,
        standing: &impl Fn(Key) -> Standing,
        misplaced: &mut Vec<Misplaced>,
    ) {
        let from = (piece * SORTED_AT_ONCE) as At;
        let end = from.saturating_add(SORTED_AT_ONCE as At);
        for at in from..end.min(self.slab.begun()) {
            let Some(slot) = self.slab.in_use(at) else {
                continue;
            };
            let standing = standing(slot.key());
            if standing != slot.standing {
                misplaced.push(Misplaced {
                    age: self.age(slot),
                    at,
                    born: slot.born,
                    standing,
                });
            }
        }
    }

    /// How many pieces there are to look at.
    pub(crate) fn pieces(&self) -> usize {
        (self.slab.begun() as usize).div_ceil(SORTED_AT_ONCE)
    }

    /// Puts files where they belong. Within its new rank, what comes counts as used after what is
    /// there.
    pub(crate) fn place(&mut self, misplaced: &[Misplaced]) {
        for it in misplaced {
            let there = self.slab.in_use(it.at);
            if there.is_some_and(|slot| slot.born == it.born) {
                self.change(it.at, |slot| slot.standing = it.standing);
            }
        }
    }

    /// Sorts all files anew, in one go.
    pub fn rank(&mut self, standing: impl Fn(Key) -> Standing) {
        let mut misplaced = Vec::new();
        for piece in 0..self.pieces() {
            self.look_at(piece, &standing, &mut misplaced);
        }
        self.place(in_order_of_use(&mut misplaced));
    }

    /// Sorts one file in by its standing.
    pub fn sort_in(&mut self, key: Key, standing: Standing) {
        if let Some(at) = self.slab.find(key) {
            self.change(at, |slot| slot.standing = standing);
        }
    }

    /// What is not in use, as it would be given up. Pins beyond their share of the limit, the
    /// least recently used first, count like what is not pinned.
    fn in_order(&self) -> impl Iterator<Item = (At, &Slot)> {
        let list = |rank| {
            let slots = self.slab.list(rank);
            slots.filter(|(_, slot)| slot.holders == 0)
        };
        let pins_max = pinned_bytes_max(self.bytes_max);
        let mut over = self.pinned_bytes.saturating_sub(pins_max);
        let mut pins = list(Rank::Pinned).peekable();
        let mut current = list(Rank::Current).peekable();
        let last = std::iter::from_fn(move || {
            let pin_goes = match (pins.peek(), current.peek()) {
                (Some((_, pin)), Some((_, other))) => over > 0 && is_before(pin.used, other.used),
                (pin, None) => pin.is_some(),
                (None, Some(_)) => false,
            };
            if !pin_goes {
                return current.next();
            }
            let pin = pins.next()?;
            over = over.saturating_sub(self.taken(u64::from(pin.1.bytes)));
            Some(pin)
        });
        list(Rank::Abandoned)
            .chain(list(Rank::Superseded))
            .chain(list(Rank::Older))
            .chain(list(Rank::OneClient))
            .chain(last)
    }

    /// Counts a use.
    fn touch(&mut self, at: At, asker: Asker) {
        self.count += 1;
        let used = self.count as u32;
        self.change(at, |slot| {
            slot.used = used;
            slot.asker = slot.asker.and(asker);
        });
    }

    /// Changes a slot, and puts it at the end of its list.
    fn change(&mut self, at: At, change: impl FnOnce(&mut Slot)) {
        self.slab.unlink(at);
        let slot = self.slab.get_mut(at);
        let before = slot.rank();
        change(slot);
        let (bytes, after) = (u64::from(slot.bytes), slot.rank());
        self.slab.append(at);
        if before != after {
            let taken = self.taken(bytes);
            self.pinned_bytes -= if before == Rank::Pinned { taken } else { 0 };
            self.pinned_bytes += if after == Rank::Pinned { taken } else { 0 };
        }
    }

    fn forget(&mut self, at: At) {
        let slot = self.slab.get(at);
        let (kind, rank, bytes) = (slot.kind, slot.rank(), u64::from(slot.bytes));
        self.slab.remove(at);
        let taken = self.taken(bytes);
        self.bytes -= taken;
        self.pinned_bytes -= if rank == Rank::Pinned { taken } else { 0 };
        self.files[kind as usize] -= 1;
    }

    fn current(&mut self, key: Key, born: u32) -> Option<&mut Slot> {
        let at = self.slab.find(key)?;
        let slot = self.slab.get_mut(at);
        (slot.born == born).then_some(slot)
    }

    /// How many uses of any file ago this one was last used.
    fn age(&self, slot: &Slot) -> u32 {
        (self.count as u32).wrapping_sub(slot.used)
    }

    /// How much more a file takes when it grows to `bytes` from what is `there` of it.
    pub(crate) fn taken_more(&self, there: u64, bytes: u64) -> u64 {
        self.taken(bytes).saturating_sub(self.taken(there))
    }

    /// What a file of `bytes` takes.
    fn taken(&self, bytes: u64) -> u64 {
        bytes.next_multiple_of(self.block_bytes)
    }
}

/// Sorts files by their last use.
pub(crate) fn in_order_of_use(misplaced: &mut [Misplaced]) -> &[Misplaced] {
    misplaced.sort_unstable_by_key(|it| Reverse(it.age));
    misplaced
}

/// Whether a use came before another, by a count that begins anew: right as long as they lie less
/// than 2³¹ uses apart.
fn is_before(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() < 0
}

/// Bytes that pins keep from being given up, of a cache of `bytes_max`.
pub(crate) fn pinned_bytes_max(bytes_max: u64) -> u64 {
    bytes_max / 10 * PINS_TENTHS_MAX
}

/// So many tenths of the limit are for pins.
const PINS_TENTHS_MAX: u64 = 7;
/// Entries that are sorted without a pause: some 100 µs.
const SORTED_AT_ONCE: usize = 1024;
