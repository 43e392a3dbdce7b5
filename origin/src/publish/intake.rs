//! The origin's side of a publish up to its commit: begin, have?, packs.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use content::durable::RealDisk;
use content::pack::PackHeader;
use content::{ChunkId, ChunkRef, FilesetName};
use service::Spawner;
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinError;

use super::check;
pub use super::check::PackFault;
use super::commit::CommitError;
use crate::catalogue::Catalogue;
use crate::ledger::{LedgerError, commit, packs, publishes};

/// A publish that nobody has heard of for so long is dead, in seconds.
pub const DEAD_AFTER_SECONDS: i64 = 120;

/// Takes publishes in. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Intake {
    pub(crate) catalogue: Catalogue,
    /// Where what must not stop half-way runs to its end, even if its caller goes away.
    pub(super) spawner: Spawner,
    /// Held while a pack's file and its row change together: one that is removed at this moment
    /// must not be the one that comes in.
    pub(super) files: Arc<Mutex<()>>,
}

/// Why a step of a publish failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The commit failed.
    #[error("cannot commit the revision")]
    Commit {
        /// Why.
        source: Box<CommitError>,
    },
    /// Another publish of that fileset is under way.
    #[error(
        "another publish of {fileset} is under way; if it was killed, this ends within 2 minutes"
    )]
    Conflict {
        /// The fileset.
        fileset: FilesetName,
    },
    /// No such publish is under way.
    #[error("no publish {publish} is under way: it ended, or was silent for too long")]
    Gone {
        /// The number that was named.
        publish: i64,
    },
    /// The body is not a pack.
    #[error("cannot take the pack")]
    Pack {
        /// Why.
        source: PackFault,
    },
    /// The disk failed.
    #[error("cannot store the pack")]
    Store {
        /// Why.
        source: io::Error,
    },
    /// The ledger failed.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// A task of ours was cut off.
    #[error("cannot go on: the origin is stopping")]
    Stopping(#[from] JoinError),
}

impl Intake {
    /// Takes publishes into `catalogue`; commits and the like are started by `spawner`.
    #[must_use]
    pub fn new(catalogue: Catalogue, spawner: Spawner) -> Self {
        Self {
            catalogue,
            spawner,
            files: Arc::default(),
        }
    }

    /// Begins a publish of `fileset`.
    ///
    /// # Errors
    ///
    /// Fails if another one of it is under way.
    pub async fn begin(&self, fileset: &FilesetName) -> Result<i64, PublishError> {
        let now = self.now();
        let mut tx = self.catalogue.authority().ledger().write().await?;
        let begun = publishes::begin(&mut tx, fileset, now - DEAD_AFTER_SECONDS, now).await?;
        commit(tx).await?;
        begun.ok_or_else(|| PublishError::Conflict {
            fileset: fileset.clone(),
        })
    }

    /// Takes note of chunks of a publish; says which of them are to be sent.
    ///
    /// # Errors
    ///
    /// Fails if no such publish is under way.
    pub async fn have(
        &self,
        publish: i64,
        chunks: &[ChunkRef],
    ) -> Result<Vec<ChunkId>, PublishError> {
        let mut tx = self.catalogue.authority().ledger().write().await?;
        let known = publishes::seen(&mut tx, publish, self.now()).await?;
        known.ok_or(PublishError::Gone { publish })?;
        let missing = publishes::add_chunks(&mut tx, publish, chunks).await?;
        commit(tx).await?;
        Ok(missing)
    }

    /// Takes a pack in: every frame and every chunk is held against the header, the file is made
    /// safe, and only then is it entered.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are no pack, or no such publish is under way.
    pub async fn pack(&self, publish: i64, bytes: Bytes) -> Result<(), PublishError> {
        let checked =
            tokio::task::spawn_blocking(move || check::bytes(&bytes).map(|it| (it, bytes)));
        let (header, bytes) = checked
            .await?
            .map_err(|source| PublishError::Pack { source })?;
        self.store(publish, header, bytes).await
    }

    /// Stores a pack that has been checked, for the publish numbered `publish`.
    pub(super) async fn store(
        &self,
        publish: i64,
        header: PackHeader,
        bytes: Bytes,
    ) -> Result<(), PublishError> {
        let files = self.lock_files().await;
        let (packs, id) = (self.catalogue.packs().clone(), header.id());
        let put = move || packs.put(&RealDisk, id, &bytes);
        // Held until the pack has been entered.
        let (_files, ()) = at_files(files, put).await?;
        let mut tx = self.catalogue.authority().ledger().write().await?;
        let known = publishes::seen(&mut tx, publish, self.now()).await?;
        known.ok_or(PublishError::Gone { publish })?;
        let number = packs::insert(&mut tx, &header, self.now()).await?;
        publishes::lease(&mut tx, publish, number).await?;
        commit(tx).await?;
        Ok(())
    }

    /// Ends a publish without a commit. What it sent stays for the next one.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn abandon(&self, publish: i64) -> Result<(), PublishError> {
        let mut tx = self.catalogue.authority().ledger().write().await?;
        publishes::end(&mut tx, publish).await?;
        commit(tx).await?;
        Ok(())
    }

    pub(crate) fn now(&self) -> i64 {
        self.catalogue.authority().clock().now()
    }

    pub(crate) async fn lock_files(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.files).lock_owned().await
    }
}

/// Does `work` at the packs' files on a blocking thread, and gives `files` back with its result.
///
/// The work holds the lock itself: whoever asked for it may go away in the middle, and nobody else
/// may come to the files before it is done.
pub(crate) async fn at_files<T: Send + 'static>(
    files: OwnedMutexGuard<()>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<(OwnedMutexGuard<()>, T), PublishError> {
    let working = tokio::task::spawn_blocking(move || {
        let done = work();
        (files, done)
    });
    let (files, done) = working.await?;
    let done = done.map_err(|source| PublishError::Store { source })?;
    Ok((files, done))
}
