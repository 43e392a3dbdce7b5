//! The data folder: what lies where, and who may work on it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use content::durable::{self, RealDisk};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use thiserror::Error;

/// The data folder of one booster.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    root: PathBuf,
}

/// Keeps others from working on the data folder until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would not do: a process that is being started holds a copy of every file
        // until it runs its own program. If this fails, closing is what is left.
        let _closing_is_left = rustix::fs::flock(&self.file, FlockOperation::Unlock).is_err();
    }
}

impl Data {
    /// The data folder at `root`, which need not exist.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Key, certificate, roots.
    pub(crate) fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    /// Marks, revocation lists, the last timestamp and deployment document.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Packs and small objects.
    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Where the booster that runs tells how it is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("status.sock")
    }

    /// Makes the folders that enrolment needs.
    pub(crate) fn create(&self) -> Result<(), DataError> {
        let failed = |source| DataError::Io {
            path: self.root.clone(),
            source,
        };
        if let Some(parent) = self.root.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(failed)?,
        }
        for folder in [self.identity(), self.state()] {
            durable::create_folder(&RealDisk, &folder, 0o700).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes the lock: two of us at once would undo each other's work.
    pub(crate) fn lock(&self) -> Result<Lock, DataError> {
        let path = self.root.join("lock");
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = self.root.clone();
                return Err(DataError::Missing { path });
            }
            Err(source) => return Err(DataError::Io { path, source }),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { file }),
            Err(Errno::WOULDBLOCK) => Err(DataError::Busy {
                path: self.root.clone(),
            }),
            Err(errno) => Err(DataError::Io {
                path,
                source: errno.into(),
            }),
        }
    }
}

/// Why the data folder cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// Somebody else is at work on it.
    #[error("cannot use {path}: another larder-booster is at work there", path = path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot use {path}", path = path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is none.
    #[error("cannot find {path}: run larder-booster enrol first", path = path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_when_it_is_dropped_even_if_somebody_holds_a_copy_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let data = Data::new(folder.path());
        let lock = data.lock().unwrap();
        assert!(matches!(data.lock(), Err(DataError::Busy { .. })));
        // What a process that is being started has.
        let _copy = lock.file.try_clone().unwrap();
        drop(lock);
        data.lock().unwrap();
    }
}
