//! An origin just large enough for a booster: real certificates, real TLS, toy everything else.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use certs::crl::{self, CrlStore, RevocationReason, RevokedCert};
use certs::tls::{self, CertCell, Expected, Listener as Purpose};
use certs::trust::Revocation;
use certs::{Ca, CaKind, ContentSigner, Identity, Key, Peer, Role, Serial, Trust, csr, issue, key};
use certs::{IssuerId, pkcs7};
use content::statement::{IssuerMinimum, RosterHead, Signature, seal};
use content::{Digest, Roster};
use http::request::Parts;
use http::{Response, StatusCode};
use protocol::{CheckInAnswer, Hello, Join, Reports, Route, Token};
use service::Clock;
use transport::source::CallLimits;
use transport::{Body, ListenSettings, Listener, Source, SourceSettings, read_body, respond};

use crate::catalogue::tests::author::Author;
use crate::testing::Fake;
use crate::upstream::{PackAsk, Upstream};

pub(super) const DAY: i64 = 86_400;

/// A deployment and its origin.
pub(super) struct Origin {
    pub(super) author: Mutex<Author>,
    pub(super) clock: Clock,
    join: String,
    /// Content, then enrolment; none once it has stopped.
    listeners: Vec<Listener>,
    pub(super) offset: Arc<AtomicI64>,
    own: Device,
    pub(super) shared: Arc<Shared>,
    pub(super) source: Arc<Fake>,
}

/// What the handlers share with the tests.
pub(super) struct Shared {
    cas: Vec<Ca>,
    clock: Clock,
    pub(super) checked_in: Mutex<Vec<Bytes>>,
    /// What was reported, body by body.
    pub(super) reported: Mutex<Vec<Reports>>,
    /// How often a certificate was asked for.
    pub(super) enrolments: AtomicU64,
    /// Whether an operator has to approve.
    pub(super) vetting: AtomicBool,
    root: Ca,
    source: Arc<Fake>,
    /// Whether what it certifies is revoked at once.
    pub(super) spoils: AtomicBool,
    pub(super) trust: Arc<Trust>,
}

/// A party's certificate and key.
pub(super) struct Device {
    cell: Arc<CertCell>,
    key: Key,
    pub(super) serial: Serial,
}

impl Origin {
    pub(super) async fn start() -> Self {
        let offset = Arc::new(AtomicI64::new(0));
        let clock = Clock::fixed_offset(Arc::clone(&offset));
        let source = Fake::new("origin");
        let shared = Arc::new(Shared::new(&clock, &source));
        shared.sign_lists(1, CaKind::Client, &[]);
        let own = shared.issue(Role::Origin, "origin");
        let content = vec![Role::Booster, Role::Client];
        let content = shared.listen(Purpose::Data { roles: content }, &own).await;
        let enrol = vec![Role::Booster];
        let enrol = shared.listen(Purpose::Enrol { roles: enrol }, &own).await;
        let mut author = Author::new(&source);
        let join = enrol.local_addr().to_string();
        author.addresses = (content.local_addr().to_string(), join.clone());
        author.signer = Some(shared.signer());
        Self {
            author: Mutex::new(author),
            clock,
            join,
            listeners: vec![content, enrol],
            offset,
            own,
            shared,
            source,
        }
    }

    pub(super) fn join(&self) -> Join {
        Join {
            pin: self.shared.root.key().spki_sha256(),
            token: Some(Token::new([7; 16])),
            addresses: vec![self.join.clone()],
        }
    }

    /// Revokes certificates of clients with list number `number`, which the timestamp asks for.
    pub(super) fn revoke(&self, number: u64, serials: &[Serial]) {
        self.shared.sign_lists(number, CaKind::Client, serials);
        let mut author = self.author.lock().unwrap();
        let mut minimums: Vec<IssuerMinimum> = self
            .shared
            .all()
            .map(|ca| IssuerMinimum {
                issuer: *ca.id().as_bytes(),
                number,
            })
            .collect();
        minimums.sort_unstable();
        author.minimums = minimums;
        author.renew();
    }

    /// Revokes its own certificate, and goes on showing it, as a thief of its key would.
    pub(super) fn revoke_itself(&self, number: u64) {
        let own = [self.own.serial];
        self.shared.sign_lists(number, CaKind::Node, &own);
    }

