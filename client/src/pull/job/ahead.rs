//! Fetching what an installation will need, and installing nothing.

use std::sync::Arc;

use service::CancellationToken;

use super::Job;
use crate::fetch::supply::Supply;
use crate::install::room::Need;
use crate::pull::PullError;

impl<S: Supply> Job<S> {
    /// Fetches what is missing at the target as it is now; false if it was told to `stop`.
    pub(crate) async fn fetch(mut self, stop: &CancellationToken) -> Result<bool, PullError> {
        // What lies in the way now may be gone by the time of the installation, and the rules of
        // what is installed hold until then.
        (self.replace, self.rules) = (true, None);
        let mut target = self.open(false).await?;
        let root = Arc::new(self.root(&target).await?);
        let downloads = self.downloads(&target).await?;
        target = self.index(target, &root, &downloads).await?;
        target = self.mend(target, &root).await?;
        let scope;
        (target, scope) = self.scope(target).await?;
        let old = target.old();
        let plan = self.plan(&target, &root, old, scope).await?;
        let to_fetch = plan.demand.bytes(&self.stated.locator);
        let need = Need {
            bytes: to_fetch,
            files: 0,
        };
        let (data, none) = (self.data.as_path(), Need::default());
        self.room.check([(data, need), (data, none)])?;
        self.progress.plan(plan.bytes, to_fetch);
        let fetcher = self.fetcher(&downloads);
        let fetched = fetcher.fetch_gently(&self.stated.locator, &plan.demand);
        // Frames that are being written when this is dropped are verified ones.
        tokio::select! {
            fetched = fetched => fetched.map(|()| true).map_err(PullError::Fetch),
            () = stop.cancelled() => Ok(false),
        }
    }
}
