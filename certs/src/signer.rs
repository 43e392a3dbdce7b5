//! Signatures under content.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use thiserror::Error;
use webpki::EndEntityCert;

use crate::chain::{self, Usage};
use crate::crl::{IssuerId, Verdict};
use crate::key::{KeyError, SigningKey};
use crate::name::{Identity, Role};
use crate::peer::Peer;
use crate::refusal::RefusalReason;
use crate::serial::Serial;
use crate::trust::Trust;

/// Signs content at the origin.
#[derive(Debug)]
pub struct ContentSigner {
    chain_der: Vec<Vec<u8>>,
    key: Arc<dyn SigningKey>,
}

impl ContentSigner {
    /// Puts a signer together: its certificate, then that of the Content CA.
    ///
    /// # Errors
    ///
    /// Fails if the chain is empty or its first certificate is not for this key.
    pub fn new(
        chain_der: Vec<Vec<u8>>,
        key: impl Into<Arc<dyn SigningKey>>,
    ) -> Result<Self, SignerError> {
        let key = key.into();
        let leaf = chain_der.first().ok_or(SignerError::Certificate)?;
        let leaf = CertificateDer::from(leaf.as_slice());
        let leaf = EndEntityCert::try_from(&leaf).map_err(|_| SignerError::Certificate)?;
        if leaf.subject_public_key_info().as_ref() != key.spki_der() {
            return Err(SignerError::KeyMismatch);
        }
        Ok(Self { chain_der, key })
    }

    /// Its certificate, then that of the Content CA, in DER: what travels beside a
    /// signature.
    pub fn chain_der(&self) -> &[Vec<u8>] {
        &self.chain_der
    }

    /// Signs `message` with ECDSA on P-256 and SHA-256; the signature is in DER.
    ///
    /// # Errors
    ///
    /// Fails only if whoever keeps the key does not sign.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.key.sign(message)
    }
}

/// Who signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignerCert {
    /// Its name.
    pub identity: Identity,
    /// Who issued its certificate.
    pub issuer: IssuerId,
    /// The serial of its certificate.
    pub serial: Serial,
    /// SHA-256 of its certificate in DER.
    pub cert_sha256: [u8; 32],
}

/// Verifies that somebody whom the origin lets sign content signed `message`.
///
/// The chain must hold at `at`, the time at which the content says it was made. Revocation
/// has no time: content of a signer that is on the Content CA's list *now* counts for
/// nothing, whatever date it bears. How old that list is, is judged elsewhere: the timestamp
/// names the least number.
///
/// # Errors
///
/// Fails if the chain does not hold for signing content at `at`, if there is no list of the
/// Content CA, if signer or CA are revoked, or the signature is wrong.
pub fn verify_content(
    trust: &Trust,
    chain_der: &[Vec<u8>],
    message: &[u8],
    signature: &[u8],
    at: i64,
) -> Result<SignerCert, SignerError> {
    let peer = verify(trust, chain_der, message, signature, at, Usage::Content)?;
    match trust.crls().lookup(peer.issuer, peer.serial, at) {
        Verdict::Revoked { .. } => return Err(SignerError::Revoked),
        Verdict::NoCrl => {
            return Err(SignerError::NoCrl {
                issuer: peer.issuer,
            });
        }
        Verdict::Good | Verdict::Stale => {}
    }
    if let Verdict::Revoked { .. } = trust.crls().lookup(peer.root, peer.issuer_serial, at) {
        return Err(SignerError::Revoked);
    }
    Ok(SignerCert {
        identity: peer.identity,
        issuer: peer.issuer,
        serial: peer.serial,
        cert_sha256: peer.cert_sha256,
    })
}

/// Verifies that a client signed `message`, and may be spoken to at `now`.
///
/// Identity comes from the certificate that travels with the signature, whoever brought it.
///
/// # Errors
///
/// Fails if the chain does not hold for a client at `now`, if it or its CA is revoked or the lists
/// cannot tell, or if the signature is wrong.
pub fn verify_client(
    trust: &Trust,
    chain_der: &[Vec<u8>],
    message: &[u8],
    signature: &[u8],
    now: i64,
) -> Result<Peer, SignerError> {
    let peer = verify(trust, chain_der, message, signature, now, Usage::Client)?;
    if peer.role() != Role::Client {
        let reason = RefusalReason::WrongRole;
        return Err(SignerError::Chain { reason });
    }
    trust
        .check(&peer, now)
        .map_err(|reason| SignerError::Chain { reason })?;
    Ok(peer)
}

