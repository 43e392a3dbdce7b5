//! Building the new tree, off the runtime.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use content::index::IndexRoot;
use content::locator::Locator;

use crate::fetch::downloads::Downloads;
use crate::fetch::reader::{Arrivals, PackReader};
use crate::install::build::{Parts, build};
use crate::plan::{New, Old, Plan};
use crate::progress::Progress;
use crate::pull::PullError;
use crate::steps::Steps;

/// What building off the runtime needs, all its own.
pub(super) struct Building {
    pub(super) index: PathBuf,
    pub(super) root: Arc<IndexRoot>,
    pub(super) locator: Arc<Locator>,
    pub(super) staging: PathBuf,
    pub(super) flat: bool,
    pub(super) old: Option<Old>,
    pub(super) plan: Arc<Plan>,
    pub(super) downloads: Downloads,
    pub(super) arrivals: Arc<Arrivals>,
    pub(super) progress: Arc<Progress>,
    pub(super) steps: Steps,
    pub(super) _lock: Arc<dyn Send + Sync>,
}

impl Building {
    pub(super) fn run(self) -> Result<BTreeSet<String>, PullError> {
        let new = New {
            index: &self.index,
            root: &self.root,
            locator: &self.locator,
        };
        let packs = self.locator.packs.as_slice().into();
        let parts = Parts {
            staging: &self.staging,
            old: self.old.as_ref(),
            plan: &self.plan,
            packs: PackReader::new(self.downloads, packs, self.arrivals),
            progress: &self.progress,
            flat: self.flat,
            steps: &self.steps,
        };
        Ok(build(new, parts)?)
    }
}
