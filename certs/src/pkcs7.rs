//! Bags of certificates: degenerate, certs-only PKCS#7 SignedData (RFC 5652 §5.1), as EST
//! (RFC 7030 §4.1.3) sends them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::der::{self, DerError, Reader};

/// Writes certificates as a certs-only SignedData in DER, which has an order of its own.
pub fn encode<C: AsRef<[u8]>>(certs: &[C]) -> Vec<u8> {
    bag(certs, der::CONTEXT_0)
}

/// Writes revocation lists as a SignedData in DER that holds nothing else.
pub fn encode_crls<C: AsRef<[u8]>>(crls: &[C]) -> Vec<u8> {
    bag(crls, CRLS)
}

fn bag<I: AsRef<[u8]>>(items: &[I], place: u8) -> Vec<u8> {
    let mut items: Vec<&[u8]> = items.iter().map(AsRef::as_ref).collect();
    // They are a SET OF, which in DER is in order (X.690 §11.6): some readers take nothing else.
    items.sort_unstable();
    let content_info = der::write(der::SEQUENCE, &der::write(der::OID, DATA));
    let signed_data = [
        der::write(der::INTEGER, &[1]),
        der::write(der::SET, &[]),
        content_info,
        der::write(place, &items.concat()),
        der::write(der::SET, &[]),
    ]
    .concat();
    let explicit = der::write(der::CONTEXT_0, &der::write(der::SEQUENCE, &signed_data));
    let body = [der::write(der::OID, SIGNED_DATA), explicit].concat();
    der::write(der::SEQUENCE, &body)
}

/// Reads the certificates out of a SignedData, in order, without looking into them. Signers
/// and revocation lists in it are passed over.
///
/// # Errors
///
/// Fails on more than 64 KiB, more than 16 certificates, none, or anything malformed.
pub fn decode(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Pkcs7Error> {
    if bytes.len() > PKCS7_BYTES_MAX {
        return Err(Pkcs7Error::TooLong);
    }
    let mut outer = Reader::new(bytes);
    let mut content_info = outer.nested(der::SEQUENCE)?;
    outer.finish()?;
    if content_info.expect(der::OID)? != SIGNED_DATA {
        return Err(Pkcs7Error::Kind);
    }
    let mut signed_data = content_info.nested(der::CONTEXT_0)?.nested(der::SEQUENCE)?;
    signed_data.expect(der::INTEGER)?;
    signed_data.expect(der::SET)?;
    signed_data.expect(der::SEQUENCE)?;
    let mut bag = Reader::new(signed_data.optional(der::CONTEXT_0)?.unwrap_or(&[]));
    let mut certs = Vec::new();
    while !bag.is_empty() {
        let element = bag.any()?;
        if element.tag != der::SEQUENCE {
            return Err(Pkcs7Error::Kind);
        }
        if certs.len() == CERTS_MAX {
            return Err(Pkcs7Error::TooLong);
        }
        certs.push(element.raw.to_vec());
    }
    if certs.is_empty() {
        Err(Pkcs7Error::Empty)
    } else {
        Ok(certs)
    }
}

/// Writes `der` in base64, in one line: RFC 7030's line breaks are an error (errata 5904)
/// that strongSwan's client cannot read.
pub fn to_base64(der: &[u8]) -> String {
    STANDARD.encode(der)
}

/// Reads base64 with or without line breaks, as EST clients send it.
///
/// # Errors
///
/// Fails on more than `bytes_max` bytes of text, and on what is not base64.
pub fn from_base64(text: &[u8], bytes_max: usize) -> Result<Vec<u8>, Pkcs7Error> {
    if text.len() > bytes_max {
        return Err(Pkcs7Error::TooLong);
    }
    let dense: Vec<u8> = text
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    STANDARD.decode(dense).map_err(|_| Pkcs7Error::Base64)
}

/// What is wrong with a bag.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Pkcs7Error {
    /// Not base64.
    #[error("cannot read base64")]
    Base64,
    /// No certificate in it.
    #[error("cannot find a certificate in this PKCS#7")]
    Empty,
    /// Some other content.
    #[error("cannot use PKCS#7 other than certificates alone")]
    Kind,
    /// Malformed.
    #[error("cannot read PKCS#7")]
    Malformed {
        /// What is wrong with it.
        source: DerError,
    },
    /// Too long, or too many certificates.
    #[error("cannot take PKCS#7 of more than {PKCS7_BYTES_MAX} bytes or {CERTS_MAX} certificates")]
    TooLong,
}

