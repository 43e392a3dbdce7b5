//! Walking a tree in the byte order of its paths.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use content::EntryPath;
use content::index::CasePolicy;
use rustix::fs::{Access, AtFlags, CWD};

use super::offenders::Offenders;

mod listing;

use listing::{Listing, Step};

/// What a look at a tree found.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) dropped: Dropped,
}

/// What a revision does not hold.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Dropped {
    /// Paths with extended attributes.
    pub attributes: u64,
    /// Paths of another owner or group than the folder.
    pub owners: u64,
}

impl Dropped {
    /// Whether there is any such thing.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.attributes + self.owners > 0
    }
}

/// Looks at every path of a tree, reads no file.
pub(super) fn look(folder: &Path, policy: CasePolicy) -> Result<Look, Offenders> {
    let mut offenders = Offenders::default();
    let mut look = Look {
        files: 0,
        bytes: 0,
        dropped: Dropped::default(),
    };
    match fs::metadata(folder) {
        Ok(meta) if meta.is_dir() => {
            let mut walk = Walk::new(folder, policy);
            while let Some(found) = walk.next_path(&mut offenders) {
                look.count(folder, &meta, &found, &mut offenders);
            }
        }
        Ok(_) => offenders.push(folder, "it is not a folder"),
        Err(error) => offenders.push(folder, error.to_string()),
    }
    if offenders.is_empty() {
        Ok(look)
    } else {
        Err(offenders)
    }
}

impl Look {
    fn count(&mut self, folder: &Path, top: &Metadata, found: &Found, offenders: &mut Offenders) {
        let path = folder.join(found.path.as_str());
        if found.meta.is_file() {
            self.files += 1;
            self.bytes += found.meta.len();
            if let Err(error) = rustix::fs::accessat(CWD, &path, Access::READ_OK, AtFlags::empty())
            {
                offenders.push(found.path.as_str(), format!("it cannot be read: {error}"));
            }
        }
        if (found.meta.uid(), found.meta.gid()) != (top.uid(), top.gid()) {
            self.dropped.owners += 1;
        }
        // A system that has no attributes drops none.
        if rustix::fs::llistxattr(&path, &mut [0u8; 0][..]).is_ok_and(|bytes| bytes > 0) {
            self.dropped.attributes += 1;
        }
    }
}

/// A path of the tree.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: EntryPath,
    pub(super) meta: Metadata,
}

/// A walk, in the byte order of paths: `a`, `a-b`, `a/x`, `a0`.
///
/// That is not the order of folders: what lies below `a` comes after `a-b`. So each folder stands
/// twice in its parent's list: as itself, and as its name with a slash, which is where its own list
/// begins.
#[derive(Debug)]
pub(super) struct Walk {
    root: PathBuf,
    policy: CasePolicy,
    open: Vec<Listing>,
    /// Bytes that the open folders' lists may take together.
    room: usize,
}

/// Memory for the lists of all folders that are open at once: a million names of fifty bytes in one
/// folder fit, and publishing stays within 256 MiB.
pub(super) const LISTINGS_BYTES_MAX: usize = 96 << 20;

impl Walk {
    pub(super) fn new(root: &Path, policy: CasePolicy) -> Self {
        Self::within(LISTINGS_BYTES_MAX, root, policy)
    }

    fn within(room: usize, root: &Path, policy: CasePolicy) -> Self {
        Self {
            root: root.to_owned(),
            policy,
            open: vec![Listing::start()],
            room,
        }
    }

    /// The next path that can be published; what cannot is added to `offenders`.
    pub(super) fn next_path(&mut self, offenders: &mut Offenders) -> Option<Found> {
        loop {
            match self.open.last_mut()?.pop() {
                None => {
                    self.open.pop();
                }
                Some(Step::Enter(folder)) => {
                    let listing = self.list(&folder, offenders);
                    self.open.push(listing);
                }
                Some(Step::Visit(path)) => {
                    if let Some(found) = self.visit(path, offenders) {
                        return Some(found);
                    }
                }
            }
        }
    }

