//! What goes on beside the requests.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use member::{Courier, Identity};
use service::ops::{Check, Health};
use service::{CancellationToken, Clock, Tasks};
use tokio::time::sleep;
use transport::listen::ListenMetrics;
use transport::relay::RelayMetrics;
use transport::{Listener, Meter, Refusals, Relay};

use super::Bound;
use super::parts::Parts;
use super::sources::apply;
use crate::cache::Cache;
use crate::catalogue::Catalogue;
use crate::check_in::{CheckIns, Place};
use crate::config::Config;
use crate::metrics::{Metrics, carry_over};
use crate::offline::Offline;
use crate::prefetch::{Ahead, Prefetch};

impl Parts {
    /// Starts everything that goes on by itself.
    pub(super) fn start_upkeep(
        &self,
        config: &Config,
        bound: Bound,
        health: &Health,
        listener: &Listener,
        relay: &Relay,
        tasks: &Tasks,
    ) {
        let revocation = self.revocation.clone();
        let interval = config.crl_poll();
        tasks.start("revocation", |stop| revocation.run(interval, stop));
        let renewal = self.renewal.clone();
        tasks.start("renewal", |stop| renewal.run(stop));
        let watch = self.clock_watch();
        tasks.start("clock", |stop| watch.run(stop));
        let mut content = Place::new(bound.content, &config.content().addresses);
        if content.said.is_empty() {
            content.said.clone_from(&self.identity.joined.advertise);
        }
        let check_ins = CheckIns {
            content,
            enrol: Place::new(bound.enrol, &config.enrol().addresses),
            origin: Arc::clone(self.sources.content()),
        };
        tasks.start("check-in", |stop| check_ins.run(stop));
        let courier = Courier::new(&self.data.state(), &self.refusals);
        // The way of content first; the other is open to us even when our lists are stale.
        let ways = vec![
            Arc::clone(self.sources.content()),
            Arc::clone(&self.sources.known),
        ];
        tasks.start("reports", |stop| courier.run(ways, stop));
        let seen = self.offline.seen().clone();
        tasks.start("seen", |stop| seen.run(stop));
        let numbers = Numbers {
            listener: Arc::clone(listener.metrics()),
            lists: health.check("revocation lists"),
            metrics: self.metrics.clone(),
            offline: self.offline.clone(),
            refusals: self.refusals.clone(),
            relay: Arc::clone(relay.metrics()),
            sources: self.sources.meters(),
        };
        tasks.start("numbers", |stop| numbers.run(stop));
        let watcher = Watcher {
            cache: self.cache.clone(),
            catalogue: self.catalogue.clone(),
            certificate: health.check("certificate"),
            disk: health.check("cache"),
            clock: self.clock.clone(),
            identity: Arc::clone(&self.identity),
            timestamp: health.check("timestamp"),
        };
        tasks.start("watch", |stop| watcher.run(stop));
        let scrubber = self.scrubber.clone();
        tasks.start("scrub", |stop| scrubber.run(stop));
        let catalogue = self.catalogue.clone();
        tasks.start("pins", |stop| catalogue.follow_pins(stop));
        let prefetch = Prefetch {
            ahead: Ahead {
                cache: self.cache.clone(),
                catalogue: self.catalogue.clone(),
                ended: self.metrics.prefetches.clone(),
                wan: self.wan.clone(),
            },
            offline: self.offline.clone(),
            pins: self.catalogue.pins(),
        };
        tasks.start("prefetch", |stop| prefetch.run(stop));
        self.follow_document(tasks);
    }

    /// Follows the deployment document as it changes.
    fn follow_document(&self, tasks: &Tasks) {
        let mut document = self.catalogue.document();
        let (clock, identity) = (self.clock.clone(), Arc::clone(&self.identity));
        let sources = self.sources.clone();
        tasks.start("document", |stop| async move {
            loop {
                let current = document.borrow_and_update().clone();
                if let Some(current) = current {
                    apply(&current.statement, &identity, &sources, clock.now()).await;
                }
                tokio::select! {
                    changed = document.changed() => match changed {
                        Ok(()) => {}
                        // The catalogue has gone, and we are next.
                        Err(_) => return stop.cancelled().await,
                    },
                    () = stop.cancelled() => return,
                }
            }
        });
    }
}

