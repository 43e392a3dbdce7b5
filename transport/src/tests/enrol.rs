//! A newcomer joins.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use certs::ca_cert::CaCertError;
use certs::crl::CrlStore;
use certs::tls::{Expected, Listener as Purpose};
use certs::trust::Revocation;
use certs::{Ca, Identity, Key, RefusalReason, Role, Serial, Trust, csr, issue, key, pkcs7};
use protocol::{EnrolRole, Token};
use service::Clock;

use super::*;
use crate::enrol::{EnrolError, Enrolled, accept, first_contact};
use crate::listen::Limits;
use crate::source::CallLimits;
use crate::testing::{Bed, Own, Recorder};
use crate::{CallError, Listener, Source, SourceSettings, read_body};

/// An origin that lets everybody wait once and then issues.
struct Office {
    bed: Arc<Bed>,
    listener: Listener,
    origin: Own,
    /// Each request, and whether there was a secret in it.
    seen: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Office {
    async fn open() -> Self {
        let bed = Arc::new(Bed::new());
        let origin = bed.own(Role::Origin, "origin");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::new(AtomicUsize::new(0));
        let handler = {
            let (bed, seen) = (Arc::clone(&bed), Arc::clone(&seen));
            move |request: Request<Incoming>, session: Arc<Session>| {
                let seen_now = (request.uri().path().to_owned(), has_secret(&request));
                seen.lock().unwrap().push(seen_now);
                office(request, session, Arc::clone(&bed), Arc::clone(&asked))
            }
        };
        let recorder = Arc::new(Recorder::default());
        let purpose = Purpose::Enrol {
            roles: vec![Role::Client, Role::Booster],
        };
        let limits = Limits::default();
        let listener = bed
            .listen(&origin, purpose, limits, &recorder, handler)
            .await;
        Self {
            bed,
            listener,
            origin,
            seen,
        }
    }

    fn addresses(&self) -> Vec<String> {
        vec![self.listener.local_addr().to_string()]
    }

    fn pin(&self) -> [u8; 32] {
        self.bed.root.cert().spki_sha256()
    }
}

async fn office(
    request: Request<Incoming>,
    session: Arc<Session>,
    bed: Arc<Bed>,
    asked: Arc<AtomicUsize>,
) -> Response<Body> {
    let bag = |certs: &[&[u8]]| {
        let text = pkcs7::to_base64(&pkcs7::encode(certs));
        respond::bytes(StatusCode::OK, "application/pkcs7-mime", text)
    };
    let route = Route::parse(request.uri().path());
    assert_eq!(request.headers()[protocol::VERSION_HEADER], "1");
    let denied = |code| respond::fault(&Fault::new(code, "no"));
    match route {
        Ok(Route::CaCerts) => {
            let cas: [&Ca; 4] = [&bed.node, &bed.root, &bed.client, &bed.content];
            bag(&cas.map(Ca::cert_der))
        }
        Ok(Route::Enrol(_)) if !has_secret(&request) => denied(Code::Unauthorised),
        Ok(Route::Reenrol(_)) if session.peer().is_none() => denied(Code::Unauthorised),
        Ok(Route::Enrol(_)) if asked.fetch_add(1, Ordering::Relaxed) == 0 => {
            let mut response = respond::status(StatusCode::ACCEPTED);
            let wait = HeaderValue::from_static("7");
            response
                .headers_mut()
                .insert(http::header::RETRY_AFTER, wait);
            response
        }
        Ok(Route::Enrol(_) | Route::Reenrol(_)) => {
            let body = read_body(request.into_body(), 64 << 10, Duration::from_secs(5)).await;
            let der = pkcs7::from_base64(&body.unwrap(), 64 << 10).unwrap();
            let csr = csr::parse(&der).unwrap();
            let id = csr.claimed_id().unwrap().parse().unwrap();
            let deployment = bed.trust.deployment().clone();
            let name = Identity {
                deployment,
                role: Role::Client,
                id,
            };
            let serial = Serial::from_random(key::random().unwrap());
            let lifetime = issue::default_lifetime(Role::Client);
            let now = bed.clock.now();
            let leaf =
                issue::leaf(&name, csr.spki_der(), &bed.client, serial, now, lifetime).unwrap();
            bag(&[&leaf])
        }
        Ok(_) => serve(request, session).await,
        Err(_) => denied(Code::NotFound),
    }
}

fn settings(office: &Office, trust: &Arc<Trust>) -> SourceSettings {
    SourceSettings {
        addresses: office.addresses(),
        expected: Expected::AnyOf(Role::Origin),
        revocation: Revocation::BestEffort,
        trust: Arc::clone(trust),
        own: None,
        clock: Clock::system(),
        http2: false,
        limits: CallLimits::default(),
        refusals: None,
    }
}

#[tokio::test]
async fn a_newcomer_waits_is_let_in_and_renews() {
    let office = Office::open().await;
    let clock = Clock::system();
    let limits = CallLimits::default();
    let pins = [[0; 32], office.pin()];
    let contact = first_contact(office.addresses(), &pins, &clock, &limits)
        .await
        .unwrap();
    assert_eq!(contact.root.id(), office.bed.root.id());
    assert_eq!(contact.certs.len(), 4);

    let store = Arc::new(CrlStore::new(Duration::ZERO));
    let trust = Arc::new(Trust::new(&[contact.root.der()], store, clock.now()).unwrap());
    let source = Source::new(settings(&office, &trust)).unwrap();
    let key = Key::generate().unwrap();
    let request = csr::make(&key, "laptop-7").unwrap();
    let error = source
        .simple_enroll(EnrolRole::Client, &request, None)
        .await
        .unwrap_err();
    let CallError::Fault { fault, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(fault.code, Code::Unauthorised);
    let token = Token::new([9; 16]);
    let ask = || source.simple_enroll(EnrolRole::Client, &request, Some(&token));
    let pending = Enrolled::Pending {
        retry_after: Duration::from_secs(7),
    };
    assert_eq!(ask().await.unwrap(), pending);
    let Enrolled::Issued(issued) = ask().await.unwrap() else {
        panic!("still pending")
    };
    assert_eq!(source.cacerts().await.unwrap().len(), 4);
    for cert in source.cacerts().await.unwrap() {
        // The root is no issuing CA: that it is refused as one is as it should be.
        trust
            .add_issuing_ca(&cert, clock.now())
            .map(drop)
            .unwrap_or_default();
    }
    assert_eq!(trust.issuing_cas().len(), 3);
    let us = accept(&trust, &issued, &key, Role::Client, clock.now()).unwrap();
    assert_eq!(us.peer.id().as_str(), "laptop-7");
    assert_eq!(us.chain_der[1], office.bed.client.cert_der());

    // The chain may come along, in whatever order.
    let chain = vec![us.chain_der[1].clone(), office.bed.root.cert_der().to_vec()];
    let with_chain = [chain, issued.clone()].concat();
    let same = accept(&trust, &with_chain, &key, Role::Client, clock.now()).unwrap();
    assert_eq!(same.chain_der, us.chain_der);

    check_unfit(&trust, &issued, &key);

    let own = Arc::new(certs::tls::CertCell::new(&us.chain_der, &key).unwrap());
    let known = Source::new(SourceSettings {
        own: Some(own),
        ..settings(&office, &trust)
    });
    let renewed = known
        .unwrap()
        .simple_reenroll(EnrolRole::Client, &request)
        .await
        .unwrap();
    assert!(matches!(renewed, Enrolled::Issued(_)));
    let error = source
        .simple_reenroll(EnrolRole::Client, &request)
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Fault { .. }), "{error}");
    assert_eq!(
        source.identify().await.unwrap().identity(),
        &office.origin.identity
    );
}

