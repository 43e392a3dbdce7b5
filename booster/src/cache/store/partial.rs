//! A pack that is being filled: its first frames, checked, in a file that outlives a crash.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use content::frame::Frame;
use content::locator::PackEntry;
use content::pack::PackHeader;
use thiserror::Error;

use super::{Lease, Store, StoredPack, create_folder};
use crate::cache::index::{Errand, Key, Kind, NoRoom};
use crate::cache::pieces::Pieces;
use crate::cache::rope::Rope;

/// The file of a fill. Dropped, it stays behind to be taken up again.
#[derive(Debug)]
pub(crate) struct PartialFile {
    file: Arc<File>,
    path: PathBuf,
    lease: Lease,
    entry: PackEntry,
    /// How long the file is: what it counts for once it is left behind.
    length: AtomicU64,
}

/// The file of a fill, for those who read what has been written to it.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    file: Arc<File>,
    pieces: Pieces,
}

/// What of a fill that was broken off is still good.
#[derive(Debug, Default)]
pub(crate) struct Resumed {
    /// The header, if it is there.
    pub(crate) header: Option<PackHeader>,
    /// Frames that are there, whole and good.
    pub(crate) frames: usize,
    /// Their bytes, and those of the header.
    pub(crate) bytes: Rope,
}

/// Why a fill cannot have a file.
#[derive(Debug, Error)]
pub(crate) enum BeginError {
    #[error("the disk refused")]
    Io(#[from] io::Error),
    #[error("there is no room, and nothing to give up")]
    NoRoom,
    #[error("the disk has just refused, and is left alone for a while")]
    Resting,
}

impl Written {
    /// The bytes from `from` on, `length` of them or fewer, if the system has them in memory. Does
    /// not wait for the disk.
    pub(crate) fn at_hand(&self, from: u64, length: usize) -> Option<Bytes> {
        self.pieces.at_hand(&self.file, from, length)
    }

    /// The `length` bytes from `from` on. Touches the disk.
    pub(crate) fn read(&self, from: u64, length: usize) -> io::Result<Bytes> {
        self.pieces.read(&self.file, from, length)
    }
}

impl Store {
    /// Sets room aside for a whole pack, as its errand allows, and opens the file that it is filled
    /// into. There must be only one fill of a pack at a time. Touches the disk.
    pub(crate) fn begin(
        self: &Arc<Self>,
        entry: PackEntry,
        errand: Errand,
    ) -> Result<PartialFile, BeginError> {
        let total = u64::from(entry.total_bytes);
        // A pack that is here, but cannot be read, is not given up before another takes its place.
        let _unreadable = self.lease(Key {
            kind: Kind::Pack,
            digest: entry.id.0,
        });
        if !self.room.may_try() {
            return Err(BeginError::Resting);
        }
        let reserved = self.reserve(entry.id.0, total, errand);
        // What nobody waits for makes way for everything: it says nothing of the disk.
        match (errand, &reserved) {
            (Errand::Somebody, Ok(_)) => self.room.has_enough(),
            (Errand::Somebody, Err(NoRoom)) => self.room.is_wanting(total),
            (Errand::Nobody(_), _) => {}
        }
        let lease = reserved.map_err(|NoRoom| BeginError::NoRoom)?;
        let path = self.path(lease.key);
        match self.open_partial(&path) {
            Ok((file, length)) => {
                self.count();
                Ok(PartialFile {
                    file: Arc::new(file),
                    path,
                    lease,
                    entry,
                    length: AtomicU64::new(length),
                })
            }
            Err(source) => {
                self.metrics.write_failures.inc();
                self.room.refused(&source);
                self.forget_unopened(&lease, &path);
                Err(BeginError::Io(source))
            }
        }
    }

