//! Writing one file out of its chunks, with holes where there are only zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use content::{Chunk, ChunkId, Digest, Hasher};
use rustix::fs;

use crate::tree::{times, to_mode};

/// What a file is to become.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Bytes.
    pub(crate) size: u64,
    /// SHA-256 of the whole, where it has more than one chunk.
    pub(crate) digest: Option<Digest>,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Nanoseconds since 1970.
    pub(crate) mtime: i64,
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct FileWriter {
    file: File,
    shape: Shape,
    offset: u64,
    hasher: Option<Hasher>,
    /// The last chunk that was found to be all zeros: a long hole is made of one chunk over and
    /// over, which need not be looked at again.
    zeros: Option<(ChunkId, u32)>,
}

impl FileWriter {
    /// Starts to fill `file`, which is empty.
    pub(crate) fn new(file: File, shape: Shape) -> Self {
        let hasher = shape.digest.is_some().then(Hasher::default);
        Self {
            file,
            shape,
            offset: 0,
            hasher,
            zeros: None,
        }
    }

    /// Where the next chunk goes.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Adds the chunk that comes next.
    pub(crate) fn push(&mut self, chunk: Chunk<'_>) -> io::Result<()> {
        let bytes = chunk.bytes();
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        if bytes.iter().all(|&byte| byte == 0) {
            self.zeros = Some((chunk.id(), bytes.len() as u32));
        } else {
            self.file.write_all_at(bytes, self.offset)?;
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Adds the chunk called `id` without being given it, if it is known to be all zeros.
    pub(crate) fn push_known(&mut self, id: ChunkId) -> bool {
        let Some((_, length)) = self.zeros.filter(|(zeros, _)| *zeros == id) else {
            return false;
        };
        if let Some(hasher) = &mut self.hasher {
            let mut left = length as usize;
            while left > 0 {
                let piece = left.min(ZEROS.len());
                hasher.update(&ZEROS[..piece]);
                left -= piece;
            }
        }
        self.offset += u64::from(length);
        true
    }

    /// Ends the file: length, digest, time and mode.
    pub(crate) fn finish(self) -> io::Result<()> {
        let wanted = (self.shape.size, self.shape.digest);
        let got = (self.offset, self.hasher.map(Hasher::finish));
        if wanted != got {
            return Err(io::Error::other(
                "file check failed: its chunks are right, and together they are another file",
            ));
        }
        // Writes past a hole leave the length right, a hole at the end does not.
        self.file.set_len(self.shape.size)?;
        dress(&self.file, &self.shape)
    }
}

/// Gives a finished file its time and mode.
pub(crate) fn dress(file: &File, shape: &Shape) -> io::Result<()> {
    fs::futimens(file, &times(shape.mtime))?;
    Ok(fs::fchmod(file, to_mode(shape.mode))?)
}

static ZEROS: [u8; 4096] = [0; 4096];
