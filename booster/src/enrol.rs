//! Enrolment: the booster gets its first certificate.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use certs::tls::{Expected, TlsError};
use certs::trust::Revocation;
use certs::{DeviceId, Key, Role, Trust};
use config::HostPort;
use protocol::{EnrolRole, Join};
use serde::Serialize;
use service::{Clock, Report};
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tracing::warn;
use transport::enrol::{Accepted, Enrolled, accept, first_contact};
use transport::source::CallLimits;
use transport::{CallError, Fetched, Source, SourceSettings};

use crate::data::{Data, DataError};
use crate::identity::{self, Identity, IdentityError, Joined};
use crate::state::{State, StateError};

/// What enrolment needs to know.
#[derive(Clone, Debug)]
pub struct EnrolRequest {
    /// Where clients will reach the booster's content listener, if that is not to be found out.
    pub advertise: Vec<HostPort>,
    /// Where to keep what comes of it.
    pub data: PathBuf,
    /// What the booster shall be called; its host name if that is not said.
    pub id: Option<DeviceId>,
    /// What the operator handed out.
    pub join: Join,
    /// How long to wait for an operator.
    pub patience: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct EnrolReport {
    /// Whether it had enrolled before.
    pub already: bool,
    /// The deployment.
    pub deployment: String,
    /// SHA-256 of its public key, in groups of four digits.
    pub fingerprint: String,
    /// What this booster is called.
    pub id: String,
    /// Until when its certificate counts, in Unix seconds.
    pub not_after: i64,
}

impl fmt::Display for EnrolReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deployment, id, .. } = self;
        let how = if self.already {
            "already enrolled"
        } else {
            "enrolled"
        };
        write!(f, "{how} as {id} in {deployment}")
    }
}

/// What happens on the way, for a person who waits.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EnrolNote {
    /// It asks with this key: the operator sees the same fingerprint.
    Asking {
        /// SHA-256 of its public key, in groups of four digits.
        fingerprint: String,
        /// What it asks to be called.
        id: String,
    },
    /// An operator has to approve.
    Pending {
        /// When it asks again.
        retry_after: Duration,
    },
}

impl fmt::Display for EnrolNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asking { fingerprint, id } => {
                write!(f, "asking to be {id}, with the key\n  {fingerprint}")
            }
            Self::Pending { retry_after } => write!(
                f,
                "waiting for an operator to approve this booster, asking again every {} s",
                retry_after.as_secs()
            ),
        }
    }
}

/// Enrols a booster. Run again, it goes on where it was, or finds that all is done.
///
/// # Errors
///
/// Fails if nobody answers, if whoever answers has not the pinned root (then nothing secret has
/// been sent), or if the origin refuses.
pub async fn enrol(
    request: EnrolRequest,
    clock: &Clock,
    note: impl Fn(EnrolNote),
) -> Result<EnrolReport, EnrolError> {
    let data = Data::new(&request.data);
    data.create()?;
    let _lock = data.lock()?;
    let key = identity::key(&data.identity())?;
    if let Some(known) = Identity::load(&data.identity(), clock.now())? {
        return already(&known, &request.join);
    }
    let id = request.id.map_or_else(host_id, Ok)?;
    note(EnrolNote::Asking {
        fingerprint: key.fingerprint(),
        id: id.to_string(),
    });
    let join = &request.join;
    let trust = meet(join, clock).await?;
    let source = public_source(&join.addresses, &trust, clock)?;
    let origin = source.identify().await.map_err(refused)?;
    // Before anything secret is sent: the server may have been revoked.
    take_lists(&source, &trust, &State::new(data.state()), clock).await?;
    let again = source.identify().await.map_err(refused)?;
    trust
        .check(&again, clock.now())
        .map_err(|reason| EnrolError::Server { reason })?;
    let csr = certs::csr::make(&key, id.as_str()).map_err(|source| EnrolError::Csr { source })?;
    let asking = Asking {
        clock,
        csr,
        join,
        key: &key,
        source: &source,
        trust: &trust,
    };
    let accepted = asking.ask(&id, request.patience, note).await?;
    let joined = Joined {
        advertise: request.advertise.iter().map(HostPort::to_string).collect(),
        addresses: join.addresses.clone(),
        deployment: trust.deployment().to_string(),
        id: accepted.peer.id().to_string(),
        origin: origin.id().to_string(),
    };
    identity::store(&data.identity(), &joined, &trust, &accepted.chain_der)?;
    Ok(EnrolReport {
        already: false,
        deployment: joined.deployment,
        fingerprint: key.fingerprint(),
        id: joined.id,
        not_after: accepted.peer.not_after(),
    })
}

/// Finds the pinned root, and nothing else: nobody is trusted before that.
async fn meet(join: &Join, clock: &Clock) -> Result<Arc<Trust>, EnrolError> {
    let (addresses, limits) = (join.addresses.clone(), CallLimits::default());
    let first = first_contact(addresses, &[join.pin], clock, &limits).await;
    let first = first.map_err(|source| EnrolError::FirstContact { source })?;
    let trust = identity::new_trust(&[first.root.der().to_vec()], clock.now())?;
    for ca in &first.certs {
        // The root itself is among them, and whatever it has not signed is passed over.
        drop(trust.add_issuing_ca(ca, clock.now()));
    }
    Ok(Arc::new(trust))
}

