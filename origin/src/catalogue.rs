//! The catalogue: what is current, signed. It serves statements and packs to boosters and clients.
//!
//! A timestamp is made when somebody asks and the last one no longer says how things stand, so that
//! nothing has to remember to renew it: it is never older than [`RENEW_SECONDS`], and a change of a
//! fileset, a CRL or the deployment document shows in the next one asked for.

mod answer;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use content::Digest;
use content::pack::PackDir;
use content::statement::{FilesetEntry, IssuerMinimum, Snapshot, Timestamp, seal};
use thiserror::Error;
use tokio::sync::Mutex;
use tracing::debug;

use crate::authority::{Authority, AuthorityError};
use crate::documents::{Documents, Sealed};
use crate::ledger::{LedgerError, commit, counters, filesets};
use crate::published::PublishedError;

/// After so long a timestamp is renewed though nothing has changed, in seconds.
pub const RENEW_SECONDS: i64 = 600;
/// How long a timestamp holds, in seconds: how long a branch can go without the origin.
pub const LIFE_SECONDS: i64 = 24 * 3600;

/// What is current. Cloning shares it.
#[derive(Clone)]
pub struct Catalogue {
    inner: Arc<Inner>,
}

struct Inner {
    authority: Authority,
    documents: Documents,
    packs: PackDir,
    /// How often the filesets have changed: what was read before the last change is not kept.
    changes: AtomicU64,
    current: RwLock<Option<Arc<Current>>>,
    /// Held while the next timestamp is made, so that many askers make one.
    renewal: Mutex<()>,
    /// The last snapshots: whoever got a timestamp a moment ago will ask for its snapshot.
    snapshots: RwLock<VecDeque<Arc<Sealed>>>,
}

/// A timestamp, with what it says.
struct Current {
    sealed: Sealed,
    timestamp: Timestamp,
    filesets: Vec<FilesetEntry>,
}

/// Why there is no timestamp.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// It could not be signed.
    #[error("cannot sign what is current")]
    Authority(#[from] AuthorityError),
    /// The ledger failed.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// Its version could not be kept.
    #[error("cannot keep the version of the timestamp")]
    Published(#[from] PublishedError),
}

impl Catalogue {
    /// The catalogue of an origin whose packs lie in `packs`.
    #[must_use]
    pub fn new(authority: Authority, documents: Documents, packs: PackDir) -> Self {
        Self {
            inner: Arc::new(Inner {
                authority,
                documents,
                packs,
                changes: AtomicU64::new(0),
                current: RwLock::new(None),
                renewal: Mutex::new(()),
                snapshots: RwLock::default(),
            }),
        }
    }

    /// The packs.
    #[must_use]
    pub fn packs(&self) -> &PackDir {
        &self.inner.packs
    }

    /// Who signs.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.inner.authority
    }

    /// Lets the next timestamp look at the filesets anew. To be called after each change of them.
    pub fn changed(&self) {
        let mut current = self
            .inner
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.inner.changes.fetch_add(1, Ordering::Relaxed);
        *current = None;
    }

    /// The timestamp, as it travels.
    ///
    /// # Errors
    ///
    /// Fails if a new one is due and cannot be made.
    pub async fn timestamp(&self) -> Result<Sealed, CatalogueError> {
        if let Some(current) = self.inner.usable() {
            return Ok(current.sealed.clone());
        }
        let _renewal = self.inner.renewal.lock().await;
        // Who waited for the lock finds what its holder made.
        match self.inner.usable() {
            Some(current) => Ok(current.sealed.clone()),
            None => self.inner.renew().await,
        }
    }

    /// The snapshot called `digest`, if it is one of the last.
    #[must_use]
    pub fn snapshot(&self, digest: Digest) -> Option<Bytes> {
        let snapshots = self
            .inner
            .snapshots
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let found = snapshots.iter().find(|sealed| sealed.digest == digest);
        found.map(|sealed| sealed.envelope.clone())
    }
}

