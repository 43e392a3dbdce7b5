//! Looking whether a file is still what it was, without anybody having asked for it.
//!
//! It is read past the page cache, if the file system allows that: what lies there serves hits, and
//! is neither pushed out by such a look nor believed in place of what is on the disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use content::frame::Frame;
use content::pack::PackHeader;
use content::{Digest, Hasher, PackId};
use rustix::fs::{Advice, OFlags, fadvise, fcntl_setfl};
use rustix::io::Errno;
use service::CancellationToken;
use tracing::warn;

use super::{Lease, OBJECTS, PACKS, PRIVATE, Store, UnusableError};
use crate::cache::index::{Key, Kind};

/// What a look at a file came to.
#[derive(Debug)]
pub(crate) enum Examined {
    /// There is no such file, or none any more.
    Absent,
    /// It is not what its name says, or the disk has lost it: it is in quarantine now.
    Damaged {
        /// Its bytes.
        bytes: u64,
    },
    /// It is what its name says.
    Good {
        /// Its bytes.
        bytes: u64,
    },
    /// The look was broken off.
    Stopped,
    /// It cannot be read for now, which says nothing about it. It is left where it is.
    Unreadable {
        /// What the system says.
        error: io::Error,
    },
}

/// What came of moving a file aside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Aside {
    /// It lies in quarantine.
    Moved,
    /// Even that failed: it is the disk that is broken, not the file, which stays.
    Refused,
    /// It had gone, and another may have its name.
    Replaced,
}

/// Why a look has no result.
enum Failure {
    Bad,
    Io(io::Error),
    Stopped,
}

