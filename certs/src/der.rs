//! As much DER (X.690) as revocation lists and certificate bags need, bounds-checked.
//!
//! A reader walks over bytes that it borrows: no allocation, no recursion, no length that
//! is believed before it has been compared with what is there.

use thiserror::Error;

/// Walks over consecutive DER elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// One element: its tag, its contents, and itself whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) contents: &'a [u8],
    pub(crate) raw: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element, whatever it is.
    pub(crate) fn any(&mut self) -> Result<Element<'a>, DerError> {
        let (&tag, after_tag) = self.rest.split_first().ok_or(DerError::Truncated)?;
        if tag & 0x1f == 0x1f {
            return Err(DerError::Form);
        }
        let (length, after_length) = read_length(after_tag)?;
        let (contents, rest) = after_length
            .split_at_checked(length)
            .ok_or(DerError::Truncated)?;
        let raw = &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        Ok(Element { tag, contents, raw })
    }

    /// The tag of the next element, if there is one.
    pub(crate) fn tag(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The contents of the next element, which must have `tag`.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<&'a [u8], DerError> {
        let element = self.any()?;
        if element.tag == tag {
            Ok(element.contents)
        } else {
            Err(DerError::Form)
        }
    }

    /// A reader over the contents of the next element, which must have `tag`.
    pub(crate) fn nested(&mut self, tag: u8) -> Result<Self, DerError> {
        self.expect(tag).map(Self::new)
    }

    /// The contents of the next element if it has `tag`.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, DerError> {
        if self.rest.first() == Some(&tag) {
            self.expect(tag).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Result<(), DerError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(DerError::Trailing)
        }
    }

    /// A UTCTime or GeneralizedTime in the forms of RFC 5280 §4.1.2.5, as Unix seconds.
    pub(crate) fn time(&mut self) -> Result<i64, DerError> {
        let element = self.any()?;
        let (year, rest) = match element.tag {
            UTC_TIME => {
                let (digits, rest) = element.contents.split_at_checked(2).ok_or(DerError::Time)?;
                let year = number(digits)?;
                // RFC 5280 §4.1.2.5.1: two digits reach from 1950 to 2049.
                (if year >= 50 { 1900 + year } else { 2000 + year }, rest)
            }
            GENERALIZED_TIME => {
                let (digits, rest) = element.contents.split_at_checked(4).ok_or(DerError::Time)?;
                (number(digits)?, rest)
            }
            _ => return Err(DerError::Time),
        };
        seconds(year, rest)
    }
}

/// Writes one element.
pub(crate) fn write(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_header(tag, contents.len(), &mut out);
    out.extend_from_slice(contents);
    out
}

/// Appends tag and length of an element whose `length` bytes follow.
pub(crate) fn write_header(tag: u8, length: usize, out: &mut Vec<u8>) {
    out.push(tag);
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        out.push(0x80 | (bytes.len() - zeros) as u8);
        out.extend_from_slice(&bytes[zeros..]);
    }
}

/// Writes a big-endian number that is not negative as an INTEGER.
pub(crate) fn write_unsigned(number: &[u8]) -> Vec<u8> {
    // One zero in front: the sign of a number whose first bit is set.
    let bytes = [&[0], number].concat();
    let spare = |pair: &&[u8]| pair[0] == 0 && pair[1] & 0x80 == 0;
    let zeros = bytes.windows(2).take_while(spare).count();
    write(INTEGER, &bytes[zeros..])
}

