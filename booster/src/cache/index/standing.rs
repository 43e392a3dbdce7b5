//! What decides which file goes first: what is said of it, and who asked for it.

use std::sync::atomic::{AtomicU32, Ordering};

use content::Digest;

/// What the origin's word and the operator's make of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// A revision that is the latest of its fileset names it, and more than one device has asked for
    /// what is in that fileset: whoever comes first with a new revision is not the last.
    Awaited,
    /// A revision that is the latest of its fileset names it, or nothing is known of it yet.
    Current,
    /// Only revisions that are kept, but are not the latest, name it.
    Older,
    /// Somebody wants it to stay.
    Pinned,
    /// Named by no revision that is kept.
    Superseded,
}

/// For whom room is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Errand {
    /// Nobody waits for what comes, which will have that standing: whatever is worth more stays,
    /// and so does all that is pinned.
    Nobody(Standing),
    /// Somebody waits for what comes.
    Somebody,
}

impl Errand {
    /// The highest rank that is given up for it.
    pub(super) fn takes_up_to(self) -> Rank {
        match self {
            Self::Somebody => Rank::Pinned,
            Self::Nobody(Standing::Awaited | Standing::Current | Standing::Pinned) => Rank::Current,
            Self::Nobody(Standing::Older) => Rank::Older,
            Self::Nobody(Standing::Superseded) => Rank::Superseded,
        }
    }
}

/// Who asked for a pack: as much of a device's name as is needed to tell one from many.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Asker(u32);

impl Asker {
    /// Nobody in particular: the booster itself, which fetches something ahead of time.
    pub const NOBODY: Self = Self(0);
    /// More than one device.
    const MANY: Self = Self(u32::MAX);

    /// The device of that name.
    #[must_use]
    pub fn device(name: &str) -> Self {
        let [a, b, c, d, ..] = *Digest::of(name.as_bytes()).as_raw();
        Self(u32::from_be_bytes([a, b, c, d]).clamp(1, u32::MAX - 1))
    }

    pub(super) fn is_one(self) -> bool {
        self != Self::NOBODY && self != Self::MANY
    }

    /// Both of them.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::NOBODY, one) | (one, Self::NOBODY) => one,
            (one, other) if one == other => one,
            (_, _) => Self::MANY,
        }
    }
}

/// Whether anybody has asked for any of some things, and whether more than one device has.
#[derive(Debug, Default)]
pub(crate) struct Company(AtomicU32);

impl Company {
    /// Takes note of one who asks.
    pub(crate) fn note(&self, asker: Asker) {
        let with = |before| {
            let after = Asker(before).and(asker);
            (after.0 != before).then_some(after.0)
        };
        // That nothing changes is how it goes most of the time.
        let _changed = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, with);
    }

    /// Whether more than one device has asked.
    pub(crate) fn is_many(&self) -> bool {
        Asker(self.0.load(Ordering::Relaxed)) == Asker::MANY
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

/// How many ranks there are.
pub(super) const RANKS: usize = 6;
