//! What a receiver makes of a list that is not as it should be, and that the one before stays.

use super::*;
use crate::der;

/// The parts of a list, for tests to spoil.
struct Parts {
    version: Vec<u8>,
    this_update: i64,
    next_update: Option<i64>,
    entries: Vec<Vec<u8>>,
    /// Identifier (its last byte, under 2.5.29), whether it is critical, and value.
    extensions: Vec<(u8, bool, Vec<u8>)>,
}

const NUMBER: u8 = 20;
const DELTA: u8 = 27;
const FRESHEST: u8 = 46;

impl Parts {
    /// List 2, in order and without entries.
    fn new() -> Self {
        Self {
            version: der::write(der::INTEGER, &[1]),
            this_update: NOW,
            next_update: Some(NOW + DAY),
            entries: Vec::new(),
            extensions: vec![(NUMBER, false, der::write(der::INTEGER, &[2]))],
        }
    }

    fn signed_by(&self, ca: &Ca) -> Vec<u8> {
        let mut list = self.version.clone();
        list.extend(der::write(der::SEQUENCE, reader::ECDSA_WITH_SHA256));
        list.extend_from_slice(ca.cert().subject_der());
        der::write_time(self.this_update, &mut list);
        if let Some(at) = self.next_update {
            der::write_time(at, &mut list);
        }
        if !self.entries.is_empty() {
            list.extend(der::write(der::SEQUENCE, &self.entries.concat()));
        }
        let extensions: Vec<u8> = self.extensions.iter().flat_map(extension).collect();
        let extensions = der::write(der::SEQUENCE, &extensions);
        list.extend(der::write(der::CONTEXT_0, &extensions));
        let list = der::write(der::SEQUENCE, &list);
        writer::signed(&list, &ca.key().sign(&list).unwrap())
    }
}

fn extension((id, critical, value): &(u8, bool, Vec<u8>)) -> Vec<u8> {
    let mut parts = der::write(der::OID, &[0x55, 0x1d, *id]);
    if *critical {
        parts.extend(der::write(der::BOOLEAN, &[0xff]));
    }
    parts.extend(der::write(der::OCTET_STRING, value));
    der::write(der::SEQUENCE, &parts)
}

/// An entry with one extension.
fn entry_with(id: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let mut parts = der::write(der::INTEGER, &[5]);
    der::write_time(NOW, &mut parts);
    let extension = extension(&(id, critical, value.to_vec()));
    parts.extend(der::write(der::SEQUENCE, &extension));
    der::write(der::SEQUENCE, &parts)
}

/// Spoils a list and looks at what the receiver makes of it. The list before must stay.
fn check(what: &str, spoil: impl FnOnce(&mut Parts), want: Result<(), CrlError>) {
    let bed = Bed::new();
    let mut parts = Parts::new();
    spoil(&mut parts);
    let der = parts.signed_by(&bed.client);
    assert_eq!(verify(&bed, &der).map(drop), want, "{what}");
    let client = bed.client.id();
    let taken = bed.trust.verify_crl(client, &der, NOW);
    assert_eq!(taken.map(drop).is_ok(), want.is_ok(), "{what}");
    assert_eq!(bed.trust.crls().current(client).unwrap().number(), 1);
}

fn malformed(source: DerError) -> Result<(), CrlError> {
    Err(CrlError::Malformed { source })
}

#[test]
fn a_list_of_the_wrong_time_or_version_is_refused_and_the_one_before_stays() {
    check("in order", |_| (), Ok(()));
    let times = Err(CrlError::Times);
    check(
        "ends before it begins",
        |it| it.next_update = Some(NOW),
        times,
    );
    check(
        "without end",
        |it| it.next_update = None,
        malformed(DerError::Time),
    );
    let future = Err(CrlError::FromTheFuture);
    check("from the future", |it| it.this_update = NOW + 601, future);
    let version_1 = der::write(der::INTEGER, &[0]);
    check(
        "version 1",
        |it| it.version = version_1,
        Err(CrlError::Unsupported),
    );
    check(
        "no version",
        |it| it.version.clear(),
        malformed(DerError::Form),
    );
}

