//! The booster at work: its listeners, its cache, its upkeep.

mod parts;
mod sources;
#[cfg(test)]
mod tests;
mod upkeep;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use certs::tls::TlsError;
use member::{Lock, OpenError, StateError};
use serde::Serialize;
use service::ops::{Health, Ops};
use service::unix::UnixServer;
use service::{CancellationToken, Clock, Component, Drained, Report, Tasks};
use thiserror::Error;
use tokio::time::Instant;
use tracing::{error, warn};
use transport::admin::SOCKET_FILE;
use transport::{Listener, Meter, Relay};

use crate::admin::{self, Admin};
use crate::cache::{Cache, StoreError};
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::roster::Rosters;
use crate::status::Status;
use parts::Parts;

/// A booster at work.
#[derive(Debug)]
pub struct Booster {
    addresses: Bound,
    cache: Cache,
    catalogue: Catalogue,
    health: Health,
    listener: Listener,
    _lock: Lock,
    meters: [Arc<Meter>; 5],
    metrics: Metrics,
    ops: Ops,
    relay: Relay,
    rosters: Rosters,
    /// None if its socket could not be made: everything else works without it.
    admin: Option<UnixServer>,
    tasks: Tasks,
}

/// Where a booster listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Bound {
    /// Content, over mutual TLS.
    pub content: SocketAddr,
    /// The relay of the enrolment listener.
    pub enrol: SocketAddr,
    /// Operators.
    pub ops: SocketAddr,
}

/// Application bytes, as counted on each link.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Counted {
    /// Sent to clients, other than packs.
    pub served_other_bytes: u64,
    /// Of packs sent to clients.
    pub served_pack_bytes: u64,
    /// Received from the origin, other than packs.
    pub upstream_other_bytes: u64,
    /// Of packs received from the origin.
    pub upstream_pack_bytes: u64,
}

impl Booster {
    /// Starts the booster that enrolled in the data folder of `config`. Returns once it listens;
    /// that takes no origin, unless something is missing that only the origin has.
    ///
    /// # Errors
    ///
    /// Fails if it has not enrolled, if another is at work there, if an address cannot be listened
    /// on, or if there is a revocation list that it has never had and cannot get.
    pub async fn bind(config: Config, clock: Clock) -> Result<Self, BindError> {
        let tasks = Tasks::new();
        let parts = Box::pin(Parts::make(&config, &clock, &tasks)).await?;
        let rosters = parts.follow_rosters(&config, &tasks).await;
        let listener = parts.listen(&config, &rosters).await?;
        let relay = parts.relay(config.enrol().listen).await?;
        let (health, registry) = (Health::new(), parts.registry.clone());
        let ops = Ops::bind(config.ops(), health.clone(), registry)
            .await
            .map_err(|source| BindError::Ops { source })?;
        let addresses = Bound {
            content: listener.local_addr(),
            enrol: relay.local_addr(),
            ops: ops.local_addr(),
        };
        let admin = parts
            .administer(addresses, &health, tasks.stop_token())
            .await;
        parts.start_upkeep(&config, addresses, &health, &listener, &relay, &tasks);
        let meters = parts.sources.meters();
        let Parts {
            cache,
            catalogue,
            lock,
            metrics,
            ..
        } = parts;
        Ok(Self {
            addresses,
            admin,
            cache,
            catalogue,
            health,
            listener,
            _lock: lock,
            meters,
            metrics,
            ops,
            relay,
            rosters,
            tasks,
        })
    }

    /// Where it serves content.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses.content
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Bound {
        self.addresses
    }

