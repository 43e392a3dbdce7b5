//! A throw-away deployment for tests: its CAs, certificates good and bad, and handshakes in
//! memory.
//!
//! Compiled for this room's own tests, and for others with the feature `testing`. Nothing
//! here belongs into a program: it panics where a program would answer.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, CustomExtension, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig};

use crate::crl::{self, CrlStore, RevocationReason, RevokedCert};
use crate::tls::{CertCell, Expected, Listener, time_from};
use crate::trust::Revocation;
use crate::{
    Ca, CaKind, DeploymentId, DeviceId, Identity, Key, Role, Serial, Trust, issue, key, tls,
};

mod handshake;
mod shown;

pub use handshake::{Outcome, handshake};
pub use shown::{BoosterCert, ClientCert, Issuers, Judgement};

/// The time in tests that do not say another, in Unix seconds: 2027-01-15.
pub const NOW: i64 = 1_800_000_000;
/// A day, in seconds.
pub const DAY: i64 = 86_400;

/// A root, its three issuing CAs, and a trust that knows them.
pub struct Bed {
    /// The root.
    pub root: Ca,
    /// Certifies origin and boosters.
    pub node: Ca,
    /// Certifies clients.
    pub client: Ca,
    /// Certifies signers of content.
    pub content: Ca,
    /// What everybody in this deployment believes.
    pub trust: Arc<Trust>,
    /// What [`Bed::time`] tells, in Unix seconds. It stands still unless it is moved.
    pub now: Arc<AtomicI64>,
}

/// A certificate chain and the key to it.
#[derive(Debug)]
pub struct Own {
    /// The leaf, then its issuing CA, in DER.
    pub chain: Vec<Vec<u8>>,
    /// The key to the leaf.
    pub key: Key,
}

impl Default for Bed {
    fn default() -> Self {
        Self::new()
    }
}

impl Bed {
    /// The deployment at [`NOW`], with an empty list of each CA, number 1, good for a week.
    pub fn new() -> Self {
        Self::at(NOW)
    }

    /// The same at another time.
    pub fn at(now: i64) -> Self {
        let bed = Self::without_lists_at(now);
        for ca in bed.cas() {
            bed.publish(ca, 1, &[]);
        }
        bed
    }

    /// The deployment at [`NOW`] before its first lists.
    pub fn without_lists() -> Self {
        Self::without_lists_at(NOW)
    }

    fn without_lists_at(now: i64) -> Self {
        let began = now - 60 * DAY;
        let root = issue::root(&deployment(), 1, new_key(), serial(), began).unwrap();
        let ca = |kind| issue::issuing_ca(kind, 1, &root, new_key(), serial(), began).unwrap();
        let (node, client, content) = (ca(CaKind::Node), ca(CaKind::Client), ca(CaKind::Content));
        let store = Arc::new(CrlStore::new(Duration::ZERO));
        let trust = Trust::new(&[root.cert_der()], store, now).unwrap();
        for ca in [&node, &client, &content] {
            trust.add_issuing_ca(ca.cert_der(), now).unwrap();
        }
        Self {
            root,
            node,
            client,
            content,
            trust: Arc::new(trust),
            now: Arc::new(AtomicI64::new(now)),
        }
    }

    /// All four CAs, the root first.
    pub fn cas(&self) -> [&Ca; 4] {
        [&self.root, &self.node, &self.client, &self.content]
    }

    /// The CAs whose certificates parties show to each other.
    pub fn issuers(&self) -> Issuers<'_> {
        Issuers {
            node: &self.node,
            client: &self.client,
        }
    }

    /// The time now, in Unix seconds.
    pub fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    /// A clock for TLS that follows [`Bed::now`].
    pub fn time(&self) -> Arc<dyn TimeProvider> {
        let now = Arc::clone(&self.now);
        time_from(move || now.load(Ordering::Relaxed))
    }

    /// The CA that certifies `role`.
    pub fn ca_for(&self, role: Role) -> &Ca {
        match CaKind::of(role) {
            CaKind::Node => &self.node,
            CaKind::Client => &self.client,
            CaKind::Content => &self.content,
        }
    }

    /// A new key with a good certificate.
    pub fn own(&self, role: Role, id: &str) -> Own {
        self.own_at(role, id, self.now())
    }

    /// A new key with a certificate issued at `now`.
    pub fn own_at(&self, role: Role, id: &str, now: i64) -> Own {
        Own::issued(self.ca_for(role), &identity(role, id), now)
    }

    /// Signs list `number` of `ca`, good for a week, and puts it in force.
    pub fn publish(&self, ca: &Ca, number: u64, revoked: &[Serial]) {
        let now = self.now();
        let der = list_at(ca, number, revoked, now);
        let list = self.trust.verify_crl(ca.id(), &der, now).unwrap();
        self.trust.crls().install(list).unwrap();
    }

    /// The settings of a data listener that shows `own`.
    pub fn server(&self, own: &Own, roles: &[Role]) -> ServerConfig {
        let listener = Listener::Data {
            roles: roles.to_vec(),
        };
        tls::server_config(&listener, &self.trust, &own.cell(), &self.time()).unwrap()
    }

    /// The settings of a connector that looks for `expected` and shows `own`.
    pub fn connector(&self, expected: &Identity, own: Option<&Own>) -> ClientConfig {
        let own = own.map(Own::cell);
        let expected = Expected::Exactly(expected.clone());
        tls::client_config(
            &expected,
            Revocation::Required,
            &self.trust,
            own.as_ref(),
            &self.time(),
        )
        .unwrap()
    }
}

