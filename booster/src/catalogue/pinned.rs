//! Seeing to it that the packs of what is pinned are known, before anybody asks for one.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use content::locator::PackEntry;
use content::{FilesetName, PackId};
use service::{CancellationToken, Report};
use tokio::time::sleep;
use tracing::debug;

use super::{Catalogue, Shared};
use crate::cache::Standing;

impl Catalogue {
    /// Follows what is pinned and what is published, until it is stopped: reads the locators of
    /// pinned filesets as soon as there are new ones, and has the cache sorted by what they name.
    pub(crate) async fn follow_pins(self, stop: CancellationToken) {
        let shared = &self.shared;
        let mut changes = shared.parts.pins.changes();
        // From here on, the cache hears of each pack as it comes.
        let asked = std::sync::Arc::downgrade(shared);
        shared.parts.cache.ask_standing(Box::new(move |id| {
            let shared = asked.upgrade();
            shared.map_or(Standing::Current, |shared| shared.standing(id))
        }));
        loop {
            tokio::select! {
                () = self.learn_pinned() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_ok() { shared.rank().await },
                () = shared.news.notified() => {}
                // What could not be read before is tried again.
                () = sleep(TRY_PAUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// The packs of what is pinned that `missing` says yes to, at most `count` of them: of those
    /// that pins can keep, which is `bytes_max` in all. What is pinned beyond that would push out
    /// what is pinned, and be fetched again and again.
    pub(crate) fn pinned_packs(
        &self,
        bytes_max: u64,
        count: usize,
        missing: impl Fn(PackId) -> bool,
    ) -> Vec<(FilesetName, PackEntry)> {
        let (names, pins) = (self.shared.names(), self.shared.parts.pins.wanted());
        let named = pins
            .iter()
            .flat_map(|pin| names.packs_of(pin).iter().map(|pack| (&pin.fileset, *pack)));
        let (mut seen, mut bytes) = (HashSet::new(), 0);
        let kept: Vec<(FilesetName, PackEntry)> = named
            .filter(|(_, pack)| seen.insert(pack.id))
            .take_while(|(_, pack)| {
                bytes += u64::from(pack.total_bytes);
                bytes <= bytes_max
            })
            .map(|(fileset, pack)| (fileset.clone(), pack))
            .collect();
        // Only now: whoever answers has a lock of its own, under which it may ask for the names.
        drop(names);
        let missed = kept.into_iter().filter(|(_, pack)| missing(pack.id));
        missed.take(count).collect()
    }

    /// Whether nobody has the names locked, so that they may be changed.
    #[cfg(test)]
    pub(crate) fn is_free(&self) -> bool {
        self.shared.names.try_write().is_ok()
    }

    async fn learn_pinned(&self) {
        let wanted = self.shared.parts.pins.wanted().into_iter();
        let filesets: BTreeSet<FilesetName> = wanted.map(|pin| pin.fileset).collect();
        for fileset in filesets {
            if self.shared.names().unread(&fileset).is_empty() {
                continue;
            }
            if let Err(failure) = Shared::read_locators(&self.shared, &fileset).await {
                debug!(%fileset, error = %Report(&*failure), "cannot read what is pinned yet");
            }
        }
    }
}

impl Shared {
    fn standing(&self, id: PackId) -> Standing {
        self.names().standing(id, &self.parts.pins.wanted())
    }
}

/// How often to try again to read what could not be read.
const TRY_PAUSE: Duration = Duration::from_secs(60);
