//! Installing a tree: beside the target, and in one step.
//!
//! The new tree is built in a staging folder beside the target, made safe with one `syncfs`, and
//! exchanged with the target, so that a reader sees the old tree or the new one. The record says
//! before each step what is about to happen; whoever comes after a crash finds out by the inode
//! that the target's name bears whether the exchange has happened.

mod back;
pub(crate) mod build;
mod error;
pub(crate) mod examine;
pub(crate) mod foreign;
mod heal;
mod intact;
pub(crate) mod merge;
pub(crate) mod record;
mod remains;
mod remove;
pub(crate) mod room;
pub(crate) mod rules;
pub(crate) mod stored;
mod write;

pub use error::TargetError;
pub(crate) use remove::remove_tree;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, Stat};
use service::Report;
use tracing::warn;

use crate::plan::Old;
use crate::steps::Steps;
use crate::tree::{self, Tree};
use error::shorten;
use foreign::ForeignError;
use merge::Shared;
use record::{Record, Revision};
use rules::Rules;

/// A folder that is, or becomes, a revision of a fileset and nothing else.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    staging: PathBuf,
    /// Where single files are made ready that take the place of damaged ones.
    healing: PathBuf,
    record: Record,
    /// Whether the index of what is installed is not what its root says.
    damaged: bool,
    /// Whether what an installation displaces is kept until it is confirmed.
    keeps: bool,
    /// What there is besides, if others share the folder.
    shared: Option<Shared>,
    steps: Steps,
}

impl Target {
    /// Opens `path` as a target, with its record below `installed`: finishes or takes back what an
    /// earlier run left half done.
    pub(crate) fn open(installed: &Path, path: &Path, steps: Steps) -> Result<Self, TargetError> {
        let path = locate(path)?;
        let staging = beside(&path, ".larder-staging")?;
        let healing = beside(&path, ".larder-heal")?;
        let record = Record::open(installed, &path)?;
        let mut target = Self {
            path,
            staging,
            healing,
            record,
            damaged: false,
            keeps: false,
            shared: None,
            steps,
        };
        if target.record.is_removing() {
            target.finish_removal()?;
        }
        let stat = target.stat()?;
        target.record.recover(stat.as_ref())?;
        target.clear_remains()?;
        target.clear_healing()?;
        target.clear_unless_kept()?;
        if stat.is_none() && target.record.installed().is_some() {
            target.record.forget()?;
        }
        target.look_at_index();
        Ok(target)
    }

    /// Finds out whether the index of what is installed can be believed.
    pub(crate) fn look_at_index(&mut self) {
        let is_whole = |index: PathBuf| {
            stored::root_of(&index).is_some_and(|root| stored::is_whole(&index, &root))
        };
        self.damaged = self.installed_index().is_some_and(|index| !is_whole(index));
        if self.damaged {
            let path = self.path.display();
            warn!(%path, "the index of what is installed is damaged");
        }
    }

    /// The folder that new files are made in: the one that it lies in, or if it is shared, itself.
    pub(crate) fn parent(&self) -> &Path {
        if self.shared.is_some() {
            return &self.path;
        }
        self.path.parent().unwrap_or_else(|| Path::new("/"))
    }

    /// Where the new tree is built.
    pub(crate) fn staging(&self) -> &Path {
        &self.staging
    }

    /// What is known of it.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// The index of what is installed, in whatever state.
    pub(crate) fn installed_index(&self) -> Option<PathBuf> {
        let root = self.record.installed()?.root()?;
        Some(self.record.index_path(root))
    }

    /// Whether something is installed, and its index can be used for nothing.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Takes up the index of what is installed, if it has been mended. Then the foreign paths that
    /// could not be told from ours are refused, unless they may be lost.
    pub(crate) fn after_mending(&mut self, replace: bool) -> Result<(), TargetError> {
        self.look_at_index();
        if self.damaged || replace || self.shared.is_some() {
            return Ok(());
        }
        self.refuse_foreign()
    }

