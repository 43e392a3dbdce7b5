//! Judges those who connect to us.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{capture, seconds, unix};
use crate::chain;
use crate::name::Role;
use crate::peer::Peer;
use crate::refusal::RefusalReason;
use crate::trust::Trust;

/// Chain first, then the proof of possession, and only then role and revocation: judged the
/// other way round, anybody who has ever seen a certificate could make its owner look bad.
#[derive(Debug)]
pub(super) struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    mandatory: bool,
    roles: Vec<Role>,
    time: Arc<dyn TimeProvider>,
    trust: Arc<Trust>,
}

impl Verifier {
    pub(super) fn new(
        trust: &Arc<Trust>,
        roles: Vec<Role>,
        mandatory: bool,
        time: &Arc<dyn TimeProvider>,
    ) -> Self {
        Self {
            algorithms: super::provider().signature_verification_algorithms,
            mandatory,
            roles,
            time: Arc::clone(time),
            trust: Arc::clone(trust),
        }
    }

    /// What remains once the peer has proved that it holds the key of `leaf`.
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
        if !self.roles.contains(&peer.role()) {
            return Err(RefusalReason::WrongRole);
        }
        self.trust.check(&peer, seconds(self.time.as_ref()))?;
        Ok(peer)
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Our clients have one certificate. Why name the deployment to strangers?
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let peer = self
            .trust
            .verify_client(end_entity, intermediates, unix(now));
        capture::judged(end_entity, false, peer).map_err(RefusalReason::to_error)?;
        Ok(ClientCertVerified::assertion())
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
