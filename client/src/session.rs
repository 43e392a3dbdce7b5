//! A device at work: who it is, what it has verified so far, and fresh enough lists to go on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use certs::crl::Freshness;
use certs::tls::{CertCell, Expected};
use certs::trust::Revocation;
use certs::{Floor, Identity as Name, IssuerId, Role};
use content::statement::{Deployment, Statement};
use protocol::EnrolRole;
use service::{Clock, Report};
use thiserror::Error;
use tracing::{info, warn};
use transport::enrol::{Enrolled, accept};
use transport::{CallError, ContentJudge, Fetched, Source, SourceSettings};

use crate::catalogue::needs_crl;
use crate::data::{Data, DataError, Lock};
use crate::identity::{Identity, IdentityError};
use crate::net::limits;
use crate::state::{State, StateError};

/// Everything that a command with business on the network stands on.
#[derive(Debug)]
pub(crate) struct Session {
    /// The data folder.
    pub(crate) data: Data,
    /// Who we are.
    pub(crate) identity: Identity,
    /// What was verified before.
    pub(crate) state: State,
    /// Who is who, if that is known.
    pub(crate) document: Option<Statement<Deployment>>,
    /// The time: never before what somebody we trust has vouched for.
    pub(crate) clock: Clock,
    /// Bytes that catching up took.
    pub(crate) enrol_bytes: u64,
    /// What keeps others away.
    pub(crate) lock: Lock,
}

impl Session {
    /// Opens the data folder at `data` without touching the network.
    pub(crate) fn open(data: &Path, clock: &Clock) -> Result<Self, SessionError> {
        let data = Data::new(data);
        let lock = data.lock()?;
        let state = State::new(data.state());
        let mut floor = Floor::default();
        floor.raise(state.marks()?.issued());
        let clock = floored(clock, floor);
        let identity = Identity::load(&data.identity(), clock.now())?;
        let identity = identity.ok_or_else(|| DataError::Missing {
            path: data.root().to_owned(),
        })?;
        floor.raise(identity.cell.validity().map_or(0, |(begins, _)| begins));
        let clock = floored(&clock, floor);
        state.load_crls(&identity.trust, clock.now());
        let judge = ContentJudge::new(Arc::clone(&identity.trust));
        let document = state.document(&judge, clock.now());
        Ok(Self {
            data,
            identity,
            state,
            document,
            clock,
            enrol_bytes: 0,
            lock,
        })
    }

    /// Who decides whether a statement counts.
    pub(crate) fn judge(&self) -> ContentJudge {
        ContentJudge::new(Arc::clone(&self.identity.trust))
    }

    /// Makes up for what was slept through: renews the certificate when it is due, and fetches the
    /// lists and the document without which no booster can be judged.
    pub(crate) async fn catch_up(&mut self) -> Result<(), SessionError> {
        let renewal = self.renewal();
        if renewal == Renewal::NotDue && !self.is_behind() {
            return Ok(());
        }
        let source = self.enrol_source(None)?;
        if self.is_behind() {
            self.fetch_standing(&source).await?;
        }
        self.enrol_bytes += source.meter().bytes();
        match renewal {
            Renewal::NotDue => Ok(()),
            Renewal::Due => {
                if let Err(error) = self.renew(Some(&Arc::clone(&self.identity.cell))).await {
                    // It still counts for a while: the next command tries again.
                    warn!(error = %Report(&error), "cannot renew the certificate");
                }
                Ok(())
            }
            Renewal::Expired => self.renew(None).await,
        }
    }

    /// Whether the certificate should be renewed.
    pub(crate) fn renewal(&self) -> Renewal {
        let now = self.clock.now();
        let Some((begins, ends)) = self.identity.cell.validity() else {
            return Renewal::Expired;
        };
        // At half of its life, or up to a tenth later: not all devices at once.
        let half = (ends - begins) as f64 * (0.5 + fastrand::f64() / 10.0);
        if now >= ends {
            Renewal::Expired
        } else if now - begins >= half as i64 {
            Renewal::Due
        } else {
            Renewal::NotDue
        }
    }

    /// Calls to an enrolment listener of the origin, showing `own`.
    fn enrol_source(&self, own: Option<&Arc<CertCell>>) -> Result<Source, SessionError> {
        let mut addresses = self.identity.joined.addresses.clone();
        if let Some(document) = &self.document {
            addresses.extend(document.origin.enrol_addresses.iter().cloned());
            let relays = document.boosters.iter().take(RELAYS_MAX);
            addresses.extend(relays.flat_map(|booster| booster.enrol_addresses.iter().cloned()));
        }
        let mut seen = std::collections::HashSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        let origin = self.identity.joined.origin()?;
        self.source(origin, addresses, own, Revocation::BestEffort)
    }

    /// Calls to the party called `name`.
    pub(crate) fn source(
        &self,
        name: Name,
        addresses: Vec<String>,
        own: Option<&Arc<CertCell>>,
        revocation: Revocation,
    ) -> Result<Source, SessionError> {
        let settings = SourceSettings {
            addresses,
            expected: Expected::Exactly(name),
            revocation,
            trust: Arc::clone(&self.identity.trust),
            own: own.cloned(),
            clock: self.clock.clone(),
            http2: false,
            limits: limits(),
        };
        Source::new(settings).map_err(|source| SessionError::Tls { source })
    }

    /// Whether a list that we judge others by is missing or out of date, or the document missing.
    fn is_behind(&self) -> bool {
        let trust = &self.identity.trust;
        let now = self.clock.now();
        let stale = |issuer: IssuerId| match trust.crls().freshness(issuer, now) {
            Freshness::Fresh | Freshness::Grace => false,
            Freshness::Missing | Freshness::Stale => true,
        };
        let cas = trust.roots().into_iter().chain(trust.issuing_cas());
        let mut needed = cas.map(|ca| ca.id()).filter(|id| needs_crl(trust, *id));
        self.document.is_none()
            || !trust.knows_cas_for(&[Role::Origin, Role::Signer])
            || needed.any(stale)
    }

