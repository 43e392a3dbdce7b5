//! Keys that sign for us, wherever they are kept.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData};

use super::{Key, KeyError};
use crate::digest::sha256;

/// A private key on P-256 that we may use, and perhaps never see: in memory like [`Key`], or
/// in a token of somebody else's making.
///
/// Signing may wait for hardware: from async code, sign on a thread that may block.
pub trait SigningKey: fmt::Debug + Send + Sync {
    /// The public half: a SubjectPublicKeyInfo in DER (RFC 5280 §4.1.2.7) with an
    /// uncompressed point of P-256.
    fn spki_der(&self) -> &[u8];

    /// Signs `message` with ECDSA and SHA-256; the signature is in DER (RFC 3279 §2.2.3).
    ///
    /// # Errors
    ///
    /// Fails if whoever keeps the key does not sign.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// SHA-256 of the public half: what a pin or an issuer is known by.
    fn spki_sha256(&self) -> [u8; 32] {
        sha256(self.spki_der())
    }
}

impl SigningKey for Key {
    fn spki_der(&self) -> &[u8] {
        self.spki_der()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sign(message)
    }
}

impl From<Key> for Arc<dyn SigningKey> {
    fn from(key: Key) -> Self {
        Arc::new(key)
    }
}

/// A key as the library that writes certificates wants it. Keeps the error that the library
/// cannot carry.
#[derive(Debug)]
pub(crate) struct ForLibrary<'a> {
    key: &'a dyn SigningKey,
    error: RefCell<Option<KeyError>>,
}

impl<'a> ForLibrary<'a> {
    pub(crate) fn new(key: &'a dyn SigningKey) -> Self {
        Self {
            key,
            error: RefCell::default(),
        }
    }

    /// Why the key did not sign, if that is what went wrong.
    pub(crate) fn take_error(&self) -> Option<KeyError> {
        self.error.take()
    }
}

impl PublicKeyData for ForLibrary<'_> {
    fn der_bytes(&self) -> &[u8] {
        let spki = self.key.spki_der();
        &spki[spki.len().saturating_sub(POINT_BYTES)..]
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for ForLibrary<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(message).map_err(|error| {
            self.error.replace(Some(error));
            rcgen::Error::RemoteKeyError
        })
    }
}

/// An uncompressed point of P-256: a byte 4 and two coordinates (SEC 1 §2.3.3), which is how
/// its SubjectPublicKeyInfo ends.
const POINT_BYTES: usize = 65;
