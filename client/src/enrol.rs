//! Enrolment: a device gets its certificate.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use certs::tls::Expected;
use certs::trust::Revocation;
use certs::{DeviceId, Key, Role, Trust};
use protocol::{Code, EnrolRole, Join};
use serde::Serialize;
use service::Clock;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tracing::warn;
use transport::enrol::{Accepted, Enrolled, accept, first_contact};
use transport::{CallError, Source, SourceSettings};

use crate::data::{Data, DataError};
use crate::identity::{self, Identity, IdentityError, Joined};
use crate::net::limits;
use crate::session::{SessionError, fetch_standing};
use crate::state::State;

/// What enrolment needs to know.
pub struct EnrolRequest {
    /// What the operator handed out.
    pub join: Join,
    /// Where to keep what comes of it.
    pub data: PathBuf,
    /// What this device shall be called; its host name if that is not said.
    pub id: Option<DeviceId>,
    /// How long to wait for an operator.
    pub patience: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct EnrolReport {
    /// The deployment.
    pub deployment: String,
    /// What this device is called.
    pub id: String,
    /// SHA-256 of its public key, in groups of four digits.
    pub fingerprint: String,
    /// Until when its certificate counts, in Unix seconds.
    pub not_after: i64,
    /// Whether it had enrolled before.
    pub already: bool,
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
    /// The key is there: the operator sees the same fingerprint.
    Key {
        /// What the device asks to be called.
        id: String,
        /// SHA-256 of its public key, in groups of four digits.
        fingerprint: String,
    },
    /// An operator has to approve.
    Pending {
        /// When we ask again.
        retry_after: Duration,
    },
}

impl fmt::Display for EnrolNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { id, fingerprint } => {
                write!(f, "asking to be {id}, with the key\n  {fingerprint}")
            }
            Self::Pending { retry_after } => write!(
                f,
                "waiting for an operator to approve this device, asking again every {} s",
                retry_after.as_secs()
            ),
        }
    }
}

/// Enrols a device. Run again, it goes on where it was, or finds that all is done.
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
    let id = match request.id {
        Some(id) => id,
        None => host_id()?,
    };
    note(EnrolNote::Key {
        id: id.to_string(),
        fingerprint: key.fingerprint(),
    });
    let addresses = request.join.addresses.clone();
    let first = first_contact(addresses.clone(), &[request.join.pin], clock, &limits())
        .await
        .map_err(|source| EnrolError::FirstContact { source })?;
    let trust = Arc::new(identity::new_trust(&[first.root.der()], clock.now())?);
    for ca in &first.certs {
        // The root itself, and what it has not signed, are passed over.
        drop(trust.add_issuing_ca(ca, clock.now()));
    }
    let source = origin_source(addresses, &trust, clock)?;
    let origin = source.identify().await.map_err(refused)?;
    // Before anything secret is sent: the server may have been revoked.
    let state = State::new(data.state());
    fetch_standing(&source, &trust, &state, clock.now()).await?;
    let again = source.identify().await.map_err(refused)?;
    trust
        .check(&again, clock.now())
        .map_err(|reason| EnrolError::Server { reason })?;
    let asking = Asking {
        source: &source,
        key: &key,
        trust: &trust,
        clock,
    };
    let accepted = asking
        .ask(&id, &request.join, request.patience, note)
        .await?;
    if *accepted.peer.id() != id {
        return Err(EnrolError::OtherName {
            got: accepted.peer.id().to_string(),
        });
    }
    let joined = Joined {
        deployment: trust.deployment().to_string(),
        id: id.to_string(),
        origin: origin.id().to_string(),
        addresses: request.join.addresses,
    };
    identity::store(&data.identity(), &joined, &trust, &accepted.chain_der)?;
    Ok(EnrolReport {
        deployment: joined.deployment,
        id: joined.id,
        fingerprint: key.fingerprint(),
        not_after: accepted.peer.not_after(),
        already: false,
    })
}

/// Who asks, and whom.
struct Asking<'a> {
    source: &'a Source,
    key: &'a Key,
    trust: &'a Trust,
    clock: &'a Clock,
}

