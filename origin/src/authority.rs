//! The authority: the only holder of signing keys. It decides nothing about devices; it signs what
//! the rest of the origin has decided, and keeps its own certificates and lists fresh.

mod crls;
mod init;
mod issue;
mod keys;
mod own;
pub mod rotate;
mod supersede;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use certs::ca_cert::CaCertError;
use certs::crl::SignCrlError;
use certs::issue::IssueError;
use certs::key::KeyError;
use certs::keyfile::KeyFileError;
use certs::pkcs11::{Pkcs11UriError, TokenError};
use certs::signer::SignerError;
use certs::tls::{CellError, CertCell};
use certs::trust::{TrustCrlError, TrustError};
use certs::{CaCert, CaKind, CrlStore, DeviceId, Identity, Role, Trust};
use service::{Clock, Report};
use thiserror::Error;
use tracing::debug;

pub use crls::counter as crl_counter;
pub use init::{NewDeployment, init, init_with};
pub use issue::Issued;

use crate::config::Certificates;
use crate::ledger::deployment::{self, Deployment};
use crate::ledger::{Ledger, LedgerError, authorities, counters};
use crate::published::{Published, PublishedError};
use keys::Keys;

/// Signs certificates, revocation lists and statements. Cloning shares it.
#[derive(Clone)]
pub struct Authority {
    inner: Arc<Inner>,
}

struct Inner {
    cell: Arc<CertCell>,
    clock: Clock,
    deployment: Deployment,
    data: PathBuf,
    keys: RwLock<Arc<Keys>>,
    ledger: Ledger,
    lives: Certificates,
    published: Published,
    retries: Mutex<crls::Retries>,
    signer: RwLock<own::Signer>,
    trust: Arc<Trust>,
}

