//! Walks over a CertificateList (RFC 5280 §5.1).

use webpki::BorrowedCertRevocationList;

use super::CrlError;
use crate::der::{self, Reader};
use crate::serial::Serial;

/// The parts of a list that has been split, and not looked into.
#[derive(Debug)]
pub(super) struct List<'a> {
    /// The issuer's Name: contents and all.
    pub(super) issuer_der: &'a [u8],
    pub(super) next_update: i64,
    pub(super) number: u64,
    pub(super) signature: &'a [u8],
    /// What the signature is over.
    pub(super) signed: &'a [u8],
    pub(super) this_update: i64,
    revoked: &'a [u8],
}

impl<'a> List<'a> {
    /// Splits a list into its parts. The entries are left alone: they are long, and nobody
    /// has vouched for them yet.
    pub(super) fn split(bytes: &'a [u8]) -> Result<Self, CrlError> {
        let mut outer = Reader::new(bytes);
        let mut parts = outer.nested(der::SEQUENCE)?;
        outer.finish()?;
        let signed = parts.any()?;
        let algorithm = parts.expect(der::SEQUENCE)?;
        let signature = parts.expect(der::BIT_STRING)?;
        parts.finish()?;

        let mut list = Reader::new(signed.raw).nested(der::SEQUENCE)?;
        let version = list.expect(der::INTEGER)?;
        // The algorithm stands in two places, of which only one is signed: they must agree.
        let same_algorithm = list.expect(der::SEQUENCE)? == algorithm;
        if version != VERSION_2 || !same_algorithm || algorithm != ECDSA_WITH_SHA256 {
            return Err(CrlError::Unsupported);
        }
        let issuer = list.any()?;
        let this_update = list.time()?;
        let next_update = list.time()?;
        let revoked = list.optional(der::SEQUENCE)?.unwrap_or(&[]);
        let number = number(list.expect(der::CONTEXT_0)?)?;
        list.finish()?;
        Ok(Self {
            issuer_der: issuer.raw,
            next_update,
            number,
            signature: whole_bytes(signature)?,
            signed: signed.raw,
            this_update,
            revoked,
        })
    }

    /// The serials with their reason codes, in the list's order.
    pub(super) fn entries(&self) -> Result<Vec<(u128, u8)>, CrlError> {
        let mut rest = Reader::new(self.revoked);
        let mut entries = Vec::with_capacity(self.revoked.len() / ENTRY_BYTES_TYPICAL);
        while !rest.is_empty() {
            let mut entry = rest.nested(der::SEQUENCE)?;
            let serial = Serial::from_der_integer(entry.expect(der::INTEGER)?)
                .map_err(|_| CrlError::Serial)?;
            entry.time()?;
            let extensions = entry.optional(der::SEQUENCE)?;
            entry.finish()?;
            let reason = extensions.map_or(Ok(0), reason)?;
            entries.push((serial.as_u128(), reason));
        }
        Ok(entries)
    }
}

/// Refuses a list in which the TLS library sees other entries than `entries`.
pub(super) fn agree(bytes: &[u8], entries: &[(u128, u8)]) -> Result<(), CrlError> {
    let theirs = BorrowedCertRevocationList::from_der(bytes).map_err(|_| CrlError::Unsupported)?;
    let mut ours = entries.iter();
    for entry in &theirs {
        let entry = entry.map_err(|_| CrlError::Disagreement)?;
        let serial =
            Serial::from_der_integer(entry.serial_number).map_err(|_| CrlError::Disagreement)?;
        if ours.next().map(|(serial, _)| *serial) != Some(serial.as_u128()) {
            return Err(CrlError::Disagreement);
        }
    }
    if ours.next().is_none() {
        Ok(())
    } else {
        Err(CrlError::Disagreement)
    }
}

/// One extension: its identifier, whether it must be understood, its value.
fn extension<'a>(list: &mut Reader<'a>) -> Result<(&'a [u8], bool, &'a [u8]), CrlError> {
    let mut extension = list.nested(der::SEQUENCE)?;
    let oid = extension.expect(der::OID)?;
    let critical = extension
        .optional(der::BOOLEAN)?
        .is_some_and(|value| value != [0]);
    let value = extension.expect(der::OCTET_STRING)?;
    extension.finish()?;
    Ok((oid, critical, value))
}

/// The list's number, out of its extensions.
fn number(contents: &[u8]) -> Result<u64, CrlError> {
    let mut outer = Reader::new(contents);
    let mut list = outer.nested(der::SEQUENCE)?;
    outer.finish()?;
    let mut number = None;
    while !list.is_empty() {
        let (oid, critical, value) = extension(&mut list)?;
        // RFC 5280 §5.2.3: the number is never critical; nor is anything else we understand.
        if critical || oid == DELTA_INDICATOR || oid == DISTRIBUTION_POINT {
            return Err(CrlError::Unsupported);
        }
        if oid == CRL_NUMBER {
            let mut value = Reader::new(value);
            let digits = value.expect(der::INTEGER)?;
            value.finish()?;
            if number.replace(u64_of(digits)?).is_some() {
                return Err(CrlError::Number);
            }
        }
    }
    number.ok_or(CrlError::Number)
}

fn u64_of(digits: &[u8]) -> Result<u64, CrlError> {
    if digits.first().is_none_or(|first| first & 0x80 != 0) {
        return Err(CrlError::Number);
    }
    let zeros = digits.iter().take_while(|byte| **byte == 0).count();
    let digits = &digits[zeros..];
    if digits.len() > 8 {
        return Err(CrlError::Number);
    }
    Ok(digits
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
}

/// The reason code out of an entry's extensions, or 0.
fn reason(contents: &[u8]) -> Result<u8, CrlError> {
    let mut list = Reader::new(contents);
    let mut reason = 0;
    while !list.is_empty() {
        let (oid, critical, value) = extension(&mut list)?;
        if oid == REASON_CODE {
            let mut value = Reader::new(value);
            let [code] = *value.expect(der::ENUMERATED)? else {
                return Err(CrlError::Unsupported);
            };
            value.finish()?;
            // "Remove from CRL" means the opposite of revoked, in delta lists only.
            if code == REMOVE_FROM_CRL {
                return Err(CrlError::Unsupported);
            }
            reason = code;
        } else if critical {
            return Err(CrlError::Unsupported);
        }
    }
    Ok(reason)
}

/// The contents of a BIT STRING that is whole bytes.
fn whole_bytes(contents: &[u8]) -> Result<&[u8], CrlError> {
    match contents.split_first() {
        Some((0, bytes)) => Ok(bytes),
        Some(_) | None => Err(CrlError::Unsupported),
    }
}

/// The contents of AlgorithmIdentifier for ecdsa-with-SHA256 (RFC 5758 §3.2): all our CAs.
const ECDSA_WITH_SHA256: &[u8] = &[der::OID, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// Version 2 is written as 1 (RFC 5280 §5.1.2.1).
const VERSION_2: &[u8] = &[1];
/// id-ce-cRLNumber, 2.5.29.20.
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 20];
/// id-ce-deltaCRLIndicator, 2.5.29.27.
const DELTA_INDICATOR: &[u8] = &[0x55, 0x1d, 27];
/// id-ce-issuingDistributionPoint, 2.5.29.28.
const DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 28];
/// id-ce-cRLReasons, 2.5.29.21.
const REASON_CODE: &[u8] = &[0x55, 0x1d, 21];
const REMOVE_FROM_CRL: u8 = 8;
/// An entry without a reason: sizes the array, no more.
const ENTRY_BYTES_TYPICAL: usize = 35;
