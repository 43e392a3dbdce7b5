//! A device at work: who it is, what it has verified so far, and fresh enough lists to go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certs::Identity as Name;
use certs::tls::{CertCell, Expected};
use certs::trust::Revocation;
use content::statement::{Deployment, Statement};
use member::{
    Courier, Data, Due, Identity, IdentityError, Kind, Lock, Member, OpenError, Proof, RenewError,
    Skew, StandingError, State, StateError, renew, skew, standing,
};
use protocol::report::BypassReason;
use service::{Clock, Report};
use thiserror::Error;
use tracing::{info, warn};
use transport::{ContentJudge, Refusals, Source, SourceSettings};

use crate::choose::Chosen;
use crate::fetch::sources::Traffic;
use crate::guide::Guide;
use crate::net::limits;

/// Everything that a command with business on the network stands on.
#[derive(Debug)]
pub(crate) struct Session {
    /// The data folder.
    pub(crate) data: Data,
    /// Who we are.
    pub(crate) identity: Arc<Identity>,
    /// What was verified before.
    pub(crate) state: State,
    /// Who is who, if that is known.
    pub(crate) document: Option<Statement<Deployment>>,
    /// The time: never before what somebody we trust has vouched for.
    pub(crate) clock: Clock,
    /// For how long a timestamp or a list counts after its end.
    pub(crate) grace: Duration,
    /// Bytes that catching up took.
    pub(crate) enrol_bytes: u64,
    /// What keeps others away.
    pub(crate) lock: Arc<Lock>,
    /// Whether the clock should be held against the origin's.
    clock_is_due: bool,
    /// What is known of sources beside the document.
    pub(crate) guide: Guide,
    /// The sources of what was done since the last look at them.
    pub(crate) chosen: Vec<Chosen>,
    refusals: Refusals,
}

impl Session {
    /// Opens the data folder at `data` without touching the network.
    pub(crate) fn open(data: &Path, grace: Duration, clock: &Clock) -> Result<Self, SessionError> {
        let member = Member::open(data, Kind::Client, grace, clock)?;
        let document = member.state.document(&member.judge(), member.clock.now());
        let Member {
            clock,
            data,
            identity,
            lock,
            state,
        } = member;
        let refusals = Refusals::new(clock.clone());
        let clock_is_due = Skew::kept(&data.state()).is_some_and(Skew::is_large);
        Ok(Self {
            clock_is_due,
            guide: Guide::default(),
            chosen: Vec::new(),
            data,
            identity,
            state,
            document,
            clock,
            grace,
            enrol_bytes: 0,
            lock: Arc::new(lock),
            refusals,
        })
    }

    /// Who decides whether a statement counts.
    pub(crate) fn judge(&self) -> ContentJudge {
        ContentJudge::new(Arc::clone(&self.identity.trust))
    }

    /// Makes up for what was slept through: renews the certificate when it is due, and fetches the
    /// lists and the document without which no booster can be judged.
    pub(crate) async fn catch_up(&mut self) -> Result<(), SessionError> {
        // Not all devices at once.
        let due = self.identity.due(self.clock.now(), fastrand::f64());
        if self.is_behind() {
            self.fetch_standing().await?;
        } else if standing::is_overdue(&self.identity.trust, Kind::Client, self.clock.now())
            && let Err(error) = self.fetch_standing().await
        {
            let error = Report(&error);
            warn!(%error, "going by revocation lists that are overdue");
        }
        match due {
            Due::NotYet => Ok(()),
            Due::Now => {
                if let Err(error) = self.renew(Proof::Certificate).await {
                    // It still counts for a while: the next command tries again.
                    warn!(error = %Report(&error), "cannot renew the certificate");
                    if self.identity.is_overdue(self.clock.now()) {
                        self.identity.report_overdue(&self.refusals);
                    }
                }
                Ok(())
            }
            Due::Over => self.renew(Proof::Key).await,
        }
    }

    /// Holds the clock of this machine against the origin's if it was off before, if the origin has
    /// just been spoken to, or if something `failed` that may be its fault.
    pub(crate) async fn compare_clock(&mut self, failed: bool) {
        if !failed && !std::mem::take(&mut self.clock_is_due) {
            return;
        }
        let skew = skew::look(self.data.root(), Kind::Client, &self.clock).await;
        if let Some(skew) = skew.filter(|skew| skew.is_large()) {
            skew.tell(&self.refusals);
        }
    }

    /// What writes down, and takes to the origin, what is noted about others.
    pub(crate) fn courier(&self) -> Courier {
        Courier::new(&self.data.state(), &self.refusals)
    }

    /// Takes to the origin what was noted about others, here and in earlier runs. What it does not
    /// take now waits for the next run.
    pub(crate) async fn tell_origin(&mut self, courier: &mut Courier) {
        self.look_back();
        if !courier.has_work().await {
            return;
        }
        let own = Arc::clone(&self.identity.cell);
        let content = self.document.as_ref().map(|document| {
            let addresses = document.origin.addresses.clone();
            let origin = self.identity.origin.clone();
            self.source(origin, addresses, Some(&own), Revocation::Required)
        });
        let ways = content.into_iter().chain([self.enrol_source(Some(&own))]);
        let ways: Vec<Arc<Source>> = ways.flatten().map(Arc::new).collect();
        courier.flush(&ways, TELL_PATIENCE).await;
    }

