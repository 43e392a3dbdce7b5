//! Buffers for what is read from disk, used again and again.
//!
//! A fresh one would be mapped, faulted in and zeroed for each piece, which costs as much as
//! sealing its bytes; one that was used a moment ago lies in the processor's cache.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::io::{ReadWriteFlags, preadv2};

/// Buffers that nobody uses. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces(Arc<Mutex<Vec<Box<[u8]>>>>);

/// A buffer in use; it goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
    pieces: Pieces,
}

impl Pieces {
    /// A buffer for `length` bytes, at most [`PIECE_BYTES`], with whatever is in it.
    pub(super) fn take(&self, length: usize) -> Buffer {
        debug_assert!(length <= PIECE_BYTES, "a piece is no longer than that");
        let pooled = (length > SMALL_BYTES).then(|| self.idle().pop()).flatten();
        let bytes = pooled.unwrap_or_else(|| {
            let length = if length > SMALL_BYTES {
                PIECE_BYTES
            } else {
                length
            };
            vec![0; length].into()
        });
        Buffer {
            bytes,
            length,
            pieces: self.clone(),
        }
    }

    /// The bytes of `file` from `from` on, `length` of them or fewer, if the system has them in
    /// memory. Does not wait for the disk.
    pub(super) fn at_hand(&self, file: &File, from: u64, length: usize) -> Option<Bytes> {
        let mut buffer = self.take(length);
        let mut slices = [IoSliceMut::new(buffer.space())];
        // Whatever goes wrong, and if it is only that this file system cannot say what it has, goes
        // wrong again where the disk may be waited for.
        let got = preadv2(file, &mut slices, from, ReadWriteFlags::NOWAIT).ok()?;
        (got > 0).then(|| buffer.freeze(got))
    }

    /// The `length` bytes of `file` from `from` on. Touches the disk.
    ///
    /// # Errors
    ///
    /// Fails as the disk fails, or if the file is shorter.
    pub(super) fn read(&self, file: &File, from: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = self.take(length);
        file.read_exact_at(buffer.space(), from)?;
        Ok(buffer.freeze(length))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Box<[u8]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// What is to be filled.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// The first `length` bytes, without copying them.
    pub(super) fn freeze(mut self, length: usize) -> Bytes {
        self.length = self.length.min(length);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.len() == PIECE_BYTES {
            let mut idle = self.pieces.idle();
            if idle.len() < IDLE_MAX {
                idle.push(bytes);
            }
        }
    }
}

/// Bytes that are read from disk at a time: enough that a system call costs little beside the copy,
/// little enough that they are still in the processor's cache when they are sealed, and that a
/// thousand readers fit into memory. With 256 KiB, 4 MiB from disk cost a tenth more.
pub(super) const PIECE_BYTES: usize = 128 << 10;
/// Less than this is not worth a whole buffer.
const SMALL_BYTES: usize = 32 << 10;
/// 8 MiB that wait for readers.
const IDLE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_reader_has_gone_and_few_are_kept() {
        let pieces = Pieces::default();
        let mut buffer = pieces.take(SMALL_BYTES + 1);
        buffer.space().fill(7);
        let address = buffer.space().as_ptr();
        let whole = buffer.freeze(3);
        let part = whole.slice(1..);
        assert_eq!(&whole[..], [7; 3]);
        drop(whole);
        assert!(pieces.idle().is_empty());
        drop(part);
        assert_eq!(pieces.take(PIECE_BYTES).space().as_ptr(), address);
        let many: Vec<_> = (0..IDLE_MAX + 1)
            .map(|_| pieces.take(PIECE_BYTES))
            .collect();
        drop(many);
        assert_eq!(pieces.idle().len(), IDLE_MAX);
        drop(pieces.take(SMALL_BYTES));
        assert_eq!(pieces.idle().len(), IDLE_MAX);
    }
}