impl Own {
    /// A new key, with a certificate that `ca` issues to `identity` at `now`.
    pub fn issued(ca: &Ca, identity: &Identity, now: i64) -> Self {
        let key = new_key();
        let lifetime = issue::default_lifetime(identity.role);
        let leaf = issue::leaf(identity, key.spki_der(), ca, serial(), now, lifetime).unwrap();
        Self {
            chain: vec![leaf, ca.cert_der().to_vec()],
            key,
        }
    }

    /// The certificate, ready to be shown.
    pub fn cell(&self) -> Arc<CertCell> {
        Arc::new(CertCell::new(&self.chain, &self.key).unwrap())
    }

    /// The certificate's serial.
    pub fn serial(&self) -> Serial {
        let cert = rustls_pki_types::CertificateDer::from(self.chain[0].as_slice());
        let cert = webpki::EndEntityCert::try_from(&cert).unwrap();
        Serial::from_der_integer(cert.serial()).unwrap()
    }
}

/// The deployment of a [`Bed`].
pub fn deployment() -> DeploymentId {
    "acme".parse().unwrap()
}

/// A party of [`deployment`].
pub fn identity(role: Role, id: &str) -> Identity {
    let id: DeviceId = id.parse().unwrap();
    Identity {
        deployment: deployment(),
        role,
        id,
    }
}

/// A key that nobody had before.
pub fn new_key() -> Key {
    Key::generate().unwrap()
}

/// A random serial.
pub fn serial() -> Serial {
    Serial::from_random(key::random().unwrap())
}

/// List `number` of `ca`, signed at [`NOW`] and good for a week.
pub fn list(ca: &Ca, number: u64, revoked: &[Serial]) -> Vec<u8> {
    list_at(ca, number, revoked, NOW)
}

/// The same, signed at `now`.
pub fn list_at(ca: &Ca, number: u64, revoked: &[Serial], now: i64) -> Vec<u8> {
    let entries: Vec<RevokedCert> = revoked
        .iter()
        .map(|serial| RevokedCert {
            serial: *serial,
            revoked_at: now,
            reason: RevocationReason::KeyCompromise,
        })
        .collect();
    crl::sign(ca, number, &entries, crl::backdated(now), now + 7 * DAY).unwrap()
}

/// The parameters of a well-formed leaf for `purposes` (object identifiers), valid for a day
/// before and after `now`: for tests to spoil before signing.
pub fn leaf_params_at(identity: &Identity, purposes: &[&[u8]], now: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(rcgen::SerialNumber::from_slice(serial().as_bytes()));
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
        .subject_alt_names
        .push(SanType::URI(identity.uri().as_str().try_into().unwrap()));
    if let Some(dns) = identity.dns() {
        params
            .subject_alt_names
            .push(SanType::DnsName(dns.as_str().try_into().unwrap()));
    }
    if !purposes.is_empty() {
        params.custom_extensions.push(purposes_extension(purposes));
    }
    let date =
        |at: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at.try_into().unwrap());
    params.not_before = date(now - DAY);
    params.not_after = date(now + DAY);
    params
}

/// [`leaf_params_at`] [`NOW`].
pub fn leaf_params(identity: &Identity, purposes: &[&[u8]]) -> CertificateParams {
    leaf_params_at(identity, purposes, NOW)
}

/// An extended key usage of these object identifiers.
pub fn purposes_extension(purposes: &[&[u8]]) -> CustomExtension {
    let oids: Vec<u8> = purposes
        .iter()
        .flat_map(|oid| crate::der::write(crate::der::OID, oid))
        .collect();
    let value = crate::der::write(crate::der::SEQUENCE, &oids);
    CustomExtension::from_oid_content(&[2, 5, 29, 37], value)
}

/// Signs spoilt parameters with `ca`, for a new key.
pub fn sign(params: &CertificateParams, ca: &Ca) -> Own {
    let pair = KeyPair::generate().unwrap();
    let cert = params.signed_by(&pair, &ca.issuer().unwrap()).unwrap();
    Own {
        chain: vec![cert.der().to_vec(), ca.cert_der().to_vec()],
        key: Key::from_pem(&pair.serialize_pem()).unwrap(),
    }
}
