//! The deployment document: who is who, and where. Signed anew whenever that changes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use certs::DeviceId;
use content::Digest;
use content::statement::{BoosterEntry, Deployment, OriginEntry, seal};
use protocol::{BoosterAddresses, PROTOCOL_VERSION};
use thiserror::Error;
use tokio::sync::Mutex;
use tracing::info;

use crate::authority::{Authority, AuthorityError};
use crate::check_in::Sites;
use crate::ledger::{LedgerError, boosters, commit, counters, devices};
use crate::published::PublishedError;

/// The deployment document of this origin. Cloning shares it.
#[derive(Clone)]
pub struct Documents {
    inner: Arc<Inner>,
}

struct Inner {
    addresses: Addresses,
    authority: Authority,
    current: RwLock<Arc<Sealed>>,
    protocol_min: u32,
    /// The current one; held while the next is made.
    said: Mutex<Option<Said>>,
    /// The boosters of the current one, by their sites.
    sites: RwLock<Arc<Sites>>,
    /// How often something was changed that the document may tell.
    changes: AtomicU64,
    /// How many of those the current one allows for.
    told: AtomicU64,
}

/// What was said, and under which CA.
struct Said {
    document: Deployment,
    issuer: Option<Digest>,
}

/// Where others reach the origin, as `host:port`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Addresses {
    /// For content.
    pub content: Vec<String>,
    /// For enrolment.
    pub enrol: Vec<String>,
}

/// A signed document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// The envelope, as it travels.
    pub envelope: Bytes,
    /// Its name.
    pub digest: Digest,
}

/// Why there is no document.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It could not be signed.
    #[error("cannot sign the deployment document")]
    Authority(#[from] AuthorityError),
    /// The ledger failed.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// Its version could not be kept.
    #[error("cannot keep the version of the deployment document")]
    Published(#[from] PublishedError),
}

/// The counter that numbers the versions of the document.
pub const COUNTER: &str = "deployment";

impl Documents {
    /// Signs the document for an origin that is reached at `addresses`, and lets in whoever speaks
    /// version `protocol_min` of the protocol or a newer one.
    ///
    /// # Errors
    ///
    /// Fails if the ledger, the disk or the signature does.
    pub async fn open(
        authority: Authority,
        addresses: Addresses,
        protocol_min: u32,
    ) -> Result<Self, DocumentError> {
        let current = Sealed {
            envelope: Bytes::new(),
            digest: Digest::of(&[]),
        };
        let documents = Self {
            inner: Arc::new(Inner {
                addresses,
                authority,
                current: RwLock::new(Arc::new(current)),
                protocol_min,
                said: Mutex::new(None),
                sites: RwLock::default(),
                changes: AtomicU64::new(0),
                told: AtomicU64::new(0),
            }),
        };
        documents.refresh().await?;
        Ok(documents)
    }

    /// The document as it stands.
    #[must_use]
    pub fn current(&self) -> Arc<Sealed> {
        Arc::clone(
            &self
                .inner
                .current
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// The boosters that the device `id` should ask, the best first: at most four.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn near(&self, id: &DeviceId) -> Result<Vec<String>, LedgerError> {
        let sites = self.inner.sites.read();
        let sites = Arc::clone(&sites.unwrap_or_else(PoisonError::into_inner));
        let mut db = self.inner.authority.ledger().read().await?;
        let device = devices::find(&mut db, id).await?;
        let site = device.and_then(|device| device.group);
        Ok(sites.near(id, site.as_deref()))
    }

    /// Where others reach the origin.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.inner.addresses
    }

    /// Signs a new version if anything has changed since the last, be it only the CA that stands
    /// behind the signature: whoever comes to know the deployment by its next root could not verify
    /// what the CA of an earlier one vouches for, and nobody verifies what a stolen one does.
    ///
    /// # Errors
    ///
    /// Fails if the ledger, the disk or the signature does; the last version stays.
    pub async fn refresh(&self) -> Result<(), DocumentError> {
        // Should this fail or be given up, it is made up for by `catch_up`.
        self.changed();
        let mut said = self.inner.said.lock().await;
        let changes = self.inner.changes.load(Ordering::Acquire);
        if let Some(sealed) = self.sign(&mut said).await? {
            let current = self.inner.current.write();
            *current.unwrap_or_else(PoisonError::into_inner) = Arc::new(sealed);
        }
        self.inner.told.store(changes, Ordering::Release);
        Ok(())
    }

    /// The next version, unless it would say what was `said` last.
    async fn sign(&self, said: &mut Option<Said>) -> Result<Option<Sealed>, DocumentError> {
        let authority = &self.inner.authority;
        // What a call that was given up is still writing comes before us.
        let mut tx = authority.ledger().write().await?;
        let boosters = boosters::list(&mut tx).await?;
        let mut next = self.inner.compose(boosters);
        let entries = next.boosters.iter().filter(|it| !it.addresses.is_empty());
        let sites = Sites::new(entries.map(|it| (it.id.as_str(), it.site.as_str())));
        let known = self.inner.sites.write();
        *known.unwrap_or_else(PoisonError::into_inner) = Arc::new(sites);
        let issuer = authority.content_issuer();
        if let Some(last) = said.as_ref() {
            (next.version, next.created) = (last.document.version, last.document.created);
            if next == last.document && issuer == last.issuer {
                return Ok(None);
            }
        }
        next.version = counters::next(&mut tx, COUNTER).await?;
        commit(tx).await?;
        authority.published().raise(COUNTER, next.version).await?;
        next.created = authority.clock().now();
        let envelope = Bytes::from(seal(&next, |message| authority.sign_content(message))?);
        info!(
            version = next.version,
            boosters = next.boosters.len(),
            "deployment document"
        );
        *said = Some(Said {
            document: next,
            issuer,
        });
        Ok(Some(Sealed {
            digest: Digest::of(&envelope),
            envelope,
        }))
    }

    /// Takes note that something has changed, or is about to, that the document may tell.
    fn changed(&self) {
        self.inner.changes.fetch_add(1, Ordering::Release);
    }

    /// Signs a new version if another CA has come to stand behind the signature, or if something
    /// has changed since the last and nobody has come round to telling it.
    ///
    /// # Errors
    ///
    /// Fails as [`Documents::refresh`] does.
    pub async fn catch_up(&self) -> Result<(), DocumentError> {
        let said = self.inner.said.lock().await;
        let is_told =
            self.inner.told.load(Ordering::Acquire) == self.inner.changes.load(Ordering::Acquire);
        let issuer = said.as_ref().and_then(|said| said.issuer);
        drop(said);
        if is_told && issuer == self.inner.authority.content_issuer() {
            return Ok(());
        }
        self.refresh().await
    }

    /// Where the booster `id` said last that it is reached.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn booster(&self, id: &DeviceId) -> Result<Option<BoosterAddresses>, DocumentError> {
        let mut db = self.inner.authority.ledger().read().await?;
        Ok(boosters::addresses(&mut db, id).await?)
    }

    /// Takes note of where boosters say that they are reached.
    ///
    /// # Errors
    ///
    /// Fails if the ledger, the disk or the signature does.
    pub async fn put_boosters(
        &self,
        told: &[(DeviceId, BoosterAddresses)],
    ) -> Result<(), DocumentError> {
        let authority = &self.inner.authority;
        let now = authority.clock().now();
        let mut tx = authority.ledger().write().await?;
        for (id, at) in told {
            boosters::put_addresses(&mut tx, id, &at.content, &at.enrol, now).await?;
        }
        self.changed();
        commit(tx).await?;
        self.refresh().await
    }
}

