//! The header of a pack: what it holds, and where.

use thiserror::Error;

use super::{
    CHUNK_ENTRY_BYTES, FRAME_ENTRY_BYTES, PACK_BYTES_MAX, PACK_CHUNKS_MAX, PACK_FRAMES_MAX,
    PACK_HEADER_BYTES_MAX, PRELUDE_BYTES,
};
use crate::chunk::ChunkRef;
use crate::digest::{ChunkId, Digest, PackId};
use crate::frame::{Codec, FRAME_PLAIN_BYTES_MAX, FRAME_STORED_BYTES_MAX, FrameInfo};

/// A header that is known to be the one that its [`PackId`] names.
///
/// Frames and chunks are stored in order and without gaps, so their places follow from their
/// lengths: nothing in it can contradict itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PackHeader {
    id: PackId,
    header_bytes: u32,
    total_bytes: u32,
    frames: Vec<FrameInfo>,
    chunks: Vec<ChunkRef>,
}

impl PackHeader {
    /// Takes `bytes` from somewhere untrusted, if they are the header of the pack called `wanted`.
    ///
    /// # Errors
    ///
    /// Fails if their digest is another one, or if what they say breaks the format or its limits.
    pub fn verify(bytes: &[u8], wanted: PackId) -> Result<Self, HeaderError> {
        let header = Self::parse(bytes)?;
        if header.id == wanted {
            Ok(header)
        } else {
            Err(HeaderError::Id {
                wanted,
                got: header.id,
            })
        }
    }

    /// Reads a header whose name is not known beforehand, as the origin does when it takes a pack in.
    ///
    /// # Errors
    ///
    /// Fails if `bytes` break the format or its limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let prelude = Prelude::parse(bytes)?;
        if bytes.len() != prelude.header_bytes as usize {
            return Err(HeaderError::Length {
                wanted: prelude.header_bytes,
                got: bytes.len(),
            });
        }
        let (frame_table, chunk_table) =
            bytes[PRELUDE_BYTES..].split_at(prelude.frames * FRAME_ENTRY_BYTES);
        let chunks = chunks(chunk_table)?;
        let frames = frames(frame_table, &chunks)?;
        let stored: u64 = frames
            .iter()
            .map(|frame| u64::from(frame.stored_bytes))
            .sum();
        if u64::from(prelude.total_bytes) != u64::from(prelude.header_bytes) + stored {
            return Err(HeaderError::Format {
                what: "the total length is not that of its parts",
            });
        }
        Ok(Self {
            id: PackId(Digest::of(bytes)),
            header_bytes: prelude.header_bytes,
            total_bytes: prelude.total_bytes,
            frames,
            chunks,
        })
    }

    /// How long the header is that begins with `bytes`, as soon as enough of it has arrived.
    ///
    /// # Errors
    ///
    /// Fails if these cannot be the first bytes of a pack.
    pub fn length(bytes: &[u8]) -> Result<Option<usize>, HeaderError> {
        if bytes.len() < PRELUDE_BYTES {
            return Ok(None);
        }
        Prelude::parse(bytes).map(|prelude| Some(prelude.header_bytes as usize))
    }

    /// The pack's name.
    #[must_use]
    pub fn id(&self) -> PackId {
        self.id
    }

    /// Bytes of the header: where the first frame begins.
    #[must_use]
    pub fn header_bytes(&self) -> u32 {
        self.header_bytes
    }

    /// Bytes of the whole pack.
    #[must_use]
    pub fn total_bytes(&self) -> u32 {
        self.total_bytes
    }

    /// The frames, in order.
    #[must_use]
    pub fn frames(&self) -> &[FrameInfo] {
        &self.frames
    }

    /// The chunks, in order, counted through all frames.
    #[must_use]
    pub fn chunks(&self) -> &[ChunkRef] {
        &self.chunks
    }

    /// The frame that holds chunk `ordinal`, and where in the unpacked frame the chunk begins.
    #[must_use]
    pub fn locate(&self, ordinal: u32) -> Option<(usize, usize)> {
        let frame = self
            .frames
            .partition_point(|frame| frame.first_chunk <= ordinal)
            .checked_sub(1)?;
        let info = &self.frames[frame];
        if ordinal >= info.first_chunk + info.chunks {
            return None;
        }
        let before = &self.chunks[info.first_chunk as usize..ordinal as usize];
        Some((
            frame,
            before.iter().map(|chunk| chunk.length as usize).sum(),
        ))
    }

    /// The bytes of the pack that frame `frame` takes up.
    #[must_use]
    pub fn frame_range(&self, frame: usize) -> std::ops::Range<u64> {
        let info = &self.frames[frame];
        let start = u64::from(self.header_bytes) + u64::from(info.offset);
        start..start + u64::from(info.stored_bytes)
    }
}

struct Prelude {
    header_bytes: u32,
    total_bytes: u32,
    frames: usize,
}

impl Prelude {
    fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.len() < PRELUDE_BYTES {
            return Err(HeaderError::Length {
                wanted: PRELUDE_BYTES as u32,
                got: bytes.len(),
            });
        }
        if &bytes[..MAGIC.len()] != MAGIC {
            return Err(HeaderError::Format {
                what: "it does not begin like a pack",
            });
        }
        let field = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte]));
        let (header_bytes, total_bytes) = (field(8), field(12));
        let (frames, chunks) = (field(16) as usize, field(20) as usize);
        if frames == 0 || frames > PACK_FRAMES_MAX || chunks < frames || chunks > PACK_CHUNKS_MAX {
            return Err(HeaderError::Format {
                what: "its counts are out of bounds",
            });
        }
        let wanted = PRELUDE_BYTES + frames * FRAME_ENTRY_BYTES + chunks * CHUNK_ENTRY_BYTES;
        if header_bytes as usize != wanted || wanted > PACK_HEADER_BYTES_MAX {
            return Err(HeaderError::Format {
                what: "its length is not that of its tables",
            });
        }
        if total_bytes as usize > PACK_BYTES_MAX {
            return Err(HeaderError::Format {
                what: "the pack is over 8 MiB",
            });
        }
        Ok(Self {
            header_bytes,
            total_bytes,
            frames,
        })
    }
}

