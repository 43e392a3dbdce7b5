//! What a booster is made of, put together.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use certs::Role;
use certs::tls::{self};
use content::statement::{Payload as _, Spoken};
use member::{Data, Identity, Kind, Lock, Member, OpenError, Skew, skew};
use protocol::{Code, Fault};
use service::metrics::Registry;
use service::{Clock, Report, Tasks};
use tokio::time::timeout;
use tracing::warn;
use transport::{
    ContentJudge, HandshakeSink, ListenSettings, Listener, ReadBodyError, Refusals, Refused, Relay,
    RelaySettings, Session, hear,
};

use super::BindError;
use super::sources::{Places, Sources, apply};
use crate::api::{Api, From};
use crate::cache::scrub::Scrubber;
use crate::cache::{Asker, Cache, StoreError, off_runtime};
use crate::catalogue::{self, AnyJudge, Catalogue};
use crate::clock::ClockWatch;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::offline::{Offline, Phase, Seen};
use crate::pins::Pins;
use crate::renewal::Renewal;
use crate::revocation::Revocation;
use crate::roster::{RosterParts, Rosters};
use crate::upstream::Upstreams;
use crate::wan::Wan;

/// Everything but the listeners.
pub(super) struct Parts {
    pub(super) cache: Cache,
    pub(super) catalogue: Catalogue,
    pub(super) clock: Clock,
    pub(super) data: Data,
    pub(super) identity: Arc<Identity>,
    pub(super) lock: Lock,
    pub(super) metrics: Metrics,
    pub(super) offline: Offline,
    pub(super) refusals: Refusals,
    pub(super) registry: Registry,
    pub(super) renewal: Renewal,
    pub(super) revocation: Revocation,
    pub(super) scrubber: Scrubber,
    skew: Arc<Mutex<Option<Skew>>>,
    pub(super) sources: Sources,
    pub(super) wan: Wan,
}

impl Parts {
    pub(super) async fn make(
        config: &Config,
        clock: &Clock,
        tasks: &Tasks,
    ) -> Result<Self, BindError> {
        let Member {
            clock,
            data,
            identity,
            lock,
            state,
        } = open(config, clock).await?;
        let (clock, registry) = (&clock, Registry::new("larder_booster"));
        let metrics = Metrics::register(&registry)?;
        let refusals = Refusals::new(clock.clone());
        let offline = Offline::new(
            &identity.trust,
            config.crl_grace(),
            clock,
            open_seen(&data).await?,
            &refusals,
            &metrics,
        );
        let wan = Wan::new(config.wan().clone(), clock.clone(), metrics.wan.clone());
        let sources = Sources::make(&identity, config.parents(), clock, &refusals, &wan)?;
        let places = Places::make(&sources, &metrics);
        let documents = places.documents();
        let revocation = Revocation::new(
            &identity.trust,
            &documents,
            &sources.public,
            &state,
            clock,
            tasks.spawner(),
            &metrics,
        );
        let renewal = sources.renewal(&identity, clock, &metrics, &refusals);
        catch_up(&identity, &renewal, &revocation, clock.now()).await?;
        let cache = open_cache(config, &data, places.packs(), tasks, &metrics, clock.now()).await?;
        let catalogue = Catalogue::open(catalogue::Parts {
            cache: cache.clone(),
            clock: clock.clone(),
            judge: AnyJudge(Arc::new(ContentJudge::new(Arc::clone(&identity.trust)))),
            lists: Arc::new(revocation.clone()),
            pins: Pins::open(&data.state()),
            spawner: tasks.spawner(),
            state,
            upstreams: documents,
        })
        .await?;
        let scrubber = open_scrubber(&cache, &data, &catalogue, clock, &offline);
        let parts = Self {
            cache,
            catalogue,
            clock: clock.clone(),
            data,
            identity,
            lock,
            metrics,
            offline,
            refusals,
            registry,
            renewal,
            revocation,
            scrubber,
            skew: Arc::default(),
            sources,
            wan,
        };
        parts.find_origin().await;
        Ok(parts)
    }

    /// What holds the clock against the origin's.
    pub(super) fn clock_watch(&self) -> ClockWatch {
        ClockWatch {
            clock: self.clock.clone(),
            folder: self.data.state(),
            identity: Arc::clone(&self.identity),
            last: Arc::clone(&self.skew),
            metrics: self.metrics.clone(),
            public: Arc::clone(&self.sources.public),
            refusals: self.refusals.clone(),
        }
    }

    /// Learns where the origin serves content: from the document that we have, else from the one
    /// that it shows to everybody.
    async fn find_origin(&self) {
        if self.catalogue.document().borrow().is_none()
            && let Err(failure) = timeout(START_PATIENCE, self.catalogue.look_for_document()).await
        {
            warn!(error = %failure, "cannot get the deployment document yet");
        }
        let document = self.catalogue.document().borrow().clone();
        if let Some(document) = document {
            let now = self.clock.now();
            apply(&document.statement, &self.identity, &self.sources, now).await;
        }
    }

