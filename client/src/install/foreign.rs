//! What stands in a target that we did not put there.

use std::collections::BTreeSet;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::Path;

use content::index::{IndexError, IndexReader, Record};
use rustix::fs::{Dir, FileType};
use thiserror::Error;

use crate::tree::Tree;

/// Paths in the tree at `target` that the index at `installed` does not name; without an index,
/// all of them.
pub(crate) fn find(target: &Path, installed: Option<&Path>) -> Result<Foreign, ForeignError> {
    let known = match installed {
        Some(index) => Known::read(index)?,
        None => Known::default(),
    };
    let failed = |source| ForeignError::Io { source };
    let tree = Tree::open(target).map_err(failed)?;
    let mut foreign = Foreign::default();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let within = Some(folder.as_str()).filter(|folder| !folder.is_empty());
        let opened = tree.open_folder(within).map_err(failed)?;
        for entry in Dir::new(opened).map_err(|errno| failed(errno.into()))? {
            let entry = entry.map_err(|errno| failed(errno.into()))?;
            let name = entry.file_name().to_string_lossy();
            if name == "." || name == ".." {
                continue;
            }
            let path = match within {
                Some(folder) => format!("{folder}/{name}"),
                None => name.clone().into_owned(),
            };
            // A name that is not UTF-8 is none of ours, whatever it looks like.
            if !known.contains(&path) || matches!(name, std::borrow::Cow::Owned(_)) {
                foreign.add(path);
            } else if entry.file_type() == FileType::Directory {
                folders.push(path);
            }
        }
    }
    Ok(foreign)
}

/// Paths that are not ours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Foreign {
    /// The first of them, in order.
    pub(crate) named: BTreeSet<String>,
    /// How many there are; what lies in a foreign folder is not counted.
    pub(crate) count: u64,
}

impl Foreign {
    /// Adds one.
    pub(crate) fn add(&mut self, path: String) {
        self.count += 1;
        self.named.insert(path);
        if self.named.len() > NAMED_MAX {
            self.named.pop_last();
        }
    }
}

/// The paths of an index, as hashes under a random key: 8 MB for a million, where the paths
/// themselves would take a hundred. Two that collide cannot be found on purpose.
#[derive(Default)]
struct Known {
    hashes: Vec<u64>,
    key: RandomState,
}

impl Known {
    fn read(index: &Path) -> Result<Self, ForeignError> {
        let mut known = Self::default();
        let file = File::open(index).map_err(|source| ForeignError::Io { source })?;
        let failed = |source| ForeignError::Index { source };
        let mut index = IndexReader::new(file).map_err(failed)?;
        while let Some(record) = index.next_record().map_err(failed)? {
            if let Record::Entry(entry) = record {
                known.hashes.push(known.key.hash_one(entry.path.as_str()));
            }
        }
        known.hashes.sort_unstable();
        Ok(known)
    }

    fn contains(&self, path: &str) -> bool {
        let hash = self.key.hash_one(path);
        self.hashes.binary_search(&hash).is_ok()
    }
}

/// Why the target cannot be looked through.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// The installed index cannot be read.
    #[error("cannot read the index of what is installed")]
    Index {
        /// Why.
        source: IndexError,
    },
    /// A folder, or the index, cannot be read.
    #[error("cannot look through the target")]
    Io {
        /// Why.
        source: io::Error,
    },
}

/// As many as a person reads.
const NAMED_MAX: usize = 20;
