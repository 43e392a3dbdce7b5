//! Where the index keeps its entries: slots of 64 bytes in lists, found by a table of numbers.
//!
//! Slots come in pieces, so that growing never copies them or takes twice the room, and free ones
//! are used again. Each is in one list, in the order of its last use. The table (open addressing,
//! linear probing, at most three quarters full) takes 4 bytes a place. With what doubling leaves
//! empty, a file takes 70 to 75 bytes.

use content::Digest;

use super::{Asker, Key, Kind, RANKS, Rank, Standing};

/// Where a slot is.
pub(super) type At = u32;

/// One file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) key_digest: Digest,
    /// Who asked for it.
    pub(super) asker: Asker,
    /// When it was made, by the index's own count: tells it from a later file of the same name.
    pub(super) born: u32,
    pub(super) bytes: u32,
    pub(super) holders: u32,
    /// When it was last used, by the index's own count.
    pub(super) used: u32,
    previous: At,
    next: At,
    pub(super) kind: Kind,
    pub(super) standing: Standing,
    pub(super) uses: u8,
    pub(super) verified: bool,
}

/// All slots.
#[derive(Debug)]
pub(super) struct Slab {
    pieces: Vec<Box<[Slot]>>,
    /// Slots that have been in use, whether they still are or not.
    begun: u32,
    /// The first of the slots that are free again; each names the next.
    free: At,
    live: u32,
    lists: [Ends; RANKS],
    /// Slots by name; [`NOWHERE`] where there is none.
    table: Vec<At>,
    /// Unknown outside, so that nobody can make names that crowd in one place of the table.
    seed: u64,
}

/// The first and the last of a list.
#[derive(Clone, Copy, Debug)]
struct Ends {
    first: At,
    last: At,
}

impl Slot {
    pub(super) fn new(key: Key) -> Self {
        Self {
            key_digest: key.digest,
            asker: Asker::NOBODY,
            born: 0,
            bytes: 0,
            holders: 0,
            used: 0,
            previous: NOWHERE,
            next: NOWHERE,
            kind: key.kind,
            standing: Standing::Current,
            uses: 0,
            verified: false,
        }
    }

    pub(super) fn key(&self) -> Key {
        Key {
            kind: self.kind,
            digest: self.key_digest,
        }
    }

    pub(super) fn rank(&self) -> Rank {
        match (self.kind, self.standing) {
            (Kind::Partial | Kind::Quarantined, _) => Rank::Abandoned,
            (_, Standing::Superseded) => Rank::Superseded,
            (_, Standing::Older) => Rank::Older,
            (_, Standing::Pinned) => Rank::Pinned,
            (_, Standing::Current) if self.asker.is_one() => Rank::OneClient,
            (_, Standing::Awaited | Standing::Current) => Rank::Current,
        }
    }
}

impl Slab {
    pub(super) fn new() -> Self {
        let empty = Ends {
            first: NOWHERE,
            last: NOWHERE,
        };
        Self {
            pieces: Vec::new(),
            begun: 0,
            free: NOWHERE,
            live: 0,
            lists: [empty; RANKS],
            table: vec![NOWHERE; TABLE_MIN],
            seed: fastrand::u64(..),
        }
    }

    /// Slots in use.
    pub(super) fn live(&self) -> usize {
        self.live as usize
    }

    /// Slots that have been in use: the bound for walking through all of them.
    pub(super) fn begun(&self) -> At {
        self.begun
    }

    pub(super) fn get(&self, at: At) -> &Slot {
        &self.pieces[at as usize / PIECE][at as usize % PIECE]
    }

    /// Whatever changes a slot's rank must take it out of its list before, and put it into one after.
    pub(super) fn get_mut(&mut self, at: At) -> &mut Slot {
        &mut self.pieces[at as usize / PIECE][at as usize % PIECE]
    }

    /// The slot at `at`, if it is in use.
    pub(super) fn in_use(&self, at: At) -> Option<&Slot> {
        let slot = (at < self.begun).then(|| self.get(at))?;
        // A free slot has no place of its own in the table.
        (self.find(slot.key()) == Some(at)).then_some(slot)
    }

    pub(super) fn find(&self, key: Key) -> Option<At> {
        let mut place = self.home(key);
        loop {
            let at = self.table[place];
            if at == NOWHERE {
                return None;
            }
            let slot = self.get(at);
            if slot.kind == key.kind && slot.key_digest == key.digest {
                return Some(at);
            }
            place = self.after(place);
        }
    }

