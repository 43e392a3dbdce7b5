//! Files that stay open for their next reader.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cache::index::Key;

/// The packs that were used last, open: up to [`OPEN_MAX`] of them. To open a file costs more than
/// to read 4 KiB of it, and a hop to a thread that may wait for the disk.
#[derive(Debug, Default)]
pub(super) struct Opened(Mutex<Files>);

#[derive(Debug, Default)]
struct Files {
    by_name: HashMap<Key, Open>,
    /// By last use, which is never the same twice.
    by_use: BTreeMap<u64, Key>,
    uses: u64,
}

#[derive(Debug)]
struct Open {
    /// When the file's entry in the index was made: its successor has another.
    born: u32,
    file: Arc<File>,
    used: u64,
}

impl Opened {
    /// The file of the entry that was made then, if it is open.
    pub(super) fn get(&self, key: Key, born: u32) -> Option<Arc<File>> {
        let mut files = self.files();
        files.uses += 1;
        let now = files.uses;
        let open = files.by_name.get_mut(&key).filter(|it| it.born == born)?;
        let before = std::mem::replace(&mut open.used, now);
        let file = Arc::clone(&open.file);
        files.by_use.remove(&before);
        files.by_use.insert(now, key);
        Some(file)
    }

    /// Keeps a file open, and closes the one that was not used for the longest if they are many.
    pub(super) fn keep(&self, key: Key, born: u32, file: &Arc<File>) {
        let mut files = self.files();
        files.uses += 1;
        let used = files.uses;
        let file = Arc::clone(file);
        let before = files.by_name.insert(key, Open { born, file, used });
        if let Some(before) = &before {
            files.by_use.remove(&before.used);
        }
        files.by_use.insert(used, key);
        let oldest = (files.by_name.len() > OPEN_MAX)
            .then(|| files.by_use.pop_first())
            .flatten();
        let closed = oldest.and_then(|(_, oldest)| files.by_name.remove(&oldest));
        drop(files);
        // Closed by whoever lets go of it last, and not under the lock.
        drop((before, closed));
    }

    /// Closes a file, as soon as nobody reads it any more: what is given up has to make room.
    pub(super) fn forget(&self, key: Key) {
        let mut files = self.files();
        let open = files.by_name.remove(&key);
        if let Some(open) = &open {
            files.by_use.remove(&open.used);
        }
        drop(files);
        drop(open);
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // Nothing here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 1 GiB of packs of the usual 4 MiB, and a quarter of the descriptors that a process has by
/// default.
const OPEN_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use content::Digest;

    use super::*;
    use crate::cache::index::Kind;

    fn key(name: usize) -> Key {
        Key {
            kind: Kind::Pack,
            digest: Digest::of(&name.to_be_bytes()),
        }
    }

    fn file() -> Arc<File> {
        Arc::new(tempfile::tempfile().unwrap())
    }

    #[test]
    fn the_file_that_was_not_used_for_the_longest_is_closed_first() {
        let opened = Opened::default();
        let files: Vec<_> = (0..=OPEN_MAX).map(|_| file()).collect();
        for (name, file) in files.iter().enumerate() {
            opened.keep(key(name), 1, file);
            assert!(opened.get(key(0), 1).is_some());
        }
        assert!(opened.get(key(1), 1).is_none());
        assert_eq!(Arc::strong_count(&files[1]), 1);
        assert_eq!(Arc::strong_count(&files[2]), 2);
        let files = opened.files();
        assert_eq!(files.by_name.len(), OPEN_MAX);
        assert_eq!(files.by_use.len(), OPEN_MAX);
    }

    #[test]
    fn a_file_is_not_its_successor() {
        let opened = Opened::default();
        let (first, second) = (file(), file());
        opened.keep(key(1), 1, &first);
        assert!(opened.get(key(1), 2).is_none());
        opened.keep(key(1), 2, &second);
        assert!(opened.get(key(1), 1).is_none());
        assert_eq!(Arc::strong_count(&first), 1);
        opened.forget(key(1));
        assert!(opened.get(key(1), 2).is_none());
        assert_eq!(Arc::strong_count(&second), 1);
        assert!(opened.files().by_use.is_empty());
    }
}
