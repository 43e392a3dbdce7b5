//! The commit: holds an index against the packs that came, and signs what it found.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};

use content::index::{IndexError, IndexReader, IndexRoot, Kind, Record, RootError};
use content::locator::{Locator, PackEntry, Place, RunBuilder};
use content::statement::{Payload as _, Revision, seal};
use content::{ChunkId, ChunkRef, Digest, FilesetName, RevisionNumber};
use thiserror::Error;
use tokio::task::JoinError;

use super::intake::{Intake, PublishError};
use super::locate::{ChunkReader, ReadChunkError};
use super::messages::Committed;
use super::repack::{Repacker, weak};
use crate::authority::AuthorityError;
use crate::ledger::filesets::{self, ObjectKind};
use crate::ledger::publishes::{self, ChunkPlace};
use crate::ledger::{LedgerError, commit, packs};

mod walk;

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
    /// A chunk that the index needs has not come.
    #[error("the chunk {id} is in no pack that came")]
    ChunkMissing {
        /// Which.
        id: ChunkId,
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
        let failed = |source| PublishError::Commit {
            source: Box::new(source),
        };
        if let Some(unchanged) = self.unchanged(&known.fileset, root).await.map_err(failed)? {
            self.abandon(publish).await?;
            return Ok(unchanged);
        }
        let committed = self
            .settle(publish, &known.fileset, root)
            .await
            .map_err(failed)?;
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
        self.repack_index(publish, &root).await?;
        let index = self.assemble(publish, &root).await?;
        self.repack_content(publish, &root, &index).await?;
        let layout = self.lay_out(publish, &root, &index).await?;
        self.sign(publish, fileset, root_bytes, layout).await
    }

    /// Writes the index out of its packs into a file without a name.
    async fn assemble(&self, publish: i64, root: &IndexRoot) -> Result<File, CommitError> {
        let mut file = tempfile::tempfile_in(self.catalogue.packs().root())?;
        let mut reader = ChunkReader::new(self.catalogue.packs().clone());
        let numbers = self.pack_ids(publish).await?;
        for batch in root.chunks.chunks(BATCH_CHUNKS) {
            let places = self.places(publish, batch).await?;
            let wanted: Vec<_> = batch
                .iter()
                .zip(places)
                .map(|(chunk, place)| (chunk.id, numbers[&place.pack], place.ordinal))
                .collect();
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

    /// Where each of `chunks` lies.
    async fn places(
        &self,
        publish: i64,
        chunks: &[ChunkRef],
    ) -> Result<Vec<ChunkPlace>, CommitError> {
        let ids: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.id).collect();
        let mut db = self.catalogue.authority().ledger().read().await?;
        let places = publishes::places(&mut db, publish, &ids).await?;
        let place = |chunk: &ChunkRef| {
            places
                .get(&chunk.id)
                .filter(|place| place.length == chunk.length)
                .copied()
                .ok_or(CommitError::ChunkMissing { id: chunk.id })
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
        let packs = packs.order.iter().map(|number| known[number]).collect();
        Ok(Layout {
            packs,
            index_packs,
            runs: runs.finish(),
            counts,
        })
    }

    /// Signs the revision and makes it current, in one transaction.
    async fn sign(
        &self,
        publish: i64,
        fileset: &FilesetName,
        root: &[u8],
        layout: Layout,
    ) -> Result<Committed, CommitError> {
        let authority = self.catalogue.authority();
        let (deployment, now) = (authority.deployment().id.to_string(), self.now());
        let mut tx = authority.ledger().write().await?;
        let old = packs::of_fileset(&mut tx, fileset.as_str()).await?;
        let number = filesets::next_number(&mut tx, fileset, KEEP_DEFAULT, now).await?;
        let root_digest = Digest::of(root);
        let statement = Revision {
            deployment: deployment.clone(),
            fileset: fileset.clone(),
            number,
            root: root_digest,
            root_bytes: root.len() as u64,
            size: layout.counts.size,
            entries: layout.counts.entries,
            created: now,
        };
        let locator = locator(deployment, fileset, number, root_digest, now, &layout)?;
        let statement = seal(&statement, |message| authority.sign_content(message))?;
        let locator = seal(&locator, |message| authority.sign_content(message))?;
        let bytes = |packs: &[packs::Pack]| packs.iter().map(|it| u64::from(it.total_bytes)).sum();
        let (index, content) = layout.packs.split_at(layout.index_packs);
        let index_bytes: u64 = bytes(index);
        let revision = filesets::Revision {
            fileset: fileset.clone(),
            number,
            statement: filesets::put_object(&mut tx, ObjectKind::Revision, &statement).await?,
            locator: filesets::put_object(&mut tx, ObjectKind::Locator, &locator).await?,
            root: filesets::put_object(&mut tx, ObjectKind::Root, root).await?,
            entries: layout.counts.entries,
            files: layout.counts.files,
            chunks: layout.counts.chunks,
            size: layout.counts.size,
            packs_bytes: bytes(content),
            metadata_bytes: index_bytes + (root.len() + locator.len() + statement.len()) as u64,
            created_at: now,
        };
        let numbers: Vec<i64> = layout.packs.iter().map(|pack| pack.number).collect();
        filesets::insert(&mut tx, &revision, &numbers).await?;
        publishes::end(&mut tx, publish).await?;
        filesets::prune(&mut tx).await?;
        packs::mark(&mut tx, now).await?;
        commit(tx).await?;
        let new = |packs: &[packs::Pack]| {
            let new = packs.iter().filter(|pack| !old.contains(&pack.number));
            new.map(|pack| u64::from(pack.total_bytes)).sum()
        };
        Ok(Committed {
            packs: content.len() as u64,
            new_packs_bytes: new(content),
            new_index_bytes: new(index),
            ..summary(&revision, false)
        })
    }
}

fn locator(
    deployment: String,
    fileset: &FilesetName,
    number: RevisionNumber,
    root: Digest,
    created: i64,
    layout: &Layout,
) -> Result<Locator, CommitError> {
    let entry = |pack: &packs::Pack| PackEntry {
        id: pack.id,
        header_bytes: pack.header_bytes,
        total_bytes: pack.total_bytes,
    };
    let locator = Locator {
        deployment,
        fileset: fileset.clone(),
        number,
        root,
        created,
        index_packs: layout.index_packs as u32,
        packs: layout.packs.iter().map(entry).collect(),
        runs: layout.runs.clone(),
    };
    let encoded = locator.encode();
    // What nobody could read must not be signed.
    match Locator::decode(&encoded) {
        Ok(_) if encoded.len() <= Locator::BYTES_MAX => Ok(locator),
        Ok(_) | Err(_) => Err(CommitError::TooLarge {
            bytes: encoded.len(),
        }),
    }
}

fn summary(revision: &filesets::Revision, unchanged: bool) -> Committed {
    Committed {
        fileset: revision.fileset.to_string(),
        revision: revision.number.0,
        unchanged,
        entries: revision.entries,
        files: revision.files,
        chunks: revision.chunks,
        bytes: revision.size,
        packs: 0,
        packs_bytes: revision.packs_bytes,
        new_packs_bytes: 0,
        metadata_bytes: revision.metadata_bytes,
        new_index_bytes: 0,
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

/// Chunks looked up at once: a few round trips to the ledger for each megabyte of index.
const BATCH_CHUNKS: usize = 4096;
