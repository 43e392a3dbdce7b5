//! The booster's numbers.

use service::metrics::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, MetricsError, Registry};

/// All numbers of the booster. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Those of the cache.
    pub cache: CacheMetrics,
    /// When the booster's own certificate runs out, in Unix seconds.
    pub certificate_expiry: IntGauge,
    /// How long ago the revocation list in force was made, in seconds, by `ca`.
    pub crl_age: IntGaugeVec,
    /// Whether two thirds of its life are over, which renewal should never let happen: 0 or 1.
    pub certificate_overdue: IntGauge,
    /// By how many seconds our clock was ahead of the origin's; negative if it was behind.
    pub clock_skew: IntGauge,
    /// The number of the revocation list in force, by `ca`: `root`, `node`, `client`, `content`.
    pub crl_number: IntGaugeVec,
    /// When the next revocation list is due, in Unix seconds, by `ca`.
    pub crl_next_update: IntGaugeVec,
    /// Sessions that were accepted.
    pub handshakes_accepted: IntCounter,
    /// Handshakes and sessions that were refused or put out, by `reason`.
    pub handshakes_refused: IntCounterVec,
    /// Connections of clients open now.
    pub connections_open: IntGauge,
    /// Bytes over TCP to and from clients, by `direction`: `in` or `out`.
    pub traffic_bytes: IntCounterVec,
    /// Connections to the relay, by how they `ended`: `relayed` or `failed`.
    pub relayed: IntCounterVec,
    /// Of `response_bytes`, those of packs.
    pub(crate) pack_bytes: IntCounter,
    /// Of `requests`, those for packs that were answered with all of it.
    pub(crate) packs_sent: IntCounter,
    /// Packs that were fetched ahead of time, by how that `ended`: `stored`, `put_off`,
    /// `not_kept` or `failed`.
    pub prefetches: IntCounterVec,
    /// Reports that have arrived at the origin.
    pub reports_delivered: IntCounter,
    /// Refusals whose report was given up for want of room.
    pub reports_dropped: IntCounter,
    /// Reports that wait for the origin.
    pub reports_waiting: IntGauge,
    /// Requests, by `route` and `status`.
    pub requests: IntCounterVec,
    /// 1 for the `state` that the revocation lists are in, 0 for the others: `fresh`, `grace` or
    /// `closed`.
    pub revocation_state: IntGaugeVec,
    /// Bytes of bodies sent, by `route`.
    pub response_bytes: IntCounterVec,
    /// Those of what is done for devices.
    pub roster: RosterMetrics,
    /// Calls to the origin, by `outcome`: `all` or `failed`.
    pub upstream_calls: IntCounterVec,
    /// Bytes of bodies received from the origin, by `kind`: `pack` or `other`.
    pub upstream_bytes: IntCounterVec,
    /// Those of the line.
    pub wan: WanMetrics,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// Fails if a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let counter = |name, help| registry.counter(name, help);
        let counters = |name, help, label| registry.counters(name, help, &[label]);
        let requests = registry.counters("requests_total", "Requests", &["route", "status"])?;
        let response_bytes = counters("response_bytes_total", "Bytes of bodies sent", "route")?;
        Ok(Self {
            cache: CacheMetrics::register(registry)?,
            certificate_expiry: registry.gauge(
                "certificate_expiry_timestamp_seconds",
                "When the booster's own certificate runs out",
            )?,
            crl_age: registry.gauges("crl_age_seconds", "Age of the revocation list", &["ca"])?,
            certificate_overdue: registry.gauge(
                "certificate_renewal_overdue",
                "Whether the booster's own certificate should have been renewed long ago",
            )?,
            clock_skew: registry.gauge("clock_skew_seconds", "Own clock less the origin's")?,
            crl_number: registry.gauges("crl_number", "Revocation list in force", &["ca"])?,
            crl_next_update: registry.gauges(
                "crl_next_update_timestamp_seconds",
                "When the next revocation list is due",
                &["ca"],
            )?,
            handshakes_accepted: counter("handshakes_accepted_total", "Sessions accepted")?,
            handshakes_refused: counters(
                "handshakes_refused_total",
                "Handshakes and sessions refused",
                "reason",
            )?,
            connections_open: registry.gauge("connections_open", "Connections of clients")?,
            traffic_bytes: counters(
                "traffic_bytes_total",
                "Bytes over TCP to and from clients",
                "direction",
            )?,
            relayed: counters(
                "relayed_connections_total",
                "Connections relayed to the enrolment listener",
                "ended",
            )?,
            prefetches: counters("prefetches_total", "Packs fetched ahead of time", "ended")?,
            reports_delivered: counter("reports_delivered_total", "Reports taken to the origin")?,
            reports_dropped: counter("reports_dropped_total", "Reports given up")?,
            reports_waiting: registry.gauge("reports_waiting", "Reports not yet delivered")?,
            pack_bytes: response_bytes.with_label_values(&["pack"]),
            packs_sent: requests.with_label_values(&["pack", "200"]),
            requests,
            revocation_state: registry.gauges(
                "revocation_state",
                "How far it can be told who has been revoked",
                &["state"],
            )?,
            response_bytes,
            roster: RosterMetrics::register(registry)?,
            upstream_calls: counters("upstream_calls_total", "Calls to the origin", "outcome")?,
            upstream_bytes: counters(
                "upstream_bytes_total",
                "Bytes of bodies received from the origin",
                "kind",
            )?,
            wan: WanMetrics::register(registry)?,
        })
    }

    /// Shows the revocation list of a CA.
    pub fn show_list(&self, ca: &str, number: u64, next_update: i64) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.crl_number.with_label_values(&[ca]).set(number);
        self.crl_next_update
            .with_label_values(&[ca])
            .set(next_update);
    }
}

