//! The ways to the origin, and to boosters before it.

use std::sync::Arc;

use certs::Role;
use certs::tls::{Expected, TlsError};
use certs::trust::Revocation as Strictness;
use content::statement::Deployment;
use member::{Identity, roots};
use service::{Clock, Report};
use tracing::warn;
use transport::source::CallLimits;
use transport::{Meter, Refusals, Source, SourceSettings};

use super::BindError;
use crate::cache::off_runtime;
use crate::metrics::Metrics;
use crate::renewal::Renewal;
use crate::upstream::{Parent, Place, Rank, Remote, Upstreams};
use crate::wan::{Purpose, Wan};

/// The ways to the origin, and to boosters before it.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    /// The origin's enrolment listener, to which our certificate is shown.
    pub(super) known: Arc<Source>,
    /// The origin's content listener.
    origin: Way,
    /// Boosters that are asked before it, each with its name for the log.
    parents: Vec<(String, Way)>,
    /// The origin's enrolment listener, to which nothing is shown.
    pub(super) public: Arc<Source>,
}

/// A party that serves content, with connections of their own for what may not hold up each other.
#[derive(Clone, Debug)]
struct Way {
    /// For packs that nobody has asked for yet.
    ahead: Arc<Source>,
    /// For all that is small.
    small: Arc<Source>,
    /// For packs that somebody waits for.
    wanted: Arc<Source>,
}

/// The sources with what is known of each, which all who ask share.
pub(super) struct Places {
    /// Where packs come from, the best first.
    packs: Vec<Arc<Place>>,
    public: Arc<Place>,
}

impl Sources {
    /// Calls to the origin's content listener, for what is small.
    pub(super) fn content(&self) -> &Arc<Source> {
        &self.origin.small
    }

    /// What the calls to the origin have cost.
    pub(super) fn meters(&self) -> [Arc<Meter>; 5] {
        let [ahead, small, wanted] = self.origin.all();
        let sources = [ahead, small, wanted, &self.known, &self.public];
        sources.map(|source| Arc::clone(source.meter()))
    }

    /// What renews our certificate by them.
    pub(super) fn renewal(
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

    /// Those of a booster that is called `identity`, and asks `parents` first.
    ///
    /// # Errors
    ///
    /// Fails if TLS cannot be set up, or if it is a parent of its own.
    pub(super) fn make(
        identity: &Identity,
        parents: &[Parent],
        clock: &Clock,
        refusals: &Refusals,
        wan: &Wan,
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
            Source::new(settings)
        };
        let way = |who: &certs::Identity, addresses: &[String]| {
            Way::of(wan, || {
                make(who, addresses, Strictness::Required, true, true)
            })
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
            let way = way(&who, &[parent.address.to_string()])?;
            Ok((format!("booster {}", parent.id), way))
        };
        let (enrol, origin) = (&identity.joined.addresses, &identity.origin);
        // What comes over the public ones authenticates itself, and we may have no lists yet.
        let open = |shown| make(origin, enrol, Strictness::BestEffort, shown, false).map(Arc::new);
        Ok(Self {
            known: open(true)?,
            origin: way(origin, &[])?,
            parents: parents.iter().map(parent).collect::<Result<_, _>>()?,
            public: open(false)?,
        })
    }
}

impl Way {
    fn of(wan: &Wan, make: impl Fn() -> Result<Source, TlsError>) -> Result<Self, TlsError> {
        let paced = |purpose| Ok(Arc::new(make()?.paced(wan.pace(purpose))));
        Ok(Self {
            ahead: paced(Purpose::Prefetch)?,
            small: paced(Purpose::Control)?,
            wanted: paced(Purpose::Wanted)?,
        })
    }

    fn all(&self) -> [&Arc<Source>; 3] {
        [&self.ahead, &self.small, &self.wanted]
    }

    /// The same as one that content is asked of, under a `name` for the log.
    fn upstream(&self, name: &str) -> Remote {
        Remote::new(name, Arc::clone(&self.small))
            .with_packs(Arc::clone(&self.wanted), Arc::clone(&self.ahead))
    }
}

impl Places {
    pub(super) fn make(sources: &Sources, metrics: &Metrics) -> Self {
        let place = |name: &str, way: &Way, rank| {
            let limit = &metrics.cache.upstream_concurrency;
            let limit = limit.with_label_values(&[name]);
            Arc::new(Place::new(Arc::new(way.upstream(name)), rank).shown_by(limit))
        };
        let parents = sources.parents.iter();
        let parents = parents.map(|(name, way)| place(name, way, Rank::Parent));
        let origin = place("origin", &sources.origin, Rank::Origin);
        let public = Remote::new("origin (enrolment)", Arc::clone(&sources.public));
        Self {
            packs: parents.chain([origin]).collect(),
            public: Arc::new(Place::new(Arc::new(public), Rank::Origin)),
        }
    }

    /// Where packs come from.
    pub(super) fn packs(&self) -> Arc<Upstreams> {
        Arc::new(Upstreams::of(self.packs.clone()))
    }

    /// Where statements and lists come from.
    pub(super) fn documents(&self) -> Arc<Upstreams> {
        let mut places = self.packs.clone();
        places.push(Arc::clone(&self.public));
        Arc::new(Upstreams::of(places))
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
        for content in sources.origin.all() {
            content.set_addresses(origin.addresses.clone());
        }
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
