//! Who may read which fileset: until the first model everybody all of them, then each device those
//! that its manifest names.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use certs::{DeviceId, Peer, Role};
use content::statement::{Manifest, Statement};
use content::{Digest, FilesetName};
use thiserror::Error;
use transport::ContentJudge;

use super::Manifests;
use crate::ledger::{LedgerError, manifests as table};

/// What manifests name, as they were read last.
#[derive(Debug, Default)]
pub(super) struct Access {
    known: Mutex<HashMap<DeviceId, Named>>,
}

#[derive(Clone, Debug)]
struct Named {
    manifest: Digest,
    filesets: Arc<BTreeSet<FilesetName>>,
}

/// Why it cannot be told.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The ledger failed.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// A manifest of ours cannot be read.
    #[error("cannot read the manifest of a device")]
    Manifest(#[from] content::statement::StatementError),
}

/// Devices whose manifest is known; with more, all are forgotten and read again.
const KNOWN_MAX: usize = 20_000;

impl Manifests {
    /// Whether `peer` may read the packs of `fileset` now.
    ///
    /// # Errors
    ///
    /// Fails if that cannot be told.
    pub async fn may_read(&self, peer: &Peer, fileset: &FilesetName) -> Result<bool, AccessError> {
        let is_open = self.inner.model.load(Ordering::Relaxed) == 0;
        if is_open || peer.role() != Role::Client {
            return Ok(true);
        }
        let id = peer.id();
        let held = self.inner.board.manifest(id);
        if let Some(held) = held
            && let Some(named) = self.inner.access.get(id, held)
            && named.contains(fileset)
        {
            return Ok(true);
        }
        // What is due may name it.
        let standing = self.standing(id).await;
        let Some(held) = standing.manifest.map(|it| it.digest) else {
            return Ok(false);
        };
        if let Some(named) = self.inner.access.get(id, held) {
            return Ok(named.contains(fileset));
        }
        let mut db = self.inner.authority.ledger().read().await?;
        let Some(envelope) = table::envelope(&mut db, id, held).await? else {
            return Ok(false);
        };
        let judge = ContentJudge::new(Arc::clone(self.inner.authority.trust()));
        let manifest = Statement::<Manifest>::open_named(&envelope, held, &judge, 0)?;
        let filesets = manifest.items.iter().map(|item| item.fileset.clone());
        let filesets: Arc<BTreeSet<FilesetName>> = Arc::new(filesets.collect());
        let answer = filesets.contains(fileset);
        self.inner.access.put(id, held, filesets);
        Ok(answer)
    }
}

impl Access {
    fn get(&self, id: &DeviceId, manifest: Digest) -> Option<Arc<BTreeSet<FilesetName>>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let named = known.get(id).filter(|it| it.manifest == manifest)?;
        Some(Arc::clone(&named.filesets))
    }

    fn put(&self, id: &DeviceId, manifest: Digest, filesets: Arc<BTreeSet<FilesetName>>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(id.clone(), Named { manifest, filesets });
    }
}
