//! The index: what one revision consists of, a record for each path in byte order.
//!
//! It is a sequence of deterministic CBOR maps (RFC 8742), without any global offset, so that it
//! chunks well itself: a change of one file changes one record. The first record tells the format;
//! a file with very many chunks goes on in records of its own, so that each record stays small.

mod read;
mod record;
mod root;
mod write;

pub use read::{IndexError, IndexReader};
pub use record::{CasePolicy, Entry, Head, Kind, Record, RecordError, ReservedKey};
pub use root::{INDEX_CHUNKS_MAX, IndexAssembly, IndexRoot, ROOT_BYTES_MAX, RootError};
pub use write::IndexWriter;

/// The most bytes of one record: 1 MiB.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// The most chunks that one record lists; a longer file goes on in the next record.
pub const RECORD_CHUNKS_MAX: usize = 16_384;
/// The most bytes of a symbolic link's target: Linux's `PATH_MAX` less the closing NUL.
pub const LINK_BYTES_MAX: usize = 4095;
/// The most bytes of a value under a key that need not be understood.
pub const EXTRA_BYTES_MAX: usize = 4096;
/// The most such keys in one record.
pub const EXTRAS_MAX: usize = 16;

// A record with every field at its longest must itself be allowed.
const _: () = assert!(
    RECORD_CHUNKS_MAX * 41 + 2 * 4096 + EXTRAS_MAX * (EXTRA_BYTES_MAX + 12) + 256
        <= RECORD_BYTES_MAX
);