impl Store {
    /// The packs and small objects whose digests begin with `shard`, in the order of their digests.
    /// Touches the disk.
    pub(crate) fn shard(&self, shard: u8) -> io::Result<Vec<Key>> {
        let mut keys = Vec::new();
        let roots = [
            (OBJECTS, Kind::Object),
            (PRIVATE, Kind::Private),
            (PACKS, Kind::Pack),
        ];
        for (root, kind) in roots {
            let folder = self.folder.join(root).join(format!("{shard:02x}"));
            let files = match fs::read_dir(folder) {
                Ok(files) => files,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for file in files {
                let name = file?.file_name();
                let digest = name.to_str().and_then(|name| Digest::from_hex(name).ok());
                keys.extend(digest.map(|digest| Key { kind, digest }));
            }
        }
        keys.sort_unstable_by_key(|key| (key.digest, key.kind));
        Ok(keys)
    }

    /// Looks whether a file is what its name says, and puts it into quarantine if it is not. This
    /// does not count as a use. Breaks off soon after `stop`. Touches the disk.
    pub(crate) fn examine(self: &Arc<Self>, key: Key, stop: &CancellationToken) -> Examined {
        let Some(found) = self.index().hold_unused(key) else {
            return Examined::Absent;
        };
        let lease = Lease {
            store: Arc::clone(self),
            key,
            found,
        };
        let bytes = found.bytes;
        match lease.check(stop) {
            Ok(()) => {
                self.index().set_verified(key, found.born);
                Examined::Good { bytes }
            }
            Err(Failure::Stopped) => Examined::Stopped,
            Err(Failure::Bad) => {
                let _forgotten = self.keep_or_discard::<()>(&lease, Err(UnusableError::Bad));
                Examined::Damaged { bytes }
            }
            Err(Failure::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                let _forgotten = self.keep_or_discard::<()>(&lease, Err(UnusableError::Gone));
                Examined::Absent
            }
            Err(Failure::Io(error)) => {
                self.metrics.read_failures.inc();
                match is_lost(&error).then(|| self.set_aside(&lease)) {
                    Some(Aside::Moved) => Examined::Damaged { bytes },
                    Some(Aside::Replaced) => Examined::Absent,
                    Some(Aside::Refused) | None => Examined::Unreadable { error },
                }
            }
        }
    }

    /// Puts a file that the disk has lost into quarantine, if it is still there.
    fn set_aside(&self, lease: &Lease) -> Aside {
        let aside = Key {
            kind: Kind::Quarantined,
            digest: lease.key.digest,
        };
        let files = self.files();
        // Looked at first: what lies under the name may be another file, and as good as new.
        if !self.index().is_current(lease.key, lease.found.born) {
            return Aside::Replaced;
        }
        let to = self.path(aside);
        if fs::rename(self.path(lease.key), &to).is_err() {
            return Aside::Refused;
        }
        warn!(file = %to.display(), "the disk has lost a file of the cache: moved it aside");
        self.opened.forget(lease.key);
        let mut index = self.index();
        index.remove(lease.key);
        index.insert(aside, lease.found.bytes, false, 0);
        drop(index);
        self.trim_quarantine();
        drop(files);
        self.count();
        Aside::Moved
    }
}

impl Lease {
    fn check(&self, stop: &CancellationToken) -> Result<(), Failure> {
        let path = self.store.path(self.key);
        let look = Look::open(&path).map_err(Failure::Io)?;
        if look.file.metadata().map_err(Failure::Io)?.len() != self.found.bytes {
            return Err(Failure::Bad);
        }
        if !self.is_verified() {
            // Somebody doubts it, or nobody knows it yet: what is cached of it does not count.
            look.forget_cached();
        }
        match self.key.kind {
            Kind::Pack => {
                let mut pack = Vec::with_capacity(self.found.bytes as usize);
                look.read(stop, |piece| pack.extend_from_slice(piece))?;
                check_pack(&pack, PackId(self.key.digest)).ok_or(Failure::Bad)
            }
            Kind::Object | Kind::Private => {
                let mut hasher = Hasher::default();
                look.read(stop, |piece| hasher.update(piece))?;
                let is_good = hasher.finish() == self.key.digest;
                is_good.then_some(()).ok_or(Failure::Bad)
            }
            Kind::Partial | Kind::Quarantined => Ok(()),
        }
    }
}

fn check_pack(pack: &[u8], id: PackId) -> Option<()> {
    let length = PackHeader::length(pack).ok().flatten()?;
    let header = PackHeader::verify(pack.get(..length)?, id).ok()?;
    if pack.len() != header.total_bytes() as usize {
        return None;
    }
    for (at, info) in header.frames().iter().enumerate() {
        let range = header.frame_range(at);
        let stored = pack.get(range.start as usize..range.end as usize)?;
        Frame::verify(info, stored).ok()?;
    }
    Some(())
}

/// A file that is read from its beginning to its end.
struct Look {
    file: File,
    /// Whether it is read past the page cache.
    direct: bool,
}

impl Look {
    fn open(path: &Path) -> io::Result<Self> {
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(path);
        match direct {
            Ok(file) => Ok(Self { file, direct: true }),
            Err(error) if is_refused(&error) => Self::open_buffered(path),
            Err(error) => Err(error),
        }
    }

    fn open_buffered(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            direct: false,
        })
    }

    /// Hands `take` the bytes of the file, piece by piece.
    fn read(&self, stop: &CancellationToken, mut take: impl FnMut(&[u8])) -> Result<(), Failure> {
        let mut buffer = vec![0; PIECE_BYTES + ALIGNMENT];
        let from = buffer.as_ptr().align_offset(ALIGNMENT);
        let buffer = &mut buffer[from..from + PIECE_BYTES];
        let (mut at, mut direct) = (0, self.direct);
        loop {
            if stop.is_cancelled() {
                return Err(Failure::Stopped);
            }
            let got = match self.file.read_at(buffer, at) {
                Ok(got) => got,
                // It wants blocks of another size, or does not read like that after all.
                Err(error) if direct && is_refused(&error) => {
                    direct = false;
                    let plain = fcntl_setfl(&self.file, OFlags::empty());
                    plain.map_err(|errno| Failure::Io(errno.into()))?;
                    continue;
                }
                Err(error) => return Err(Failure::Io(error)),
            };
            take(&buffer[..got]);
            at += got as u64;
            // Less than a whole block is the end of the file, and no place to go on from.
            if got == 0 || (direct && got % ALIGNMENT != 0) {
                break;
            }
        }
        if !direct {
            self.forget_cached();
        }
        Ok(())
    }

    /// Has the system drop what it has cached of the file.
    fn forget_cached(&self) {
        // It is a wish, and need not be granted.
        let _granted = fadvise(&self.file, 0, None, Advice::DontNeed);
    }
}