    fn visit(&self, path: String, offenders: &mut Offenders) -> Option<Found> {
        let meta = match fs::symlink_metadata(self.root.join(&path)) {
            Ok(meta) => meta,
            Err(error) => {
                offenders.push(path, error.to_string());
                return None;
            }
        };
        match EntryPath::new(path) {
            Ok(path) => Some(Found { path, meta }),
            Err(error) => {
                offenders.push(error.path, error.rule);
                None
            }
        }
    }

    /// The steps through `folder`.
    fn list(&self, folder: &str, offenders: &mut Offenders) -> Listing {
        let mut listing = Listing::of(folder);
        let path = self.root.join(folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) => {
                offenders.push(folder, format!("it cannot be listed: {error}"));
                return listing;
            }
        };
        let taken: usize = self.open.iter().map(Listing::bytes).sum();
        let room = self.room.saturating_sub(taken);
        for entry in entries {
            match step(folder, entry) {
                Ok((name, is_folder)) => {
                    if !listing.push(&name, is_folder, room) {
                        let most = bytesize::ByteSize(self.room as u64);
                        let why = format!(
                            "it holds too many names: with those of the folders above it they \
                             take more than {most} of memory; spread them over several folders"
                        );
                        offenders.push(path, why);
                        return Listing::of(folder);
                    }
                }
                Err((path, why)) => offenders.push(path, why),
            }
        }
        if self.policy == CasePolicy::Unique {
            listing.same_but_for_case(|name, other| {
                let why =
                    format!("it differs from {other:?} only by case; --case-sensitive allows that");
                offenders.push(Path::new(folder).join(name), why);
            });
        }
        listing.sort();
        listing
    }
}

/// The name of an entry of `folder`, and whether it is a folder itself.
fn step(
    folder: &str,
    entry: io::Result<fs::DirEntry>,
) -> Result<(String, bool), (PathBuf, String)> {
    let entry = entry.map_err(|error| (PathBuf::from(folder), error.to_string()))?;
    let name = entry.file_name();
    let shown = Path::new(folder).join(&name);
    let name = name
        .into_string()
        .map_err(|_| (shown.clone(), "its name is not UTF-8".to_owned()))?;
    let kind = entry
        .file_type()
        .map_err(|error| (shown.clone(), error.to_string()))?;
    match unfit(kind) {
        Some(what) => Err((shown, format!("it is a {what}"))),
        None => Ok((name, kind.is_dir())),
    }
}

fn unfit(kind: fs::FileType) -> Option<&'static str> {
    match () {
        () if kind.is_file() || kind.is_dir() || kind.is_symlink() => None,
        () if kind.is_socket() => Some("socket"),
        () if kind.is_fifo() => Some("named pipe"),
        () if kind.is_block_device() || kind.is_char_device() => Some("device"),
        () => Some("thing of unknown kind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(room: usize, folders: &[(&str, usize)]) -> Result<usize, String> {
        let root = tempfile::tempdir().unwrap();
        for (folder, files) in folders {
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            for file in 0..*files {
                fs::write(folder.join(format!("file{file:03}")), b"").unwrap();
            }
        }
        let mut offenders = Offenders::default();
        let mut walk = Walk::within(room, root.path(), CasePolicy::Unique);
        let mut count = 0;
        while walk.next_path(&mut offenders).is_some() {
            count += 1;
        }
        match offenders.shown.first() {
            None => Ok(count),
            Some(offender) => {
                let path = offender.path.strip_prefix(root.path()).unwrap();
                Err(format!("{}: {}", path.display(), offender.why))
            }
        }
    }

    #[test]
    fn the_names_of_open_folders_are_bounded_and_the_folder_is_named() {
        assert_eq!(walk(8000, &[("one", 100), ("two", 100)]), Ok(202));
        let refused = walk(8000, &[("few", 10), ("one/many", 300)]).unwrap_err();
        assert!(refused.starts_with("one/many: it holds too many names"));
        // Each has room, but they are open at once.
        let refused = walk(8000, &[("one", 150), ("one/below", 150)]).unwrap_err();
        assert!(refused.starts_with("one/below: it holds too many names"));
    }
}
