//! Reading chunks out of the origin's own packs.

use std::collections::HashMap;
use std::io;

use content::pack::{PackDir, PackFile, ReadPackError};
use content::{Chunk, ChunkId, Mismatch, PackId};
use thiserror::Error;

/// Reads chunks, and keeps at hand what the next one probably needs.
#[derive(Debug)]
pub(super) struct ChunkReader {
    packs: PackDir,
    open: HashMap<PackId, PackFile>,
    /// The frame unpacked last.
    frame: Option<(PackId, usize)>,
    plain: Vec<u8>,
}

/// Why a chunk cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadChunkError {
    /// The pack that should hold it holds other bytes under its name.
    #[error("cannot use a chunk of the pack {pack}")]
    Chunk {
        /// The pack.
        pack: PackId,
        /// What it holds.
        source: Mismatch,
    },
    /// The pack has no such chunk.
    #[error("the pack {pack} has no chunk {ordinal}")]
    Ordinal {
        /// The pack.
        pack: PackId,
        /// The chunk.
        ordinal: u32,
    },
    /// The pack cannot be read.
    #[error("cannot use the pack {pack}")]
    Pack {
        /// The pack.
        pack: PackId,
        /// Why.
        source: ReadPackError,
    },
    /// What was to be done with the chunk failed.
    #[error("cannot write a chunk")]
    Sink(#[from] io::Error),
}

impl ChunkReader {
    pub(super) fn new(packs: PackDir) -> Self {
        Self {
            packs,
            open: HashMap::new(),
            frame: None,
            plain: Vec::new(),
        }
    }

    /// Hands the chunk called `id`, which lies in `pack` at `ordinal`, to `sink`.
    pub(super) fn with<R>(
        &mut self,
        pack: PackId,
        ordinal: u32,
        id: ChunkId,
        sink: impl FnOnce(Chunk<'_>) -> io::Result<R>,
    ) -> Result<R, ReadChunkError> {
        if !self.open.contains_key(&pack) {
            // Packs come in runs: a few open ones are enough, and file handles are few.
            if self.open.len() >= OPEN_PACKS_MAX {
                self.open.clear();
            }
            let file = PackFile::open(&self.packs.path(pack), pack)
                .map_err(|source| ReadChunkError::Pack { pack, source })?;
            self.open.insert(pack, file);
        }
        let file = &self.open[&pack];
        let (frame, start) = file
            .header()
            .locate(ordinal)
            .ok_or(ReadChunkError::Ordinal { pack, ordinal })?;
        if self.frame != Some((pack, frame)) {
            self.frame = None;
            file.unpack(frame, &mut self.plain)
                .map_err(|source| ReadChunkError::Pack { pack, source })?;
            self.frame = Some((pack, frame));
        }
        let length = file.header().chunks()[ordinal as usize].length as usize;
        let chunk = Chunk::verify(&self.plain[start..start + length], id)
            .map_err(|source| ReadChunkError::Chunk { pack, source })?;
        Ok(sink(chunk)?)
    }
}

const OPEN_PACKS_MAX: usize = 32;
