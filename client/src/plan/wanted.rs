//! Chunks that are wanted and may lie somewhere in the installed tree.

use content::{ChunkId, EntryPath};

/// Wanted chunks, and where each was found. The keys are the first half of the digests, which
/// keeps a million of them in 32 MB; whatever is found is verified in full when it is read.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    keys: Vec<Key>,
    spots: Vec<Spot>,
    paths: Vec<EntryPath>,
    path_bytes: usize,
}

type Key = [u8; 16];

#[derive(Clone, Copy, Debug)]
struct Spot {
    /// Which path, counted from 1; 0 if it was not found.
    path: u32,
    offset: u64,
}

impl Wanted {
    /// Wants the chunk called `id`. Beyond a bound it is forgotten: then it comes over the network,
    /// which costs bytes and not memory.
    pub(crate) fn want(&mut self, id: ChunkId) {
        let key = key(id);
        if self.keys.last() == Some(&key) {
            return;
        }
        if self.keys.len() == self.keys.capacity() {
            self.compact();
        }
        if self.keys.len() < KEYS_MAX {
            self.keys.push(key);
        }
    }

    /// Ends the wanting, so that chunks can be found.
    pub(crate) fn seal(&mut self) {
        self.compact();
        self.keys.shrink_to_fit();
        let nowhere = Spot { path: 0, offset: 0 };
        self.spots = vec![nowhere; self.keys.len()];
    }

    /// Whether the chunk called `id` is wanted and has not been found yet.
    pub(crate) fn is_missing(&self, id: ChunkId) -> bool {
        self.at(id).is_some_and(|at| self.spots[at].path == 0)
    }

    /// Takes note of a file that holds wanted chunks; none if there are too many already.
    pub(crate) fn add_path(&mut self, path: &EntryPath) -> Option<u32> {
        self.path_bytes += path.as_str().len();
        if self.path_bytes > PATH_BYTES_MAX {
            return None;
        }
        self.paths.push(path.clone());
        u32::try_from(self.paths.len()).ok()
    }

    /// Takes note of where the chunk called `id` lies: in a path that was added, at `offset`.
    pub(crate) fn found(&mut self, id: ChunkId, path: u32, offset: u64) {
        if let Some(at) = self.at(id) {
            self.spots[at] = Spot { path, offset };
        }
    }

    /// Where the chunk called `id` lies.
    pub(crate) fn spot(&self, id: ChunkId) -> Option<(&EntryPath, u64)> {
        let spot = self.spots[self.at(id)?];
        let path = self.paths.get((spot.path as usize).checked_sub(1)?)?;
        Some((path, spot.offset))
    }

    fn at(&self, id: ChunkId) -> Option<usize> {
        self.keys.binary_search(&key(id)).ok()
    }

    fn compact(&mut self) {
        self.keys.sort_unstable();
        self.keys.dedup();
        // As much room again as there is now, so that sorting happens ever more seldom.
        let room = self.keys.len().clamp(1024, KEYS_MAX);
        self.keys
            .reserve(room.min(KEYS_MAX - self.keys.len().min(KEYS_MAX)));
    }
}

fn key(id: ChunkId) -> Key {
    let mut key = [0; 16];
    key.copy_from_slice(&id.0.as_raw()[..16]);
    key
}

/// The most chunks that are looked for: 32 MB of keys and spots.
const KEYS_MAX: usize = 1 << 20;
/// The most bytes of paths that hold such chunks.
const PATH_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use content::Digest;

    use super::*;

    fn id(number: u32) -> ChunkId {
        ChunkId(Digest::of(&number.to_be_bytes()))
    }

    #[test]
    fn what_is_wanted_is_found_and_nothing_else() {
        let mut wanted = Wanted::default();
        for number in 0..10_000 {
            wanted.want(id(number % 5000));
        }
        wanted.seal();
        assert_eq!(wanted.keys.len(), 5000);
        assert!(wanted.is_missing(id(7)) && !wanted.is_missing(id(5000)));
        let path = EntryPath::new("a/b").unwrap();
        let at = wanted.add_path(&path).unwrap();
        wanted.found(id(7), at, 99);
        assert!(!wanted.is_missing(id(7)));
        assert_eq!(wanted.spot(id(7)), Some((&path, 99)));
        assert_eq!(wanted.spot(id(8)), None);
        assert_eq!(wanted.spot(id(5000)), None);
    }

    #[test]
    fn beyond_the_bound_chunks_are_forgotten() {
        let mut wanted = Wanted::default();
        for number in 0..KEYS_MAX as u32 + 100 {
            wanted.want(id(number));
        }
        wanted.seal();
        assert_eq!(wanted.keys.len(), KEYS_MAX);
    }
}
