//! Enrolment: a member gets its first certificate, or another for its key when the one that it has
//! counts no more.
//!
//! Nothing secret is sent before whoever answers has shown the pinned root, proved to be the origin
//! of its deployment, and been looked up in that deployment's revocation lists.

mod again;
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
use certs::{DeviceId, Key, Peer, RefusalReason, Role, Trust};
use config::HostPort;
use protocol::Join;
use serde::Serialize;
use service::{Clock, Report};
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
use again::{Known, Standing};
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
    /// What it shall be called; if that is not said, what it is called already, or else its host
    /// name.
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
    /// Whether it had enrolled before, with a certificate that counts: nothing was done.
    pub already: bool,
    /// Whether it had enrolled before, with a certificate that counted no more: it has another, for
    /// the same key.
    pub anew: bool,
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
        let how = match (self.already, self.anew) {
            (true, _) => "already enrolled",
            (false, true) => "enrolled anew, with the same key,",
            (false, false) => "enrolled",
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
    /// It has a certificate that is in date, and nobody can be asked whether it still counts.
    Unasked {
        /// Why not.
        why: String,
    },
    /// It has a certificate that counts no more, and asks for another.
    Void {
        /// What it is.
        kind: Kind,
        /// Why it counts no more.
        reason: RefusalReason,
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
            Self::Unasked { why } => write!(
                f,
                "whether the certificate still counts is not known, only that it is in date: {why}"
            ),
            Self::Void { kind, reason } => write!(
                f,
                "the certificate of this {kind} counts no more ({reason}): asking for another"
            ),
        }
    }
}

/// Enrols a member. Run again, it goes on where it was, or finds that all is done: a certificate
/// that still counts is kept, for one that does not another is got, for the same key.
///
/// # Errors
///
/// Fails if nobody answers (unless there is a certificate in date), if whoever answers has not the pinned root or has been revoked (then
/// nothing secret has been sent), or if the origin refuses.
pub async fn enrol(
    request: EnrolRequest,
    clock: &Clock,
    note: impl Fn(EnrolNote),
) -> Result<EnrolReport, EnrolError> {
    let join = &request.join;
    let data = Data::new(&request.data, request.kind);
    let (_lock, key, known) = prepare(&data, clock.now()).await?;
    let known = known.map(|known| Known::of(known, join)).transpose()?;
    let id = match (&request.id, &known) {
        (Some(id), _) => id.clone(),
        (None, Some(known)) => known.id().clone(),
        (None, None) => host_id()?,
    };
    let refusals = Refusals::new(clock.clone());
    let asker = Asker {
        clock,
        data: &data,
        id,
        key: &key,
        known: known.as_ref(),
        refusals: &refusals,
        request: &request,
    };
    // Whoever stood in for the origin is noted, and reported as soon as there is somebody to tell:
    // now, or when an origin has let us in.
    let mut courier = Courier::new(&data.state(), &refusals);
    // On the heap: all that may happen on the way is large, and who calls us may be deep.
    let asked = Box::pin(asker.enrol(note));
    let (enrolled, source) = courier.during(asked).await?;
    if let Some(source) = source
        && courier.has_work().await
    {
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

/// Who enrols.
struct Asker<'a> {
    clock: &'a Clock,
    data: &'a Data,
    id: DeviceId,
    key: &'a Key,
    /// Who it has been so far.
    known: Option<&'a Known>,
    refusals: &'a Refusals,
    request: &'a EnrolRequest,
}

/// The origin, found to be who it should be.
struct Met {
    origin: Peer,
    /// Calls to it, to which nothing is shown.
    source: Source,
    trust: Arc<Trust>,
}

/// What came of it, and calls to the origin that show the certificate, if it was spoken to.
type Outcome = (EnrolReport, Option<Source>);

impl Asker<'_> {
    async fn enrol(self, note: impl Fn(EnrolNote)) -> Result<Outcome, EnrolError> {
        let patience = Patience::new(self.request.patience, &note);
        let Some(known) = self.known else {
            let met = self.meet(&patience).await?;
            return self.ask(&met, &patience).await;
        };
        match self.look(known, &patience).await {
            Ok(Standing::Good(source)) => Ok((known.already(), Some(*source))),
            Ok(Standing::Void(met, reason)) => {
                let kind = self.request.kind;
                patience.note(EnrolNote::Void { kind, reason });
                self.ask(&met, &patience).await
            }
            Err(failure) if failure.is_of_the_way() && known.is_in_date(self.clock.now()) => {
                let why = Report(&failure).to_string();
                patience.note(EnrolNote::Unasked { why });
                Ok((known.already(), None))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Finds the origin and learns whom it trusts. Nothing secret is sent.
    async fn meet(&self, patience: &Patience<impl Fn(EnrolNote)>) -> Result<Met, EnrolError> {
        let trust = patience.with(|| self.find_root()).await?;
        if self.known.is_some() {
            self.take_up_lists(&trust).await?;
        }
        let source = self.calls(Expected::AnyOf(Role::Origin), &trust, None)?;
        let (origin, again) = patience.with(|| self.sure_of(&source, &trust)).await?;
        trust
            .check(&again, self.clock.now())
            .map_err(|reason| EnrolError::Server { reason })?;
        Ok(Met {
            origin,
            source,
            trust,
        })
    }

    /// Asks for a certificate, and keeps it.
    async fn ask(
        &self,
        met: &Met,
        patience: &Patience<impl Fn(EnrolNote)>,
    ) -> Result<Outcome, EnrolError> {
        patience.note(EnrolNote::Asking {
            fingerprint: self.key.fingerprint(),
            id: self.id.to_string(),
        });
        let asking = Asking {
            clock: self.clock,
            join: &self.request.join,
            key: self.key,
            kind: self.request.kind,
            source: &met.source,
            trust: &met.trust,
        };
        let accepted = asking.ask(&self.id, patience).await?;
        let source = self.showing(met, cell(&accepted, self.key)?)?;
        if self.known.is_some() {
            // The old one stays until the new one has been taken.
            let show = || async { source.identify().await.map_err(refused) };
            patience.with(show).await?;
        }
        let joined = self.joined(met);
        self.store(&joined, &met.trust, &accepted).await?;
        let report = EnrolReport {
            already: false,
            anew: self.known.is_some(),
            deployment: joined.deployment,
            fingerprint: self.key.fingerprint(),
            id: joined.id,
            not_after: accepted.peer.not_after(),
        };
        Ok((report, Some(source)))
    }

    /// What is to be kept beside the certificate.
    fn joined(&self, met: &Met) -> Joined {
        let mut advertise: Vec<String> = self
            .request
            .advertise
            .iter()
            .map(HostPort::to_string)
            .collect();
        if let Some(known) = self.known
            && advertise.is_empty()
        {
            advertise = known.advertise().to_vec();
        }
        Joined {
            advertise,
            addresses: self.request.join.addresses.clone(),
            deployment: met.trust.deployment().to_string(),
            id: self.id.to_string(),
            origin: met.origin.id().to_string(),
        }
    }

    /// Calls to the origin that was met, to which `own` is shown.
    fn showing(&self, met: &Met, own: Arc<CertCell>) -> Result<Source, EnrolError> {
        let expected = Expected::Exactly(met.origin.identity().clone());
        self.calls(expected, &met.trust, Some(own))
    }

    /// Finds the pinned root, and nothing else: nobody is trusted before that. Whoever has it not
    /// is noted.
    async fn find_root(&self) -> Result<Arc<Trust>, EnrolError> {
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
