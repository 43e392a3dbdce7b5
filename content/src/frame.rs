//! A frame: a run of consecutive chunks, compressed together and verified together.

use std::io;

use thiserror::Error;

use crate::chunk::{Chunk, Mismatch};
use crate::digest::{ChunkId, Digest};

/// The most plain bytes of a frame: 1 MiB. Compressing runs of this size instead of single chunks
/// saves 10 to 28 % (`docs/formats.md`); larger ones gain little and cost memory.
pub const FRAME_PLAIN_BYTES_MAX: usize = 1 << 20;

/// The most bytes that a stored frame may have: a frame that does not shrink is stored raw.
pub const FRAME_STORED_BYTES_MAX: usize = FRAME_PLAIN_BYTES_MAX;

/// How a frame is stored. The byte stands in the pack's frame table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Codec {
    /// As it is: compressing would have saved under 3 %.
    Raw,
    /// One zstd frame (RFC 8878) without dictionary.
    Zstd,
}

impl Codec {
    /// The byte that stands for it.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    /// The codec that `code` stands for, if this release knows it.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// What a pack's header says of one frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FrameInfo {
    /// How it is stored.
    pub codec: Codec,
    /// SHA-256 of the stored bytes.
    pub digest: Digest,
    /// Bytes as stored: 1 to [`FRAME_STORED_BYTES_MAX`].
    pub stored_bytes: u32,
    /// Bytes when unpacked: the sum of its chunks, at most [`FRAME_PLAIN_BYTES_MAX`].
    pub plain_bytes: u32,
    /// The first of its chunks, counted through the pack.
    pub first_chunk: u32,
    /// How many chunks it holds: at least one.
    pub chunks: u32,
    /// Where its stored bytes begin, counted from the end of the pack's header.
    pub offset: u32,
}

/// Stored bytes that are known to be the frame that a verified header names.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    info: &'a FrameInfo,
    stored: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes `stored` from somewhere untrusted, if they are the frame of `info`.
    ///
    /// # Errors
    ///
    /// Fails if their length or digest is another one.
    pub fn verify(info: &'a FrameInfo, stored: &'a [u8]) -> Result<Self, FrameError> {
        if stored.len() != info.stored_bytes as usize {
            return Err(FrameError::Length {
                wanted: info.stored_bytes,
                got: stored.len(),
            });
        }
        let got = Digest::of(stored);
        if got != info.digest {
            return Err(FrameError::Digest {
                wanted: info.digest,
                got,
            });
        }
        Ok(Self { info, stored })
    }

    /// Unpacks the frame into `plain`, which it clears first.
    ///
    /// # Errors
    ///
    /// Fails if the bytes do not unpack to exactly the declared length; that, under a right
    /// digest, is the fault of the pack's author and not of the source that carried it.
    pub fn unpack(&self, plain: &mut Vec<u8>) -> Result<(), FrameError> {
        let wanted = self.info.plain_bytes;
        plain.clear();
        match self.info.codec {
            Codec::Raw => plain.extend_from_slice(self.stored),
            Codec::Zstd => {
                plain.reserve_exact(wanted as usize);
                zstd::bulk::Decompressor::new()
                    .and_then(|mut unpacker| unpacker.decompress_to_buffer(self.stored, plain))
                    .map_err(|source| FrameError::Unpack { source })?;
            }
        }
        if plain.len() == wanted as usize {
            Ok(())
        } else {
            Err(FrameError::Plain {
                wanted,
                got: plain.len(),
            })
        }
    }
}

/// A run of chunks that is being gathered to become a frame.
#[derive(Debug, Default)]
pub struct PlainFrame {
    bytes: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
}

impl PlainFrame {
    /// Whether `length` more bytes would still fit.
    #[must_use]
    pub fn fits(&self, length: usize) -> bool {
        self.bytes.len() + length <= FRAME_PLAIN_BYTES_MAX
            && self.chunks.len() < CHUNKS_PER_FRAME_MAX
    }

    /// Whether nothing has been gathered yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds a chunk, for which [`PlainFrame::fits`] must have said yes.
    pub fn push(&mut self, chunk: Chunk<'_>) {
        debug_assert!(self.fits(chunk.bytes().len()));
        self.bytes.extend_from_slice(chunk.bytes());
        self.chunks.push((chunk.id(), chunk.bytes().len() as u32));
    }

    /// Packs the run, at zstd's `level`; the costly part of publishing.
    ///
    /// # Errors
    ///
    /// Fails only if zstd cannot get memory.
    pub fn pack(self, level: i32) -> io::Result<PackedFrame> {
        let packed = zstd::bulk::compress(&self.bytes, level)?;
        // Under 3 % saved is not worth the time of everyone who unpacks it.
        let worth = packed.len() < self.bytes.len() - self.bytes.len() * 3 / 100;
        let plain_bytes = self.bytes.len() as u32;
        let (codec, stored) = if worth {
            (Codec::Zstd, packed)
        } else {
            (Codec::Raw, self.bytes)
        };
        let digest = Digest::of(&stored);
        Ok(PackedFrame {
            codec,
            digest,
            plain_bytes,
            stored,
            chunks: self.chunks,
        })
    }
}

