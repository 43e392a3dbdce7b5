//! Putting back what is damaged, one path at a time.
//!
//! What differs is made anew in a folder of its own and takes its place by an exchange, so that a
//! reader sees the old file or the new one. No journal is needed: each path is healed or not, and
//! the next examination finds what is left.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use content::index::{Entry, Kind, Record};
use service::Report;
use tracing::warn;

use super::examine::{Examination, Fate, Findings, Pace};
use super::foreign::{self, Foreign};
use super::merge::apply::Site;
use super::merge::journal::staged_name;
use super::merge::survey::PathSet;
use super::{Target, TargetError, remove_tree};
use crate::plan::walk::Installed;
use crate::tree::{self, Tree};

/// What has been healed.
#[derive(Debug, Default)]
pub(crate) struct Healed {
    /// How many paths.
    pub(crate) count: u64,
    /// Those that could not be.
    failed: PathSet,
}

impl Healed {
    /// Writes into `findings` what has become of each path.
    pub(crate) fn tell(&self, findings: &mut Findings) {
        for difference in &mut findings.differences {
            if difference.fate == Fate::Left && !self.failed.contains_text(&difference.path) {
                difference.fate = Fate::Healed;
            }
        }
    }
}

impl Target {
    /// Examines what is installed; nothing is found if that is nothing.
    pub(crate) fn examine(&self, pace: &mut Pace) -> Result<Findings, TargetError> {
        let Some(old) = self.old() else {
            return Ok(Findings::default());
        };
        let others = self.others()?;
        let examination = Examination {
            target: &self.path,
            index: &old.index,
            shared: self.shared.is_some(),
            others: &others,
            rules: self.record.rules(),
        };
        Ok(examination.run(pace)?)
    }

    /// What others have put into a tree that should be ours alone.
    pub(crate) fn strangers(&self) -> Result<Foreign, TargetError> {
        match self.old() {
            Some(old) if self.shared.is_none() => foreign::find(&self.path, Some(&old.index))
                .map_err(|source| self.failed_foreign(source)),
            Some(_) | None => Ok(Foreign::default()),
        }
    }

    /// Where what is damaged is made anew.
    pub(crate) fn healing(&self) -> &Path {
        &self.healing
    }

    /// Makes that folder, empty.
    pub(crate) fn stage_healing(&mut self) -> Result<(), TargetError> {
        self.clear_healing()?;
        self.record.set_healing(true)?;
        self.step()?;
        let made = fs::DirBuilder::new().mode(0o700).create(&self.healing);
        made.map_err(|source| TargetError::Io {
            path: self.healing.clone(),
            source,
        })
    }

    /// Removes that folder, if there is one and it is ours.
    pub(crate) fn clear_healing(&mut self) -> Result<(), TargetError> {
        if !self.record.owns_healing() {
            return Ok(());
        }
        remove_tree(&self.healing).map_err(|source| TargetError::Io {
            path: self.healing.clone(),
            source,
        })?;
        Ok(self.record.set_healing(false)?)
    }

    /// Puts what has been made anew in its places, and gives modes and times back.
    pub(crate) fn heal(&mut self, findings: &Findings) -> Result<Healed, TargetError> {
        let mut healed = Healed::default();
        let Some(old) = self.old() else {
            return Ok(healed);
        };
        if !findings.make.is_empty() {
            self.put_all(&old.index, findings, &mut healed)?;
        }
        self.dress_all(&old.index, findings, &mut healed)?;
        self.clear_healing()?;
        Ok(healed)
    }

    fn put_all(
        &self,
        index: &Path,
        findings: &Findings,
        healed: &mut Healed,
    ) -> Result<(), TargetError> {
        let failed = |source| TargetError::Io {
            path: self.healing.clone(),
            source,
        };
        let mut site = Site::open(&self.path, &self.healing, &self.steps).map_err(failed)?;
        let synced = rustix::fs::syncfs(site.staging.root());
        synced.map_err(|errno| failed(errno.into()))?;
        each_entry(index, |ordinal, entry| {
            if !findings.make.get(ordinal) {
                return Ok(());
            }
            let staged = site.staging.stat(&staged_name(&entry.path));
            let staged = staged.map_err(failed)?.map(|stat| stat.st_ino);
            let put = match staged {
                Some(inode) => site.put(&entry.path, inode, false),
                None => Err(std::io::ErrorKind::NotFound.into()),
            };
            if let Err(error) = put {
                if crate::steps::Steps::is_crash(&error) {
                    return Err(failed(error));
                }
                let error = Report(&error);
                warn!(path = %entry.path, %error, "cannot heal a path");
                healed.failed.add(&entry.path);
            } else {
                healed.count += 1;
            }
            Ok(())
        })
    }

    /// Gives back modes and times. In a tree, healing has changed the times of folders too.
    fn dress_all(
        &self,
        index: &Path,
        findings: &Findings,
        healed: &mut Healed,
    ) -> Result<(), TargetError> {
        let mut tree = Tree::open(&self.path).map_err(|source| self.failed(source))?;
        each_entry(index, |ordinal, entry| {
            let damaged = findings.dress.get(ordinal);
            let ours = self.shared.is_none() && entry.kind == Kind::Folder;
            if !damaged && !ours {
                return Ok(());
            }
            let stat = tree
                .stat(&entry.path)
                .map_err(|source| self.failed(source))?;
            let is_right = stat.is_some_and(|stat| {
                tree::mtime(&stat) == entry.mtime && tree::mode(&stat) == entry.mode
            });
            if is_right && !damaged {
                return Ok(());
            }
            match tree.dress(&entry.path, entry.mode, Some(entry.mtime)) {
                Ok(()) => healed.count += u64::from(damaged),
                Err(error) if damaged => {
                    let error = Report(&error);
                    warn!(path = %entry.path, %error, "cannot heal a path");
                    healed.failed.add(&entry.path);
                }
                Err(_) => {}
            }
            Ok(())
        })
    }
}

fn each_entry(
    index: &Path,
    mut each: impl FnMut(u64, &Entry) -> Result<(), TargetError>,
) -> Result<(), TargetError> {
    let mut installed = Installed::open(index)?;
    let mut ordinal = 0;
    while let Some(record) = installed.next_record()? {
        if let Record::Entry(entry) = record {
            each(ordinal, &entry)?;
            ordinal += 1;
        }
    }
    Ok(())
}
