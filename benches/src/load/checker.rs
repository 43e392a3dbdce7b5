//! Packs that come from a server, checked.

use std::mem::take;

use anyhow::{Context as _, ensure};
use content::pack::PackHeader;
use content::{Hasher, PackId};

/// Checks packs that come one after the other: their first frame, or all. Frames are hashed as they
/// come: whoever gathers them first pays for that when all the others want to hash, too.
pub(super) struct Checker {
    /// Of a header that has not come yet.
    buffer: Vec<u8>,
    /// The next frame of the pack whose header has come.
    frame: usize,
    /// Frames that were good.
    frames: u64,
    hasher: Hasher,
    /// Bytes of the next frame that have been hashed.
    hashed: usize,
    header: Option<PackHeader>,
    /// Packs that are still to come, the next one last.
    packs: Vec<PackId>,
    thorough: bool,
}

impl Checker {
    pub(super) fn new(packs: &[PackId], thorough: bool) -> Self {
        Self {
            buffer: Vec::new(),
            frame: 0,
            frames: 0,
            hasher: Hasher::default(),
            hashed: 0,
            header: None,
            packs: packs.iter().rev().copied().collect(),
            thorough,
        }
    }

    /// How many frames were good.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut bytes = bytes;
        while !bytes.is_empty() && !self.is_content() {
            bytes = match self.header.take() {
                Some(header) => self.take_frame(header, bytes)?,
                None => self.take_header(bytes)?,
            };
        }
        Ok(())
    }

    /// Takes what belongs to a header. Gives what is left.
    fn take_header<'a>(&mut self, bytes: &'a [u8]) -> anyhow::Result<&'a [u8]> {
        let had = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        let Some(length) = PackHeader::length(&self.buffer)? else {
            return Ok(&[]);
        };
        if self.buffer.len() < length {
            return Ok(&[]);
        }
        let id = self.packs.pop().context("more came than all packs")?;
        self.header = Some(PackHeader::verify(&self.buffer[..length], id)?);
        self.buffer.clear();
        self.frame = 0;
        Ok(&bytes[length - had..])
    }

    /// Takes what belongs to the next frame. Gives what is left.
    fn take_frame<'a>(&mut self, header: PackHeader, bytes: &'a [u8]) -> anyhow::Result<&'a [u8]> {
        let frame = header.frames().get(self.frame);
        let frame = frame.context("a pack without a frame")?;
        let wanted = frame.stored_bytes as usize - self.hashed;
        let (part, left) = bytes.split_at(wanted.min(bytes.len()));
        self.hasher.update(part);
        self.hashed += part.len();
        if part.len() == wanted {
            let got = take(&mut self.hasher).finish();
            ensure!(got == frame.digest, "a frame is not what its pack says");
            self.hashed = 0;
            self.frame += 1;
            self.frames += 1;
        }
        if self.frame < header.frames().len() {
            self.header = Some(header);
        }
        Ok(left)
    }

    /// Whether what still comes need not be looked at.
    fn is_content(&self) -> bool {
        !self.thorough && self.frames > 0
    }

    pub(super) fn finish(&self) -> anyhow::Result<()> {
        let between = self.header.is_none() && self.buffer.is_empty();
        ensure!(
            !self.thorough || (self.packs.is_empty() && between),
            "not all packs came whole"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use content::frame::PlainFrame;
    use content::pack::PackBuilder;
    use content::{Chunk, ChunkId, Digest};

    use super::*;

    /// Two packs of two frames, which come in pieces of `piece` bytes after `change`.
    fn check(thorough: bool, piece: usize, change: fn(&mut Vec<u8>), want: Result<u64, &str>) {
        let (mut ids, mut all) = (Vec::new(), Vec::new());
        for seed in 0..2 {
            let mut builder = PackBuilder::default();
            for part in 0..2 {
                let mut frame = PlainFrame::default();
                let bytes = [seed * 2 + part; 5000];
                let id = ChunkId(Digest::of(&bytes));
                frame.push(Chunk::verify(&bytes, id).unwrap());
                builder.push(frame.pack(1).unwrap());
            }
            let pack = builder.finish().unwrap();
            ids.push(pack.header.id());
            all.extend_from_slice(&pack.bytes);
        }
        change(&mut all);
        let mut checker = Checker::new(&ids, thorough);
        let taken = all.chunks(piece).try_for_each(|part| checker.take(part));
        let got = taken.and_then(|()| checker.finish());
        match (got, want) {
            (Ok(()), Ok(frames)) => assert_eq!(checker.frames(), frames),
            (Err(got), Err(want)) => assert!(format!("{got:#}").contains(want), "{got:#}"),
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }

    #[test]
    fn packs_are_checked_in_whatever_pieces_they_come() {
        for piece in [1, 7, 100, 4096, 1 << 20] {
            check(true, piece, |_| {}, Ok(4));
            check(false, piece, |_| {}, Ok(1));
            check(
                true,
                piece,
                |all| all.truncate(all.len() - 1),
                Err("not all"),
            );
            check(
                true,
                piece,
                |all| *all.last_mut().unwrap() ^= 1,
                Err("a frame is not"),
            );
            check(false, piece, |all| *all.last_mut().unwrap() ^= 1, Ok(1));
            check(true, piece, |all| all.push(0), Err("not all"));
        }
    }
}
