//! What is missing: which chunks of which packs, and how best to ask for them.

use std::ops::Range;

use crate::locator::{Locator, Place};
use crate::pack::{PACK_CHUNKS_MAX, PackHeader};

/// The chunks that are needed from each pack of a locator.
#[derive(Debug)]
pub struct Needs {
    /// One bit a chunk, for the packs from which something is needed.
    packs: Vec<Option<Box<Bits>>>,
}

type Bits = [u64; PACK_CHUNKS_MAX / 64];

impl Needs {
    /// Nothing, of a locator with that many packs.
    #[must_use]
    pub fn nothing(packs: usize) -> Self {
        Self {
            packs: vec![None; packs],
        }
    }

    /// All that the locator's runs name.
    #[must_use]
    pub fn everything(locator: &Locator) -> Self {
        let mut needs = Self::nothing(locator.packs.len());
        locator.places().for_each(|place| needs.add(place));
        needs
    }

    /// Adds the chunk at `place`, which must be one of the locator's.
    pub fn add(&mut self, place: Place) {
        let bits = self.packs[place.pack as usize].get_or_insert_with(|| Box::new([0; _]));
        bits[place.ordinal as usize / 64] |= 1 << (place.ordinal % 64);
    }

    /// Whether the chunk at `place` is needed.
    #[must_use]
    pub fn contains(&self, place: Place) -> bool {
        self.packs[place.pack as usize]
            .as_ref()
            .is_some_and(|bits| bits[place.ordinal as usize / 64] >> (place.ordinal % 64) & 1 == 1)
    }

    /// How many chunks of pack `pack` are needed.
    #[must_use]
    pub fn count(&self, pack: u32) -> u32 {
        let bits = self.packs[pack as usize].as_ref();
        bits.map_or(0, |bits| bits.iter().map(|word| word.count_ones()).sum())
    }

    /// The packs from which something is needed, in the locator's order.
    pub fn packs(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.packs.len() as u32).filter(|&pack| self.packs[pack as usize].is_some())
    }

    /// The frames of pack `pack` that hold needed chunks.
    #[must_use]
    pub fn frames(&self, pack: u32, header: &PackHeader) -> Vec<usize> {
        let frames = header.frames().iter().enumerate();
        let needed = frames.filter(|(_, frame)| {
            let mut ordinals = frame.first_chunk..frame.first_chunk + frame.chunks;
            ordinals.any(|ordinal| self.contains(Place { pack, ordinal }))
        });
        needed.map(|(at, _)| at).collect()
    }
}

/// How to ask for the frames of one pack.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fetch {
    /// All of it: at least half is needed.
    Whole,
    /// These bytes of the pack, each by a request of its own.
    Ranges(Vec<Range<u64>>),
}

impl Fetch {
    /// How to ask for `frames` (ascending) of the pack with that `header`.
    #[must_use]
    pub fn of(header: &PackHeader, frames: &[usize]) -> Self {
        let needed: u64 = frames
            .iter()
            .map(|&frame| u64::from(header.frames()[frame].stored_bytes))
            .sum();
        if needed * 2 >= u64::from(header.total_bytes() - header.header_bytes()) {
            return Self::Whole;
        }
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for range in frames.iter().map(|&frame| header.frame_range(frame)) {
            match ranges.last_mut() {
                Some(last) if range.start - last.end <= GAP_BYTES_MAX => last.end = range.end,
                Some(_) | None => ranges.push(range),
            }
        }
        Self::Ranges(ranges)
    }
}

/// A gap up to this size is fetched along: a request of its own costs more than 256 KiB do.
const GAP_BYTES_MAX: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Chunk;
    use crate::chunker::noise;
    use crate::digest::{ChunkId, Digest};
    use crate::frame::PlainFrame;
    use crate::pack::PackBuilder;

    /// A pack of `frames` frames that hold 100 KiB each, in two chunks.
    fn header(frames: u64) -> PackHeader {
        let mut builder = PackBuilder::default();
        for seed in 0..frames {
            let mut plain = PlainFrame::default();
            for half in noise(100 << 10, seed + 1).chunks(50 << 10) {
                plain.push(Chunk::verify(half, ChunkId(Digest::of(half))).unwrap());
            }
            builder.push(plain.pack(1).unwrap());
        }
        builder.finish().unwrap().header
    }

    fn check(header: &PackHeader, chunks: &[u32], expected: &str) {
        let mut needs = Needs::nothing(1);
        chunks
            .iter()
            .for_each(|&ordinal| needs.add(Place { pack: 0, ordinal }));
        assert_eq!(needs.count(0) as usize, chunks.len());
        let frame_of = |range: &Range<u64>| {
            let base = u64::from(header.header_bytes());
            (
                (range.start - base) / (100 << 10),
                (range.end - base) / (100 << 10),
            )
        };
        let got = match Fetch::of(header, &needs.frames(0, header)) {
            Fetch::Whole => "whole".to_owned(),
            Fetch::Ranges(ranges) => {
                format!("{:?}", ranges.iter().map(frame_of).collect::<Vec<_>>())
            }
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn half_a_pack_is_fetched_whole_and_less_in_ranges() {
        let header = header(12);
        check(&header, &[0], "[(0, 1)]");
        check(&header, &[0, 1], "[(0, 1)]");
        check(&header, &[1, 3], "[(0, 2)]");
        check(&header, &[0, 6], "[(0, 4)]");
        check(&header, &[0, 8], "[(0, 1), (4, 5)]");
        check(&header, &[0, 2, 4, 6, 8, 10], "whole");
    }
}