    /// What holds for devices as far as the last run knew, followed from now on.
    pub(super) async fn follow_rosters(&self, config: &Config, tasks: &Tasks) -> Rosters {
        let identity = &self.identity;
        let (rosters, outbox) = Rosters::open(RosterParts {
            cache: self.cache.clone(),
            clock: self.clock.clone(),
            folder: self.data.state(),
            id: identity.name.id.to_string(),
            judge: AnyJudge(Arc::new(ContentJudge::new(Arc::clone(&identity.trust)))),
            metrics: self.metrics.roster.clone(),
            origin: Arc::clone(self.sources.content()),
            spawner: tasks.spawner(),
            speaks: config.check_ins(),
            trust: Arc::clone(&identity.trust),
        })
        .await;
        let followed = rosters.clone();
        tasks.start("roster", |stop| followed.run(stop));
        tasks.start("outbox", |stop| outbox.run(stop));
        rosters
    }

    /// Opens the listener for clients, as many at a time as `config` says.
    pub(super) async fn listen(
        &self,
        config: &Config,
        rosters: &Rosters,
    ) -> Result<Listener, BindError> {
        let (address, connections_max) = (config.content().listen, config.connections_max());
        let mut roles = vec![Role::Client];
        // Where they may, they fetch as a client does.
        roles.extend(config.boosters().then_some(Role::Booster));
        let purpose = tls::Listener::Data { roles };
        let clock = self.clock.clone();
        let time = tls::time_from(move || clock.now());
        let Identity { cell, trust, .. } = &*self.identity;
        let settings = ListenSettings {
            tls: Arc::new(tls::server_config(&purpose, trust, cell, &time)?),
            trust: Arc::clone(trust),
            clock: self.clock.clone(),
            limits: transport::listen::Limits {
                connections_max,
                ..Default::default()
            },
        };
        let api = Arc::new(Api {
            cache: self.cache.clone(),
            catalogue: self.catalogue.clone(),
            clock: self.clock.clone(),
            deployment: self.identity.name.deployment.to_string(),
            id: self.identity.name.id.to_string(),
            metrics: self.metrics.clone(),
            rosters: Some(rosters.clone()),
            trust: Arc::clone(trust),
        });
        let sink = Arc::new(Hearing {
            metrics: self.metrics.clone(),
            offline: self.offline.clone(),
            refusals: self.refusals.clone(),
        });
        let offline = self.offline.clone();
        let listener = Listener::bind(
            address,
            settings,
            move |request, session| {
                let (head, body) = request.into_parts();
                let (api, admitted) = (Arc::clone(&api), offline.admit(&session));
                let from = session.keep(from);
                async move {
                    let mut turn = match api.room(&from, &head) {
                        // Of other bodies nothing is read.
                        Ok(None) => return api.answer(&from, admitted, &head, Bytes::new()).await,
                        Ok(Some(turn)) => turn,
                        Err(told) => {
                            return api.answer(&from, Err(told), &head, Bytes::new()).await;
                        }
                    };
                    // In a box: those who ask for packs, and are many, need no room for it.
                    let heard = hear(body, Spoken::ENVELOPE_BYTES_MAX, BODY_IDLE);
                    let (admitted, body) = match Box::pin(in_time(heard)).await {
                        Ok(body) => (admitted, body),
                        Err(told) => (Err(told), Bytes::new()),
                    };
                    turn.heard();
                    api.answer(&from, admitted, &head, body).await
                }
            },
            sink,
        );
        Ok(listener.await?)
    }

    /// Opens the relay to the origin's enrolment listener. It leads nowhere unless the lists are
    /// fresh: who reaches that listener gets them from it.
    pub(super) async fn relay(&self, address: SocketAddr) -> Result<Relay, BindError> {
        let public = Arc::clone(&self.sources.public);
        let offline = self.offline.clone();
        let targets = move || match offline.outlook().phase {
            Phase::Fresh => public.addresses().to_vec(),
            Phase::Grace | Phase::Closed => Vec::new(),
        };
        let settings = RelaySettings::new(Arc::new(targets));
        Ok(Relay::bind(address, settings).await?)
    }
}

/// Who asks over `session`.
fn from(session: &Session) -> From {
    let peer = session.peer();
    From {
        asker: peer.map_or(Asker::NOBODY, |peer| Asker::device(peer.id().as_str())),
        device: peer
            .filter(|peer| peer.role() == Role::Client)
            .map(|peer| peer.id().to_string()),
    }
}

