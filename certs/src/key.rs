//! Private keys: ECDSA on P-256, everywhere.

use std::fmt;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::digest::sha256;

mod encrypted;
mod signing;

pub use encrypted::{Passphrase, PassphraseError};
pub(crate) use signing::ForLibrary;
pub use signing::SigningKey;

/// The SHA-256 of a key's public half as persons compare it: 64 lower-case hexadecimal digits in
/// groups of four, with a space between. All programs show it alike.
#[must_use]
pub fn fingerprint(spki_sha256: &[u8; 32]) -> String {
    let group = |pair: &[u8]| format!("{:02x}{:02x}", pair[0], pair[1]);
    let groups: Vec<String> = spki_sha256.chunks_exact(2).map(group).collect();
    groups.join(" ")
}

/// A private key on P-256. Wiped from memory when dropped; never printed.
pub struct Key {
    pair: KeyPair,
    spki_der: Vec<u8>,
}

impl Key {
    /// Generates a new key from the operating system's randomness.
    ///
    /// # Errors
    ///
    /// Fails only if there is no randomness to be had.
    pub fn generate() -> Result<Self, KeyError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(Self::of)
            .map_err(|source| KeyError::Generate { source })
    }

    /// Reads a PKCS#8 key in PEM.
    ///
    /// # Errors
    ///
    /// Fails if it is anything but one P-256 key.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            return Err(KeyError::Encrypted);
        }
        KeyPair::from_pkcs8_pem_and_sign_algo(text, &PKCS_ECDSA_P256_SHA256)
            .map(Self::of)
            .map_err(|source| KeyError::Read { source })
    }

    fn from_pkcs8(der: &PrivatePkcs8KeyDer<'_>) -> Result<Self, KeyError> {
        KeyPair::from_pkcs8_der_and_sign_algo(der, &PKCS_ECDSA_P256_SHA256)
            .map(Self::of)
            .map_err(|source| KeyError::Read { source })
    }

    /// The key as PKCS#8 in PEM, in memory that is wiped when dropped.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.pair.serialize_pem())
    }

    /// A second handle to the same key.
    pub fn duplicate(&self) -> Self {
        let der = PrivatePkcs8KeyDer::from(self.pair.serialized_der());
        Self::from_pkcs8(&der).expect("a key that was read once can be read again")
    }

    /// The public half: a SubjectPublicKeyInfo in DER (RFC 5280 §4.1.2.7).
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// SHA-256 of the public half: what a pin or a request is known by.
    pub fn spki_sha256(&self) -> [u8; 32] {
        sha256(&self.spki_der)
    }

    /// [`fingerprint`] of the public half.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.spki_sha256())
    }

    /// Signs `message` with ECDSA and SHA-256; the signature is in DER (RFC 3279 §2.2.3).
    ///
    /// # Errors
    ///
    /// Fails only if there is no randomness to be had.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        rcgen::SigningKey::sign(&self.pair, message).map_err(|source| KeyError::Sign { source })
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    pub(crate) fn to_private_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pair.serialize_der()))
    }

    fn of(pair: KeyPair) -> Self {
        let spki_der = pair.subject_public_key_info();
        Self { pair, spki_der }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.pair.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(spki ")?;
        crate::digest::write_hex(f, &self.spki_sha256())?;
        f.write_str(")")
    }
}

/// `N` bytes from the operating system's randomness, fit for serials and tokens.
///
/// # Errors
///
/// Fails only if there is no randomness to be had.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

/// Why a key could not be made, read or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Decrypting it would take too much memory or time.
    #[error("cannot decrypt a key that asks for more than 128 MiB, or for too much work")]
    Cost,
    /// It wants a passphrase.
    #[error("cannot read an encrypted key without its passphrase")]
    Encrypted,
    /// Whoever keeps the key would not sign.
    #[error("cannot sign with a key that is kept elsewhere")]
    Elsewhere {
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Encrypted in a way that we do not use, or no key at all.
    #[error(
        "cannot read an encrypted key: want PKCS#8 PEM with scrypt, \
         as openssl pkcs8 -topk8 -scrypt writes it"
    )]
    Encryption,
    /// The library would not make one.
    #[error("cannot generate a key")]
    Generate {
        /// What it said.
        source: rcgen::Error,
    },
    /// A passphrase was given for a key that is not encrypted: it lies open where somebody
    /// believes it closed.
    #[error("cannot take a key that should be encrypted and is not")]
    NotEncrypted,
    /// The passphrase is wrong, or the file is damaged: there is no telling which.
    #[error("cannot decrypt the key: the passphrase is wrong, or the file is damaged")]
    Passphrase,
    /// The operating system gave no random bytes.
    #[error("cannot obtain random bytes")]
    Random,
    /// Not a key that we use.
    #[error("cannot read a P-256 key in PKCS#8 PEM")]
    Read {
        /// What the library said.
        source: rcgen::Error,
    },
    /// The library would not sign.
    #[error("cannot sign")]
    Sign {
        /// What it said.
        source: rcgen::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_pem() {
        let key = Key::generate().unwrap();
        let again = Key::from_pem(&key.to_pem()).unwrap();
        assert_eq!(key.spki_der(), again.spki_der());
        assert_eq!(key.duplicate().spki_sha256(), again.spki_sha256());
    }

    #[test]
    fn a_fingerprint_is_64_digits_in_groups_of_four() {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&[0x0a, 0xbc, 0xde, 0xf0]);
        let shown = fingerprint(&hash);
        assert!(shown.starts_with("0abc def0 0000 "), "{shown}");
        assert_eq!(shown.len(), 16 * 4 + 15);
        let key = Key::generate().unwrap();
        assert_eq!(key.fingerprint(), fingerprint(&key.spki_sha256()));
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert!(Key::from_pem(&other.serialize_pem()).is_err());
        assert!(Key::from_pem("nonsense").is_err());
    }

    #[test]
    fn printing_a_key_shows_no_secret() {
        let key = Key::generate().unwrap();
        let shown = format!("{key:?}");
        assert!(
            shown.starts_with("Key(spki ") && shown.len() == 9 + 64 + 1,
            "{shown}"
        );
    }
}
