//! The booster's own certificate, looked after while it runs.

use std::sync::Arc;
use std::time::Duration;

use member::{Due, Identity, Proof, RenewError, renew};
use service::{CancellationToken, Clock, Report};
use tokio::time::sleep;
use tracing::warn;
use transport::{Backoff, Refusals, Source};

use crate::metrics::Metrics;

/// Keeps the certificate alive.
#[derive(Clone, Debug)]
pub(crate) struct Renewal {
    pub(crate) clock: Clock,
    pub(crate) identity: Arc<Identity>,
    pub(crate) metrics: Metrics,
    /// The enrolment listener, to which our certificate is shown: for renewal.
    pub(crate) known: Arc<Source>,
    /// The same, to which nothing is shown: for when there is nothing to show any more.
    pub(crate) public: Arc<Source>,
    /// Through which the origin hears of a renewal that is overdue.
    pub(crate) refusals: Refusals,
}

impl Renewal {
    /// Renews the certificate whenever it is due, until it is stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
        // Drawn once: boosters of one day must not all come back on one other.
        let jitter = fastrand::f64();
        loop {
            self.show();
            let wait = if self.identity.due(self.clock.now(), jitter) == Due::NotYet {
                backoff.succeeded();
                LOOK_PAUSE
            } else if let Err(failure) = self.renew().await {
                warn!(error = %Report(&failure), "cannot renew the certificate");
                if self.identity.is_overdue(self.clock.now()) {
                    self.identity.report_overdue(&self.refusals);
                }
                backoff.failed(fastrand::f64())
            } else {
                continue;
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Gets a new certificate for the key that we have.
    pub(crate) async fn renew(&self) -> Result<(), RenewError> {
        let (identity, clock) = (&self.identity, &self.clock);
        if identity.has_expired(clock.now()) {
            renew(identity, Proof::Key, &self.public, clock).await?;
        } else {
            renew(identity, Proof::Certificate, &self.known, clock).await?;
        }
        self.show();
        Ok(())
    }

    fn show(&self) {
        let is_overdue = self.identity.is_overdue(self.clock.now());
        self.metrics.certificate_expiry.set(self.identity.expires());
        self.metrics.certificate_overdue.set(i64::from(is_overdue));
    }
}

/// How often to look whether it is time: a clock may be set, or a machine wake from sleep.
const LOOK_PAUSE: Duration = Duration::from_secs(60);
const BACKOFF_FIRST: Duration = Duration::from_secs(5);
/// Half of a life of 14 days is left to try in.
const BACKOFF_LONGEST: Duration = Duration::from_secs(900);
