//! Certificate serial numbers.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A certificate's serial number: 128 bits, big-endian.
///
/// Ours are random (RFC 5280 §4.1.2.2 wants them positive and unique per issuer), so that
/// two certificates for one key never share one: a serial derived from the key would let the
/// revocation of an old certificate revoke its renewal too.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Serial([u8; 16]);

impl Serial {
    /// Makes a serial of 16 random bytes. Two bits are spent: the highest is cleared, so
    /// that the number is positive, and the next is set, so that its length never varies.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[0] = (bytes[0] & 0x7f) | 0x40;
        Self(bytes)
    }

    /// Takes back a serial that was stored.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Reads the contents of a DER INTEGER. Leading zeros do not count.
    ///
    /// # Errors
    ///
    /// Fails if it is empty, negative, zero, or wider than 128 bits, which none of ours is.
    pub fn from_der_integer(bytes: &[u8]) -> Result<Self, SerialError> {
        if bytes.first().is_none_or(|first| first & 0x80 != 0) {
            return Err(SerialError::NotPositive);
        }
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let digits = &bytes[zeros..];
        if digits.is_empty() {
            return Err(SerialError::NotPositive);
        }
        let start = 16usize
            .checked_sub(digits.len())
            .ok_or(SerialError::TooWide)?;
        let mut serial = [0; 16];
        serial[start..].copy_from_slice(digits);
        Ok(Self(serial))
    }

    /// The number, big-endian, padded with zeros on the left.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(crate) fn as_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::digest::write_hex(f, &self.0)
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    /// Reads 32 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, SerialError> {
        crate::digest::from_hex(text)
            .map(Self)
            .ok_or(SerialError::Text)
    }
}

/// Why something is not a serial number.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SerialError {
    /// Zero, negative, or nothing at all.
    #[error("cannot use a serial number that is not positive")]
    NotPositive,
    /// Not 32 lower-case hexadecimal digits.
    #[error("cannot read a serial number: want 32 lower-case hexadecimal digits")]
    Text,
    /// Wider than any that we issue.
    #[error("cannot use a serial number of more than 128 bits")]
    TooWide,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_serial_is_positive_and_of_one_length() {
        for fill in [0x00, 0x7f, 0x80, 0xff] {
            let first = Serial::from_random([fill; 16]).as_bytes()[0];
            assert!((0x40..0x80).contains(&first), "{first:#x}");
        }
    }

    #[test]
    fn an_integer_is_read_whatever_its_padding() {
        let check = |bytes: &[u8], want: Result<u128, SerialError>| {
            assert_eq!(Serial::from_der_integer(bytes).map(Serial::as_u128), want);
        };
        check(&[1], Ok(1));
        check(&[0, 1], Ok(1));
        check(&[0, 0x80], Ok(0x80));
        check(&[0x7f; 16], Ok(0x7f7f_7f7f_7f7f_7f7f_7f7f_7f7f_7f7f_7f7f));
        check(&[0x7f; 17], Err(SerialError::TooWide));
        check(&[0x80], Err(SerialError::NotPositive));
        check(&[0], Err(SerialError::NotPositive));
        check(&[], Err(SerialError::NotPositive));
    }

    #[test]
    fn the_text_form_comes_back() {
        let serial = Serial::from_random([0xab; 16]);
        assert_eq!(serial.to_string().parse::<Serial>(), Ok(serial));
        assert_eq!("abc".parse::<Serial>(), Err(SerialError::Text));
        assert_eq!("AB".repeat(16).parse::<Serial>(), Err(SerialError::Text));
    }
}