    /// Goes away for good.
    pub(super) async fn stop(&mut self) {
        for listener in self.listeners.drain(..) {
            let _cut_off = listener.drain(Duration::ZERO).await;
        }
    }

    /// Lets days pass, over which the origin keeps its own house in order.
    pub(super) fn pass(&self, days: i64, number: u64) {
        self.offset.fetch_add(days * DAY, Ordering::Relaxed);
        let now = self.clock.now();
        self.shared.sign_lists(number, CaKind::Client, &[]);
        let Device { cell, key, .. } = &self.own;
        let spki = key.spki_der();
        let chain = self.shared.certify(Role::Origin, "origin", spki, serial());
        cell.replace(&chain, key).unwrap();
        let mut author = self.author.lock().unwrap();
        author.now = now;
        author.signer = Some(self.shared.signer());
        author.renew();
    }

    pub(super) fn device(&self, id: &str) -> Device {
        self.shared.issue(Role::Client, id)
    }

    /// The same client with a new certificate, for the key that it has.
    pub(super) fn renewed(&self, device: &Device, id: &str) -> Device {
        let (key, serial) = (Key::from_pem(&device.key.to_pem()).unwrap(), serial());
        let spki = key.spki_der();
        let chain = self.shared.certify(Role::Client, id, spki, serial);
        let cell = Arc::new(CertCell::new(&chain, &key).unwrap());
        Device { cell, key, serial }
    }

    /// Calls of `device` to the booster called `berlin`.
    pub(super) fn client(&self, device: &Device, address: String) -> Source {
        self.calls(device, address, Revocation::Required)
    }

    /// The same, by somebody who does not mind lists that are overdue.
    pub(super) fn patient(&self, device: &Device, address: String) -> Source {
        self.calls(device, address, Revocation::BestEffort)
    }

    fn calls(&self, device: &Device, address: String, revocation: Revocation) -> Source {
        let settings = SourceSettings {
            addresses: vec![address],
            expected: Expected::Exactly(self.shared.name(Role::Booster, "berlin")),
            revocation,
            trust: Arc::clone(&self.shared.trust),
            own: Some(Arc::clone(&device.cell)),
            clock: self.clock.clone(),
            http2: true,
            limits: CallLimits::default(),
            refusals: None,
        };
        Source::new(settings).unwrap()
    }
}

