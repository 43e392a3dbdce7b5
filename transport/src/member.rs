//! Membership: what a booster or a client keeps of the deployment that it has joined.
//!
//! Key, certificate, roots, issuing CAs and revocation lists lie in the data folder, written
//! durably; the program holds one [`Member`], which renews and refreshes them while it runs.
//!
//! ```text
//! DATA/identity/ key.pem cert.pem roots.pem cas.pem joined.json    0700, files 0600
//! DATA/state/    crl-<issuer> deployment …                          0700, files 0600
//! ```

mod files;
mod join;
mod refresh;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use certs::keyfile::KeyFileError;
use certs::tls::{CellError, CertCell, Expected, TlsError};
use certs::trust::Revocation;
use certs::{CrlStore, DeviceId, Identity, Key, Role, Trust};
use content::Digest;
use content::statement::StatementError;
use protocol::EnrolRole;
use service::Clock;
use thiserror::Error;

use crate::call::CallError;
use crate::enrol::EnrolError;
use crate::judge::ContentJudge;
use crate::source::{CallLimits, Source, SourceSettings};

pub use files::{FileError, Joined};
pub use join::{JoinRequest, Waiting};
pub use refresh::Renewal;

/// A party that has joined a deployment. Cloning shares it.
#[derive(Clone)]
pub struct Member {
    inner: Arc<Inner>,
}

struct Inner {
    cell: Arc<CertCell>,
    clock: Clock,
    data: PathBuf,
    joined: RwLock<Joined>,
    key: Key,
    limits: CallLimits,
    role: Role,
    trust: Arc<Trust>,
}

