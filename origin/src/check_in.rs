//! Check-ins: a party says how it is; a booster where it serves, which the deployment document tells
//! everybody; a device what it holds, against which it hears what it should. Who checks in without a
//! pause, or says something else each time, must not have the ledger written and a document signed
//! each time.

mod device;
mod keep;
mod near;
mod relayed;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certs::{DeviceId, Identity, Peer, Role};
use protocol::{BoosterAddresses, CheckIn, CheckInAnswer, Code, Fault};
use service::{Pace, Report};
use tokio::time::Instant;
use tracing::error;

pub use keep::{Keep, Keeper};
pub use near::Sites;

use crate::api::{Reply, fault, too_many};
use crate::documents::{DocumentError, Documents};
use crate::inventory::Inventories;
use crate::manifests::Manifests;
use crate::metrics::Metrics;

/// How often a booster checks in: often enough that one which moved is found within minutes.
const CHECK_IN_SECONDS: u32 = 300;
/// How fast one party may check in in the long run. A booster of ours waits as long at least.
const STEP: Duration = Duration::from_secs(10);
/// How often at once: a booster that is started again and again.
const BURST: u32 = 6;
/// How fast one booster may pass on what its devices say, each time of many of them.
const RELAY_STEP: Duration = Duration::from_millis(50);
/// How often at once.
const RELAY_BURST: u32 = 64;
/// How fast one booster may ask for another roster.
const ROSTER_STEP: Duration = Duration::from_secs(2);
/// What a booster says of its addresses is written at once, so many times within [`SETTLE`]: one that
/// is restarted a few times is found each time.
const WRITES_AT_ONCE: u32 = 4;
/// From the first of those writes on; what it says after the last of them is written once this is
/// over.
pub(crate) const SETTLE: Duration = Duration::from_secs(60);

/// Takes check-ins. Cloning shares it.
#[derive(Clone)]
pub struct CheckIns {
    documents: Documents,
    heard: Arc<relayed::Heard>,
    interval: Duration,
    inventories: Inventories,
    keep: Keep,
    manifests: Manifests,
    metrics: Metrics,
    pace: Arc<Pace<Identity>>,
    relays: Arc<Pace<Identity>>,
    rosters: Arc<Pace<Identity>>,
    waits: Arc<Pace<Identity>>,
    settling: Arc<Mutex<HashMap<DeviceId, Settling>>>,
    /// Held while addresses are looked at and written: of two that a booster says, the later stays.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A booster whose addresses were written lately.
struct Settling {
    /// What it has said since, if that is something else.
    next: Option<BoosterAddresses>,
    /// When the first of the writes was.
    since: Instant,
    writes: u32,
}

impl CheckIns {
    /// Check-ins that change `documents`, hand on to `keep`, and tell devices of `manifests`, to send
    /// what `inventories` lack, and to come every `interval`.
    #[must_use]
    pub fn new(
        documents: Documents,
        manifests: Manifests,
        inventories: Inventories,
        keep: Keep,
        metrics: Metrics,
        interval: Duration,
    ) -> Self {
        Self {
            documents,
            heard: Arc::default(),
            interval,
            inventories,
            keep,
            manifests,
            metrics,
            pace: Arc::new(Pace::new(STEP, BURST)),
            relays: Arc::new(Pace::new(RELAY_STEP, RELAY_BURST)),
            rosters: Arc::new(Pace::new(ROSTER_STEP, BURST)),
            waits: Arc::new(Pace::new(STEP, BURST)),
            settling: Arc::default(),
            turn: Arc::default(),
        }
    }

    /// `POST /v1/check-in` of `peer`. A booster can speak only for itself.
    pub async fn answer(&self, peer: &Peer, body: &[u8]) -> Reply {
        let now = Instant::now();
        if let Err(wait) = self.pace.take(peer.identity(), now) {
            self.metrics.checked_in("refused");
            return too_many("check-ins come too fast", wait);
        }
        let Some(check_in) = CheckIn::decode(body) else {
            self.metrics.checked_in("refused");
            return fault(&Fault::new(Code::BadRequest, "want a check-in"));
        };
        if let Some(at) = check_in.booster {
            if peer.role() != Role::Booster {
                self.metrics.checked_in("refused");
                return fault(&Fault::new(Code::Forbidden, "only a booster has addresses"));
            }
            if let Err(failure) = self.take(peer.id(), at, now).await {
                error!(error = %Report(&failure), "cannot take a booster's addresses");
                self.metrics.checked_in("failed");
                let told = Fault::new(Code::Internal, "the origin cannot take that at the moment");
                return fault(&told);
            }
        }
        match check_in.held {
            Some(_) if peer.role() != Role::Client => {
                self.metrics.checked_in("refused");
                fault(&Fault::new(Code::Forbidden, "only a client holds filesets"))
            }
            Some(held) => self.hold(peer.id(), held).await,
            None => {
                self.metrics.checked_in("told");
                let seconds = match peer.role() {
                    Role::Client => self.next_seconds(),
                    Role::Booster | Role::Origin | Role::Signer => CHECK_IN_SECONDS,
                };
                device::json(&CheckInAnswer::in_seconds(seconds))
            }
        }
    }

