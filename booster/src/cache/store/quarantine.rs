//! What was found to be damaged: moved aside, for whoever wants to know how it came to be.

use std::fs;

use tracing::warn;

use super::Store;
use crate::cache::index::{Key, Kind};

impl Store {
    /// Moves a damaged file of `bytes`, whose entry has just been removed, aside, and drops the
    /// oldest there as far as there are too many. One that cannot be moved is removed: it is not
    /// served in any case. What lies there counts towards the cache's limit, and is the first to be
    /// given up. The lock on files must be held. Touches the disk.
    pub(super) fn quarantine(&self, key: Key, bytes: u64) {
        let aside = Key {
            kind: Kind::Quarantined,
            digest: key.digest,
        };
        self.opened.forget(key);
        let is_kept = matches!(key.kind, Kind::Object | Kind::Private | Kind::Pack);
        if !is_kept || fs::rename(self.path(key), self.path(aside)).is_err() {
            return self.remove_file(key);
        }
        // A damaged file may have another length than it should.
        let bytes = fs::metadata(self.path(aside)).map_or(bytes, |metadata| metadata.len());
        self.index().insert(aside, bytes, false, 0);
        warn!(file = %self.path(aside).display(), "moved it to quarantine");
        self.trim_quarantine();
    }

    /// Drops the oldest of what is quarantined, as far as there is too much. The lock on files must
    /// be held. Touches the disk.
    pub(super) fn trim_quarantine(&self) {
        let mut index = self.index();
        let held = index.of_kind(Kind::Quarantined);
        let mut bytes: u64 = held.iter().map(|(_, bytes)| bytes).sum();
        let (mut files, mut dropped) = (held.len(), Vec::new());
        for (key, length) in held {
            if files <= FILES_MAX && bytes <= BYTES_MAX {
                break;
            }
            if index.remove_idle(key) {
                (files, bytes) = (files - 1, bytes - length);
                dropped.push(key);
            }
        }
        drop(index);
        for key in dropped {
            self.remove_file(key);
        }
    }
}

/// Enough to see what a disk does to files.
pub(super) const FILES_MAX: usize = 16;
/// Some packs, of 8 MiB at most, or one small object, of 64 MiB at most.
pub(super) const BYTES_MAX: u64 = 64 << 20;