    /// Takes note of how the sources did that were chosen since the last time: who is left alone for
    /// a while, and which boosters were gone round, of which the origin should hear.
    fn look_back(&mut self) {
        let now = self.clock.now();
        for Chosen { sources, resting } in std::mem::take(&mut self.chosen) {
            let (traffic, bypasses) = (sources.traffic(), sources.bypasses());
            let bytes = |it: &Traffic| it.pack_bytes + it.other_bytes;
            let instead = traffic.iter().filter(|it| it.booster().is_none());
            // What came instead is told of the first of those whom it could have come from.
            let mut instead: u64 = instead.map(bytes).sum();
            for bypass in &bypasses {
                let Some(booster) = bypass.booster() else {
                    continue;
                };
                let random = fastrand::f64();
                let guide = &mut self.guide;
                guide.went_round(booster, bypass.code, &bypass.reason, now, random);
                self.refusals.bypass(protocol::report::Bypass {
                    booster: booster.to_owned(),
                    reason: bypass.code,
                    bytes: std::mem::take(&mut instead),
                });
            }
            for booster in traffic.iter().filter(|it| bytes(it) > 0) {
                let id = booster.booster();
                let is_well = |id: &&str| bypasses.iter().all(|it| it.booster() != Some(id));
                if let Some(id) = id.filter(is_well) {
                    self.guide.worked(id);
                }
            }
            if let Some(booster) = resting.first().filter(|_| instead > 0) {
                self.refusals.bypass(protocol::report::Bypass {
                    booster: booster.clone(),
                    reason: BypassReason::Resting,
                    bytes: instead,
                });
            }
        }
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
            refusals: Some(self.refusals.clone()),
        };
        Source::new(settings).map_err(|source| SessionError::Tls { source })
    }

    /// Calls to an enrolment listener of the origin that show our certificate: through relays of
    /// boosters too, for who has no other way.
    pub(crate) fn known_source(&self) -> Result<Source, SessionError> {
        self.enrol_source(Some(&self.identity.cell))
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
        let origin = self.identity.origin.clone();
        self.source(origin, addresses, own, Revocation::BestEffort)
    }

    /// Whether something is missing to judge others by: at the start, or since somebody showed a
    /// certificate of a CA that was not known.
    pub(crate) fn is_behind(&self) -> bool {
        self.document.is_none()
            || standing::is_behind(&self.identity.trust, Kind::Client, self.clock.now())
    }

    /// Fetches issuing CAs, lists and document: all of it authenticates itself.
    pub(crate) async fn fetch_standing(&mut self) -> Result<(), SessionError> {
        info!("catching up");
        let source = self.enrol_source(None)?;
        let (trust, now) = (&self.identity.trust, self.clock.now());
        let fetched = standing::fetch(&source, trust, &self.state, Kind::Client, now).await;
        self.enrol_bytes += source.meter().bytes();
        fetched?;
        self.clock_is_due = true;
        self.identity.keep_cas_aside().await?;
        self.document = self.state.document(&self.judge(), self.clock.now());
        Ok(())
    }

    /// Calls to the origin's content listener, which show our certificate. It has no address while
    /// we do not know the deployment.
    pub(crate) fn origin_source(&self) -> Result<Source, SessionError> {
        let origin = self.identity.origin.clone();
        let own = Some(&self.identity.cell);
        self.source(origin, self.origin_addresses(), own, Revocation::Required)
    }

    /// Where the origin serves content, as far as we know.
    pub(crate) fn origin_addresses(&self) -> Vec<String> {
        let document = self.document.as_ref();
        document.map_or_else(Vec::new, |document| document.origin.addresses.clone())
    }

    /// Gets a new certificate, whether one is due or not.
    pub(crate) async fn renew_now(&mut self) -> Result<(), SessionError> {
        self.renew(Proof::Certificate).await
    }

    /// Gets a new certificate for the same key.
    async fn renew(&mut self, proof: Proof) -> Result<(), SessionError> {
        let source = match proof {
            Proof::Certificate => self.enrol_source(Some(&self.identity.cell))?,
            Proof::Key => self.enrol_source(None)?,
        };
        let renewed = renew(&self.identity, proof, &source, &self.clock).await;
        self.enrol_bytes += source.meter().bytes();
        renewed?;
        self.clock_is_due = true;
        Ok(())
    }
}

/// Where in the data folder at `data` the records of targets lie.
pub(crate) fn installed(data: &Path) -> PathBuf {
    data.join("installed")
}

/// Why we cannot go to work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// We do not know who we are.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What enrolment and earlier runs left cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A name is none.
    #[error("cannot ask a source without a name")]
    NoName,
    /// There is no new certificate.
    #[error(transparent)]
    Renew(#[from] RenewError),
    /// Lists and document cannot be had.
    #[error(transparent)]
    Standing(#[from] StandingError),
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

/// How long somebody who waits for a pull waits for the origin to hear of others: where the line
/// swallows everything, finding that out takes five seconds, and the relay's turn comes after it.
const TELL_PATIENCE: Duration = Duration::from_secs(15);
/// Boosters whose relay is tried if the origin cannot be reached.
const RELAYS_MAX: usize = 8;
