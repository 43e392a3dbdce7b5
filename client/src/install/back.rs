//! What was installed before: kept aside until it is confirmed that nobody goes back to it.

use std::io;

use rustix::fs::{CWD, RenameFlags};
use tracing::info;

use super::{Target, TargetError};

impl Target {
    /// Keeps what an installation displaces until [`Self::confirm`] or [`Self::go_back`].
    pub(crate) fn keep(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// Says that what is installed is good: what was there before goes.
    pub(crate) fn confirm(&mut self) -> Result<(), TargetError> {
        if !self.record.can_go_back() {
            return Ok(());
        }
        self.step()?;
        self.record.confirm()?;
        self.step()?;
        self.clear_staging()?;
        self.record.tidy(None);
        Ok(())
    }

    /// Goes back to what was installed before, which may be nothing; false if that is gone.
    pub(crate) fn go_back(&mut self) -> Result<bool, TargetError> {
        if !self.record.can_go_back() {
            return Ok(false);
        }
        info!(path = %self.path.display(), "going back to what was installed before");
        if self.shared.is_some() {
            self.merge_back()?;
        } else if let Some(previous) = self.record.previous().cloned() {
            let staged = rustix::fs::lstat(&self.staging);
            let staged = staged.map_err(|errno| self.failed_staging(errno.into()))?;
            self.step()?;
            self.record.begin_back(previous, &staged)?;
            self.exchange(RenameFlags::EXCHANGE)?;
            let now = self.stat()?;
            self.record.recover(now.as_ref())?;
        } else {
            self.take_away()?;
        }
        self.step()?;
        self.clear_staging()?;
        self.record.tidy(None);
        Ok(true)
    }

    /// Removes what is installed. Of a shared folder, what only this fileset has put there.
    pub(crate) fn uninstall(&mut self) -> Result<(), TargetError> {
        self.confirm()?;
        if self.record.installed().is_none() {
            return Ok(());
        }
        if self.shared.is_none() {
            self.take_away()?;
            return self.clear_staging();
        }
        self.need_index()?;
        self.begin_staging(None)?;
        self.merge_in()?;
        self.confirm()
    }

    /// Moves the whole tree out of the way: there was nothing before it.
    fn take_away(&mut self) -> Result<(), TargetError> {
        self.step()?;
        self.clear_staging()?;
        self.step()?;
        self.record.begin_removal()?;
        self.finish_removal()
    }

    /// Does to the end what [`Self::take_away`] began.
    pub(super) fn finish_removal(&mut self) -> Result<(), TargetError> {
        if self.stat()?.is_some() {
            self.exchange(RenameFlags::NOREPLACE)?;
        }
        self.step()?;
        Ok(self.record.end_removal()?)
    }

    /// Exchanges the target with the staging folder, or gives it that folder's name.
    fn exchange(&self, flags: RenameFlags) -> Result<(), TargetError> {
        self.step()?;
        let moved = rustix::fs::renameat_with(CWD, &self.path, CWD, &self.staging, flags)
            .map_err(io::Error::from)
            .and_then(|()| self.steps.next())
            .and_then(|()| std::fs::File::open(self.parent())?.sync_all());
        moved.map_err(|source| TargetError::Switch {
            path: self.path.clone(),
            source,
        })
    }
}
