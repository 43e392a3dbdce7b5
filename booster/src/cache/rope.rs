//! Bytes in pieces: what is held in memory of a pack or a small object.

use bytes::Bytes;

/// Some bytes in one or more pieces, in order and without gaps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rope {
    pieces: Vec<Bytes>,
    /// Where each piece ends.
    ends: Vec<u64>,
}

impl Rope {
    /// Adds a piece at the end; an empty one adds nothing.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.ends.push(self.length() + piece.len() as u64);
            self.pieces.push(piece);
        }
    }

    /// Bytes in all.
    pub(crate) fn length(&self) -> u64 {
        self.ends.last().copied().unwrap_or_default()
    }

    /// The bytes from `from`, as far as they lie in one piece, but none from `end` on.
    /// None if there are none.
    pub(crate) fn piece(&self, from: u64, end: u64) -> Option<Bytes> {
        let at = self.ends.partition_point(|&piece_end| piece_end <= from);
        let piece = self.pieces.get(at)?;
        let start = self.ends[at] - piece.len() as u64;
        let until = end.min(self.ends[at]);
        (from < until).then(|| piece.slice((from - start) as usize..(until - start) as usize))
    }

    /// All of it as one piece; copies only if there are several.
    pub(crate) fn to_bytes(&self) -> Bytes {
        match &self.pieces[..] {
            [] => Bytes::new(),
            [whole] => whole.clone(),
            pieces => pieces.concat().into(),
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
}