    /// Its numbers.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Bytes of bodies so far, to the last one: the metrics page lags by a second.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let received = |of: fn(&Meter) -> u64| self.meters.iter().map(|meter| of(meter)).sum();
        let sent = |route| {
            self.metrics
                .response_bytes
                .with_label_values(&[route])
                .get()
        };
        let routes = [
            "crl",
            "deployment",
            "hello",
            "none",
            "snapshot",
            "statement",
            "timestamp",
        ];
        Counted {
            served_other_bytes: routes.into_iter().map(sent).sum(),
            served_pack_bytes: sent("pack"),
            upstream_other_bytes: received(|it| it.other_bytes.load(Ordering::Relaxed)),
            upstream_pack_bytes: received(|it| it.pack_bytes.load(Ordering::Relaxed)),
        }
    }

    /// What it knows of what the origin says.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Waits until a part ended that should not have, and names it.
    pub async fn any_ended(&self) -> &'static str {
        tokio::select! {
            part = self.listener.any_ended() => part,
            part = self.ops.any_ended() => part,
            part = self.relay.any_ended() => part,
            part = self.tasks.any_ended() => part,
        }
    }

    /// Takes no more work, waits for at most `grace` for what is under way, and says that the
    /// cache is in good order.
    pub async fn drain(self, grace: Duration) -> Drained {
        let deadline = Instant::now() + grace;
        let left = || deadline.saturating_duration_since(Instant::now());
        self.health.stopping();
        self.rosters.close();
        // The listener first: its requests wait for fills, so these must go on until then.
        let (listener, relay) = tokio::join!(self.listener.drain(grace), self.relay.drain(grace));
        let mut drained = listener.and(relay);
        if let Some(admin) = self.admin {
            drained = drained.and(admin.drain(left()).await);
        }
        let tasks = self.tasks.drain(left().max(TASKS_GRACE)).await;
        // A task that was cut off may have left a write under way: then nothing is vouched for.
        if tasks == Drained::InTime
            && let Err(failure) = self.cache.close().await
        {
            error!(error = %Report(&failure), "the cache will be checked at the next start");
        }
        drained = drained.and(tasks);
        drained.and(self.ops.drain(left().max(OPS_GRACE)).await)
    }
}

impl Component for Booster {
    async fn any_ended(&self) -> &'static str {
        Self::any_ended(self).await
    }

    async fn drain(self, grace: Duration) -> Drained {
        Self::drain(self, grace).await
    }
}

/// Why a booster cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] StoreError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] transport::listen::BindError),
    /// There are lists that it has never had.
    #[error("cannot start without the revocation lists: is the origin reachable?")]
    Lists,
    /// The numbers cannot be registered.
    #[error("cannot set up the metrics")]
    Metrics(#[from] service::metrics::MetricsError),
    /// What enrolment and earlier runs left cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The operators' listener cannot be opened.
    #[error(transparent)]
    Ops {
        /// Why.
        source: service::ops::BindError,
    },
    /// It is named as its own parent.
    #[error("cannot start: `upstream.parents` names this very booster")]
    OwnParent,
    /// What protects us cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Some work was cut off.
    #[error("cannot start: interrupted")]
    Stopped(#[source] io::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
}

impl Parts {
    /// Opens the admin socket, to whoever may look into the data folder.
    async fn administer(
        &self,
        bound: Bound,
        health: &Health,
        stop: CancellationToken,
    ) -> Option<UnixServer> {
        let admin = Arc::new(Admin {
            cache: self.cache.clone(),
            catalogue: self.catalogue.clone(),
            clock: self.clock.clone(),
            pins: self.catalogue.pins(),
            scrubber: self.scrubber.clone(),
            status: self.status(bound, health),
            stop,
        });
        let path = self.data.root().join(SOCKET_FILE);
        let answer = move |request| Arc::clone(&admin).answer(request);
        let served = UnixServer::bind(&path, admin::BODY_BYTES_MAX, answer).await;
        served
            .inspect_err(|failure| {
                let error = Report(failure);
                warn!(%error, "`larder-booster status` and `cache` will not see this booster");
            })
            .ok()
    }

    /// What says how the booster is.
    fn status(&self, bound: Bound, health: &Health) -> Box<dyn Fn() -> Status + Send + Sync> {
        let (identity, catalogue) = (Arc::clone(&self.identity), self.catalogue.clone());
        let (cache, health) = (self.cache.clone(), health.clone());
        let (offline, watch) = (self.offline.clone(), self.clock_watch());
        let (pins, scrubber) = (self.catalogue.pins(), self.scrubber.clone());
        Box::new(move || {
            let named = |found: Vec<(&str, String)>| {
                let found = found.into_iter();
                found.map(|(name, why)| (name.to_owned(), why)).collect()
            };
            let last = catalogue.last();
            Status {
                content: Some(bound.content.to_string()),
                enrol: Some(bound.enrol.to_string()),
                degraded: named(health.degraded()),
                failing: named(health.failing()),
                ops: Some(bound.ops.to_string()),
                pins: Some(pins.wanted().into_iter().collect()),
                scrub: Some(scrubber.status()),
                stored_bytes: Some(cache.stored_bytes()),
                timestamp_expires: last.map(|view| view.timestamp.expires),
                ..crate::status::of_identity(&identity, offline.outlook(), watch.status())
            }
        })
    }
}

/// Fills hear of the stop between two frames: that is soon.
const TASKS_GRACE: Duration = Duration::from_secs(2);
/// Operators want to see the end of the drain, whatever it took.
const OPS_GRACE: Duration = Duration::from_secs(1);
