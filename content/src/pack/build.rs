//! Making a pack out of frames.

use super::header::encode;
use super::{PACK_BYTES_TARGET, PACK_CHUNKS_MAX, PACK_FRAMES_MAX, PackHeader};
use crate::chunk::ChunkRef;
use crate::frame::{FrameInfo, PackedFrame};

/// Gathers frames until they make a pack.
#[derive(Debug, Default)]
pub struct PackBuilder {
    chunks: Vec<ChunkRef>,
    frames: Vec<FrameInfo>,
    stored: Vec<Vec<u8>>,
    stored_bytes: usize,
}

impl PackBuilder {
    /// Whether `frame` may still go into this pack.
    #[must_use]
    pub fn fits(&self, frame: &PackedFrame) -> bool {
        self.stored_bytes < PACK_BYTES_TARGET
            && self.frames.len() < PACK_FRAMES_MAX
            && self.chunks.len() + frame.chunks.len() <= PACK_CHUNKS_MAX
    }

    /// Whether it holds nothing yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Adds a frame, for which [`PackBuilder::fits`] must have said yes.
    pub fn push(&mut self, frame: PackedFrame) {
        debug_assert!(self.fits(&frame));
        self.frames.push(FrameInfo {
            codec: frame.codec,
            digest: frame.digest,
            stored_bytes: frame.stored.len() as u32,
            plain_bytes: frame.plain_bytes,
            first_chunk: self.chunks.len() as u32,
            chunks: frame.chunks.len() as u32,
            offset: self.stored_bytes as u32,
        });
        self.chunks.extend(
            frame
                .chunks
                .iter()
                .map(|&(id, length)| ChunkRef { id, length }),
        );
        self.stored_bytes += frame.stored.len();
        self.stored.push(frame.stored);
    }

    /// Closes the pack; none if it holds nothing.
    #[must_use]
    pub fn finish(self) -> Option<BuiltPack> {
        if self.is_empty() {
            return None;
        }
        let mut bytes = encode(&self.frames, &self.chunks);
        let header = PackHeader::parse(&bytes).expect("a header that we built keeps the format");
        bytes.reserve_exact(self.stored_bytes);
        for stored in &self.stored {
            bytes.extend_from_slice(stored);
        }
        Some(BuiltPack { header, bytes })
    }
}

/// A pack that we made.
#[derive(Clone, Debug)]
pub struct BuiltPack {
    /// Its header.
    pub header: PackHeader,
    /// The whole of it.
    pub bytes: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::{HeaderError, PACK_HEADER_BYTES_MAX};
    use super::*;
    use crate::chunk::Chunk;
    use crate::digest::{ChunkId, Digest, PackId};
    use crate::frame::{Frame, PlainFrame};

    fn pack() -> BuiltPack {
        let mut builder = PackBuilder::default();
        for parts in [&[&b"bread"[..], b"butter"][..], &[b"jam"]] {
            let mut plain = PlainFrame::default();
            for part in parts {
                plain.push(Chunk::verify(part, ChunkId(Digest::of(part))).unwrap());
            }
            builder.push(plain.pack(3).unwrap());
        }
        builder.finish().unwrap()
    }

    /// The bytes are a promise to every cache in the field.
    #[test]
    fn the_bytes_of_a_pack_do_not_drift() {
        let pack = pack();
        expect!["cd2cb186ed265264af9af2c00ca788bc4fe5064a15d19161d09be5c245957745"]
            .assert_eq(&Digest::of(&pack.bytes).hex());
        expect!["4c41524450414b01000000d9000000e70000000200000003"].assert_eq(
            &pack.bytes[..24]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>(),
        );
        expect!["sha256:eeb9e4756ef09ff768880a8a779e49c01780cb9f603685bd8416c5d1bdbc2f8a"]
            .assert_eq(&pack.header.id().to_string());
    }

    #[test]
    fn every_chunk_is_found_in_its_frame() {
        let BuiltPack { header, bytes } = pack();
        let mut found = Vec::new();
        for ordinal in 0..header.chunks().len() as u32 {
            let (frame, start) = header.locate(ordinal).unwrap();
            let range = header.frame_range(frame);
            let stored = &bytes[range.start as usize..range.end as usize];
            let mut plain = Vec::new();
            Frame::verify(&header.frames()[frame], stored)
                .unwrap()
                .unpack(&mut plain)
                .unwrap();
            let chunk = header.chunks()[ordinal as usize];
            let bytes = &plain[start..start + chunk.length as usize];
            found.push(Chunk::verify(bytes, chunk.id).unwrap().bytes().to_vec());
        }
        assert_eq!(found, [&b"bread"[..], b"butter", b"jam"]);
        assert_eq!(header.locate(3), None);
    }

