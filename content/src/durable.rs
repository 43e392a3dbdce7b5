//! Files that survive a crash whole: the one way in which state that protects us is written.
//!
//! A reader of a file that [`write()`] wrote sees the old bytes or the new ones, whatever happened in
//! between, and once it has returned, the new ones. The steps go through a [`Disk`], so that tests
//! can replay every crash on a [`model::ModelDisk`].

pub mod model;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The few things that durable state asks of a disk.
pub trait Disk {
    /// Makes a file at `path` (emptied if it was there) with `mode`, holding `bytes`, not yet safe.
    ///
    /// # Errors
    ///
    /// Fails as the disk fails.
    fn create(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()>;

    /// Makes a folder with `mode`; one that is there already is left as it is.
    ///
    /// # Errors
    ///
    /// Fails as the disk fails.
    fn create_folder(&self, path: &Path, mode: u32) -> io::Result<()>;

    /// The bytes of a file, none if there is no such file.
    ///
    /// # Errors
    ///
    /// Fails as the disk fails, or if the file has more than `bytes_max` bytes.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>>;

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// Fails as the disk fails.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives the file `from` the name `to`, replacing what bore it.
    ///
    /// # Errors
    ///
    /// Fails as the disk fails.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the bytes of a file safe.
    ///
    /// # Errors
    ///
    /// Fails as the disk fails.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Makes the names within a folder safe.
    ///
    /// # Errors
    ///
    /// Fails as the disk fails.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// Replaces the file at `path` by `bytes`: temporary file, fsync, rename, fsync of the folder.
///
/// # Errors
///
/// Fails as the disk fails; then `path` is as it was.
pub fn write(disk: &impl Disk, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary(path)?;
    let written = disk
        .create(&temporary, bytes, mode)
        .and_then(|()| disk.sync(&temporary))
        .and_then(|()| disk.rename(&temporary, path));
    if let Err(error) = written {
        // The first error is the one to tell; what is left over is replaced by the next write.
        let _left = disk.remove(&temporary);
        return Err(error);
    }
    disk.sync_folder(folder(path)?)
}

/// Makes the folder at `path` so that its name survives a crash.
///
/// # Errors
///
/// Fails as the disk fails.
pub fn create_folder(disk: &impl Disk, path: &Path, mode: u32) -> io::Result<()> {
    disk.create_folder(path, mode)?;
    disk.sync_folder(folder(path)?)
}

/// Removes the file at `path` so that it stays removed.
///
/// # Errors
///
/// Fails as the disk fails.
pub fn remove(disk: &impl Disk, path: &Path) -> io::Result<()> {
    disk.remove(path)?;
    disk.sync_folder(folder(path)?)
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(path)?;
        // The mode above counts only for a new file, and the umask may have narrowed it.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)
    }

    fn create_folder(&self, path: &Path, mode: u32) -> io::Result<()> {
        match fs::DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, bytes_max + 1), &mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::other(format!(
                "it is larger than {bytes_max} bytes"
            )));
        }
        Ok(Some(bytes))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// The temporary name beside `path`: always the same, so that a crash leaves at most one behind.
fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("the path has no file name"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    Ok(path.with_file_name(temporary))
}

fn folder(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(folder) => Ok(folder),
        None => Err(io::Error::other("the path has no folder")),
    }
}
