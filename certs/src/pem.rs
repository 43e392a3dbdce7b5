//! Certificates as PEM (RFC 7468), for files and for people.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;

/// Writes certificates one after the other, in the order given.
pub fn from_certs<C: AsRef<[u8]>>(certs: &[C]) -> String {
    let mut text = String::new();
    for cert in certs {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let base64 = STANDARD.encode(cert.as_ref());
        for line in base64.as_bytes().chunks(LINE_CHARS) {
            text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Reads every certificate in `text`, in order. Anything else in it is passed over.
///
/// # Errors
///
/// Fails on malformed PEM, on none at all, and on more than 16 certificates or 1 MiB.
pub fn to_certs(text: &str) -> Result<Vec<Vec<u8>>, PemError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(PemError::TooLong);
    }
    let mut certs = Vec::new();
    for cert in CertificateDer::pem_slice_iter(text.as_bytes()) {
        if certs.len() == CERTS_MAX {
            return Err(PemError::TooLong);
        }
        certs.push(
            cert.map_err(|source| PemError::Malformed { source })?
                .to_vec(),
        );
    }
    if certs.is_empty() {
        Err(PemError::Empty)
    } else {
        Ok(certs)
    }
}

/// Why a text yields no certificates.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PemError {
    /// There is no certificate in it.
    #[error("cannot find a certificate in this PEM")]
    Empty,
    /// Not PEM.
    #[error("cannot read PEM")]
    Malformed {
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// Too many certificates, or too much text.
    #[error("cannot read PEM of more than {CERTS_MAX} certificates or {TEXT_BYTES_MAX} bytes")]
    TooLong,
}

/// A chain is three certificates, a bundle through a rotation eight.
const CERTS_MAX: usize = 16;
/// RFC 7468 §2.
const LINE_CHARS: usize = 64;
const TEXT_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let certs = [vec![1; 100], vec![2; 48]];
        assert_eq!(to_certs(&from_certs(&certs)).unwrap(), certs);
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        assert!(matches!(to_certs(""), Err(PemError::Empty)));
        assert!(matches!(
            to_certs(&from_certs(&[[0u8; 1]; 17])),
            Err(PemError::TooLong)
        ));
        assert!(matches!(
            to_certs("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"),
            Err(PemError::Malformed { .. })
        ));
    }
}
