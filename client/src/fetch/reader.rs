//! Reading chunks out of downloaded packs, waiting for packs that are still on their way.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use content::frame::FrameError;
use content::locator::{PackEntry, Place};
use content::pack::PackHeader;
use content::{Chunk, ChunkRef, Mismatch, PackId};
use thiserror::Error;

use super::downloads::{Downloads, PartError, read_frame, verify_frame};

/// Tells which packs have arrived.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    arrived: Vec<bool>,
    ended: bool,
}

impl Arrivals {
    /// None of `packs` packs has arrived.
    pub(crate) fn new(packs: usize) -> Self {
        Self {
            state: Mutex::new(State {
                arrived: vec![false; packs],
                ended: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// All of `packs` packs have arrived, as far as they are needed.
    pub(crate) fn all(packs: usize) -> Self {
        let arrivals = Self::new(packs);
        arrivals.lock().arrived.fill(true);
        arrivals
    }

    /// All that is needed of pack `pack` has arrived.
    pub(crate) fn arrived(&self, pack: u32) {
        self.lock().arrived[pack as usize] = true;
        self.changed.notify_all();
    }

    /// Nothing more will arrive. Whoever waits is told, so every wait ends with the fetching,
    /// which has its deadlines.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits for pack `pack`; false if it will not arrive.
    fn wait(&self, pack: u32) -> bool {
        let mut state = self.lock();
        loop {
            if state.arrived[pack as usize] {
                return true;
            }
            if state.ended {
                return false;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Flags are never half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the arrivals when the fetching does, however it does.
#[derive(Debug)]
pub(crate) struct EndGuard(pub(crate) Arc<Arrivals>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Reads verified chunks out of downloaded packs. Keeps a few unpacked frames, since chunks mostly
/// lie in the order in which they are asked for.
#[derive(Debug)]
pub(crate) struct PackReader {
    downloads: Downloads,
    packs: Arc<[PackEntry]>,
    arrivals: Arc<Arrivals>,
    open: VecDeque<OpenPack>,
    frames: VecDeque<OpenFrame>,
}

#[derive(Debug)]
struct OpenPack {
    pack: u32,
    file: File,
    header: PackHeader,
}

#[derive(Debug)]
struct OpenFrame {
    pack: u32,
    first_chunk: u32,
    chunks: u32,
    plain: Vec<u8>,
    /// Where each chunk begins, and where the last ends.
    bounds: Vec<u32>,
}

impl PackReader {
    /// Reads packs of a locator's list.
    pub(crate) fn new(
        downloads: Downloads,
        packs: Arc<[PackEntry]>,
        arrivals: Arc<Arrivals>,
    ) -> Self {
        Self {
            downloads,
            packs,
            arrivals,
            open: VecDeque::new(),
            frames: VecDeque::new(),
        }
    }

    /// The chunk at `place`, which must be `wanted`.
    pub(crate) fn chunk(&mut self, place: Place, wanted: ChunkRef) -> Result<Chunk<'_>, ReadError> {
        let pack = self.packs[place.pack as usize].id;
        let held = self.frames.iter().position(|frame| frame.holds(place));
        let at = match held {
            Some(at) => at,
            None => self.unpack(place)?,
        };
        let frame = &self.frames[at];
        let which = (place.ordinal - frame.first_chunk) as usize;
        let bytes = &frame.plain[frame.bounds[which] as usize..frame.bounds[which + 1] as usize];
        if bytes.len() != wanted.length as usize {
            return Err(ReadError::Place { pack });
        }
        Chunk::verify(bytes, wanted.id).map_err(|source| ReadError::Chunk { pack, source })
    }

    /// Unpacks the frame that holds `place` and says where it now is.
    fn unpack(&mut self, place: Place) -> Result<usize, ReadError> {
        let id = self.packs[place.pack as usize].id;
        let open = self.open_pack(place.pack)?;
        let at = self.open[open].header.locate(place.ordinal);
        let (frame, _) = at.ok_or(ReadError::Place { pack: id })?;
        // The memory of the frame that has been longest unused is used again.
        let mut plain = if self.frames.len() < FRAMES_MAX {
            Vec::new()
        } else {
            self.frames
                .pop_front()
                .map_or_else(Vec::new, |frame| frame.plain)
        };
        let OpenPack { file, header, .. } = &self.open[open];
        let stored =
            read_frame(file, header, frame).map_err(|source| ReadError::Part { source })?;
        verify_frame(header, frame, &stored)
            .map_err(|source| ReadError::Part { source })?
            .unpack(&mut plain)
            .map_err(|source| ReadError::Frame { pack: id, source })?;
        let info = &header.frames()[frame];
        let chunks = &header.chunks()[info.first_chunk as usize..][..info.chunks as usize];
        let mut bounds = vec![0];
        bounds.extend(chunks.iter().scan(0, |end, chunk| {
            *end += chunk.length;
            Some(*end)
        }));
        self.frames.push_back(OpenFrame {
            pack: place.pack,
            first_chunk: info.first_chunk,
            chunks: info.chunks,
            plain,
            bounds,
        });
        Ok(self.frames.len() - 1)
    }

    fn open_pack(&mut self, pack: u32) -> Result<usize, ReadError> {
        if let Some(at) = self.open.iter().position(|open| open.pack == pack) {
            return Ok(at);
        }
        let entry = &self.packs[pack as usize];
        if !self.arrivals.wait(pack) {
            return Err(ReadError::Stopped { pack: entry.id });
        }
        let (file, header) = self
            .downloads
            .read(entry)
            .map_err(|source| ReadError::Part { source })?;
        if self.open.len() == OPEN_MAX {
            self.open.pop_front();
        }
        self.open.push_back(OpenPack { pack, file, header });
        Ok(self.open.len() - 1)
    }
}

impl OpenFrame {
    fn holds(&self, place: Place) -> bool {
        self.pack == place.pack
            && (self.first_chunk..self.first_chunk + self.chunks).contains(&place.ordinal)
    }
}

/// Why a chunk cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The author of the pack put another chunk there than the index names. No other source can
    /// help.
    #[error(
        "pack {pack} was made wrongly: it is what its name says, \
         and holds another chunk than the index does"
    )]
    Chunk {
        /// The pack.
        pack: PackId,
        /// Which chunk.
        source: Mismatch,
    },
    /// A frame is what its name says, and does not unpack: its author's fault again.
    #[error("pack {pack} was made wrongly")]
    Frame {
        /// The pack.
        pack: PackId,
        /// Why.
        source: FrameError,
    },
    /// A downloaded pack cannot be read.
    #[error(transparent)]
    Part {
        /// Why.
        source: PartError,
    },
    /// The locator names a chunk that the pack does not have.
    #[error("pack {pack} was made wrongly: the locator names a chunk that is not there")]
    Place {
        /// The pack.
        pack: PackId,
    },
    /// The fetching ended before the pack had come; its own error says why.
    #[error("cannot go on without pack {pack}")]
    Stopped {
        /// The pack.
        pack: PackId,
    },
}

/// Unpacked frames to keep: 16 MiB at most.
const FRAMES_MAX: usize = 16;
/// Open packs to keep: a header of a pack with as many chunks as are allowed takes 0.4 MB.
const OPEN_MAX: usize = 16;
