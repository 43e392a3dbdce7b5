//! Writes a CertificateList (RFC 5280 §5.1).

use super::entries::Entry;
use super::reader::{CRL_NUMBER, ECDSA_WITH_SHA256, VERSION_2};
use crate::der;

/// What a list says besides its entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    /// The issuer's Name: contents and all.
    pub(super) issuer_der: &'a [u8],
    /// The issuer's subject key identifier, if its certificate has one.
    pub(super) key_id: Option<&'a [u8]>,
    pub(super) next_update: i64,
    pub(super) number: u64,
    pub(super) this_update: i64,
}

/// What is to be signed.
pub(super) fn to_be_signed(head: Head<'_>, entries: &[Entry]) -> Vec<u8> {
    let mut before = der::write(der::INTEGER, VERSION_2);
    before.extend(der::write(der::SEQUENCE, ECDSA_WITH_SHA256));
    before.extend_from_slice(head.issuer_der);
    der::write_time(head.this_update, &mut before);
    der::write_time(head.next_update, &mut before);
    let length: usize = entries.iter().map(Entry::der_len).sum();
    // RFC 5280 §5.1.2.6: no list rather than an empty one.
    if length > 0 {
        der::write_header(der::SEQUENCE, length, &mut before);
    }
    let extensions = extensions(head);

    let length_max = before.len() + length + extensions.len();
    let mut out = Vec::with_capacity(length_max + HEADER_BYTES_MAX);
    der::write_header(der::SEQUENCE, length_max, &mut out);
    out.extend_from_slice(&before);
    entries.iter().for_each(|entry| entry.write(&mut out));
    out.extend_from_slice(&extensions);
    out
}

/// The whole list.
pub(super) fn signed(to_be_signed: &[u8], signature: &[u8]) -> Vec<u8> {
    let algorithm = der::write(der::SEQUENCE, ECDSA_WITH_SHA256);
    let signature = der::write(der::BIT_STRING, &[&[0], signature].concat());
    let length = to_be_signed.len() + algorithm.len() + signature.len();
    let mut out = Vec::with_capacity(length + HEADER_BYTES_MAX);
    der::write_header(der::SEQUENCE, length, &mut out);
    out.extend_from_slice(to_be_signed);
    out.extend_from_slice(&algorithm);
    out.extend_from_slice(&signature);
    out
}

/// Who signs, by key, and the number (RFC 5280 §5.2.1 and §5.2.3): neither is critical.
fn extensions(head: Head<'_>) -> Vec<u8> {
    let extension = |oid: &[u8], value: &[u8]| {
        let parts = [
            der::write(der::OID, oid),
            der::write(der::OCTET_STRING, value),
        ];
        der::write(der::SEQUENCE, &parts.concat())
    };
    let key_id = head.key_id.map(|key_id| {
        let key_id = der::write(KEY_IDENTIFIER, key_id);
        extension(AUTHORITY_KEY_ID, &der::write(der::SEQUENCE, &key_id))
    });
    let number = der::write_unsigned(&head.number.to_be_bytes());
    let all = [key_id.unwrap_or_default(), extension(CRL_NUMBER, &number)].concat();
    der::write(der::CONTEXT_0, &der::write(der::SEQUENCE, &all))
}

/// id-ce-authorityKeyIdentifier, 2.5.29.35.
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 35];
/// `[0]`, primitive: the key identifier in an AuthorityKeyIdentifier.
const KEY_IDENTIFIER: u8 = 0x80;
/// Tag, length of the length, and four bytes of length.
const HEADER_BYTES_MAX: usize = 6;
