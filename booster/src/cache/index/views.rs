//! What there is, for those who look but do not use it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::slab::Slot;
use super::{Index, Key, Kind, Rank};

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

/// Files of one kind and rank, and what they take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Total {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

impl Index {
    /// How many files of that kind are not known to be good.
    pub(crate) fn unverified(&self, kind: Kind) -> usize {
        self.slots()
            .filter(|it| it.kind == kind && !it.verified)
            .count()
    }

    /// The fills that nobody is at.
    pub(crate) fn idle_fills(&self) -> Vec<Key> {
        let fills = self.slab.list(Rank::Abandoned);
        let idle = fills.filter(|(_, slot)| slot.kind == Kind::Partial && slot.holders == 0);
        idle.map(|(_, slot)| slot.key()).collect()
    }

    /// Looks at a file without using or holding it.
    pub(crate) fn glimpse(&self, key: Key) -> Option<Glimpse> {
        let slot = self.slab.get(self.slab.find(key)?);
        Some(Glimpse {
            bytes: u64::from(slot.bytes),
            in_use: slot.holders > 0,
            rank: slot.rank(),
            used: self.count - u64::from(self.age(slot)),
            verified: slot.verified,
        })
    }

    /// How many uses there have been: the count that the next is higher than.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// What there is, by kind and rank.
    pub(crate) fn totals(&self) -> BTreeMap<(Kind, Rank), Total> {
        let mut totals = BTreeMap::<_, Total>::new();
        for slot in self.slots() {
            let total = totals.entry((slot.kind, slot.rank())).or_default();
            total.bytes += self.taken(u64::from(slot.bytes));
            total.files += 1;
        }
        totals
    }

    /// The files of that kind and their bytes, the least recently used first.
    pub(crate) fn of_kind(&self, kind: Kind) -> Vec<(Key, u64)> {
        let mut found: Vec<&Slot> = self.slots().filter(|slot| slot.kind == kind).collect();
        found.sort_unstable_by_key(|slot| Reverse(self.age(slot)));
        let found = found.into_iter();
        found
            .map(|slot| (slot.key(), u64::from(slot.bytes)))
            .collect()
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        (0..self.slab.begun()).filter_map(|at| self.slab.in_use(at))
    }
}
