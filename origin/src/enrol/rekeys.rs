//! Keys that devices have left. What was issued for them stays in force until the device has made a
//! call under a certificate of its new key: one that never worked must not lock it out. Then it is
//! revoked, together with whatever else came within [`DELAY`]: each list is signed for many, since
//! it may be long.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certs::{DeviceId, IssuerId, Peer, Serial};
use tokio::time::Instant;

use super::decide::Enrolment;
use crate::authority::AuthorityError;
use crate::ledger::rekeys;

/// How long what was left may go on after the new certificate has been seen. A list of a million
/// entries has 42 MB, which every branch fetches: a stream of changes makes twelve an hour.
pub(crate) const DELAY: Duration = Duration::from_secs(300);
/// How many certificates of one device are remembered as shown: it has two or three.
const SHOWN_MAX: usize = 8;

/// Whom we wait for, and what they have shown since. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Rekeys(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    awaited: HashMap<DeviceId, Awaited>,
    /// When to look at what was shown.
    due: Option<Instant>,
    /// Whether the ledger has been asked for what an earlier run left.
    is_loaded: bool,
    numbered: u64,
}

#[derive(Default)]
struct Awaited {
    /// Which change of its key this is, in this run.
    number: u64,
    shown: Vec<Shown>,
}

/// A certificate under which somebody called.
type Shown = (IssuerId, Serial, [u8; 32]);

/// What a device has shown since the change of its key that bears this number.
struct Candidate {
    id: DeviceId,
    number: u64,
    shown: Vec<Shown>,
}

impl Enrolment {
    /// Takes note of a call under the certificate of `peer`.
    pub fn seen(&self, peer: &Peer) {
        self.rekeys.note(peer, Instant::now());
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
        if !self.rekeys.is_loaded() {
            let mut db = self.authority().ledger().read().await?;
            self.rekeys.load(rekeys::list(&mut db).await?);
        }
        let Some(candidates) = self.rekeys.take_due(now) else {
            return Ok(());
        };
        let shown = candidates.iter().map(|it| (&it.id, &it.shown[..]));
        match self.authority().supersede(shown).await {
            Ok(settled) => {
                let is_settled = |it: &Candidate| settled.contains(&it.id);
                self.rekeys
                    .forget(candidates.iter().filter(|it| is_settled(it)));
                Ok(())
            }
            Err(failure) => {
                self.rekeys.put_back(candidates, now);
                Err(failure)
            }
        }
    }
}

impl Rekeys {
    /// Waits for the device `id` from now on: it has changed its key.
    pub(super) fn began(&self, id: &DeviceId) {
        let mut state = self.lock();
        state.numbered += 1;
        let begun = Awaited {
            number: state.numbered,
            shown: Vec::new(),
        };
        state.awaited.insert(id.clone(), begun);
    }

    fn note(&self, peer: &Peer, now: Instant) {
        let mut state = self.lock();
        let Some(awaited) = state.awaited.get_mut(peer.id()) else {
            return;
        };
        let shown = (peer.issuer(), peer.serial(), *peer.spki_sha256());
        if awaited.shown.contains(&shown) {
            return;
        }
        if awaited.shown.len() == SHOWN_MAX {
            awaited.shown.remove(0);
        }
        awaited.shown.push(shown);
        state.due.get_or_insert(now + DELAY);
    }

    fn is_loaded(&self) -> bool {
        self.lock().is_loaded
    }

    fn load(&self, ids: Vec<DeviceId>) {
        let mut state = self.lock();
        state.is_loaded = true;
        for id in ids {
            state.awaited.entry(id).or_default();
        }
    }

    /// What was shown, if it is time to look at it.
    fn take_due(&self, now: Instant) -> Option<Vec<Candidate>> {
        let mut state = self.lock();
        state.due.take_if(|due| *due <= now)?;
        let taken = state
            .awaited
            .iter_mut()
            .filter(|(_, it)| !it.shown.is_empty());
        let candidate = |(id, it): (&DeviceId, &mut Awaited)| Candidate {
            id: id.clone(),
            number: it.number,
            shown: std::mem::take(&mut it.shown),
        };
        Some(taken.map(candidate).collect())
    }

    /// Waits no more for `settled`, unless they have changed their key once more meanwhile.
    fn forget<'a>(&self, settled: impl Iterator<Item = &'a Candidate>) {
        let mut state = self.lock();
        for candidate in settled {
            let is_same = |it: &Awaited| it.number == candidate.number;
            if state.awaited.get(&candidate.id).is_some_and(is_same) {
                state.awaited.remove(&candidate.id);
            }
        }
    }

    fn put_back(&self, candidates: Vec<Candidate>, now: Instant) {
        let mut state = self.lock();
        state.due.get_or_insert(now + DELAY);
        for candidate in candidates {
            if let Some(it) = state.awaited.get_mut(&candidate.id) {
                it.shown = candidate.shown;
            }
        }
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