pub(super) fn encode(frames: &[FrameInfo], chunks: &[ChunkRef]) -> Vec<u8> {
    let header_bytes =
        PRELUDE_BYTES + frames.len() * FRAME_ENTRY_BYTES + chunks.len() * CHUNK_ENTRY_BYTES;
    let stored: usize = frames.iter().map(|frame| frame.stored_bytes as usize).sum();
    let mut bytes = Vec::with_capacity(header_bytes);
    bytes.extend_from_slice(MAGIC);
    for field in [
        header_bytes,
        header_bytes + stored,
        frames.len(),
        chunks.len(),
    ] {
        bytes.extend_from_slice(&(field as u32).to_be_bytes());
    }
    for frame in frames {
        bytes.push(frame.codec.code());
        bytes.extend_from_slice(&frame.chunks.to_be_bytes());
        bytes.extend_from_slice(&frame.stored_bytes.to_be_bytes());
        bytes.extend_from_slice(frame.digest.as_raw());
    }
    for chunk in chunks {
        bytes.extend_from_slice(&chunk.id.0.to_binary());
        bytes.extend_from_slice(&chunk.length.to_be_bytes());
    }
    bytes
}

fn chunks(table: &[u8]) -> Result<Vec<ChunkRef>, HeaderError> {
    let entry = |entry: &[u8]| {
        let (id, length) = entry.split_at(Digest::BINARY_BYTES);
        let id = Digest::from_binary(id).map_err(|_| HeaderError::Format {
            what: "a chunk's algorithm is unknown",
        })?;
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        if length == 0 || length as usize > FRAME_PLAIN_BYTES_MAX {
            return Err(HeaderError::Format {
                what: "a chunk's length is out of bounds",
            });
        }
        Ok(ChunkRef {
            id: ChunkId(id),
            length,
        })
    };
    table.chunks_exact(CHUNK_ENTRY_BYTES).map(entry).collect()
}

fn frames(table: &[u8], chunks: &[ChunkRef]) -> Result<Vec<FrameInfo>, HeaderError> {
    let mut frames = Vec::with_capacity(table.len() / FRAME_ENTRY_BYTES);
    let (mut first_chunk, mut offset) = (0u32, 0u32);
    for entry in table.chunks_exact(FRAME_ENTRY_BYTES) {
        let frame = frame(entry, chunks, first_chunk, offset)?;
        first_chunk += frame.chunks;
        // Cannot overflow: at most 1024 frames of at most 1 MiB.
        offset += frame.stored_bytes;
        frames.push(frame);
    }
    if first_chunk as usize == chunks.len() {
        Ok(frames)
    } else {
        Err(HeaderError::Format {
            what: "its frames hold fewer chunks than it lists",
        })
    }
}

fn frame(
    entry: &[u8],
    chunks: &[ChunkRef],
    first_chunk: u32,
    offset: u32,
) -> Result<FrameInfo, HeaderError> {
    let field = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| entry[at + byte]));
    let (count, stored_bytes) = (field(1), field(5));
    let codec = Codec::from_code(entry[0]).ok_or(HeaderError::Format {
        what: "a frame's codec is unknown",
    })?;
    let held = (first_chunk as usize)
        .checked_add(count as usize)
        .and_then(|end| chunks.get(first_chunk as usize..end))
        .filter(|held| !held.is_empty())
        .ok_or(HeaderError::Format {
            what: "a frame's chunk count is out of bounds",
        })?;
    let plain: u64 = held.iter().map(|chunk| u64::from(chunk.length)).sum();
    let raw_fits = codec != Codec::Raw || u64::from(stored_bytes) == plain;
    let stored_fits = (1..=FRAME_STORED_BYTES_MAX as u32).contains(&stored_bytes);
    if plain > FRAME_PLAIN_BYTES_MAX as u64 || !stored_fits || !raw_fits {
        return Err(HeaderError::Format {
            what: "a frame's length is out of bounds",
        });
    }
    let mut raw = [0; 32];
    raw.copy_from_slice(&entry[9..FRAME_ENTRY_BYTES]);
    Ok(FrameInfo {
        codec,
        digest: Digest::from_raw(raw),
        stored_bytes,
        plain_bytes: plain as u32,
        first_chunk,
        chunks: count,
        offset,
    })
}

/// Why some bytes are not the header of a pack.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum HeaderError {
    /// They break the format or its limits.
    #[error("pack header check failed: {what}")]
    Format {
        /// Which rule.
        what: &'static str,
    },
    /// They are the header of another pack.
    #[error("pack header check failed: want {wanted}, got {got}")]
    Id {
        /// The name they came under.
        wanted: PackId,
        /// The name that they have.
        got: PackId,
    },
    /// Too few or too many bytes.
    #[error("pack header check failed: want {wanted} bytes, got {got}")]
    Length {
        /// Bytes that it must have.
        wanted: u32,
        /// Bytes that there are.
        got: usize,
    },
}

/// Seven letters and the format's version.
const MAGIC: &[u8; 8] = b"LARDPAK\x01";