/// Why the authority cannot do its work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// `init` was run here before.
    #[error("cannot make a deployment in {path}: there is one already", path = path.display())]
    AlreadyInitialised {
        /// The data folder.
        path: PathBuf,
    },
    /// A CA's certificate cannot be used.
    #[error("cannot use the certificate of our own CA")]
    CaCert(#[source] CaCertError),
    /// Our own certificate cannot be used.
    #[error("cannot use our own certificate")]
    Cell(#[from] CellError),
    /// A certificate could not be issued.
    #[error("cannot issue a certificate")]
    Issue(#[from] IssueError),
    /// A key could not be made or used.
    #[error("cannot use a key")]
    Key(#[from] KeyError),
    /// A key file cannot be used.
    #[error("cannot load the signing keys")]
    KeyFile(#[from] KeyFileError),
    /// The ledger failed.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// There is no deployment yet.
    #[error("cannot find a deployment here: run larder-origin init first")]
    NotInitialised,
    /// The database is older than what was published.
    #[error(
        "cannot use this ledger: `{counter}` is {found} in it, and {published} was published; \
         it came from a backup: run larder-origin restore with it"
    )]
    Outdated {
        /// The counter that would fall.
        counter: String,
        /// Its value in the ledger.
        found: u64,
        /// Its highest value that was ever served.
        published: u64,
    },
    /// What failed a moment ago is not tried again yet.
    #[error("{why}")]
    Postponed {
        /// Why it failed.
        why: String,
    },
    /// What was published cannot be kept.
    #[error("cannot keep what was published")]
    Published(#[from] PublishedError),
    /// A file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A CRL could not be signed.
    #[error("cannot sign a revocation list")]
    SignCrl(#[from] SignCrlError),
    /// The content signer cannot be used.
    #[error("cannot use the content signer")]
    Signer(#[from] SignerError),
    /// A key in a token cannot be used.
    #[error("cannot use a key in a token")]
    Token(#[from] TokenError),
    /// A key in a token is not named as it should be.
    #[error("cannot tell which key in which token is meant")]
    TokenUri(#[from] Pkcs11UriError),
    /// Our own CA is not to be trusted.
    #[error("cannot trust our own authority")]
    Trust(#[from] TrustError),
    /// Our own CRL is not to be trusted.
    #[error("cannot use our own revocation list")]
    TrustCrl(#[from] TrustCrlError),
    /// A key could not be written.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Authority {
    /// Loads the keys in `DATA/keys`, checks that they fit the ledger and are nobody else's to
    /// read, that no counter lies behind what was published, and brings lists and own certificates
    /// up to date.
    ///
    /// # Errors
    ///
    /// Fails if any of that does.
    pub async fn open(
        data: &Path,
        ledger: Ledger,
        lives: Certificates,
        clock: Clock,
    ) -> Result<Self, AuthorityError> {
        let published = Published::load(data)?;
        let mut db = ledger.read().await?;
        let deployment = deployment::find(&mut db)
            .await?
            .ok_or(AuthorityError::NotInitialised)?;
        check_counters(&published, &counters::promised(&mut db).await?)?;
        let known = authorities::list(&mut db).await?;
        let keys = Keys::load(&data.join(KEYS), &known)?;
        let stored = authorities::crls(&mut db).await?;
        drop(db);

        let now = clock.now();
        // Our own lists are never late: no grace.
        let crls = Arc::new(CrlStore::new(Duration::ZERO));
        let roots: Vec<&[u8]> = keys.roots().map(CaCert::der).collect();
        let trust = Arc::new(Trust::new(&roots, crls, now)?);
        trust_issuing(&trust, &keys, &known, now)?;
        let signer = own::renewed_signer(&ledger, &deployment, &keys, now).await?;
        let cell = Arc::new(CertCell::empty());
        let signer = RwLock::new(signer);
        let inner = Inner {
            cell,
            clock,
            data: data.to_owned(),
            deployment,
            keys: RwLock::new(Arc::new(keys)),
            ledger,
            lives,
            published,
            retries: Mutex::default(),
            signer,
            trust,
        };
        let authority = Self {
            inner: Arc::new(inner),
        };
        authority.publish_stored(stored).await?;
        authority.catch_up_crls().await?;
        authority.renew_own().await?;
        Ok(authority)
    }

    /// Takes up what was changed beside us: new and retired CAs, and lists of the roots.
    ///
    /// # Errors
    ///
    /// Fails if keys or ledger cannot be read, or if what is due cannot be signed; what was
    /// taken up until then stays.
    pub async fn reload(&self) -> Result<(), AuthorityError> {
        let inner = &self.inner;
        let mut db = inner.ledger.read().await?;
        let known = authorities::list(&mut db).await?;
        let stored = authorities::crls(&mut db).await?;
        drop(db);
        let (keys, now) = (
            Keys::load(&inner.data.join(KEYS), &known)?,
            inner.clock.now(),
        );
        for root in keys.roots() {
            inner.trust.add_root(root.der(), now)?;
        }
        trust_issuing(&inner.trust, &keys, &known, now)?;
        for root in inner.trust.roots() {
            if keys.roots().all(|kept| kept.id() != root.id()) {
                inner.trust.forget_root(root.id())?;
            }
        }
        *inner.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        self.publish_stored(stored).await?;
        self.catch_up_crls().await?;
        self.renew_own().await
    }

    /// The keys as they are now.
    fn keys(&self) -> Arc<Keys> {
        let held = self.inner.keys.read();
        Arc::clone(&held.unwrap_or_else(PoisonError::into_inner))
    }

    /// What `init` decided.
    #[must_use]
    pub fn deployment(&self) -> &Deployment {
        &self.inner.deployment
    }

    /// The origin's own name.
    #[must_use]
    pub fn identity(&self) -> Identity {
        identity(
            &self.inner.deployment,
            Role::Origin,
            &self.inner.deployment.origin_id,
        )
    }

    /// Our root, our issuing CAs and the revocation lists in force.
    #[must_use]
    pub fn trust(&self) -> &Arc<Trust> {
        &self.inner.trust
    }

    /// The origin's own certificate for TLS, which is swapped as it is renewed.
    #[must_use]
    pub fn own_certificate(&self) -> &Arc<CertCell> {
        &self.inner.cell
    }

    /// The numbers that left this origin.
    #[must_use]
    pub fn published(&self) -> &Published {
        &self.inner.published
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The certificates of the root and of the issuing CAs, in DER, the root first.
    #[must_use]
    pub fn ca_certificates(&self) -> Vec<Vec<u8>> {
        let keys = self.keys();
        let roots = keys.roots().map(CaCert::der);
        let issuing = keys.issuing().map(certs::Ca::cert_der);
        roots.chain(issuing).map(<[u8]>::to_vec).collect()
    }

    /// When the first of the roots' lists ends, in Unix seconds: nobody is let in then. They are
    /// signed by `ca sign-root-list`, not by us. `None` if there is none.
    #[must_use]
    pub fn root_lists_end(&self) -> Option<i64> {
        let crls = self.inner.trust.crls();
        let keys = self.keys();
        let ends = keys.roots().filter_map(|root| crls.current(root.id()));
        ends.map(|crl| crl.next_update()).min()
    }

    /// SHA-256 of the public key of the root in use: what a join string pins.
    #[must_use]
    pub fn root_pin(&self) -> [u8; 32] {
        let now = self.inner.clock.now();
        *self.keys().root(now).id().as_bytes()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("deployment", &self.inner.deployment.id)
            .finish_non_exhaustive()
    }
}

/// Believes our own issuing CAs: those in use must count, of the others those that do.
fn trust_issuing(
    trust: &Trust,
    keys: &Keys,
    known: &[authorities::Authority],
    now: i64,
) -> Result<(), TrustError> {
    for kind in CaKind::ALL {
        trust.add_issuing_ca(keys.ca(kind, now).cert_der(), now)?;
    }
    for authority in known.iter().filter(|it| it.kind != keys::ROOT) {
        // Of a retired one the last list is still asked for.
        if let Err(failure) = trust.add_issuing_ca(&authority.der, now) {
            let (kind, generation) = (&authority.kind, authority.generation);
            debug!(kind, generation, error = %Report(&failure), "a CA counts no longer");
        }
    }
    Ok(())
}

/// Checks that the keys in the data folder `data` are those of `known`.
///
/// # Errors
///
/// Fails if one is missing, too open or another's.
pub(crate) fn check_keys(
    data: &Path,
    known: &[authorities::Authority],
) -> Result<(), AuthorityError> {
    Keys::load(&data.join(KEYS), known).map(drop)
}

/// The party `id` of `deployment`.
fn identity(deployment: &Deployment, role: Role, id: &DeviceId) -> Identity {
    Identity {
        deployment: deployment.id.clone(),
        role,
        id: id.clone(),
    }
}

/// Refuses a ledger that would hand out numbers a second time.
fn check_counters(
    published: &Published,
    counters: &std::collections::BTreeMap<String, u64>,
) -> Result<(), AuthorityError> {
    for (counter, published) in published.marks() {
        let found = counters.get(&counter).copied().unwrap_or(0);
        if found < published {
            return Err(AuthorityError::Outdated {
                counter,
                found,
                published,
            });
        }
    }
    Ok(())
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// The folder of the keys within the data folder.
const KEYS: &str = "keys";
