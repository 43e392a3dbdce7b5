//! Byte ranges (RFC 9110 §14): one range a request, which is all that a pack needs.

use std::ops::Range;

use thiserror::Error;

/// What part of a body is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ByteRange {
    /// These bytes.
    Part(Range<u64>),
    /// All of it: no range was asked for, or one that we may ignore.
    Whole,
}

impl ByteRange {
    /// Reads the value of a `Range` field against a body of `length` bytes.
    ///
    /// A field that is malformed, of another unit, or asks for several ranges is ignored, as the
    /// RFC allows: the whole body answers it.
    ///
    /// # Errors
    ///
    /// Fails if the range lies outside the body: 416.
    pub fn parse(field: Option<&str>, length: u64) -> Result<Self, RangeError> {
        let Some(spec) = field.and_then(|field| field.strip_prefix("bytes=")) else {
            return Ok(Self::Whole);
        };
        let Some((first, last)) = spec.trim().split_once('-') else {
            return Ok(Self::Whole);
        };
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            // A number beyond u64 is beyond every body.
            digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
        };
        let range = match (number(first), number(last)) {
            (Some(first), None) if last.is_empty() => first..length,
            (Some(first), Some(last)) if first <= last => first..length.min(last.saturating_add(1)),
            (None, Some(suffix)) if first.is_empty() => length - length.min(suffix)..length,
            (_, _) => return Ok(Self::Whole),
        };
        if range.start >= length || range.is_empty() {
            return Err(RangeError { length });
        }
        Ok(Self::Part(range))
    }
}

/// A range that lies outside the body.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("the range lies outside the {length} bytes that there are")]
pub struct RangeError {
    /// Bytes of the body.
    pub length: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(field: &str, expected: Result<Option<Range<u64>>, ()>) {
        let got = match ByteRange::parse(Some(field), 100) {
            Ok(ByteRange::Part(range)) => Ok(Some(range)),
            Ok(ByteRange::Whole) => Ok(None),
            Err(RangeError { length: 100 }) => Err(()),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(got, expected, "{field}");
    }

    #[test]
    fn single_ranges_are_taken_and_odd_ones_ignored() {
        check("bytes=0-0", Ok(Some(0..1)));
        check("bytes=10-", Ok(Some(10..100)));
        check("bytes=10-19", Ok(Some(10..20)));
        check("bytes=90-500", Ok(Some(90..100)));
        check("bytes=-5", Ok(Some(95..100)));
        check("bytes=-500", Ok(Some(0..100)));
        check("bytes=0-99999999999999999999999", Ok(Some(0..100)));
        for ignored in [
            "bytes=5-1",
            "bytes=0-1,4-5",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "lines=1-2",
            "",
        ] {
            check(ignored, Ok(None));
        }
        for outside in [
            "bytes=100-",
            "bytes=100-200",
            "bytes=-0",
            "bytes=99999999999999999999999-",
        ] {
            check(outside, Err(()));
        }
        assert_eq!(ByteRange::parse(None, 100), Ok(ByteRange::Whole));
    }
}
