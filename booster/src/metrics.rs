//! The booster's numbers.

use service::metrics::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, MetricsError, Registry};

/// The numbers of the cache. Cloning shares them.
#[derive(Clone, Debug)]
pub struct CacheMetrics {
    /// Requests answered from what was there, by `tier`: `memory` or `disk`.
    pub hits: IntCounterVec,
    /// Requests for something that was not there, whether they started a fill or joined one.
    pub misses: IntCounter,
    /// Requests that joined a fill which another had started.
    pub coalesced: IntCounter,
    /// Fills by how they `ended`: `stored`, `streamed`, `cancelled` or `failed`.
    pub fills: IntCounterVec,
    /// Fills under way.
    pub fills_running: IntGauge,
    /// Bytes of packs received from upstream, good or not.
    pub upstream_bytes: IntCounter,
    /// Bytes that were taken up again from fills that had been broken off.
    pub resumed_bytes: IntCounter,
    /// Checks that failed, by where the bytes came `from`: `disk` or `upstream`.
    pub verification_failures: IntCounterVec,
    /// Files given up for room, by `kind`: `object`, `pack` or `partial`.
    pub evictions: IntCounterVec,
    /// Bytes of all files of the cache.
    pub stored_bytes: IntGauge,
    /// Files of the cache, by `kind`.
    pub stored_files: IntGaugeVec,
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
        Ok(Self {
            hits: registry.counters("hits_total", "Requests answered from the cache", &["tier"])?,
            misses: counter("misses_total", "Requests that needed a fill")?,
            coalesced: counter(
                "coalesced_waiters_total",
                "Requests that joined a fill under way",
            )?,
            fills: registry.counters("fills_total", "Fills by how they ended", &["ended"])?,
            fills_running: registry.gauge("fills_running", "Fills under way")?,
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
            write_failures: counter("write_failures_total", "Failed writes to the cache")?,
        })
    }
}
