//! The verified walk from the timestamp down. Marks are raised only after every check has passed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use bytes::Bytes;
use content::Digest;
use content::marks::{Marks, MarksError};
use content::statement::{Deployment, Payload as _, Snapshot, Statement, Timestamp};
use member::StateError;
use protocol::Route;
use service::Report;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::learn::bad;
use super::{CatalogueError, Document, Shared, View};
use crate::cache::off_runtime;
use crate::upstream::{Fetched, Rank};

impl Shared {
    /// Takes up what the last run knew, as far as it still holds.
    pub(super) async fn recall(&self) {
        if let Some(envelope) = self.parts.state.document_envelope() {
            match Statement::<Deployment>::open(&envelope, &self.parts.judge, self.now()) {
                Ok(statement) => self.show_document(envelope.into(), statement),
                Err(failure) => {
                    warn!(error = %Report(&failure), "cannot use the last deployment document");
                }
            }
        }
        if let Some(envelope) = self.parts.state.timestamp()
            && let Err(failure) = self.take(envelope.into(), None, Age::Any).await
        {
            info!(error = %Report(&failure), "the last timestamp does not hold any more");
        }
    }

    /// Asks what holds now, source by source until one says what can be verified.
    pub(super) async fn refresh(&self) -> Result<(), CatalogueError> {
        let (upstreams, mut tried, mut first) = (&self.parts.upstreams, Vec::new(), None);
        for _ in 0..upstreams.count() {
            let Some(source) = upstreams.choose_for(&Route::Timestamp, &mut tried) else {
                break;
            };
            let view = self.unexpired();
            let etag = view.as_ref().and_then(|view| view.etag.as_deref());
            let bytes_max = Timestamp::ENVELOPE_BYTES_MAX;
            let fetched = source.fetch(&Route::Timestamp, etag, bytes_max).await;
            let taken = match fetched {
                Ok(Fetched::NotModified) => match &view {
                    Some(view) => {
                        self.see_to_document(&view.timestamp).await;
                        Ok(())
                    }
                    None => Err(bad("a timestamp", "it is none")),
                },
                Ok(Fetched::New { etag, bytes }) => self.take(bytes, etag, Age::Current).await,
                Err(failure) => Err(failure.into()),
            };
            let Err(failure) = taken else {
                *self.asked() = Some(Instant::now());
                self.failing.store(false, Ordering::Relaxed);
                return Ok(());
            };
            // A parent that is cut off says in good faith what was true a while ago.
            let is_old = matches!(failure, CatalogueError::Marks { .. });
            let is_lie = matches!(failure, CatalogueError::Bad { .. })
                || is_old && source.rank() == Rank::Origin;
            let error = Report(&failure);
            if is_lie {
                warn!(source = source.name(), %error, "refused a timestamp");
                source.mark_bad();
            } else {
                debug!(source = source.name(), %error, "cannot get a timestamp");
            }
            first.get_or_insert(failure);
        }
        *self.asked() = Some(Instant::now());
        self.failing.store(true, Ordering::Relaxed);
        Err(first.unwrap_or(CatalogueError::NotNamed))
    }

    /// Takes a timestamp from somewhere untrusted, if all that hangs from it can be verified.
    async fn take(
        &self,
        envelope: Bytes,
        etag: Option<String>,
        age: Age,
    ) -> Result<(), CatalogueError> {
        let marks = self
            .marks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let believed = self.judge(&envelope, &marks, age)?;
        let lists = self.parts.lists.satisfy(&believed.crl_minimums);
        let is_new = lists.await.map_err(|why| CatalogueError::Lists { why })?;
        // Newer lists, whoever fetched them, may name the very signer of what we have just believed.
        let timestamp = self.judge(&envelope, &marks, age)?;
        let snapshot = self.snapshot(timestamp.snapshot, is_new).await?;
        marks.check_snapshot(&timestamp, &snapshot)?;
        let raised = marks.raised(&timestamp, &snapshot);
        self.keep(&raised, &envelope).await?;
        self.raise(raised);
        let (digest, document) = (timestamp.snapshot, timestamp.deployment_document);
        self.names_mut().take(digest, document, &snapshot);
        let view = Arc::new(View {
            envelope,
            timestamp,
            snapshot,
            etag,
        });
        let before = self.view.swap(Some(Arc::clone(&view)));
        if before.is_none_or(|before| before.timestamp.snapshot != digest) {
            self.relearn().await;
            self.rank().await;
            self.news.notify_one();
        }
        self.see_to_document(&view.timestamp).await;
        Ok(())
    }

    /// Opens a timestamp, if its signer counts and it does not take us back.
    fn judge(
        &self,
        envelope: &Bytes,
        marks: &Marks,
        age: Age,
    ) -> Result<Statement<Timestamp>, CatalogueError> {
        let now = self.now();
        let timestamp = Statement::<Timestamp>::open(envelope, &self.parts.judge, now)
            .map_err(|failure| bad("a timestamp", &Report(&failure).to_string()))?;
        match (marks.check(&timestamp, now), age) {
            // Its end is what is looked at last: all else is in order.
            (Ok(()), _) | (Err(MarksError::Expired { .. }), Age::Any) => Ok(timestamp),
            (Err(failure), _) => Err(failure.into()),
        }
    }

