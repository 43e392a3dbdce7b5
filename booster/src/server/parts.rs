//! What a booster is made of, put together.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certs::Role;
use certs::tls::{self, Expected};
use certs::trust::Revocation as Strictness;
use content::statement::Deployment;
use member::{Data, Identity, Kind, Lock, Member, OpenError, Skew, roots, skew};
use service::metrics::Registry;
use service::{Clock, Report, Tasks};
use tokio::time::timeout;
use tracing::warn;
use transport::source::CallLimits;
use transport::{
    ContentJudge, HandshakeSink, ListenSettings, Listener, Meter, Refusals, Refused, Relay,
    RelaySettings, Session, Source, SourceSettings,
};

use super::BindError;
use crate::api::Api;
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
use crate::upstream::{Parent, Place, Rank, Remote, Upstream, Upstreams};

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
}

/// The ways to the origin, and to boosters before it.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    /// Its content listener.
    pub(super) content: Arc<Source>,
    /// Its enrolment listener, to which our certificate is shown.
    pub(super) known: Arc<Source>,
    /// Boosters that are asked before it, each with its name for the log.
    parents: Vec<(String, Arc<Source>)>,
    /// Its enrolment listener, to which nothing is shown.
    pub(super) public: Arc<Source>,
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
        let sources = Sources::make(&identity, config.parents(), clock, &refusals)?;
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

    /// Opens the listener for clients, as many at a time as `config` says.
    pub(super) async fn listen(&self, config: &Config) -> Result<Listener, BindError> {
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
                let (head, _body) = request.into_parts();
                let (api, admitted) = (Arc::clone(&api), offline.admit(&session));
                let asker = session.peer().map_or(Asker::NOBODY, |peer| {
                    Asker::device(peer.identity().id.as_str())
                });
                async move { api.answer(asker, admitted, head).await }
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

impl Sources {
    /// What the calls to the origin have cost.
    pub(super) fn meters(&self) -> [Arc<Meter>; 3] {
        [&self.content, &self.public, &self.known].map(|source| Arc::clone(source.meter()))
    }

    /// What renews our certificate by them.
    fn renewal(
        &self,
        identity: &Arc<Identity>,
        clock: &Clock,
        metrics: &Metrics,
        refusals: &Refusals,
    ) -> Renewal {
        Renewal {
            clock: clock.clone(),
            identity: Arc::clone(identity),
            metrics: metrics.clone(),
            known: Arc::clone(&self.known),
            public: Arc::clone(&self.public),
            refusals: refusals.clone(),
        }
    }

    pub(super) fn make(
        identity: &Identity,
        parents: &[Parent],
        clock: &Clock,
        refusals: &Refusals,
    ) -> Result<Self, BindError> {
        let make = |who: &certs::Identity, addresses: &[String], strictness, shown: bool, http2| {
            let settings = SourceSettings {
                addresses: addresses.to_vec(),
                expected: Expected::Exactly(who.clone()),
                revocation: strictness,
                trust: Arc::clone(&identity.trust),
                own: shown.then(|| Arc::clone(&identity.cell)),
                clock: clock.clone(),
                http2,
                limits: CallLimits::default(),
                refusals: Some(refusals.clone()),
            };
            Source::new(settings).map(Arc::new)
        };
        let parent = |parent: &Parent| {
            let who = certs::Identity {
                deployment: identity.name.deployment.clone(),
                role: Role::Booster,
                id: parent.id.clone(),
            };
            if who == identity.name {
                return Err(BindError::OwnParent);
            }
            let address = [parent.address.to_string()];
            let source = make(&who, &address, Strictness::Required, true, true)?;
            Ok((format!("booster {}", parent.id), source))
        };
        let (enrol, origin) = (&identity.joined.addresses, &identity.origin);
        // What comes over the public ones authenticates itself, and we may have no lists yet.
        Ok(Self {
            content: make(origin, &[], Strictness::Required, true, true)?,
            known: make(origin, enrol, Strictness::BestEffort, true, false)?,
            parents: parents.iter().map(parent).collect::<Result<_, _>>()?,
            public: make(origin, enrol, Strictness::BestEffort, false, false)?,
        })
    }
}

/// The sources with what is known of each, which all who ask share.
struct Places {
    /// Where packs come from, the best first.
    packs: Vec<Arc<Place>>,
    public: Arc<Place>,
}

impl Places {
    fn make(sources: &Sources, metrics: &Metrics) -> Self {
        let place = |name: &str, source: &Arc<Source>, rank| {
            let limit = metrics
                .cache
                .upstream_concurrency
                .with_label_values(&[name]);
            Arc::new(Place::new(remote(name, source), rank).shown_by(limit))
        };
        let parents = sources.parents.iter();
        let parents = parents.map(|(name, source)| place(name, source, Rank::Parent));
        let origin = place("origin", &sources.content, Rank::Origin);
        let public = remote("origin (enrolment)", &sources.public);
        Self {
            packs: parents.chain([origin]).collect(),
            public: Arc::new(Place::new(public, Rank::Origin)),
        }
    }

    /// Where packs come from.
    fn packs(&self) -> Arc<Upstreams> {
        Arc::new(Upstreams::of(self.packs.clone()))
    }

    /// Where statements and lists come from.
    fn documents(&self) -> Arc<Upstreams> {
        let mut places = self.packs.clone();
        places.push(Arc::clone(&self.public));
        Arc::new(Upstreams::of(places))
    }
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

/// Follows what the deployment document says of addresses and roots. The roots are parsed, verified
/// and written down off the runtime.
pub(super) async fn apply(
    document: &Deployment,
    identity: &Arc<Identity>,
    sources: &Sources,
    now: i64,
) {
    let origin = &document.origin;
    if origin.id == identity.origin.id.as_str() {
        sources.content.set_addresses(origin.addresses.clone());
        let mut enrol = origin.enrol_addresses.clone();
        // Those of the join string stay: they have worked before.
        let joined = identity.joined.addresses.iter();
        let others: Vec<String> = joined.filter(|it| !enrol.contains(it)).cloned().collect();
        enrol.extend(others);
        sources.known.set_addresses(enrol.clone());
        sources.public.set_addresses(enrol);
    } else {
        warn!(
            id = origin.id,
            "the deployment document names another origin: ignored"
        );
    }
    let (document, identity) = (document.clone(), Arc::clone(identity));
    let followed = off_runtime(move || {
        if roots::follow(&identity.trust, &document, now) {
            identity.keep_cas()
        } else {
            Ok(())
        }
    });
    if let Some(Err(failure)) = followed.await {
        warn!(error = %Report(&failure), "cannot keep the roots");
    }
}

fn remote(name: &str, source: &Arc<Source>) -> Arc<dyn Upstream> {
    Arc::new(Remote::new(name, Arc::clone(source)))
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

/// How long a start may wait for the origin before it goes on without.
const START_PATIENCE: Duration = Duration::from_secs(20);