    /// The installed tree with its index, if there is one that can be used.
    pub(crate) fn old(&self) -> Option<Old> {
        let index = self.installed_index().filter(|_| !self.damaged)?;
        Some(Old {
            index,
            tree: self.path.clone(),
            distrusted: std::collections::BTreeSet::new(),
        })
    }

    /// Refuses to go on if the target holds what we did not put there, and is not shared.
    pub(crate) fn refuse_foreign(&self) -> Result<(), TargetError> {
        if self.shared.is_some() || self.stat()?.is_none() {
            return Ok(());
        }
        let index = self.old().map(|old| old.index);
        let found = foreign::find(&self.path, index.as_deref())
            .map_err(|source| self.failed_foreign(source))?;
        if found.count == 0 {
            return Ok(());
        }
        Err(self.foreign(found))
    }

    fn foreign(&self, found: foreign::Foreign) -> TargetError {
        TargetError::Foreign {
            path: self.path.clone(),
            count: found.count,
            named: found.named.into_iter().collect(),
        }
    }

    /// Whether the target still looks exactly as it was installed.
    pub(crate) fn is_intact(&self) -> bool {
        let Some(old) = self.old() else {
            return false;
        };
        if self.shared.is_some() {
            let survey = self.survey(Some(&old.index));
            return survey.is_ok_and(|survey| survey.is_none_or(|survey| survey.put.is_empty()));
        }
        // Whatever cannot be read is not as it was installed.
        let foreign = foreign::find(&self.path, Some(&old.index));
        foreign.is_ok_and(|foreign| foreign.count == 0) && intact::check(&old).unwrap_or(false)
    }

    /// Goes by `rules` from now on.
    pub(crate) fn set_rules(&mut self, rules: Rules) -> Result<(), TargetError> {
        Ok(self.record.set_rules(rules)?)
    }

    /// Says that what is installed is `revision`, which has the same files.
    pub(crate) fn renumber(&mut self, revision: Revision) -> Result<(), TargetError> {
        Ok(self.record.renumber(revision)?)
    }

    /// Makes an empty staging folder for `revision`.
    pub(crate) fn stage(&mut self, revision: Revision) -> Result<(), TargetError> {
        self.confirm()?;
        self.begin_staging(Some(revision))
    }

