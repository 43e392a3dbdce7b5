//! The publisher's side: walks, cuts and packs a folder as whoever runs it.
//!
//! One thread reads, cuts and hashes; frames are compressed on others, in order; packs go to the
//! origin as they fill. Memory is bounded by a few batches, whatever the size of the tree.

mod calls;
mod links;
mod offenders;
mod pack;
mod read;
mod walk;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use content::index::{CasePolicy, IndexRoot};
use content::{ChunkRun, FilesetName};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinError;

pub use calls::SendError;
pub use offenders::{Offender, Offenders};
pub use walk::Dropped;

use super::messages::Committed;
use calls::Calls;
use pack::Packer;
use read::Batcher;

/// zstd's level: the default of `zstd` itself, 320 MiB/s a core against 93 at level 6.
pub const ZSTD_LEVEL: i32 = 3;

/// What to publish.
#[derive(Clone, Debug)]
pub struct Request {
    /// The fileset.
    pub fileset: FilesetName,
    /// The folder that becomes its next revision. It is only read.
    pub folder: PathBuf,
    /// Whether paths may differ only by case.
    pub case_policy: CasePolicy,
}

/// Is told how a publish goes on.
pub trait Progress: Send + Sync {
    /// What there is to read, known after a first look at the tree.
    fn total(&self, files: u64, bytes: u64);
    /// So many bytes more were read.
    fn advance(&self, bytes: u64);
    /// What the revision will not hold.
    fn dropped(&self, dropped: &Dropped);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn total(&self, _files: u64, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn dropped(&self, _dropped: &Dropped) {}
}

/// Why nothing was published.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishFailure {
    /// A file changed while it was read.
    #[error("cannot publish {path}: it changed while it was read; publish again", path = path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tree holds what cannot be published.
    #[error(transparent)]
    Offenders(#[from] Offenders),
    /// The origin refused or could not be reached.
    #[error("cannot publish")]
    Send(#[from] SendError),
    /// A scratch file failed.
    #[error("cannot write the index to a scratch file")]
    Scratch(#[source] io::Error),
    /// A task was cut off.
    #[error("cannot go on: the program is stopping")]
    Stopping(#[from] JoinError),
}

/// Publishes a folder through the admin socket at `socket`.
///
/// # Errors
///
/// Fails if the tree cannot be read or holds what cannot be published, or if the origin refuses;
/// then the fileset is as it was.
pub async fn publish(
    socket: &Path,
    request: Request,
    progress: std::sync::Arc<dyn Progress>,
) -> Result<Committed, PublishFailure> {
    let (folder, policy) = (request.folder.clone(), request.case_policy);
    let look = tokio::task::spawn_blocking(move || walk::look(&folder, policy)).await?;
    let look = look?;
    progress.total(look.files, look.bytes);
    if look.dropped.is_any() {
        progress.dropped(&look.dropped);
    }
    let calls = Calls::begin(socket, &request.fileset).await?;
    let sent = send(&calls, request, progress).await;
    if sent.is_err() {
        // The first error is the one to tell; a publish that is not ended dies by itself.
        let _ended = calls.abandon().await;
    }
    sent
}

async fn send(
    calls: &Calls,
    request: Request,
    progress: std::sync::Arc<dyn Progress>,
) -> Result<Committed, PublishFailure> {
    let (batches, received) = mpsc::channel(1);
    let reading = tokio::task::spawn_blocking(move || {
        let mut batcher = Batcher::new(batches);
        let index = tempfile::tempfile().map_err(PublishFailure::Scratch)?;
        let (index, records) = read::tree(&request, index, &mut batcher, &*progress)?;
        batcher.flush();
        Ok::<_, PublishFailure>((index, records))
    });
    let packed = pack_all(calls, received).await;
    // If the reader failed, what was packed so far is of no account.
    let (index, records) = reading.await??;
    packed?;
    let root = send_index(calls, index, records).await?;
    Ok(calls.commit(root.encode()).await?)
}

/// Sends the index itself, in packs of its own.
async fn send_index(
    calls: &Calls,
    mut index: File,
    records: u64,
) -> Result<IndexRoot, PublishFailure> {
    let (batches, received) = mpsc::channel(1);
    let cutting = tokio::task::spawn_blocking(move || {
        let mut batcher = Batcher::new(batches);
        index.seek(SeekFrom::Start(0))?;
        let root = IndexRoot::build(BufReader::new(index), records, |chunk| {
            batcher.push(chunk);
            Ok(())
        })?;
        batcher.flush();
        Ok::<_, io::Error>(root)
    });
    let packed = pack_all(calls, received).await;
    let root = cutting.await?.map_err(PublishFailure::Scratch)?;
    packed?;
    Ok(root)
}

async fn pack_all(
    calls: &Calls,
    mut received: mpsc::Receiver<ChunkRun>,
) -> Result<(), PublishFailure> {
    let mut packer = Packer::new(calls);
    loop {
        // A long run of known bytes must not look like a dead publisher.
        match tokio::time::timeout(calls::HEARTBEAT, received.recv()).await {
            Ok(Some(batch)) => packer.push(batch).await?,
            Ok(None) => return packer.finish().await,
            Err(_) => calls.alive().await?,
        }
    }
}

type IndexFile = BufWriter<File>;
