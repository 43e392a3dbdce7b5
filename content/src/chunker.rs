//! Cutting bytes into chunks where their content says so (FastCDC, the 2020 variant).
//!
//! Cut points are part of the format: the crate is pinned exactly and golden vectors hold it.

use std::io::{self, Read};

use fastcdc::v2020::{self, Normalization};
use thiserror::Error;

/// How bytes are cut. A profile is named wherever its cuts are written down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// For the content of files: 16, 64 and 256 KiB (minimum, average, maximum).
    Content,
    /// For an index: 4, 16 and 64 KiB, since one changed record should cost one small chunk.
    Index,
}

impl Profile {
    /// The name that stands in documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Content => "fastcdc2020-16-64-256-n1",
            Self::Index => "fastcdc2020-4-16-64-n1",
        }
    }

    /// The profile called `name`.
    ///
    /// # Errors
    ///
    /// Fails if no profile has that name.
    pub fn from_name(name: &str) -> Result<Self, UnknownProfile> {
        [Self::Content, Self::Index]
            .into_iter()
            .find(|profile| profile.name() == name)
            .ok_or_else(|| UnknownProfile {
                name: name.to_owned(),
            })
    }

    /// Bytes of the smallest chunk that is cut before the end of the input.
    #[must_use]
    pub fn bytes_min(self) -> usize {
        match self {
            Self::Content => 16 << 10,
            Self::Index => 4 << 10,
        }
    }

    /// Bytes of a chunk on the average, as the cutter aims at it.
    #[must_use]
    pub fn bytes_average(self) -> usize {
        self.bytes_min() * 4
    }

    /// Bytes of the largest chunk.
    #[must_use]
    pub fn bytes_max(self) -> usize {
        self.bytes_min() * 16
    }
}

/// A profile that this release does not know.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("chunk profile {name:?} is not known")]
pub struct UnknownProfile {
    name: String,
}

/// Cuts what a reader gives into chunks, in memory bounded by a few chunks.
#[derive(Debug)]
pub struct Chunker<R> {
    reader: R,
    profile: Profile,
    masks: (u64, u64),
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    ended: bool,
}

impl<R: Read> Chunker<R> {
    /// Cuts the bytes of `reader` by `profile`.
    pub fn new(reader: R, profile: Profile) -> Self {
        Self::with_buffer(reader, profile, Vec::new())
    }

    /// The same, using memory of a chunker that has ended (see [`Chunker::into_buffer`]).
    pub fn with_buffer(reader: R, profile: Profile, mut buffer: Vec<u8>) -> Self {
        buffer.resize(profile.bytes_max() * BUFFER_CHUNKS, 0);
        let masks = v2020::select_masks(profile.bytes_average(), Normalization::Level1);
        Self {
            reader,
            profile,
            masks,
            buffer,
            start: 0,
            filled: 0,
            ended: false,
        }
    }

    /// The next chunk, or none at the end of the input.
    ///
    /// # Errors
    ///
    /// Fails as the reader fails.
    pub fn next_chunk(&mut self) -> io::Result<Option<&[u8]>> {
        if !self.ended && self.filled - self.start < self.profile.bytes_max() {
            self.refill()?;
        }
        let window = &self.buffer[self.start..self.filled];
        if window.is_empty() {
            return Ok(None);
        }
        let length = cut(window, self.profile, self.masks);
        let chunk = self.start..self.start + length;
        self.start = chunk.end;
        Ok(Some(&self.buffer[chunk]))
    }

    /// Gives back the memory, for the next file.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    fn refill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        while self.filled < self.buffer.len() {
            match self.reader.read(&mut self.buffer[self.filled..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The length of the first chunk of `window`, which holds a whole maximum chunk or the input's end.
fn cut(window: &[u8], profile: Profile, (mask_s, mask_l): (u64, u64)) -> usize {
    let (_, length) = v2020::cut(
        window,
        profile.bytes_min(),
        profile.bytes_average(),
        profile.bytes_max(),
        mask_s,
        mask_l,
        mask_s << 1,
        mask_l << 1,
    );
    length
}

/// How many of the largest chunks the buffer holds: enough that moving the rest to the front
/// costs little beside hashing it.
const BUFFER_CHUNKS: usize = 4;

/// Bytes that look random and are the same everywhere (a 64-bit LCG, Knuth's constants).
#[cfg(test)]
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::Digest;

    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let take = self.1.min(buffer.len()).min(self.0.len());
            buffer[..take].copy_from_slice(&self.0[..take]);
            self.0 = &self.0[take..];
            Ok(take)
        }
    }

    fn lengths(reader: impl Read, profile: Profile) -> Vec<usize> {
        let mut chunker = Chunker::new(reader, profile);
        let mut lengths = Vec::new();
        while let Some(chunk) = chunker.next_chunk().unwrap() {
            lengths.push(chunk.len());
        }
        lengths
    }

    fn check(input: &[u8], profile: Profile, expected: Expect) {
        let lengths = lengths(input, profile);
        assert_eq!(lengths.iter().sum::<usize>(), input.len());
        let digest = Digest::of(format!("{lengths:?}").as_bytes());
        let head = &lengths[..lengths.len().min(4)];
        expected.assert_eq(&format!(
            "{} chunks, first {head:?}, all {digest:?}",
            lengths.len()
        ));
    }

    /// The cut points are a promise to every index ever published.
    #[test]
    fn the_cut_points_do_not_drift() {
        let noise = noise(4 << 20, 1);
        check(
            &noise,
            Profile::Content,
            expect!["48 chunks, first [125811, 78145, 101666, 83949], all sha256:b38618f2b354…"],
        );
        check(
            &noise,
            Profile::Index,
            expect!["217 chunks, first [23527, 24615, 9854, 4430], all sha256:0deb1009de56…"],
        );
        check(
            &vec![0; 1 << 20],
            Profile::Content,
            expect!["4 chunks, first [262144, 262144, 262144, 262144], all sha256:3fbe0758ad5b…"],
        );
        check(
            &noise[..16 << 10],
            Profile::Content,
            expect!["1 chunks, first [16384], all sha256:f32052a16214…"],
        );
        check(
            &[],
            Profile::Content,
            expect!["0 chunks, first [], all sha256:4f53cda18c2b…"],
        );
    }

    #[test]
    fn how_the_reader_hands_out_its_bytes_changes_no_cut() {
        let noise = noise(1 << 20, 7);
        let whole = lengths(&noise[..], Profile::Content);
        for piece in [1009, 65_536, 300_000] {
            assert_eq!(lengths(Dribble(&noise, piece), Profile::Content), whole);
        }
    }

    #[test]
    fn an_insertion_moves_few_cuts() {
        let before = noise(2 << 20, 3);
        let mut after = before.clone();
        after.splice(1_000_000..1_000_000, *b"a few bytes more");
        let ids = |bytes: &[u8]| {
            let mut chunker = Chunker::new(bytes, Profile::Content);
            let mut ids = Vec::new();
            while let Some(chunk) = chunker.next_chunk().unwrap() {
                ids.push(Digest::of(chunk));
            }
            ids
        };
        let (before, after) = (ids(&before), ids(&after));
        let new = after.iter().filter(|id| !before.contains(id)).count();
        assert!(new <= 3, "{new} new chunks after one insertion");
    }
}
