//! A list's entries, in memory.
//!
//! A list of a million entries is some 48 MB in DER, most of it the same bytes again and
//! again. What differs from entry to entry is kept in 21 bytes, and a list that is written
//! just as we write lists can be written anew from that, byte for byte. So there is no need
//! to keep its DER besides.

use super::{RevocationReason, RevokedCert};
use crate::der;
use crate::serial::Serial;

/// One revoked certificate. Bytes only, so that an array of these has no gaps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    serial: [u8; 16],
    /// Unix seconds, big-endian: until 2106.
    revoked_at: [u8; 4],
    reason: u8,
}

const _: () = assert!(size_of::<Entry>() == 21);

impl Entry {
    pub(super) fn new(serial: Serial, revoked_at: u32, reason: u8) -> Self {
        Self {
            serial: *serial.as_bytes(),
            revoked_at: revoked_at.to_be_bytes(),
            reason,
        }
    }

    /// What the origin's ledger says. Times that nobody had are moved to the nearest that we
    /// can write.
    pub(super) fn of(revoked: &RevokedCert) -> Self {
        let revoked_at = revoked.revoked_at.clamp(0, i64::from(u32::MAX)) as u32;
        Self::new(revoked.serial, revoked_at, revoked.reason.code())
    }

    /// The serial as a number, by which entries are sorted.
    pub(super) fn number(&self) -> u128 {
        u128::from_be_bytes(self.serial)
    }

    pub(super) fn reason(&self) -> RevocationReason {
        RevocationReason::from_code(self.reason)
    }

    /// How long [`Entry::write`] makes it.
    pub(super) fn der_len(&self) -> usize {
        HEADER_BYTES + usize::from(self.content_len())
    }

    /// Appends the entry in DER (RFC 5280 §5.1): serial, time, and the reason unless it is
    /// "unspecified", which is rather left out (§5.3.1).
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (time, length) = der::time(self.at());
        out.extend_from_slice(&[der::SEQUENCE, self.content_len()]);
        out.extend_from_slice(&[der::INTEGER, self.serial_len()]);
        if self.needs_sign_byte() {
            out.push(0);
        }
        out.extend_from_slice(&self.serial[self.zeros()..]);
        out.extend_from_slice(&time[..length]);
        if let Some(extensions) = self.extensions() {
            out.extend_from_slice(&[der::SEQUENCE, extensions.len() as u8]);
            out.extend_from_slice(&extensions);
        }
    }

    /// The entry in DER.
    pub(super) fn to_der(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.der_len());
        self.write(&mut out);
        out
    }

    /// The contents of the entry's extensions, if it has any.
    pub(super) fn extensions(&self) -> Option<[u8; REASON_BYTES]> {
        let mut extensions = REASON;
        extensions[REASON_BYTES - 1] = self.reason;
        (self.reason != 0).then_some(extensions)
    }

    fn at(&self) -> i64 {
        i64::from(u32::from_be_bytes(self.revoked_at))
    }

    /// Leading bytes of the serial that its INTEGER leaves out.
    fn zeros(&self) -> usize {
        (self.number().leading_zeros() as usize / 8).min(15)
    }

    fn needs_sign_byte(&self) -> bool {
        self.serial[self.zeros()] & 0x80 != 0
    }

    fn serial_len(&self) -> u8 {
        (16 - self.zeros() + usize::from(self.needs_sign_byte())) as u8
    }

    fn content_len(&self) -> u8 {
        let extensions = self.extensions().map_or(0, |it| HEADER_BYTES + it.len());
        let time = der::time_len(self.at());
        (HEADER_BYTES + usize::from(self.serial_len()) + time + extensions) as u8
    }
}

/// A tag and a length of one byte: nothing in an entry is longer than 127 bytes.
const HEADER_BYTES: usize = 2;
/// An extension without a reason in it yet: SEQUENCE { OID 2.5.29.21, OCTET STRING {
/// ENUMERATED } }.
const REASON: [u8; REASON_BYTES] = [
    0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x15, 0x04, 0x03, 0x0a, 0x01, 0,
];
const REASON_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_written_as_others_write_it() {
        let check = |serial: u128, at: u32, reason: u8, want: &[&[u8]]| {
            let entry = Entry::new(Serial::from_bytes(serial.to_be_bytes()), at, reason);
            let mut out = Vec::new();
            entry.write(&mut out);
            assert_eq!(out, want.concat(), "{serial:#x}");
            assert_eq!(out.len(), entry.der_len());
        };
        let epoch = b"\x17\x0d700101000000Z";
        check(1, 0, 0, &[&[0x30, 18, 2, 1, 1], epoch]);
        check(0x80, 0, 0, &[&[0x30, 19, 2, 2, 0, 0x80], epoch]);
        let reason = &[&[0x30, 12], &REASON[..11], &[4]].concat();
        check(0x7f, 0, 4, &[&[0x30, 32, 2, 1, 0x7f], epoch, reason]);
        let after_2050 = b"\x18\x0f20500101000000Z";
        check(1, 2_524_608_000, 0, &[&[0x30, 20, 2, 1, 1], after_2050]);
        let widest = [&[0x30u8, 34, 2, 17, 0][..], &[0xff; 16]].concat();
        check(u128::MAX, 0, 0, &[&widest, epoch]);
    }
}
