//! Keys that devices have left. Until the device has made a call under a certificate of its new key,
//! what was issued for the one before stays in force, and that key may choose yet another: one that
//! never worked must not lock it out. With the first such call the key before loses its say, at once
//! and durably; what was issued for it is revoked together with whatever else comes within [`DELAY`],
//! since each list is signed for many and may be long.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certs::{DeviceId, Peer};
use service::Report;
use tokio::time::Instant;
use tracing::debug;

use super::decide::Enrolment;
use crate::authority::AuthorityError;
use crate::ledger::{LedgerError, rekeys};

/// How long what was left may go on after the new certificate has been seen. A list of a million
/// entries has 42 MB, which every branch fetches: a stream of changes makes twelve an hour.
pub(crate) const DELAY: Duration = Duration::from_secs(300);

/// Whom we wait for. The ledger knows it, and this spares asking it at each call. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Rekeys(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Each with the number, in this run, of the change that we wait for.
    awaited: HashMap<DeviceId, u64>,
    /// When to revoke what was left by those who have been seen.
    due: Option<Instant>,
    /// Whether the ledger has been asked for what an earlier run left.
    is_loaded: bool,
    numbered: u64,
}

impl Enrolment {
    /// Takes note of a call under the certificate of `peer`, before it is answered. If the ledger
    /// fails, the next call is taken note of in its place.
    pub async fn seen(&self, peer: &Peer) {
        if let Err(failure) = self.note(peer).await {
            // The upkeep finds the same, and tells an operator.
            let error = Report(&failure);
            debug!(device = %peer.id(), %error, "cannot note a call under a new key");
        }
    }

    async fn note(&self, peer: &Peer) -> Result<(), LedgerError> {
        let now = Instant::now();
        self.load_rekeys(now).await?;
        let Some(number) = self.rekeys.number(peer.id()) else {
            return Ok(());
        };
        if self.authority().show(peer).await? {
            self.rekeys.shown(peer.id(), number, now);
        }
        Ok(())
    }

    /// Revokes what was issued for keys that were left, of each device that has been seen with its
    /// new one. It does so at most every five minutes; asked in between, nothing.
    ///
    /// # Errors
    ///
    /// Fails if the ledger, a signature or the disk does; it is tried again.
    pub async fn supersede(&self) -> Result<(), AuthorityError> {
        self.supersede_at(Instant::now()).await
    }

    pub(super) async fn supersede_at(&self, now: Instant) -> Result<(), AuthorityError> {
        self.load_rekeys(now).await?;
        if !self.rekeys.take_due(now) {
            return Ok(());
        }
        let done = self.authority().supersede().await;
        if done.is_err() {
            self.rekeys.due_by(now + DELAY);
        }
        done
    }

    /// Takes up what an earlier run has left, once.
    async fn load_rekeys(&self, now: Instant) -> Result<(), LedgerError> {
        if self.rekeys.lock().is_loaded {
            return Ok(());
        }
        let mut db = self.authority().ledger().read().await?;
        let awaited = rekeys::list(&mut db).await?;
        if !rekeys::shown(&mut db).await?.is_empty() {
            self.rekeys.due_by(now);
        }
        self.rekeys.load(awaited);
        Ok(())
    }
}

impl Rekeys {
    /// Waits for the device `id` from now on: it has changed its key.
    pub(super) fn began(&self, id: &DeviceId) {
        let mut state = self.lock();
        state.numbered += 1;
        let number = state.numbered;
        state.awaited.insert(id.clone(), number);
    }

    /// Which change of its key the device `id` has to be seen after, if it has.
    fn number(&self, id: &DeviceId) -> Option<u64> {
        self.lock().awaited.get(id).copied()
    }

    /// Waits no more for the device `id`, unless it has changed its key once more meanwhile.
    fn shown(&self, id: &DeviceId, number: u64, now: Instant) {
        let mut state = self.lock();
        if state.awaited.get(id) == Some(&number) {
            state.awaited.remove(id);
        }
        state.due.get_or_insert(now + DELAY);
    }

    fn load(&self, ids: Vec<DeviceId>) {
        let mut state = self.lock();
        state.is_loaded = true;
        for id in ids {
            state.awaited.entry(id).or_default();
        }
    }

    /// Whether it is time to revoke.
    fn take_due(&self, now: Instant) -> bool {
        self.lock().due.take_if(|due| *due <= now).is_some()
    }

    fn due_by(&self, at: Instant) {
        let mut state = self.lock();
        state.due = Some(state.due.map_or(at, |due| due.min(at)));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Rekeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let awaited = self.lock().awaited.len();
        f.debug_struct("Rekeys").field("awaited", &awaited).finish()
    }
}

#[cfg(test)]
mod tests;