impl Inner {
    /// The last timestamp, if it still says how things stand.
    fn usable(&self) -> Option<Arc<Current>> {
        let current = self
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()?;
        let said = &current.timestamp;
        let age = self.authority.clock().now() - said.issued;
        let holds = (0..RENEW_SECONDS).contains(&age)
            && said.deployment_document == self.documents.current().digest
            && said.crl_minimums == self.crl_minimums();
        holds.then_some(current)
    }

    async fn renew(&self) -> Result<Sealed, CatalogueError> {
        let now = self.authority.clock().now();
        let changes = self.changes.load(Ordering::Relaxed);
        let mut tx = self.authority.ledger().write().await?;
        let filesets = filesets::snapshot(&mut tx).await?;
        let version = counters::next(&mut tx, counters::TIMESTAMP).await?;
        let epoch = counters::all(&mut tx)
            .await?
            .get(counters::EPOCH)
            .copied()
            .unwrap_or(0);
        commit(tx).await?;
        // Before it is served: a restored ledger must be raised above whatever was.
        let fileset = |it: &FilesetEntry| (filesets::counter(&it.name), it.current.0);
        let mut numbers: Vec<_> = filesets.iter().map(fileset).collect();
        numbers.push((counters::EPOCH.to_owned(), epoch));
        numbers.push((counters::TIMESTAMP.to_owned(), version));
        self.authority.published().raise_all(numbers).await?;
        let timestamp = Timestamp {
            deployment: self.authority.deployment().id.to_string(),
            epoch,
            version,
            issued: now,
            expires: now + LIFE_SECONDS,
            snapshot: self.snapshot_of(&filesets, now)?,
            deployment_document: self.documents.current().digest,
            crl_minimums: self.crl_minimums(),
        };
        let sealed = self.seal(&timestamp)?;
        debug!(version, filesets = filesets.len(), "timestamp");
        let current = Current {
            sealed: sealed.clone(),
            timestamp,
            filesets,
        };
        let mut slot = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // A change that came in between is not in it: good for this asker, not for the next.
        if self.changes.load(Ordering::Relaxed) == changes {
            *slot = Some(Arc::new(current));
        }
        Ok(sealed)
    }

    /// The name of the snapshot that says `filesets`: the last one if it does, else a new one.
    fn snapshot_of(&self, filesets: &[FilesetEntry], now: i64) -> Result<Digest, AuthorityError> {
        let current = self
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(current) = current.filter(|current| current.filesets == filesets) {
            return Ok(current.timestamp.snapshot);
        }
        let snapshot = Snapshot {
            deployment: self.authority.deployment().id.to_string(),
            created: now,
            filesets: filesets.to_vec(),
        };
        let sealed = Arc::new(self.seal(&snapshot)?);
        let digest = sealed.digest;
        let mut snapshots = self
            .snapshots
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        snapshots.push_front(sealed);
        snapshots.truncate(SNAPSHOTS_KEPT);
        Ok(digest)
    }

    fn seal<T: content::statement::Payload>(&self, payload: &T) -> Result<Sealed, AuthorityError> {
        let envelope = seal(payload, |message| self.authority.sign_content(message))?;
        Ok(Sealed {
            digest: Digest::of(&envelope),
            envelope: envelope.into(),
        })
    }

    fn crl_minimums(&self) -> Vec<IssuerMinimum> {
        let crls = self.authority.trust().crls().all();
        let minimum = |crl: &Arc<certs::Crl>| IssuerMinimum {
            issuer: *crl.issuer().as_bytes(),
            number: crl.number(),
        };
        let mut minimums: Vec<_> = crls.iter().map(minimum).collect();
        minimums.sort_unstable();
        minimums
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue")
            .field("packs", &self.inner.packs)
            .finish_non_exhaustive()
    }
}

/// Snapshots that can still be asked for: a minute's worth of the busiest publishing.
const SNAPSHOTS_KEPT: usize = 16;