impl From<DerError> for Pkcs7Error {
    fn from(source: DerError) -> Self {
        Self::Malformed { source }
    }
}

/// The longest bag that is looked into: sixteen certificates of 4 KiB.
pub const PKCS7_BYTES_MAX: usize = 64 << 10;
const CERTS_MAX: usize = 16;

/// Where lists stand in a SignedData: `crls [1] IMPLICIT` (RFC 5652 §5.1).
const CRLS: u8 = 0xa1;
/// 1.2.840.113549.1.7.1 (RFC 5652 §4).
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
/// 1.2.840.113549.1.7.2 (RFC 5652 §5.1).
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];

#[cfg(test)]
mod tests {
    use super::*;

    fn cert(fill: u8, length: usize) -> Vec<u8> {
        der::write(der::SEQUENCE, &vec![fill; length])
    }

    #[test]
    fn lists_stand_where_no_certificate_does() {
        let bag = encode_crls(&[b"\x30\x00", b"\x30\x00"]);
        assert_eq!(decode(&bag), Err(Pkcs7Error::Empty));
        // RFC 5652 §5.1: `crls [1] IMPLICIT`, then no signers.
        assert!(bag.ends_with(b"\xa1\x04\x30\x00\x30\x00\x31\x00"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let certs = vec![cert(1, 10), cert(2, 700)];
        assert_eq!(decode(&encode(&certs)), Ok(certs));
    }

    #[test]
    fn a_bag_is_in_the_one_order_that_der_has() {
        let (short, long) = (cert(9, 10), cert(1, 700));
        let wanted = Ok(vec![short.clone(), long.clone()]);
        assert_eq!(decode(&encode(&[long, short])), wanted);
    }

    #[test]
    fn the_wrapping_is_the_shortest_that_the_standard_allows() {
        let want =
            "3025 0609 2a864886f70d010702 a018 3016 020101 3100 300b 0609 2a864886f70d010701 \
                    a000 3100"
                .replace(' ', "");
        let got: String = encode::<Vec<u8>>(&[])
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(got, want);
    }

    #[test]
    fn p23_base64_is_written_in_one_line_and_read_in_many() {
        let der = encode(&[cert(3, 500)]);
        let text = to_base64(&der);
        assert!(!text.contains(['\r', '\n']));
        let wrapped: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let wrapped = wrapped.join("\r\n");
        assert_eq!(from_base64(wrapped.as_bytes(), 4096), Ok(der.clone()));
        assert_eq!(from_base64(text.as_bytes(), 4096), Ok(der));
        assert_eq!(from_base64(b"a*", 4096), Err(Pkcs7Error::Base64));
        assert_eq!(from_base64(text.as_bytes(), 10), Err(Pkcs7Error::TooLong));
    }

    #[test]
    fn odd_bags_are_refused() {
        assert_eq!(decode(&encode::<Vec<u8>>(&[])), Err(Pkcs7Error::Empty));
        assert_eq!(
            decode(&encode(&vec![cert(0, 1); 17])),
            Err(Pkcs7Error::TooLong)
        );
        assert_eq!(
            decode(&vec![0; PKCS7_BYTES_MAX + 1]),
            Err(Pkcs7Error::TooLong)
        );
        let whole = encode(&[cert(1, 10)]);
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length}");
        }
    }
}
