//! One current list per issuer, and what it says about a serial.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;

use super::{Crl, IssuerId, RevocationReason};
use crate::serial::Serial;

/// The lists in force, one per issuer's key.
///
/// Look-ups take no lock. A list is replaced only by a newer one of the same issuer.
pub struct CrlStore {
    current: ArcSwap<Lists>,
    generation: AtomicU64,
    grace: Duration,
    /// Held while installing, so that of two lists the newer one stays.
    writer: Mutex<Vec<Weak<dyn CrlWatcher>>>,
}

#[derive(Clone, Default)]
pub(crate) struct Lists {
    by_issuer: HashMap<IssuerId, Arc<Crl>>,
    /// The least number that somebody we trust has vouched for.
    number_min: HashMap<IssuerId, u64>,
}

/// Told when a list has changed. Called from within [`CrlStore::install`]: be quick.
pub trait CrlWatcher: Send + Sync {
    /// `issuer` has a new list in force, or is not trusted any more.
    fn crl_changed(&self, issuer: IssuerId);
}

/// What the store knows about a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Not on a list that is fresh, or within grace.
    Good,
    /// On the list, however old the list is.
    Revoked {
        /// Why.
        reason: RevocationReason,
    },
    /// Not on the list, but the list is too old to rely on, or known to be outdated.
    Stale,
    /// There is no list of this issuer.
    NoCrl,
}

/// How old an issuer's list is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Freshness {
    /// Before its next update.
    Fresh,
    /// Past its next update, within grace: still relied on, worth an alarm.
    Grace,
    /// Past grace, or older than a number that has been vouched for.
    Stale,
    /// There is none.
    Missing,
}

/// A list that would take us back in time was refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Rollback {
    /// Two lists with one number: somebody signs what should not be signed.
    #[error("cannot replace revocation list {number} by another of the same number")]
    Fork {
        /// The number of both.
        number: u64,
    },
    /// The list in force is newer, or a newer one has been vouched for.
    #[error("cannot replace revocation list {current} by {offered}")]
    Older {
        /// The number in force, or the least that is accepted.
        current: u64,
        /// The number offered.
        offered: u64,
    },
}

impl CrlStore {
    /// An empty store. A list counts for `grace` after its next update was due; with a grace
    /// of zero, no longer than until then. After that everybody it does not name is
    /// [`Verdict::Stale`], at once and without a word to the watchers: nothing has changed, and
    /// what a session may still do then is for the listener to say.
    pub fn new(grace: Duration) -> Self {
        Self {
            current: ArcSwap::default(),
            generation: AtomicU64::new(0),
            grace,
            writer: Mutex::new(Vec::new()),
        }
    }

    /// Whether [`CrlStore::install`] would take `crl`: for callers that must write it to
    /// disk first.
    ///
    /// # Errors
    ///
    /// Fails if the list in force is newer, or differs under the same number.
    pub fn check(&self, crl: &Crl) -> Result<(), Rollback> {
        self.current.load().check(crl)
    }

    /// Puts `crl` in force. Returns whether anything changed: the same list twice is no
    /// error.
    ///
    /// # Errors
    ///
    /// Fails if the list in force is newer, or differs under the same number.
    pub fn install(&self, crl: Crl) -> Result<bool, Rollback> {
        let issuer = crl.issuer();
        let watchers = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lists = Lists::clone(&self.current.load());
        lists.check(&crl)?;
        let number = crl.number();
        let old = lists.by_issuer.insert(issuer, Arc::new(crl));
        if old.is_some_and(|old| old.number() == number) {
            return Ok(false);
        }
        self.publish(watchers, lists, issuer);
        Ok(true)
    }

    /// Takes note that `issuer` has published `number`, as a verified timestamp says. An
    /// older list then counts as stale, however fresh it claims to be: a relay that
    /// withholds the new one gains nothing.
    pub fn require_number(&self, issuer: IssuerId, number: u64) {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lists = Lists::clone(&self.current.load());
        let least = lists.number_min.entry(issuer).or_default();
        *least = number.max(*least);
        self.current.store(Arc::new(lists));
    }

