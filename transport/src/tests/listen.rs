//! Who gets in, who does not, and who is put out.

use std::sync::atomic::{AtomicUsize, Ordering};

use certs::tls::Expected;
use certs::trust::Revocation;
use certs::{RefusalReason, Role};
use service::Drained;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::*;
use crate::CallError;
use crate::listen::{Handshake, Limits};
use crate::source::finish;
use crate::testing::{Bed, DAY, Own, Recorder, SOON, data};

/// What a client is told: nothing, or that it was refused for a reason.
async fn call(
    bed: &Bed,
    addr: std::net::SocketAddr,
    to: &Own,
    own: Option<&Own>,
) -> Option<RefusalReason> {
    // The client itself does not mind old lists: it is the server's verdict that counts.
    let expected = Expected::Exactly(to.identity.clone());
    let source = bed.source_with(addr, expected, Revocation::BestEffort, own, false);
    match source.hello().await {
        Ok(_) => None,
        Err(CallError::Refused { reason }) => Some(reason),
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn nine_clients_knock() {
    let bed = Bed::new();
    let booster = bed.own(Role::Booster, "oslo");
    let recorder = Arc::new(Recorder::default());
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    let handler = move |request, session| {
        count.fetch_add(1, Ordering::Relaxed);
        serve(request, session)
    };
    let listener = bed
        .listen(&booster, data(), Limits::default(), &recorder, handler)
        .await;
    let addr = listener.local_addr();
    let now = bed.clock.now();
    let mut refused = 0;
    // The reason that the server finds, the hint that the client gets, and who is to blame.
    let mut check =
        async |own: Option<&Own>, reason: RefusalReason, hint: RefusalReason, proved: bool| {
            assert_eq!(
                call(&bed, addr, &booster, own).await,
                Some(hint),
                "{reason}"
            );
            refused += 1;
            let records = recorder
                .until(|records| records.refused.len() == refused)
                .await;
            let record = records.refused.last().unwrap();
            assert_eq!((record.reason, record.possession_proved), (reason, proved));
            assert_eq!(record.stage, Handshake::Failed);
            let shown = record
                .evidence
                .as_ref()
                .map(|evidence| evidence.leaf_der.clone());
            assert_eq!(shown, own.map(|own| own.chain[0].clone()));
        };
    use RefusalReason::{BadSignature, Expired, NoCertificate, NotYetValid, Revoked};
    use RefusalReason::{CrlStale, UnknownIssuer, WrongEku, WrongRole};
    let revoked = bed.own(Role::Client, "stolen");
    bed.publish(&bed.client, 2, &[revoked.serial]);
    check(Some(&revoked), Revoked, Revoked, true).await;
    let other_ca = Bed::called("other").own(Role::Client, "a");
    check(Some(&other_ca), UnknownIssuer, UnknownIssuer, false).await;
    let other_key = Bed::new().own(Role::Client, "a");
    check(Some(&other_key), BadSignature, BadSignature, false).await;
    let expired = bed.own_at(Role::Client, "a", now - 15 * DAY);
    check(Some(&expired), Expired, Expired, false).await;
    let early = bed.own_at(Role::Client, "a", now + DAY);
    check(Some(&early), NotYetValid, Expired, false).await;
    let signer = bed.own(Role::Signer, "a");
    check(Some(&signer), WrongEku, WrongEku, false).await;
    let origin = bed.own(Role::Origin, "a");
    check(Some(&origin), WrongRole, WrongRole, true).await;
    check(None, NoCertificate, NoCertificate, false).await;
    assert_eq!(answered.load(Ordering::Relaxed), 0);

    let good = bed.own(Role::Client, "good");
    assert_eq!(call(&bed, addr, &booster, Some(&good)).await, None);
    assert_eq!(answered.load(Ordering::Relaxed), 1);
    bed.trust.crls().require_number(bed.client.id(), 9);
    check(Some(&good), CrlStale, UnknownIssuer, true).await;
    assert_eq!(answered.load(Ordering::Relaxed), 1);
    let counts: u64 = listener.metrics().refused().map(|(_, count)| count).sum();
    assert_eq!(counts, 9);
}

#[tokio::test]
async fn a_new_list_ends_a_live_session_and_leaves_the_bystander() {
    for http2 in [false, true] {
        let bed = Bed::new();
        let booster = bed.own(Role::Booster, "oslo");
        let recorder = Arc::new(Recorder::default());
        let listener = bed
            .listen(&booster, data(), Limits::default(), &recorder, serve)
            .await;
        let (thief, bystander) = (bed.own(Role::Client, "thief"), bed.own(Role::Client, "by"));
        let source =
            |own: &Own| bed.source(listener.local_addr(), &booster.identity, Some(own), http2);
        let (thief_source, bystander_source) = (source(&thief), source(&bystander));
        let begin = async |source: &crate::Source| {
            let mut pack = source
                .pack(&fileset("endless"), &pack_id(), None, false)
                .await
                .unwrap();
            assert!(pack.next().await.unwrap().is_some());
            pack
        };
        let mut stolen = begin(&thief_source).await;
        let mut innocent = begin(&bystander_source).await;
        bed.publish(&bed.client, 2, &[thief.serial]);
        let published = Instant::now();
        let end = async { while stolen.next().await.is_ok() {} };
        timeout(SOON, end).await.unwrap();
        assert!(
            published.elapsed() < Duration::from_secs(1),
            "{:?}",
            published.elapsed()
        );
        let records = recorder.until(|records| records.refused.len() == 1).await;
        assert_eq!(records.reasons(), [RefusalReason::Revoked]);
        assert_eq!(records.refused[0].stage, Handshake::InSession);
        assert_eq!(
            records.refused[0].peer.as_ref().unwrap().serial(),
            thief.serial
        );
        assert!(innocent.next().await.unwrap().is_some());
        assert_eq!(listener.sessions().len(), 1);
    }
}

#[tokio::test]
async fn a_list_that_is_too_old_ends_a_session_at_its_next_request() {
    let bed = Bed::new();
    let (booster, client) = (bed.own(Role::Booster, "oslo"), bed.own(Role::Client, "a"));
    let recorder = Arc::new(Recorder::default());
    let listener = bed
        .listen(&booster, data(), Limits::default(), &recorder, serve)
        .await;
    let expected = Expected::Exactly(booster.identity.clone());
    let addr = listener.local_addr();
    let source = bed.source_with(addr, expected, Revocation::BestEffort, Some(&client), true);
    let name = fileset("endless");
    let mut pack = source.pack(&name, &pack_id(), None, false).await.unwrap();
    bed.trust.crls().require_number(bed.client.id(), 9);
    // Longer than the housekeeper takes to come round twice.
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(1200) {
        assert!(pack.next().await.unwrap().is_some());
    }
    let told = source.hello().await.unwrap_err();
    assert!(matches!(told, CallError::Fault { .. }), "{told:?}");
    let records = recorder.until(|records| records.refused.len() == 1).await;
    assert_eq!(records.reasons(), [RefusalReason::CrlStale]);
}

#[tokio::test]
async fn a_session_ends_with_its_certificate() {
    let bed = Bed::new();
    let booster = bed.own_at(Role::Booster, "oslo", bed.clock.now() + 10 * DAY);
    let client = bed.own(Role::Client, "laptop-7");
    let origin = bed.own(Role::Origin, "origin");
    let recorder = Arc::new(Recorder::default());
    let listener = bed
        .listen(&origin, data(), Limits::default(), &recorder, serve)
        .await;
    let source = bed.source(
        listener.local_addr(),
        &origin.identity,
        Some(&client),
        false,
    );
    let mut pack = source
        .pack(&fileset("endless"), &pack_id(), None, false)
        .await
        .unwrap();
    assert!(pack.next().await.unwrap().is_some());
    bed.advance(14 * DAY + 1);
    let end = async { while pack.next().await.is_ok() {} };
    timeout(SOON, end).await.unwrap();
    let records = recorder.until(|records| !records.refused.is_empty()).await;
    assert_eq!(records.reasons(), [RefusalReason::Expired]);
    drop(booster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p21_no_handshake_that_races_a_new_list_survives_it() {
    let bed = Arc::new(Bed::new());
    let booster = bed.own(Role::Booster, "oslo");
    let thief = bed.own(Role::Client, "thief");
    let recorder = Arc::new(Recorder::default());
    let listener = bed
        .listen(&booster, data(), Limits::default(), &recorder, serve)
        .await;
    // Two files for each of those who meet.
    service::raise_open_files();
    let sources: Vec<crate::Source> = (0..1000)
        .map(|_| {
            bed.source(
                listener.local_addr(),
                &booster.identity,
                Some(&thief),
                false,
            )
        })
        .collect();
    let knock = futures_util::future::join_all(sources.iter().map(crate::Source::hello));
    let revoke = async {
        recorder.until(|records| records.accepted >= 300).await;
        bed.publish(&bed.client, 2, &[thief.serial]);
    };
    let ((), answers) = tokio::join!(revoke, knock);
    // Who answered before the list came is put out by it, and nobody is refused twice.
    assert_eq!(answers.len(), sources.len());
    let total = |records: &crate::testing::Records| records.refused.len() == sources.len();
    recorder.until(total).await;
    let wait = async {
        while !listener.sessions().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, wait).await.unwrap();
}

#[tokio::test]
async fn p17_a_refused_client_that_talks_too_much_still_hears_why() {
    let bed = Bed::new();
    let booster = bed.own(Role::Booster, "oslo");
    let thief = bed.own(Role::Client, "thief");
    bed.publish(&bed.client, 2, &[thief.serial]);
    let recorder = Arc::new(Recorder::default());
    let listener = bed
        .listen(&booster, data(), Limits::default(), &recorder, serve)
        .await;
    for _ in 0..20 {
        let source = bed.source(
            listener.local_addr(),
            &booster.identity,
            Some(&thief),
            false,
        );
        let make = || {
            let request = source
                .connector
                .request("/v1/check-in")
                .method(http::Method::POST);
            finish(request, Bytes::from(vec![b'x'; 1 << 20]))
        };
        let deadline = Instant::now() + SOON;
        let error = source
            .connector
            .exchange(make, deadline)
            .await
            .map(drop)
            .unwrap_err();
        let revoked = RefusalReason::Revoked;
        assert!(
            matches!(error, CallError::Refused { reason } if reason == revoked),
            "{error:?}"
        );
    }
}

fn impatient() -> Limits {
    Limits {
        handshake_timeout: Duration::from_millis(200),
        header_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(600),
        stall_timeout: Duration::from_millis(600),
        work_timeout: Duration::from_millis(600),
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_slow_handshake_is_cut_off() {
    let bed = Bed::new();
    let booster = bed.own(Role::Booster, "oslo");
    let recorder = Arc::new(Recorder::default());
    let listener = bed
        .listen(&booster, data(), impatient(), &recorder, serve)
        .await;
    let mut silent = TcpStream::connect(listener.local_addr()).await.unwrap();
    let mut buffer = [0; 16];
    let got = timeout(SOON, silent.read(&mut buffer)).await.unwrap();
    assert!(matches!(got, Ok(0) | Err(_)), "{got:?}");
    let mut rude = TcpStream::connect(listener.local_addr()).await.unwrap();
    rude.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let records = recorder.until(|records| records.refused.len() == 2).await;
    assert_eq!(records.reasons(), [RefusalReason::Protocol; 2]);
}

#[tokio::test]
async fn a_slow_head_an_idle_connection_and_a_stalled_answer_are_cut_off() {
    let bed = Bed::new();
    let booster = bed.own(Role::Booster, "oslo");
    let client = bed.own(Role::Client, "laptop-7");
    let recorder = Arc::new(Recorder::default());
    let listener = bed
        .listen(&booster, data(), impatient(), &recorder, serve)
        .await;
    let hello = "GET /v1/hello HTTP/1.1\r\nhost: x\r\n\r\n";
    let pack = format!(
        "GET /v1/filesets/slow/packs/{} HTTP/1.1\r\nhost: x\r\n\r\n",
        pack_id().0.hex()
    );
    let said = ["", "GET /v1/he", hello, &format!("{hello}GET /"), &pack];
    let addr = listener.local_addr();
    let (bed, booster, client) = (&bed, &booster, &client);
    let ends = said.map(|said| async move {
        let mut stream = bed.dial(addr, booster, client, b"http/1.1").await;
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        // In an orderly way or not: what counts is that it ends.
        assert!(
            timeout(SOON, stream.read_to_end(&mut heard)).await.is_ok(),
            "{said}"
        );
    });
    futures_util::future::join_all(ends).await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_over_http_1_is_cut_off() {
    let bed = Bed::new();
    let booster = bed.own(Role::Booster, "oslo");
    let client = bed.own(Role::Client, "laptop-7");
    let recorder = Arc::new(Recorder::default());
    // More than the system keeps for a connection, in one piece.
    let handler = async |_, _| Response::new(Body::full(vec![0; 64 << 20]));
    let listener = bed
        .listen(&booster, data(), impatient(), &recorder, handler)
        .await;
    let addr = listener.local_addr();
    let mut stream = bed.dial(addr, &booster, &client, b"http/1.1").await;
    let get = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(get).await.unwrap();
    recorder.until(|records| records.accepted == 1).await;
    let end = async {
        while !listener.sessions().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, end).await.unwrap();
}

#[tokio::test]
async fn a_drain_lets_requests_end_and_cuts_off_the_deaf() {
    for http2 in [false, true] {
        let bed = Bed::new();
        let booster = bed.own(Role::Booster, "oslo");
        let client = bed.own(Role::Client, "laptop-7");
        let (entered, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (at_handler, may_go) = (Arc::clone(&entered), Arc::clone(&go));
        let handler = move |request, session| {
            let (entered, go) = (Arc::clone(&at_handler), Arc::clone(&may_go));
            async move {
                entered.add_permits(1);
                go.acquire().await.unwrap().forget();
                serve(request, session).await
            }
        };
        let recorder = Arc::new(Recorder::default());
        let limits = Limits::default();
        let listener = bed
            .listen(&booster, data(), limits, &recorder, handler)
            .await;
        let addr = listener.local_addr();
        let source = bed.source(addr, &booster.identity, Some(&client), http2);
        let drain = async {
            entered.acquire().await.unwrap().forget();
            let drain = listener.drain(SOON);
            tokio::pin!(drain);
            // Polled once, so that it has begun when the request is let go.
            let early = timeout(Duration::from_millis(50), &mut drain).await;
            assert!(early.is_err(), "a request is under way");
            go.add_permits(1);
            drain.await
        };
        let (drained, hello) = tokio::join!(drain, source.hello());
        assert_eq!(drained, Drained::InTime);
        hello.unwrap();
        let error = source.hello().await.unwrap_err();
        assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let bed = Bed::new();
    let booster = bed.own(Role::Booster, "oslo");
    let client = bed.own(Role::Client, "laptop-7");
    let recorder = Arc::new(Recorder::default());
    let listener = bed
        .listen(&booster, data(), Limits::default(), &recorder, serve)
        .await;
    let source = bed.source(
        listener.local_addr(),
        &booster.identity,
        Some(&client),
        false,
    );
    let mut pack = source
        .pack(&fileset("endless"), &pack_id(), None, false)
        .await
        .unwrap();
    assert!(pack.next().await.unwrap().is_some());
    assert_eq!(
        listener.drain(Duration::from_millis(100)).await,
        Drained::CutOff { left: 1 }
    );
    let end = async { while pack.next().await.is_ok() {} };
    timeout(SOON, end).await.unwrap();
}

#[tokio::test]
async fn a_request_ends_with_its_listener() {
    for http2 in [false, true] {
        let bed = Bed::new();
        let booster = bed.own(Role::Booster, "oslo");
        let client = bed.own(Role::Client, "laptop-7");
        let (entered, mut left) = tokio::sync::mpsc::channel::<()>(1);
        let work = entered.downgrade();
        let handler = move |request, session| {
            let held = work.upgrade();
            async move {
                if let Some(held) = &held {
                    held.send(()).await.unwrap();
                    std::future::pending().await
                }
                serve(request, session).await
            }
        };
        let (recorder, limits) = (Arc::new(Recorder::default()), Limits::default());
        let listener = bed
            .listen(&booster, data(), limits, &recorder, handler)
            .await;
        let addr = listener.local_addr();
        let source = bed.source(addr, &booster.identity, Some(&client), http2);
        let end = async {
            left.recv().await.unwrap();
            drop(entered);
            let drained = listener.drain(Duration::from_millis(10)).await;
            assert_eq!(drained, Drained::CutOff { left: 1 });
            // Nobody holds the sender any more.
            assert_eq!(timeout(SOON, left.recv()).await, Ok(None));
        };
        let (_, ()) = tokio::join!(source.hello(), end);
    }
}

#[tokio::test]
async fn connections_are_bounded() {
    let bed = Bed::new();
    let booster = bed.own(Role::Booster, "oslo");
    let client = bed.own(Role::Client, "laptop-7");
    let recorder = Arc::new(Recorder::default());
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let listener = bed.listen(&booster, data(), limits, &recorder, serve).await;
    let source = || {
        bed.source(
            listener.local_addr(),
            &booster.identity,
            Some(&client),
            false,
        )
    };
    let first = source();
    first.hello().await.unwrap();
    let second = source();
    let waiting = second.hello();
    tokio::pin!(waiting);
    assert!(
        timeout(Duration::from_millis(200), &mut waiting)
            .await
            .is_err()
    );
    drop(first);
    timeout(SOON, waiting).await.unwrap().unwrap();
}