impl Asking<'_> {
    /// Asks for a certificate until there is one, there will be none, or patience ends.
    async fn ask(
        &self,
        id: &DeviceId,
        join: &Join,
        patience: Duration,
        note: impl Fn(EnrolNote),
    ) -> Result<Accepted, EnrolError> {
        let csr =
            certs::csr::make(self.key, id.as_str()).map_err(|source| EnrolError::Csr { source })?;
        let deadline = Instant::now() + patience;
        let mut told = false;
        loop {
            let answer = self
                .source
                .simple_enroll(EnrolRole::Client, &csr, join.token.as_ref());
            let retry_after = match answer.await {
                Ok(Enrolled::Issued(issued)) => {
                    let now = self.clock.now();
                    return accept(self.trust, &issued, self.key, Role::Client, now)
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
                    warn!(error = %service::Report(&error), "asking again");
                    RETRY_PAUSE
                }
                Err(error) => return Err(refused(error)),
            };
            if Instant::now() + retry_after > deadline {
                return Err(EnrolError::Pending { id: id.to_string() });
            }
            sleep(retry_after).await;
        }
    }
}

fn already(known: &Identity, join: &Join) -> Result<EnrolReport, EnrolError> {
    let pinned = known
        .trust
        .roots()
        .iter()
        .any(|root| root.spki_sha256() == join.pin);
    if !pinned {
        return Err(EnrolError::OtherDeployment {
            deployment: known.joined.deployment.clone(),
        });
    }
    Ok(EnrolReport {
        deployment: known.joined.deployment.clone(),
        id: known.joined.id.clone(),
        fingerprint: known.key.fingerprint(),
        not_after: known.cell.validity().map_or(0, |(_, ends)| ends),
        already: true,
    })
}

fn origin_source(
    addresses: Vec<String>,
    trust: &Arc<Trust>,
    clock: &Clock,
) -> Result<Source, EnrolError> {
    let settings = SourceSettings {
        addresses,
        expected: Expected::AnyOf(Role::Origin),
        revocation: Revocation::BestEffort,
        trust: Arc::clone(trust),
        own: None,
        clock: clock.clone(),
        http2: false,
        limits: limits(),
    };
    Source::new(settings).map_err(|source| EnrolError::Tls { source })
}

/// This machine's host name, as far as it can be a device's.
fn host_id() -> Result<DeviceId, EnrolError> {
    let name = rustix::system::uname();
    let host = name.nodename().to_string_lossy().to_lowercase();
    let label = host.split('.').next().unwrap_or_default().to_owned();
    label.parse().map_err(|_| EnrolError::HostName { host })
}

/// Tells what can be told better than the call itself does.
fn refused(source: CallError) -> EnrolError {
    let code = if let CallError::Fault { fault } = &source {
        Some(fault.code)
    } else {
        None
    };
    if code == Some(Code::Denied) {
        EnrolError::Denied { source }
    } else if code == Some(Code::Conflict) {
        EnrolError::Taken { source }
    } else if code == Some(Code::Unauthorised) {
        EnrolError::Token { source }
    } else {
        EnrolError::Call { source }
    }
}

/// Why a device could not enrol.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// A call came to nothing.
    #[error("cannot enrol")]
    Call {
        /// Why.
        source: CallError,
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
    /// An operator said no.
    #[error("cannot enrol: an operator has denied this device")]
    Denied {
        /// In these words.
        source: CallError,
    },
    /// Nobody has shown the pinned root.
    #[error("cannot enrol: nothing secret has been sent")]
    FirstContact {
        /// Why.
        source: transport::enrol::EnrolError,
    },
    /// The host name is no name for a device.
    #[error("cannot use the host name {host:?} as a name for this device: choose one with --id")]
    HostName {
        /// What it is.
        host: String,
    },
    /// What enrolment made cannot be kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Issued {
        /// Why not.
        source: transport::enrol::EnrolError,
    },
    /// This data folder belongs to another deployment.
    #[error(
        "cannot enrol: this data folder belongs to deployment {deployment}; use another with --data"
    )]
    OtherDeployment {
        /// Which.
        deployment: String,
    },
    /// The certificate is for somebody else.
    #[error("cannot use the certificate that was issued: it is for {got}")]
    OtherName {
        /// For whom.
        got: String,
    },
    /// Nobody has approved yet.
    #[error("cannot wait any longer for an operator to approve {id}: run the same command again")]
    Pending {
        /// What this device asked to be called.
        id: String,
    },
    /// The server may not be spoken to.
    #[error("cannot trust the server: {reason}")]
    Server {
        /// Why not.
        reason: certs::RefusalReason,
    },
    /// The origin's lists or document cannot be had.
    #[error(transparent)]
    Standing(#[from] SessionError),
    /// Another key has that name.
    #[error("cannot enrol under this name: choose another with --id")]
    Taken {
        /// In the origin's words.
        source: CallError,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls {
        /// Why.
        source: certs::tls::TlsError,
    },
    /// The token is unknown, used up or past its end.
    #[error("cannot enrol with this join string: ask for a new one")]
    Token {
        /// In the origin's words.
        source: CallError,
    },
}

/// Between two tries while the origin cannot be reached.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