impl Shared {
    fn new(clock: &Clock, source: &Arc<Fake>) -> Self {
        let (began, key) = (clock.now() - DAY, || Key::generate().unwrap());
        let root = issue::root(&"acme".parse().unwrap(), 1, key(), serial(), began).unwrap();
        let kinds = [CaKind::Node, CaKind::Client, CaKind::Content];
        let cas = kinds.map(|kind| issue::issuing_ca(kind, 1, &root, key(), serial(), began));
        let cas: Vec<Ca> = cas.into_iter().map(Result::unwrap).collect();
        let store = Arc::new(CrlStore::new(Duration::ZERO));
        let trust = Trust::new(&[root.cert_der()], store, clock.now()).unwrap();
        for ca in &cas {
            trust.add_issuing_ca(ca.cert_der(), clock.now()).unwrap();
        }
        Self {
            cas,
            checked_in: Mutex::default(),
            reported: Mutex::default(),
            enrolments: AtomicU64::new(0),
            clock: clock.clone(),
            root,
            source: Arc::clone(source),
            trust: Arc::new(trust),
            spoils: AtomicBool::new(false),
            vetting: AtomicBool::new(false),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Ca> {
        self.cas.iter().chain([&self.root])
    }

    fn ca(&self, kind: CaKind) -> &Ca {
        let mut cas = self.cas.iter();
        cas.find(|ca| ca.cert().kind() == Some(kind)).unwrap()
    }

    fn name(&self, role: Role, id: &str) -> Identity {
        Identity {
            deployment: self.trust.deployment().clone(),
            role,
            id: id.parse().unwrap(),
        }
    }

    /// Signs list `number` of every CA; `revoked` are on the one of `kind`.
    pub(super) fn sign_lists(&self, number: u64, kind: CaKind, revoked: &[Serial]) {
        let now = self.clock.now();
        for ca in self.all() {
            let on_it = ca.cert().kind() == Some(kind);
            let entries: Vec<RevokedCert> = revoked
                .iter()
                .filter(|_| on_it)
                .map(|serial| RevokedCert {
                    serial: *serial,
                    revoked_at: now,
                    reason: RevocationReason::KeyCompromise,
                })
                .collect();
            let der = crl::sign(ca, number, &entries, crl::backdated(now), now + DAY).unwrap();
            let list = self.trust.verify_crl(ca.id(), &der, now).unwrap();
            self.trust.crls().install(list).unwrap();
        }
    }

    fn certify(&self, role: Role, id: &str, spki_der: &[u8], serial: Serial) -> Vec<Vec<u8>> {
        let (ca, now) = (self.ca(CaKind::of(role)), self.clock.now());
        let (name, life) = (self.name(role, id), issue::default_lifetime(role));
        let leaf = issue::leaf(&name, spki_der, ca, serial, now, life).unwrap();
        vec![leaf, ca.cert_der().to_vec()]
    }

    fn issue(&self, role: Role, id: &str) -> Device {
        let (key, serial) = (Key::generate().unwrap(), serial());
        let chain = self.certify(role, id, key.spki_der(), serial);
        let cell = Arc::new(CertCell::new(&chain, &key).unwrap());
        Device { cell, key, serial }
    }

    fn roster(&self, peer: Option<&Peer>) -> Response<Body> {
        let Some(peer) = peer else {
            return respond::status(StatusCode::FORBIDDEN);
        };
        let roster = Roster::default();
        let list = Digest::of(&roster.encode());
        self.source.put(&Route::Statement(list), roster.encode());
        let now = self.clock.now();
        let head = RosterHead {
            deployment: peer.identity().deployment.to_string(),
            booster: peer.id().to_string(),
            model: 0,
            count: 0,
            root: roster.root(),
            list,
            every: 120,
            issued: now,
            expires: now + DAY,
        };
        let signer = self.signer();
        let sign = |message: &[u8]| {
            Ok::<_, std::convert::Infallible>(Signature {
                signature: signer.sign(message).unwrap(),
                chain: signer.chain_der().to_vec(),
                key_id: String::new(),
            })
        };
        let sealed = seal(&head, sign).unwrap();
        respond::bytes(StatusCode::OK, "application/octet-stream", sealed)
    }

    fn signer(&self) -> ContentSigner {
        let key = Key::generate().unwrap();
        let chain = self.certify(Role::Signer, "signer", key.spki_der(), serial());
        ContentSigner::new(chain, key).unwrap()
    }

    async fn listen(self: &Arc<Self>, purpose: Purpose, own: &Device) -> Listener {
        let clock = self.clock.clone();
        let time = tls::time_from(move || clock.now());
        let tls = tls::server_config(&purpose, &self.trust, &own.cell, &time).unwrap();
        let settings = ListenSettings {
            tls: Arc::new(tls),
            trust: Arc::clone(&self.trust),
            clock: self.clock.clone(),
            limits: transport::listen::Limits::default(),
        };
        let shared = Arc::clone(self);
        let handler = move |request: http::Request<_>, session: Arc<transport::Session>| {
            let shared = Arc::clone(&shared);
            async move {
                let (head, body) = request.into_parts();
                let body = read_body(body, 64 << 10, Duration::from_secs(5)).await;
                shared.answer(&head, body.unwrap(), session.peer()).await
            }
        };
        let loopback = ([127, 0, 0, 1], 0).into();
        Listener::bind(loopback, settings, handler, Arc::new(()))
            .await
            .unwrap()
    }

    async fn answer(&self, head: &Parts, body: Bytes, peer: Option<&Peer>) -> Response<Body> {
        let ok = |bytes: Vec<u8>| respond::bytes(StatusCode::OK, "application/octet-stream", bytes);
        let route = Route::parse(head.uri.path()).unwrap();
        match &route {
            Route::CaCerts => {
                let certs: Vec<&[u8]> = self.all().map(Ca::cert_der).collect();
                ok(pkcs7::to_base64(&pkcs7::encode(&certs)).into_bytes())
            }
            Route::CheckIn => {
                self.checked_in.lock().unwrap().push(body);
                ok(CheckInAnswer::in_seconds(60).encode())
            }
            Route::Crl(issuer) => {
                let issuer = IssuerId::from_bytes(*issuer);
                ok(self
                    .trust
                    .crls()
                    .current(issuer)
                    .unwrap()
                    .der()
                    .into_owned())
            }
            Route::Enrol(_) | Route::Reenrol(_) => self.enrol(&route, &body, peer),
            Route::Hello => ok(self.hello().encode()),
            Route::Pack(fileset, id) => {
                let range = head.headers.get("range").map(|it| it.to_str().unwrap());
                let from = range.map_or(0, |range| {
                    let (from, _) = range["bytes=".len()..].split_once('-').unwrap();
                    from.parse().unwrap()
                });
                let ask = PackAsk {
                    fileset: fileset.clone(),
                    from,
                    id: *id,
                    no_cache: false,
                    purpose: crate::wan::Purpose::Wanted,
                };
                self.pack(ask).await
            }
            // Nobody is on a roster here, and there is no model that would bound what they read.
            Route::Roster => self.roster(peer),
            Route::Relayed => ok(protocol::RelayedAnswers::default().encode()),
            // Only clients say what they are.
            Route::Inventory | Route::Log | Route::Wait => respond::status(StatusCode::NOT_FOUND),
            Route::Reports => {
                self.reported.lock().unwrap().extend(Reports::decode(&body));
                respond::status(StatusCode::NO_CONTENT)
            }
            Route::Crls
            | Route::Deployment
            | Route::Snapshot(_)
            | Route::Statement(_)
            | Route::Timestamp => match self.source.small(&route) {
                Some((etag, bytes)) => {
                    let mut response = ok(bytes.to_vec());
                    response.headers_mut().insert("etag", etag.parse().unwrap());
                    response
                }
                None => respond::status(StatusCode::NOT_FOUND),
            },
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            deployment: "acme".to_owned(),
            role: "origin".to_owned(),
            id: "origin".to_owned(),
            protocol_min: protocol::PROTOCOL_VERSION,
            protocol_max: protocol::PROTOCOL_VERSION,
            time: self.clock.now(),
        }
    }

    /// Certifies whoever asks: at first if nobody has to approve, later if it shows itself.
    fn enrol(&self, route: &Route, body: &[u8], peer: Option<&Peer>) -> Response<Body> {
        assert!(matches!(route, Route::Enrol(_)) || peer.is_some());
        self.enrolments.fetch_add(1, Ordering::Relaxed);
        if self.vetting.load(Ordering::Relaxed) {
            let mut response = respond::status(StatusCode::ACCEPTED);
            response
                .headers_mut()
                .insert("retry-after", "1".parse().unwrap());
            return response;
        }
        let request = csr::parse(&pkcs7::from_base64(body, 64 << 10).unwrap()).unwrap();
        let id = request.claimed_id().unwrap();
        let number = serial();
        let chain = self.certify(Role::Booster, id, request.spki_der(), number);
        if self.spoils.load(Ordering::Relaxed) {
            self.sign_lists(9, CaKind::Node, &[number]);
        }
        let bag = pkcs7::to_base64(&pkcs7::encode(&chain));
        respond::bytes(StatusCode::OK, "application/pkcs7-mime", bag)
    }

    async fn pack(&self, ask: PackAsk) -> Response<Body> {
        let Some(total) = self.source.pack_bytes(ask.id) else {
            return respond::status(StatusCode::NOT_FOUND);
        };
        let body = self.source.pack(&ask).await.unwrap();
        let (start, left) = (body.start, total - body.start);
        let stream = futures_util::stream::try_unfold(body.pieces, |mut pieces| async move {
            let piece = pieces.next().await?;
            Ok::<_, transport::BoxError>(piece.map(|piece| (piece, pieces)))
        });
        let mut response = Response::new(Body::stream(Box::pin(stream), Some(left)));
        if ask.from > 0 {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {start}-{}/{total}", total - 1);
            response
                .headers_mut()
                .insert("content-range", range.parse().unwrap());
        }
        response
    }
}

fn serial() -> Serial {
    Serial::from_random(key::random().unwrap())
}
