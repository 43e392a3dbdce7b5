//! What the bytes are: names for them, how they are cut, framed, packed, listed, signed and kept.
//!
//! This room reads no clock, opens no socket and knows nothing of async: time and randomness are
//! arguments. Everything that comes from outside is bounded before it is read and verified before
//! it has a type: a [`Chunk`], a [`frame::Frame`] or a [`statement::Statement`] can only be made
//! by verifying. The formats, byte for byte, and their limits are written in `docs/formats.md`.

mod cbor;
mod chunk;
pub mod chunker;
mod digest;
pub mod durable;
pub mod frame;
pub mod index;
pub mod locator;
pub mod marks;
mod name;
pub mod pack;
mod path;
pub mod plan;
mod roster;
pub mod statement;

pub use chunk::{Chunk, ChunkRef, ChunkRun, Mismatch};
pub use digest::{ChunkId, Digest, Hasher, PackId, ParseDigestError};
pub use name::{FilesetName, ParseNameError, RevisionNumber};
pub use path::{EntryPath, PathError};
pub use roster::{Roster, RosterEntry, RosterProof, RosterTree};