impl Inner {
    fn compose(&self, boosters: Vec<boosters::Booster>) -> Deployment {
        let entry = |booster: boosters::Booster| BoosterEntry {
            id: booster.id.to_string(),
            addresses: booster.addresses,
            enrol_addresses: booster.enrol_addresses,
            site: booster.site.unwrap_or_default(),
        };
        let deployment = self.authority.deployment();
        let roots = self.authority.trust().roots();
        Deployment {
            deployment: deployment.id.to_string(),
            version: 0,
            created: 0,
            roots: roots.iter().map(|root| root.der().to_vec()).collect(),
            origin: OriginEntry {
                id: deployment.origin_id.to_string(),
                addresses: self.addresses.content.clone(),
                enrol_addresses: self.addresses.enrol.clone(),
            },
            boosters: boosters.into_iter().map(entry).collect(),
            // Whoever reads it knows before it is refused.
            protocol_min: self.protocol_min,
            protocol_max: PROTOCOL_VERSION,
        }
    }
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents")
            .field("current", &self.current().digest)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ::content::statement::Statement;
    use certs::CaKind;
    use transport::ContentJudge;

    use super::*;
    use crate::authority::rotate::{Which, rotate};
    use crate::testing::Bed;

    #[tokio::test]
    async fn the_version_that_an_operator_wants_at_least_is_told() {
        let bed = Bed::new().await;
        for protocol_min in [1, 2] {
            let addresses = Addresses {
                content: vec!["origin.example:1".to_owned()],
                enrol: Vec::new(),
            };
            let opened = Documents::open(bed.authority.clone(), addresses, protocol_min);
            let sealed = opened.await.unwrap().current();
            let judge = ContentJudge::new(Arc::clone(bed.authority.trust()));
            let now = bed.authority.clock().now();
            let told = Statement::<Deployment>::open(&sealed.envelope, &judge, now).unwrap();
            assert_eq!(told.protocol_min, protocol_min);
        }
    }

    /// The version, and the CA that stands behind the signature.
    fn signed(documents: &Documents) -> (u64, Option<Digest>) {
        let said = documents.inner.said.try_lock().unwrap();
        let said = said.as_ref().unwrap();
        (said.document.version, said.issuer)
    }

    #[tokio::test]
    async fn what_the_ca_of_an_earlier_generation_vouched_for_is_signed_anew() {
        let bed = Bed::new().await;
        let addresses = Addresses {
            content: Vec::new(),
            enrol: Vec::new(),
        };
        let opened = Documents::open(bed.authority.clone(), addresses, 1).await;
        let documents = opened.unwrap();
        let first = signed(&documents);
        documents.catch_up().await.unwrap();
        assert_eq!(signed(&documents), first);
        let (data, ledger) = (bed.folder.path(), bed.authority.ledger());
        let (content, now) = (Which::Issuing(CaKind::Content), bed.authority.clock().now());
        rotate(data, ledger, &content, None, 0, now).await.unwrap();
        bed.authority.reload().await.unwrap();
        bed.pass(1);
        bed.authority.renew_own().await.unwrap();
        documents.catch_up().await.unwrap();
        let second = signed(&documents);
        assert_eq!(second.0, first.0 + 1);
        assert!(second.1.is_some() && second.1 != first.1);
    }
}
