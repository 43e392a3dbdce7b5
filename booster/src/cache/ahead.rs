//! Fetching what comes next for somebody who reads in order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use content::locator::PackEntry;
use content::{FilesetName, PackId};

use super::fill::{Fill, Job, Tail, Waiter, Want};
use super::{Asker, Flights, Shared, pack_key};

/// The fills that were begun ahead of those who read a fileset. They go on for as long as any of
/// these holds this: one who reads on, but for whom they would not be begun again, must not break
/// off what has half come.
#[derive(Debug, Default)]
pub(super) struct Lead {
    tails: Mutex<Vec<Tail>>,
}

/// What has been begun ahead, and the leads that somebody holds.
#[derive(Debug, Default)]
pub(super) struct Leads {
    /// For how many filesets something has been begun, or had been lately: where there are none, a hit
    /// asks no more than this.
    count: AtomicUsize,
    begun: Mutex<HashMap<FilesetName, Begun>>,
}

/// What has been begun ahead of those who read one fileset.
#[derive(Debug, Default)]
struct Begun {
    /// Who comes when nobody has held these for a moment holds them again.
    fills: Vec<Weak<Fill>>,
    lead: Weak<Lead>,
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
        let mut begun = self.begun();
        let ours = begun.entry(fileset.clone()).or_default();
        ours.add(&next);
        let held = (!ours.fills.is_empty()).then(|| ours.lead());
        begun.retain(|_, it| !it.fills.is_empty());
        self.count.store(begun.len(), Ordering::Relaxed);
        drop(begun);
        let (lead, again) = held?;
        lead.hold(again);
        lead.hold(next);
        Some(lead)
    }

    /// Takes note of a fill that nobody holds yet.
    fn begin(&self, fileset: &FilesetName, tail: Tail) {
        let next = vec![tail];
        let mut begun = self.begun();
        let ours = begun.entry(fileset.clone()).or_default();
        ours.add(&next);
        let lead = ours.lead.upgrade();
        self.count.store(begun.len(), Ordering::Relaxed);
        drop(begun);
        if let Some(lead) = lead {
            lead.hold(next);
        }
    }

    fn begun(&self) -> MutexGuard<'_, HashMap<FilesetName, Begun>> {
        // Nothing panics while it holds the lock.
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Begun {
    /// Takes note of more, and forgets what is over.
    fn add(&mut self, next: &[Tail]) {
        let is_running = |fill: Arc<Fill>| !fill.has_ended();
        self.fills
            .retain(|fill| fill.upgrade().is_some_and(is_running));
        for tail in next {
            let fill = Arc::downgrade(tail.fill());
            if !self.fills.iter().any(|known| known.ptr_eq(&fill)) {
                self.fills.push(fill);
            }
        }
    }

    /// The lead that somebody holds; or a new one, and what it is to hold.
    fn lead(&mut self) -> (Arc<Lead>, Vec<Tail>) {
        if let Some(lead) = self.lead.upgrade() {
            return (lead, Vec::new());
        }
        let lead = Arc::default();
        self.lead = Arc::downgrade(&lead);
        let fills = self.fills.iter().filter_map(Weak::upgrade);
        (lead, fills.map(|fill| fill.attach()).collect())
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

    /// Takes note that somebody wants all of a pack.
    pub(super) fn count_in(self: &Arc<Self>, tail: &mut Tail) {
        tail.wants_all();
        if tail.fill().is_next_wanted() {
            self.fetch_behind(tail.fill());
        }
    }

    /// Has the pack be fetched that comes behind one that many read, if all of them will want it. If
    /// none of them asks for it soon, it is broken off.
    pub(super) fn fetch_behind(self: &Arc<Self>, fill: &Fill) {
        let behind = self.trails.next_behind(&fill.fileset, fill.entry.id);
        if let Some(tail) = behind.and_then(|entry| self.join_ahead(&fill.fileset, entry)) {
            self.leads.begin(&fill.fileset, tail);
        }
    }

    /// Joins the fill of a pack that somebody is about to ask for, or starts one. None if it is
    /// here.
    fn join_ahead(self: &Arc<Self>, fileset: &FilesetName, entry: PackEntry) -> Option<Tail> {
        let flights = self.flights();
        if let Some(fill) = flights.get(&entry.id) {
            fill.want_at_least(Want::Soon);
            self.turns.also_wanted(entry.id, Waiter::Soon);
            return Some(fill.attach());
        }
        let key = pack_key(entry.id);
        if self.store.contains(key) || self.memory.get(key).is_some() {
            return None;
        }
        let soon = |fill: &Fill| fill.want_at_least(Want::Soon);
        Some(self.start(flights, fileset, entry, soon, Waiter::Soon))
    }

    /// Starts the fill of a pack that has none.
    pub(super) fn start(
        self: &Arc<Self>,
        mut flights: Flights<'_>,
        fileset: &FilesetName,
        entry: PackEntry,
        want: impl FnOnce(&Fill),
        waiter: Waiter,
    ) -> Tail {
        let fill = Arc::new(Fill::new(fileset.clone(), entry));
        let tail = fill.attach();
        want(&fill);
        flights.insert(entry.id, Arc::clone(&fill));
        // Under the lock: who joins must find it among those that wait.
        let ticket = self.turns.line_up(entry.id, waiter);
        drop(flights);
        let job = Job::new(Arc::clone(self), fill, ticket);
        // If the owner has gone, the job is dropped, which tells the readers.
        let _started = self.spawner.start_brief("fill", |stop| job.run(stop));
        tail
    }
}