/// A frame that we made, ready to go into a pack.
#[derive(Clone, Debug)]
pub struct PackedFrame {
    pub(crate) codec: Codec,
    pub(crate) digest: Digest,
    pub(crate) plain_bytes: u32,
    pub(crate) stored: Vec<u8>,
    pub(crate) chunks: Vec<(ChunkId, u32)>,
}

impl PackedFrame {
    /// Bytes as stored.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.stored.len()
    }

    /// Chunks that it holds.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }
}

/// The most chunks of one frame. Files of a few bytes make many chunks in little room; this keeps
/// a frame's share of the header below 10 % of a megabyte.
pub const CHUNKS_PER_FRAME_MAX: usize = 2048;

/// Why stored bytes are not a frame, or do not unpack.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A chunk within it is not what the header says: the author's fault.
    #[error("cannot use the frame: its header names a chunk that it does not hold")]
    Chunk {
        /// Which.
        #[from]
        source: Mismatch,
    },
    /// Other bytes than the header names.
    #[error("frame check failed: want {wanted}, got {got}")]
    Digest {
        /// The digest in the header.
        wanted: Digest,
        /// The digest of the bytes.
        got: Digest,
    },
    /// Too few or too many bytes.
    #[error("frame check failed: want {wanted} bytes, got {got}")]
    Length {
        /// The length in the header.
        wanted: u32,
        /// The length of the bytes.
        got: usize,
    },
    /// It unpacks to another length.
    #[error("cannot unpack the frame: want {wanted} bytes, got {got}")]
    Plain {
        /// The length in the header.
        wanted: u32,
        /// The length it has.
        got: usize,
    },
    /// It does not unpack at all, or to more than its header says.
    #[error("cannot unpack the frame")]
    Unpack {
        /// What zstd says.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(parts: &[&[u8]]) -> PackedFrame {
        let mut plain = PlainFrame::default();
        for part in parts {
            plain.push(Chunk::verify(part, ChunkId(Digest::of(part))).unwrap());
        }
        plain.pack(3).unwrap()
    }

    fn info(frame: &PackedFrame) -> FrameInfo {
        FrameInfo {
            codec: frame.codec,
            digest: frame.digest,
            stored_bytes: frame.stored.len() as u32,
            plain_bytes: frame.plain_bytes,
            first_chunk: 0,
            chunks: frame.chunks.len() as u32,
            offset: 0,
        }
    }

    #[test]
    fn a_frame_unpacks_to_its_chunks() {
        let text = b"the same line again and again\n".repeat(1000);
        let packed = frame(&[&text, b"tail"]);
        assert_eq!(packed.codec, Codec::Zstd);
        let info = info(&packed);
        let mut plain = Vec::new();
        Frame::verify(&info, &packed.stored)
            .unwrap()
            .unpack(&mut plain)
            .unwrap();
        assert_eq!(plain, [&text[..], b"tail"].concat());
    }

    #[test]
    fn what_does_not_shrink_is_stored_raw() {
        assert_eq!(frame(&[b"x7"]).codec, Codec::Raw);
    }

    #[test]
    fn a_flipped_bit_is_found_before_unpacking() {
        let mut packed = frame(&[b"some bytes"]);
        let info = info(&packed);
        packed.stored[3] ^= 1;
        let error = Frame::verify(&info, &packed.stored).unwrap_err();
        assert!(matches!(error, FrameError::Digest { .. }), "{error}");
        let error = Frame::verify(&info, &packed.stored[1..]).unwrap_err();
        assert!(matches!(error, FrameError::Length { .. }), "{error}");
    }

    /// cas.md 18: a bound that guards against bombs must not keep out what is merely dull.
    #[test]
    fn b18_the_dullest_frame_of_the_greatest_size_is_taken() {
        for byte in [0, 0xff] {
            let dull = vec![byte; FRAME_PLAIN_BYTES_MAX / 4];
            let packed = frame(&[&dull, &dull, &dull, &dull]);
            assert!(
                packed.stored.len() * 1000 < FRAME_PLAIN_BYTES_MAX,
                "not dull"
            );
            let mut plain = Vec::new();
            let unpacked = Frame::verify(&info(&packed), &packed.stored)
                .unwrap()
                .unpack(&mut plain);
            unpacked.unwrap();
            assert!(plain == vec![byte; FRAME_PLAIN_BYTES_MAX]);
        }
    }

    #[test]
    fn unpacking_stops_at_the_declared_size() {
        let bomb = vec![0; FRAME_PLAIN_BYTES_MAX];
        let packed = frame(&[&bomb]);
        let lying = FrameInfo {
            plain_bytes: 100,
            ..info(&packed)
        };
        let mut plain = Vec::new();
        let error = Frame::verify(&lying, &packed.stored)
            .unwrap()
            .unpack(&mut plain)
            .unwrap_err();
        assert!(matches!(error, FrameError::Unpack { .. }), "{error}");
        assert!(
            plain.capacity() < 4096,
            "{} bytes were set aside",
            plain.capacity()
        );
    }
}
