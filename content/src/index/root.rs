//! The index root: names an index of any size, so that it can be verified piece by piece.

use std::io::{self, Read, Write};

use thiserror::Error;

use crate::cbor::{self, CborError, Fields, Writer, need};
use crate::chunk::{Chunk, ChunkRef};
use crate::chunker::{Chunker, Profile};
use crate::digest::{ChunkId, Digest};

/// The most chunks of an index: at 16 KiB each this is 4 GiB, or some forty million files.
pub const INDEX_CHUNKS_MAX: usize = 262_144;
/// The most bytes of a root.
pub const ROOT_BYTES_MAX: usize = 16 << 20;

// The longest list that is allowed must itself be allowed.
const _: () = assert!(INDEX_CHUNKS_MAX * 41 + 256 <= ROOT_BYTES_MAX);

/// What an index consists of. Its digest is what a revision's statement signs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IndexRoot {
    /// Bytes of the index.
    pub bytes: u64,
    /// Records of the index, head included.
    pub records: u64,
    /// Its chunks in order, cut by [`Profile::Index`].
    pub chunks: Vec<ChunkRef>,
}

impl IndexRoot {
    /// Cuts an index into chunks, hands each to `sink` and says what root they make.
    ///
    /// # Errors
    ///
    /// Fails if the reader or the sink fails.
    pub fn build(
        index: impl Read,
        records: u64,
        mut sink: impl FnMut(Chunk<'_>) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut root = Self {
            bytes: 0,
            records,
            chunks: Vec::new(),
        };
        let mut chunker = Chunker::new(index, Profile::Index);
        while let Some(bytes) = chunker.next_chunk()? {
            let chunk = Chunk::name(bytes);
            root.bytes += bytes.len() as u64;
            root.chunks.push(ChunkRef {
                id: chunk.id(),
                length: bytes.len() as u32,
            });
            sink(chunk)?;
        }
        Ok(root)
    }

    /// The bytes of the root.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::map(5);
        writer.u64(VERSION).u64(1);
        writer.u64(BYTES).u64(self.bytes);
        writer.u64(RECORDS).u64(self.records);
        writer.u64(PROFILE).text(Profile::Index.name());
        writer.u64(CHUNKS).array(self.chunks.len() * 2);
        for chunk in &self.chunks {
            writer.digest(&chunk.id.0).u64(u64::from(chunk.length));
        }
        writer.finish()
    }

    /// Takes `bytes` from somewhere untrusted, if they are the root called `wanted`.
    ///
    /// # Errors
    ///
    /// Fails if their digest is another one, or if they break the format or its limits.
    pub fn verify(bytes: &[u8], wanted: Digest) -> Result<Self, RootError> {
        let got = Digest::of(bytes);
        if got != wanted {
            return Err(RootError::Digest { wanted, got });
        }
        if bytes.len() > ROOT_BYTES_MAX {
            return Err(RootError::Cbor {
                source: CborError::Bounds {
                    key: CHUNKS,
                    what: "over 16 MiB",
                },
            });
        }
        let root = Self::decode(bytes)?;
        cbor::same(bytes, &root.encode())?;
        let sum: u64 = root
            .chunks
            .iter()
            .map(|chunk| u64::from(chunk.length))
            .sum();
        if sum == root.bytes {
            Ok(root)
        } else {
            Err(RootError::Sum {
                wanted: root.bytes,
                got: sum,
            })
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut fields = Fields::new(bytes)?;
        let (mut size, mut records, mut chunks) = (None, None, None);
        while let Some(key) = fields.next_key()? {
            match key {
                VERSION if fields.u64()? == 1 => {}
                VERSION => return Err(fields.bounds("unknown version")),
                BYTES => size = Some(fields.u64()?),
                RECORDS => records = Some(fields.u64()?),
                PROFILE if fields.text(64)? == Profile::Index.name() => {}
                PROFILE => return Err(fields.bounds("unknown chunk profile")),
                CHUNKS => chunks = Some(read_chunks(&mut fields)?),
                unknown => return Err(CborError::UnknownKey { key: unknown }),
            }
        }
        Ok(Self {
            bytes: need(size, BYTES)?,
            records: need(records, RECORDS)?,
            chunks: need(chunks, CHUNKS)?,
        })
    }
}

fn read_chunks(fields: &mut Fields<'_>) -> Result<Vec<ChunkRef>, CborError> {
    let items = fields.array(INDEX_CHUNKS_MAX * 2)?;
    if items % 2 != 0 {
        return Err(fields.bounds("an odd count"));
    }
    let mut chunks = Vec::with_capacity(items / 2);
    for _ in 0..items / 2 {
        let id = ChunkId(fields.digest()?);
        let length = fields.u32()?;
        if length == 0 || length as usize > Profile::Index.bytes_max() {
            return Err(fields.bounds("a chunk's length"));
        }
        chunks.push(ChunkRef { id, length });
    }
    Ok(chunks)
}

/// Writes an index out of its chunks, as they come, and holds each to its root.
#[derive(Debug)]
pub struct IndexAssembly<'a, W> {
    root: &'a IndexRoot,
    next: usize,
    sink: W,
}

impl<'a, W: Write> IndexAssembly<'a, W> {
    /// Starts with nothing.
    pub fn new(root: &'a IndexRoot, sink: W) -> Self {
        Self {
            root,
            next: 0,
            sink,
        }
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    ///
    /// Fails as the sink fails, or if this is not the chunk that comes next.
    pub fn push(&mut self, chunk: Chunk<'_>) -> io::Result<()> {
        match self.root.chunks.get(self.next) {
            Some(wanted) if wanted.id == chunk.id() => {
                self.next += 1;
                self.sink.write_all(chunk.bytes())
            }
            Some(_) | None => Err(io::Error::other("an index chunk came out of turn")),
        }
    }

    /// The sink, if the index is whole.
    pub fn finish(self) -> Option<W> {
        (self.next == self.root.chunks.len()).then_some(self.sink)
    }
}

/// Why some bytes are not the root of an index.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum RootError {
    /// They break the format or its limits.
    #[error("index root check failed")]
    Cbor {
        /// How.
        #[from]
        source: CborError,
    },
    /// They are another root.
    #[error("index root check failed: want {wanted}, got {got}")]
    Digest {
        /// The digest in the statement.
        wanted: Digest,
        /// The digest of the bytes.
        got: Digest,
    },
    /// Its chunks do not add up.
    #[error("index root check failed: its chunks have {got} bytes, it says {wanted}")]
    Sum {
        /// What it says.
        wanted: u64,
        /// What its chunks have.
        got: u64,
    },
}

const VERSION: u64 = 0;
const BYTES: u64 = 1;
const RECORDS: u64 = 2;
const PROFILE: u64 = 3;
const CHUNKS: u64 = 4;
