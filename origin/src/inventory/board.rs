//! Which inventory is kept of whom and when who was heard, in memory: a check-in that brings
//! nothing costs no look into the database.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certs::DeviceId;
use content::Digest;
use tokio::time::Instant;

/// What is known of all devices. Each call takes the lock for some hundred nanoseconds, those that
/// look at all of them apart.
#[derive(Debug, Default)]
pub(super) struct Board {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    asked: u32,
    asked_since: Option<Instant>,
    devices: HashMap<DeviceId, Known>,
    /// Rises with each inventory that comes.
    era: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    digest: Option<Digest>,
    /// When `digest` came, as eras go.
    era: u64,
    seen_at: i64,
    written: i64,
}

/// Inventories that are asked for in a second: after a restore, all devices have one to send.
const ASKS_IN_A_SECOND: u32 = 20;
/// When a device was heard is written down if that is news by so many seconds.
const SEEN_STEP: i64 = 900;

impl Board {
    /// Notes that `id` was heard at `now`, and has the inventory `digest`; whether it is asked for.
    pub(super) fn heard(
        &self,
        id: &DeviceId,
        digest: Option<Digest>,
        now: i64,
        instant: Instant,
    ) -> bool {
        let mut state = self.state();
        if let Some(known) = state.devices.get_mut(id) {
            known.seen_at = known.seen_at.max(now);
            if digest.is_none() || known.digest == digest {
                return false;
            }
        } else {
            let known = Known {
                seen_at: now,
                ..Known::default()
            };
            state.devices.insert(id.clone(), known);
        }
        digest.is_some() && state.may_ask(instant)
    }

    pub(super) fn seen_at(&self, id: &DeviceId) -> Option<i64> {
        let state = self.state();
        let known = state.devices.get(id);
        known.map(|known| known.seen_at).filter(|at| *at > 0)
    }

    pub(super) fn put(&self, id: &DeviceId, digest: Digest) {
        let mut state = self.state();
        state.era += 1;
        let era = state.era;
        let known = state.devices.entry(id.clone()).or_default();
        (known.digest, known.era) = (Some(digest), era);
    }

    pub(super) fn era(&self) -> u64 {
        self.state().era
    }

    /// Takes up what was read from the ledger, which was asked when the era was `began`: what has
    /// come since stays.
    pub(super) fn reset(
        &self,
        began: u64,
        digests: Vec<(DeviceId, Digest)>,
        seen: Vec<(DeviceId, i64)>,
    ) {
        let mut state = self.state();
        let old = state
            .devices
            .values_mut()
            .filter(|known| known.era <= began);
        old.for_each(|known| known.digest = None);
        for (id, digest) in digests {
            let known = state.devices.entry(id).or_default();
            if known.era <= began {
                known.digest = Some(digest);
            }
        }
        for (id, at) in seen {
            let known = state.devices.entry(id).or_default();
            known.seen_at = known.seen_at.max(at);
            known.written = at;
        }
    }

    /// Who was heard, and when, as far as that is news.
    pub(super) fn unwritten(&self) -> Vec<(DeviceId, i64)> {
        let state = self.state();
        let news = state.devices.iter();
        let news = news.filter(|(_, known)| known.seen_at >= known.written + SEEN_STEP);
        news.map(|(id, known)| (id.clone(), known.seen_at))
            .collect()
    }

    pub(super) fn written(&self, batch: &[(DeviceId, i64)]) {
        let mut state = self.state();
        for (id, at) in batch {
            if let Some(known) = state.devices.get_mut(id) {
                known.written = *at;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether one more may be asked at `now`; those who are not come again.
    fn may_ask(&mut self, now: Instant) -> bool {
        let is_over = |since| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if self.asked_since.is_none_or(is_over) {
            (self.asked_since, self.asked) = (Some(now), 0);
        }
        let may = self.asked < ASKS_IN_A_SECOND;
        self.asked += u32::from(may);
        may
    }
}
