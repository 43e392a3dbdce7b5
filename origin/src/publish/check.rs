//! Holding packs against their headers, down to the last chunk.
//!
//! Whoever publishes says which chunks a frame holds. That the frame is the one of the header says
//! nothing of that: a chunk that is another one would be found by every device that wants it, after
//! it has crossed the line.

use content::Chunk;
use content::frame::{Frame, FrameError, FrameInfo};
use content::pack::{HeaderError, PackFile, PackHeader, ReadPackError};
use thiserror::Error;

/// Why a body is not a pack.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PackFault {
    /// A frame is not what the header says.
    #[error("frame {frame} is not what its header says")]
    Frame {
        /// Which.
        frame: usize,
        /// How.
        source: FrameError,
    },
    /// The header is none.
    #[error("it has no header that can be used")]
    Header(#[from] HeaderError),
    /// The body has another length than its header says.
    #[error("want {wanted} bytes, got {got}")]
    Length {
        /// By the header.
        wanted: u32,
        /// By the body.
        got: usize,
    },
}

/// Checks a whole pack that somebody sent; its header, if all of it is what that says.
///
/// # Errors
///
/// Names the first thing that is not.
pub(super) fn bytes(bytes: &[u8]) -> Result<PackHeader, PackFault> {
    let length = PackHeader::length(bytes)?
        .unwrap_or(bytes.len())
        .min(bytes.len());
    let header = PackHeader::parse(&bytes[..length])?;
    if bytes.len() != header.total_bytes() as usize {
        return Err(PackFault::Length {
            wanted: header.total_bytes(),
            got: bytes.len(),
        });
    }
    let mut plain = Vec::new();
    for (frame, info) in header.frames().iter().enumerate() {
        let range = header.frame_range(frame);
        let stored = &bytes[range.start as usize..range.end as usize];
        Frame::verify(info, stored)
            .and_then(|frame| frame.unpack(&mut plain))
            .and_then(|()| chunks(&header, info, &plain))
            .map_err(|source| PackFault::Frame { frame, source })?;
    }
    Ok(header)
}

/// Checks a whole pack on the disk.
///
/// # Errors
///
/// Names the first frame that is not what the header says.
pub(crate) fn file(pack: &PackFile) -> Result<(), ReadPackError> {
    let header = pack.header();
    let mut plain = Vec::new();
    for (frame, info) in header.frames().iter().enumerate() {
        pack.unpack(frame, &mut plain)?;
        chunks(header, info, &plain).map_err(|source| ReadPackError::Frame { frame, source })?;
    }
    Ok(())
}

/// Checks the chunks of the frame `info`, which unpacked to `plain`.
fn chunks(header: &PackHeader, info: &FrameInfo, mut plain: &[u8]) -> Result<(), FrameError> {
    let first = info.first_chunk as usize;
    for chunk in &header.chunks()[first..first + info.chunks as usize] {
        // A frame unpacks to just as many bytes as its chunks have.
        let (bytes, rest) = plain.split_at(chunk.length as usize);
        Chunk::verify(bytes, chunk.id)?;
        plain = rest;
    }
    Ok(())
}