/// A body, if it comes in time.
async fn in_time(
    heard: impl Future<Output = Result<Bytes, ReadBodyError>>,
) -> Result<Bytes, Fault> {
    let broken = || Fault::new(Code::BadRequest, "the body broke off, or took too long");
    let heard = timeout(BODY_PATIENCE, heard).await;
    heard.map_err(|_| broken())?.map_err(|failure| {
        if matches!(failure, ReadBodyError::TooLong { .. }) {
            Fault::new(Code::TooLarge, failure.to_string())
        } else {
            broken()
        }
    })
}

/// Opens the cache, to be filled from the origin.
async fn open_cache(
    config: &Config,
    data: &Data,
    packs: Arc<Upstreams>,
    tasks: &Tasks,
    metrics: &Metrics,
    now: i64,
) -> Result<Cache, StoreError> {
    Cache::open(
        &data.root().join("cache"),
        config.cache(),
        packs,
        tasks.spawner(),
        metrics.cache.clone(),
        now,
    )
    .await
}

/// Opens the scrub of the cache. What is damaged is fetched again if a locator still names it, and
/// if the lists are fresh: else nothing is fetched for anybody.
fn open_scrubber(
    cache: &Cache,
    data: &Data,
    catalogue: &Catalogue,
    clock: &Clock,
    offline: &Offline,
) -> Scrubber {
    let (known, offline) = (catalogue.clone(), offline.clone());
    let wanted = move |id| {
        let may_fetch = offline.outlook().phase == Phase::Fresh;
        may_fetch.then(|| known.find(id)).flatten()
    };
    let path = data.state().join("scrub.json");
    Scrubber::open(cache.clone(), path, clock.clone(), Arc::new(wanted))
}

/// Whom the last run let in.
async fn open_seen(data: &Data) -> Result<Seen, BindError> {
    let state = data.state();
    let seen = off_runtime(move || Seen::open(&state)).await;
    seen.ok_or_else(interrupted)
}

fn interrupted() -> BindError {
    BindError::Stopped(std::io::ErrorKind::Interrupted.into())
}

/// Who we are, and what the last run knew.
async fn open(config: &Config, clock: &Clock) -> Result<Member, BindError> {
    let (data, grace, own) = (config.data().to_owned(), config.crl_grace(), clock.clone());
    let opened = off_runtime(move || Member::open(&data, Kind::Booster, grace, &own));
    let opened = opened.await.ok_or_else(interrupted)?;
    if let Err(OpenError::NoRoot { .. }) = opened {
        // By how much the clock is ahead, `status` can then say.
        let _told_by_status = skew::look(config.data(), Kind::Booster, clock).await;
    }
    Ok(opened?)
}

/// Makes up for time that was slept through: a certificate that has run out, lists that are missing
/// or old. Only a list that was never there keeps the booster from starting.
async fn catch_up(
    identity: &Identity,
    renewal: &Renewal,
    revocation: &Revocation,
    now: i64,
) -> Result<(), BindError> {
    if identity.has_expired(now) {
        match timeout(START_PATIENCE, renewal.renew()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => {
                warn!(error = %Report(&failure), "our certificate has run out");
            }
            Err(late) => warn!(error = %late, "our certificate has run out"),
        }
    }
    let trust = &identity.trust;
    let cas = trust.roots().into_iter().chain(trust.issuing_cas());
    let in_force = |ca: &Arc<certs::CaCert>| trust.crls().current(ca.id());
    let outdated = cas
        .into_iter()
        .any(|ca| in_force(&ca).is_none_or(|crl| crl.next_update() <= now));
    if outdated && let Err(late) = timeout(START_PATIENCE, revocation.poll_all()).await {
        warn!(error = %late, "cannot bring the revocation lists up to date");
    }
    let roles = [Role::Booster, Role::Client, Role::Signer];
    if trust.missing_crls(&roles).is_empty() {
        Ok(())
    } else {
        Err(BindError::Lists)
    }
}

/// Counts who comes, and who is turned away; the latter is reported to the origin, too.
struct Hearing {
    metrics: Metrics,
    offline: Offline,
    refusals: Refusals,
}

impl HandshakeSink for Hearing {
    fn accepted(&self, session: &Session) {
        self.metrics.handshakes_accepted.inc();
        self.offline.accepted(session);
    }

    fn refused(&self, refused: &Refused) {
        let reason = refused.reason.as_str();
        self.metrics
            .handshakes_refused
            .with_label_values(&[reason])
            .inc();
        self.refusals.note(refused);
    }
}

/// How long a body may fall silent.
const BODY_IDLE: Duration = Duration::from_secs(5);
/// How long it may take to come.
const BODY_PATIENCE: Duration = Duration::from_secs(20);
/// How long a start may wait for the origin before it goes on without.
const START_PATIENCE: Duration = Duration::from_secs(20);
