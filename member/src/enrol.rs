//! Enrolment: a member gets its first certificate.
//!
//! Nothing secret is sent before whoever answers has shown the pinned root, proved to be the origin
//! of its deployment, and been looked up in that deployment's revocation lists.

mod ask;
mod error;
mod patience;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use certs::ca_cert::CaCertError;
use certs::tls::{CertCell, Expected};
use certs::trust::Revocation;
use certs::{DeviceId, Key, Peer, Role, Trust};
use config::HostPort;
use protocol::Join;
use serde::Serialize;
use service::Clock;
use transport::enrol::{Accepted, first_contact};
use transport::source::CallLimits;
use transport::{Refusals, Source, SourceSettings};

use crate::blocking::off_the_runtime;
use crate::courier::Courier;
use crate::data::{Data, DataError, Lock};
use crate::identity::{self, Identity, IdentityError, Joined};
use crate::kind::Kind;
use crate::standing;
use crate::state::State;
use ask::Asking;
use error::refused;
use patience::Patience;

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
    /// How long to wait for an operator, or for an origin that has too much to do.
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
    /// Too many ask at the same time.
    Busy {
        /// When it asks again.
        retry_after: Duration,
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
            Self::Busy { retry_after } => write!(
                f,
                "the origin has too much to do, asking again in {} s",
                retry_after.as_secs()
            ),
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
    let (_lock, key, known) = prepare(&data, clock.now()).await?;
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
    // Whoever stood in for the origin is noted, and reported as soon as there is somebody to tell:
    // now, or when an origin has let us in.
    let mut courier = Courier::new(&data.state(), &refusals);
    let (enrolled, source) = courier.during(first.enrol(note)).await?;
    if courier.has_work().await {
        courier.flush(&[Arc::new(source)], TELL_PATIENCE).await;
    }
    Ok(enrolled)
}

/// Makes the data folder and the key, and looks whether all is done already.
async fn prepare(data: &Data, now: i64) -> Result<(Lock, Key, Option<Identity>), EnrolError> {
    let own = data.clone();
    let prepared = off_the_runtime(move || {
        own.create()?;
        let lock = own.lock()?;
        let key = identity::key(&own.identity())?;
        let known = Identity::load(&own.identity(), own.kind(), Duration::ZERO, now)?;
        Ok((lock, key, known))
    });
    prepared.await.map_err(|source| stopped(data, source))?
}

fn stopped(data: &Data, source: io::Error) -> EnrolError {
    let path = data.root().to_owned();
    EnrolError::Data(DataError::Io { path, source })
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
    /// What came of it, and calls to the origin that show the new certificate.
    async fn enrol(self, note: impl Fn(EnrolNote)) -> Result<(EnrolReport, Source), EnrolError> {
        let (clock, request) = (self.clock, self.request);
        let (kind, join) = (request.kind, &request.join);
        let patience = Patience::new(request.patience, &note);
        let trust = patience.with(|| self.meet()).await?;
        let expected = Expected::AnyOf(Role::Origin);
        let source = self.calls(expected, &trust, None)?;
        let (origin, again) = patience.with(|| self.sure_of(&source, &trust)).await?;
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
        let accepted = asking.ask(&self.id, &patience).await?;
        let joined = Joined {
            advertise: request.advertise.iter().map(HostPort::to_string).collect(),
            addresses: join.addresses.clone(),
            deployment: trust.deployment().to_string(),
            id: self.id.to_string(),
            origin: origin.id().to_string(),
        };
        let (own, expected) = (
            cell(&accepted, self.key)?,
            Expected::Exactly(origin.identity().clone()),
        );
        let source = self.calls(expected, &trust, Some(own))?;
        self.store(&joined, &trust, &accepted).await?;
        let report = EnrolReport {
            already: false,
            deployment: joined.deployment,
            fingerprint: self.key.fingerprint(),
            id: joined.id,
            not_after: accepted.peer.not_after(),
        };
        Ok((report, source))
    }

    /// Finds the pinned root, and nothing else: nobody is trusted before that. Whoever has it not
    /// is noted.
    async fn meet(&self) -> Result<Arc<Trust>, EnrolError> {
        let (clock, join) = (self.clock, &self.request.join);
        let (addresses, limits) = (join.addresses.clone(), CallLimits::default());
        let first = first_contact(addresses, &[join.pin], clock, &limits).await;
        let first = first.map_err(|source| {
            self.note(&source);
            EnrolError::FirstContact { source }
        })?;
        let trust = identity::new_trust(&[first.root.der()], clock.now())?;
        for ca in &first.certs {
            // The root itself is among them, and whatever it has not signed is passed over.
            drop(trust.add_issuing_ca(ca, clock.now()));
        }
        Ok(Arc::new(trust))
    }

    fn note(&self, failure: &transport::enrol::EnrolError) {
        if let transport::enrol::EnrolError::Pin { source, stranger } = failure
            && let Some(stranger) = stranger
            // The right root at the wrong time says nothing of who showed it.
            && *source != CaCertError::OutOfDate
        {
            self.refusals.note_stranger(stranger);
        }
    }

    /// Who answers, before and after it was looked up in the lists of its deployment. Nothing
    /// secret is sent.
    async fn sure_of(
        &self,
        source: &Source,
        trust: &Arc<Trust>,
    ) -> Result<(Peer, Peer), EnrolError> {
        let origin = source.identify().await.map_err(refused)?;
        let (state, now) = (State::new(self.data.state()), self.clock.now());
        standing::fetch(source, trust, &state, self.request.kind, now).await?;
        let again = source.identify().await.map_err(refused)?;
        Ok((origin, again))
    }

    /// Calls to the enrolment listener, to which `own` is shown.
    fn calls(
        &self,
        expected: Expected,
        trust: &Arc<Trust>,
        own: Option<Arc<CertCell>>,
    ) -> Result<Source, EnrolError> {
        let settings = SourceSettings {
            addresses: self.request.join.addresses.clone(),
            expected,
            revocation: Revocation::BestEffort,
            trust: Arc::clone(trust),
            own,
            clock: self.clock.clone(),
            http2: false,
            limits: CallLimits::default(),
            refusals: Some(self.refusals.clone()),
        };
        Source::new(settings).map_err(|source| EnrolError::Tls { source })
    }

    async fn store(
        &self,
        joined: &Joined,
        trust: &Arc<Trust>,
        accepted: &Accepted,
    ) -> Result<(), EnrolError> {
        let (folder, joined) = (self.data.identity(), joined.clone());
        let (trust, chain) = (Arc::clone(trust), accepted.chain_der.clone());
        let stored = off_the_runtime(move || identity::store(&folder, &joined, &trust, &chain));
        let stored = stored.await.map_err(|source| stopped(self.data, source))?;
        Ok(stored?)
    }
}

fn cell(accepted: &Accepted, key: &Key) -> Result<Arc<CertCell>, EnrolError> {
    let cell = CertCell::new(&accepted.chain_der, key).map_err(IdentityError::from)?;
    Ok(Arc::new(cell))
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

/// This machine's host name, as far as it can be an id.
fn host_id() -> Result<DeviceId, EnrolError> {
    let name = rustix::system::uname();
    let host = name.nodename().to_string_lossy().to_lowercase();
    let label = host.split('.').next().unwrap_or_default().to_owned();
    label.parse().map_err(|_| EnrolError::HostName { host })
}

/// An operator looks at what is pending within a working day.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// How long somebody who has just enrolled waits for the origin to hear of others.
const TELL_PATIENCE: Duration = Duration::from_secs(10);