/// Fetches the revocation lists of all CAs, puts them in force, and keeps them: they say whether the
/// server still counts, and the booster need not ask for them to start.
async fn take_lists(
    source: &Source,
    trust: &Trust,
    state: &State,
    clock: &Clock,
) -> Result<(), EnrolError> {
    // Roots first: their lists say which issuing CAs still count.
    for ca in trust.roots().iter().chain(&trust.issuing_cas()) {
        let fetched = source.crl(ca.id(), None).await.map_err(refused)?;
        if let Fetched::New { bytes, .. } = fetched {
            let crl = trust.verify_crl(ca.id(), &bytes, clock.now());
            state.put_crl(trust, crl.map_err(|source| EnrolError::List { source })?)?;
        }
    }
    Ok(())
}

struct Asking<'a> {
    clock: &'a Clock,
    csr: Vec<u8>,
    join: &'a Join,
    key: &'a Key,
    source: &'a Source,
    trust: &'a Trust,
}

impl Asking<'_> {
    /// Asks for a certificate until there is one, there will be none, or patience ends.
    async fn ask(
        &self,
        id: &DeviceId,
        patience: Duration,
        note: impl Fn(EnrolNote),
    ) -> Result<Accepted, EnrolError> {
        let deadline = Instant::now() + patience;
        let (role, token) = (EnrolRole::Booster, self.join.token.as_ref());
        let mut told = false;
        loop {
            let wait = match self.source.simple_enroll(role, &self.csr, token).await {
                Ok(Enrolled::Issued(issued)) => {
                    let now = self.clock.now();
                    return accept(self.trust, &issued, self.key, Role::Booster, now)
                        .map_err(|source| EnrolError::Issued { source });
                }
                Ok(Enrolled::Pending { retry_after }) => {
                    if !std::mem::replace(&mut told, true) {
                        note(EnrolNote::Pending { retry_after });
                    }
                    retry_after
                }
                // Whoever waits for hours sees a restart now and then.
                Err(error) if told && error.is_retryable() => {
                    warn!(error = %Report(&error), "asking again");
                    RETRY_PAUSE
                }
                Err(error) => return Err(refused(error)),
            };
            if Instant::now() + wait > deadline {
                return Err(EnrolError::Pending { id: id.to_string() });
            }
            sleep(wait).await;
        }
    }
}

fn already(known: &Identity, join: &Join) -> Result<EnrolReport, EnrolError> {
    let roots = known.trust.roots();
    if !roots.iter().any(|root| root.spki_sha256() == join.pin) {
        let deployment = known.joined.deployment.clone();
        return Err(EnrolError::OtherDeployment { deployment });
    }
    Ok(EnrolReport {
        already: true,
        deployment: known.joined.deployment.clone(),
        fingerprint: known.key.fingerprint(),
        id: known.joined.id.clone(),
        not_after: known.cell.validity().map_or(0, |(_, ends)| ends),
    })
}

/// Calls to the enrolment listener, showing no certificate.
fn public_source(
    addresses: &[String],
    trust: &Arc<Trust>,
    clock: &Clock,
) -> Result<Source, EnrolError> {
    let settings = SourceSettings {
        addresses: addresses.to_vec(),
        expected: Expected::AnyOf(Role::Origin),
        revocation: Revocation::BestEffort,
        trust: Arc::clone(trust),
        own: None,
        clock: clock.clone(),
        http2: false,
        limits: CallLimits::default(),
    };
    Source::new(settings).map_err(|source| EnrolError::Tls { source })
}

/// The host's name as far as it can be an id.
fn host_id() -> Result<DeviceId, EnrolError> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let first = name.trim().split('.').next().unwrap_or_default();
    let lower = first.to_ascii_lowercase();
    lower.parse().map_err(|_| EnrolError::HostName {
        found: name.trim().to_owned(),
    })
}

fn refused(source: CallError) -> EnrolError {
    EnrolError::Refused { source }
}

/// Why enrolment failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// The request could not be made.
    #[error("cannot make a certificate request")]
    Csr {
        /// Why.
        source: certs::csr::MakeCsrError,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Nobody with the pinned root was found.
    #[error("cannot find the deployment")]
    FirstContact {
        /// Why.
        source: transport::enrol::EnrolError,
    },
    /// The host's name is no id.
    #[error("cannot be called {found:?} like this host: name an id (--id) of a-z 0-9 -")]
    HostName {
        /// The name.
        found: String,
    },
    /// What was kept, or is to be kept, cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate that was issued is of no use.
    #[error("cannot use what was issued")]
    Issued {
        /// Why.
        source: transport::enrol::EnrolError,
    },
    /// A revocation list does not count.
    #[error("cannot enrol: nothing secret has been sent")]
    List {
        /// Why.
        source: certs::trust::TrustCrlError,
    },
    /// It has enrolled somewhere else.
    #[error("cannot enrol twice: this booster belongs to the deployment {deployment}")]
    OtherDeployment {
        /// Where.
        deployment: String,
    },
    /// No operator has approved it.
    #[error("cannot wait any longer: no operator has approved {id}; run this again later")]
    Pending {
        /// What it asked to be called.
        id: String,
    },
    /// The origin refused, or could not be reached.
    #[error("cannot enrol")]
    Refused {
        /// Why.
        source: CallError,
    },
    /// The server may not be spoken to.
    #[error("cannot trust the server: {reason}")]
    Server {
        /// Why not.
        reason: certs::RefusalReason,
    },
    /// What protects us cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// TLS could not be set up.
    #[error("cannot set up TLS")]
    Tls {
        /// Why.
        source: TlsError,
    },
}

/// How long to wait before asking again when the origin cannot be reached for a moment.
const RETRY_PAUSE: Duration = Duration::from_secs(30);
