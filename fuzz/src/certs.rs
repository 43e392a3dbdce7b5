//! Certificates, requests for them, and lists of those revoked.
//!
//! Signatures would keep a fuzzer out of all that lies behind them, so it is given the part that is
//! signed, and what it makes of it is signed here.

use std::sync::OnceLock;

use certs::crl::{self, Crl, RevocationReason, RevokedCert};
use certs::{Ca, CaCert, CaKind, Key, Serial, csr, issue, pkcs7};

/// A CA's certificate: what was accepted is accepted again, and is as it says.
pub fn ca_cert(data: &[u8]) {
    let Ok(cert) = CaCert::parse(data) else {
        return;
    };
    assert_eq!(cert.der(), data);
    assert!(cert.not_before() <= cert.not_after());
    assert_eq!(cert.is_root(), cert.kind().is_none());
}

/// A root and its three issuing CAs.
#[must_use]
pub fn ca_cert_seeds() -> Vec<Vec<u8>> {
    let root = root();
    let mut seeds = vec![root.cert_der().to_vec()];
    for kind in CaKind::ALL {
        let ca = issue::issuing_ca(kind, 1, &root, key(), serial(2), NOW);
        seeds.push(ca.expect("a CA is issued").cert_der().to_vec());
    }
    seeds
}

/// A revocation list: the first byte says whether the rest is one, or what one signs.
pub fn crl(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else {
        return;
    };
    let list = if form % 2 == 0 {
        rest.to_vec()
    } else {
        signed(rest, &issuer().key().sign(rest).expect("a key signs"))
    };
    let Ok(crl) = Crl::verify(&list, issuer().cert_der(), NOW) else {
        return;
    };
    assert_eq!(crl.der(), list);
    assert_eq!(crl.issuer(), issuer().id());
    assert!(crl.this_update() < crl.next_update());
    assert!(crl.this_update() <= NOW + 600);
    // An entry takes more than thirty bytes; fewer cannot be a way to make many.
    assert!(crl.len() <= list.len() / 8);
}

/// Lists with nothing, and with a few entries.
#[must_use]
pub fn crl_seeds() -> Vec<Vec<u8>> {
    let entry = |number, reason| RevokedCert {
        serial: serial(number),
        revoked_at: NOW - 5,
        reason,
    };
    let some = [
        entry(1, RevocationReason::KeyCompromise),
        entry(2, RevocationReason::Unspecified),
    ];
    let mut seeds = Vec::new();
    for entries in [&[][..], &some] {
        let list = crl::sign(issuer(), 4, entries, crl::backdated(NOW), NOW + 86_400)
            .expect("a list is signed");
        seeds.push([&[1], first_within(&list)].concat());
        seeds.push([&[0], &list[..]].concat());
    }
    seeds
}

/// A request: the first byte says whether the rest is one, or what one signs.
///
/// Of a request that was accepted, nothing but the key and the claim remains.
pub fn csr(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else {
        return;
    };
    let request = if form % 2 == 0 {
        rest.to_vec()
    } else {
        let info = with_key(rest, applicant().spki_der());
        signed(&info, &applicant().sign(&info).expect("a key signs"))
    };
    let Ok(csr) = csr::parse(&request) else {
        return;
    };
    assert_eq!(csr::parse(&request).as_ref(), Ok(&csr));
    let spki = csr.spki_der();
    assert!(request.windows(spki.len()).any(|window| window == spki));
    assert!(csr.claimed_id().is_none_or(|id| id.len() <= request.len()));
}

/// Our own request, whole and to be signed.
#[must_use]
pub fn csr_seeds() -> Vec<Vec<u8>> {
    let request = csr::make(applicant(), "laptop-7").expect("a request is made");
    vec![
        [&[1], first_within(&request)].concat(),
        [&[0], &request[..]].concat(),
    ]
}