    fn check(change: impl FnOnce(&mut Vec<u8>), expected: Expect) {
        let pack = pack();
        let mut bytes = pack.bytes[..pack.header.header_bytes() as usize].to_vec();
        change(&mut bytes);
        let error = PackHeader::verify(&bytes, pack.header.id()).unwrap_err();
        let named = match error {
            HeaderError::Id { .. } => "another pack's header".to_owned(),
            HeaderError::Format { .. } | HeaderError::Length { .. } => error.to_string(),
        };
        expected.assert_eq(&named);
    }

    #[test]
    fn a_header_that_breaks_a_rule_is_refused_by_its_name() {
        check(
            |bytes| bytes[0] = b'X',
            expect!["pack header check failed: it does not begin like a pack"],
        );
        check(
            |bytes| bytes.truncate(20),
            expect!["pack header check failed: want 24 bytes, got 20"],
        );
        check(
            |bytes| bytes.truncate(100),
            expect!["pack header check failed: want 217 bytes, got 100"],
        );
        check(
            |bytes| bytes.push(0),
            expect!["pack header check failed: want 217 bytes, got 218"],
        );
        check(
            |bytes| bytes[8] = 1,
            expect!["pack header check failed: its length is not that of its tables"],
        );
        check(
            |bytes| bytes[12] = 0xff,
            expect!["pack header check failed: the pack is over 8 MiB"],
        );
        check(
            |bytes| bytes[15] += 1,
            expect!["pack header check failed: the total length is not that of its parts"],
        );
        check(
            |bytes| bytes[16..20].fill(0xff),
            expect!["pack header check failed: its counts are out of bounds"],
        );
        check(
            |bytes| bytes[20..24].fill(0xff),
            expect!["pack header check failed: its counts are out of bounds"],
        );
        check(
            |bytes| bytes[24] = 9,
            expect!["pack header check failed: a frame's codec is unknown"],
        );
        check(
            |bytes| bytes[28] = 3,
            expect!["pack header check failed: a frame's length is out of bounds"],
        );
        check(
            |bytes| bytes[28] = 1,
            expect!["pack header check failed: a frame's length is out of bounds"],
        );
        check(
            |bytes| bytes[32] += 1,
            expect!["pack header check failed: a frame's length is out of bounds"],
        );
        check(
            |bytes| bytes[24 + 2 * 41] = 0,
            expect!["pack header check failed: a chunk's algorithm is unknown"],
        );
        check(|bytes| bytes[40] ^= 1, expect!["another pack's header"]);
    }

    /// cas.md 10: what a header counts is bounded before anything is set aside for it.
    #[test]
    fn b10_counts_of_billions_are_refused_by_the_first_24_bytes() {
        let pack = pack();
        for (frames, chunks) in [
            (u32::MAX, u32::MAX),
            (u32::MAX, 1),
            (1, u32::MAX),
            (1025, 1),
            (1, 8193),
        ] {
            // A header length that agrees with them, as far as 32 bits can hold it.
            let tables = frames
                .wrapping_mul(41)
                .wrapping_add(chunks.wrapping_mul(37));
            let length = tables.wrapping_add(24);
            let mut prelude = pack.bytes[..24].to_vec();
            prelude[8..12].copy_from_slice(&length.to_le_bytes());
            prelude[16..20].copy_from_slice(&frames.to_le_bytes());
            prelude[20..24].copy_from_slice(&chunks.to_le_bytes());
            let refused = PackHeader::length(&prelude).unwrap_err().to_string();
            assert!(refused.ends_with("counts are out of bounds"), "{refused}");
        }
    }

    #[test]
    fn the_largest_header_fits() {
        assert_eq!(PACK_HEADER_BYTES_MAX, 24 + 1024 * 41 + 8192 * 37);
        let other = PackId(Digest::of(b""));
        let pack = pack();
        let header = &pack.bytes[..pack.header.header_bytes() as usize];
        assert!(matches!(
            PackHeader::verify(header, other),
            Err(HeaderError::Id { .. })
        ));
    }
}
