//! The memory tier: packs and objects that are asked for again and again.

use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::index::Key;
use super::rope::Rope;

/// What is hot, within a limit of bytes.
///
/// The least recently used goes first: by frequency, which moka prefers by default, a new pack
/// would be turned away again and again while everybody asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Cache<Key, Arc<Rope>>);

impl Memory {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let weigh = |_: &Key, rope: &Arc<Rope>| u32::try_from(rope.length()).unwrap_or(u32::MAX);
        let cache = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(weigh)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self(cache)
    }

    pub(crate) fn get(&self, key: Key) -> Option<Arc<Rope>> {
        self.0.get(&key)
    }

    pub(crate) fn put(&self, key: Key, rope: Arc<Rope>) {
        self.0.insert(key, rope);
    }

    pub(crate) fn forget(&self, key: Key) {
        self.0.invalidate(&key);
    }
}