/// Writes `at`, in Unix seconds, to the beginning of the array, as RFC 5280 §4.1.2.5 wants it:
/// UTCTime through 2049, then GeneralizedTime. For years 1970 to 9999. Returns the length.
pub(crate) fn time(at: i64) -> ([u8; TIME_BYTES_MAX], usize) {
    let (year, month, day) = date(at.div_euclid(86_400));
    let time = at.rem_euclid(86_400);
    let [y, z] = two_digits(year / 100);
    let [a, b] = two_digits(year % 100);
    let [c, d] = two_digits(month);
    let [e, f] = two_digits(day);
    let [g, h] = two_digits(time / 3600);
    let [i, j] = two_digits(time / 60 % 60);
    let [k, l] = two_digits(time % 60);
    let z_hour = b'Z';
    let tag = kind_of_time(at);
    if tag == UTC_TIME {
        let out = [tag, 13, a, b, c, d, e, f, g, h, i, j, k, l, z_hour, 0, 0];
        (out, TIME_BYTES_MAX - 2)
    } else {
        let out = [tag, 15, y, z, a, b, c, d, e, f, g, h, i, j, k, l, z_hour];
        (out, TIME_BYTES_MAX)
    }
}

/// Appends what [`time`] writes.
pub(crate) fn write_time(at: i64, out: &mut Vec<u8>) {
    let (time, length) = time(at);
    out.extend_from_slice(&time[..length]);
}

/// The tag that [`time`] writes.
pub(crate) fn kind_of_time(at: i64) -> u8 {
    if at < YEAR_2050 {
        UTC_TIME
    } else {
        GENERALIZED_TIME
    }
}

/// The length that [`time`] returns.
pub(crate) fn time_len(at: i64) -> usize {
    if at < YEAR_2050 {
        TIME_BYTES_MAX - 2
    } else {
        TIME_BYTES_MAX
    }
}

/// What is wrong with an encoding.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum DerError {
    /// Not the element that belongs here, or not in its shortest form.
    #[error("cannot use this DER element here")]
    Form,
    /// A date that is none.
    #[error("cannot read a time")]
    Time,
    /// Something follows the end.
    #[error("cannot use DER with trailing bytes")]
    Trailing,
    /// The bytes end too early.
    #[error("cannot read truncated DER")]
    Truncated,
}

fn read_length(bytes: &[u8]) -> Result<(usize, &[u8]), DerError> {
    let (&first, rest) = bytes.split_first().ok_or(DerError::Truncated)?;
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    let count = usize::from(first & 0x7f);
    // Zero is the indefinite form, which DER has not; four bytes are more than our bounds.
    if !(1..=4).contains(&count) {
        return Err(DerError::Form);
    }
    let (digits, rest) = rest.split_at_checked(count).ok_or(DerError::Truncated)?;
    let length = digits
        .iter()
        .fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
    let shortest = if length < 0x80 {
        0
    } else {
        (8 - length.leading_zeros() / 8) as usize
    };
    if shortest != count {
        return Err(DerError::Form);
    }
    Ok((usize::try_from(length).map_err(|_| DerError::Form)?, rest))
}

fn number(digits: &[u8]) -> Result<i64, DerError> {
    digits.iter().try_fold(0, |sum, digit| match digit {
        b'0'..=b'9' => Ok(sum * 10 + i64::from(digit - b'0')),
        _ => Err(DerError::Time),
    })
}

