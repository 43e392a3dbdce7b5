//! How far a pull is, for whoever watches.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what has been done. Cheap to write and to read from anywhere.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    fetched: AtomicU64,
    to_fetch: AtomicU64,
    written: AtomicU64,
}

/// How far a pull is at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Done {
    /// Bytes of all files of the revision; 0 until that is known.
    pub bytes: u64,
    /// Bytes that came over the network.
    pub fetched: u64,
    /// About how many will have come; 0 until that is known.
    pub to_fetch: u64,
    /// Bytes of the files that are ready.
    pub written: u64,
}

impl Progress {
    /// How far it is.
    #[must_use]
    pub fn done(&self) -> Done {
        Done {
            bytes: self.bytes.load(Ordering::Relaxed),
            fetched: self.fetched.load(Ordering::Relaxed),
            to_fetch: self.to_fetch.load(Ordering::Relaxed),
            written: self.written.load(Ordering::Relaxed),
        }
    }

    /// Starts over with what there is to do.
    pub(crate) fn plan(&self, bytes: u64, to_fetch: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.written.store(0, Ordering::Relaxed);
        let fetched = self.fetched.load(Ordering::Relaxed);
        self.to_fetch.store(fetched + to_fetch, Ordering::Relaxed);
    }

    pub(crate) fn fetched(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }
}
