//! An origin just large enough to enrol at: real certificates, real TLS, and answers as a test
//! wants them.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use certs::testing::{Bed, Own, deployment, identity, serial};
use certs::tls::{CertCell, Expected, Listener as Purpose, server_config};
use certs::trust::Revocation;
use certs::{Ca, ContentSigner, IssuerId, Role, csr, issue, pkcs7};
use content::statement::{Deployment, OriginEntry, Signature, seal};
use http::{HeaderValue, Response, StatusCode};
use protocol::{Code, Fault, Hello, Join, Reports, Route, Token};
use service::Clock;
use transport::source::CallLimits;
use transport::{Body, ListenSettings, Listener, Refusals, Source, SourceSettings};
use transport::{read_body, respond};

/// What a test answers instead; `None` leaves it to the origin.
type Instead = dyn Fn(&Route, &Bytes) -> Option<Response<Body>> + Send + Sync;

/// An origin and its enrolment listener.
pub(crate) struct Office {
    listener: Listener,
    pub(crate) shared: Arc<Shared>,
}

/// What the listener shares with the tests.
pub(crate) struct Shared {
    pub(crate) bed: Bed,
    clock: Clock,
    instead: Box<Instead>,
    /// What was asked, and whether by somebody with a certificate.
    pub(crate) asked: Mutex<Vec<(String, bool)>>,
    /// What was reported, body by body.
    pub(crate) reported: Mutex<Vec<Reports>>,
    /// The certificate that it shows.
    pub(crate) origin_der: Vec<u8>,
    /// Who signs content.
    signer: ContentSigner,
}

impl Office {
    pub(crate) async fn open() -> Self {
        Self::answering(|_, _| None).await
    }

    pub(crate) async fn answering(
        instead: impl Fn(&Route, &Bytes) -> Option<Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        let clock = Clock::system();
        let bed = Bed::at(clock.now());
        let signer = bed.own(Role::Signer, "signer");
        let origin = bed.own(Role::Origin, "origin");
        let shared = Arc::new(Shared {
            clock,
            instead: Box::new(instead),
            asked: Mutex::default(),
            reported: Mutex::default(),
            origin_der: origin.chain[0].clone(),
            signer: ContentSigner::new(signer.chain, signer.key).unwrap(),
            bed,
        });
        let listener = listen(&shared, &origin).await;
        Self { listener, shared }
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().to_string()
    }

    pub(crate) fn join(&self) -> Join {
        Join {
            pin: self.shared.bed.root.cert().spki_sha256(),
            token: Some(Token::new([7; 16])),
            addresses: vec![self.address()],
        }
    }

    /// Calls to it, showing `own`.
    pub(crate) fn source(&self, own: Option<Arc<CertCell>>, refusals: &Refusals) -> Arc<Source> {
        let made = Source::new(SourceSettings {
            addresses: vec![self.address()],
            expected: Expected::Exactly(identity(Role::Origin, "origin")),
            revocation: Revocation::BestEffort,
            trust: Arc::clone(&self.shared.bed.trust),
            own,
            clock: self.shared.clock.clone(),
            http2: false,
            limits: CallLimits::default(),
            refusals: Some(refusals.clone()),
        });
        Arc::new(made.unwrap())
    }

    /// Every report that has come.
    pub(crate) fn reports(&self) -> Vec<protocol::Reported> {
        let bodies = self.shared.reported.lock().unwrap();
        bodies
            .iter()
            .flat_map(|body| body.reports.clone())
            .collect()
    }
}

