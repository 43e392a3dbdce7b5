//! Installing into a folder that is shared with others: path by path, under a journal.
//!
//! Types and data flow:
//!
//! ```text
//!  new index ─┐
//!  old index ─┼─ Scene ──survey──▶ Survey {put, refused}   before anything is fetched
//!  Others ────┤    │                  │ the paths that are put, as bits
//!  the disk ──┘    │                  ▼
//!                  │            plan, fetch, build ──▶ staging folder, flat: one name for each path
//!                  └──write──▶ Journal ◀── inodes of what is staged
//!                                 │ record: Way::Forward
//!                                 ▼
//!                   Site: exchange each staged item with what is at its path
//!                                 │ record: installed, previous
//!                                 ▼
//!               confirm: the staging folder goes;  go back: the journal, last step first
//! ```
//!
//! The staging folder is hidden in the target itself, since only there is it on its file system.
//! Until the journal is whole nothing in the target has changed, and what is staged is dropped;
//! from then on the journal is carried out before anything else happens. If the system refuses a
//! step for good, all steps are taken back.
//!
//! A path is ours if this fileset or another active one has installed it. What this fileset
//! gives up, and another has, stays with the content that it has.

pub(crate) mod apply;
pub(crate) mod journal;
pub(crate) mod judge;
pub(crate) mod others;
pub(crate) mod survey;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use content::FilesetName;
use service::Report;
use tracing::warn;

use super::record::{Record, Revision, Way};
use super::{TARGET_MODE, Target, TargetError, locate};
use crate::steps::Steps;
use crate::tree::Tree;
use apply::{Site, Stuck};
use journal::Journal;
use others::Others;
use survey::{OURS, Scene, Survey};

/// What a target that is shared with others has besides.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Where the records of all targets are.
    installed: PathBuf,
    /// Whether what others put there may be lost.
    replace: bool,
}

impl Target {
    /// Opens what `fileset` has in the folder `path`, which is made if need be: finishes or takes
    /// back what an earlier run left half done.
    pub(crate) fn open_shared(
        installed: &Path,
        path: &Path,
        fileset: &FilesetName,
        steps: Steps,
    ) -> Result<Self, TargetError> {
        let path = locate(path)?;
        let record = Record::open_shared(installed, &path, fileset)?;
        for other in Record::list(installed)? {
            let half_done = other.is_shared() && other.journal().is_some();
            let near = others::overlap(&path, other.target()) && other.id() != record.id();
            if half_done && near {
                // What lies there is neither what it had installed nor what it will have.
                Self::of_record(other, installed, steps.clone())?;
            }
        }
        Self::of_record(record, installed, steps)
    }

    fn of_record(record: Record, installed: &Path, steps: Steps) -> Result<Self, TargetError> {
        let path = record.target().to_owned();
        let own = format!("{OURS}{}", record.id().to_string_lossy());
        let mut target = Self {
            staging: path.join(&own),
            healing: path.join(format!("{own}-heal")),
            path,
            record,
            damaged: false,
            keeps: false,
            shared: Some(Shared {
                installed: installed.to_owned(),
                replace: false,
            }),
            steps,
        };
        let is_tree = |record: &Record| {
            let there = !record.is_shared() && record.target() == target.path;
            there && record.installed().is_some()
        };
        if target.stat()?.is_some() && Record::list(installed)?.iter().any(is_tree) {
            return Err(TargetError::Tree { path: target.path });
        }
        if target.stat()?.is_none() {
            let made = fs::DirBuilder::new().mode(TARGET_MODE).create(&target.path);
            made.map_err(|source| target.failed(source))?;
        }
        target.recover_journal()?;
        target.clear_healing()?;
        target.clear_unless_kept()?;
        target.look_at_index();
        Ok(target)
    }

    /// With `replace`, what others put there may be lost.
    pub(crate) fn replace(&mut self, replace: bool) {
        if let Some(shared) = &mut self.shared {
            shared.replace = replace;
        }
    }

    /// Looks what a revision with that index would put and remove. None if the target is not
    /// shared: then all of it is replaced. Refuses to go on if others are in the way.
    pub(crate) fn survey(&self, new: Option<&Path>) -> Result<Option<Survey>, TargetError> {
        let Some(shared) = &self.shared else {
            return Ok(None);
        };
        if !shared.replace {
            self.need_index()?;
        }
        let others = self.others()?;
        let survey = self.scene(shared, new, &others).survey()?;
        if survey.refused.count > 0 {
            return Err(self.foreign(survey.refused));
        }
        Ok(Some(survey))
    }

