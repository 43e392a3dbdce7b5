//! A device's check-in and its wait: whether it goes by what holds for it.

use std::time::Duration;

use certs::{DeviceId, Peer, Role};
use content::Digest;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use protocol::{CheckInAnswer, Code, Fault, Held};
use service::Report;
use tokio::time::{Instant, timeout};
use tracing::error;

use super::CheckIns;
use crate::api::{Reply, fault, full, too_many};
use crate::manifests::Standing;

/// How long a wait lasts: shorter than the minute after which boxes on the way forget a connection.
pub(super) const WAIT: Duration = Duration::from_secs(55);
/// When to come again if there is no room to wait.
const WAIT_AGAIN: Duration = Duration::from_secs(60);

impl CheckIns {
    /// What the device `id`, which holds `held`, is told.
    pub(super) async fn hold(&self, id: &DeviceId, held: Held) -> Reply {
        let Held {
            results,
            done,
            manifest,
            inventory,
            ..
        } = held;
        let says_nothing = results.is_empty() && done.is_empty();
        if !says_nothing && !self.keep.keep(id, results, done).await {
            self.metrics.checked_in("failed");
            let told = "the origin cannot take that at the moment";
            return fault(&Fault::new(Code::Internal, told));
        }
        let is_asked = self.inventories.heard(id, inventory);
        let standing = self.manifests.standing(id).await;
        let current = standing.manifest.as_ref();
        let goes_by_it = current.is_some_and(|current| manifest == Some(current.digest));
        // Who was not told since we started may come by an interval that was changed.
        if goes_by_it && standing.told && standing.commands.is_empty() && !is_asked {
            self.metrics.checked_in("unchanged");
            return nothing();
        }
        self.tell(id, standing, is_asked).await
    }

    /// `GET /v1/wait` of `peer`: an answer when something changes for it, or nothing.
    pub async fn wait(&self, peer: &Peer, query: &str) -> Reply {
        match peer.role() {
            Role::Client => {}
            Role::Booster => return self.wait_for_roster(peer, query).await,
            Role::Origin | Role::Signer => {
                return fault(&Fault::new(
                    Code::Forbidden,
                    "only clients and boosters wait",
                ));
            }
        }
        if let Err(wait) = self.waits.take(peer.identity(), Instant::now()) {
            return too_many("waits come too fast", wait);
        }
        let Some(held) = held_by(query) else {
            let told = "want model=NUMBER and manifest=DIGEST, or neither";
            return fault(&Fault::new(Code::BadRequest, told));
        };
        let id = peer.id();
        match self.manifests.wait(id, held) {
            Ok(None) => {}
            Ok(Some(woken)) => match timeout(WAIT, woken).await {
                Ok(Ok(())) => {}
                // Its time is over, another wait has taken its place, or we stop.
                Ok(Err(_)) | Err(_) => return nothing(),
            },
            Err(refusal) => {
                let mut reply = fault(&Fault::new(Code::Busy, refusal.to_string()));
                let again = crate::enrol::retry_after(WAIT_AGAIN);
                let name = http::header::RETRY_AFTER;
                reply.headers_mut().insert(name, again);
                return reply;
            }
        }
        let standing = self.manifests.standing(id).await;
        self.tell(id, standing, false).await
    }

    async fn tell(&self, id: &DeviceId, standing: Standing, inventory: bool) -> Reply {
        self.metrics.checked_in("told");
        self.manifests.told(id);
        json(&CheckInAnswer {
            next_seconds: self.next_seconds(),
            manifest: standing.manifest,
            boosters: self.near(id).await,
            commands: standing.commands,
            inventory,
        })
    }

    /// The boosters that the device `id` should ask. If they cannot be told, it chooses by itself.
    async fn near(&self, id: &DeviceId) -> Vec<String> {
        match self.documents.near(id).await {
            Ok(near) => near,
            Err(failure) => {
                error!(error = %Report(&failure), "cannot tell a device which boosters to ask");
                Vec::new()
            }
        }
    }

    /// When a device comes again: a tenth to either side, so that those who came together part.
    pub(super) fn next_seconds(&self) -> u32 {
        let seconds = u32::try_from(self.interval.as_secs()).unwrap_or(u32::MAX / 2);
        let spread = seconds / 10;
        fastrand::u32(seconds - spread..=seconds + spread)
    }
}

/// The manifest that a query says is held: the inner none if none is.
fn held_by(query: &str) -> Option<Option<Digest>> {
    let mut held = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=')? {
            // Only the manifest counts: a model may be newer and say the same for this device.
            ("model", number) => {
                number.parse::<u64>().ok()?;
            }
            ("manifest", digest) => held = Some(digest.parse().ok()?),
            (_, _) => return None,
        }
    }
    Some(held)
}

/// That nothing has changed.
pub(super) fn nothing() -> Reply {
    let mut reply = Response::new(full(Vec::new()));
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let no_store = HeaderValue::from_static("no-store");
    reply.headers_mut().insert(CACHE_CONTROL, no_store);
    reply
}

/// An answer to a check-in.
pub(super) fn json(answer: &CheckInAnswer) -> Reply {
    let mut reply = Response::new(full(answer.encode()));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}
