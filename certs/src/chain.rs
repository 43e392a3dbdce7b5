//! Verifies certificate chains: leaf, issuing CA, root, and never anything else.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ca_cert::{CERT_BYTES_MAX, CLIENT_AUTH, CONTENT_SIGNING, CaCert, CaKind, SERVER_AUTH};
use crate::crl::IssuerId;
use crate::digest::sha256;
use crate::name::{Identity, Role};
use crate::peer::Peer;
use crate::refusal::RefusalReason;
use crate::serial::Serial;
use crate::trust::{Known, Trust};
use crate::vouched::{ByHeart, Vouched};

/// What a certificate is presented for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Usage {
    Client,
    Content,
    Server,
}

impl Usage {
    /// Required, not required-if-present: a certificate without any purpose would pass for
    /// every purpose.
    fn key_usage(self) -> KeyUsage {
        KeyUsage::required(match self {
            Self::Client => CLIENT_AUTH,
            Self::Content => CONTENT_SIGNING,
            Self::Server => SERVER_AUTH,
        })
    }
}

/// Verifies that `leaf_der` chains to one of our roots through one issuing CA, which is of
/// the kind that certifies the leaf's role. Learns that CA if it was not known.
pub(crate) fn verify(
    trust: &Trust,
    leaf_der: &[u8],
    intermediates: &[CertificateDer<'_>],
    now: i64,
    usage: Usage,
) -> Result<Peer, RefusalReason> {
    if leaf_der.len() > CERT_BYTES_MAX || intermediates.len() > INTERMEDIATES_MAX {
        return Err(RefusalReason::Protocol);
    }
    let known = trust.known();
    let leaf = CertificateDer::from(leaf_der);
    let end_entity = EndEntityCert::try_from(&leaf).map_err(|error| reason_of(&error))?;
    let candidates: Vec<CertificateDer<'_>> = known
        .issuing
        .iter()
        .map(|ca| CertificateDer::from(ca.der()))
        .chain(intermediates.iter().cloned())
        .collect();
    let algorithms: Vec<ByHeart<'_>> = webpki::ALL_VERIFICATION_ALGS
        .iter()
        .map(|algorithm| ByHeart::new(*algorithm, &known.vouched))
        .collect();
    let algorithms: Vec<&dyn SignatureVerificationAlgorithm> =
        algorithms.iter().map(|it| it as _).collect();
    let path = end_entity
        .verify_for_usage(
            &algorithms,
            &known.anchors,
            &candidates,
            unix_time(now),
            usage.key_usage(),
            None,
            None,
        )
        .map_err(|error| reason_of(&error))?;
    let mut between = path.intermediate_certificates();
    let (Some(issuer), None) = (between.next(), between.next()) else {
        return Err(RefusalReason::UnknownIssuer);
    };
    let issuer_der = issuer.der();
    let issuer = match known
        .issuing
        .iter()
        .find(|ca| ca.der() == issuer_der.as_ref())
    {
        Some(ca) => Arc::clone(ca),
        None => {
            let ca = CaCert::parse(&issuer_der).map_err(|_| RefusalReason::UnknownIssuer)?;
            trust.learn_issuing(Arc::new(ca))
        }
    };
    peer(trust, &known, leaf_der, &issuer)
}

/// The peer in a leaf that [`verify`] has passed: the handshake's second step is shown the
/// leaf alone.
pub(crate) fn peer_again(trust: &Trust, leaf_der: &[u8]) -> Result<Peer, RefusalReason> {
    let known = trust.known();
    let (_, cert) = X509Certificate::from_der(leaf_der).map_err(|_| RefusalReason::Protocol)?;
    let issuer = known
        .issuing
        .iter()
        .filter(|ca| ca.subject_der() == cert.issuer().as_raw())
        // Names carry the generation and are unique. Should two CAs share one all the same,
        // only the signature tells whose list counts.
        .find(|ca| {
            let unique = known
                .issuing
                .iter()
                .filter(|it| it.subject_der() == ca.subject_der())
                .count()
                == 1;
            unique || is_signed_by(&cert, ca)
        })
        .ok_or(RefusalReason::UnknownIssuer)?;
    peer(trust, &known, leaf_der, issuer)
}

/// The root among `known` that has signed `ca`.
pub(crate) fn root_of(known: &Known, ca: &Arc<CaCert>) -> Option<IssuerId> {
    let mut vouched = known.vouched.iter();
    match vouched.find(|vouched| vouched.ca.der() == ca.der()) {
        Some(vouched) => Some(vouched.root),
        None => Vouched::verify(&known.roots, ca).map(|vouched| vouched.root),
    }
}

pub(crate) fn is_signed_by(cert: &X509Certificate<'_>, ca: &CaCert) -> bool {
    x509_parser::prelude::SubjectPublicKeyInfo::from_der(ca.spki_der())
        .is_ok_and(|(_, key)| cert.verify_signature(Some(&key)).is_ok())
}

fn peer(
    trust: &Trust,
    known: &Known,
    leaf_der: &[u8],
    issuer: &Arc<CaCert>,
) -> Result<Peer, RefusalReason> {
    let (_, cert) = X509Certificate::from_der(leaf_der).map_err(|_| RefusalReason::Protocol)?;
    let identity = identity(&cert)?;
    let right_ca = issuer.kind() == Some(CaKind::of(identity.role))
        && issuer.deployment() == trust.deployment()
        && &identity.deployment == trust.deployment();
    let usage = cert.key_usage().map_err(|_| RefusalReason::Protocol)?;
    let signs = usage.is_some_and(|usage| usage.value.digital_signature());
    if !right_ca || !signs || cert.is_ca() {
        return Err(RefusalReason::WrongRole);
    }
    let serial =
        Serial::from_der_integer(cert.raw_serial()).map_err(|_| RefusalReason::Protocol)?;
    let root = root_of(known, issuer).ok_or(RefusalReason::UnknownIssuer)?;
    Ok(Peer {
        identity,
        serial,
        issuer: issuer.id(),
        not_before: cert.validity().not_before.timestamp(),
        not_after: cert.validity().not_after.timestamp(),
        cert_sha256: sha256(leaf_der),
        spki_sha256: sha256(cert.public_key().raw),
        issuer_serial: issuer.serial(),
        root,
    })
}

/// The name in a leaf: exactly one URI, and for those who listen exactly their DNS name.
fn identity(cert: &X509Certificate<'_>) -> Result<Identity, RefusalReason> {
    let names = cert
        .subject_alternative_name()
        .map_err(|_| RefusalReason::Protocol)?;
    let names = names.map_or(&[][..], |names| names.value.general_names.as_slice());
    let mut identity = None;
    let mut dns = None;
    for name in names {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "no other kind of name is ours"
        )]
        let before = match name {
            GeneralName::URI(uri) => identity
                .replace(
                    uri.parse::<Identity>()
                        .map_err(|_| RefusalReason::WrongRole)?,
                )
                .is_some(),
            GeneralName::DNSName(name) => dns.replace(*name).is_some(),
            _ => true,
        };
        if before {
            return Err(RefusalReason::WrongRole);
        }
    }
    let identity = identity.ok_or(RefusalReason::WrongRole)?;
    if identity.dns().as_deref() == dns {
        Ok(identity)
    } else {
        Err(RefusalReason::WrongRole)
    }
}

fn reason_of(error: &webpki::Error) -> RefusalReason {
    use webpki::Error;
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the rest is malformed in some way"
    )]
    match error {
        Error::CertExpired { .. } => RefusalReason::Expired,
        Error::CertNotValidYet { .. } => RefusalReason::NotYetValid,
        Error::InvalidSignatureForPublicKey => RefusalReason::BadSignature,
        Error::UnknownIssuer
        | Error::EndEntityUsedAsCa
        | Error::PathLenConstraintViolated
        | Error::IssuerNotCrlSigner => RefusalReason::UnknownIssuer,
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => RefusalReason::WrongEku,
        Error::CaUsedAsEndEntity | Error::NameConstraintViolation => RefusalReason::WrongRole,
        Error::CertNotValidForName(_) => RefusalReason::NameMismatch,
        _ => RefusalReason::Protocol,
    }
}

fn unix_time(now: i64) -> UnixTime {
    let seconds = u64::try_from(now).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

/// Whether `role` is one of those that a TLS server may have.
pub(crate) fn listens(role: Role) -> bool {
    CaKind::of(role) == CaKind::Node
}

/// Peers send one; the verifier's work grows with each.
const INTERMEDIATES_MAX: usize = 4;
