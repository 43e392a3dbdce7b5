//! The cache's files: a file a pack, renamed into place, without fsync.
//!
//! What a crash leaves is not trusted: unless the last run ended with a marker, every file is
//! checked at its first use. An index in memory says what there is; it is rebuilt by reading the
//! folders. Functions here that say so touch the disk, and belong off the runtime.

mod examine;
mod lease;
mod opened;
mod partial;
mod quarantine;
mod room;
mod scan;
mod uses;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use content::Digest;
use content::durable::{self, RealDisk};
use service::Report;
use thiserror::Error;
use tracing::{debug, info, warn};

use super::index::{Asker, Errand, Found, Index, Key, Kind, NoRoom, Standing, in_order_of_use};
use super::pieces::Pieces;
use crate::metrics::CacheMetrics;
pub(crate) use examine::Examined;
pub(crate) use lease::{Lease, StoredPack, UnusableError};
use opened::Opened;
pub(crate) use partial::{BeginError, PartialFile, Written};
use room::Room;
use uses::Uses;
pub(crate) use uses::{Kept, Sight};

/// The files of the cache.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    index: Mutex<Index>,
    /// Held while a file appears or disappears together with its entry, so that a file that is
    /// given up is never its own successor. Taken before the index's lock, never after it.
    files: Mutex<()>,
    /// One of these is held while a file is checked, so that many who want it check it once.
    checking: [Mutex<()>; CHECKING],
    metrics: CacheMetrics,
    opened: Opened,
    /// For what is read of packs.
    pieces: Pieces,
    room: Room,
    temporary: AtomicU64,
    uses: Mutex<Uses>,
}

/// Why the cache cannot be opened or closed.
#[derive(Debug, Error)]
#[error("cannot use the cache in {path}", path = path.display())]
pub struct StoreError {
    path: PathBuf,
    source: io::Error,
}

impl StoreError {
    /// The work was cut off.
    pub(super) fn stopped(folder: &Path) -> Self {
        Self {
            path: folder.to_owned(),
            source: io::ErrorKind::Interrupted.into(),
        }
    }
}

impl Store {
    /// Opens the cache in `folder`, which need not exist. Touches the disk.
    ///
    /// `now` (Unix seconds) decides which fills were broken off too long ago.
    pub(crate) fn open(
        folder: &Path,
        bytes_max: u64,
        free_percent_min: u8,
        now: i64,
        metrics: CacheMetrics,
    ) -> Result<Arc<Self>, StoreError> {
        let fail = |source| StoreError {
            path: folder.to_owned(),
            source,
        };
        create_folder(folder).map_err(fail)?;
        let mut index = Index::new(bytes_max, room::block_bytes(folder));
        let uses = scan::scan(folder, now, &mut index).map_err(fail)?;
        let room = Room::new(folder, free_percent_min, metrics.disk_trouble.clone());
        let excess = index.excess();
        let store = Arc::new(Self {
            folder: folder.to_owned(),
            index: Mutex::new(index),
            files: Mutex::new(()),
            checking: std::array::from_fn(|_| Mutex::new(())),
            metrics,
            opened: Opened::default(),
            pieces: Pieces::default(),
            room,
            temporary: AtomicU64::new(0),
            uses: Mutex::new(uses),
        });
        if excess > 0 {
            // The limit has been lowered. Nothing is in use yet, so there is always enough to give.
            let victims = store.index().make_room(0).unwrap_or_default();
            store.give_up(&victims);
        }
        let files = store.files();
        store.trim_quarantine();
        drop(files);
        store.count();
        Ok(store)
    }