/// What was issued is of no use with another key or for another role.
fn check_unfit(trust: &Trust, issued: &[Vec<u8>], key: &Key) {
    let now = Clock::system().now();
    let other = Key::generate().unwrap();
    let refused = accept(trust, issued, &other, Role::Client, now).unwrap_err();
    assert!(matches!(refused, EnrolError::Key { .. }), "{refused}");
    let refused = accept(trust, issued, key, Role::Booster, now).unwrap_err();
    let wrong = RefusalReason::WrongRole;
    assert!(
        matches!(refused, EnrolError::Issued { reason } if reason == wrong),
        "{refused}"
    );
}

#[tokio::test]
async fn a_wrong_pin_sends_nothing_but_the_question() {
    let office = Office::open().await;
    let limits = CallLimits::default();
    let (clock, pins) = (Clock::system(), [[1; 32]]);
    let error = first_contact(office.addresses(), &pins, &clock, &limits)
        .await
        .unwrap_err();
    let not_pinned = CaCertError::NotPinned;
    assert!(
        matches!(error, EnrolError::Pin { source, .. } if source == not_pinned),
        "{error}"
    );
    let seen = office.seen.lock().unwrap().clone();
    assert_eq!(seen, [("/.well-known/est/cacerts".to_owned(), false)]);
}

#[tokio::test]
async fn an_impostor_between_the_two_contacts_gets_no_token() {
    let office = Office::open().await;
    let impostor = Office::open().await;
    let (clock, limits) = (Clock::system(), CallLimits::default());
    let contact = first_contact(office.addresses(), &[office.pin()], &clock, &limits).await;
    let store = Arc::new(CrlStore::new(Duration::ZERO));
    let trust = Trust::new(&[contact.unwrap().root.der()], store, clock.now()).unwrap();
    let source = Source::new(settings(&impostor, &Arc::new(trust))).unwrap();
    let request = csr::make(&Key::generate().unwrap(), "laptop-7").unwrap();
    let token = Token::new([9; 16]);
    let error = source
        .simple_enroll(EnrolRole::Client, &request, Some(&token))
        .await;
    assert!(
        matches!(error, Err(CallError::Distrusted { .. })),
        "{error:?}"
    );
    assert_eq!(*impostor.seen.lock().unwrap(), []);
}
