//! The booster's own certificate: renewed at half of its life, got anew after it has run out.

use std::sync::Arc;
use std::time::Duration;

use certs::Role;
use protocol::EnrolRole;
use service::{CancellationToken, Clock, Report};
use thiserror::Error;
use tokio::time::sleep;
use tracing::{info, warn};
use transport::enrol::{Enrolled, accept};
use transport::{Backoff, CallError, Source};

use crate::identity::{Identity, IdentityError};
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
}

/// Why there is no new certificate.
#[derive(Debug, Error)]
pub(crate) enum RenewalError {
    #[error("the origin gave none")]
    Call(#[from] CallError),
    #[error("cannot make a certificate request")]
    Csr(#[from] certs::csr::MakeCsrError),
    #[error("it could not be kept")]
    Identity(#[from] IdentityError),
    #[error("what was issued is of no use")]
    Issued(#[from] transport::enrol::EnrolError),
    #[error("it is for another name than ours")]
    OtherName,
    #[error("an operator has to approve it")]
    Pending,
}

impl Renewal {
    /// Renews the certificate whenever it is due, until it is stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
        // A share of the life that is left, drawn once: boosters of one day must not all come back
        // on one other.
        let jitter = fastrand::f64() / 10.0;
        loop {
            self.show();
            let wait = if !self.is_due(jitter) {
                backoff.succeeded();
                LOOK_PAUSE
            } else if let Err(failure) = self.renew().await {
                warn!(error = %Report(&failure), "cannot renew the certificate");
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
    pub(crate) async fn renew(&self) -> Result<(), RenewalError> {
        let identity = &self.identity;
        let csr = certs::csr::make(&identity.key, identity.name.id.as_str())?;
        let role = EnrolRole::Booster;
        let enrolled = if identity.has_expired(self.clock.now()) {
            // The origin knows the key by now: that is what proves who asks.
            self.public.simple_enroll(role, &csr, None).await?
        } else {
            self.known.simple_reenroll(role, &csr).await?
        };
        let Enrolled::Issued(issued) = enrolled else {
            return Err(RenewalError::Pending);
        };
        let now = self.clock.now();
        let accepted = accept(&identity.trust, &issued, &identity.key, Role::Booster, now)?;
        if *accepted.peer.identity() != identity.name {
            return Err(RenewalError::OtherName);
        }
        identity.renew(&accepted.chain_der)?;
        identity.keep_cas()?;
        info!(
            not_after = accepted.peer.not_after(),
            "renewed the certificate"
        );
        self.show();
        Ok(())
    }

    /// Whether half of the certificate's life is over, give or take.
    fn is_due(&self, jitter: f64) -> bool {
        let Some((begins, ends)) = self.identity.cell.validity() else {
            return true;
        };
        let life = (ends - begins) as f64;
        self.clock.now() >= begins + (life * (0.5 + jitter)) as i64
    }

    fn show(&self) {
        let ends = self.identity.cell.validity().map_or(0, |(_, ends)| ends);
        self.metrics.certificate_expiry.set(ends);
    }
}

/// How often to look whether it is time: a clock may be set, or a machine wake from sleep.
const LOOK_PAUSE: Duration = Duration::from_secs(60);
const BACKOFF_FIRST: Duration = Duration::from_secs(5);
/// Half of a life of 14 days is left to try in.
const BACKOFF_LONGEST: Duration = Duration::from_secs(900);
