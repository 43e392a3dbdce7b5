//! What operators see of the cache, and do to it.

use std::sync::Arc;

use content::PackId;

use super::index::Total;
use super::store::{Kept, Sight};
use super::{Cache, off_runtime, pack_key};
use crate::admin::list::TotalRow;

impl Cache {
    /// Bytes of all files.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.shared.store.bytes()
    }

    /// Why nothing is kept at the moment, if the disk refuses or has no room.
    pub async fn trouble(&self) -> Option<String> {
        let store = Arc::clone(&self.shared.store);
        off_runtime(move || store.trouble()).await.flatten()
    }

    /// What of a pack is to be seen without using it; none if it is not on disk.
    pub(crate) fn sight(&self, id: PackId) -> Option<Sight> {
        self.shared.store.sight(pack_key(id))
    }

    /// What there is, by kind and by how soon it is given up.
    pub(crate) fn totals(&self) -> Vec<TotalRow> {
        let totals = self.shared.store.totals().into_iter();
        let row = |(kind, rank, total): (&str, &str, Total)| TotalRow {
            bytes: total.bytes,
            files: total.files,
            kind: kind.to_owned(),
            rank: rank.to_owned(),
        };
        totals.map(row).collect()
    }

    /// Gives a pack up that nobody uses; says how many bytes that makes. Touches the disk.
    pub(crate) fn evict(&self, id: PackId) -> Result<u64, Kept> {
        let given_up = self.shared.store.evict(pack_key(id))?;
        self.shared.memory.forget(pack_key(id));
        Ok(given_up)
    }

    /// Bytes that all files may be.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.shared.limits.disk_bytes_max
    }
}
