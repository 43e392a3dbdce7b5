//! Whom a newcomer turns from, what it tells of that later, and how long it waits.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use certs::DeviceId;
use protocol::report::{Direction, Matter};
use protocol::{Code, Fault, Route};
use tokio::time::Instant;
use transport::CallError;

use super::*;
use crate::renew::{Proof, renew};
use crate::testing::{Office, goes_on_while, refusal};

fn request(data: &Path, join: Join) -> EnrolRequest {
    let id: DeviceId = "one".parse().unwrap();
    EnrolRequest {
        id: Some(id),
        patience: Duration::from_secs(60),
        ..EnrolRequest::new(Kind::Client, data.to_owned(), join)
    }
}

/// What was asked, in order, and whether with a certificate.
fn asked(office: &Office) -> Vec<(String, bool)> {
    office.shared.asked.lock().unwrap().clone()
}

#[tokio::test]
async fn who_has_not_the_pinned_root_is_reported_to_the_origin_that_has() {
    let folder = tempfile::tempdir().unwrap();
    let (office, impostor) = (Office::open().await, Office::open().await);
    let clock = Clock::system();
    let mut misled = office.join();
    misled.addresses = impostor.join().addresses;
    let error = enrol(request(folder.path(), misled), &clock, drop).await;
    assert!(
        matches!(error, Err(EnrolError::FirstContact { .. })),
        "{error:?}"
    );
    let heard = [("/.well-known/est/cacerts".to_owned(), false)];
    assert_eq!(asked(&impostor), heard, "it was told nothing");
    let file = folder.path().join("state/reports.json");
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(!written.contains(&office.join().token.unwrap().reveal()));

    let enrolled = enrol(request(folder.path(), office.join()), &clock, drop).await;
    assert!(!enrolled.unwrap().already);
    let reports = office.reports();
    let [report] = &reports[..] else {
        panic!("{reports:?}")
    };
    let Matter::Refusal(refusal) = &report.matter else {
        panic!("{report:?}")
    };
    assert_eq!(refusal.direction, Direction::Outbound);
    assert_eq!(refusal.reason, "unknown_issuer");
    assert_eq!(
        (&refusal.remote, &refusal.party),
        (&impostor.address(), &None)
    );
    assert!(refusal.possession_proved);
    let shown = refusal.cert_der().unwrap();
    assert_eq!(
        shown, impostor.shared.origin_der,
        "the certificate that it showed"
    );
    assert!(!file.exists());
    // Only to whom had been proved, and as who we are now.
    assert_eq!(asked(&impostor), heard);
    assert_eq!(
        asked(&office).last(),
        Some(&("/v1/reports".to_owned(), true))
    );
}

/// Enrols at an origin that is too busy for the first request for each of `routes`.
async fn enrol_at_a_busy_one(busy: fn(&Route) -> bool, code: Code) {
    let (folder, refused) = (tempfile::tempdir().unwrap(), Mutex::new(HashSet::new()));
    let office = Office::answering(move |route, _| {
        let is_first = busy(route) && refused.lock().unwrap().insert(route.to_string());
        is_first.then(|| refusal(code, Some(1)))
    });
    let (office, waits) = (office.await, Mutex::new(Vec::new()));
    let note = |note| {
        if let EnrolNote::Busy { retry_after } = note {
            waits.lock().unwrap().push(retry_after);
        }
    };
    let enrolled = enrol(
        request(folder.path(), office.join()),
        &Clock::system(),
        note,
    )
    .await;
    assert!(!enrolled.unwrap().already);
    let waits = waits.into_inner().unwrap();
    assert!(!waits.is_empty());
    let within = Duration::from_secs(1)..=Duration::from_millis(1250);
    assert!(waits.iter().all(|wait| within.contains(wait)), "{waits:?}");
}

#[tokio::test]
async fn an_origin_that_is_too_busy_for_a_newcomer_is_asked_again_when_it_says() {
    tokio::join!(
        enrol_at_a_busy_one(|route| matches!(route, Route::Enrol(_)), Code::TooMany),
        enrol_at_a_busy_one(|route| matches!(route, Route::Enrol(_)), Code::Busy),
        enrol_at_a_busy_one(|route| matches!(route, Route::CaCerts), Code::TooMany),
        enrol_at_a_busy_one(|route| matches!(route, Route::Hello), Code::TooMany),
        enrol_at_a_busy_one(|route| matches!(route, Route::Deployment), Code::TooMany),
    );
}