    /// Fetches issuing CAs, lists and document: all of it authenticates itself.
    async fn fetch_standing(&mut self, source: &Source) -> Result<(), SessionError> {
        info!("catching up");
        let trust = Arc::clone(&self.identity.trust);
        fetch_standing(source, &trust, &self.state, self.clock.now()).await?;
        self.identity.keep_cas()?;
        self.document = self.state.document(&self.judge(), self.clock.now());
        Ok(())
    }

    /// Gets a new certificate for the same key: for an old one that is shown, or, if that has run
    /// out, because the origin knows the key.
    async fn renew(&mut self, own: Option<&Arc<CertCell>>) -> Result<(), SessionError> {
        let source = self.enrol_source(own)?;
        let identity = &self.identity;
        let csr = certs::csr::make(&identity.key, identity.name.id.as_str())
            .map_err(|source| SessionError::Csr { source })?;
        let answer = match own {
            Some(_) => source.simple_reenroll(EnrolRole::Client, &csr).await,
            None => source.simple_enroll(EnrolRole::Client, &csr, None).await,
        };
        self.enrol_bytes += source.meter().bytes();
        let issued = match answer.map_err(|source| SessionError::Renew { source })? {
            Enrolled::Issued(issued) => issued,
            Enrolled::Pending { .. } => return Err(SessionError::Pending),
        };
        let now = self.clock.now();
        let accepted = accept(&identity.trust, &issued, &identity.key, Role::Client, now)
            .map_err(|source| SessionError::Accept { source })?;
        identity.renew(&accepted.chain_der)?;
        info!(until = accepted.peer.not_after(), "renewed the certificate");
        Ok(())
    }
}

/// Whether a certificate should be renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Renewal {
    /// Not yet.
    NotDue,
    /// Now, while it still counts.
    Due,
    /// It counts no more.
    Expired,
}

/// Fetches issuing CAs, the lists that we judge others by, and the deployment document from an
/// enrolment listener, and keeps them.
pub(crate) async fn fetch_standing(
    source: &Source,
    trust: &Arc<certs::Trust>,
    state: &State,
    now: i64,
) -> Result<(), SessionError> {
    let failed = |source| SessionError::CatchUp { source };
    for ca in source.cacerts().await.map_err(failed)? {
        // What no root of ours has signed, and the roots themselves, are passed over.
        drop(trust.add_issuing_ca(&ca, now));
    }
    for ca in trust.roots().iter().chain(&trust.issuing_cas()) {
        if !needs_crl(trust, ca.id()) {
            continue;
        }
        let etag = trust.crls().current(ca.id()).map(|crl| etag(crl.digest()));
        let fetched = source.crl(ca.id(), etag.as_deref()).await.map_err(failed)?;
        if let Fetched::New { bytes, .. } = fetched {
            let crl = trust
                .verify_crl(ca.id(), &bytes, now)
                .map_err(|source| SessionError::Crl { source })?;
            state.put_crl(trust, crl)?;
        }
    }
    let judge = ContentJudge::new(Arc::clone(trust));
    if let Fetched::New { bytes, .. } = source.deployment(None).await.map_err(failed)? {
        let document: Statement<Deployment> = Statement::open(&bytes, &judge, now)
            .map_err(|source| SessionError::Document { source })?;
        let older = state
            .document(&judge, now)
            .is_some_and(|kept| kept.version > document.version);
        if !older {
            state.put_document(&bytes)?;
        }
    }
    Ok(())
}

/// The ETag under which the origin serves a list.
fn etag(digest: &[u8; 32]) -> String {
    format!("\"{}\"", content::Digest::from_raw(*digest).hex())
}

/// `clock`, moved forward if it is behind `floor`.
fn floored(clock: &Clock, floor: Floor) -> Clock {
    let now = clock.now();
    if floor.verification_time(now) == now {
        return clock.clone();
    }
    warn!(
        now,
        at_least = floor.at(),
        "the clock of this machine is behind"
    );
    let ahead = floor.at() - Clock::system().now();
    Clock::fixed_offset(Arc::new(AtomicI64::new(ahead)))
}

/// Why we cannot go to work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The new certificate cannot be used.
    #[error(transparent)]
    Accept {
        /// Why not.
        source: transport::enrol::EnrolError,
    },
    /// Lists and document cannot be fetched.
    #[error("cannot catch up with the origin")]
    CatchUp {
        /// Why.
        source: CallError,
    },
    /// A list does not count.
    #[error("cannot catch up with the origin")]
    Crl {
        /// Why.
        source: certs::trust::TrustCrlError,
    },
    /// No request can be made.
    #[error("cannot make a certificate request")]
    Csr {
        /// Why.
        source: certs::csr::MakeCsrError,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The deployment document does not count.
    #[error("cannot catch up with the origin")]
    Document {
        /// Why.
        source: content::statement::StatementError,
    },
    /// We do not know who we are.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The origin wants a person to look first.
    #[error("cannot renew the certificate: an operator has to approve this device")]
    Pending,
    /// The origin gives no new certificate.
    #[error("cannot renew the certificate")]
    Renew {
        /// Why.
        source: CallError,
    },
    /// What protects us cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls {
        /// Why.
        source: certs::tls::TlsError,
    },
}

/// Boosters whose relay is tried if the origin cannot be reached.
const RELAYS_MAX: usize = 8;
