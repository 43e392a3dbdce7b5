//! Walking a tree in the byte order of its paths.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use content::EntryPath;
use content::index::CasePolicy;
use rustix::fs::{Access, AtFlags, CWD};

use super::offenders::Offenders;

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
    /// What is left of each open folder, last first.
    open: Vec<Vec<Step>>,
}

#[derive(Debug)]
enum Step {
    /// A path to visit.
    Visit(String),
    /// A folder to open.
    Enter(String),
}

impl Step {
    fn key(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Visit(path) => (path.as_bytes(), b""),
            Self::Enter(path) => (path.as_bytes(), b"/"),
        }
    }

    fn sorts_before(&self, other: &Self) -> std::cmp::Ordering {
        let ((path, slash), (other_path, other_slash)) = (self.key(), other.key());
        path.iter()
            .chain(slash)
            .cmp(other_path.iter().chain(other_slash))
    }
}

impl Walk {
    pub(super) fn new(root: &Path, policy: CasePolicy) -> Self {
        Self {
            root: root.to_owned(),
            policy,
            open: vec![vec![Step::Enter(String::new())]],
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
                    let steps = self.list(&folder, offenders);
                    self.open.push(steps);
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

    /// The steps through `folder`, last first.
    fn list(&self, folder: &str, offenders: &mut Offenders) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut folded: HashMap<String, String> = HashMap::new();
        let entries = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            Err(error) => {
                offenders.push(folder, format!("it cannot be listed: {error}"));
                return steps;
            }
        };
        for entry in entries {
            match self.step(folder, entry, &mut folded) {
                Ok((path, is_folder)) => {
                    if is_folder {
                        steps.push(Step::Enter(path.clone()));
                    }
                    steps.push(Step::Visit(path));
                }
                Err((path, why)) => offenders.push(path, why),
            }
        }
        steps.sort_unstable_by(|a, b| b.sorts_before(a));
        steps
    }

    /// The path of an entry of `folder`, and whether it is a folder itself.
    fn step(
        &self,
        folder: &str,
        entry: io::Result<fs::DirEntry>,
        folded: &mut HashMap<String, String>,
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
        if let Some(what) = unfit(kind) {
            return Err((shown, format!("it is a {what}")));
        }
        if self.policy == CasePolicy::Unique
            && let Some(other) = folded.insert(name.to_lowercase(), name.clone())
        {
            let why =
                format!("it differs from {other:?} only by case; --case-sensitive allows that");
            return Err((shown, why));
        }
        let path = if folder.is_empty() {
            name
        } else {
            format!("{folder}/{name}")
        };
        Ok((path, kind.is_dir()))
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
