//! A throw-away deployment for this room's tests.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, CustomExtension, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::time_provider::TimeProvider;
use rustls::{
    ClientConfig, ClientConnection, Error, HandshakeKind, ServerConfig, ServerConnection,
};
use rustls_pki_types::ServerName;

use crate::crl::{self, CrlStore, RevocationReason, RevokedCert};
use crate::tls::{Capture, Captured, CertCell, Expected, Listener, time_from};
use crate::trust::Revocation;
use crate::{
    Ca, CaKind, DeploymentId, DeviceId, Identity, Key, Role, Serial, Trust, issue, key, tls,
};

/// The time in these tests: 2027-01-15.
pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const DAY: i64 = 86_400;

/// A root, its three issuing CAs, and empty lists of all four, number 1, good for a week.
pub(crate) struct Bed {
    pub(crate) root: Ca,
    pub(crate) node: Ca,
    pub(crate) client: Ca,
    pub(crate) content: Ca,
    pub(crate) trust: Arc<Trust>,
    pub(crate) now: Arc<AtomicI64>,
}

/// A certificate chain and the key to it.
pub(crate) struct Own {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: Key,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let bed = Self::without_lists();
        for ca in bed.cas() {
            bed.publish(ca, 1, &[]);
        }
        bed
    }

    pub(crate) fn without_lists() -> Self {
        let root = issue::root(&deployment(), 1, new_key(), serial(), NOW - 60 * DAY).unwrap();
        let ca =
            |kind| issue::issuing_ca(kind, 1, &root, new_key(), serial(), NOW - 60 * DAY).unwrap();
        let (node, client, content) = (ca(CaKind::Node), ca(CaKind::Client), ca(CaKind::Content));
        let store = Arc::new(CrlStore::new(Duration::ZERO));
        let trust = Trust::new(&[root.cert_der()], store, NOW).unwrap();
        for ca in [&node, &client, &content] {
            trust.add_issuing_ca(ca.cert_der(), NOW).unwrap();
        }
        let now = Arc::new(AtomicI64::new(NOW));
        Self {
            root,
            node,
            client,
            content,
            trust: Arc::new(trust),
            now,
        }
    }

    pub(crate) fn cas(&self) -> [&Ca; 4] {
        [&self.root, &self.node, &self.client, &self.content]
    }

    pub(crate) fn time(&self) -> Arc<dyn TimeProvider> {
        let now = Arc::clone(&self.now);
        time_from(move || now.load(Ordering::Relaxed))
    }

    pub(crate) fn ca_for(&self, role: Role) -> &Ca {
        match CaKind::of(role) {
            CaKind::Node => &self.node,
            CaKind::Client => &self.client,
            CaKind::Content => &self.content,
        }
    }

    pub(crate) fn own(&self, role: Role, id: &str) -> Own {
        self.own_at(role, id, NOW)
    }

    pub(crate) fn own_at(&self, role: Role, id: &str, now: i64) -> Own {
        let key = new_key();
        let ca = self.ca_for(role);
        let lifetime = issue::default_lifetime(role);
        let leaf = issue::leaf(
            &identity(role, id),
            key.spki_der(),
            ca,
            serial(),
            now,
            lifetime,
        )
        .unwrap();
        Own {
            chain: vec![leaf, ca.cert_der().to_vec()],
            key,
        }
    }

    /// Signs list `number` and puts it in force.
    pub(crate) fn publish(&self, ca: &Ca, number: u64, revoked: &[Serial]) {
        let der = list(ca, number, revoked);
        let list = self.trust.verify_crl(ca.id(), &der, NOW).unwrap();
        self.trust.crls().install(list).unwrap();
    }

    pub(crate) fn server(&self, own: &Own, roles: &[Role]) -> ServerConfig {
        let listener = Listener::Data {
            roles: roles.to_vec(),
        };
        tls::server_config(&listener, &self.trust, &own.cell(), &self.time()).unwrap()
    }

    pub(crate) fn connector(&self, expected: &Identity, own: Option<&Own>) -> ClientConfig {
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
    pub(crate) fn cell(&self) -> Arc<CertCell> {
        Arc::new(CertCell::new(&self.chain, &self.key).unwrap())
    }

    pub(crate) fn serial(&self) -> Serial {
        let cert = rustls_pki_types::CertificateDer::from(self.chain[0].as_slice());
        let cert = webpki::EndEntityCert::try_from(&cert).unwrap();
        Serial::from_der_integer(cert.serial()).unwrap()
    }
}

