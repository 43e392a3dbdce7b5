//! Enrolment: a member gets its first certificate.
//!
//! Nothing secret is sent before whoever answers has shown the pinned root, proved to be the origin
//! of its deployment, and been looked up in that deployment's revocation lists.

mod ask;
mod error;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use certs::tls::Expected;
use certs::trust::Revocation;
use certs::{DeviceId, Key, Role, Trust};
use config::HostPort;
use protocol::Join;
use serde::Serialize;
use service::Clock;
use transport::enrol::first_contact;
use transport::source::CallLimits;
use transport::{Refusals, Source, SourceSettings};

use crate::courier::Courier;
use crate::data::Data;
use crate::identity::{self, Identity, Joined};
use crate::kind::Kind;
use crate::standing;
use crate::state::State;
use ask::Asking;
use error::refused;

pub use error::EnrolError;

/// What enrolment needs to know.
#[derive(Clone, Debug)]
pub struct EnrolRequest {
    /// Where others will reach it, if that is not to be found out. Boosters only.
    pub advertise: Vec<HostPort>,
    /// Where to keep what comes of it.
    pub data: PathBuf,
    /// What it shall be called; its host name if that is not said.
    pub id: Option<DeviceId>,
    /// What the operator handed out.
    pub join: Join,
    /// What it enrols as.
    pub kind: Kind,
    /// How long to wait for an operator.
    pub patience: Duration,
}

impl EnrolRequest {
    /// To enrol in `data` with `join` under the host's name, and to wait a day for an operator.
    #[must_use]
    pub fn new(kind: Kind, data: PathBuf, join: Join) -> Self {
        Self {
            advertise: Vec::new(),
            data,
            id: None,
            join,
            kind,
            patience: PATIENCE,
        }
    }
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
    /// What it is called.
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
        /// What has to be approved.
        kind: Kind,
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
            Self::Pending { kind, retry_after } => write!(
                f,
                "waiting for an operator to approve this {kind}, asking again every {} s",
                retry_after.as_secs()
            ),
        }
    }
}

/// Enrols a member. Run again, it goes on where it was, or finds that all is done.
///
/// # Errors
///
/// Fails if nobody answers, if whoever answers has not the pinned root or has been revoked (then
/// nothing secret has been sent), or if the origin refuses.
pub async fn enrol(
    request: EnrolRequest,
    clock: &Clock,
    note: impl Fn(EnrolNote),
) -> Result<EnrolReport, EnrolError> {
    let (kind, join) = (request.kind, &request.join);
    let data = Data::new(&request.data, kind);
    data.create()?;
    let _lock = data.lock()?;
    let key = identity::key(&data.identity())?;
    let known = Identity::load(&data.identity(), kind, Duration::ZERO, clock.now())?;
    if let Some(known) = known {
        return already(&known, join);
    }
    let id = request.id.clone().map_or_else(host_id, Ok)?;
    note(EnrolNote::Asking {
        fingerprint: key.fingerprint(),
        id: id.to_string(),
    });
    let refusals = Refusals::new(clock.clone());
    let first = First {
        clock,
        data: &data,
        id,
        key: &key,
        refusals: &refusals,
        request: &request,
    };
    let enrolled = first.enrol(note).await;
    // Whoever stood in for the origin is reported as soon as there is somebody to tell.
    let mut courier = Courier::open(&data.state(), &refusals);
    courier.flush(&[], Duration::ZERO).await;
    enrolled
}

/// A first enrolment.
struct First<'a> {
    clock: &'a Clock,
    data: &'a Data,
    id: DeviceId,
    key: &'a Key,
    refusals: &'a Refusals,
    request: &'a EnrolRequest,
}

impl First<'_> {
    async fn enrol(self, note: impl Fn(EnrolNote)) -> Result<EnrolReport, EnrolError> {
        let (clock, data, request) = (self.clock, self.data, self.request);
        let (kind, join) = (request.kind, &request.join);
        let trust = meet(join, clock).await?;
        let source = origin_source(&join.addresses, &trust, clock, self.refusals)?;
        let origin = source.identify().await.map_err(refused)?;
        // Before anything secret is sent: the server may have been revoked.
        let state = State::new(data.state());
        standing::fetch(&source, &trust, &state, kind, clock.now()).await?;
        let again = source.identify().await.map_err(refused)?;
        trust
            .check(&again, clock.now())
            .map_err(|reason| EnrolError::Server { reason })?;
        let asking = Asking {
            clock,
            join,
            key: self.key,
            kind,
            source: &source,
            trust: &trust,
        };
        let accepted = asking.ask(&self.id, request.patience, note).await?;
        let joined = Joined {
            advertise: request.advertise.iter().map(HostPort::to_string).collect(),
            addresses: join.addresses.clone(),
            deployment: trust.deployment().to_string(),
            id: self.id.to_string(),
            origin: origin.id().to_string(),
        };
        identity::store(&data.identity(), &joined, &trust, &accepted.chain_der)?;
        Ok(EnrolReport {
            already: false,
            deployment: joined.deployment,
            fingerprint: self.key.fingerprint(),
            id: joined.id,
            not_after: accepted.peer.not_after(),
        })
    }
}

/// Finds the pinned root, and nothing else: nobody is trusted before that.
async fn meet(join: &Join, clock: &Clock) -> Result<Arc<Trust>, EnrolError> {
    let (addresses, limits) = (join.addresses.clone(), CallLimits::default());
    let first = first_contact(addresses, &[join.pin], clock, &limits).await;
    let first = first.map_err(|source| EnrolError::FirstContact { source })?;
    let trust = identity::new_trust(&[first.root.der()], clock.now())?;
    for ca in &first.certs {
        // The root itself is among them, and whatever it has not signed is passed over.
        drop(trust.add_issuing_ca(ca, clock.now()));
    }
    Ok(Arc::new(trust))
}

fn already(known: &Identity, join: &Join) -> Result<EnrolReport, EnrolError> {
    let roots = known.trust.roots();
    let deployment = known.joined.deployment.clone();
    if !roots.iter().any(|root| root.spki_sha256() == join.pin) {
        return Err(EnrolError::OtherDeployment { deployment });
    }
    Ok(EnrolReport {
        already: true,
        deployment,
        fingerprint: known.key.fingerprint(),
        id: known.joined.id.clone(),
        not_after: known.expires(),
    })
}

/// Calls to the enrolment listener of an origin whose name we do not know yet.
fn origin_source(
    addresses: &[String],
    trust: &Arc<Trust>,
    clock: &Clock,
    refusals: &Refusals,
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
        refusals: Some(refusals.clone()),
    };
    Source::new(settings).map_err(|source| EnrolError::Tls { source })
}

/// This machine's host name, as far as it can be an id.
fn host_id() -> Result<DeviceId, EnrolError> {
    let name = rustix::system::uname();
    let host = name.nodename().to_string_lossy().to_lowercase();
    let label = host.split('.').next().unwrap_or_default().to_owned();
    label.parse().map_err(|_| EnrolError::HostName { host })
}

/// An operator looks at what is pending within a working day.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