    /// Without the index of what is installed nobody knows which files are ours.
    pub(super) fn need_index(&self) -> Result<(), TargetError> {
        if self.damaged {
            return Err(TargetError::Index {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    /// What other filesets have installed in folders that overlap with this one.
    pub(super) fn others(&self) -> Result<Others, TargetError> {
        let Some(shared) = &self.shared else {
            return Ok(Others::default());
        };
        Ok(Others::find(&shared.installed, &self.record)?)
    }

    /// Puts what is staged in its places, and removes what the new revision lacks; if that is
    /// none, all that is installed.
    pub(super) fn merge_in(&mut self) -> Result<(), TargetError> {
        let Some(shared) = &self.shared else {
            return Ok(());
        };
        self.step()?;
        let next = self.record.next().and_then(Revision::root);
        let new = next.map(|root| self.record.index_path(root));
        let others = self.others()?;
        let scene = self.scene(shared, new.as_deref(), &others);
        let refused = scene.write(&self.staging, &self.record.journal_path())?;
        if refused.count > 0 {
            return Err(self.foreign(refused));
        }
        let synced =
            Tree::open(&self.staging).and_then(|staging| Ok(rustix::fs::syncfs(staging.root())?));
        synced.map_err(|source| self.failed_staging(source))?;
        self.step()?;
        self.record.begin_journal(Way::Forward)?;
        self.forward_or_back()
    }

    /// Goes back to what was installed before, by the journal.
    pub(super) fn merge_back(&mut self) -> Result<(), TargetError> {
        self.step()?;
        self.record.begin_journal(Way::Back)?;
        self.carry_out()
    }

    /// Carries out the journal; if a step of it cannot be done, takes all of them back.
    fn forward_or_back(&mut self) -> Result<(), TargetError> {
        let Err(error) = self.carry_out() else {
            return Ok(());
        };
        if Steps::is_crash(&error) || self.record.journal() == Some(Way::Back) {
            return Err(error);
        }
        self.record.begin_journal(Way::Back)?;
        self.carry_out()?;
        Err(error)
    }

    fn carry_out(&mut self) -> Result<(), TargetError> {
        self.step()?;
        let journal = self.record.journal_path();
        let journal = Journal::open(&journal).map_err(|source| TargetError::Io {
            path: journal,
            source,
        })?;
        let site = Site::open(&self.path, &self.staging, &self.steps);
        let mut site = site.map_err(|source| self.failed_staging(source))?;
        let done = match self.record.journal() {
            Some(Way::Forward) => site.forward_all(&journal),
            Some(Way::Back) => site.undo_all(&journal),
            None => Ok(()),
        };
        done.map_err(|Stuck { path, source }| TargetError::Merge {
            path: self.path.clone(),
            at: path,
            source,
        })?;
        let synced = rustix::fs::syncfs(site.tree.root());
        synced.map_err(|errno| self.failed(errno.into()))?;
        self.step()?;
        Ok(self.record.end_journal()?)
    }

    /// Does to the end what an earlier run began.
    fn recover_journal(&mut self) -> Result<(), TargetError> {
        if self.record.journal().is_none() {
            return Ok(self.record.drop_next()?);
        }
        let path = self.path.display().to_string();
        let whole = Journal::open(&self.record.journal_path());
        match whole.and_then(|_| Tree::open(&self.staging)) {
            Ok(_) => {}
            Err(error) if is_lost(&error) => {
                // Neither way is open. What is there now is compared with the index of what was
                // installed before, and mended like any other damage.
                let error = Report(&error);
                warn!(%path, %error, "a merge cannot be finished: its journal or staging is lost");
                return Ok(self.record.lose_journal()?);
            }
            Err(error) => return Err(self.failed_staging(error)),
        }
        warn!(%path, "finishing a merge that was broken off");
        let before = self.record.journal();
        match self.forward_or_back() {
            // It went back: what is installed is whole, which is all that is asked here.
            Err(error) if before == Some(Way::Forward) && self.record.journal().is_none() => {
                let error = Report(&error);
                warn!(%path, %error, "a merge could not be finished and was taken back");
                Ok(())
            }
            done => done,
        }
    }

    fn scene<'a>(
        &'a self,
        shared: &'a Shared,
        new: Option<&'a Path>,
        others: &'a Others,
    ) -> Scene<'a> {
        Scene {
            target: &self.path,
            new,
            old: self.old().map(|old| old.index),
            others,
            rules: self.record.rules(),
            replace: shared.replace,
        }
    }
}

/// Whether what was looked for is not there, or is not what was written.
fn is_lost(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::NotFound || kind == io::ErrorKind::InvalidData
}