/// Why a party cannot join, or cannot use what it keeps.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MemberError {
    /// It has joined another deployment.
    #[error(
        "cannot join: this data folder belongs to the deployment {deployment}; use another one"
    )]
    AlreadyJoined {
        /// Which.
        deployment: String,
    },
    /// A call came to nothing.
    #[error("cannot {step}")]
    Call {
        /// What was tried.
        step: &'static str,
        /// Why.
        source: CallError,
    },
    /// The certificate does not fit the key.
    #[error("cannot use the own certificate")]
    Cell(#[from] CellError),
    /// The request for a certificate could not be made.
    #[error("cannot make a certificate request")]
    Csr(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The deployment document cannot be used.
    #[error("cannot use the deployment document")]
    Document(#[source] Box<StatementError>),
    /// The deployment document is older than the one that is known.
    #[error("cannot use the deployment document: version {got} is below {seen}, seen before")]
    DocumentRollback {
        /// The highest seen.
        seen: u64,
        /// What came.
        got: u64,
    },
    /// Enrolment failed.
    #[error("cannot enrol")]
    Enrol(#[from] EnrolError),
    /// A file of ours failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The own key cannot be used.
    #[error("cannot use the own key")]
    Key(#[from] KeyFileError),
    /// No key could be made.
    #[error("cannot make a key")]
    NewKey(#[from] certs::key::KeyError),
    /// There is no membership in the data folder.
    #[error("cannot find a membership in {data}: enrol first", data = data.display())]
    NotJoined {
        /// The data folder.
        data: PathBuf,
    },
    /// A task was cut off.
    #[error("cannot go on: the program is stopping")]
    Stopping(#[from] tokio::task::JoinError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// The roots that are kept cannot be used.
    #[error("cannot use the roots that are kept")]
    Trust(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Member {
    /// What is kept in the data folder `data`, for a party of that `role`. A revocation list that
    /// is past its end goes on being used for `grace`.
    ///
    /// # Errors
    ///
    /// Fails if nothing is kept there, or if a file is missing, damaged or readable by others.
    pub async fn open(
        data: &Path,
        role: Role,
        grace: Duration,
        clock: Clock,
    ) -> Result<Self, MemberError> {
        let (folder, at) = (data.to_owned(), clock.now());
        let kept = tokio::task::spawn_blocking(move || files::load(&folder)).await??;
        let crls = Arc::new(CrlStore::new(grace));
        let trust = Trust::new(&kept.roots, crls, at)
            .map_err(|error| MemberError::Trust(Box::new(error)))?;
        for ca in &kept.cas {
            // One that has run out since is fetched anew when it is needed.
            let _out_of_date = trust.add_issuing_ca(ca, at).is_err();
        }
        let member = Self {
            inner: Arc::new(Inner {
                cell: Arc::new(CertCell::new(&kept.chain, &kept.key)?),
                clock,
                data: data.to_owned(),
                joined: RwLock::new(kept.joined),
                key: kept.key,
                limits: CallLimits::default(),
                role,
                trust: Arc::new(trust),
            }),
        };
        member.load_crls().await?;
        Ok(member)
    }

    /// Who we are.
    ///
    /// # Panics
    ///
    /// Does not: the id was checked when it was read.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let joined = self.joined();
        Identity {
            deployment: self.inner.trust.deployment().clone(),
            role: self.inner.role,
            id: joined.id,
        }
    }

    /// What was learnt on joining.
    #[must_use]
    pub fn joined(&self) -> Joined {
        let joined = self.inner.joined.read();
        joined.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whom to believe.
    #[must_use]
    pub fn trust(&self) -> &Arc<Trust> {
        &self.inner.trust
    }

    /// Our own certificate, as listeners and calls show it.
    #[must_use]
    pub fn certificate(&self) -> &Arc<CertCell> {
        &self.inner.cell
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.inner.data
    }

    /// Judges statements by our trust.
    #[must_use]
    pub fn judge(&self) -> ContentJudge {
        ContentJudge::new(Arc::clone(&self.inner.trust))
    }

    /// The fingerprint of our key, for people to compare.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.inner.key)
    }

    /// The origin's identity.
    #[must_use]
    pub fn origin(&self) -> Identity {
        Identity {
            deployment: self.inner.trust.deployment().clone(),
            role: Role::Origin,
            id: self.joined().origin,
        }
    }

    /// Calls to `party` at `addresses`, with our certificate shown and theirs checked against
    /// fresh revocation lists.
    ///
    /// # Errors
    ///
    /// Fails if `party` can be nobody who listens.
    pub fn source(&self, party: Identity, addresses: Vec<String>) -> Result<Source, MemberError> {
        let own = Some(Arc::clone(&self.inner.cell));
        let settings = self.settings(
            addresses,
            Expected::Exactly(party),
            Revocation::Required,
            own,
        );
        Ok(Source::new(settings)?)
    }

    /// Calls to the origin's enrolment listener, without a certificate: to catch up when lists or
    /// our own certificate have run out.
    ///
    /// # Errors
    ///
    /// Fails only if TLS cannot be set up.
    pub fn public_source(&self) -> Result<Source, MemberError> {
        let addresses = self.joined().enrol_addresses;
        let expected = Expected::Exactly(self.origin());
        let settings = self.settings(addresses, expected, Revocation::BestEffort, None);
        Ok(Source::new(settings)?)
    }

    fn settings(
        &self,
        addresses: Vec<String>,
        expected: Expected,
        revocation: Revocation,
        own: Option<Arc<CertCell>>,
    ) -> SourceSettings {
        SourceSettings {
            addresses,
            expected,
            revocation,
            trust: Arc::clone(&self.inner.trust),
            own,
            clock: self.inner.clock.clone(),
            http2: false,
            limits: self.inner.limits,
        }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Member")
            .field(&self.identity().uri())
            .finish()
    }
}

/// The SHA-256 of a key's public part, in groups of four digits that people can compare.
#[must_use]
pub fn fingerprint(key: &Key) -> String {
    let hex = Digest::from_raw(key.spki_sha256()).hex();
    let groups: Vec<&str> = (0..hex.len())
        .step_by(4)
        .map(|at| &hex[at..at + 4])
        .collect();
    groups.join(" ")
}

fn enrol_role(role: Role) -> EnrolRole {
    match role {
        Role::Booster => EnrolRole::Booster,
        // Origins and signers do not enrol; a request for them is answered by a client's rules.
        Role::Client | Role::Origin | Role::Signer => EnrolRole::Client,
    }
}

/// An id made of the key, for a device that nobody named.
fn id_of(key: &Key) -> DeviceId {
    let hex = Digest::from_raw(key.spki_sha256()).hex();
    format!("d-{}", &hex[..16])
        .parse()
        .expect("hexadecimal digits make an id")
}
