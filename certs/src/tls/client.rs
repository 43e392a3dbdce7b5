//! Judges those whom we connect to.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::time_provider::TimeProvider;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Expected, capture, seconds, unix};
use crate::chain;
use crate::peer::Peer;
use crate::refusal::RefusalReason;
use crate::trust::{Revocation, Trust};

/// The mirror image of the server's verifier, with a name to compare.
#[derive(Debug)]
pub(super) struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    expected: Expected,
    revocation: Revocation,
    time: Arc<dyn TimeProvider>,
    trust: Arc<Trust>,
}

impl Verifier {
    pub(super) fn new(
        trust: &Arc<Trust>,
        expected: Expected,
        revocation: Revocation,
        time: &Arc<dyn TimeProvider>,
    ) -> Self {
        Self {
            algorithms: super::provider().signature_verification_algorithms,
            expected,
            revocation,
            time: Arc::clone(time),
            trust: Arc::clone(trust),
        }
    }

    fn admit(
        &self,
        leaf: &CertificateDer<'_>,
        signature: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = signature.inspect_err(|error| {
            let reason = RefusalReason::of_error(error);
            drop(capture::judged(leaf, false, Err(reason)));
        })?;
        capture::judged(leaf, true, self.judge(leaf)).map_err(RefusalReason::to_error)?;
        Ok(valid)
    }

    fn judge(&self, leaf: &CertificateDer<'_>) -> Result<Peer, RefusalReason> {
        let peer = chain::peer_again(&self.trust, leaf)?;
        self.expect(&peer)?;
        self.trust
            .check_with(&peer, self.revocation, seconds(self.time.as_ref()))?;
        Ok(peer)
    }

    /// Role before name: "this is a client" says more than "this is somebody else".
    fn expect(&self, peer: &Peer) -> Result<(), RefusalReason> {
        match &self.expected {
            Expected::AnyOf(role) if peer.role() != *role => Err(RefusalReason::WrongRole),
            Expected::Exactly(identity) if peer.role() != identity.role => {
                Err(RefusalReason::WrongRole)
            }
            Expected::Exactly(identity) if peer.identity() != identity => {
                Err(RefusalReason::NameMismatch)
            }
            Expected::AnyOf(_) | Expected::Exactly(_) => Ok(()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name that we asked for is derived from the identity that we expect, and an
        // identity's DNS name is checked with the chain: comparing identities covers both.
        let peer = self
            .trust
            .verify_server(end_entity, intermediates, unix(now))
            .and_then(|peer| self.expect(&peer).map(|()| peer));
        capture::judged(end_entity, false, peer).map_err(RefusalReason::to_error)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.admit(
            cert,
            verify_tls12_signature(message, cert, dss, &self.algorithms),
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.admit(
            cert,
            verify_tls13_signature(message, cert, dss, &self.algorithms),
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Takes anybody who holds the key to whatever certificate it shows.
#[derive(Debug)]
pub(super) struct TrustsAnybody {
    algorithms: WebPkiSupportedAlgorithms,
}

impl TrustsAnybody {
    pub(super) fn new() -> Self {
        Self {
            algorithms: super::provider().signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for TrustsAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
            .inspect(|_| capture::shown(cert))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
            .inspect(|_| capture::shown(cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
