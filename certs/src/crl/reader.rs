//! Walks over a CertificateList (RFC 5280 §5.1).

use webpki::BorrowedCertRevocationList;

use super::CrlError;
use super::entries::Entry;
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
    /// How many bytes follow the entries.
    after_revoked: usize,
}

impl<'a> List<'a> {
    /// Splits a list into its parts. The entries are left alone: they are long, and nobody
    /// has vouched for them yet.
    pub(super) fn split(bytes: &'a [u8]) -> Result<Self, CrlError> {
        let mut outer = Reader::new(bytes);
        let mut parts = outer.nested(der::SEQUENCE)?;
        outer.finish()?;
        let signed = parts.any()?;
        let after_signed = parts.left();
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
        let after_revoked = list.left() + after_signed;
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
            after_revoked,
        })
    }

    /// The entries, in the list's order.
    pub(super) fn entries(&self) -> Result<Entries, CrlError> {
        let mut entries = Entries {
            as_we_write: true,
            list: Vec::with_capacity(
                count(self.revoked)?.min(self.revoked.len() / ENTRY_BYTES_MIN),
            ),
        };
        let mut rest = Reader::new(self.revoked);
        let mut last = None;
        while !rest.is_empty() {
            let (raw, (entry, as_we_write)) = read_entry(&mut rest)?;
            let number = Some(entry.number());
            entries.as_we_write &= as_we_write && last < number;
            debug_assert!(!as_we_write || entry.to_der() == raw);
            last = number;
            entries.list.push(entry);
        }
        Ok(entries)
    }

    /// What stands before the first entry, and after the last one.
    pub(super) fn around_entries(&self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let (before, tail) = bytes.split_at(bytes.len() - self.after_revoked);
        (&before[..before.len() - self.revoked.len()], tail)
    }
}

/// A list's entries in its own order.
#[derive(Debug)]
pub(super) struct Entries {
    /// Whether [`Entry::write`] gives the list's own bytes again, in rising order.
    pub(super) as_we_write: bool,
    pub(super) list: Vec<Entry>,
}

/// How many elements there are, so that memory is asked for once.
fn count(revoked: &[u8]) -> Result<usize, CrlError> {
    let mut rest = Reader::new(revoked);
    let mut count = 0;
    while !rest.is_empty() {
        rest.any()?;
        count += 1;
    }
    Ok(count)
}

/// One entry: its bytes, what they say, and whether [`Entry::write`] gives them again.
///
/// The reader takes lengths in their shortest form alone, and times that are made of digits
/// alone. So what may differ is a zero before the serial, the kind of time, and what else
/// stands in the extensions.
fn read_entry<'a>(list: &mut Reader<'a>) -> Result<(&'a [u8], (Entry, bool)), CrlError> {
    let raw = list.any()?.raw;
    let mut entry = Reader::new(raw).nested(der::SEQUENCE)?;
    let digits = entry.expect(der::INTEGER)?;
    let serial = Serial::from_der_integer(digits).map_err(|_| CrlError::Serial)?;
    let kind_of_time = entry.tag();
    let time = entry.time()?;
    let extensions = entry.optional(der::SEQUENCE)?;
    entry.finish()?;
    let reason = extensions.map_or(Ok(0), reason)?;
    // A time out of range matters to nobody but whoever wants the bytes back.
    let revoked_at = u32::try_from(time);
    let entry = Entry::new(serial, revoked_at.unwrap_or(0), reason);
    let as_we_write = revoked_at.is_ok()
        && !matches!(digits, [0, next, ..] if *next < 0x80)
        && kind_of_time == Some(der::kind_of_time(time))
        && extensions == entry.extensions().as_ref().map(<[u8; _]>::as_slice);
    Ok((raw, (entry, as_we_write)))
}

/// Refuses a list that the TLS library would not use, or in which it sees other entries.
///
/// Entries just as we write them need no second reader: there is one way to read them.
pub(super) fn agree(bytes: &[u8], entries: &Entries) -> Result<(), CrlError> {
    let theirs = BorrowedCertRevocationList::from_der(bytes).map_err(|_| CrlError::Unsupported)?;
    if entries.as_we_write {
        return Ok(());
    }
    let mut ours = entries.list.iter();
    for entry in &theirs {
        let entry = entry.map_err(|_| CrlError::Disagreement)?;
        let serial =
            Serial::from_der_integer(entry.serial_number).map_err(|_| CrlError::Disagreement)?;
        if ours.next().map(Entry::number) != Some(serial.as_u128()) {
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
pub(super) const ECDSA_WITH_SHA256: &[u8] =
    &[der::OID, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// Version 2 is written as 1 (RFC 5280 §5.1.2.1).
pub(super) const VERSION_2: &[u8] = &[1];
/// id-ce-cRLNumber, 2.5.29.20.
pub(super) const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 20];
/// id-ce-deltaCRLIndicator, 2.5.29.27.
const DELTA_INDICATOR: &[u8] = &[0x55, 0x1d, 27];
/// id-ce-issuingDistributionPoint, 2.5.29.28.
const DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 28];
/// id-ce-cRLReasons, 2.5.29.21.
const REASON_CODE: &[u8] = &[0x55, 0x1d, 21];
const REMOVE_FROM_CRL: u8 = 8;
/// SEQUENCE { INTEGER of one byte, UTCTime }.
const ENTRY_BYTES_MIN: usize = 2 + 3 + 15;
