//! A member's own certificate: renewed at half of its life, got anew after it has run out.

use std::sync::Arc;

use certs::csr::{self, MakeCsrError};
use certs::tls::{CertCell, TlsError};
use service::Clock;
use thiserror::Error;
use tracing::info;
use transport::enrol::{Enrolled, accept};
use transport::{CallError, Refusals, Source};

use crate::identity::{Identity, IdentityError};

/// Whether a certificate should be renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Due {
    /// Not yet.
    NotYet,
    /// Now, while it still counts.
    Now,
    /// It counts no more.
    Over,
}

/// What shows the origin who asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Proof {
    /// The certificate that we have, shown in the handshake.
    Certificate,
    /// The key, by its signature under the request: the origin knows it. An expired certificate
    /// would end the handshake.
    Key,
}

impl Identity {
    /// Whether the certificate should be renewed at `now`: when half of its life is over, and up to
    /// a tenth of it later, by `jitter` (0 to 1): not all of one day at once.
    #[must_use]
    pub fn due(&self, now: i64, jitter: f64) -> Due {
        let Some((begins, ends)) = self.cell.validity() else {
            return Due::Over;
        };
        let life = (ends - begins) as f64;
        if now >= ends {
            Due::Over
        } else if now >= begins + (life * (0.5 + jitter / 10.0)) as i64 {
            Due::Now
        } else {
            Due::NotYet
        }
    }

    /// Whether two thirds of the certificate's life are over at `now`: it should have been renewed
    /// long ago, and somebody should look.
    #[must_use]
    pub fn is_overdue(&self, now: i64) -> bool {
        let validity = self.cell.validity();
        validity.is_none_or(|(begins, ends)| now >= begins + (ends - begins) / 3 * 2)
    }

    /// Has the origin hear of a renewal that is overdue.
    pub fn report_overdue(&self, refusals: &Refusals) {
        let detail = format!("its certificate ends at {}", self.expires());
        refusals.notice("renewal_overdue", &detail);
    }
}

/// Gets a new certificate for the key that we have from the enrolment listener that `source` calls,
/// which shows our certificate if that is the proof. The new one takes the old one's place once it
/// has been shown there and taken; connections that stand go on. Until when it counts, in Unix
/// seconds.
///
/// # Errors
///
/// Fails if the origin cannot be reached, refuses, or issues what is of no use; the old certificate
/// stays.
pub async fn renew(
    identity: &Identity,
    proof: Proof,
    source: &Source,
    clock: &Clock,
) -> Result<i64, RenewError> {
    let (key, role) = (&identity.key, identity.kind.enrol_role());
    let request = csr::make(key, identity.name.id.as_str())?;
    let enrolled = match proof {
        Proof::Certificate => source.simple_reenroll(role, &request).await,
        Proof::Key => source.simple_enroll(role, &request, None).await,
    };
    let Enrolled::Issued(issued) = enrolled? else {
        return Err(RenewError::Pending {
            kind: identity.kind,
        });
    };
    let role = identity.kind.role();
    let accepted = accept(&identity.trust, &issued, key, role, clock.now())?;
    if *accepted.peer.identity() != identity.name {
        return Err(RenewError::OtherName {
            got: accepted.peer.id().to_string(),
        });
    }
    let tried = Arc::new(CertCell::new(&accepted.chain_der, key).map_err(IdentityError::from)?);
    let trial = source.showing(tried)?;
    let shown = trial.identify().await;
    shown.map_err(|source| RenewError::Trial { source })?;
    identity.replace(&accepted.chain_der).await?;
    let not_after = accepted.peer.not_after();
    info!(not_after, "renewed the certificate");
    Ok(not_after)
}

/// Why there is no new certificate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RenewError {
    /// The origin cannot be reached, or refuses.
    #[error("cannot renew the certificate: the origin gave none")]
    Call(#[from] CallError),
    /// No request can be made.
    #[error("cannot make a certificate request")]
    Csr(#[from] MakeCsrError),
    /// It could not be kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It is of no use.
    #[error(transparent)]
    Issued(#[from] transport::enrol::EnrolError),
    /// It is for somebody else.
    #[error("cannot use the certificate that was issued: it is for {got}")]
    OtherName {
        /// For whom.
        got: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// It was shown, and not taken.
    #[error("cannot use the new certificate: the old one stays")]
    Trial {
        /// What became of it.
        source: CallError,
    },
    /// A person has to look first.
    #[error("cannot renew the certificate: an operator has to approve this {kind}")]
    Pending {
        /// What it is.
        kind: crate::Kind,
    },
}