/// Raises `counter` to `now`, which something else has counted.
pub(crate) fn carry_over(counter: &IntCounter, now: u64) {
    counter.inc_by(now.saturating_sub(counter.get()));
}

/// The numbers of what is done for devices. Cloning shares them.
#[derive(Clone, Debug)]
pub struct RosterMetrics {
    /// Check-ins of devices by how they were answered: `unchanged` or `told` from the roster,
    /// `passed_on`, `refused`, or `failed` because the origin is out of reach.
    pub check_ins: IntCounterVec,
    /// Devices on the roster.
    pub devices: IntGauge,
    /// When the origin signed it, in Unix seconds; 0 if there is none.
    pub issued: IntGauge,
}

impl RosterMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// Fails if a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, MetricsError> {
        Ok(Self {
            check_ins: registry.counters("check_ins_total", "Check-ins of devices", &["answer"])?,
            devices: registry.gauge("roster_devices", "Devices on the roster")?,
            issued: registry.gauge(
                "roster_issued_timestamp_seconds",
                "When the roster was signed",
            )?,
        })
    }
}

/// The numbers of the line to the origin. Cloning shares them.
#[derive(Clone, Debug)]
pub struct WanMetrics {
    /// Bytes that came, by `purpose`: `control`, `prefetch` or `wanted`.
    pub bytes: IntCounterVec,
    /// The limits of the hour in bits a second, by `purpose`: `prefetch`, and `wanted` for all
    /// together; -1 for none.
    pub limit_bits: IntGaugeVec,
    /// How often something had to wait for its turn on the line, by `purpose`.
    pub waits: IntCounterVec,
}

impl WanMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// Fails if a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let purpose = ["purpose"];
        Ok(Self {
            bytes: registry.counters("wan_bytes_total", "Bytes from upstream", &purpose)?,
            limit_bits: registry.gauges(
                "wan_limit_bits_per_second",
                "Limits of the line at this hour",
                &purpose,
            )?,
            waits: registry.counters("wan_waits_total", "Waits for the line", &purpose)?,
        })
    }
}

