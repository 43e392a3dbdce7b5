//! A throw-away deployment for this room's tests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certs::crl::{self, CrlStore, RevocationReason, RevokedCert};
use certs::tls::{CertCell, Expected, Listener as Purpose};
use certs::trust::Revocation;
use certs::{
    Ca, CaKind, DeploymentId, Identity, Key, RefusalReason, Role, Serial, Trust, issue, key, tls,
};
use http::{Request, Response};
use hyper::body::Incoming;
use service::Clock;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::listen::Limits;
use crate::source::CallLimits;
use crate::{
    Body, HandshakeSink, ListenSettings, Listener, Refused, Session, Source, SourceSettings,
};

pub(crate) const DAY: i64 = 86_400;
/// How long a test waits for what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A root, its issuing CAs, and empty lists of all of them, number 1, good for sixty days.
pub(crate) struct Bed {
    pub(crate) root: Ca,
    pub(crate) node: Ca,
    pub(crate) client: Ca,
    pub(crate) content: Ca,
    pub(crate) trust: Arc<Trust>,
    pub(crate) clock: Clock,
    pub(crate) offset: Arc<AtomicI64>,
}

/// A certificate chain and the key to it.
pub(crate) struct Own {
    pub(crate) cell: Arc<CertCell>,
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) identity: Identity,
    pub(crate) key: Key,
    pub(crate) serial: Serial,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::called("acme")
    }

    pub(crate) fn called(name: &str) -> Self {
        let offset = Arc::new(AtomicI64::new(0));
        let clock = Clock::fixed_offset(Arc::clone(&offset));
        let deployment: DeploymentId = name.parse().unwrap();
        let began = clock.now() - 60 * DAY;
        let new_key = || Key::generate().unwrap();
        let root = issue::root(&deployment, 1, new_key(), serial(), began).unwrap();
        let ca = |kind| issue::issuing_ca(kind, 1, &root, new_key(), serial(), began).unwrap();
        let (node, client, content) = (ca(CaKind::Node), ca(CaKind::Client), ca(CaKind::Content));
        let store = Arc::new(CrlStore::new(Duration::ZERO));
        let trust = Trust::new(&[root.cert_der()], store, clock.now()).unwrap();
        for ca in [&node, &client, &content] {
            trust.add_issuing_ca(ca.cert_der(), clock.now()).unwrap();
        }
        let bed = Self {
            root,
            node,
            client,
            content,
            trust: Arc::new(trust),
            clock,
            offset,
        };
        for ca in [&bed.root, &bed.node, &bed.client, &bed.content] {
            bed.publish(ca, 1, &[]);
        }
        bed
    }

    /// Signs list `number` and puts it in force.
    pub(crate) fn publish(&self, ca: &Ca, number: u64, revoked: &[Serial]) {
        let now = self.clock.now();
        let reason = RevocationReason::KeyCompromise;
        let entries: Vec<RevokedCert> = revoked
            .iter()
            .map(|serial| RevokedCert {
                serial: *serial,
                revoked_at: now,
                reason,
            })
            .collect();
        let der = crl::sign(ca, number, &entries, crl::backdated(now), now + 60 * DAY).unwrap();
        let list = self.trust.verify_crl(ca.id(), &der, now).unwrap();
        self.trust.crls().install(list).unwrap();
    }

    pub(crate) fn own(&self, role: Role, id: &str) -> Own {
        self.own_at(role, id, self.clock.now())
    }

    pub(crate) fn own_at(&self, role: Role, id: &str, now: i64) -> Own {
        let key = Key::generate().unwrap();
        let ca = match CaKind::of(role) {
            CaKind::Node => &self.node,
            CaKind::Client => &self.client,
            CaKind::Content => &self.content,
        };
        let deployment = self.trust.deployment().clone();
        let identity = Identity {
            deployment,
            role,
            id: id.parse().unwrap(),
        };
        let (serial, lifetime) = (serial(), issue::default_lifetime(role));
        let leaf = issue::leaf(&identity, key.spki_der(), ca, serial, now, lifetime).unwrap();
        let chain = vec![leaf, ca.cert_der().to_vec()];
        let cell = Arc::new(CertCell::new(&chain, &key).unwrap());
        Own {
            cell,
            chain,
            identity,
            key,
            serial,
        }
    }

    pub(crate) fn time(&self) -> Arc<dyn rustls::time_provider::TimeProvider> {
        let clock = self.clock.clone();
        tls::time_from(move || clock.now())
    }

    pub(crate) async fn listen<H, F>(
        &self,
        own: &Own,
        purpose: Purpose,
        limits: Limits,
        recorder: &Arc<Recorder>,
        handler: H,
    ) -> Listener
    where
        H: Fn(Request<Incoming>, Arc<Session>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let tls = tls::server_config(&purpose, &self.trust, &own.cell, &self.time()).unwrap();
        let settings = ListenSettings {
            tls: Arc::new(tls),
            trust: Arc::clone(&self.trust),
            clock: self.clock.clone(),
            limits,
        };
        let sink: Arc<dyn HandshakeSink> = Arc::<Recorder>::clone(recorder);
        Listener::bind(loopback(), settings, handler, sink)
            .await
            .unwrap()
    }

    pub(crate) fn source(
        &self,
        addr: SocketAddr,
        expected: &Identity,
        own: Option<&Own>,
        http2: bool,
    ) -> Source {
        let expected = Expected::Exactly(expected.clone());
        self.source_with(addr, expected, Revocation::Required, own, http2)
    }

    pub(crate) fn source_with(
        &self,
        addr: SocketAddr,
        expected: Expected,
        revocation: Revocation,
        own: Option<&Own>,
        http2: bool,
    ) -> Source {
        Source::new(SourceSettings {
            addresses: vec![addr.to_string()],
            expected,
            revocation,
            trust: Arc::clone(&self.trust),
            own: own.map(|own| Arc::clone(&own.cell)),
            clock: self.clock.clone(),
            http2,
            limits: CallLimits::default(),
            refusals: None,
        })
        .unwrap()
    }

    /// A connection to `to` at `addr` as `own`, on which nothing has been said yet.
    pub(crate) async fn dial(
        &self,
        addr: SocketAddr,
        to: &Own,
        own: &Own,
        alpn: &[u8],
    ) -> TlsStream<TcpStream> {
        let name = Expected::Exactly(to.identity.clone());
        let (required, own, time) = (Revocation::Required, Some(&own.cell), self.time());
        let mut config = tls::client_config(&name, required, &self.trust, own, &time).unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(name.server_name(), stream).await.unwrap()
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.offset.fetch_add(seconds, Ordering::Relaxed);
    }
}