    /// Adds a slot, whose name must be new, at the end of its list.
    pub(super) fn add(&mut self, slot: Slot) -> At {
        if (self.live as usize + 1) * 4 > self.table.len() * 3 {
            self.grow();
        }
        let at = self.take_free();
        *self.get_mut(at) = slot;
        self.enter(at);
        self.live += 1;
        self.append(at);
        at
    }

    /// Takes a slot away.
    pub(super) fn remove(&mut self, at: At) {
        self.unlink(at);
        self.leave(at);
        self.live -= 1;
        self.get_mut(at).next = self.free;
        self.free = at;
    }

    /// Puts a slot that is in no list at the end of the one of its rank.
    pub(super) fn append(&mut self, at: At) {
        let list = self.get(at).rank() as usize;
        let last = self.lists[list].last;
        let slot = self.get_mut(at);
        (slot.previous, slot.next) = (last, NOWHERE);
        if last == NOWHERE {
            self.lists[list].first = at;
        } else {
            self.get_mut(last).next = at;
        }
        self.lists[list].last = at;
    }

    /// Takes a slot out of its list.
    pub(super) fn unlink(&mut self, at: At) {
        let Slot { previous, next, .. } = *self.get(at);
        let list = self.get(at).rank() as usize;
        if previous == NOWHERE {
            self.lists[list].first = next;
        } else {
            self.get_mut(previous).next = next;
        }
        if next == NOWHERE {
            self.lists[list].last = previous;
        } else {
            self.get_mut(next).previous = previous;
        }
    }

    /// The slots of one list, the least recently used first.
    pub(super) fn list(&self, rank: Rank) -> impl Iterator<Item = (At, &Slot)> {
        let mut at = self.lists[rank as usize].first;
        std::iter::from_fn(move || {
            let slot = (at != NOWHERE).then(|| self.get(at))?;
            Some((std::mem::replace(&mut at, slot.next), slot))
        })
    }

    fn take_free(&mut self) -> At {
        if self.free != NOWHERE {
            let at = self.free;
            self.free = self.get(at).next;
            return at;
        }
        if self.begun as usize == self.pieces.len() * PIECE {
            let empty = Slot::new(Key {
                kind: Kind::Partial,
                digest: Digest::from_raw([0; 32]),
            });
            self.pieces.push(vec![empty; PIECE].into_boxed_slice());
        }
        self.begun += 1;
        self.begun - 1
    }

    /// Enters a slot in the table.
    fn enter(&mut self, at: At) {
        let mut place = self.home(self.get(at).key());
        while self.table[place] != NOWHERE {
            place = self.after(place);
        }
        self.table[place] = at;
    }

    /// Takes a slot out of the table, and closes the gap so that those behind it are still found.
    fn leave(&mut self, at: At) {
        let mut gap = self.home(self.get(at).key());
        while self.table[gap] != at {
            gap = self.after(gap);
        }
        let mut place = self.after(gap);
        while self.table[place] != NOWHERE {
            let home = self.home(self.get(self.table[place]).key());
            let mask = self.table.len() - 1;
            // It may move up to the gap if that is not before its home.
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(gap) & mask {
                self.table[gap] = self.table[place];
                gap = place;
            }
            place = self.after(place);
        }
        self.table[gap] = NOWHERE;
    }

    fn grow(&mut self) {
        let places = self.table.len() * 2;
        let before = std::mem::replace(&mut self.table, vec![NOWHERE; places]);
        for at in before.into_iter().filter(|at| *at != NOWHERE) {
            self.enter(at);
        }
    }

    /// Where a name is looked for first.
    fn home(&self, key: Key) -> usize {
        let [a, b, c, d, e, f, g, h, ..] = *key.digest.as_raw();
        let name = u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ self.seed ^ key.kind as u64;
        // Fibonacci hashing: the high bits of the product depend on all bits of the name.
        let mixed = name.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - self.table.len().trailing_zeros())) as usize
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.table.len() - 1)
    }
}

/// No slot.
const NOWHERE: At = At::MAX;
/// Slots that come at a time: 64 KiB.
const PIECE: usize = 1024;
/// Places of an empty table; a power of two, as all sizes of it are.
const TABLE_MIN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_takes_a_cache_line() {
        assert_eq!(size_of::<Slot>(), 64);
    }
}
