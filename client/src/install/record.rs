//! What is installed at a target, and what is about to be: the journal of the switch.

mod kept;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use content::durable::{self, Disk as _, RealDisk};
use content::{Digest, FilesetName, RevisionNumber};
use rustix::fs::Stat;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::rules::Rules;
pub(crate) use kept::Way;
use kept::{JOURNAL, Previous};

/// The record of one target: a folder of its own with `record.json` and the indexes that it names.
#[derive(Debug)]
pub(crate) struct Record {
    folder: PathBuf,
    state: State,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct State {
    target: PathBuf,
    /// What the tree at the target is.
    installed: Option<Revision>,
    /// What the staging folder is becoming.
    next: Option<Next>,
    /// Whether a folder of the staging name, if there is one, is ours to remove.
    staging: bool,
    /// Which folders hold old trees that could not be removed: ours too, if they are there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    remains: BTreeSet<u32>,
    /// Whose part of the target this is, if it is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fileset: Option<String>,
    /// Which way the journal beside this record is being carried out: before anything else
    /// happens, it is carried out to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    journal: Option<Way>,
    /// What was installed before, as long as the staging folder holds what it takes to go back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Previous>,
    /// Whether a folder of the healing name, if there is one, is ours to remove.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    healing: bool,
    /// What is to become of paths that others have changed.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    rules: Rules,
}

/// One revision as it is installed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revision {
    fileset: String,
    number: u64,
    root: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Next {
    revision: Revision,
    /// The inode of the finished staging folder, once the switch may happen: whichever of the two
    /// names bears it tells whether it has.
    switching: Option<Inode>,
}

/// The number of a folder on its file system. The device's number says nothing: both folders have
/// one parent, and devices may be numbered anew when the system starts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "Told")]
struct Inode(u64);

/// How a record tells an inode.
#[derive(Deserialize)]
#[serde(untagged)]
enum Told {
    Alone(u64),
    /// As records did at first: the device, then the inode.
    WithDevice((u64, u64)),
}

impl From<Told> for Inode {
    fn from(told: Told) -> Self {
        match told {
            Told::Alone(inode) | Told::WithDevice((_, inode)) => Self(inode),
        }
    }
}

impl From<&Stat> for Inode {
    fn from(stat: &Stat) -> Self {
        Self(stat.st_ino)
    }
}

impl Revision {
    /// Puts one together: fileset, number and the digest of the index root.
    pub(crate) fn new(fileset: &FilesetName, number: RevisionNumber, root: Digest) -> Self {
        Self {
            fileset: fileset.as_str().to_owned(),
            number: number.0,
            root: root.to_string(),
        }
    }

    /// The fileset.
    pub(crate) fn fileset(&self) -> &str {
        &self.fileset
    }

    /// Its number.
    pub(crate) fn number(&self) -> RevisionNumber {
        RevisionNumber(self.number)
    }

    /// The digest of its index root.
    pub(crate) fn root(&self) -> Option<Digest> {
        self.root.parse().ok()
    }
}

impl Record {
    /// Opens the record of `target` (an absolute path) below `installed`, making its folder.
    pub(crate) fn open(installed: &Path, target: &Path) -> Result<Self, RecordError> {
        Self::open_as(installed, target, None)
    }

    /// Opens the record of what `fileset` has in the shared folder `target`.
    pub(crate) fn open_shared(
        installed: &Path,
        target: &Path,
        fileset: &FilesetName,
    ) -> Result<Self, RecordError> {
        Self::open_as(installed, target, Some(fileset.as_str()))
    }

    fn open_as(
        installed: &Path,
        target: &Path,
        fileset: Option<&str>,
    ) -> Result<Self, RecordError> {
        let mut named = target.as_os_str().as_encoded_bytes().to_vec();
        if let Some(fileset) = fileset {
            // No path has a NUL.
            named.push(0);
            named.extend(fileset.as_bytes());
        }
        let id = Digest::of(&named).hex();
        // Half of the digest: enough to be unique, and short enough to be read.
        let folder = installed.join(&id[..32]);
        let failed = |source| RecordError::Io {
            path: folder.clone(),
            source,
        };
        durable::create_folder(&RealDisk, installed, 0o700).map_err(failed)?;
        durable::create_folder(&RealDisk, &folder, 0o700).map_err(failed)?;
        let state = read(&folder)?.unwrap_or_else(|| State {
            target: target.to_owned(),
            installed: None,
            next: None,
            staging: false,
            remains: BTreeSet::new(),
            fileset: fileset.map(str::to_owned),
            journal: None,
            previous: None,
            healing: false,
            rules: Rules::default(),
        });
        Ok(Self { folder, state })
    }

