//! Issuing: fixed profiles, written by us.
//!
//! ```text
//! Root G1            path length 1, 15 years
//! ├─ Node CA G1      path length 0, serverAuth + clientAuth, 3 years
//! │   ├─ origin      serverAuth + clientAuth, DNS and URI name, 30 days
//! │   └─ booster     serverAuth + clientAuth, DNS and URI name, 14 days
//! ├─ Client CA G1    path length 0, clientAuth, no DNS or IP name may be certified, 3 years
//! │   └─ client      clientAuth, URI name, 14 days
//! └─ Content CA G1   path length 0, content signing, 3 years
//!     └─ signer      content signing, URI name, 30 days
//! ```
//!
//! The subject's public key is all that a certificate takes from a request. The generation
//! is in the distinguished name, since two CAs of one name and two keys cannot be told apart
//! by those who look issuers up by name.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, DistinguishedName, DnType,
    GeneralSubtree, IsCa, Issuer, KeyUsagePurpose, NameConstraints, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use crate::ca_cert::{CLIENT_AUTH, CONTENT_SIGNING, CaCert, CaCertError, CaKind, SERVER_AUTH};
use crate::crl::IssuerId;
use crate::der;
use crate::key::{ForLibrary, KeyError, SigningKey};
use crate::name::{DeploymentId, Identity, Role};
use crate::serial::Serial;

/// A CA: its certificate and the key to it, which may be kept elsewhere.
#[derive(Clone, Debug)]
pub struct Ca {
    cert: CaCert,
    key: Arc<dyn SigningKey>,
}

impl Ca {
    /// Puts a stored CA together again.
    ///
    /// # Errors
    ///
    /// Fails if the certificate is not in order, or not for this key.
    pub fn load(cert_der: &[u8], key: impl Into<Arc<dyn SigningKey>>) -> Result<Self, IssueError> {
        let key = key.into();
        let cert = CaCert::parse(cert_der).map_err(|source| IssueError::Ca { source })?;
        if cert.spki_der() == key.spki_der() {
            Ok(Self { cert, key })
        } else {
            Err(IssueError::KeyMismatch)
        }
    }

    /// Its certificate.
    pub fn cert(&self) -> &CaCert {
        &self.cert
    }

    /// Its certificate in DER.
    pub fn cert_der(&self) -> &[u8] {
        self.cert.der()
    }

    /// What it is called where issuers are named.
    pub fn id(&self) -> IssuerId {
        self.cert.id()
    }

    /// Its key.
    pub fn key(&self) -> &dyn SigningKey {
        self.key.as_ref()
    }

    pub(crate) fn issuer(&self) -> Result<Issuer<'_, ForLibrary<'_>>, rcgen::Error> {
        let key = ForLibrary::new(self.key());
        Issuer::from_ca_cert_der(&CertificateDer::from(self.cert.der()), key)
    }
}

