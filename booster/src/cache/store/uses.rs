//! When things were last used: the index counts uses, and now and then somebody notes the time.

use std::sync::PoisonError;

use super::{Store, name};
use crate::cache::index::{Glimpse, Key, Kind, Rank, Total};

/// Counts of uses, each with the time at which it had been reached: enough to tell about when a
/// file was last used, at no cost for each.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Both rise.
    notes: Vec<(u64, i64)>,
}

impl Uses {
    /// By `now`, in Unix seconds, there had been `count` uses.
    pub(super) fn note(&mut self, count: u64, now: i64) {
        if let Some(last) = self.notes.last_mut() {
            // A clock that is set back does not make the past later.
            let now = now.max(last.1);
            if last.0 >= count || last.1 == now {
                last.0 = last.0.max(count);
                return;
            }
        }
        self.notes.push((count, now));
        if self.notes.len() > NOTES_MAX {
            // The older half need not be as exact as the younger.
            let (old, mut at) = (NOTES_MAX / 2, 0);
            self.notes.retain(|_| {
                at += 1;
                at > old || at % 2 == 0
            });
        }
    }

    /// About when the use of that count was, in Unix seconds; none if that is not noted yet.
    fn when(&self, count: u64) -> Option<i64> {
        let at = self.notes.partition_point(|(noted, _)| *noted < count);
        self.notes.get(at).map(|(_, when)| *when)
    }
}

/// A file of the cache, as it is told of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Sight {
    pub(crate) glimpse: Glimpse,
    /// About when it was last used, in Unix seconds; none if that was just now.
    pub(crate) last_used: Option<i64>,
}

impl Store {
    /// Notes the time, in Unix seconds, for those who ask when something was last used.
    pub(crate) fn note_uses(&self, now: i64) {
        let count = self.index().count();
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.note(count, now);
    }

    /// Looks at a file without using it.
    pub(crate) fn sight(&self, key: Key) -> Option<Sight> {
        let glimpse = self.index().glimpse(key)?;
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Sight {
            glimpse,
            last_used: uses.when(glimpse.used),
        })
    }

    /// What there is, by the names of kinds and ranks.
    pub(crate) fn totals(&self) -> Vec<(&'static str, &'static str, Total)> {
        let totals = self.index().totals().into_iter();
        totals
            .map(|((kind, rank), total)| (name(kind), rank.name(), total))
            .collect()
    }

    /// Gives a file up that nobody uses; says how many bytes that makes. Touches the disk.
    pub(crate) fn evict(&self, key: Key) -> Result<u64, Kept> {
        let files = self.files();
        let glimpse = self.index().glimpse(key).ok_or(Kept::Absent)?;
        if glimpse.rank == Rank::Pinned {
            return Err(Kept::Pinned);
        }
        if !self.index().remove_idle(key) {
            return Err(Kept::InUse);
        }
        self.remove_file(key);
        drop(files);
        self.count();
        let partial = Key {
            kind: Kind::Partial,
            ..key
        };
        Ok(match key.kind {
            Kind::Pack => glimpse.bytes + self.evict(partial).unwrap_or(0),
            Kind::Object | Kind::Private | Kind::Partial | Kind::Quarantined => glimpse.bytes,
        })
    }
}

/// Why a file is not given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kept {
    /// There is none.
    Absent,
    /// Somebody reads it.
    InUse,
    /// It is pinned.
    Pinned,
}

impl Rank {
    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Abandoned => "abandoned",
            Self::Superseded => "superseded",
            Self::Older => "older",
            Self::OneClient => "one-client",
            Self::Current => "current",
            Self::Pinned => "pinned",
        }
    }
}

/// Every half minute one: exact for hours, and in 16 KiB.
const NOTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_something_was_used_is_known_within_a_bound_of_memory() {
        let mut uses = Uses::default();
        assert_eq!(uses.when(1), None);
        uses.note(10, 100);
        uses.note(10, 130);
        uses.note(20, 160);
        uses.note(25, 90);
        let known = [0, 10, 11, 20, 25, 26].map(|count| uses.when(count));
        let expected = [Some(100), Some(100), Some(160), Some(160), Some(160), None];
        assert_eq!(known, expected);
        for note in 0..100_000 {
            uses.note(30 + note, 200 + note as i64 * 30);
        }
        assert!(uses.notes.len() <= NOTES_MAX);
        assert_eq!(uses.when(30 + 99_999), Some(200 + 99_999 * 30));
        let old = uses.when(30 + 50_000).unwrap();
        assert!((200 + 50_000 * 30..).contains(&old), "{old}");
        assert!(uses.notes.is_sorted());
    }
}
