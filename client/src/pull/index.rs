//! Getting the index of a revision: chunk by chunk, those that are on disk not fetched again.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::durable::{Disk as _, RealDisk};
use content::index::{IndexAssembly, IndexRoot};
use content::locator::Locator;
use content::{Chunk, ChunkId, ChunkRef};
use thiserror::Error;

use crate::fetch::downloads::Downloads;
use crate::fetch::reader::{Arrivals, PackReader, ReadError};
use crate::install::stored;
use crate::plan::Demand;

/// The chunks of indexes on disk that the wanted one has too.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    files: Vec<File>,
    /// In which of the files a chunk lies, and where.
    at: HashMap<ChunkId, (usize, u64)>,
}

impl Kept {
    /// Looks for chunks of `root` in the index at `path`, whose root is `other`, and verifies
    /// them: the disk may have been unkind.
    pub(crate) fn find(&mut self, root: &IndexRoot, path: &Path, other: &IndexRoot) {
        let Ok(file) = File::open(path) else {
            return;
        };
        let wanted: HashSet<ChunkId> = root.chunks.iter().map(|chunk| chunk.id).collect();
        let (mut offset, mut buffer) = (0, Vec::new());
        for &chunk in &other.chunks {
            let is_new = wanted.contains(&chunk.id) && !self.at.contains_key(&chunk.id);
            if is_new && stored::read(&file, offset, chunk, &mut buffer).is_some() {
                self.at.insert(chunk.id, (self.files.len(), offset));
            }
            offset += u64::from(chunk.length);
        }
        self.files.push(file);
    }

    /// What is left to be fetched.
    pub(crate) fn demand(&self, root: &IndexRoot, locator: &Locator) -> Demand {
        let mut demand = Demand::nothing(locator.packs.len());
        for (chunk, place) in root.chunks.iter().zip(locator.places()) {
            if self.at.contains_key(&chunk.id) {
                demand.spare(place);
            } else {
                demand.add(place, *chunk);
            }
        }
        demand
    }

    fn chunk<'b>(&self, wanted: ChunkRef, buffer: &'b mut Vec<u8>) -> Option<Chunk<'b>> {
        let &(file, offset) = self.at.get(&wanted.id)?;
        stored::read(&self.files[file], offset, wanted, buffer)
    }
}

/// Puts a damaged index at `path` together again, out of what is left of it and of the index
/// `other` with root `other_root`. Nothing is changed if a chunk is in neither.
pub(crate) fn mend(
    path: &Path,
    other: &Path,
    other_root: &IndexRoot,
) -> Result<bool, AssembleError> {
    let Some(root) = stored::root_of(path) else {
        return Ok(false);
    };
    let mut kept = Kept::default();
    kept.find(&root, path, &root);
    kept.find(&root, other, other_root);
    if !root
        .chunks
        .iter()
        .all(|chunk| kept.at.contains_key(&chunk.id))
    {
        return Ok(false);
    }
    let mut buffer = Vec::new();
    write(path, &root, |assembly, wanted| {
        // Read a moment ago: a disk that has changed its mind leaves the index short.
        kept.chunk(wanted, &mut buffer)
            .map_or(Ok(()), |chunk| assembly.push(chunk))
            .map_err(|source| failed(path, source))
    })?;
    Ok(true)
}

/// Puts the index together at `path`, durably, out of kept and fetched chunks.
pub(crate) fn assemble(
    path: &Path,
    root: &IndexRoot,
    kept: &Kept,
    locator: &Locator,
    downloads: &Downloads,
) -> Result<(), AssembleError> {
    let arrivals = Arc::new(Arrivals::all(locator.packs.len()));
    let mut packs = PackReader::new(downloads.clone(), locator.packs.as_slice().into(), arrivals);
    let mut buffer = Vec::new();
    let mut places = locator.places();
    write(path, root, |assembly, wanted| {
        let place = places.next().ok_or(AssembleError::Places)?;
        let chunk = match kept.chunk(wanted, &mut buffer) {
            Some(chunk) => chunk,
            None => packs.chunk(place, wanted)?,
        };
        assembly.push(chunk).map_err(|source| failed(path, source))
    })
}

/// What an index is gathered in until it is whole.
type Assembly<'r> = IndexAssembly<'r, BufWriter<File>>;

/// Writes the index with root `root` to `path`, durably; `push` adds one chunk after the other.
fn write(
    path: &Path,
    root: &IndexRoot,
    mut push: impl FnMut(&mut Assembly<'_>, ChunkRef) -> Result<(), AssembleError>,
) -> Result<(), AssembleError> {
    let temporary = path.with_extension("new");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(|source| failed(path, source))?;
    let mut assembly = IndexAssembly::new(root, BufWriter::new(file));
    for &wanted in &root.chunks {
        push(&mut assembly, wanted)?;
    }
    let whole = assembly
        .finish()
        .ok_or_else(|| failed(path, io::Error::other("it is not whole")))?;
    drop(
        whole
            .into_inner()
            .map_err(|error| failed(path, error.into_error()))?,
    );
    // As content::durable does it for what fits into memory.
    RealDisk
        .sync(&temporary)
        .and_then(|()| RealDisk.rename(&temporary, path))
        .and_then(|()| RealDisk.sync_folder(path.parent().unwrap_or_else(|| Path::new("."))))
        .map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> AssembleError {
    AssembleError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Why the index could not be put together.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AssembleError {
    /// It cannot be written.
    #[error("cannot keep the index {path}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The locator ends too early.
    #[error("locator check failed: it does not go along with the index")]
    Places,
    /// A chunk cannot be had.
    #[error(transparent)]
    Read(#[from] ReadError),
}