    /// The records of all targets below `installed`.
    pub(crate) fn list(installed: &Path) -> Result<Vec<Self>, RecordError> {
        let failed = |source| RecordError::Io {
            path: installed.to_owned(),
            source,
        };
        let folders = match std::fs::read_dir(installed) {
            Ok(folders) => folders,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut records = Vec::new();
        for folder in folders {
            let folder = folder.map_err(failed)?.path();
            if let Some(state) = read(&folder)? {
                records.push(Self { folder, state });
            }
        }
        records.sort_by(|one, other| one.state.target.cmp(&other.state.target));
        Ok(records)
    }

    /// The target.
    pub(crate) fn target(&self) -> &Path {
        &self.state.target
    }

    /// A name for it that can stand in paths.
    pub(crate) fn id(&self) -> &std::ffi::OsStr {
        self.folder.file_name().unwrap_or_default()
    }

    /// What is installed there, as far as we know.
    pub(crate) fn installed(&self) -> Option<&Revision> {
        self.state.installed.as_ref()
    }

    /// What is about to be installed there.
    pub(crate) fn next(&self) -> Option<&Revision> {
        self.state.next.as_ref().map(|next| &next.revision)
    }

    /// Whether a folder of the staging name is ours.
    pub(crate) fn owns_staging(&self) -> bool {
        self.state.staging
    }

    /// Where the index with that root is, or would be.
    pub(crate) fn index_path(&self, root: Digest) -> PathBuf {
        self.folder.join(format!("{}.index", root.hex()))
    }

    /// Where the index root is, or would be.
    pub(crate) fn root_path(&self, root: Digest) -> PathBuf {
        self.folder.join(format!("{}.root", root.hex()))
    }

    /// Says that the staging folder is being filled, before it is made.
    pub(crate) fn begin(&mut self, revision: Option<Revision>) -> Result<(), RecordError> {
        self.state.next = revision.map(|revision| Next {
            revision,
            switching: None,
        });
        self.state.staging = true;
        self.store()
    }

    /// Says that the finished staging folder (`stat`) is about to become the target.
    pub(crate) fn begin_switch(&mut self, stat: &Stat) -> Result<(), RecordError> {
        if let Some(next) = &mut self.state.next {
            next.switching = Some(stat.into());
        }
        self.store()
    }

    /// Takes note of how an earlier run ended: `target` is what the target's name bears now.
    pub(crate) fn recover(&mut self, target: Option<&Stat>) -> Result<(), RecordError> {
        let Some(next) = self.state.next.take() else {
            return Ok(());
        };
        let bears = target.map(Inode::from);
        if next.switching.is_some() && next.switching == bears {
            let revision = self.state.installed.replace(next.revision);
            // On the way back there is nothing to go back to from.
            self.state.previous = match self.state.journal.take() {
                Some(Way::Back) => None,
                Some(Way::Forward) | None => Some(Previous { revision }),
            };
        }
        self.state.journal = None;
        self.store()
    }

    /// Says that what is installed is `revision`, which has the same files.
    pub(crate) fn renumber(&mut self, revision: Revision) -> Result<(), RecordError> {
        if self.state.installed.as_ref() == Some(&revision) {
            return Ok(());
        }
        self.state.installed = Some(revision);
        self.store()
    }

    /// Says that nothing is installed at the target: its folder is gone.
    pub(crate) fn forget(&mut self) -> Result<(), RecordError> {
        self.state.installed = None;
        self.store()
    }

    /// Says that the staging folder is gone.
    pub(crate) fn staging_removed(&mut self) -> Result<(), RecordError> {
        if !self.state.staging {
            return Ok(());
        }
        self.state.staging = false;
        self.store()
    }

    /// The numbers of the folders with old trees that could not be removed.
    pub(crate) fn remains(&self) -> BTreeSet<u32> {
        self.state.remains.clone()
    }

    /// Says that a tree that cannot be removed is about to get the name with that number.
    pub(crate) fn begin_remains(&mut self, number: u32) -> Result<(), RecordError> {
        self.state.remains.insert(number);
        self.store()
    }

    /// Says that there is nothing of ours under the name with that number.
    pub(crate) fn remains_removed(&mut self, number: u32) -> Result<(), RecordError> {
        self.state.remains.remove(&number);
        self.store()
    }

    /// Removes indexes that belong neither to what is installed nor to `wanted`.
    pub(crate) fn tidy(&self, wanted: Option<Digest>) {
        let installed = self.installed().and_then(Revision::root);
        let previous = self.previous().and_then(Revision::root);
        let keep: Vec<String> = [installed, previous, wanted]
            .into_iter()
            .flatten()
            .map(|root| root.hex())
            .collect();
        let Ok(files) = std::fs::read_dir(&self.folder) else {
            return;
        };
        for file in files.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let known = name == RECORD
                || name == JOURNAL
                || keep.iter().any(|root| name.starts_with(root.as_str()));
            if !known {
                // What is left over costs room and nothing else: the next run tries again.
                std::fs::remove_file(file.path()).unwrap_or_default();
            }
        }
    }

    fn store(&self) -> Result<(), RecordError> {
        let path = self.folder.join(RECORD);
        let bytes = serde_json::to_vec_pretty(&self.state).expect("paths that we took are UTF-8");
        durable::write(&RealDisk, &path, &bytes, 0o600)
            .map_err(|source| RecordError::Io { path, source })
    }
}

fn read(folder: &Path) -> Result<Option<State>, RecordError> {
    let path = folder.join(RECORD);
    let bytes = RealDisk
        .read(&path, RECORD_BYTES_MAX)
        .map_err(|source| RecordError::Io {
            path: path.clone(),
            source,
        })?;
    bytes
        .map(|bytes| serde_json::from_slice(&bytes))
        .transpose()
        .map_err(|source| RecordError::Damaged { path, source })
}

/// Why the record of a target cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It says something that we never wrote.
    #[error("cannot use the record {path}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It cannot be read or written.
    #[error("cannot keep the record {path}", path = path.display())]
    Io {
        /// The file or its folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

const RECORD: &str = "record.json";
/// A path of 4 KiB, escaped, twice over, some digests, and 64 rules with patterns of 256 bytes.
const RECORD_BYTES_MAX: u64 = 256 << 10;

#[cfg(test)]
mod tests;
