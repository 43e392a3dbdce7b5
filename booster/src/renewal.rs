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
            if self.identity.due(self.clock.now(), jitter) != Due::NotYet {
                self.try_to_renew().await;
            }
            let due = self.identity.due(self.clock.now(), jitter);
            tokio::select! {
                () = sleep(rest(&mut backoff, due, fastrand::f64())) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn try_to_renew(&self) {
        let Err(failure) = self.renew().await else {
            return;
        };
        warn!(error = %Report(&failure), "cannot renew the certificate");
        if self.identity.is_overdue(self.clock.now()) {
            self.identity.report_overdue(&self.refusals);
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

/// How long to wait when the certificate is `due` after all that was tried. It may be so when it is
/// brand-new, to a clock that is days ahead: to ask at once again would never end.
fn rest(backoff: &mut Backoff, due: Due, random: f64) -> Duration {
    match due {
        Due::NotYet => {
            backoff.succeeded();
            LOOK_PAUSE
        }
        Due::Now | Due::Over => backoff.failed(random),
    }
}

/// How often to look whether it is time: a clock may be set, or a machine wake from sleep.
const LOOK_PAUSE: Duration = Duration::from_secs(60);
const BACKOFF_FIRST: Duration = Duration::from_secs(5);
/// Half of a life of 14 days is left to try in.
const BACKOFF_LONGEST: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_due_when_it_is_new_is_not_renewed_without_end() {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
        let mut rest = |due| rest(&mut backoff, due, 1.0).as_secs();
        assert_eq!([Due::Now; 4].map(&mut rest), [5, 10, 20, 40]);
        assert_eq!(rest(Due::NotYet), 60);
        assert_eq!(rest(Due::Over), 5);
    }
}
