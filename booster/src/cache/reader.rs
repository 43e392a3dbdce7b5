//! Reading a pack that is in memory, on disk, or on its way.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::ahead::Lead;
use super::fill::{FillError, Piece};
use super::pieces::PIECE_BYTES;
use super::store::StoredPack;
use super::{Origin, off_runtime};

/// Reads part of a pack, piece by piece. Only checked bytes come out of it.
#[derive(Debug)]
pub struct Reader {
    /// Fills of what comes next, held as long as this is read.
    _ahead: Option<Arc<Lead>>,
    origin: Origin,
    at: u64,
    end: u64,
}

/// Why reading broke off. The body that it was for must be broken off too, never ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The disk refused.
    #[error("cannot read the pack from disk")]
    Disk {
        /// Why; none if the work was cut off.
        source: Option<io::Error>,
    },
    /// The fill failed.
    #[error("cannot go on reading the pack")]
    Fill {
        /// Why.
        #[from]
        source: FillError,
    },
}

impl Reader {
    pub(super) fn new(origin: Origin, from: u64, end: u64, ahead: Option<Arc<Lead>>) -> Self {
        Self {
            _ahead: ahead,
            origin,
            at: from,
            end,
        }
    }

    /// Bytes that are still to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    /// All of it, if that is one piece and neither the disk nor a fill need be waited for.
    #[must_use]
    pub fn all_at_hand(&self) -> Option<Bytes> {
        let length = self.left();
        if length == 0 || length > PIECE_BYTES as u64 {
            return None;
        }
        let all = match &self.origin {
            Origin::Disk(pack) => pack.piece_at_hand(self.at, length as usize),
            Origin::Fill(_) => None,
            Origin::Memory(rope) => rope.piece(self.at, self.end),
        };
        all.filter(|all| all.len() as u64 == length)
    }

    /// The next piece, of at most 128 KiB; none at
    /// the end. Loses nothing if it is dropped before it is done.
    ///
    /// # Errors
    ///
    /// Fails if the fill fails, or the disk.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.left() == 0 {
            return Ok(None);
        }
        let (at, end) = (self.at, self.end);
        let piece = match &mut self.origin {
            Origin::Disk(pack) => read(Arc::clone(pack), at, end).await?,
            Origin::Fill(tail) => match tail.piece(at, end).await? {
                Piece::Here(piece) => piece,
                Piece::Stored(pack) => read(pack, at, end).await?,
            },
            Origin::Memory(rope) => rope
                .piece(at, end.min(at + PIECE_BYTES as u64))
                .ok_or(ReadError::Disk { source: None })?,
        };
        self.at += piece.len() as u64;
        Ok(Some(piece))
    }
}

async fn read(pack: Arc<StoredPack>, at: u64, end: u64) -> Result<Bytes, ReadError> {
    let length = (end - at).min(PIECE_BYTES as u64) as usize;
    if let Some(piece) = pack.piece_at_hand(at, length) {
        return Ok(piece);
    }
    match off_runtime(move || pack.piece(at, length)).await {
        Some(Ok(piece)) => Ok(piece),
        Some(Err(source)) => Err(ReadError::Disk {
            source: Some(source),
        }),
        None => Err(ReadError::Disk { source: None }),
    }
}