impl Shared {
    fn answer(&self, route: &Route, body: &Bytes) -> Response<Body> {
        if let Some(instead) = (self.instead)(route, body) {
            return instead;
        }
        let ok = |bytes: Vec<u8>| respond::bytes(StatusCode::OK, "application/octet-stream", bytes);
        let bag = |certs: &[&[u8]]| ok(pkcs7::to_base64(&pkcs7::encode(certs)).into_bytes());
        let crls = self.bed.trust.crls();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "nobody enrols by the others"
        )]
        match route {
            Route::CaCerts => bag(&self.bed.cas().map(Ca::cert_der)),
            Route::Crl(issuer) => {
                let list = crls.current(IssuerId::from_bytes(*issuer)).unwrap();
                ok(list.der().into_owned())
            }
            Route::Deployment => ok(self.document()),
            Route::Enrol(_) | Route::Reenrol(_) => {
                let request = csr::parse(&pkcs7::from_base64(body, 64 << 10).unwrap()).unwrap();
                let name = identity(Role::Client, request.claimed_id().unwrap());
                let (now, lifetime) = (self.clock.now(), issue::default_lifetime(Role::Client));
                let (ca, spki) = (&self.bed.client, request.spki_der());
                let leaf = issue::leaf(&name, spki, ca, serial(), now, lifetime).unwrap();
                bag(&[&leaf, ca.cert_der()])
            }
            Route::Hello => ok(self.hello().encode()),
            Route::Reports => {
                let reports = Reports::decode(body).unwrap();
                self.reported.lock().unwrap().push(reports);
                respond::status(StatusCode::NO_CONTENT)
            }
            _ => respond::fault(&Fault::new(Code::NotFound, "nothing here")),
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            deployment: deployment().to_string(),
            role: "origin".to_owned(),
            id: "origin".to_owned(),
            protocol_min: protocol::PROTOCOL_VERSION,
            protocol_max: protocol::PROTOCOL_VERSION,
            time: self.clock.now(),
        }
    }

    fn document(&self) -> Vec<u8> {
        let document = Deployment {
            deployment: deployment().to_string(),
            version: 1,
            created: self.clock.now(),
            roots: vec![self.bed.root.cert_der().to_vec()],
            origin: OriginEntry {
                id: "origin".to_owned(),
                addresses: Vec::new(),
                enrol_addresses: Vec::new(),
            },
            boosters: Vec::new(),
            protocol_min: 1,
            protocol_max: 1,
        };
        let sealed = seal(&document, |message| {
            Ok::<_, std::convert::Infallible>(Signature {
                signature: self.signer.sign(message).unwrap(),
                chain: self.signer.chain_der().to_vec(),
                key_id: "k".to_owned(),
            })
        });
        sealed.unwrap()
    }
}

async fn listen(shared: &Arc<Shared>, origin: &Own) -> Listener {
    let purpose = Purpose::Enrol {
        roles: vec![Role::Client],
    };
    let (bed, kept) = (&shared.bed, Arc::clone(shared));
    let tls = server_config(&purpose, &bed.trust, &origin.cell(), &bed.time()).unwrap();
    let settings = ListenSettings {
        tls: Arc::new(tls),
        trust: Arc::clone(&bed.trust),
        clock: shared.clock.clone(),
        limits: transport::listen::Limits::default(),
    };
    let handler = move |request: http::Request<_>, session: Arc<transport::Session>| {
        let shared = Arc::clone(&kept);
        async move {
            let (head, body) = request.into_parts();
            let asked = (head.uri.path().to_owned(), session.peer().is_some());
            shared.asked.lock().unwrap().push(asked);
            let body = read_body(body, 64 << 10, Duration::from_secs(5)).await;
            shared.answer(&Route::parse(head.uri.path()).unwrap(), &body.unwrap())
        }
    };
    let loopback = ([127, 0, 0, 1], 0).into();
    let bound = Listener::bind(loopback, settings, handler, Arc::new(()));
    bound.await.unwrap()
}

/// A refusal of that kind, after which somebody may come back in `seconds`.
pub(crate) fn refusal(code: Code, seconds: Option<u32>) -> Response<Body> {
    let mut response = respond::fault(&Fault::new(code, "no"));
    if let Some(seconds) = seconds {
        let wait = HeaderValue::from(seconds);
        response.headers_mut().insert("retry-after", wait);
    }
    response
}

/// Whether the runtime goes on while `work` waits for the file at `path` to be read: a
/// pipe takes its place, at whose other end nobody is until the runtime has shown that it lives.
pub(crate) async fn goes_on_while(path: &Path, work: impl Future<Output = ()>) -> bool {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
    let (ask, asked) = tokio::sync::oneshot::channel();
    let (reply, replied) = std::sync::mpsc::channel();
    let path = path.to_owned();
    let other_end = std::thread::spawn(move || {
        // Opens as soon as somebody has opened it for reading, who then waits for a word.
        let end = OpenOptions::new().write(true).open(path).unwrap();
        ask.send(()).unwrap();
        let lives = replied.recv_timeout(Duration::from_secs(10)).is_ok();
        drop(end);
        lives
    });
    let answer = async {
        asked.await.unwrap();
        // If it is too late, the other end has said so.
        let _too_late = reply.send(());
    };
    tokio::join!(work, answer);
    other_end.join().unwrap()
}
