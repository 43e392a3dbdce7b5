//! The data folder: what lies where, and who may work on it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::durable::{self, RealDisk};
use rustix::fs::FlockOperation;
use thiserror::Error;

/// The data folder of one device.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    root: PathBuf,
}

/// Shows others that we are at work on the data folder, until the last copy is dropped.
pub(crate) type Lock = Arc<Held>;

/// A file that is locked.
#[derive(Debug)]
pub(crate) struct Held {
    file: File,
}

impl Drop for Held {
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

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Key, certificate, roots.
    pub(crate) fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    /// High-water marks, revocation lists, the deployment document.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Records of targets.
    pub(crate) fn installed(&self) -> PathBuf {
        self.root.join("installed")
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
            other => other.map_err(failed)?,
        }
        // Made by somebody else, perhaps: nobody but us has business in it.
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&self.root, mode).map_err(failed)?;
        for folder in [self.identity(), self.state()] {
            durable::create_folder(&RealDisk, &folder, 0o700).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes the lock: two of us at once would undo each other's work.
    pub(crate) fn lock(&self) -> Result<Lock, DataError> {
        let path = self.root.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| {
                if source.kind() == io::ErrorKind::NotFound {
                    let path = self.root.clone();
                    DataError::Missing { path }
                } else {
                    let path = path.clone();
                    DataError::Io { path, source }
                }
            })?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Arc::new(Held { file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataError::Busy {
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
    #[error("cannot use {path}: another larder-client is at work there", path = path.display())]
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
    #[error("cannot find {path}: run larder-client enrol first", path = path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_last_copy_even_if_somebody_holds_a_copy_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let data = Data::new(folder.path());
        let lock = data.lock().unwrap();
        let other = Lock::clone(&lock);
        // What a process that is being started has.
        let _copy = lock.file.try_clone().unwrap();
        drop(lock);
        assert!(matches!(data.lock(), Err(DataError::Busy { .. })));
        drop(other);
        data.lock().unwrap();
    }
}
