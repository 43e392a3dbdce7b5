//! Fetching what comes next for somebody who reads in order.

use std::sync::Arc;

use content::locator::PackEntry;
use content::{FilesetName, PackId};

use super::fill::{Fill, Job, Tail, Want};
use super::{Asker, Flights, Shared, pack_key};

impl Shared {
    /// Has what comes next be fetched for somebody who reads in order. It is fetched for as long as
    /// he holds what this gives, and a little longer.
    pub(super) fn read_ahead(
        self: &Arc<Self>,
        fileset: &FilesetName,
        id: PackId,
        asker: Asker,
        missed: bool,
    ) -> Vec<Tail> {
        let depth = || self.upstreams.concurrency();
        let next = self.trails.follow(fileset, id, asker, missed, depth);
        let join = |entry| self.join_ahead(fileset, entry);
        next.into_iter().filter_map(join).collect()
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