pub(crate) fn data() -> Purpose {
    Purpose::Data {
        roles: vec![Role::Client, Role::Booster],
    }
}

pub(crate) fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn serial() -> Serial {
    Serial::from_random(key::random().unwrap())
}

/// Remembers who came and who was refused.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    changed: Notify,
    records: Mutex<Records>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    pub(crate) accepted: usize,
    pub(crate) refused: Vec<Refused>,
}

impl Records {
    pub(crate) fn reasons(&self) -> Vec<RefusalReason> {
        self.refused.iter().map(|refused| refused.reason).collect()
    }
}

impl HandshakeSink for Recorder {
    fn accepted(&self, _: &Session) {
        self.records.lock().unwrap().accepted += 1;
        self.changed.notify_waiters();
    }

    fn refused(&self, refused: &Refused) {
        self.records.lock().unwrap().refused.push(refused.clone());
        self.changed.notify_waiters();
    }
}

impl Recorder {
    /// Waits until the records are as `wanted`, or fails with what they are.
    pub(crate) async fn until(&self, wanted: impl Fn(&Records) -> bool) -> Records {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                let records = self.records.lock().unwrap().clone();
                if wanted(&records) {
                    return records;
                }
                changed.await;
            }
        };
        match timeout(SOON, wait).await {
            Ok(records) => records,
            Err(_) => panic!("waited in vain: {:?}", self.records.lock().unwrap()),
        }
    }
}