/// The numbers of the cache. Cloning shares them.
#[derive(Clone, Debug)]
pub struct CacheMetrics {
    /// Requests answered from what was there, by `tier`: `memory` or `disk`.
    pub hits: IntCounterVec,
    /// Those from disk.
    pub(crate) hits_disk: IntCounter,
    /// Those from memory.
    pub(crate) hits_memory: IntCounter,
    /// Requests for something that was not there, whether they started a fill or joined one.
    pub misses: IntCounter,
    /// Requests that joined a fill which another had started.
    pub coalesced: IntCounter,
    /// Fills by how they `ended`: `stored`, `streamed`, `cancelled` or `failed`.
    pub fills: IntCounterVec,
    /// Files that were there and that the disk would not give.
    pub read_failures: IntCounter,
    /// Bytes of memory that are set aside for fills.
    pub fill_bytes: IntGauge,
    /// Fills under way, those included that wait for their turn.
    pub fills_running: IntGauge,
    /// Fills that wait for their turn.
    pub fills_waiting: IntGauge,
    /// Fills that asked a second source, by which one `won`: `first`, `second` or `neither`.
    pub hedges: IntCounterVec,
    /// Packs that a source is asked for at a time, by `upstream`.
    pub upstream_concurrency: IntGaugeVec,
    /// Checked bytes of packs that nobody had asked for when they came, because somebody was reading
    /// what comes before them.
    pub read_ahead_bytes: IntCounter,
    /// Bytes of packs received from upstream, good or not.
    pub upstream_bytes: IntCounter,
    /// Bytes that were taken up again from fills that had been broken off.
    pub resumed_bytes: IntCounter,
    /// Checks that failed, by where the bytes came `from`: `disk` or `upstream`.
    pub verification_failures: IntCounterVec,
    /// Damaged packs that were to be fetched again, by how that `ended`: `fetched`, `failed`, or
    /// `left` (nothing names it any more, or it may not be fetched now).
    pub repairs: IntCounterVec,
    /// When the scrub last ended a round, in Unix seconds.
    pub scrub_finished: IntGauge,
    /// Files that the scrub looked at, by `result`: `good`, `damaged` or `unreadable`.
    pub scrubbed: IntCounterVec,
    /// Bytes of files that the scrub looked at.
    pub scrubbed_bytes: IntCounter,
    /// Files given up for room, by `kind`: `object`, `pack`, `partial` or `quarantined`.
    pub evictions: IntCounterVec,
    /// Bytes of all files of the cache.
    pub stored_bytes: IntGauge,
    /// Files of the cache, by `kind`.
    pub stored_files: IntGaugeVec,
    /// Whether the disk refuses to be written to or has too little free: 0 or 1.
    pub disk_trouble: IntGauge,
    /// Failures of the disk while writing.
    pub write_failures: IntCounter,
}

impl CacheMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// Fails if a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let counter = |name, help| registry.counter(name, help);
        let hits =
            registry.counters("hits_total", "Requests answered from the cache", &["tier"])?;
        Ok(Self {
            hits_disk: hits.with_label_values(&["disk"]),
            hits_memory: hits.with_label_values(&["memory"]),
            hits,
            misses: counter("misses_total", "Requests that needed a fill")?,
            coalesced: counter(
                "coalesced_waiters_total",
                "Requests that joined a fill under way",
            )?,
            fills: registry.counters("fills_total", "Fills by how they ended", &["ended"])?,
            read_failures: counter("read_failures_total", "Failed reads of the cache")?,
            fill_bytes: registry.gauge("fill_memory_bytes", "Memory set aside for fills")?,
            fills_running: registry.gauge("fills_running", "Fills under way")?,
            fills_waiting: registry.gauge("fills_waiting", "Fills that wait for their turn")?,
            hedges: registry.counters(
                "hedges_total",
                "Fills that asked a second source",
                &["won"],
            )?,
            upstream_concurrency: registry.gauges(
                "upstream_concurrency",
                "Packs that a source is asked for at a time",
                &["upstream"],
            )?,
            read_ahead_bytes: counter("read_ahead_bytes_total", "Pack bytes not asked for yet")?,
            upstream_bytes: counter(
                "upstream_pack_bytes_total",
                "Bytes of packs received from upstream",
            )?,
            resumed_bytes: counter(
                "resumed_bytes_total",
                "Bytes taken up again from fills broken off",
            )?,
            verification_failures: registry.counters(
                "verification_failures_total",
                "Bytes that were not what they should be",
                &["from"],
            )?,
            repairs: registry.counters(
                "repairs_total",
                "Damaged packs that were to be fetched again",
                &["ended"],
            )?,
            scrub_finished: registry.gauge(
                "scrub_finished_timestamp_seconds",
                "When the scrub last ended a round",
            )?,
            scrubbed: registry.counters(
                "scrubbed_files_total",
                "Files that the scrub looked at",
                &["result"],
            )?,
            scrubbed_bytes: counter("scrubbed_bytes_total", "Bytes that the scrub looked at")?,
            evictions: registry.counters(
                "evictions_total",
                "Files given up for room",
                &["kind"],
            )?,
            stored_bytes: registry.gauge("stored_bytes", "Bytes of the cache on disk")?,
            stored_files: registry.gauges(
                "stored_files",
                "Files of the cache on disk",
                &["kind"],
            )?,
            disk_trouble: registry.gauge("disk_trouble", "Whether the disk takes no packs")?,
            write_failures: counter("write_failures_total", "Failed writes to the cache")?,
        })
    }
}
