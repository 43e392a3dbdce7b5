//! Getting to know what is to be installed: its index root, then its index.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::durable::{self, Disk as _, RealDisk};
use content::index::{IndexRoot, ROOT_BYTES_MAX};
use tracing::warn;

use super::{Job, with};
use crate::fetch::downloads::Downloads;
use crate::fetch::off_the_runtime;
use crate::fetch::reader::Arrivals;
use crate::fetch::sources::CheckFailed;
use crate::fetch::supply::{Ask, Supply};
use crate::install::{Target, stored};
use crate::pull::PullError;
use crate::pull::index::{Kept, assemble, mend};

impl<S: Supply> Job<S> {
    /// The index root: kept from an earlier try, or fetched.
    pub(super) async fn root(&self, target: &Target) -> Result<IndexRoot, PullError> {
        let (path, wanted) = (
            target.record().root_path(self.stated.root),
            self.stated.root,
        );
        let kept = RealDisk.read(&path, ROOT_BYTES_MAX as u64).ok().flatten();
        if let Some(root) = kept.and_then(|bytes| IndexRoot::verify(&bytes, wanted).ok()) {
            return Ok(root);
        }
        let root = self
            .sources
            .get(Ask::Root(wanted), |bytes| {
                IndexRoot::verify(bytes, wanted)
                    .map_err(|error| CheckFailed::new("index root", error))
            })
            .await?;
        let bytes = root.encode();
        durable::write(&RealDisk, &path, &bytes, 0o600)
            .map_err(|source| PullError::Io { path, source })?;
        Ok(root)
    }

    /// Has the index on disk, fetching what the installed one does not have.
    pub(super) async fn index(
        &self,
        target: Target,
        root: &Arc<IndexRoot>,
        downloads: &Downloads,
    ) -> Result<Target, PullError> {
        let path = target.record().index_path(self.stated.root);
        if target.old().is_some_and(|old| old.index == path) {
            return Ok(target);
        }
        let (locator, wanted) = (Arc::clone(&self.stated.locator), Arc::clone(root));
        let (kept_at, old) = (path.clone(), target.installed_index());
        let found = off_the_runtime(move || {
            let kept = look_for(&wanted, &kept_at, old)?;
            let demand = kept.demand(&wanted, &locator);
            Some((kept, demand))
        });
        let Some((kept, demand)) = found.await? else {
            return Ok(target);
        };
        self.progress.plan(0, demand.bytes(&self.stated.locator));
        let arrivals = Arc::new(Arrivals::new(self.stated.locator.packs.len()));
        self.fetcher(downloads)
            .fetch(&self.stated.locator, &demand, arrivals)
            .await?;
        let (root, locator, downloads) = (
            Arc::clone(root),
            Arc::clone(&self.stated.locator),
            downloads.clone(),
        );
        off_the_runtime(move || assemble(&path, &root, &kept, &locator, &downloads)).await??;
        Ok(target)
    }

    /// If the index of what is installed is damaged, tries to put it together again with the help
    /// of the new one, which is there by now. Without it, nothing that is installed is believed.
    pub(super) async fn mend(
        &self,
        target: Target,
        root: &Arc<IndexRoot>,
    ) -> Result<Target, PullError> {
        let Some(old) = target.installed_index().filter(|_| target.is_damaged()) else {
            return Ok(target);
        };
        let (new, root) = (
            target.record().index_path(self.stated.root),
            Arc::clone(root),
        );
        let replace = self.replace;
        let (target, mended) = with(target, move |target| {
            if old != new {
                match mend(&old, &new, &root) {
                    Ok(true) => {}
                    Ok(false) => warn!("cannot mend the index of what is installed"),
                    Err(error) => {
                        let error = service::Report(&error);
                        warn!(%error, "cannot mend the index of what is installed");
                    }
                }
            }
            Ok::<_, PullError>(target.after_mending(replace)?)
        })
        .await?;
        mended.map(|()| target)
    }
}

/// What there is of the index with root `wanted`: at `path`, where an earlier try left it, and in
/// the index `old` of what is installed. None if it is all there already.
fn look_for(wanted: &IndexRoot, path: &Path, old: Option<PathBuf>) -> Option<Kept> {
    if stored::is_whole(path, wanted) {
        return None;
    }
    let mut kept = Kept::default();
    if path.exists() {
        warn!(path = %path.display(), "an index is damaged: using what is good of it");
        kept.find(wanted, path, wanted);
    }
    if let Some(old) = old.filter(|old| old != path)
        && let Some(root) = stored::root_of(&old)
    {
        kept.find(wanted, &old, &root);
    }
    Some(kept)
}
