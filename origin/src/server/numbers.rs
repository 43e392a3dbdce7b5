//! What the listeners counted, carried over to the metrics page.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use service::metrics::{IntCounter, IntGauge};
use transport::listen::ListenMetrics;

use crate::metrics::Metrics;

/// The numbers of one listener. It counts by itself; what it has counted since the last look is
/// added here.
pub(super) struct Counted {
    received: IntCounter,
    sent: IntCounter,
    open: IntGauge,
    from: Arc<ListenMetrics>,
}

impl Counted {
    pub(super) fn new(name: &str, from: Arc<ListenMetrics>, metrics: &Metrics) -> Self {
        let (received, sent, open) = metrics.listener(name);
        Self {
            received,
            sent,
            open,
            from,
        }
    }

    /// Brings the page up to date.
    pub(super) fn carry_over(&self) {
        for (counter, now) in [
            (
                &self.received,
                self.from.traffic.received_bytes.load(Ordering::Relaxed),
            ),
            (
                &self.sent,
                self.from.traffic.sent_bytes.load(Ordering::Relaxed),
            ),
        ] {
            counter.inc_by(now.saturating_sub(counter.get()));
        }
        let open = self.from.open.load(Ordering::Relaxed);
        self.open.set(i64::try_from(open).unwrap_or(i64::MAX));
    }
}