    fn raise(&self, marks: Marks) {
        self.parts.clock.raise_floor(marks.issued());
        *self.marks() = marks;
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot called `digest`, verified: the one we have unless it is to be judged `anew`, out
    /// of the cache, or from upstream.
    async fn snapshot(
        &self,
        digest: Digest,
        anew: bool,
    ) -> Result<Statement<Snapshot>, CatalogueError> {
        if !anew
            && let Some(view) = self.view.load_full()
            && view.timestamp.snapshot == digest
        {
            return Ok(view.snapshot.clone());
        }
        let cache = &self.parts.cache;
        let bytes_max = Snapshot::ENVELOPE_BYTES_MAX;
        if let Some(bytes) = cache.object(digest, bytes_max).await {
            return self.open(&bytes, digest).await;
        }
        let bytes = self
            .download(&Route::Snapshot(digest), digest, bytes_max)
            .await?;
        let snapshot = self.open(&bytes, digest).await?;
        cache.keep_object(digest, bytes).await;
        Ok(snapshot)
    }

    /// Writes down what must never be forgotten, then what it is good to have: a disk that refuses
    /// the latter takes from the next start, not from now.
    async fn keep(&self, marks: &Marks, envelope: &Bytes) -> Result<(), CatalogueError> {
        let (state, marks, envelope) = (self.parts.state.clone(), marks.clone(), envelope.clone());
        let kept = off_runtime(move || {
            state.put_marks(&marks)?;
            if let Err(failure) = state.put_timestamp(&envelope) {
                warn!(error = %Report(&failure), "the next start will not know this timestamp");
            }
            Ok::<_, StateError>(())
        });
        Ok(kept.await.ok_or(CatalogueError::Stopping)??)
    }

    /// Gets the deployment document that `timestamp` names, or the one that has come since, unless
    /// we have it. If that fails, what it changes can wait for the next time; content need not.
    async fn see_to_document(&self, timestamp: &Statement<Timestamp>) {
        if let Err(failure) = self.take_document(timestamp).await {
            warn!(error = %Report(&failure), "cannot get the deployment document");
        }
    }

    async fn take_document(&self, timestamp: &Statement<Timestamp>) -> Result<(), CatalogueError> {
        // The document may have changed since the timestamp was made, which is then older.
        let will_do = |document: &Statement<Deployment>| {
            document.digest() == timestamp.deployment_document
                || document.created >= timestamp.issued
        };
        let known = self.document.borrow().clone();
        if known.as_ref().is_some_and(|it| will_do(&it.statement)) {
            return Ok(());
        }
        let (upstreams, bytes_max) = (&self.parts.upstreams, Deployment::ENVELOPE_BYTES_MAX);
        let fetched = upstreams.fetch(&Route::Deployment, None, bytes_max).await?;
        let Fetched::New { bytes, .. } = fetched else {
            return Err(bad("a deployment document", "it is none"));
        };
        let statement = Statement::<Deployment>::open(&bytes, &self.parts.judge, self.now())
            .map_err(|failure| bad("a deployment document", &Report(&failure).to_string()))?;
        if !will_do(&statement) {
            let why = "it is older than the timestamp, and not the one that it names";
            return Err(bad("a deployment document", why));
        }
        info!(version = statement.version, "a new deployment document");
        self.show_document(bytes.clone(), statement);
        let state = self.parts.state.clone();
        let kept = off_runtime(move || state.put_document(&bytes)).await;
        if let Err(failure) = kept.ok_or(CatalogueError::Stopping)? {
            warn!(error = %Report(&failure), "the next start will not know this document");
        }
        Ok(())
    }

    /// Takes a deployment document that nothing vouches for but its signature, if it is newer.
    pub(super) async fn look_for_document(&self) {
        let bytes_max = Deployment::ENVELOPE_BYTES_MAX;
        let fetched = self
            .parts
            .upstreams
            .fetch(&Route::Deployment, None, bytes_max);
        let envelope = match fetched.await {
            Ok(Fetched::New { bytes, .. }) => bytes,
            Ok(Fetched::NotModified) => return,
            Err(failure) => {
                warn!(error = %Report(&failure), "cannot look for a deployment document");
                return;
            }
        };
        let known = self
            .document
            .borrow()
            .as_ref()
            .map(|it| it.statement.version);
        match Statement::<Deployment>::open(&envelope, &self.parts.judge, self.now()) {
            Ok(statement) if Some(statement.version) > known => {
                info!(version = statement.version, "found a deployment document");
                self.show_document(envelope, statement);
            }
            Ok(_) => {}
            Err(failure) => warn!(error = %Report(&failure), "refused a deployment document"),
        }
    }

    fn show_document(&self, envelope: Bytes, statement: Statement<Deployment>) {
        self.document.send_replace(Some(Arc::new(Document {
            envelope,
            statement,
        })));
    }
}

/// How old a timestamp may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Age {
    /// Past its end, too: it names what is in the cache, and whoever gets it judges its age.
    Any,
    /// Before its end.
    Current,
}