/// Carries over to the metrics page what others count, and says how the revocation lists stand.
struct Numbers {
    listener: Arc<ListenMetrics>,
    lists: Check,
    metrics: Metrics,
    offline: Offline,
    refusals: Refusals,
    relay: Arc<RelayMetrics>,
    sources: [Arc<Meter>; 5],
}

impl Numbers {
    async fn run(self, stop: CancellationToken) {
        loop {
            self.carry_over();
            tokio::select! {
                () = sleep(NUMBERS_PAUSE) => {}
                () = stop.cancelled() => break,
            }
        }
        self.carry_over();
    }

    fn carry_over(&self) {
        self.offline.show(&self.lists);
        let metrics = &self.metrics;
        let traffic = |direction| metrics.traffic_bytes.with_label_values(&[direction]);
        let counted = &self.listener.traffic;
        carry_over(
            &traffic("in"),
            counted.received_bytes.load(Ordering::Relaxed),
        );
        carry_over(&traffic("out"), counted.sent_bytes.load(Ordering::Relaxed));
        let open = self.listener.open.load(Ordering::Relaxed);
        metrics
            .connections_open
            .set(i64::try_from(open).unwrap_or(i64::MAX));
        let relayed = |ended| metrics.relayed.with_label_values(&[ended]);
        carry_over(
            &relayed("relayed"),
            self.relay.relayed.load(Ordering::Relaxed),
        );
        carry_over(
            &relayed("failed"),
            self.relay.failed.load(Ordering::Relaxed),
        );
        let sum = |of: fn(&Meter) -> u64| self.sources.iter().map(|meter| of(meter)).sum();
        let bytes = |kind| metrics.upstream_bytes.with_label_values(&[kind]);
        carry_over(
            &bytes("pack"),
            sum(|it| it.pack_bytes.load(Ordering::Relaxed)),
        );
        carry_over(
            &bytes("other"),
            sum(|it| it.other_bytes.load(Ordering::Relaxed)),
        );
        let counts = self.refusals.counts();
        let waiting = i64::try_from(counts.waiting).unwrap_or(i64::MAX);
        metrics.reports_waiting.set(waiting);
        carry_over(&metrics.reports_delivered, counts.delivered);
        carry_over(&metrics.reports_dropped, counts.dropped);
        let calls = |outcome| metrics.upstream_calls.with_label_values(&[outcome]);
        carry_over(&calls("all"), sum(|it| it.calls.load(Ordering::Relaxed)));
        carry_over(
            &calls("failed"),
            sum(|it| it.failures.load(Ordering::Relaxed)),
        );
    }
}

/// Looks whether all is well, keeps the catalogue fresh enough to know, and tidies the cache.
struct Watcher {
    cache: Cache,
    catalogue: Catalogue,
    certificate: Check,
    disk: Check,
    clock: Clock,
    identity: Arc<Identity>,
    timestamp: Check,
}

impl Watcher {
    async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.look() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = sleep(WATCH_PAUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn look(&self) {
        let now = self.clock.now();
        if self.identity.has_expired(now) {
            self.certificate.fail("our own has run out");
        } else {
            self.certificate.pass();
        }
        match self.catalogue.current().await {
            Ok(_) => self.timestamp.pass(),
            Err(_) => {
                self.timestamp.fail("there is none that holds");
                // The origin may have moved; its enrolment listener tells everybody where.
                self.catalogue.look_for_document().await;
            }
        }
        self.cache.tidy(now).await;
        match self.cache.trouble().await {
            Some(why) => {
                self.disk
                    .degrade(format!("passing packs on without keeping them: {why}"));
            }
            None => self.disk.pass(),
        }
    }
}

/// Prometheus asks every 15 seconds or so; a person who looks twice wants to see it move.
const NUMBERS_PAUSE: Duration = Duration::from_secs(1);
/// How often to look whether all is well.
const WATCH_PAUSE: Duration = Duration::from_secs(30);