/// Makes the root of a new deployment, or the next generation of an old one's.
///
/// # Errors
///
/// Fails if the library would not write or sign it.
pub fn root(
    deployment: &DeploymentId,
    generation: u32,
    key: impl Into<Arc<dyn SigningKey>>,
    serial: Serial,
    now: i64,
) -> Result<Ca, IssueError> {
    let key = key.into();
    let mut params = ca_params(deployment, "Root", generation, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    set_life(&mut params, now, now.saturating_add(seconds(ROOT_LIFETIME)));
    let signing = ForLibrary::new(key.as_ref());
    let cert = params
        .self_signed(&signing)
        .map_err(|source| failed(&signing, source))?;
    Ca::load(cert.der(), key)
}

/// Makes the issuing CA of `kind` under `root`. It ends with its root, if that is sooner.
///
/// # Errors
///
/// Fails if `root` is no root, or the library would not write or sign the certificate.
pub fn issuing_ca(
    kind: CaKind,
    generation: u32,
    root: &Ca,
    key: impl Into<Arc<dyn SigningKey>>,
    serial: Serial,
    now: i64,
) -> Result<Ca, IssueError> {
    if !root.cert.is_root() {
        return Err(IssueError::WrongCa);
    }
    let mut params = ca_params(root.cert.deployment(), kind.as_str(), generation, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params
        .custom_extensions
        .push(extended_key_usage(purposes(kind)));
    if kind == CaKind::Client {
        params.name_constraints = Some(no_host_names());
    }
    let not_after = now.saturating_add(seconds(ISSUING_CA_LIFETIME));
    set_life(&mut params, now, not_after.min(root.cert.not_after()));
    let key = key.into();
    Ca::load(&sign(&params, key.spki_der(), root)?, key)
}

/// Issues a certificate for the public key `spki_der` to `identity`, for `lifetime` from
/// `now`, or until its CA ends if that is sooner. Nothing else comes from outside.
///
/// The caller draws `serial` at random, and has decided that the key is the party's own.
///
/// # Errors
///
/// Fails if `ca` does not certify that role, is of another deployment or out of date, if the
/// key is of a kind that we do not certify, or the library would not write or sign.
pub fn leaf(
    identity: &Identity,
    spki_der: &[u8],
    ca: &Ca,
    serial: Serial,
    now: i64,
    lifetime: Duration,
) -> Result<Vec<u8>, IssueError> {
    let kind = CaKind::of(identity.role);
    if ca.cert.kind() != Some(kind) || ca.cert.deployment() != &identity.deployment {
        return Err(IssueError::WrongCa);
    }
    if !ca.cert.is_in_date(now) {
        return Err(IssueError::Ca {
            source: CaCertError::OutOfDate,
        });
    }
    let common_name = format!("{} {}", identity.role, identity.id);
    let mut params = common_params(&common_name, serial);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
        .custom_extensions
        .push(extended_key_usage(purposes(kind)));
    params.subject_alt_names.push(uri(&identity.uri()));
    if let Some(dns) = identity.dns() {
        let dns = dns
            .as_str()
            .try_into()
            .expect("an identity's DNS name is ASCII");
        params.subject_alt_names.push(SanType::DnsName(dns));
    }
    let not_after = now.saturating_add(seconds(lifetime));
    set_life(&mut params, now, not_after.min(ca.cert.not_after()));
    sign(&params, spki_der, ca)
}

/// How long a certificate for `role` lives unless the deployment says otherwise.
pub fn default_lifetime(role: Role) -> Duration {
    match role {
        Role::Origin | Role::Signer => 30 * DAY,
        Role::Booster | Role::Client => 14 * DAY,
    }
}

/// Why nothing was issued.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The CA's own certificate is not in order.
    #[error("cannot issue with this CA")]
    Ca {
        /// What is wrong with it.
        source: CaCertError,
    },
    /// The key does not belong to the certificate.
    #[error("cannot use a CA whose key does not belong to its certificate")]
    KeyMismatch,
    /// The public key is of a kind that we do not certify.
    #[error("cannot certify this public key")]
    PublicKey {
        /// What the library said.
        source: rcgen::Error,
    },
    /// The CA's key would not sign it.
    #[error("cannot sign the certificate")]
    Sign {
        /// Why not.
        source: KeyError,
    },
    /// The library would not write it.
    #[error("cannot write the certificate")]
    Write {
        /// What it said.
        source: rcgen::Error,
    },
    /// This CA does not issue such certificates.
    #[error("cannot issue this with a CA of another kind or deployment")]
    WrongCa,
}

fn sign(params: &CertificateParams, spki_der: &[u8], ca: &Ca) -> Result<Vec<u8>, IssueError> {
    let key = SubjectPublicKeyInfo::from_der(spki_der)
        .map_err(|source| IssueError::PublicKey { source })?;
    let issuer = ca.issuer().map_err(|source| IssueError::Write { source })?;
    let cert = params
        .signed_by(&key, &issuer)
        .map_err(|source| failed(issuer.key(), source))?;
    Ok(cert.der().to_vec())
}

fn failed(key: &ForLibrary<'_>, source: rcgen::Error) -> IssueError {
    match key.take_error() {
        Some(source) => IssueError::Sign { source },
        None => IssueError::Write { source },
    }
}

fn common_params(common_name: &str, serial: Serial) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    // Left out, it would be a hash of the public key: the same again at each renewal.
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.use_authority_key_identifier_extension = true;
    params
}

fn ca_params(
    deployment: &DeploymentId,
    what: &str,
    generation: u32,
    serial: Serial,
) -> CertificateParams {
    let suffix = if what == "Root" { "" } else { " CA" };
    let mut params = common_params(
        &format!("{deployment} {what}{suffix} G{generation}"),
        serial,
    );
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names.push(uri(&deployment.uri()));
    params
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("our URIs are ASCII"))
}

fn purposes(kind: CaKind) -> &'static [&'static [u8]] {
    match kind {
        CaKind::Node => &[SERVER_AUTH, CLIENT_AUTH],
        CaKind::Client => &[CLIENT_AUTH],
        CaKind::Content => &[CONTENT_SIGNING],
    }
}

/// The extension, written by hand: our own purpose has a number that the library's u64 arcs
/// cannot hold.
fn extended_key_usage(purposes: &[&[u8]]) -> CustomExtension {
    let oids: Vec<u8> = purposes
        .iter()
        .flat_map(|oid| der::write(der::OID, oid))
        .collect();
    CustomExtension::from_oid_content(&[2, 5, 29, 37], der::write(der::SEQUENCE, &oids))
}

/// Excludes every DNS name and every IP address: whatever the Client CA's key signs, nobody
/// takes it for somebody who listens.
fn no_host_names() -> NameConstraints {
    NameConstraints {
        permitted_subtrees: Vec::new(),
        excluded_subtrees: vec![
            GeneralSubtree::DnsName(String::new()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)),
        ],
    }
}

fn set_life(params: &mut CertificateParams, now: i64, not_after: i64) {
    let date = |at: i64| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(at).unwrap_or(0))
    };
    params.not_before = date(now - seconds(BACKDATE));
    params.not_after = date(not_after.min(LATEST));
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// How far before now a certificate or a revocation list begins: verifiers have no tolerance
/// of their own, and clocks in branches differ by minutes.
pub const BACKDATE: Duration = Duration::from_secs(600);

const DAY: Duration = Duration::from_secs(86_400);
/// A root outlives the machines: it is replaced by a new generation, not renewed.
const ROOT_LIFETIME: Duration = Duration::from_secs(15 * 365 * 86_400);
/// Long enough that a rotation is a yearly habit at most, short enough that it is one.
const ISSUING_CA_LIFETIME: Duration = Duration::from_secs(3 * 365 * 86_400);
/// 9999-12-31T23:59:59Z, the last moment that a certificate can name (RFC 5280 §4.1.2.5).
pub(crate) const LATEST: i64 = 253_402_300_799;

#[cfg(test)]
mod tests;