    /// Drops the list of an issuer that is not trusted any more. Should it ever come back, no
    /// older list is taken.
    pub fn forget(&self, issuer: IssuerId) {
        let watchers = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lists = Lists::clone(&self.current.load());
        let Some(crl) = lists.by_issuer.remove(&issuer) else {
            return;
        };
        let least = lists.number_min.entry(issuer).or_default();
        *least = crl.number().max(*least);
        self.publish(watchers, lists, issuer);
    }

    /// What is known about the certificate `serial` of `issuer` at `now`. Revoked has
    /// precedence over stale.
    pub fn lookup(&self, issuer: IssuerId, serial: Serial, now: i64) -> Verdict {
        let lists = self.current.load();
        let Some(crl) = lists.by_issuer.get(&issuer) else {
            return Verdict::NoCrl;
        };
        if let Some(reason) = crl.revoked(serial) {
            return Verdict::Revoked { reason };
        }
        match lists.freshness(crl, self.grace, now) {
            Freshness::Fresh | Freshness::Grace => Verdict::Good,
            Freshness::Stale => Verdict::Stale,
            Freshness::Missing => Verdict::NoCrl,
        }
    }

    /// How old `issuer`'s list is at `now`.
    pub fn freshness(&self, issuer: IssuerId, now: i64) -> Freshness {
        let lists = self.current.load();
        lists
            .by_issuer
            .get(&issuer)
            .map_or(Freshness::Missing, |crl| {
                lists.freshness(crl, self.grace, now)
            })
    }

    /// The list of `issuer` in force.
    pub fn current(&self, issuer: IssuerId) -> Option<Arc<Crl>> {
        self.current.load().by_issuer.get(&issuer).cloned()
    }

    /// The lists in force, to tell them from others by where they lie.
    pub(crate) fn lists(&self) -> arc_swap::Guard<Arc<Lists>> {
        self.current.load()
    }

    /// Every list in force, in the order of their issuers' names.
    pub fn all(&self) -> Vec<Arc<Crl>> {
        let mut all: Vec<Arc<Crl>> = self.current.load().by_issuer.values().cloned().collect();
        all.sort_unstable_by_key(|crl| crl.issuer());
        all
    }

    /// Rises by one with each list put in force or dropped.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Puts `lists` in force and tells everybody, once others may write again.
    fn publish(
        &self,
        mut watchers: MutexGuard<'_, Vec<Weak<dyn CrlWatcher>>>,
        lists: Lists,
        changed: IssuerId,
    ) {
        self.current.store(Arc::new(lists));
        self.generation.fetch_add(1, Ordering::Release);
        let mut alive = Vec::new();
        watchers.retain(|watcher| watcher.upgrade().map(|it| alive.push(it)).is_some());
        drop(watchers);
        alive
            .iter()
            .for_each(|watcher| watcher.crl_changed(changed));
    }

    /// Tells `watcher` of each new list for as long as it lives.
    pub fn watch(&self, watcher: Weak<dyn CrlWatcher>) {
        self.writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(watcher);
    }
}

impl fmt::Debug for CrlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrlStore")
            .field("lists", &self.all())
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

impl Lists {
    fn check(&self, crl: &Crl) -> Result<(), Rollback> {
        let offered = crl.number();
        if let Some(current) = self.by_issuer.get(&crl.issuer()) {
            if offered < current.number() {
                return Err(Rollback::Older {
                    current: current.number(),
                    offered,
                });
            }
            if offered == current.number() && crl.digest() != current.digest() {
                return Err(Rollback::Fork { number: offered });
            }
            return Ok(());
        }
        // Only a first list is measured by this: one on the way up is better than none, but
        // from nothing to a list that is known to be old is what a wiped disk is made to do.
        match self.number_min.get(&crl.issuer()) {
            Some(&current) if offered < current => Err(Rollback::Older { current, offered }),
            Some(_) | None => Ok(()),
        }
    }

    fn freshness(&self, crl: &Crl, grace: Duration, now: i64) -> Freshness {
        let outdated = self
            .number_min
            .get(&crl.issuer())
            .is_some_and(|least| crl.number() < *least);
        let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        if outdated || now > crl.next_update().saturating_add(grace) {
            Freshness::Stale
        } else if now > crl.next_update() {
            Freshness::Grace
        } else {
            Freshness::Fresh
        }
    }
}
