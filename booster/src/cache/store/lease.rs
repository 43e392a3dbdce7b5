//! Files while they are used, and what to think of one that cannot be.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use content::PackId;
use content::pack::{PackFile, ReadPackError};
use thiserror::Error;

use super::{CHECKING, Store};
use crate::cache::index::{Found, Key};

/// Keeps a file from being given up while it is used.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(super) store: Arc<Store>,
    pub(super) key: Key,
    pub(super) found: Found,
}

/// A pack on disk that is known to be good, open.
#[derive(Debug)]
pub(crate) struct StoredPack {
    pub(super) file: Arc<File>,
    pub(super) lease: Lease,
}

/// Why a file that the index knows cannot be served.
#[derive(Debug, Error)]
pub(crate) enum UnusableError {
    /// Damaged. It has been removed.
    #[error("it is not what its name says")]
    Bad,
    /// Vanished. It has been forgotten.
    #[error("it is not there any more")]
    Gone,
    /// The system refuses, which says nothing of what is in the file: too many files are open, say.
    /// It is left alone.
    #[error("it cannot be read for now")]
    Io(#[source] io::Error),
}

impl Lease {
    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.found.bytes
    }

    /// How often the file has been used, this time included.
    pub(crate) fn uses(&self) -> u8 {
        self.found.uses
    }

    /// The pack that this holds, if it is open and known to be good: then the disk is left alone.
    ///
    /// # Errors
    ///
    /// Fails with the lease if it has to be opened.
    pub(crate) fn at_hand(self) -> Result<StoredPack, Self> {
        let opened = &self.store.opened;
        let file = self
            .found
            .verified
            .then(|| opened.get(self.key, self.found.born));
        match file.flatten() {
            Some(file) => Ok(StoredPack { file, lease: self }),
            None => Err(self),
        }
    }

    /// Opens the pack that this holds, and checks every frame of it if that is still to be done.
    /// Touches the disk.
    ///
    /// # Errors
    ///
    /// Fails if the file has vanished or is damaged, which has it forgotten, or if the disk
    /// refuses, which does not.
    pub(crate) fn open(self) -> Result<StoredPack, UnusableError> {
        let store = Arc::clone(&self.store);
        let opened = self.open_checked();
        let file = Arc::new(store.keep_or_discard(&self, opened)?);
        store.opened.keep(self.key, self.found.born, &file);
        // It may have been found bad by another, and removed, since it was opened.
        if !self.is_verified() {
            store.opened.forget(self.key);
        }
        Ok(StoredPack { file, lease: self })
    }

    fn open_checked(&self) -> Result<File, UnusableError> {
        let file = File::open(self.store.path(self.key))?;
        if file.metadata()?.len() != self.found.bytes {
            return Err(UnusableError::Bad);
        }
        let shard = usize::from(self.key.digest.as_raw()[0]) % CHECKING;
        if self.is_verified() {
            return Ok(file);
        }
        let checking = &self.store.checking[shard];
        let _one = checking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_verified() {
            return Ok(file);
        }
        // What is checked is what is served: under the same name may lie another by now.
        let pack = PackFile::of(file, PackId(self.key.digest))?;
        pack.verify()?;
        self.store.index().set_verified(self.key, self.found.born);
        Ok(pack.into_file())
    }

    pub(super) fn is_verified(&self) -> bool {
        self.store.index().is_verified(self.key, self.found.born)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.store.index().release(self.key, self.found.born);
    }
}

impl StoredPack {
    /// Bytes of the pack.
    pub(crate) fn bytes(&self) -> u64 {
        self.lease.bytes()
    }

    /// Whether nobody has come to doubt it since it was opened.
    pub(crate) fn is_verified(&self) -> bool {
        self.lease.is_verified()
    }

    /// The bytes from `from` on, `length` of them or fewer, if the system has them in memory.
    /// Does not wait for the disk.
    pub(crate) fn piece_at_hand(&self, from: u64, length: usize) -> Option<Bytes> {
        self.lease.store.pieces.at_hand(&self.file, from, length)
    }

