//! A party whose certificate has been verified.

use crate::crl::IssuerId;
use crate::name::{DeviceId, Identity, Role};
use crate::serial::Serial;

/// Who is at the other end.
///
/// There is no other way to come by one than through a chain that verified, so a function
/// that takes a `Peer` need not ask where it came from. Whether its certificate has been
/// revoked since is for [`crate::Trust::check`] to say, again and again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    pub(crate) identity: Identity,
    pub(crate) serial: Serial,
    pub(crate) issuer: IssuerId,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    pub(crate) cert_sha256: [u8; 32],
    pub(crate) spki_sha256: [u8; 32],
    /// The certificate of its issuer: that may be revoked too, on the list of `root`.
    pub(crate) issuer_serial: Serial,
    pub(crate) root: IssuerId,
}

impl Peer {
    /// Its name.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What it is.
    pub fn role(&self) -> Role {
        self.identity.role
    }

    /// What it is called within its role.
    pub fn id(&self) -> &DeviceId {
        &self.identity.id
    }

    /// The serial of its certificate.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// Who issued its certificate.
    pub fn issuer(&self) -> IssuerId {
        self.issuer
    }

    /// The first second of its certificate's life, in Unix seconds.
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// The last second of its certificate's life, in Unix seconds.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// SHA-256 of its certificate in DER.
    pub fn cert_sha256(&self) -> &[u8; 32] {
        &self.cert_sha256
    }

    /// SHA-256 of its key as a SubjectPublicKeyInfo in DER: a certificate that is renewed for the
    /// same key has the same.
    pub fn spki_sha256(&self) -> &[u8; 32] {
        &self.spki_sha256
    }
}
