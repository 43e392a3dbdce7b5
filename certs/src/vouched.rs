//! Signatures on issuing CAs that have been verified once.
//!
//! Every handshake walks the same chain but for its first certificate. That a root has signed an
//! issuing CA does not change, so that signature is remembered, byte for byte; all else about the
//! chain is looked at each time.

use std::sync::Arc;

use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

use crate::ca_cert::CaCert;
use crate::chain::is_signed_by;
use crate::crl::IssuerId;

/// An issuing CA and the root's signature on it, which holds.
#[derive(Debug)]
pub(crate) struct Vouched {
    pub(crate) ca: Arc<CaCert>,
    pub(crate) root: IssuerId,
    /// The root's public key, as it stands in the key's bit string.
    key: Vec<u8>,
    /// What is signed.
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Vouched {
    /// Verifies that one of `roots` has signed `ca`. None if none has.
    pub(crate) fn verify(roots: &[Arc<CaCert>], ca: &Arc<CaCert>) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(ca.der()).ok()?;
        let mut signers = roots
            .iter()
            .filter(|root| root.subject_der() == cert.issuer().as_raw());
        let root = signers.find(|root| is_signed_by(&cert, root))?;
        let (_, key) = SubjectPublicKeyInfo::from_der(root.spki_der()).ok()?;
        Some(Self {
            ca: Arc::clone(ca),
            root: root.id(),
            key: key.subject_public_key.data.to_vec(),
            message: cert.tbs_certificate.as_ref().to_vec(),
            signature: cert.signature_value.data.to_vec(),
        })
    }

    fn is(&self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        self.key == key && self.message == message && self.signature == signature
    }
}

/// A signature algorithm that knows some signatures by heart. Which algorithm they are by need not
/// be compared: what is signed names it, and the library holds that against the certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByHeart<'a> {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    vouched: &'a [Arc<Vouched>],
}

impl<'a> ByHeart<'a> {
    pub(crate) fn new(
        algorithm: &'static dyn SignatureVerificationAlgorithm,
        vouched: &'a [Arc<Vouched>],
    ) -> Self {
        Self { algorithm, vouched }
    }
}

impl SignatureVerificationAlgorithm for ByHeart<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let mut known = self.vouched.iter();
        if known.any(|vouched| vouched.is(public_key, message, signature)) {
            return Ok(());
        }
        self.algorithm
            .verify_signature(public_key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::Bed;
    use crate::{CaKind, CrlStore, RefusalReason, Role, Trust};

    /// Takes no signature for good.
    #[derive(Debug)]
    struct Never;

    impl SignatureVerificationAlgorithm for Never {
        fn verify_signature(&self, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
            Err(InvalidSignature)
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            AlgorithmIdentifier::from_slice(&[])
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            AlgorithmIdentifier::from_slice(&[])
        }
    }

    #[test]
    fn the_signature_on_an_issuing_ca_is_known_by_heart_and_no_other_is() {
        let bed = Bed::new();
        let known = bed.trust.known();
        assert_eq!(known.vouched.len(), CaKind::ALL.len());
        let vouched = &known.vouched[0];
        let algorithm = ByHeart::new(&Never, &known.vouched);
        let check = |at: usize, byte: Option<usize>| {
            let mut parts = [&vouched.key, &vouched.message, &vouched.signature].map(Vec::clone);
            if let Some(byte) = byte {
                parts[at][byte] ^= 1;
            }
            let [key, message, signature] = &parts;
            algorithm.verify_signature(key, message, signature).is_ok()
        };
        assert!(check(0, None));
        for (at, length) in [
            (0, vouched.key.len()),
            (1, vouched.message.len()),
            (2, vouched.signature.len()),
        ] {
            for byte in 0..length {
                assert!(!check(at, Some(byte)), "part {at}, byte {byte}");
            }
        }
        // A signature is good for the certificate that it is on, and for no other.
        let other = &known.vouched[1];
        let swapped = algorithm.verify_signature(&vouched.key, &other.message, &vouched.signature);
        assert!(swapped.is_err());
    }

    #[test]
    fn an_issuing_ca_that_is_met_on_the_way_is_vouched_for_once_it_has_been_verified() {
        let bed = Bed::new();
        let store = Arc::new(CrlStore::new(Duration::ZERO));
        let trust = Trust::new(&[bed.root.cert_der()], store, bed.now()).unwrap();
        let own = bed.own(Role::Client, "d1");
        let verify = |ca: Vec<u8>| trust.verify_client(&own.chain[0], &[ca.into()], bed.now());
        let mut forged = own.chain[1].clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(verify(forged), Err(RefusalReason::BadSignature));
        assert!(trust.known().vouched.is_empty());
        let peer = verify(own.chain[1].clone()).unwrap();
        let vouched: Vec<_> = trust.known().vouched.iter().map(|it| it.root).collect();
        assert_eq!(vouched, [peer.root]);
        assert_eq!(verify(own.chain[1].clone()), Ok(peer));
    }
}
