//! The data folder: what lies where, and who may work on it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::durable::{self, RealDisk};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use thiserror::Error;

use crate::kind::Kind;

/// The data folder of one member.
#[derive(Clone, Debug)]
pub struct Data {
    kind: Kind,
    root: PathBuf,
}

/// Keeps others from working on the data folder until its last copy is dropped.
#[derive(Clone, Debug)]
pub struct Lock(
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "what counts is when it is dropped")
    )]
    Arc<Held>,
);

#[derive(Debug)]
struct Held {
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
    #[must_use]
    pub fn new(root: &Path, kind: Kind) -> Self {
        Self {
            kind,
            root: root.to_owned(),
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Key, certificate, roots.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    /// Marks, revocation lists, the last timestamp and deployment document.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Makes the folders that a member needs, and sees to it that nobody else may enter.
    ///
    /// # Errors
    ///
    /// Fails if the system refuses.
    pub fn create(&self) -> Result<(), DataError> {
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
        // Made by somebody else, perhaps: nobody but us has business in it.
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&self.root, mode).map_err(failed)?;
        for folder in [self.identity(), self.state()] {
            durable::create_folder(&RealDisk, &folder, 0o700).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes the lock: two programs at once would undo each other's work.
    ///
    /// # Errors
    ///
    /// Fails if there is no such folder, or if another program is at work there.
    pub fn lock(&self) -> Result<Lock, DataError> {
        let path = self.root.join("lock");
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.missing()),
            Err(source) => return Err(DataError::Io { path, source }),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(Arc::new(Held { file }))),
            Err(Errno::WOULDBLOCK) => Err(DataError::Busy {
                path: self.root.clone(),
                program: self.kind.program(),
            }),
            Err(errno) => Err(DataError::Io {
                path,
                source: errno.into(),
            }),
        }
    }

    pub(crate) fn missing(&self) -> DataError {
        DataError::Missing {
            path: self.root.clone(),
            program: self.kind.program(),
        }
    }
}

/// Why the data folder cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// Somebody else is at work on it.
    #[error("cannot use {path}: another {program} is at work there", path = path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
        /// Which program.
        program: &'static str,
    },
    /// The system refuses.
    #[error("cannot use {path}", path = path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody has enrolled there.
    #[error("cannot find {path}: run {program} enrol first", path = path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
        /// Which program.
        program: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_last_copy_even_if_somebody_holds_a_copy_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let data = Data::new(folder.path(), Kind::Client);
        let lock = data.lock().unwrap();
        let other = lock.clone();
        // What a process that is being started has.
        let _copy = lock.0.file.try_clone().unwrap();
        drop(lock);
        assert!(matches!(data.lock(), Err(DataError::Busy { .. })));
        drop(other);
        data.lock().unwrap();
    }

    #[test]
    fn a_folder_that_others_could_enter_is_closed_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let wide = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), wide).unwrap();
        Data::new(folder.path(), Kind::Booster).create().unwrap();
        let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn an_error_names_the_program_to_run() {
        let folder = tempfile::tempdir().unwrap();
        let data = Data::new(&folder.path().join("none"), Kind::Booster);
        let told = data.lock().unwrap_err().to_string();
        assert!(told.ends_with("run larder-booster enrol first"), "{told}");
    }
}
