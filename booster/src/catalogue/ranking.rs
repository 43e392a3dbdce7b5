//! Telling the cache what is still named and what is pinned, so that it gives up the rest first.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use content::{Digest, PackId};

use super::Shared;
use super::names::Names;
use crate::cache::{Standing, off_runtime};
use crate::pins::Pin;

/// Sorts the cache for one at a time: of two who sort it, the one that knew more comes last.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    asked: AtomicU64,
    /// Which question was the last to be asked when the last answer was begun.
    answered: Mutex<u64>,
}

/// What everything in the cache is worth.
pub(super) struct Standings {
    objects: HashSet<Digest>,
    packs: HashMap<PackId, Standing>,
}

impl Shared {
    /// Has the cache sorted by what is named and pinned now.
    pub(super) async fn rank(&self) {
        let (names, cache) = (Arc::clone(&self.names), self.parts.cache.clone());
        let (ranking, pins) = (Arc::clone(&self.ranking), self.parts.pins.clone());
        let ranked = off_runtime(move || {
            ranking.rank(
                &names,
                || pins.wanted(),
                |standings| {
                    cache.rank(|id| standings.pack(id), |digest| standings.object(digest));
                },
            );
        });
        // That it was cut off is told already, and the next time it is done again.
        let _done = ranked.await;
    }
}

impl Ranking {
    /// Has everything sorted by what holds now, unless somebody who asked later has seen to it
    /// meanwhile. Nothing but this itself is locked while `sort` runs: the cache asks under a lock
    /// of its own.
    pub(super) fn rank(
        &self,
        names: &RwLock<Names>,
        pins: impl FnOnce() -> BTreeSet<Pin>,
        sort: impl FnOnce(&Standings),
    ) {
        let question = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if *answered >= question {
            return;
        }
        *answered = self.asked.load(Ordering::SeqCst);
        let pins = pins();
        let names = names.read().unwrap_or_else(PoisonError::into_inner);
        let standings = Standings {
            objects: names.object_digests(),
            packs: names.standings(&pins),
        };
        drop(names);
        sort(&standings);
    }
}

impl Standings {
    fn pack(&self, id: PackId) -> Standing {
        let named = self.packs.get(&id).copied();
        named.unwrap_or(Standing::Superseded)
    }

    fn object(&self, digest: Digest) -> Standing {
        if self.objects.contains(&digest) {
            Standing::Current
        } else {
            Standing::Superseded
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Longer than anything takes that is going to happen.
    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn nothing_that_a_ranking_asks_is_locked_while_the_cache_is_sorted() {
        let (ranking, names) = (Ranking::default(), RwLock::<Names>::default());
        let mut sorted = false;
        ranking.rank(&names, BTreeSet::new, |_| {
            sorted = names.try_write().is_ok();
        });
        assert!(sorted);
    }

    #[test]
    fn of_two_rankings_at_once_the_one_that_began_later_knows_more_and_comes_last() {
        let (ranking, names) = (&Ranking::default(), &RwLock::<Names>::default());
        let pins = &Mutex::new(BTreeSet::new());
        // How many pins each knew of, in the order in which they sorted.
        let order = &Mutex::new(Vec::new());
        let rank = move |before: &dyn Fn()| {
            let known = Mutex::new(0);
            let look = || {
                let pins = pins.lock().unwrap().clone();
                *known.lock().unwrap() = pins.len();
                pins
            };
            ranking.rank(names, look, |_| {
                before();
                order.lock().unwrap().push(*known.lock().unwrap());
            });
        };
        let (begun, first_has_begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                rank(&|| {
                    begun.send(()).unwrap();
                    may_go_on.recv_timeout(SOON).unwrap();
                });
            });
            first_has_begun.recv_timeout(SOON).unwrap();
            pins.lock().unwrap().insert("tools".parse().unwrap());
            // Two more who ask meanwhile: one of them is enough for both.
            for _ in 0..2 {
                scope.spawn(move || rank(&|| {}));
            }
            while ranking.asked.load(Ordering::SeqCst) < 3 {
                thread::yield_now();
            }
            go_on.send(()).unwrap();
        });
        assert_eq!(*order.lock().unwrap(), [0, 1]);
    }
}
