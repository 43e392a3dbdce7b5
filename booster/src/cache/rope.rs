//! Bytes in pieces: what is held in memory of a pack or a small object.

use std::collections::VecDeque;

use bytes::Bytes;

/// Some bytes in one or more pieces, in order and without gaps. The first of them may have been let
/// go of; the others keep their places.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rope {
    pieces: VecDeque<Bytes>,
    /// Where each piece ends.
    ends: VecDeque<u64>,
    /// Where the first piece that is still held begins.
    start: u64,
}

impl Rope {
    /// Adds a piece at the end; an empty one adds nothing.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.ends.push_back(self.length() + piece.len() as u64);
            self.pieces.push_back(piece);
        }
    }

    /// Bytes in all, those included that have been let go of.
    pub(crate) fn length(&self) -> u64 {
        self.ends.back().copied().unwrap_or(self.start)
    }

    /// The first byte that is still held.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Lets go of the first pieces, as long as `bytes` of the last ones stay.
    pub(crate) fn let_go(&mut self, bytes: u64) {
        while let Some(&end) = self.ends.front()
            && self.length() - end >= bytes
        {
            self.ends.pop_front();
            self.pieces.pop_front();
            self.start = end;
        }
    }

    /// The bytes from `from`, as far as they lie in one piece, but none from `end` on.
    /// None if there are none, or if they have been let go of.
    pub(crate) fn piece(&self, from: u64, end: u64) -> Option<Bytes> {
        if from < self.start {
            return None;
        }
        let at = self.ends.partition_point(|&piece_end| piece_end <= from);
        let piece = self.pieces.get(at)?;
        let start = self.ends[at] - piece.len() as u64;
        let until = end.min(self.ends[at]);
        (from < until).then(|| piece.slice((from - start) as usize..(until - start) as usize))
    }

    /// All that is held as one piece; copies only if there are several.
    pub(crate) fn to_bytes(&self) -> Bytes {
        match (self.pieces.front(), self.pieces.len()) {
            (None, _) => Bytes::new(),
            (Some(whole), 1) => whole.clone(),
            (Some(_), _) => {
                let mut all = Vec::with_capacity((self.length() - self.start) as usize);
                self.pieces
                    .iter()
                    .for_each(|piece| all.extend_from_slice(piece));
                all.into()
            }
        }
    }
}

impl From<Bytes> for Rope {
    fn from(piece: Bytes) -> Self {
        let mut rope = Self::default();
        rope.push(piece);
        rope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: u64, end: u64, expected: &str) {
        let mut rope = Rope::default();
        for piece in ["abc", "", "d", "efg"] {
            rope.push(Bytes::from_static(piece.as_bytes()));
        }
        let mut got = Vec::new();
        let mut at = from;
        while let Some(piece) = rope.piece(at, end) {
            at += piece.len() as u64;
            got.push(String::from_utf8(piece.to_vec()).unwrap());
        }
        assert_eq!(got.join("|"), expected);
    }

    #[test]
    fn any_part_comes_piece_by_piece() {
        check(0, 7, "abc|d|efg");
        check(0, 100, "abc|d|efg");
        check(1, 3, "bc");
        check(2, 5, "c|d|e");
        check(3, 4, "d");
        check(7, 9, "");
        check(5, 5, "");
    }

    #[test]
    fn what_was_let_go_of_is_not_there_and_the_rest_keeps_its_place() {
        let mut rope = Rope::default();
        for piece in ["abc", "d", "efg"] {
            rope.push(Bytes::from_static(piece.as_bytes()));
        }
        for (bytes, start) in [(8, 0), (5, 0), (4, 3), (4, 3), (1, 4), (0, 7)] {
            rope.let_go(bytes);
            assert_eq!((rope.start(), rope.length()), (start, 7), "{bytes}");
            assert_eq!(rope.piece(start.saturating_sub(1), 7).is_some(), start == 0);
            assert_eq!(rope.piece(start, 7).is_some(), start < 7);
            let held = &b"abcdefg"[start as usize..];
            assert_eq!(rope.to_bytes(), held);
        }
        rope.push(Bytes::from_static(b"h"));
        assert_eq!(rope.piece(7, 9).as_deref(), Some(&b"h"[..]));
    }
}