pub(crate) fn deployment() -> DeploymentId {
    "acme".parse().unwrap()
}

pub(crate) fn identity(role: Role, id: &str) -> Identity {
    let id: DeviceId = id.parse().unwrap();
    Identity {
        deployment: deployment(),
        role,
        id,
    }
}

pub(crate) fn new_key() -> Key {
    Key::generate().unwrap()
}

pub(crate) fn serial() -> Serial {
    Serial::from_random(key::random().unwrap())
}

pub(crate) fn list(ca: &Ca, number: u64, revoked: &[Serial]) -> Vec<u8> {
    let entries: Vec<RevokedCert> = revoked
        .iter()
        .map(|serial| RevokedCert {
            serial: *serial,
            revoked_at: NOW,
            reason: RevocationReason::KeyCompromise,
        })
        .collect();
    crl::sign(ca, number, &entries, crl::backdated(NOW), NOW + 7 * DAY).unwrap()
}

/// The parameters of a well-formed leaf, for tests to spoil before signing.
pub(crate) fn leaf_params(identity: &Identity, purposes: &[&[u8]]) -> CertificateParams {
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
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs((NOW - DAY) as u64);
    params.not_after = epoch + Duration::from_secs((NOW + DAY) as u64);
    params
}

pub(crate) fn purposes_extension(purposes: &[&[u8]]) -> CustomExtension {
    let oids: Vec<u8> = purposes
        .iter()
        .flat_map(|oid| crate::der::write(crate::der::OID, oid))
        .collect();
    let value = crate::der::write(crate::der::SEQUENCE, &oids);
    CustomExtension::from_oid_content(&[2, 5, 29, 37], value)
}

/// Signs spoilt parameters with `ca`.
pub(crate) fn sign(params: &CertificateParams, ca: &Ca) -> Own {
    let pair = KeyPair::generate().unwrap();
    let cert = params.signed_by(&pair, &ca.issuer().unwrap()).unwrap();
    Own {
        chain: vec![cert.der().to_vec(), ca.cert_der().to_vec()],
        key: Key::from_pem(&pair.serialize_pem()).unwrap(),
    }
}

/// How a handshake went, on both sides.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) server: Result<HandshakeKind, Error>,
    pub(crate) client: Result<HandshakeKind, Error>,
    pub(crate) at_server: Captured,
    pub(crate) at_client: Captured,
    /// What the server could read of what the client wrote as soon as it was allowed to.
    pub(crate) plaintext: Vec<u8>,
}

/// Runs a handshake in memory. The client writes as soon as TLS lets it.
pub(crate) fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Outcome {
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let (at_server, at_client) = (Capture::default(), Capture::default());
    let (mut server_error, mut client_error) = (None, None);
    let mut plaintext = Vec::new();
    let mut written = false;
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        feed(&mut server, &wire, &at_server, &mut server_error);
        if server_error.is_none() {
            drop(server.reader().read_to_end(&mut plaintext));
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        feed(&mut client, &wire, &at_client, &mut client_error);
        if !client.is_handshaking() && !written && client_error.is_none() {
            client.writer().write_all(b"early").unwrap();
            written = true;
        }
    }
    let result = |error: Option<Error>, kind: Option<HandshakeKind>| match (error, kind) {
        (Some(error), _) => Err(error),
        (None, Some(kind)) => Ok(kind),
        (None, None) => Err(Error::HandshakeNotComplete),
    };
    let (server_kind, client_kind) = (server.handshake_kind(), client.handshake_kind());
    Outcome {
        server: result(server_error, server_kind),
        client: result(client_error, client_kind),
        at_server: at_server.take(),
        at_client: at_client.take(),
        plaintext,
    }
}

fn feed<D>(
    to: &mut rustls::ConnectionCommon<D>,
    mut wire: &[u8],
    capture: &Capture,
    error: &mut Option<Error>,
) {
    while !wire.is_empty() && error.is_none() {
        to.read_tls(&mut wire).unwrap();
        if let Err(found) = capture.enter(|| to.process_new_packets()) {
            *error = Some(found);
        }
    }
}
