//! What publisher and origin say to each other over the admin socket.

use std::fmt;

use content::{ChunkId, ChunkRef, Digest};
use serde::{Deserialize, Serialize};

/// `POST /publishes`: begins a publish.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Begin {
    /// The fileset's name.
    pub fileset: String,
}

/// What it is answered.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Begun {
    /// The number under which the publish goes on.
    pub publish: i64,
}

/// What a commit is answered.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Committed {
    /// The fileset's name.
    pub fileset: String,
    /// The revision that is now current.
    pub revision: u64,
    /// Whether it is the one that was current before: nothing had changed.
    pub unchanged: bool,
    /// Paths.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Chunks of the files, each counted as often as it occurs.
    pub chunks: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Packs that hold the files' bytes.
    pub packs: u64,
    /// Bytes of these packs.
    pub packs_bytes: u64,
    /// Bytes of those of them that no retained revision of the fileset had.
    pub new_packs_bytes: u64,
    /// Bytes of index packs, index root, locator and statement.
    pub metadata_bytes: u64,
    /// Bytes of those index packs that no retained revision of the fileset had.
    pub new_index_bytes: u64,
}

impl fmt::Display for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            fileset,
            revision,
            files,
            packs,
            ..
        } = self;
        let size = bytesize::ByteSize(self.bytes);
        if self.unchanged {
            return write!(
                f,
                "{fileset}@{revision} is already what is there: {files} files, {size}"
            );
        }
        let new = bytesize::ByteSize(self.new_packs_bytes + self.new_index_bytes);
        let all = bytesize::ByteSize(self.packs_bytes);
        write!(
            f,
            "published {fileset}@{revision}: {files} files, {size}, in {packs} packs of {all}; "
        )?;
        write!(f, "new: {new}")
    }
}

/// The most chunks of one `have?`.
pub const HAVE_CHUNKS_MAX: usize = 8192;
/// Bytes of one chunk in a `have?`: its id, and its length as a big-endian number.
const HAVE_ENTRY_BYTES: usize = Digest::BINARY_BYTES + 4;
/// The most bytes of a `have?`.
pub const HAVE_BYTES_MAX: usize = HAVE_CHUNKS_MAX * HAVE_ENTRY_BYTES;

/// The body of a `have?`.
#[must_use]
pub fn encode_have(chunks: &[ChunkRef]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(chunks.len() * HAVE_ENTRY_BYTES);
    for chunk in chunks {
        bytes.extend_from_slice(&chunk.id.0.to_binary());
        bytes.extend_from_slice(&chunk.length.to_be_bytes());
    }
    bytes
}

/// Reads the body of a `have?`; none if it is malformed.
#[must_use]
pub fn decode_have(bytes: &[u8]) -> Option<Vec<ChunkRef>> {
    let entries = bytes.chunks_exact(HAVE_ENTRY_BYTES);
    if !entries.remainder().is_empty() || bytes.len() > HAVE_BYTES_MAX {
        return None;
    }
    entries
        .map(|entry| {
            let (id, length) = entry.split_at(Digest::BINARY_BYTES);
            let id = ChunkId(Digest::from_binary(id).ok()?);
            Some(ChunkRef {
                id,
                length: u32::from_be_bytes(length.try_into().ok()?),
            })
        })
        .collect()
}

/// The answer to a `have?`: the chunks that are to be sent.
#[must_use]
pub fn encode_missing(ids: &[ChunkId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0.to_binary()).collect()
}

/// Reads the answer to a `have?`; none if it is malformed.
#[must_use]
pub fn decode_missing(bytes: &[u8]) -> Option<Vec<ChunkId>> {
    let ids = bytes.chunks_exact(Digest::BINARY_BYTES);
    if !ids.remainder().is_empty() {
        return None;
    }
    ids.map(|id| Digest::from_binary(id).ok().map(ChunkId))
        .collect()
}