    /// Takes note of where the booster `id` says at `now` that it serves.
    async fn take(
        &self,
        id: &DeviceId,
        at: BoosterAddresses,
        now: Instant,
    ) -> Result<(), DocumentError> {
        let _turn = self.turn.lock().await;
        if self.documents.booster(id).await?.as_ref() == Some(&at) {
            if let Some(settling) = self.settling().get_mut(id) {
                settling.next = None;
            }
            return Ok(());
        }
        if !self.may_write(id, &at, now) {
            return Ok(());
        }
        let written = self.documents.put_boosters(&[(id.clone(), at)]).await;
        // Who is answered with nothing would not hear of it.
        self.manifests.forget_told();
        if written.is_err() {
            // Nothing was: whoever says it again is to be heard.
            self.settling().remove(id);
        }
        written
    }

    /// Whether the addresses of `id` may be written at `now`; if not, `at` waits.
    fn may_write(&self, id: &DeviceId, at: &BoosterAddresses, now: Instant) -> bool {
        let fresh = Settling {
            next: None,
            since: now,
            writes: 1,
        };
        match self.settling().entry(id.clone()) {
            Entry::Vacant(free) => {
                free.insert(fresh);
                true
            }
            Entry::Occupied(mut held) if is_over(held.get(), now) => {
                held.insert(fresh);
                true
            }
            Entry::Occupied(mut held) if held.get().writes < WRITES_AT_ONCE => {
                held.get_mut().writes += 1;
                true
            }
            Entry::Occupied(mut held) => {
                held.get_mut().next = Some(at.clone());
                false
            }
        }
    }

    /// Writes what boosters said last and has waited for long enough; `at_once`, all that waits.
    /// One transaction and one document for all of it.
    ///
    /// # Errors
    ///
    /// Fails if the ledger, the disk or the signature does; it is tried again.
    pub async fn settle(&self, at_once: bool) -> Result<(), DocumentError> {
        self.settle_at(Instant::now(), at_once).await
    }

    async fn settle_at(&self, now: Instant, at_once: bool) -> Result<(), DocumentError> {
        let _turn = self.turn.lock().await;
        let due = self.take_due(now, at_once);
        if due.is_empty() {
            return Ok(());
        }
        let written = self.documents.put_boosters(&due).await;
        self.manifests.forget_told();
        if written.is_err() {
            let mut settling = self.settling();
            for (id, at) in due {
                if let Some(it) = settling.get_mut(&id) {
                    it.next = Some(at);
                }
            }
        }
        written
    }

    fn take_due(&self, now: Instant, at_once: bool) -> Vec<(DeviceId, BoosterAddresses)> {
        let mut settling = self.settling();
        settling.retain(|_, it| it.next.is_some() || !is_over(it, now));
        let due = settling
            .iter_mut()
            .filter(|(_, it)| at_once || is_over(it, now));
        let take = |(id, it): (&DeviceId, &mut Settling)| {
            let at = it.next.take()?;
            // It has had its turn: one that moves on and on has a document a minute from now on.
            it.since = now;
            Some((id.clone(), at))
        };
        due.filter_map(take).collect()
    }

    fn settling(&self) -> MutexGuard<'_, HashMap<DeviceId, Settling>> {
        self.settling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CheckIns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settling = self.settling().len();
        f.debug_struct("CheckIns")
            .field("settling", &settling)
            .finish_non_exhaustive()
    }
}

fn is_over(settling: &Settling, now: Instant) -> bool {
    now.saturating_duration_since(settling.since) >= SETTLE
}

#[cfg(test)]
mod tests;
