//! CA certificates: what one must look like before we believe anything that it signed.
//!
//! The verification library checks little about an anchor and not everything about an
//! intermediate (it ignores an anchor's validity and key usage altogether), so each CA
//! certificate passes through here when it is loaded.

use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::crl::IssuerId;
use crate::digest::sha256;
use crate::name::{DeploymentId, Role};

/// What an issuing CA may certify.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum CaKind {
    /// Those who listen: origin and boosters.
    Node,
    /// Devices.
    Client,
    /// Signers of content.
    Content,
}

impl CaKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Node, Self::Client, Self::Content];

    /// The kind of CA that certifies `role`.
    pub fn of(role: Role) -> Self {
        match role {
            Role::Origin | Role::Booster => Self::Node,
            Role::Client => Self::Client,
            Role::Signer => Self::Content,
        }
    }

    /// The name as it stands in a CA's common name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Client => "Client",
            Self::Content => "Content",
        }
    }
}

/// The certificate of a root or of an issuing CA, found to be in order by itself.
///
/// Whether anybody trusts it is a different question: see [`crate::Trust`].
#[derive(Clone, Debug)]
pub struct CaCert {
    der: Vec<u8>,
    deployment: DeploymentId,
    id: IssuerId,
    kind: Option<CaKind>,
    not_after: i64,
    not_before: i64,
    serial: crate::Serial,
    spki_der: Vec<u8>,
    subject_der: Vec<u8>,
}

impl CaCert {
    /// Reads a CA certificate and checks its profile: a CA that may sign certificates and
    /// revocation lists, that names its deployment, and is either a self-signed root with
    /// room for one CA below it, or an issuing CA of one kind with room for none.
    ///
    /// # Errors
    ///
    /// Fails if the certificate is over 8 KiB, malformed, or departs from the profile.
    pub fn parse(der: &[u8]) -> Result<Self, CaCertError> {
        if der.len() > CERT_BYTES_MAX {
            return Err(CaCertError::Malformed);
        }
        let (rest, cert) = X509Certificate::from_der(der).map_err(|_| CaCertError::Malformed)?;
        if !rest.is_empty() {
            return Err(CaCertError::Malformed);
        }
        check_usage(&cert)?;
        let is_root = cert.subject().as_raw() == cert.issuer().as_raw();
        if is_root {
            cert.verify_signature(None)
                .map_err(|_| CaCertError::NotSelfSigned)?;
        }
        check_path_length(&cert, is_root)?;
        let life = cert.validity();
        if life.not_after < life.not_before {
            return Err(CaCertError::OutOfDate);
        }
        let serial = crate::Serial::from_der_integer(cert.raw_serial());
        Ok(Self {
            der: der.to_vec(),
            deployment: deployment(&cert)?,
            id: IssuerId::of_spki(cert.public_key().raw),
            kind: if is_root { None } else { Some(kind(&cert)?) },
            not_after: life.not_after.timestamp(),
            not_before: life.not_before.timestamp(),
            serial: serial.map_err(|_| CaCertError::Malformed)?,
            spki_der: cert.public_key().raw.to_vec(),
            subject_der: cert.subject().as_raw().to_vec(),
        })
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The deployment that it serves.
    pub fn deployment(&self) -> &DeploymentId {
        &self.deployment
    }

    /// The CA's name where issuers are named: SHA-256 of its public key.
    pub fn id(&self) -> IssuerId {
        self.id
    }

    /// What it may certify; a root has no kind.
    pub fn kind(&self) -> Option<CaKind> {
        self.kind
    }

    /// Whether it is self-signed.
    pub fn is_root(&self) -> bool {
        self.kind.is_none()
    }

    /// The last second of its life, in Unix seconds.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// The first second of its life, in Unix seconds.
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Its serial number.
    pub fn serial(&self) -> crate::Serial {
        self.serial
    }

    /// Whether `now` lies within its life.
    pub fn is_in_date(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// SHA-256 of its public key: what a join string pins.
    pub fn spki_sha256(&self) -> [u8; 32] {
        sha256(&self.spki_der)
    }

    /// Its subject key identifier (RFC 5280 §4.2.1.2), if it has one: what it signs repeats it.
    pub(crate) fn key_id(&self) -> Option<Vec<u8>> {
        let (_, cert) = X509Certificate::from_der(&self.der).ok()?;
        let extension = cert
            .extensions()
            .iter()
            .find(|it| it.oid.as_bytes() == SUBJECT_KEY_ID)?;
        let mut value = crate::der::Reader::new(extension.value);
        value
            .expect(crate::der::OCTET_STRING)
            .ok()
            .map(<[u8]>::to_vec)
    }

    pub(crate) fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// Its subject: a Name in DER, as an issuer field repeats it.
    pub(crate) fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }
}

/// Finds the root that a join string pins among certificates from an untrusted source.
///
/// # Errors
///
/// Fails if none of `certs` has a pinned key, or if the one that has is no root in order,
/// or out of date at `now`.
pub fn find_pinned_root(
    certs: &[Vec<u8>],
    pins: &[[u8; 32]],
    now: i64,
) -> Result<CaCert, CaCertError> {
    let pinned = |cert: &&Vec<u8>| {
        X509Certificate::from_der(cert)
            .is_ok_and(|(_, cert)| pins.contains(&sha256(cert.public_key().raw)))
    };
    let root = CaCert::parse(certs.iter().find(pinned).ok_or(CaCertError::NotPinned)?)?;
    if !root.is_root() {
        return Err(CaCertError::NotSelfSigned);
    }
    if !root.is_in_date(now) {
        return Err(CaCertError::OutOfDate);
    }
    Ok(root)
}

/// What is wrong with a CA certificate.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum CaCertError {
    /// It does not name its deployment, in exactly one URI.
    #[error("cannot use a CA certificate that does not name its deployment")]
    Deployment,
    /// Its purposes are not those of any kind of CA.
    #[error("cannot tell what kind of CA this is from its extended key usage")]
    Kind,
    /// Not a certificate.
    #[error("cannot read a CA certificate")]
    Malformed,
    /// Not a CA that may sign certificates and revocation lists.
    #[error("cannot use a certificate as a CA: it may not sign certificates and revocation lists")]
    NotACa,
    /// None of the certificates offered has the pinned key.
    #[error("cannot find the pinned root among the certificates offered")]
    NotPinned,
    /// It claims to be a root, and its signature is not its own.
    #[error("cannot use a root that is not self-signed")]
    NotSelfSigned,
    /// Before or after its time, or without one: its life ends before it begins.
    #[error("cannot use a CA certificate out of its time")]
    OutOfDate,
    /// A root needs room for one CA below it, an issuing CA has room for none.
    #[error("cannot use a CA certificate with this path length")]
    PathLength,
}