#[test]
fn a_list_of_the_wrong_kind_is_refused_and_the_one_before_stays() {
    let unsupported = Err(CrlError::Unsupported);
    let wrong = Err(CrlError::Number);
    let number = |digits: &[u8]| (NUMBER, false, der::write(der::INTEGER, digits));
    let other = || (FRESHEST, false, vec![]);
    check(
        "another extension",
        |it| it.extensions.push(other()),
        Ok(()),
    );
    check("no number", |it| it.extensions.clear(), wrong);
    check("another instead", |it| it.extensions = vec![other()], wrong);
    check(
        "critical number",
        |it| it.extensions[0].1 = true,
        unsupported,
    );
    check("two numbers", |it| it.extensions.push(number(&[3])), wrong);
    check(
        "below zero",
        |it| it.extensions = vec![number(&[0xff])],
        wrong,
    );
    check(
        "beyond 64 bits",
        |it| it.extensions = vec![number(&[1; 9])],
        wrong,
    );
    let delta = |critical| (DELTA, critical, der::write(der::INTEGER, &[1]));
    check("delta", |it| it.extensions.push(delta(true)), unsupported);
    check(
        "uncritical delta",
        |it| it.extensions.push(delta(false)),
        unsupported,
    );
}

#[test]
fn an_entry_that_could_mean_something_else_is_refused() {
    let bed = Bed::new();
    let check = |what: &str, entry: Vec<u8>, want: Result<u8, CrlError>| {
        let mut parts = Parts::new();
        parts.entries.push(entry);
        let crl = verify(&bed, &parts.signed_by(&bed.client));
        let mut serial = [0; 16];
        serial[15] = 5;
        let reason = crl.map(|crl| crl.revoked(Serial::from_bytes(serial)).unwrap());
        assert_eq!(reason, want.map(RevocationReason::from_code), "{what}");
    };
    let reason = |code: u8| der::write(der::ENUMERATED, &[code]);
    check("a reason", entry_with(21, false, &reason(1)), Ok(1));
    check("a critical reason", entry_with(21, true, &reason(4)), Ok(4));
    check(
        "on hold counts as revoked",
        entry_with(21, false, &reason(6)),
        Ok(0),
    );
    check(
        "unspecified, said aloud",
        entry_with(21, false, &reason(0)),
        Ok(0),
    );
    let unsupported = || Err(CrlError::Unsupported);
    check(
        "taken off again",
        entry_with(21, false, &reason(8)),
        unsupported(),
    );
    check(
        "another's certificate",
        entry_with(29, true, &[0x30, 0]),
        unsupported(),
    );
    check(
        "invalid since",
        entry_with(24, false, b"\x18\x0f20200101000000Z"),
        Ok(0),
    );
    let long = [
        &[0x30, 34, 2, 17, 1][..],
        &[0; 16],
        b"\x17\x0d270101000000Z",
    ]
    .concat();
    check("a serial of 17 bytes", long, Err(CrlError::Serial));
    let negative = [&[0x30, 18, 2, 1, 0x85][..], b"\x17\x0d270101000000Z"].concat();
    check("a negative serial", negative, Err(CrlError::Serial));
}

#[test]
fn whatever_is_taken_is_given_back() {
    let bed = Bed::new();
    let revoked = RevocationReason::ALL.map(|reason| RevokedCert {
        serial: serial(),
        revoked_at: NOW,
        reason,
    });
    let der = sign(&bed.client, 2, &revoked, NOW, NOW + DAY).unwrap();
    let to_be_signed = reader::List::split(&der).unwrap().signed.to_vec();
    let mut taken = 0;
    for at in 0..to_be_signed.len() {
        for flip in [0x01, 0x02, 0x04, 0x10, 0x80] {
            let mut spoilt = to_be_signed.clone();
            spoilt[at] ^= flip;
            let signature = bed.client.key().sign(&spoilt).unwrap();
            let list = writer::signed(&spoilt, &signature);
            if let Ok(crl) = verify(&bed, &list) {
                assert_eq!(crl.der(), list, "byte {at} ^ {flip:#x}");
                taken += 1;
            }
        }
    }
    // Digits of serials, times and numbers may be others: it is the issuer who signed them.
    assert!(taken > 100, "{taken}");
}

#[test]
fn a_list_longer_than_any_is_not_looked_at() {
    let bed = Bed::new();
    let long = vec![0; CRL_BYTES_MAX + 1];
    assert_eq!(verify(&bed, &long).unwrap_err(), CrlError::TooLong);
}

#[test]
fn an_expired_certificate_leaves_the_list_one_list_later() {
    // A certificate that ends at noon, and lists at these hours after it.
    let (noon, hour) = (NOW, 3_600);
    let mut previous = None;
    let mut listed = Vec::new();
    for after in [-1, 0, 1, 2] {
        let this_update = noon + after * hour;
        listed.push(noon >= listed_from(previous));
        previous = Some(this_update);
    }
    assert_eq!(listed, [true, true, true, false]);
}
