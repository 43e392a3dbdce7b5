//! A pack: an immutable file of frames under one header, whose digest is the pack's name.
//!
//! The pack is the unit of transfer, of cache and of eviction; the chunk is the unit of identity.
//! Whoever has the header can check each frame alone, so ranges verify and a broken transfer is
//! taken up at the last good frame. The layout is written in `docs/formats.md`.

mod build;
mod file;
mod header;

pub use build::{BuiltPack, PackBuilder};
pub use file::{PackDir, PackFile, ReadPackError};
pub use header::{HeaderError, PackHeader};

use crate::frame::FRAME_STORED_BYTES_MAX;

/// The most bytes of a pack, header included: 8 MiB. At 10 Mbit/s that is seven seconds, inside
/// the lock times of the stock caches that may stand in front of us.
pub const PACK_BYTES_MAX: usize = 8 << 20;
/// Stored bytes at which a pack is closed: 4 MiB.
pub const PACK_BYTES_TARGET: usize = 4 << 20;
/// The most chunks of a pack.
pub const PACK_CHUNKS_MAX: usize = 8192;
/// The most frames of a pack.
pub const PACK_FRAMES_MAX: usize = 1024;
/// The most bytes of a header: of a pack with as many frames and chunks as are allowed.
pub const PACK_HEADER_BYTES_MAX: usize =
    PRELUDE_BYTES + PACK_FRAMES_MAX * FRAME_ENTRY_BYTES + PACK_CHUNKS_MAX * CHUNK_ENTRY_BYTES;

/// Magic, version, header length, total length, frame count, chunk count.
const PRELUDE_BYTES: usize = 24;
/// Codec, chunk count, stored length, SHA-256.
const FRAME_ENTRY_BYTES: usize = 1 + 4 + 4 + 32;
/// Binary chunk id, length.
const CHUNK_ENTRY_BYTES: usize = 33 + 4;

// A pack that is one byte short of its target takes one more frame: it must still be allowed.
const _: () =
    assert!(PACK_BYTES_TARGET + FRAME_STORED_BYTES_MAX + PACK_HEADER_BYTES_MAX <= PACK_BYTES_MAX);