/// The Unix seconds of `MMDDHHMMSSZ` in `year`.
fn seconds(year: i64, rest: &[u8]) -> Result<i64, DerError> {
    let [a, b, c, d, e, f, g, h, i, j, b'Z'] = *rest else {
        return Err(DerError::Time);
    };
    let (month, day) = (number(&[a, b])?, number(&[c, d])?);
    let (hour, minute, second) = (number(&[e, f])?, number(&[g, h])?, number(&[i, j])?);
    let in_range = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return Err(DerError::Time);
    }
    Ok(((days_to(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the date given.
///
/// Years are taken to begin in March, so that the leap day is a year's last.
fn days_to(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    days_before_year(year) + days_before_month(month) + day - 1 - DAYS_TO_1970
}

/// The date that lies so many days after 1970-01-01, not before: the inverse of [`days_to`].
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_1970;
    // By a year's mean length the guess is right, or one too high just before March.
    let guess = days * 400 / DAYS_IN_400_YEARS;
    let year = if days_before_year(guess + 1) <= days {
        guess + 1
    } else if days_before_year(guess) <= days {
        guess
    } else {
        guess - 1
    };
    let day = days - days_before_year(year);
    let month = (5 * day + 2) / 153;
    let day = day - days_before_month(month) + 1;
    if month < 10 {
        (year, month + 3, day)
    } else {
        (year + 1, month - 9, day)
    }
}

/// Days from 0000-03-01 to the first of March of `year`.
fn days_before_year(year: i64) -> i64 {
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400)
}

/// Days from the first of March to that of the month which comes so many months later: five
/// months in a row always have 153.
fn days_before_month(month: i64) -> i64 {
    (153 * month + 2) / 5
}

fn two_digits(number: i64) -> [u8; 2] {
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

/// From 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;
/// After which the calendar repeats itself.
const DAYS_IN_400_YEARS: i64 = 146_097;
/// 2050-01-01T00:00:00Z: two digits of a year do not reach there.
const YEAR_2050: i64 = 2_524_608_000;
/// Tag, length, and `YYYYMMDDHHMMSSZ`.
pub(crate) const TIME_BYTES_MAX: usize = 17;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
/// `[0]`, constructed.
pub(crate) const CONTEXT_0: u8 = 0xa0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_definite_and_shortest() {
        let check = |bytes: &[u8], want: Result<usize, DerError>| {
            let got = Reader::new(bytes)
                .any()
                .map(|element| element.contents.len());
            assert_eq!(got, want, "{bytes:02x?}");
        };
        check(&[4, 1, 0], Ok(1));
        check(&[4, 0x81, 1, 0], Err(DerError::Form));
        check(&[4, 0x80, 0, 0], Err(DerError::Form));
        check(&[4, 0x85, 0, 0, 0, 0, 1, 0], Err(DerError::Form));
        check(&[4, 0x84, 0xff, 0xff, 0xff, 0xff], Err(DerError::Truncated));
        check(&[4, 0x82, 0, 0x80], Err(DerError::Form));
        check(&[4, 2, 0], Err(DerError::Truncated));
        check(&[0x1f, 1, 0], Err(DerError::Form));
        check(&[], Err(DerError::Truncated));
        check(&write(4, &[7; 300]), Ok(300));
        check(&write(4, &[7; 128]), Ok(128));
    }

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        let check = |number: u64, want: &[u8]| {
            assert_eq!(write_unsigned(&number.to_be_bytes()), want);
        };
        check(0, &[2, 1, 0]);
        check(0x7f, &[2, 1, 0x7f]);
        check(0x80, &[2, 2, 0, 0x80]);
        check(0x1234, &[2, 2, 0x12, 0x34]);
        check(u64::MAX, &[&[2, 9, 0][..], &[0xff; 8]].concat());
    }

    #[test]
    fn times_come_back() {
        let mut at = 0;
        while at < 253_402_300_799 {
            let mut der = Vec::new();
            write_time(at, &mut der);
            assert_eq!(der.len(), time_len(at));
            assert_eq!(Reader::new(&der).time(), Ok(at));
            // Every day, at every second sooner or later.
            at += 86_399;
        }
    }

    #[test]
    fn times_are_read_as_seconds() {
        let check = |tag: u8, text: &str, want: Option<i64>| {
            let der = write(tag, text.as_bytes());
            assert_eq!(Reader::new(&der).time().ok(), want, "{text}");
        };
        check(UTC_TIME, "700101000000Z", Some(0));
        check(UTC_TIME, "491231235959Z", Some(2_524_607_999));
        check(GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000));
        check(GENERALIZED_TIME, "20000229120000Z", Some(951_825_600));
        check(GENERALIZED_TIME, "20010229120000Z", None);
        check(GENERALIZED_TIME, "20001301000000Z", None);
        check(GENERALIZED_TIME, "2000010100000Z", None);
        check(UTC_TIME, "7001010000Z", None);
        check(UTC_TIME, "700101000000+0100", None);
        check(INTEGER, "700101000000Z", None);
    }
}
