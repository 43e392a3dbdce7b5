//! Names of filesets and numbers of revisions.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The name of a fileset: 1 to 64 of `a–z`, `0–9`, `.`, `_` and `-`, beginning with a letter or digit.
///
/// It stands in URLs, file names and terminals, so it can hold nothing that any of them would read
/// in a way of its own.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FilesetName(String);

impl FilesetName {
    /// The most bytes that a name may have.
    pub const BYTES_MAX: usize = 64;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FilesetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FilesetName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (1..=Self::BYTES_MAX).contains(&text.len())
            && text.bytes().next().is_some_and(plain)
            && text
                .bytes()
                .all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseNameError {
                got: text.to_owned(),
            })
        }
    }
}

/// The number of a revision within its fileset: 1 for the first, rising by one, or by more after the
/// origin was restored from a backup.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RevisionNumber(pub u64);

impl fmt::Display for RevisionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no fileset name.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error(
    "not a fileset name: {got:?}; want 1 to 64 of a-z 0-9 . _ - beginning with a letter or digit"
)]
pub struct ParseNameError {
    got: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_nothing_that_means_something_elsewhere() {
        for good in ["a", "office-2026.4", "0_1", &"x".repeat(64)] {
            assert_eq!(
                good.parse::<FilesetName>().map(|name| name.to_string()),
                Ok(good.to_owned())
            );
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "A",
            "a/b",
            "a b",
            "a@1",
            "ä",
            &"x".repeat(65),
        ] {
            assert!(bad.parse::<FilesetName>().is_err(), "{bad:?} was taken");
        }
    }
}
