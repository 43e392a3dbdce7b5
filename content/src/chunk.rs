//! A chunk: a run of a file's bytes that is what its name says.

use thiserror::Error;

use crate::ChunkId;
use crate::digest::Digest;

/// Bytes that are known to be what their [`ChunkId`] says.
///
/// There is no other way to make one than [`Chunk::verify`], so a function that takes a `Chunk`
/// need not ask where it came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunk<'a> {
    bytes: &'a [u8],
    id: ChunkId,
}

impl<'a> Chunk<'a> {
    /// Takes `bytes` from somewhere untrusted, if they are the chunk called `wanted`.
    ///
    /// # Errors
    ///
    /// Fails if their digest is another one.
    pub fn verify(bytes: &'a [u8], wanted: ChunkId) -> Result<Self, Mismatch> {
        let got = ChunkId(Digest::of(bytes));
        if got == wanted {
            Ok(Self { bytes, id: wanted })
        } else {
            Err(Mismatch { wanted, got })
        }
    }

    /// Names `bytes` of our own.
    #[must_use]
    pub fn name(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            id: ChunkId(Digest::of(bytes)),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The name.
    #[must_use]
    pub fn id(&self) -> ChunkId {
        self.id
    }
}

/// One chunk of a file as an index lists it: name, and length in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChunkRef {
    /// The chunk's name.
    pub id: ChunkId,
    /// Its length in bytes: 1 to the profile's maximum.
    pub length: u32,
}

/// Chunks with their bytes, in order: once verified, they need not be hashed again to be used.
#[derive(Debug, Default)]
pub struct ChunkRun {
    bytes: Vec<u8>,
    chunks: Vec<ChunkRef>,
}

impl ChunkRun {
    /// No chunk yet, with room for `bytes` of them.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            chunks: Vec::new(),
        }
    }

    /// Adds a chunk.
    pub fn push(&mut self, chunk: Chunk<'_>) {
        self.bytes.extend_from_slice(chunk.bytes);
        self.chunks.push(ChunkRef {
            id: chunk.id,
            length: chunk.bytes.len() as u32,
        });
    }

    /// Bytes of all chunks.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Names and lengths.
    #[must_use]
    pub fn refs(&self) -> &[ChunkRef] {
        &self.chunks
    }

    /// The chunks.
    pub fn iter(&self) -> impl Iterator<Item = Chunk<'_>> {
        let mut rest = &self.bytes[..];
        self.chunks.iter().map(move |chunk| {
            let (bytes, after) = rest.split_at(chunk.length as usize);
            rest = after;
            Chunk {
                bytes,
                id: chunk.id,
            }
        })
    }
}

/// Bytes that are not the chunk they were said to be.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("chunk check failed: want {wanted}, got {got}")]
pub struct Mismatch {
    /// The name they came under.
    pub wanted: ChunkId,
    /// The name that they have.
    pub got: ChunkId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_gives_its_chunks_back() {
        let mut run = ChunkRun::default();
        run.push(Chunk::name(b"bread"));
        run.push(Chunk::name(b"jam"));
        let got: Vec<_> = run
            .iter()
            .map(|chunk| (chunk.id(), chunk.bytes()))
            .collect();
        let id = |bytes| ChunkId(Digest::of(bytes));
        assert_eq!(got, [(id(b"bread"), &b"bread"[..]), (id(b"jam"), b"jam")]);
        assert_eq!(run.bytes(), 8);
    }

    #[test]
    fn only_the_right_bytes_make_a_chunk() {
        let id = ChunkId(Digest::of(b"bread"));
        assert_eq!(
            Chunk::verify(b"bread", id).map(|chunk| chunk.bytes()),
            Ok(&b"bread"[..])
        );
        let error = Chunk::verify(b"bred", id).unwrap_err();
        assert_eq!(
            (error.wanted, error.got),
            (id, ChunkId(Digest::of(b"bred")))
        );
    }
}