/// Whether a file system does not read past its page cache.
fn is_refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
}

/// Whether it is the medium that cannot give the bytes, and not the system that will not.
fn is_lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// Bytes that are read at a time, after each of which a stop is heard.
const PIECE_BYTES: usize = 1 << 20;
/// What reading past the page cache asks for of addresses and lengths (open(2), `O_DIRECT`): the
/// size of a logical block, which is 512 or 4096 bytes.
const ALIGNMENT: usize = 4096;

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Write as _};

    use rustix::io::{ReadWriteFlags, preadv2};

    use super::*;

    fn read_back(look: &Look) -> Vec<u8> {
        let mut bytes = Vec::new();
        let stop = CancellationToken::new();
        let read = look.read(&stop, |piece| bytes.extend_from_slice(piece));
        assert!(read.is_ok());
        bytes
    }

    #[test]
    fn a_file_of_any_length_is_read_whole_in_either_way_until_it_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for length in [0, 1, 4095, 4096, 4097, PIECE_BYTES, PIECE_BYTES + 513] {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
            fs::write(&path, &bytes).unwrap();
            let open = [Look::open, Look::open_buffered];
            assert!(open.map(|open| read_back(&open(&path).unwrap())) == [&bytes[..]; 2]);
        }
        let stop = CancellationToken::new();
        stop.cancel();
        let stopped = Look::open(&path)
            .unwrap()
            .read(&stop, |_| panic!("a piece"));
        assert!(matches!(stopped, Err(Failure::Stopped)));
    }

    /// Whether all of the file's first 64 KiB lie in the page cache. To ask has them read ahead.
    fn is_cached(path: &Path) -> bool {
        let file = File::open(path).unwrap();
        let mut piece = vec![0; 64 << 10];
        let pieces = &mut [IoSliceMut::new(&mut piece)];
        let got = preadv2(&file, pieces, 0, ReadWriteFlags::NOWAIT);
        got == Ok(64 << 10)
    }

    #[test]
    fn a_look_neither_fills_the_page_cache_nor_empties_it() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["file", "other"].map(|name| folder.path().join(name));
        let look = |path: &Path| {
            let mut file = File::create(path).unwrap();
            file.write_all(&[7; 64 << 10]).unwrap();
            file.sync_all().unwrap();
            let look = Look::open(path).unwrap();
            look.forget_cached();
            look
        };
        if !look(&other).direct || is_cached(&other) {
            // A file system in memory has nothing but its cache.
            return;
        }
        let look = look(&path);
        read_back(&look);
        assert!(!is_cached(&path));
        let _into_the_cache = fs::read(&path).unwrap();
        assert!(is_cached(&path));
        read_back(&look);
        assert!(is_cached(&path));
    }

    #[test]
    fn a_file_that_has_taken_the_place_of_a_lost_one_is_not_moved_aside() {
        let (folder, bytes) = (tempfile::tempdir().unwrap(), b"bread");
        let metrics = crate::testing::metrics();
        let store = Store::open(folder.path(), 1 << 30, 0, 0, metrics).unwrap();
        let digest = Digest::of(bytes);
        let key = Key {
            kind: Kind::Object,
            digest,
        };
        store.put_object(key, bytes).unwrap();
        let lost = store.lease(key).unwrap();
        store.index().insert(key, 5, true, 0);
        assert_eq!(store.set_aside(&lost), Aside::Replaced);
        assert!(store.path(key).exists() && store.contains(key));
        let lost = store.lease(key).unwrap();
        assert_eq!(store.set_aside(&lost), Aside::Moved);
        assert!(!store.path(key).exists() && !store.contains(key));
        assert!(store.bytes() > 0, "it lies in quarantine");
    }

    #[test]
    fn only_what_the_medium_says_is_a_loss() {
        for (errno, lost) in [
            (Errno::IO, true),
            (Errno::MFILE, false),
            (Errno::ACCESS, false),
            (Errno::NOMEM, false),
            (Errno::STALE, false),
        ] {
            assert_eq!(is_lost(&errno.into()), lost);
        }
    }
}
