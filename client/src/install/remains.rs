//! What is left of trees that have served: removed, or put aside for a later pull to remove.

use std::io;
use std::path::PathBuf;

use rustix::fs::{CWD, RenameFlags};
use service::Report;
use tracing::{info, warn};

use super::{Target, TargetError, beside, remove_tree};

impl Target {
    /// Removes what has the staging folder's name, if it is ours. What cannot be removed is put
    /// aside, so that it is in nobody's way.
    pub(super) fn clear_staging(&mut self) -> Result<(), TargetError> {
        if !self.record.owns_staging() {
            return match self.staging.symlink_metadata() {
                Ok(_) => Err(TargetError::InTheWay {
                    path: self.staging.clone(),
                }),
                Err(_) => Ok(()),
            };
        }
        let removed = self.steps.may_remove();
        if let Err(error) = removed.and_then(|()| remove_tree(&self.staging)) {
            self.put_aside(error)?;
        }
        Ok(self.record.staging_removed()?)
    }

    /// Tries again to remove what earlier runs had to put aside.
    pub(super) fn clear_remains(&mut self) -> Result<(), TargetError> {
        for number in self.record.remains() {
            let path = self.remains(number)?;
            let removed = self.steps.may_remove();
            match removed.and_then(|()| remove_tree(&path)) {
                Ok(()) => {
                    info!(path = %path.display(), "what was left of an old tree is gone");
                    self.record.remains_removed(number)?;
                }
                Err(error) => told(&path, &error),
            }
        }
        Ok(())
    }

    /// Gives the staging folder, which cannot be removed because of `error`, another name of ours.
    fn put_aside(&mut self, error: io::Error) -> Result<(), TargetError> {
        let taken = self.record.remains();
        let mut free = (0..REMAINS_MAX).filter(|number| !taken.contains(number));
        let Some(number) = free.next() else {
            return Err(self.failed_staging(error));
        };
        let path = self.remains(number)?;
        // Said first: after a crash it is known whose it is.
        self.record.begin_remains(number)?;
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(CWD, &self.staging, CWD, &path, flags) {
            Ok(()) => {
                told(&path, &error);
                Ok(())
            }
            Err(_) => {
                self.record.remains_removed(number)?;
                Err(self.failed_staging(error))
            }
        }
    }

    fn remains(&self, number: u32) -> Result<PathBuf, TargetError> {
        beside(&self.path, &format!(".larder-old-{number}"))
    }
}

fn told(path: &std::path::Path, error: &io::Error) {
    warn!(
        path = %path.display(),
        error = %Report(error),
        "cannot remove an old tree; the next pull tries again"
    );
}

/// How many trees may stand aside. Each may be as large as the target: when the same thing happens
/// with every pull, somebody has to look.
const REMAINS_MAX: u32 = 8;
