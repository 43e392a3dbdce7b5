//! Taking frames out of a stream of bytes, each verified as soon as it is whole.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::downloads::{Part, PartError};

/// Takes in the bytes of a pack from one place on.
#[derive(Debug)]
pub(crate) struct Receiver {
    part: Part,
    /// Where in the pack the first byte of `buffer` lies.
    position: u64,
    /// Where the bytes that were asked for end.
    end: u64,
    buffer: BytesMut,
    /// The frame that comes next, once the header is known.
    frame: usize,
}

impl Receiver {
    /// Expects the bytes from `start` to `end` of the pack of `part`. A `start` beyond the header
    /// must be the beginning of a frame.
    pub(crate) fn new(part: Part, start: u64, end: u64) -> Self {
        let frame = part.header().map_or(0, |header| {
            (0..header.frames().len())
                .find(|&frame| header.frame_range(frame).start >= start)
                .unwrap_or_else(|| header.frames().len())
        });
        Self {
            part,
            position: start,
            end,
            buffer: BytesMut::new(),
            frame,
        }
    }

    /// Takes the next bytes; keeps what is whole and right.
    pub(crate) fn push(&mut self, bytes: &Bytes) -> Result<(), ReceiveError> {
        let got = self.position + (self.buffer.len() + bytes.len()) as u64;
        if got > self.end {
            return Err(ReceiveError::TooLong);
        }
        self.buffer.extend_from_slice(bytes);
        loop {
            let header_bytes = u64::from(self.part.entry().header_bytes);
            let length = match self.part.header() {
                _ if self.position == 0 => header_bytes,
                Some(header) if self.frame < header.frames().len() => {
                    u64::from(header.frames()[self.frame].stored_bytes)
                }
                Some(_) | None => return Ok(()),
            };
            if (self.buffer.len() as u64) < length {
                return Ok(());
            }
            let whole = self.buffer.split_to(length as usize);
            if self.position == 0 {
                self.part.put_header(&whole)?;
            } else {
                self.part.put_frame(self.frame, &whole)?;
                self.frame += 1;
            }
            self.position += length;
        }
    }

    /// How many more bytes are expected.
    pub(crate) fn left(&self) -> u64 {
        self.end - self.position - self.buffer.len() as u64
    }

    /// The pack, with what has come of it.
    pub(crate) fn into_part(self) -> Part {
        self.part
    }
}

/// Why what came cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// It is not what it should be, or cannot be kept.
    #[error(transparent)]
    Part(#[from] PartError),
    /// The body ended too early.
    #[error("the body ended {missing} bytes too early")]
    Truncated {
        /// Bytes that are missing.
        missing: u64,
    },
    /// The body is longer than what was asked for.
    #[error("the body is longer than what was asked for")]
    TooLong,
}
