//! The commit: holds an index against the packs that came, and signs what it found.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};

use content::index::{IndexError, IndexReader, IndexRoot, Kind, Record, RootError};
use content::locator::{Place, RunBuilder};
use content::{ChunkId, ChunkRef, Digest, FilesetName};
use thiserror::Error;
use tokio::task::JoinError;

use super::intake::{Intake, PublishError};
use super::locate::{ChunkReader, ReadChunkError};
use super::messages::Committed;
use super::repack::{Repacker, weak};
use crate::authority::AuthorityError;
use crate::ledger::filesets;
use crate::ledger::publishes::{self, ChunkPlace};
use crate::ledger::{LedgerError, commit, packs};

mod sign;
#[cfg(test)]
mod tests;
mod walk;

use sign::summary;
use walk::{Batches, Counts};

/// How many revisions a fileset keeps unless it is told otherwise.
pub const KEEP_DEFAULT: u32 = 5;

/// Why a commit failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// It could not be signed.
    #[error("cannot sign the revision")]
    Authority(#[from] AuthorityError),
    /// The index gives a chunk another length than it has.
    #[error("the index says that the chunk {id} has {wanted} bytes, but it has {got}")]
    ChunkLength {
        /// Which.
        id: ChunkId,
        /// By the index.
        wanted: u32,
        /// By the pack that holds it.
        got: u32,
    },
    /// A chunk that the index needs has not come.
    #[error("the chunk {id} is in no pack that came")]
    ChunkMissing {
        /// Which.
        id: ChunkId,
    },
    /// The publish ended while it was committed.
    #[error("the publish {publish} ended meanwhile")]
    Gone {
        /// Its number.
        publish: i64,
    },
    /// The index breaks a rule.
    #[error("cannot use the index")]
    Index(#[from] IndexError),
    /// A file of ours failed.
    #[error("cannot read or write a file")]
    Io(#[from] io::Error),
    /// The ledger failed.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// A pack that the publish counts on is no longer there.
    #[error("a pack that holds a part of it was lost meanwhile; publish again")]
    PackLost,
    /// A pack that came cannot be read.
    #[error("cannot read the index from its packs")]
    Read(#[from] ReadChunkError),
    /// The index has another number of records than its root says.
    #[error("the index has {got} records, its root says {wanted}")]
    Records {
        /// By the root.
        wanted: u64,
        /// By the index.
        got: u64,
    },
    /// Old packs could not be packed anew.
    #[error("cannot pack anew what is still needed of old packs")]
    Repack {
        /// Why.
        source: Box<PublishError>,
    },
    /// The root breaks a rule.
    #[error("cannot use the index root")]
    Root(#[from] RootError),
    /// A task of ours was cut off.
    #[error("cannot go on: the origin is stopping")]
    Stopping(#[from] JoinError),
    /// The locator would be too long.
    #[error("the revision has too many pieces: its locator would have {bytes} bytes")]
    TooLarge {
        /// How long.
        bytes: usize,
    },
}

impl CommitError {
    /// Packing anew failed.
    pub(super) fn of_repack(source: PublishError) -> Self {
        if let PublishError::Gone { publish } = source {
            return Self::Gone { publish };
        }
        let source = Box::new(source);
        Self::Repack { source }
    }

    /// What whoever publishes is told.
    fn told(self) -> PublishError {
        if let Self::Gone { publish } = self {
            return PublishError::Gone { publish };
        }
        let source = Box::new(self);
        PublishError::Commit { source }
    }
}

/// Where everything lies, and what that adds up to.
struct Layout {
    packs: Vec<packs::Pack>,
    index_packs: usize,
    runs: Vec<content::locator::Run>,
    counts: Counts,
}

impl Intake {
    /// Makes the index whose root is `root` the next revision.
    ///
    /// # Errors
    ///
    /// Fails if a chunk has not come or the index breaks a rule; nothing has changed then.
    pub async fn commit(&self, publish: i64, root: &[u8]) -> Result<Committed, PublishError> {
        let mut tx = self.catalogue.authority().ledger().write().await?;
        let known = publishes::seen(&mut tx, publish, self.now()).await?;
        commit(tx).await?;
        let known = known.ok_or(PublishError::Gone { publish })?;
        let unchanged = self.unchanged(&known.fileset, root).await;
        if let Some(unchanged) = unchanged.map_err(CommitError::told)? {
            self.abandon(publish).await?;
            return Ok(unchanged);
        }
        let committed = self
            .settle(publish, &known.fileset, root)
            .await
            .map_err(CommitError::told)?;
        self.catalogue.changed();
        Ok(committed)
    }

    /// What is current, if that is what was published again.
    async fn unchanged(
        &self,
        fileset: &FilesetName,
        root: &[u8],
    ) -> Result<Option<Committed>, CommitError> {
        let mut db = self.catalogue.authority().ledger().read().await?;
        let revisions = filesets::revisions(&mut db, Some(fileset)).await?;
        let last = revisions
            .last()
            .filter(|last| last.root == Digest::of(root));
        // One that lacks a pack is of no use: the new one is made of what came instead.
        match last {
            Some(last)
                if !packs::is_wanting(&mut db, fileset.as_str(), last.number.0 as i64).await? =>
            {
                Ok(Some(summary(last, true)))
            }
            Some(_) | None => Ok(None),
        }
    }

    async fn settle(
        &self,
        publish: i64,
        fileset: &FilesetName,
        root_bytes: &[u8],
    ) -> Result<Committed, CommitError> {
        let root = IndexRoot::verify(root_bytes, Digest::of(root_bytes))?;
        self.place(publish).await?;
        self.repack_index(publish, &root).await?;
        let index = self.assemble(publish, &root).await?;
        self.repack_content(publish, &root, &index).await?;
        let layout = self.lay_out(publish, &root, &index).await?;
        self.sign(publish, fileset, root_bytes, layout).await
    }

    /// Finds the packs of the chunks that came.
    async fn place(&self, publish: i64) -> Result<(), CommitError> {
        let (ledger, mut after) = (self.catalogue.authority().ledger(), None);
        loop {
            self.keep(publish).await?;
            let mut tx = ledger.write().await?;
            after = publishes::place_chunks(&mut tx, publish, after, PLACE_CHUNKS).await?;
            commit(tx).await?;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Writes the index out of its packs into a file without a name.
    async fn assemble(&self, publish: i64, root: &IndexRoot) -> Result<File, CommitError> {
        let mut file = tempfile::tempfile_in(self.catalogue.packs().root())?;
        let mut reader = ChunkReader::new(self.catalogue.packs().clone());
        let numbers = self.pack_ids(publish).await?;
        for batch in root.chunks.chunks(BATCH_CHUNKS) {
            let places = self.places(publish, batch).await?;
            let wanted = batch.iter().zip(places).map(|(chunk, place)| {
                let pack = numbers.get(&place.pack).ok_or(CommitError::PackLost)?;
                Ok((chunk.id, *pack, place.ordinal))
            });
            let wanted = wanted.collect::<Result<Vec<_>, CommitError>>()?;
            let worked = tokio::task::spawn_blocking(move || {
                for (id, pack, ordinal) in wanted {
                    reader.with(pack, ordinal, id, |chunk| {
                        io::Write::write_all(&mut file, chunk.bytes())
                    })?;
                }
                Ok::<_, CommitError>((file, reader))
            });
            (file, reader) = worked.await??;
        }
        Ok(file)
    }

    async fn pack_ids(&self, publish: i64) -> Result<HashMap<i64, content::PackId>, CommitError> {
        let mut db = self.catalogue.authority().ledger().read().await?;
        let uses = publishes::uses(&mut db, publish).await?;
        Ok(uses
            .into_iter()
            .map(|it| (it.pack.number, it.pack.id))
            .collect())
    }

    /// Notes that the publish is alive: a commit may take far longer than one may be silent.
    async fn keep(&self, publish: i64) -> Result<(), CommitError> {
        let (ledger, now) = (self.catalogue.authority().ledger(), self.now());
        let mut db = ledger.read().await?;
        let seen_at = publishes::seen_at(&mut db, publish).await?;
        drop(db);
        let gone = CommitError::Gone { publish };
        if now - seen_at.ok_or(gone)? >= KEEP_SECONDS {
            let mut tx = ledger.write().await?;
            let known = publishes::seen(&mut tx, publish, now).await?;
            known.ok_or(CommitError::Gone { publish })?;
            commit(tx).await?;
        }
        Ok(())
    }

    /// Where each of `chunks` lies.
    async fn places(
        &self,
        publish: i64,
        chunks: &[ChunkRef],
    ) -> Result<Vec<ChunkPlace>, CommitError> {
        self.keep(publish).await?;
        let ids: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.id).collect();
        let mut db = self.catalogue.authority().ledger().read().await?;
        let places = publishes::places(&mut db, publish, &ids).await?;
        let place = |&ChunkRef { id, length }: &ChunkRef| match places.get(&id) {
            Some(place) if place.length == length => Ok(*place),
            Some(place) => Err(CommitError::ChunkLength {
                id,
                wanted: length,
                got: place.length,
            }),
            None => Err(CommitError::ChunkMissing { id }),
        };
        chunks.iter().map(place).collect()
    }

    async fn repacker(&self, publish: i64) -> Result<Repacker<'_>, CommitError> {
        let mut db = self.catalogue.authority().ledger().read().await?;
        Ok(Repacker::new(
            self,
            publish,
            weak(&publishes::uses(&mut db, publish).await?),
        ))
    }

    async fn repack_index(&self, publish: i64, root: &IndexRoot) -> Result<(), CommitError> {
        let mut repacker = self.repacker(publish).await?;
        if !repacker.is_needed() {
            return Ok(());
        }
        for batch in root.chunks.chunks(BATCH_CHUNKS) {
            let places = self.places(publish, batch).await?;
            let ids = batch.iter().map(|chunk| chunk.id);
            repacker.push(ids.zip(places).collect()).await?;
        }
        repacker.flush().await
    }

    async fn repack_content(
        &self,
        publish: i64,
        root: &IndexRoot,
        index: &File,
    ) -> Result<(), CommitError> {
        let mut repacker = self.repacker(publish).await?;
        if !repacker.is_needed() {
            return Ok(());
        }
        let mut batches = Batches::of(index, root)?;
        while let Some(batch) = batches.next_batch().await? {
            let places = self.places(publish, &batch).await?;
            let ids = batch.iter().map(|chunk| chunk.id);
            repacker.push(ids.zip(places).collect()).await?;
        }
        repacker.flush().await
    }

    /// Follows the revision from its first chunk to its last, and notes where each lies.
    async fn lay_out(
        &self,
        publish: i64,
        root: &IndexRoot,
        index: &File,
    ) -> Result<Layout, CommitError> {
        let mut packs = Numbering::default();
        let mut runs = RunBuilder::default();
        for batch in root.chunks.chunks(BATCH_CHUNKS) {
            for place in self.places(publish, batch).await? {
                runs.push(packs.place(place));
            }
        }
        let index_packs = packs.order.len();
        let mut batches = Batches::of(index, root)?;
        while let Some(batch) = batches.next_batch().await? {
            for place in self.places(publish, &batch).await? {
                runs.push(packs.place(place));
            }
        }
        let counts = batches.finish()?;
        let mut db = self.catalogue.authority().ledger().read().await?;
        let uses = publishes::uses(&mut db, publish).await?;
        let known: HashMap<i64, packs::Pack> = uses
            .into_iter()
            .map(|it| (it.pack.number, it.pack))
            .collect();
        let pack = |number| known.get(number).copied().ok_or(CommitError::PackLost);
        let packs: Result<_, CommitError> = packs.order.iter().map(pack).collect();
        Ok(Layout {
            packs: packs?,
            index_packs,
            runs: runs.finish(),
            counts,
        })
    }
}

/// Numbers packs in the order in which they are first needed.
#[derive(Default)]
struct Numbering {
    order: Vec<i64>,
    numbers: HashMap<i64, u32>,
}

impl Numbering {
    fn place(&mut self, place: ChunkPlace) -> Place {
        let order = &mut self.order;
        let pack = *self.numbers.entry(place.pack).or_insert_with(|| {
            order.push(place.pack);
            order.len() as u32 - 1
        });
        Place {
            pack,
            ordinal: place.ordinal,
        }
    }
}

/// A publish is noted as alive again after so long, in seconds: often enough to miss a few, and not
/// so often that the ledger is written for each batch.
const KEEP_SECONDS: i64 = 20;
/// Chunks placed in one transaction: a tenth of a second, in which nobody else writes.
const PLACE_CHUNKS: u32 = 65_536;
/// Chunks looked up at once: a few round trips to the ledger for each megabyte of index.
const BATCH_CHUNKS: usize = 4096;