    /// The `length` bytes from `from` on. Touches the disk.
    ///
    /// # Errors
    ///
    /// As [`StoredPack::read`].
    pub(crate) fn piece(&self, from: u64, length: usize) -> io::Result<Bytes> {
        let read = self.lease.store.pieces.read(&self.file, from, length);
        self.note(read)
    }

    /// Reads `length` bytes from `from` on. Touches the disk.
    ///
    /// # Errors
    ///
    /// Fails as the disk fails; then the pack is checked at its next use.
    pub(crate) fn read(&self, from: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, from);
        self.note(read.map(|()| bytes))
    }

    /// A pack that cannot be read is checked at its next use.
    fn note<T>(&self, read: io::Result<T>) -> io::Result<T> {
        read.inspect_err(|_| self.lease.store.doubt(self.lease.key))
    }
}

impl From<io::Error> for UnusableError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            Self::Gone
        } else if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Bad
        } else {
            Self::Io(error)
        }
    }
}

impl From<ReadPackError> for UnusableError {
    fn from(failure: ReadPackError) -> Self {
        if let ReadPackError::Io { source } = failure {
            source.into()
        } else {
            Self::Bad
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use rustix::io::Errno;

    use super::*;
    use crate::cache::index::Kind;
    use crate::testing::{metrics, pack};

    #[test]
    fn what_is_checked_is_what_is_served_though_another_takes_its_place_meanwhile() {
        let (pack, folder) = (pack(1), tempfile::tempdir().unwrap());
        let key = Key {
            kind: Kind::Pack,
            digest: pack.header.id().0,
        };
        let open = || Store::open(folder.path(), 1 << 30, 0, 0, metrics()).unwrap();
        let path = open().path(key);
        let mut bad = pack.bytes.clone();
        bad[300_000] ^= 1;
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, bad).unwrap();
        let store = open();
        let lease = store.lease(key).unwrap();
        let shard = usize::from(key.digest.as_raw()[0]) % CHECKING;
        let busy = store.checking[shard].lock().unwrap();
        let is_open = || {
            let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
            let mut files = links.filter_map(|link| fs::read_link(link.path()).ok());
            files.any(|file| file == path)
        };
        thread::scope(|scope| {
            let opened = scope.spawn(|| lease.open());
            while !is_open() {
                assert!(!opened.is_finished());
                thread::yield_now();
            }
            // A good one takes its place, of which nobody knows yet that it is good.
            let new = folder.path().join("new");
            fs::write(&new, &pack.bytes).unwrap();
            let files = store.files();
            fs::rename(new, &path).unwrap();
            let bytes = pack.bytes.len() as u64;
            store.index().insert(key, bytes, false, 0);
            drop((files, busy));
            let opened = opened.join().unwrap();
            assert!(matches!(opened, Err(UnusableError::Bad)), "bad bytes");
        });
        let newer = store.lease(key).unwrap();
        assert!(!newer.found.verified, "nobody has looked at it");
        assert_eq!(newer.open().unwrap().bytes(), pack.bytes.len() as u64);
    }

    fn check(error: impl Fn() -> io::Error, expected: &str) {
        let source = error();
        for failure in [error().into(), ReadPackError::Io { source }.into()] {
            let name = match failure {
                UnusableError::Bad => "bad",
                UnusableError::Gone => "gone",
                UnusableError::Io(_) => "io",
            };
            assert_eq!(name, expected, "{}", error());
        }
    }

    #[test]
    fn only_an_early_end_is_damage_and_only_absence_is_loss() {
        check(|| io::ErrorKind::UnexpectedEof.into(), "bad");
        check(|| Errno::NOENT.into(), "gone");
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::IO,
            Errno::ACCESS,
            Errno::NOMEM,
            Errno::LOOP,
            Errno::STALE,
        ] {
            check(|| errno.into(), "io");
        }
    }
}
