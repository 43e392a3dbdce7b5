//! Fetching what is named, and learning what it names in turn.

use std::sync::Arc;

use bytes::Bytes;
use content::locator::Locator;
use content::statement::{Payload, Revision, Statement};
use content::{Digest, FilesetName};
use protocol::Route;
use service::Report;
use tracing::warn;

use super::names::Named;
use super::{CatalogueError, Shared};
use crate::cache::off_runtime;
use crate::upstream::Fetched;

impl Shared {
    /// The object called `digest`, out of the cache or from upstream; once for all who want it.
    pub(super) async fn fetch_object(
        shared: &Arc<Self>,
        digest: Digest,
    ) -> Result<Bytes, Arc<CatalogueError>> {
        let fetched = shared.objects.run(digest, || {
            let shared = Arc::clone(shared);
            async move {
                let got = shared.get_object(digest).await;
                if matches!(shared.names().object(&digest), Some(Named::Locator(..))) {
                    shared.rank();
                }
                got.map_err(Arc::new)
            }
        });
        fetched.await.ok_or(CatalogueError::Stopping)?
    }

    /// Reads the locators of a fileset that are still to be read; once for all who want it.
    pub(super) async fn read_locators(
        shared: &Arc<Self>,
        fileset: &FilesetName,
    ) -> Result<(), Arc<CatalogueError>> {
        let read = shared.locators.run(fileset.clone(), || {
            let (shared, fileset) = (Arc::clone(shared), fileset.clone());
            async move { shared.get_locators(&fileset).await.map_err(Arc::new) }
        });
        read.await.ok_or(CatalogueError::Stopping)?
    }

    async fn get_locators(&self, fileset: &FilesetName) -> Result<(), CatalogueError> {
        let unread = self.names().unread(fileset);
        for entry in unread {
            self.get_object(entry.statement).await?;
            self.get_object(entry.locator).await?;
        }
        self.rank();
        Ok(())
    }

    /// The object called `digest`. If it is a statement, it has been learnt when this returns.
    pub(super) async fn get_object(&self, digest: Digest) -> Result<Bytes, CatalogueError> {
        let named = self.names().object(&digest).cloned();
        let named = named.ok_or(CatalogueError::NotNamed)?;
        let cache = &self.parts.cache;
        if let Some(bytes) = cache.object(digest, named.bytes_max()).await {
            self.learn(digest, &named, &bytes).await?;
            return Ok(bytes);
        }
        let route = match named {
            Named::Document => Route::Deployment,
            Named::Locator(..) | Named::Revision(..) | Named::Root => Route::Statement(digest),
            Named::Snapshot => Route::Snapshot(digest),
        };
        let bytes = self.download(&route, digest, named.bytes_max()).await?;
        self.learn(digest, &named, &bytes).await?;
        cache.keep_object(digest, bytes.clone()).await;
        Ok(bytes)
    }

    /// Asks source after source until one gives bytes of that name.
    pub(super) async fn download(
        &self,
        route: &Route,
        digest: Digest,
        bytes_max: usize,
    ) -> Result<Bytes, CatalogueError> {
        let (upstreams, mut tried, mut first) = (&self.parts.upstreams, Vec::new(), None);
        for _ in 0..upstreams.count() {
            let Some((at, source)) = upstreams.choose(&mut tried) else {
                break;
            };
            let failure = match source.fetch(route, None, bytes_max).await {
                Ok(Fetched::New { bytes, .. }) => {
                    let hashed = bytes.clone();
                    let got = off_runtime(move || Digest::of(&hashed)).await;
                    if got == Some(digest) {
                        return Ok(bytes);
                    }
                    upstreams.mark_bad(at);
                    bad(route.kind(), "its digest is another one")
                }
                Ok(Fetched::NotModified) => bad(route.kind(), "it says that nothing has changed"),
                Err(failure) => failure.into(),
            };
            first.get_or_insert(failure);
        }
        Err(first.unwrap_or(CatalogueError::NotNamed))
    }

    /// Verifies an object and takes note of what it names.
    async fn learn(
        &self,
        digest: Digest,
        named: &Named,
        bytes: &Bytes,
    ) -> Result<(), CatalogueError> {
        match named {
            // Verified where the timestamp is; a root is what its revision names, by its digest.
            Named::Document | Named::Root | Named::Snapshot => Ok(()),
            Named::Revision(..) => {
                let revision = self.open::<Revision>(bytes, digest).await?;
                let learnt = self.names_mut().learn_revision(digest, &revision);
                learnt.map_err(|failure| bad("a revision", &Report(&failure).to_string()))
            }
            Named::Locator(fileset, number) => {
                let statement = self.names().unknown_revision(fileset, *number);
                if let Some(statement) = statement {
                    // A statement names no locator, so this goes one step deep and no further.
                    Box::pin(self.get_object(statement)).await?;
                }
                let locator = self.open::<Locator>(bytes, digest).await?;
                let learnt = self.names_mut().learn_locator(digest, &locator);
                learnt.map_err(|failure| bad("a locator", &Report(&failure).to_string()))
            }
        }
    }

    /// Verifies a statement of that name, off the runtime: a locator may have 64 MiB.
    pub(super) async fn open<T: Payload + Send + 'static>(
        &self,
        bytes: &Bytes,
        digest: Digest,
    ) -> Result<Statement<T>, CatalogueError> {
        let (bytes, judge, now) = (bytes.clone(), self.parts.judge.clone(), self.now());
        let opened = off_runtime(move || Statement::<T>::open_named(&bytes, digest, &judge, now));
        let opened = opened.await.ok_or(CatalogueError::Stopping)?;
        opened.map_err(|failure| bad(T::TYPE, &Report(&failure).to_string()))
    }

    /// Reads again what is still in the cache of what the snapshot names, so that packs are known
    /// without upstream, and what is superseded is known before anything is given up.
    pub(super) async fn relearn(&self) {
        let retained = self.names().retained();
        for (fileset, entry) in retained {
            for digest in [entry.statement, entry.locator] {
                if !self.parts.cache.has_object(digest) {
                    break;
                }
                if let Err(failure) = self.get_object(digest).await {
                    let error = Report(&failure);
                    warn!(%fileset, number = %entry.number, %error, "cannot read a revision");
                }
            }
        }
    }
}

pub(super) fn bad(what: &'static str, why: &str) -> CatalogueError {
    CatalogueError::Bad {
        what,
        why: why.to_owned(),
    }
}