/// A bag of certificates: what comes out can be put into one again.
pub fn pkcs7(data: &[u8]) {
    if let Ok(der) = pkcs7::from_base64(data, pkcs7::PKCS7_BYTES_MAX) {
        assert_eq!(
            pkcs7::from_base64(pkcs7::to_base64(&der).as_bytes(), 2 * data.len()),
            Ok(der)
        );
    }
    let Ok(mut certs) = pkcs7::decode(data) else {
        return;
    };
    assert!((1..=16).contains(&certs.len()));
    let bag = pkcs7::encode(&certs);
    certs.sort_unstable();
    if bag.len() <= pkcs7::PKCS7_BYTES_MAX {
        assert_eq!(pkcs7::decode(&bag), Ok(certs));
    }
}

/// A bag with a root, and the same in base64.
#[must_use]
pub fn pkcs7_seeds() -> Vec<Vec<u8>> {
    let bag = pkcs7::encode(&[root().cert_der()]);
    let text = pkcs7::to_base64(&bag).into_bytes();
    vec![bag, text]
}

/// `to_be_signed` with its signature: the outer form that lists and requests share.
fn signed(to_be_signed: &[u8], signature: &[u8]) -> Vec<u8> {
    let bits = [&[0], signature].concat();
    let parts = [to_be_signed, ECDSA_WITH_SHA256, &element(0x03, &bits)].concat();
    element(0x30, &parts)
}

fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len() as u32;
    let head = match length {
        0..0x80 => vec![tag, length as u8],
        0x80..0x100 => vec![tag, 0x81, length as u8],
        _ => {
            let digits = length.to_be_bytes();
            let zeros = digits.iter().take_while(|digit| **digit == 0).count();
            let mut head = vec![tag, 0x80 | (4 - zeros) as u8];
            head.extend(&digits[zeros..]);
            head
        }
    };
    [&head, contents].concat()
}

/// The first element within the element that `der` is: what was signed.
fn first_within(der: &[u8]) -> &[u8] {
    let inside = &der[head_bytes(der)..];
    let contents = match inside[1] {
        short @ 0..0x80 => usize::from(short),
        long => inside[2..2 + usize::from(long & 0x7f)]
            .iter()
            .fold(0, |sum, digit| sum << 8 | usize::from(*digit)),
    };
    &inside[..head_bytes(inside) + contents]
}

fn head_bytes(der: &[u8]) -> usize {
    match der[1] {
        0..0x80 => 2,
        long => 2 + usize::from(long & 0x7f),
    }
}

fn root() -> Ca {
    let deployment = "d1".parse().expect("a plain name");
    issue::root(&deployment, 1, key(), serial(1), NOW).expect("a root is made")
}

/// Who signs lists. Its key is another one in each run; no input depends on it.
fn issuer() -> &'static Ca {
    static ISSUER: OnceLock<Ca> = OnceLock::new();
    ISSUER.get_or_init(|| {
        issue::issuing_ca(CaKind::Client, 1, &root(), key(), serial(2), NOW)
            .expect("a CA is issued")
    })
}

/// `info` with the key of this run in place of the one that stands there.
fn with_key(info: &[u8], spki: &[u8]) -> Vec<u8> {
    // Up to the point itself, all keys of one curve begin alike.
    let (head, point) = spki.split_at(spki.len() - POINT_BYTES);
    let mut info = info.to_vec();
    let found = info.windows(head.len()).position(|window| window == head);
    if let Some(at) = found.map(|at| at + head.len())
        && let Some(room) = info.get_mut(at..at + POINT_BYTES)
    {
        room.copy_from_slice(point);
    }
    info
}

/// Who asks for certificates. Its key is another one in each run, too: see [`with_key`].
fn applicant() -> &'static Key {
    static APPLICANT: OnceLock<Key> = OnceLock::new();
    APPLICANT.get_or_init(key)
}

fn key() -> Key {
    Key::generate().expect("a key is made")
}

fn serial(number: u8) -> Serial {
    Serial::from_random([number; 16])
}

/// The AlgorithmIdentifier (RFC 5758 §3.2).
const ECDSA_WITH_SHA256: &[u8] = &[
    0x30, 10, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];
/// Two coordinates of P-256.
const POINT_BYTES: usize = 64;
const NOW: i64 = 1_800_000_000;