fn check_usage(cert: &X509Certificate<'_>) -> Result<(), CaCertError> {
    let usage = cert.key_usage().map_err(|_| CaCertError::Malformed)?;
    let may_sign = usage.is_some_and(|usage| usage.value.key_cert_sign() && usage.value.crl_sign());
    if cert.is_ca() && may_sign {
        Ok(())
    } else {
        Err(CaCertError::NotACa)
    }
}

fn check_path_length(cert: &X509Certificate<'_>, is_root: bool) -> Result<(), CaCertError> {
    let constraints = cert
        .basic_constraints()
        .map_err(|_| CaCertError::Malformed)?;
    let length = constraints.and_then(|found| found.value.path_len_constraint);
    if length == Some(u32::from(is_root)) {
        Ok(())
    } else {
        Err(CaCertError::PathLength)
    }
}

fn deployment(cert: &X509Certificate<'_>) -> Result<DeploymentId, CaCertError> {
    let names = cert
        .subject_alternative_name()
        .map_err(|_| CaCertError::Malformed)?;
    match names.map(|names| names.value.general_names.as_slice()) {
        Some([GeneralName::URI(uri)]) => {
            DeploymentId::from_uri(uri).map_err(|_| CaCertError::Deployment)
        }
        Some(_) | None => Err(CaCertError::Deployment),
    }
}

/// The kind of an issuing CA, from the set of purposes that it is limited to. The set must
/// match exactly: that is what keeps the Client CA's key from minting boosters.
fn kind(cert: &X509Certificate<'_>) -> Result<CaKind, CaCertError> {
    let extension = cert
        .extensions()
        .iter()
        .find(|extension| extension.oid.as_bytes() == EXTENDED_KEY_USAGE)
        .ok_or(CaCertError::Kind)?;
    let purposes = purposes(extension.value).map_err(|_| CaCertError::Malformed)?;
    let (server, client, content) = (SERVER_AUTH, CLIENT_AUTH, CONTENT_SIGNING);
    let has = |oid: &[u8]| purposes.contains(&oid);
    match (has(server), has(client), has(content), purposes.len()) {
        (true, true, false, 2) => Ok(CaKind::Node),
        (false, true, false, 1) => Ok(CaKind::Client),
        (false, false, true, 1) => Ok(CaKind::Content),
        _ => Err(CaCertError::Kind),
    }
}

/// The object identifiers in an ExtKeyUsageSyntax (RFC 5280 §4.2.1.12).
pub(crate) fn purposes(value: &[u8]) -> Result<Vec<&[u8]>, crate::der::DerError> {
    let mut outer = crate::der::Reader::new(value);
    let mut inner = outer.nested(crate::der::SEQUENCE)?;
    outer.finish()?;
    let mut oids = Vec::new();
    while !inner.is_empty() {
        oids.push(inner.expect(crate::der::OID)?);
    }
    Ok(oids)
}

/// The longest certificate that we look at: ours are under 1 KiB, 8 KiB leaves room for
/// RSA-8192 and bounds what an evidence report carries.
pub const CERT_BYTES_MAX: usize = 8 << 10;

/// id-ce-extKeyUsage, 2.5.29.37.
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
/// id-ce-subjectKeyIdentifier, 2.5.29.14.
const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 14];
/// id-kp-serverAuth, 1.3.6.1.5.5.7.3.1 (RFC 5280 §4.2.1.12).
pub(crate) const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
/// id-kp-clientAuth, 1.3.6.1.5.5.7.3.2 (RFC 5280 §4.2.1.12).
pub(crate) const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
/// Our purpose "signs Larder content": 2.25.200721575810121502834843416378635524477, which is
/// the arc of the random UUID 970191bf-daf9-4970-b5ff-0bdb18d9197d (ITU-T X.667 §7): nobody
/// needs to register it, and nobody else has it.
pub(crate) const CONTENT_SIGNING: &[u8] = &[
    0x69, 0x82, 0xae, 0x81, 0xc8, 0xef, 0xfb, 0xaf, 0xca, 0xa5, 0xe1, 0xb5, 0xff, 0xc2, 0xfb, 0xb1,
    0xc6, 0xe4, 0xb2, 0x7d,
];
