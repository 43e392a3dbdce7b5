//! Fetching what comes next for somebody who reads in order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use content::locator::PackEntry;
use content::{FilesetName, PackId};

use super::fill::{Fill, Job, Tail, Want};
use super::{Asker, Flights, Shared, pack_key};

/// The fills that were begun ahead of those who read a fileset. They go on for as long as any of
/// these holds this: one who reads on, but for whom they would not be begun again, must not break
/// off what has half come.
#[derive(Debug, Default)]
pub(super) struct Lead {
    tails: Mutex<Vec<Tail>>,
}

/// The leads that somebody holds.
#[derive(Debug, Default)]
pub(super) struct Leads {
    /// How many there are, or were lately: where there are none, a hit asks no more than this.
    count: AtomicUsize,
    held: Mutex<HashMap<FilesetName, Weak<Lead>>>,
}

impl Lead {
    /// Holds these, too, and lets go of what is done.
    fn hold(&self, more: Vec<Tail>) {
        // Nothing panics while it holds the lock.
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        tails.retain(|tail| !tail.has_ended());
        for tail in more {
            if !tails.iter().any(|held| held.is_behind_same(&tail)) {
                tails.push(tail);
            }
        }
    }
}

impl Leads {
    /// The lead of those who read `fileset`, which holds the fills that are `next`, too, from now on.
    /// None if there is nothing to hold.
    fn take(&self, fileset: &FilesetName, next: Vec<Tail>) -> Option<Arc<Lead>> {
        if next.is_empty() && self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut held = self.held();
        let lead = match held.get(fileset).and_then(Weak::upgrade) {
            Some(lead) => lead,
            None => {
                held.retain(|_, lead| lead.strong_count() > 0);
                let lead: Arc<Lead> = Arc::default();
                if !next.is_empty() {
                    held.insert(fileset.clone(), Arc::downgrade(&lead));
                }
                lead
            }
        };
        self.count.store(held.len(), Ordering::Relaxed);
        drop(held);
        lead.hold(next);
        Some(lead)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<FilesetName, Weak<Lead>>> {
        // Nothing panics while it holds the lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Has what comes next be fetched for somebody who reads in order. It is fetched for as long as
    /// he, or another who reads that fileset, holds what this gives, and a little longer.
    pub(super) fn read_ahead(
        self: &Arc<Self>,
        fileset: &FilesetName,
        id: PackId,
        asker: Asker,
        missed: bool,
    ) -> Option<Arc<Lead>> {
        let depth = || self.upstreams.concurrency();
        let next = self.trails.follow(fileset, id, asker, missed, depth);
        let join = |entry| self.join_ahead(fileset, entry);
        let next = next.into_iter().filter_map(join).collect();
        self.leads.take(fileset, next)
    }

    /// Has the pack be fetched that comes behind one that many read, if that is new in the newest
    /// revision that has it: what is new is what they came for. It is fetched to its end if one of
    /// them asks for it soon.
    pub(super) fn fetch_behind(self: &Arc<Self>, fill: &Fill) {
        let behind = self.trails.new_behind(&fill.fileset, fill.entry.id);
        let _nobody_reads_it_yet = behind.and_then(|entry| self.join_ahead(&fill.fileset, entry));
    }

    /// Joins the fill of a pack that somebody is about to ask for, or starts one. None if it is
    /// here.
    fn join_ahead(self: &Arc<Self>, fileset: &FilesetName, entry: PackEntry) -> Option<Tail> {
        let flights = self.flights();
        if let Some(fill) = flights.get(&entry.id) {
            fill.want_at_least(Want::Soon);
            return Some(fill.attach());
        }
        let key = pack_key(entry.id);
        if self.store.contains(key) || self.memory.get(key).is_some() {
            return None;
        }
        let soon = |fill: &Fill| fill.want_at_least(Want::Soon);
        Some(self.start(flights, fileset, entry, soon, Asker::NOBODY))
    }

    /// Starts the fill of a pack that has none.
    pub(super) fn start(
        self: &Arc<Self>,
        mut flights: Flights<'_>,
        fileset: &FilesetName,
        entry: PackEntry,
        want: impl FnOnce(&Fill),
        asker: Asker,
    ) -> Tail {
        let fill = Arc::new(Fill::new(fileset.clone(), entry));
        let tail = fill.attach();
        want(&fill);
        flights.insert(entry.id, Arc::clone(&fill));
        // Under the lock: who joins must find it among those that wait.
        let ticket = self.turns.line_up(entry.id, asker);
        drop(flights);
        let job = Job::new(Arc::clone(self), fill, ticket);
        // If the owner has gone, the job is dropped, which tells the readers.
        let _started = self.spawner.start_brief("fill", |stop| job.run(stop));
        tail
    }
}
