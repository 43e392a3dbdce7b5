//! Whether an installed tree still looks as it was installed.

use content::index::{Entry, Kind, Record};
use rustix::fs::{FileType, Stat};

use crate::plan::Old;
use crate::plan::walk::{Installed, WalkError};
use crate::tree::{self, Tree};

/// Compares type, mode, time, size and link target of every path with the index. File content is
/// not read.
pub(crate) fn check(old: &Old) -> Result<bool, WalkError> {
    let io = |source| WalkError::Io { source };
    let mut tree = Tree::open(&old.tree).map_err(io)?;
    let mut installed = Installed::open(&old.index)?;
    while let Some(record) = installed.next_record()? {
        let Record::Entry(entry) = record else {
            continue;
        };
        let Some(stat) = tree.stat(&entry.path).map_err(io)? else {
            return Ok(false);
        };
        let link = match &entry.kind {
            Kind::Symlink { target } => {
                let got = tree.read_link(&entry.path).map_err(io)?;
                got.as_bytes() == target.as_bytes()
            }
            Kind::File { .. } | Kind::Folder | Kind::HardLink { .. } => true,
        };
        if !link || !looks_like(&stat, &entry) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether what is there looks as `entry` says: type, size, mode and time.
pub(crate) fn looks_like(stat: &Stat, entry: &Entry) -> bool {
    let found = FileType::from_raw_mode(stat.st_mode);
    let dated = tree::mtime(stat) == entry.mtime;
    let dressed = dated && tree::mode(stat) == entry.mode;
    match &entry.kind {
        Kind::File { size, .. } => {
            found == FileType::RegularFile && tree::size(stat) == *size && dressed
        }
        Kind::Folder => found == FileType::Directory && dressed,
        // A link's mode cannot be set.
        Kind::Symlink { .. } => found == FileType::Symlink && dated,
        // What it is another name of has been compared under the first.
        Kind::HardLink { .. } => found != FileType::Directory && stat.st_nlink > 1,
    }
}