    /// Puts the entry of a fill whose file cannot be opened right: what an earlier one left there
    /// still takes its room.
    fn forget_unopened(&self, lease: &Lease, path: &Path) {
        let (key, born) = (lease.key, lease.found.born);
        if let Ok(metadata) = fs::metadata(path) {
            self.index().resize(key, born, metadata.len());
        } else {
            self.index().remove_born(key, born);
        }
        self.count();
    }

    fn open_partial(&self, path: &Path) -> io::Result<(File, u64)> {
        let _files = self.files();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }
}

impl PartialFile {
    /// Reads what an earlier fill left, keeps what is good and cuts off the rest. Touches the
    /// disk.
    pub(crate) fn resume(&self) -> io::Result<Resumed> {
        let resumed = self.good_part()?;
        self.file.set_len(resumed.bytes.length())?;
        self.length.store(resumed.bytes.length(), Ordering::Relaxed);
        Ok(resumed)
    }

    fn good_part(&self) -> io::Result<Resumed> {
        let mut resumed = Resumed::default();
        let length = self.length.load(Ordering::Relaxed);
        let read = |from: u64, bytes: u64| {
            let mut piece = vec![0; bytes as usize];
            self.file.read_exact_at(&mut piece, from).map(|()| piece)
        };
        let header_bytes = u64::from(self.entry.header_bytes);
        if length < header_bytes {
            return Ok(resumed);
        }
        let bytes = read(0, header_bytes)?;
        let Ok(header) = PackHeader::verify(&bytes, self.entry.id) else {
            return Ok(resumed);
        };
        if header.total_bytes() != self.entry.total_bytes {
            return Ok(resumed);
        }
        resumed.bytes.push(Bytes::from(bytes));
        for (at, info) in header.frames().iter().enumerate() {
            let range = header.frame_range(at);
            if range.end > length {
                break;
            }
            let stored = read(range.start, range.end - range.start)?;
            if Frame::verify(info, &stored).is_err() {
                break;
            }
            resumed.bytes.push(Bytes::from(stored));
            resumed.frames = at + 1;
        }
        resumed.header = Some(header);
        Ok(resumed)
    }

    /// For those who read what has been written.
    pub(crate) fn written(&self) -> Written {
        Written {
            file: Arc::clone(&self.file),
            pieces: self.lease.store.pieces.clone(),
        }
    }

    /// Writes bytes that have been checked. Touches the disk.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file
            .write_all_at(bytes, at)
            .inspect_err(|error| self.lease.store.note_write::<()>(&Err(error.kind().into())))?;
        self.lease.store.room.taken();
        self.length
            .fetch_max(at + bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the file, all of which has been written, the pack. Touches the disk.
    pub(crate) fn place(self) -> io::Result<StoredPack> {
        let store = Arc::clone(&self.lease.store);
        let key = Key {
            kind: Kind::Pack,
            digest: self.entry.id.0,
        };
        let path = store.path(key);
        let file = self.file.try_clone()?;
        create_folder(path.parent().expect("a pack lies in a folder"))?;
        let files = store.files();
        fs::rename(&self.path, &path)?;
        let bytes = u64::from(self.entry.total_bytes);
        let mut index = store.index();
        let born = index.insert(key, bytes, true, 1);
        index.remove(self.lease.key);
        drop(index);
        let lease = store.held(key, born, bytes, true);
        drop(files);
        Ok(StoredPack {
            file: file.into(),
            lease,
        })
    }

    /// Gives the file up: there is no more room on the disk. Touches the disk.
    pub(crate) fn discard(self) {
        let store = Arc::clone(&self.lease.store);
        let files = store.files();
        if store
            .index()
            .remove_born(self.lease.key, self.lease.found.born)
        {
            store.remove_file(self.lease.key);
        }
        drop(files);
        store.count();
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // From here on it counts for what it is, not for what it was going to be.
        let length = self.length.load(Ordering::Relaxed);
        let store = &self.lease.store;
        store
            .index()
            .resize(self.lease.key, self.lease.found.born, length);
        store.count();
    }
}
