//! Asking for a certificate until there is one, there will be none, or patience ends.

use std::time::Duration;

use certs::{DeviceId, Key, Trust, csr};
use protocol::Join;
use service::{Clock, Report};
use tracing::warn;
use transport::Source;
use transport::enrol::{Accepted, Enrolled, accept};

use super::error::refused;
use super::patience::Patience;
use super::{EnrolError, EnrolNote};
use crate::kind::Kind;

/// Who asks, and whom.
pub(super) struct Asking<'a> {
    pub(super) clock: &'a Clock,
    pub(super) join: &'a Join,
    pub(super) key: &'a Key,
    pub(super) kind: Kind,
    pub(super) source: &'a Source,
    pub(super) trust: &'a Trust,
}

impl Asking<'_> {
    pub(super) async fn ask(
        &self,
        id: &DeviceId,
        patience: &Patience<impl Fn(EnrolNote)>,
    ) -> Result<Accepted, EnrolError> {
        let request =
            csr::make(self.key, id.as_str()).map_err(|source| EnrolError::Csr { source })?;
        let (kind, token) = (self.kind, self.join.token.as_ref());
        let mut told = false;
        loop {
            let ask = || async {
                let role = kind.enrol_role();
                let answer = self.source.simple_enroll(role, &request, token).await;
                answer.map_err(refused)
            };
            let wait = match patience.with(ask).await {
                Ok(Enrolled::Issued(issued)) => return self.accept(id, &issued),
                Ok(Enrolled::Pending { retry_after }) => {
                    if !std::mem::replace(&mut told, true) {
                        patience.note(EnrolNote::Pending { kind, retry_after });
                    }
                    retry_after
                }
                // Whoever waits for hours sees a restart now and then.
                Err(EnrolError::Call { source }) if told && source.is_retryable() => {
                    warn!(error = %Report(&source), "asking again");
                    RETRY_PAUSE
                }
                Err(error) => return Err(error),
            };
            if !patience.wait(wait).await {
                return Err(EnrolError::Pending { id: id.to_string() });
            }
        }
    }

    fn accept(&self, id: &DeviceId, issued: &[Vec<u8>]) -> Result<Accepted, EnrolError> {
        let (role, now) = (self.kind.role(), self.clock.now());
        let accepted = accept(self.trust, issued, self.key, role, now)
            .map_err(|source| EnrolError::Issued { source })?;
        if accepted.peer.id() == id {
            Ok(accepted)
        } else {
            Err(EnrolError::OtherName {
                got: accepted.peer.id().to_string(),
            })
        }
    }
}

/// Between two tries while the origin cannot be reached.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
