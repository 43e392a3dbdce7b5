//! Certificate signing requests (PKCS#10, RFC 2986).
//!
//! A request gives us a public key, the proof that its sender holds the private half, and a
//! *claim* to a name. Whatever else it asks for is ignored: copying a request's extensions
//! into a certificate is how a device becomes a CA.

use rcgen::{CertificateParams, DistinguishedName, DnType};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use x509_parser::public_key::PublicKey;

use crate::digest::sha256;
use crate::key::Key;

/// What we take from a request: nothing but what its signature proves, and a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Csr {
    spki_der: Vec<u8>,
    claimed_id: Option<String>,
}

impl Csr {
    /// The public key, whose private half made this request: a SubjectPublicKeyInfo in DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// SHA-256 of the public key: what the request is known by.
    pub fn spki_sha256(&self) -> [u8; 32] {
        sha256(&self.spki_der)
    }

    /// The common name that was asked for, if there is exactly one. Unverified.
    pub fn claimed_id(&self) -> Option<&str> {
        self.claimed_id.as_deref()
    }
}

/// Makes a request for `key`, in DER, that claims the name `claimed_id`.
///
/// # Errors
///
/// Fails if the name does not fit into a certificate, or the key would not sign.
pub fn make(key: &Key, claimed_id: &str) -> Result<Vec<u8>, MakeCsrError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, claimed_id);
    let request = params
        .serialize_request(key.pair())
        .map_err(|source| MakeCsrError { source })?;
    Ok(request.der().to_vec())
}

/// Reads a request and verifies that its sender holds the key in it.
///
/// # Errors
///
/// Fails on more than 64 KiB, on anything malformed, on a wrong signature, and on keys
/// other than P-256, P-384, Ed25519 and RSA of 2048 to 8192 bits.
pub fn parse(der: &[u8]) -> Result<Csr, CsrError> {
    if der.len() > CSR_BYTES_MAX {
        return Err(CsrError::TooLong);
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let info = &request.certification_request_info;
    // rcgen knows the key types that we can certify: ask it now, not when we issue.
    rcgen::SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| CsrError::KeyType)?;
    match info.subject_pki.parsed() {
        Ok(PublicKey::RSA(key)) => {
            if !RSA_BITS.contains(&key.key_size()) {
                return Err(CsrError::KeySize {
                    bits: key.key_size(),
                });
            }
        }
        Ok(PublicKey::EC(_) | PublicKey::Unknown(_)) => {}
        Ok(PublicKey::DSA(_) | PublicKey::GostR3410(_) | PublicKey::GostR3410_2012(_)) | Err(_) => {
            return Err(CsrError::KeyType);
        }
    }
    request
        .verify_signature()
        .map_err(|_| CsrError::Signature)?;
    let mut names = info.subject.iter_common_name();
    let claimed_id = match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok().map(str::to_owned),
        (_, _) => None,
    };
    Ok(Csr {
        spki_der: info.subject_pki.raw.to_vec(),
        claimed_id,
    })
}

/// A request could not be made.
#[derive(Debug, Error)]
#[error("cannot make a certificate request")]
pub struct MakeCsrError {
    source: rcgen::Error,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum CsrError {
    /// An RSA key too short to trust, or absurdly long.
    #[error("cannot certify an RSA key of {bits} bits: want 2048 to 8192")]
    KeySize {
        /// Its length.
        bits: usize,
    },
    /// A kind of key that we do not certify.
    #[error("cannot certify this kind of key: want P-256, P-384, Ed25519 or RSA")]
    KeyType,
    /// Not a request.
    #[error("cannot read the certificate request")]
    Malformed,
    /// Not signed with the key in it.
    #[error("cannot verify the certificate request with the key in it")]
    Signature,
    /// Longer than any request.
    #[error("cannot take a certificate request of more than {CSR_BYTES_MAX} bytes")]
    TooLong,
}

/// The longest request: RSA-8192 with generous attributes is under 8 KiB. Bounds what a
/// stranger can make us parse.
pub const CSR_BYTES_MAX: usize = 64 << 10;

const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CustomExtension, IsCa, KeyPair, KeyUsagePurpose};

    use super::*;

    #[test]
    fn our_own_request_is_read_back() {
        let key = Key::generate().unwrap();
        let csr = parse(&make(&key, "laptop-7").unwrap()).unwrap();
        assert_eq!(csr.spki_sha256(), key.spki_sha256());
        assert_eq!(csr.claimed_id(), Some("laptop-7"));
    }

    #[test]
    fn p1_what_a_request_asks_for_is_not_even_represented() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["booster1.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let csr = parse(params.serialize_request(&key).unwrap().der()).unwrap();
        let Csr {
            spki_der,
            claimed_id,
        } = csr;
        assert!(!spki_der.is_empty());
        assert_eq!(claimed_id.as_deref(), Some("rcgen self signed cert"));
    }

    #[test]
    fn p4_harmless_extensions_and_both_string_types_are_accepted() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let name = rcgen::string::PrintableString::try_from("printable-1").unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, rcgen::DnValue::PrintableString(name));
        let subject_key_identifier = vec![4, 2, 1, 2];
        params
            .custom_extensions
            .push(CustomExtension::from_oid_content(
                &[2, 5, 29, 14],
                subject_key_identifier,
            ));
        let ns_comment = vec![0x16, 2, b'h', b'i'];
        params
            .custom_extensions
            .push(CustomExtension::from_oid_content(
                &[2, 16, 840, 1, 113730, 1, 13],
                ns_comment,
            ));
        let csr = parse(params.serialize_request(&key).unwrap().der()).unwrap();
        assert_eq!(csr.claimed_id(), Some("printable-1"));
    }

    #[test]
    fn a_tampered_request_is_refused() {
        let mut der = make(&Key::generate().unwrap(), "laptop-7").unwrap();
        let at = der
            .windows(8)
            .position(|window| window == b"laptop-7")
            .unwrap();
        der[at] = b'L';
        assert_eq!(parse(&der), Err(CsrError::Signature));
    }

    #[test]
    fn keys_that_we_certify() {
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let request = CertificateParams::default()
                .serialize_request(&key)
                .unwrap();
            assert!(parse(request.der()).is_ok(), "{algorithm:?}");
        }
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
        let request = CertificateParams::default()
            .serialize_request(&key.unwrap())
            .unwrap();
        assert!(parse(request.der()).is_ok());
    }

    #[test]
    fn an_rsa_key_of_1024_bits_is_refused() {
        let der = include_bytes!("../tests/data/csr/rsa-1024.der");
        assert_eq!(parse(der), Err(CsrError::KeySize { bits: 1024 }));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(parse(&[]), Err(CsrError::Malformed));
        assert_eq!(parse(&vec![0; CSR_BYTES_MAX + 1]), Err(CsrError::TooLong));
        let mut der = make(&Key::generate().unwrap(), "x").unwrap();
        der.push(0);
        assert_eq!(parse(&der), Err(CsrError::Malformed));
    }
}
