//! Reading what is hot into memory: each pack once, and few at a time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::index::Key;
use super::memory::Memory;
use super::rope::Rope;
use super::store::StoredPack;

/// The packs that are being read into memory.
#[derive(Debug)]
pub(crate) struct Promotions {
    memory: Memory,
    under_way: Mutex<HashSet<Key>>,
}

/// A pack that is to be read into memory, by nobody else meanwhile.
#[derive(Debug)]
pub(crate) struct Promotion {
    key: Key,
    promotions: Arc<Promotions>,
}

impl Promotions {
    pub(crate) fn new(memory: Memory) -> Arc<Self> {
        Arc::new(Self {
            memory,
            under_way: Mutex::default(),
        })
    }

    /// Sets out to read a pack into memory. None if that is under way for this pack, or for enough
    /// others: whoever wants it can read it from disk, piece by piece.
    pub(crate) fn begin(self: &Arc<Self>, key: Key) -> Option<Promotion> {
        let mut under_way = self.under_way();
        let is_mine = under_way.len() < AT_ONCE && under_way.insert(key);
        is_mine.then(|| Promotion {
            key,
            promotions: Arc::clone(self),
        })
    }

    fn under_way(&self) -> MutexGuard<'_, HashSet<Key>> {
        // A set of names is never half-changed.
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Promotion {
    /// Reads the pack into memory, unless another has just done so. None if the disk fails. Touches
    /// the disk.
    pub(crate) fn read(self, pack: &StoredPack) -> Option<Arc<Rope>> {
        let memory = &self.promotions.memory;
        if let Some(rope) = memory.get(self.key) {
            return Some(rope);
        }
        let bytes = pack.read(0, pack.bytes() as usize).ok()?;
        let rope = Arc::new(Rope::from(Bytes::from(bytes)));
        memory.put(self.key, Arc::clone(&rope));
        // Somebody may have come to doubt it while it was read: those who come after him must not
        // find it here.
        if !pack.is_verified() {
            memory.forget(self.key);
        }
        Some(rope)
    }
}

impl Drop for Promotion {
    fn drop(&mut self) {
        self.promotions.under_way().remove(&self.key);
    }
}

/// How many packs are read into memory at a time, each of at most 8 MiB: what they take beside the
/// memory tier is small, and a disk is not read any faster by more.
const AT_ONCE: usize = 4;

#[cfg(test)]
mod tests {
    use content::Digest;

    use super::*;
    use crate::cache::index::Kind;

    #[test]
    fn a_pack_is_promoted_by_one_at_a_time_and_few_are_at_once() {
        let key = |name| Key {
            kind: Kind::Pack,
            digest: Digest::from_raw([name; 32]),
        };
        let promotions = Promotions::new(Memory::new(0));
        let first = promotions.begin(key(1)).unwrap();
        assert!(promotions.begin(key(1)).is_none());
        let others: Vec<Promotion> = (2..50).map_while(|it| promotions.begin(key(it))).collect();
        assert_eq!(others.len() + 1, AT_ONCE);
        drop(first);
        assert!(promotions.begin(key(1)).is_some());
    }
}