    /// Makes an empty staging folder for `revision`, or for the removal of what is installed.
    fn begin_staging(&mut self, revision: Option<Revision>) -> Result<(), TargetError> {
        self.clear_staging()?;
        self.record.begin(revision)?;
        self.step()?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.staging)
            .map_err(|source| self.failed_staging(source))
    }

    /// Puts the finished tree in the staging folder in the target's place, and removes what was
    /// there before. That the old tree cannot be removed is no failure: the new one is installed.
    pub(crate) fn switch(&mut self, replace: bool) -> Result<(), TargetError> {
        if self.shared.is_some() {
            self.merge_in()?;
        } else {
            self.switch_tree(replace)?;
        }
        if !self.keeps
            && let Err(error) = self.confirm()
        {
            if Steps::is_crash(&error) {
                return Err(error);
            }
            warn!(error = %Report(&error), "cannot tidy up; the next pull tries again");
        }
        Ok(())
    }

    fn switch_tree(&mut self, replace: bool) -> Result<(), TargetError> {
        if self.damaged {
            self.tell_what_goes();
        } else if !replace {
            // Somebody may have put something there while we were fetching.
            self.refuse_foreign()?;
        }
        let before = self.stat()?;
        let staged = self.seal(before.as_ref())?;
        self.step()?;
        self.record.begin_switch(&staged)?;
        self.step()?;
        let flags = match before {
            Some(_) => RenameFlags::EXCHANGE,
            None => RenameFlags::NOREPLACE,
        };
        let switched = rustix::fs::renameat_with(CWD, &self.staging, CWD, &self.path, flags)
            .map_err(io::Error::from)
            .and_then(|()| self.steps.next())
            .and_then(|()| fs::File::open(self.parent())?.sync_all());
        switched.map_err(|source| TargetError::Switch {
            path: self.path.clone(),
            source,
        })?;
        self.step()?;
        let now = self.stat()?;
        Ok(self.record.recover(now.as_ref())?)
    }

    /// Removes the staging folder after a failure: the target is as it was.
    pub(crate) fn give_up(&mut self) -> Result<(), TargetError> {
        if self.shared.is_none() {
            let stat = self.stat()?;
            self.record.recover(stat.as_ref())?;
        } else if self.record.journal().is_none() {
            self.record.drop_next()?;
        } else {
            // The journal goes before anything else, and the next run begins with it.
            return Ok(());
        }
        self.clear_unless_kept()
    }

    /// Removes the staging folder, unless it holds what was installed before.
    fn clear_unless_kept(&mut self) -> Result<(), TargetError> {
        if self.record.can_go_back() {
            return Ok(());
        }
        self.clear_staging()
    }

    /// Without the index of what is installed, nobody knows whether what the new revision does not
    /// have was in the old one or is somebody else's. It is named before it goes.
    fn tell_what_goes(&self) {
        let next = self.record.next().and_then(Revision::root);
        let index = next.map(|root| self.record.index_path(root));
        if let Ok(found) = foreign::find(&self.path, index.as_deref())
            && found.count > 0
        {
            let named: Vec<String> = found.named.into_iter().collect();
            warn!(
                path = %self.path.display(),
                count = found.count,
                named = shorten(&named, found.count),
                "removing paths that may be of others: the index that knew is damaged"
            );
        }
    }

    /// Gives the staging folder the target's mode and makes all of it safe.
    fn seal(&self, before: Option<&Stat>) -> Result<Stat, TargetError> {
        let mode = before.map_or(TARGET_MODE, tree::mode);
        let sealed = || -> io::Result<Stat> {
            let staging = Tree::open(&self.staging)?;
            rustix::fs::fchmod(staging.root(), tree::to_mode(mode))?;
            rustix::fs::syncfs(staging.root())?;
            Ok(rustix::fs::fstat(staging.root())?)
        };
        sealed().map_err(|source| self.failed_staging(source))
    }

    /// What bears the target's name, which must be a folder; none if nothing does.
    fn stat(&self) -> Result<Option<Stat>, TargetError> {
        match rustix::fs::lstat(&self.path) {
            Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() => {
                Ok(Some(stat))
            }
            Ok(_) => Err(TargetError::NotAFolder {
                path: self.path.clone(),
            }),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(TargetError::Io {
                path: self.path.clone(),
                source: errno.into(),
            }),
        }
    }

    fn step(&self) -> Result<(), TargetError> {
        let next = self.steps.next();
        next.map_err(|source| self.failed_staging(source))
    }

    fn failed(&self, source: io::Error) -> TargetError {
        TargetError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn failed_staging(&self, source: io::Error) -> TargetError {
        TargetError::Io {
            path: self.staging.clone(),
            source,
        }
    }

    fn failed_foreign(&self, source: ForeignError) -> TargetError {
        TargetError::Look {
            path: self.path.clone(),
            source,
        }
    }
}

/// The absolute path of a target, links in the folders above it followed.
fn locate(path: &Path) -> Result<PathBuf, TargetError> {
    let failed = |source| TargetError::Io {
        path: path.to_owned(),
        source,
    };
    let absolute = std::path::absolute(path).map_err(failed)?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(failed(io::Error::other(
            "it is no folder that can be replaced",
        )));
    };
    let located = parent.canonicalize().map_err(failed)?.join(name);
    if located.to_str().is_none() {
        return Err(failed(io::Error::other("its path is not UTF-8")));
    }
    Ok(located)
}

/// A folder of ours for `target`: beside it, hidden, and always the same.
fn beside(target: &Path, suffix: &str) -> Result<PathBuf, TargetError> {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(suffix);
    if name.len() > content::EntryPath::COMPONENT_BYTES_MAX {
        return Err(TargetError::Io {
            path: target.to_owned(),
            source: io::Error::other("its name is too long for a staging folder beside it"),
        });
    }
    Ok(target.with_file_name(name))
}

/// What a new target's mode is: an index says nothing of the tree's own folder.
const TARGET_MODE: u32 = 0o755;