    /// Says that the cache is left in good order, if it is: not while there are packs of which
    /// nobody knows, since a crash or a doubt, whether they are. Nothing may be written any more.
    /// Touches the disk.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        let unverified = self.index().unverified(Kind::Pack);
        if unverified > 0 {
            info!(unverified, "packs will be checked at their first use again");
            return Ok(());
        }
        scan::mark_clean(&self.folder).map_err(|source| StoreError {
            path: self.folder.clone(),
            source,
        })
    }

    /// Drops what fills have left behind for longer than 24 hours. Touches the disk.
    pub(crate) fn sweep(&self, now: i64) {
        let idle = self.index().idle_fills();
        for key in idle {
            let path = self.path(key);
            let old = fs::metadata(&path).is_ok_and(|metadata| scan::is_stale(&metadata, now));
            let files = self.files();
            if old && self.index().remove_idle(key) {
                self.remove_file(key);
            }
            drop(files);
        }
        self.count();
    }

    /// Whether there is such a file, as far as the index knows.
    pub(crate) fn contains(&self, key: Key) -> bool {
        self.index().contains(key)
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.index().bytes()
    }

    /// Holds a file, if there is one of that name.
    pub(crate) fn lease(self: &Arc<Self>, key: Key) -> Option<Lease> {
        let found = self.index().hold(key)?;
        Some(Lease {
            store: Arc::clone(self),
            key,
            found,
        })
    }

    /// Wants a file to be checked again at its next use.
    pub(crate) fn doubt(&self, key: Key) {
        self.index().doubt(key);
    }

    /// Sorts one file in by its standing.
    pub(crate) fn sort_in(&self, key: Key, standing: Standing) {
        self.index().sort_in(key, standing);
    }

    /// Sorts files anew by what the origin and the operator say of them.
    pub(crate) fn rank(&self, standing: impl Fn(Key) -> Standing) {
        let (mut misplaced, mut piece) = (Vec::new(), 0);
        loop {
            // Piece by piece, so that nobody waits for long to look something up.
            let index = self.index();
            if piece == index.pieces() {
                break;
            }
            index.look_at(piece, &standing, &mut misplaced);
            piece += 1;
        }
        for piece in in_order_of_use(&mut misplaced).chunks(1024) {
            self.index().place(piece);
        }
    }

    /// Takes note that somebody has been given a pack, or what is there of it.
    pub(crate) fn use_by(&self, digest: Digest, asker: Asker) {
        self.index().use_by(digest, asker);
    }

    /// Keeps a small object, if there is room; false if not. Touches the disk.
    pub(crate) fn put_object(self: &Arc<Self>, key: Key, bytes: &[u8]) -> io::Result<bool> {
        if self.contains(key) {
            return Ok(true);
        }
        if !self.room.may_try() {
            return Ok(false);
        }
        let Ok(room) = self.reserve(key.digest, bytes.len() as u64, Errand::Somebody) else {
            return Ok(false);
        };
        let serial = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(TEMPORARY).join(serial.to_string());
        let path = self.path(key);
        let written = fs::write(&temporary, bytes).and_then(|()| {
            create_folder(path.parent().expect("an object lies in a folder"))?;
            let _files = self.files();
            fs::rename(&temporary, &path)?;
            let mut index = self.index();
            index.remove(room.key);
            index.insert(key, bytes.len() as u64, true, 0);
            Ok(true)
        });
        self.note_write(&written);
        if written.is_err() {
            self.index().remove(room.key);
            // The first error is the one to tell; leftovers go when the cache is opened.
            let _left = fs::remove_file(&temporary);
        }
        drop(room);
        self.count();
        written
    }

    /// Takes note of how the disk took a write.
    fn note_write<T>(&self, written: &io::Result<T>) {
        match written {
            Ok(_) => self.room.taken(),
            Err(error) => {
                self.metrics.write_failures.inc();
                self.room.refused(error);
            }
        }
    }

    /// Why nothing is kept at the moment, if the disk refuses or too little of it is free. If it has
    /// refused for long enough, it is tried whether it still does. Touches the disk.
    pub(crate) fn trouble(&self) -> Option<String> {
        if self.room.has_refused() && self.room.may_try() {
            let probe = self.folder.join(TEMPORARY).join("probe");
            let written = fs::write(&probe, PROBE).and_then(|()| fs::remove_file(&probe));
            // Fills write elsewhere: it must be there, too.
            let there = written.and_then(|()| fs::read_dir(self.folder.join(PARTIAL)).map(drop));
            self.note_write(&there);
        }
        self.room.trouble()
    }

    /// Reads a small object and checks that it is what its name says. None if it is not there, not
    /// any more, or cannot be read for now. Touches the disk.
    pub(crate) fn object(self: &Arc<Self>, key: Key, bytes_max: usize) -> Option<Vec<u8>> {
        let lease = self.lease(key)?;
        if lease.found.bytes > bytes_max as u64 {
            return None;
        }
        let checked = fs::read(self.path(lease.key))
            .map_err(UnusableError::from)
            .and_then(|bytes| {
                if Digest::of(&bytes) == key.digest {
                    Ok(bytes)
                } else {
                    Err(UnusableError::Bad)
                }
            });
        self.keep_or_discard(&lease, checked).ok()
    }

    /// Sets room aside for a file of `bytes`, which is about to come, giving up others for it as
    /// far as its errand allows. What an earlier fill of the same name left counts towards it. Touches
    /// the disk.
    fn reserve(
        self: &Arc<Self>,
        digest: Digest,
        bytes: u64,
        errand: Errand,
    ) -> Result<Lease, NoRoom> {
        let key = Key {
            kind: Kind::Partial,
            digest,
        };
        // Held first, so that it is not given up to make room for itself.
        let (held, more) = {
            let mut index = self.index();
            let held = index.hold(key);
            let there = held.map_or(0, |found| found.bytes);
            (held, index.taken_more(there, bytes))
        };
        let lacks = self.room.lacks(more);
        let mut index = self.index();
        let victims = match index.make_room_for(errand, more, lacks) {
            Ok(victims) => victims,
            Err(refusal) => {
                if let Some(found) = held {
                    index.release(key, found.born);
                }
                drop(index);
                self.room.give_back(more - lacks);
                return Err(refusal);
            }
        };
        let born = match held {
            Some(found) => {
                index.resize(key, found.born, bytes);
                found.born
            }
            None => index.insert(key, bytes, false, 1),
        };
        drop(index);
        self.give_up(&victims);
        Ok(self.held(key, born, bytes, false))
    }

    /// The lease of an entry that was made with a holder.
    fn held(self: &Arc<Self>, key: Key, born: u32, bytes: u64, verified: bool) -> Lease {
        Lease {
            store: Arc::clone(self),
            key,
            found: Found {
                born,
                bytes,
                uses: 0,
                verified,
            },
        }
    }

    /// Removes the files of entries that have just been forgotten for room.
    fn give_up(&self, victims: &[Key]) {
        for key in victims {
            let files = self.files();
            // It may have come anew since it was given up: then the file is not the victim.
            if !self.contains(*key) {
                self.remove_file(*key);
            }
            drop(files);
            let evictions = &self.metrics.evictions;
            evictions.with_label_values(&[name(key.kind)]).inc();
        }
    }

    /// Gives back what was found, or forgets a file that turned out to be of no use. One that only
    /// cannot be read for now stays: it is as good as it was.
    fn keep_or_discard<T>(
        &self,
        lease: &Lease,
        checked: Result<T, UnusableError>,
    ) -> Result<T, UnusableError> {
        let failure = match checked {
            Ok(good) => return Ok(good),
            Err(failure) => failure,
        };
        let digest = lease.key.digest;
        match &failure {
            UnusableError::Bad => {
                let failures = &self.metrics.verification_failures;
                failures.with_label_values(&["disk"]).inc();
                warn!(?digest, "found a damaged file in the cache");
            }
            UnusableError::Gone => debug!(?digest, "a file has vanished from the cache"),
            UnusableError::Io(_) => {
                self.metrics.read_failures.inc();
                let error = Report(&failure);
                warn!(?digest, %error, "passing over a file of the cache");
                return Err(failure);
            }
        }
        let files = self.files();
        if self.index().remove_born(lease.key, lease.found.born) {
            match failure {
                UnusableError::Bad => self.quarantine(lease.key, lease.found.bytes),
                UnusableError::Gone | UnusableError::Io(_) => self.remove_file(lease.key),
            }
        }
        drop(files);
        self.count();
        Err(failure)
    }

    fn remove_file(&self, key: Key) {
        self.opened.forget(key);
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(path = %path.display(), %error, "cannot remove a file of the cache");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn path(&self, key: Key) -> PathBuf {
        let hex = key.digest.hex();
        match key.kind {
            Kind::Object => self.folder.join(OBJECTS).join(&hex[..2]).join(hex),
            Kind::Private => self.folder.join(PRIVATE).join(&hex[..2]).join(hex),
            Kind::Pack => self.folder.join(PACKS).join(&hex[..2]).join(hex),
            Kind::Partial => self.folder.join(PARTIAL).join(hex),
            Kind::Quarantined => self.folder.join(QUARANTINE).join(hex),
        }
    }

    /// Brings the gauges up to date.
    fn count(&self) {
        let index = self.index();
        let bytes = i64::try_from(index.bytes()).unwrap_or(i64::MAX);
        self.metrics.stored_bytes.set(bytes);
    }

    /// Brings the gauges of files up to date: it counts them all.
    pub(crate) fn count_files(&self) {
        for kind in Kind::ALL {
            let files = i64::try_from(self.index().files(kind)).unwrap_or(i64::MAX);
            let gauge = self.metrics.stored_files.with_label_values(&[name(kind)]);
            gauge.set(files);
        }
    }

    /// Has the file system seem to have room for so many bytes.
    #[cfg(test)]
    pub(crate) fn pretend_free(&self, bytes: u64) {
        self.room.pretend(bytes);
    }

    /// What is left of that.
    #[cfg(test)]
    pub(crate) fn pretended_free(&self) -> u64 {
        self.room.left()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // The index is left consistent by each of its functions, which do not panic.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Object => "object",
        Kind::Private => "private",
        Kind::Pack => "pack",
        Kind::Partial => "partial",
        Kind::Quarantined => "quarantined",
    }
}

/// Makes a folder that nobody else may look into; one that is there already is left as it is.
fn create_folder(path: &Path) -> io::Result<()> {
    durable::Disk::create_folder(&RealDisk, path, 0o700)
}

const OBJECTS: &str = "objects";
const PACKS: &str = "packs";
const PARTIAL: &str = "partial";
const PRIVATE: &str = "private";
const QUARANTINE: &str = "quarantine";
const TEMPORARY: &str = "temporary";

/// Enough that a full disk does not take it.
const PROBE: &[u8] = &[0; 64 << 10];

/// How many files can be checked at a time: more would only compete for the same disk.
const CHECKING: usize = 8;