#[tokio::test]
async fn nobody_waits_for_longer_than_there_is_time() {
    let folder = tempfile::tempdir().unwrap();
    let is_asked = |route: &Route| matches!(route, Route::Enrol(_));
    let office = Office::answering(move |route, _| {
        is_asked(route).then(|| refusal(Code::TooMany, Some(61)))
    });
    let office = office.await;
    let refused = enrol(
        request(folder.path(), office.join()),
        &Clock::system(),
        drop,
    )
    .await;
    let Err(EnrolError::Call { source }) = refused else {
        panic!("{refused:?}")
    };
    assert!(source.when_less_busy().is_some(), "{source}");
}

#[tokio::test(start_paused = true)]
async fn waits_are_as_long_as_the_origin_says_and_a_little_longer() {
    let patience = Patience::new(Duration::from_secs(1000), drop);
    let (begun, tries) = (Instant::now(), Mutex::new(0_u32));
    let busy = || async {
        *tries.lock().unwrap() += 1;
        let source = CallError::Fault {
            fault: Fault::new(Code::TooMany, "no"),
            retry_after: Some(Duration::from_secs(100)),
        };
        Err::<(), _>(EnrolError::Call { source })
    };
    patience.with(busy).await.unwrap_err();
    let tries = tries.into_inner().unwrap();
    assert!((8..=10).contains(&tries), "{tries} tries in 1000 s");
    assert!(begun.elapsed() <= Duration::from_secs(1000));
}

#[tokio::test]
async fn a_certificate_in_date_is_kept_if_nobody_can_be_asked_and_one_that_is_over_is_not() {
    let (folder, office) = (tempfile::tempdir().unwrap(), Office::open().await);
    let (join, offset) = (office.join(), Arc::new(AtomicI64::new(0)));
    let clock = Clock::fixed_offset(Arc::clone(&offset));
    let again = async || {
        let notes = Mutex::new(Vec::new());
        let note = |note| notes.lock().unwrap().push(note);
        let enrolled = enrol(request(folder.path(), join.clone()), &clock, note).await;
        (enrolled, notes.into_inner().unwrap())
    };
    let (first, _) = again().await;
    assert!(!first.unwrap().already);
    let (second, notes) = again().await;
    assert!(second.unwrap().already);
    assert_eq!(notes, [], "it was asked, and the certificate counts");
    let asked = asked(&office);
    assert_eq!(asked.last(), Some(&("/v1/hello".to_owned(), true)));
    drop(office);
    let (third, notes) = again().await;
    assert!(third.unwrap().already);
    assert!(
        matches!(&notes[..], [EnrolNote::Unasked { .. }]),
        "{notes:?}"
    );
    offset.store(15 * 86_400, Ordering::Relaxed);
    let (late, _) = again().await;
    assert!(
        matches!(late, Err(EnrolError::FirstContact { .. })),
        "{late:?}"
    );
}

#[tokio::test]
async fn a_disk_that_is_slow_holds_up_nobody_while_a_member_catches_up_and_renews() {
    let (folder, office) = (tempfile::tempdir().unwrap(), Office::open().await);
    let (clock, data) = (Clock::system(), Data::new(folder.path(), Kind::Client));
    let enrolled = enrol(request(folder.path(), office.join()), &clock, drop).await;
    enrolled.unwrap();
    let now = clock.now();
    let identity = Identity::load(&data.identity(), Kind::Client, Duration::ZERO, now);
    let identity = identity.unwrap().unwrap();
    let refusals = Refusals::new(clock.clone());
    let source = office.source(Some(Arc::clone(&identity.cell)), &refusals);

    let state = State::new(data.state());
    let document = data.state().join("deployment.json");
    std::fs::remove_file(&document).unwrap();
    let catch_up = async {
        let trust = &identity.trust;
        let fetched = standing::fetch(&source, trust, &state, Kind::Client, now).await;
        fetched.unwrap();
    };
    assert!(goes_on_while(&document, catch_up).await);

    let cert = data.identity().join("cert.pem");
    std::fs::remove_file(&cert).unwrap();
    let renewal = async {
        let renewed = renew(&identity, Proof::Certificate, &source, &clock).await;
        renewed.unwrap();
    };
    assert!(goes_on_while(&cert, renewal).await);
    assert!(cert.metadata().unwrap().is_file());

    let cas = data.identity().join("cas.pem");
    std::fs::remove_file(&cas).unwrap();
    let keeping = async { identity.keep_cas_aside().await.unwrap() };
    assert!(goes_on_while(&cas, keeping).await);
    assert!(cas.metadata().unwrap().is_file());
}
