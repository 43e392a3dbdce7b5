//! Getting the index of a revision: chunk by chunk, those of the installed index not fetched again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::durable::{Disk as _, RealDisk};
use content::index::{IndexAssembly, IndexRoot};
use content::locator::{Locator, Place};
use content::{Chunk, ChunkId, ChunkRef};
use thiserror::Error;

use crate::fetch::downloads::Downloads;
use crate::fetch::reader::{Arrivals, PackReader, ReadError};
use crate::plan::Demand;

/// The chunks of an installed index that the new one has too.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    file: Option<File>,
    at: HashMap<ChunkId, u64>,
}

impl Kept {
    /// Looks for chunks of `root` in the installed index at `path`, whose root is `installed`, and
    /// verifies them: the disk may have been unkind.
    pub(crate) fn find(root: &IndexRoot, path: &Path, installed: &IndexRoot) -> Self {
        let Ok(file) = File::open(path) else {
            return Self::default();
        };
        let wanted: std::collections::HashSet<ChunkId> =
            root.chunks.iter().map(|chunk| chunk.id).collect();
        let mut at = HashMap::new();
        let (mut offset, mut buffer) = (0, Vec::new());
        for chunk in &installed.chunks {
            if wanted.contains(&chunk.id) && read(&file, offset, *chunk, &mut buffer).is_some() {
                at.insert(chunk.id, offset);
            }
            offset += u64::from(chunk.length);
        }
        Self {
            file: Some(file),
            at,
        }
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
        let offset = *self.at.get(&wanted.id)?;
        read(self.file.as_ref()?, offset, wanted, buffer)
    }
}

fn read<'b>(
    file: &File,
    offset: u64,
    wanted: ChunkRef,
    buffer: &'b mut Vec<u8>,
) -> Option<Chunk<'b>> {
    buffer.resize(wanted.length as usize, 0);
    file.read_exact_at(buffer, offset).ok()?;
    Chunk::verify(buffer, wanted.id).ok()
}

/// Puts the index together at `path`, durably, out of kept and fetched chunks.
pub(crate) fn assemble(
    path: &Path,
    root: &IndexRoot,
    kept: &Kept,
    locator: &Locator,
    downloads: &Downloads,
) -> Result<(), AssembleError> {
    let failed = |source| AssembleError::Io {
        path: path.to_owned(),
        source,
    };
    let temporary = path.with_extension("new");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    let arrivals = Arc::new(Arrivals::all(locator.packs.len()));
    let mut packs = PackReader::new(downloads.clone(), locator.packs.as_slice().into(), arrivals);
    let mut assembly = IndexAssembly::new(root, BufWriter::new(file));
    let mut buffer = Vec::new();
    let places: Vec<Place> = locator.places().take(root.chunks.len()).collect();
    if places.len() != root.chunks.len() {
        return Err(AssembleError::Places);
    }
    for (&wanted, place) in root.chunks.iter().zip(places) {
        let chunk = match kept.chunk(wanted, &mut buffer) {
            Some(chunk) => chunk,
            None => packs.chunk(place, wanted)?,
        };
        assembly.push(chunk).map_err(failed)?;
    }
    let whole = assembly
        .finish()
        .ok_or_else(|| failed(io::Error::other("it is not whole")))?;
    drop(
        whole
            .into_inner()
            .map_err(|error| failed(error.into_error()))?,
    );
    // As content::durable does it for what fits into memory.
    RealDisk
        .sync(&temporary)
        .and_then(|()| RealDisk.rename(&temporary, path))
        .and_then(|()| RealDisk.sync_folder(path.parent().unwrap_or_else(|| Path::new("."))))
        .map_err(failed)
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
