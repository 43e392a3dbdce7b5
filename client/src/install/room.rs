//! Whether there is room for what is to come.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{self, StatVfs};
use thiserror::Error;

/// How much is needed on the file system of one folder.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Need {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Files, folders and links.
    pub(crate) files: u64,
}

/// Holds needs against what file systems offer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    /// No file system offers more than this, whatever it says: for tests, and for devices whose
    /// disk others share.
    pub(crate) bytes_max: Option<u64>,
}

impl Room {
    /// Whether the file systems of both folders can hold what is needed in each; they may be one.
    pub(crate) fn check(&self, needs: [(&Path, Need); 2]) -> Result<(), RoomError> {
        let [(one, one_need), (other, other_need)] = needs;
        if device(one)? == device(other)? {
            let together = Need {
                bytes: one_need.bytes + other_need.bytes,
                files: one_need.files + other_need.files,
            };
            self.check_one(one, together)
        } else {
            self.check_one(one, one_need)?;
            self.check_one(other, other_need)
        }
    }

    fn check_one(&self, path: &Path, need: Need) -> Result<(), RoomError> {
        let stat = fs::statvfs(path).map_err(|errno| failed(path, errno))?;
        let available = available(&stat).min(self.bytes_max.unwrap_or(u64::MAX));
        if need.bytes > available {
            return Err(RoomError::Full {
                path: path.to_owned(),
                needed: need.bytes,
                available,
            });
        }
        // File systems without a fixed number of files say 0 of 0.
        if stat.f_files > 0 && need.files > stat.f_favail {
            return Err(RoomError::Files {
                path: path.to_owned(),
                needed: need.files,
                available: stat.f_favail,
            });
        }
        Ok(())
    }
}

/// What `need` costs on disk, a file of `bytes` taking whole blocks.
pub(crate) fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

/// Bytes that are free on the file system of `path`, 0 if it cannot be asked.
pub(crate) fn free(path: &Path) -> u64 {
    fs::statvfs(path).map_or(0, |stat| available(&stat))
}

fn available(stat: &StatVfs) -> u64 {
    stat.f_bavail.saturating_mul(stat.f_frsize)
}

fn device(path: &Path) -> Result<u64, RoomError> {
    fs::stat(path)
        .map(|stat| stat.st_dev)
        .map_err(|errno| failed(path, errno))
}

fn failed(path: &Path, errno: rustix::io::Errno) -> RoomError {
    RoomError::Io {
        path: path.to_owned(),
        source: errno.into(),
    }
}

/// There is no room, or no telling.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RoomError {
    /// Too few files can still be made.
    #[error(
        "not enough room at {path}: {needed} files are needed and {available} can be made; \
         what is installed stays as it is",
        path = path.display()
    )]
    Files {
        /// A folder on that file system.
        path: PathBuf,
        /// Files needed.
        needed: u64,
        /// Files that can be made.
        available: u64,
    },
    /// Too few bytes are free.
    #[error(
        "not enough room at {path}: {needed} bytes are needed and {available} are free; \
         what is installed stays as it is",
        path = path.display()
    )]
    Full {
        /// A folder on that file system.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// The file system does not say.
    #[error("cannot tell how much room there is at {path}", path = path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The block size of every common file system.
const BLOCK_BYTES: u64 = 4096;
