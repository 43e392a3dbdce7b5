//! Fetching what is named, and learning what it names in turn.

use std::sync::Arc;

use bytes::Bytes;
use content::locator::Locator;
use content::statement::{Payload, Revision, RevisionEntry, Statement};
use content::{Digest, FilesetName};
use protocol::Route;
use service::Report;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::names::Named;
use super::unreadable::is_out_of_reach;
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
                    shared.rank().await;
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
            async move { shared.get_locators(&fileset).await }
        });
        read.await.ok_or(CatalogueError::Stopping)?
    }

    /// Fails as the first locator does that cannot be read; the others are read all the same.
    async fn get_locators(&self, fileset: &FilesetName) -> Result<(), Arc<CatalogueError>> {
        let unread = self.names().unread(fileset);
        let (mut first, mut learnt) = (None, false);
        for entry in unread {
            let resting = self.unreadable().resting(&entry.locator, Instant::now());
            if let Some(failure) = resting {
                first.get_or_insert(failure);
                continue;
            }
            let Err(failure) = self.get_locator(&entry).await else {
                learnt = true;
                continue;
            };
            let failure = Arc::new(failure);
            self.note_unreadable(fileset, &entry, &failure);
            let is_out_of_reach = is_out_of_reach(&failure);
            first.get_or_insert(failure);
            if is_out_of_reach {
                break;
            }
        }
        if learnt {
            self.rank().await;
        }
        first.map_or(Ok(()), Err)
    }

    async fn get_locator(&self, entry: &RevisionEntry) -> Result<(), CatalogueError> {
        self.get_object(entry.statement).await?;
        self.get_object(entry.locator).await?;
        self.unreadable().forget(&entry.locator);
        Ok(())
    }

    /// Takes note of what could not be read, so that it is not asked for again by all who name a
    /// pack that we do not know.
    fn note_unreadable(
        &self,
        fileset: &FilesetName,
        entry: &RevisionEntry,
        failure: &Arc<CatalogueError>,
    ) {
        let (number, error) = (entry.number, Report(&**failure));
        let is_news = self.unreadable().note(
            entry.locator,
            Arc::clone(failure),
            Instant::now(),
            |locator| self.names().object(locator).is_some(),
        );
        if is_news {
            warn!(%fileset, %number, %error, "cannot read a revision");
        } else {
            debug!(%fileset, %number, %error, "still cannot read a revision");
        }
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
            let Some(source) = upstreams.choose_for(route, &mut tried) else {
                break;
            };
            let failure = match source.fetch(route, None, bytes_max).await {
                Ok(Fetched::New { bytes, .. }) => {
                    let hashed = bytes.clone();
                    let got = off_runtime(move || Digest::of(&hashed)).await;
                    if got == Some(digest) {
                        return Ok(bytes);
                    }
                    source.mark_bad();
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
                    self.note_unreadable(&fileset, &entry, &Arc::new(failure));
                    break;
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