/// Whose chain holds at `at` and who has signed `message`.
fn verify(
    trust: &Trust,
    chain_der: &[Vec<u8>],
    message: &[u8],
    signature: &[u8],
    at: i64,
    usage: Usage,
) -> Result<Peer, SignerError> {
    let (leaf, intermediates) = chain_der.split_first().ok_or(SignerError::Certificate)?;
    let intermediates: Vec<CertificateDer<'_>> = intermediates
        .iter()
        .map(|cert| CertificateDer::from(cert.as_slice()))
        .collect();
    let peer = chain::verify(trust, leaf, &intermediates, at, usage)
        .map_err(|reason| SignerError::Chain { reason })?;
    let cert = CertificateDer::from(leaf.as_slice());
    EndEntityCert::try_from(&cert)
        .and_then(|cert| {
            cert.verify_signature(webpki::aws_lc_rs::ECDSA_P256_SHA256, message, signature)
        })
        .map_err(|_| SignerError::Signature)?;
    Ok(peer)
}

/// Why a signature counts for nothing.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SignerError {
    /// No certificate, or none that can be read.
    #[error("cannot read the signer's certificate")]
    Certificate,
    /// The chain does not hold.
    #[error("cannot trust the signer's certificate: {reason}")]
    Chain {
        /// Why not.
        reason: RefusalReason,
    },
    /// The key does not belong to the certificate.
    #[error("cannot sign with a key that does not belong to the certificate")]
    KeyMismatch,
    /// The Content CA's revocation list has to be fetched first.
    #[error("cannot trust a signer without a revocation list of {issuer}")]
    NoCrl {
        /// Whose list.
        issuer: IssuerId,
    },
    /// Signer or CA are revoked.
    #[error("cannot trust a revoked signer")]
    Revoked,
    /// Not this signer's signature over this message.
    #[error("cannot verify the signature")]
    Signature,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Role;
    use crate::testing::{Bed, DAY, NOW, Own};

    fn signer(own: Own) -> ContentSigner {
        ContentSigner::new(own.chain, own.key).unwrap()
    }

    #[test]
    fn what_a_signer_signs_is_known_for_its_own() {
        let bed = Bed::new();
        let own = bed.own(Role::Signer, "content-1");
        let serial = own.serial();
        let signer = signer(own);
        let signature = signer.sign(b"message").unwrap();
        let chain = signer.chain_der();
        let verify = |message: &[u8], at| {
            verify_content(&bed.trust, chain, message, &signature, at).map(|cert| cert.serial)
        };
        assert_eq!(verify(b"message", NOW), Ok(serial));
        assert_eq!(verify(b"massage", NOW), Err(SignerError::Signature));
        let expired = SignerError::Chain {
            reason: RefusalReason::Expired,
        };
        assert_eq!(verify(b"message", NOW + 31 * DAY), Err(expired));
        assert_eq!(
            verify(b"message", NOW + 29 * DAY),
            Ok(serial),
            "a stale list is not our affair"
        );
        bed.publish(&bed.content, 2, &[serial]);
        assert_eq!(verify(b"message", NOW), Err(SignerError::Revoked));
    }

    #[test]
    fn nobody_else_signs_content() {
        let bed = Bed::new();
        for role in [Role::Origin, Role::Booster, Role::Client] {
            let signer = signer(bed.own(role, "x"));
            let signature = signer.sign(b"message").unwrap();
            let got = verify_content(&bed.trust, signer.chain_der(), b"message", &signature, NOW);
            let want = SignerError::Chain {
                reason: RefusalReason::WrongEku,
            };
            assert_eq!(got, Err(want), "{role}");
        }
        let foreign = signer(Bed::new().own(Role::Signer, "x"));
        let signature = foreign.sign(b"message").unwrap();
        assert!(
            verify_content(&bed.trust, foreign.chain_der(), b"message", &signature, NOW).is_err()
        );
    }

    #[test]
    fn without_the_content_cas_list_nothing_is_believed() {
        let bed = Bed::without_lists();
        let signer = signer(bed.own(Role::Signer, "x"));
        let signature = signer.sign(b"message").unwrap();
        let got = verify_content(&bed.trust, signer.chain_der(), b"message", &signature, NOW);
        assert_eq!(
            got,
            Err(SignerError::NoCrl {
                issuer: bed.content.id()
            })
        );
    }

    #[test]
    fn a_signer_needs_its_own_key() {
        let bed = Bed::new();
        let (one, other) = (bed.own(Role::Signer, "a"), bed.own(Role::Signer, "b"));
        let got = ContentSigner::new(one.chain, other.key).map(drop);
        assert_eq!(got, Err(SignerError::KeyMismatch));
    }
}
