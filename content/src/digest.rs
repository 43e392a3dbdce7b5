//! Names for bytes: SHA-256 digests, with one text form and one binary form each.

use std::fmt;
use std::hash::{Hash, Hasher as StdHasher};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The SHA-256 of some bytes (FIPS 180-4).
///
/// Text form: `sha256:` and 64 lower-case hexadecimal digits, nothing else. Binary form: one
/// algorithm byte ([`Digest::SHA256`]) and 32 bytes, so that another algorithm can be added.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The algorithm byte of SHA-256, its code in the multihash table.
    pub const SHA256: u8 = 0x12;
    /// Length of the binary form in bytes.
    pub const BINARY_BYTES: usize = 33;

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest whose 32 bytes are known already.
    #[must_use]
    pub fn from_raw(raw: [u8; 32]) -> Self {
        Self(raw)
    }

    /// The 32 bytes, without the algorithm byte.
    #[must_use]
    pub fn as_raw(&self) -> &[u8; 32] {
        &self.0
    }

    /// The binary form.
    #[must_use]
    pub fn to_binary(self) -> [u8; Self::BINARY_BYTES] {
        let mut binary = [Self::SHA256; Self::BINARY_BYTES];
        binary[1..].copy_from_slice(&self.0);
        binary
    }

    /// Reads the binary form.
    ///
    /// # Errors
    ///
    /// Fails if `binary` is not 33 bytes long or names an algorithm other than SHA-256.
    pub fn from_binary(binary: &[u8]) -> Result<Self, ParseDigestError> {
        match binary.split_first() {
            Some((&Self::SHA256, raw)) => raw
                .try_into()
                .map(Self)
                .map_err(|_| ParseDigestError::Length { got: binary.len() }),
            Some((&algorithm, _)) => Err(ParseDigestError::Algorithm { algorithm }),
            None => Err(ParseDigestError::Length { got: 0 }),
        }
    }

    /// The 64 hexadecimal digits, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        self.hex_digits().iter().copied().map(char::from).collect()
    }

    /// The same as ASCII, for those who need no string.
    #[must_use]
    pub fn hex_digits(&self) -> [u8; 64] {
        let mut digits = [0; 64];
        for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(self.0) {
            *pair = [hex_digit(byte >> 4), hex_digit(byte & 15)];
        }
        digits
    }

    /// Reads 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    ///
    /// Fails on anything else.
    pub fn from_hex(text: &str) -> Result<Self, ParseDigestError> {
        let digits = text.as_bytes();
        let digits: &[u8; 64] = digits
            .try_into()
            .map_err(|_| ParseDigestError::Text { got: digits.len() })?;
        // A path with a digest is read with every request: with no branch and no table, many digits
        // are looked at at a time, which takes a tenth of the instructions.
        let (mut nibbles, mut any_bad) = ([0; 64], 0);
        for (nibble, &digit) in nibbles.iter_mut().zip(digits) {
            let (number, letter) = (digit.wrapping_sub(b'0'), digit.wrapping_sub(b'a'));
            any_bad |= u8::from(number > 9) & u8::from(letter > 5);
            *nibble = if digit < b'a' {
                number
            } else {
                letter.wrapping_add(10)
            };
        }
        if any_bad != 0 {
            let is_bad = |digit: &&u8| !matches!(digit, b'0'..=b'9' | b'a'..=b'f');
            let bad = digits.iter().find(is_bad);
            let found = char::from(bad.copied().unwrap_or_default());
            return Err(ParseDigestError::Digit { found });
        }
        let mut raw = [0; 32];
        for (byte, pair) in raw.iter_mut().zip(nibbles.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(raw))
    }
}

/// Half of it: all bits of a digest are as good as each other, and tables are keyed by many of them.
impl Hash for Digest {
    fn hash<H: StdHasher>(&self, state: &mut H) {
        state.write(&self.0[..16]);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Twelve digits tell digests apart for a person; the whole drowns a log line.
        write!(f, "sha256:{}…", &self.hex()[..12])
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text
            .strip_prefix("sha256:")
            .ok_or(ParseDigestError::Text { got: text.len() })?;
        Self::from_hex(digits)
    }
}

/// Hashes bytes that arrive in pieces.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes in the next `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken in.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// Names a chunk: the digest of its plain bytes.
    ChunkId
}
id! {
    /// Names a pack: the digest of its header, which in turn names each frame.
    PackId
}

/// Why a text or some bytes are not a digest.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseDigestError {
    /// The algorithm byte is not one that we know.
    #[error("not a digest: algorithm {algorithm:#04x} is unknown, want 0x12 (SHA-256)")]
    Algorithm {
        /// The byte found.
        algorithm: u8,
    },
    /// A character that is no lower-case hexadecimal digit.
    #[error("not a digest: {found:?} is not a lower-case hexadecimal digit")]
    Digit {
        /// The character found.
        found: char,
    },
    /// The binary form has the wrong length.
    #[error("not a digest: want 33 bytes, got {got}")]
    Length {
        /// Bytes found.
        got: usize,
    },
    /// The text form has the wrong shape.
    #[error("not a digest: want sha256: and 64 hexadecimal digits, got {got} bytes")]
    Text {
        /// Bytes found.
        got: usize,
    },
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 {
        b'0' + nibble
    } else {
        b'a' - 10 + nibble
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let got = match text.parse::<Digest>() {
            Ok(digest) => format!("{digest}"),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&got);
    }

    #[test]
    fn a_text_form_is_taken_only_whole_and_in_lower_case() {
        let good = format!("sha256:{}", "0123456789abcdef".repeat(4));
        check(
            &good,
            expect!["sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"],
        );
        check(
            "",
            expect!["not a digest: want sha256: and 64 hexadecimal digits, got 0 bytes"],
        );
        check(
            &good.to_uppercase(),
            expect!["not a digest: want sha256: and 64 hexadecimal digits, got 71 bytes"],
        );
        check(
            &good.replace('f', "F"),
            expect!["not a digest: 'F' is not a lower-case hexadecimal digit"],
        );
        check(
            &good[..70],
            expect!["not a digest: want sha256: and 64 hexadecimal digits, got 63 bytes"],
        );
    }

    #[test]
    fn every_digit_and_nothing_else_is_one() {
        for byte in 0..=u8::MAX {
            let digit = char::from(byte);
            let zeros = "0".repeat(64 - digit.len_utf8());
            let good = matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            for text in [format!("{digit}{zeros}"), format!("{zeros}{digit}")] {
                let read = Digest::from_hex(&text);
                assert_eq!(read.is_ok(), good, "{text}");
                assert!(read.is_err() || read.unwrap().hex() == text, "{text}");
            }
        }
    }

    #[test]
    fn the_digest_is_sha_256() {
        // The value of FIPS 180-4's example for the message "abc".
        expect!["sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]
            .assert_eq(&Digest::of(b"abc").to_string());
    }

    #[test]
    fn a_binary_form_comes_back() {
        let digest = Digest::of(b"abc");
        assert_eq!(Digest::from_binary(&digest.to_binary()), Ok(digest));
        assert!(Digest::from_binary(&[0x12; 32]).is_err());
        assert!(Digest::from_binary(&[0x13; 33]).is_err());
        assert!(Digest::from_binary(&[]).is_err());
    }
}
