//! Calls that go well, and answers that do not keep what they promise.

use std::sync::atomic::Ordering;

use certs::tls::Expected;
use certs::trust::Revocation;
use certs::{RefusalReason, Role};
use content::statement::Judge;
use service::CancellationToken;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::listen::Limits;
use crate::testing::{Bed, Own, Recorder, data, loopback};
use crate::{CallError, Fetched, Listener, Source};

struct Scene {
    bed: Bed,
    booster: Own,
    client: Own,
    listener: Listener,
    recorder: Arc<Recorder>,
}

impl Scene {
    async fn new() -> Self {
        let bed = Bed::new();
        let booster = bed.own(Role::Booster, "oslo");
        let client = bed.own(Role::Client, "laptop-7");
        let recorder = Arc::new(Recorder::default());
        let limits = Limits::default();
        let listener = bed.listen(&booster, data(), limits, &recorder, serve).await;
        Self {
            bed,
            booster,
            client,
            listener,
            recorder,
        }
    }

    fn source(&self, http2: bool) -> Source {
        let addr = self.listener.local_addr();
        self.bed
            .source(addr, &self.booster.identity, Some(&self.client), http2)
    }
}

async fn read(source: &Source, name: &str) -> Result<Vec<u8>, CallError> {
    let mut pack = source.pack(&fileset(name), &pack_id(), None, false).await?;
    let mut bytes = Vec::new();
    while let Some(part) = pack.next().await? {
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

async fn check_round_trip(http2: bool) {
    let scene = Scene::new().await;
    let source = scene.source(http2);
    assert_eq!(source.hello().await.unwrap(), hello());
    let new = Fetched::New {
        bytes: "stamp".into(),
        etag: Some("\"t1\"".to_owned()),
    };
    assert_eq!(source.timestamp(None).await.unwrap(), new);
    assert_eq!(
        source.timestamp(Some("\"t1\"")).await.unwrap(),
        Fetched::Unchanged
    );
    let digest = Digest::of(b"x");
    assert_eq!(source.statement(&digest, 1000).await.unwrap().len(), 1000);
    let check_in = protocol::CheckIn {
        release: "1".to_owned(),
        booster: None,
        held: None,
    };
    let answer = source.check_in(&check_in).await.unwrap();
    assert_eq!(answer.unwrap().next_seconds, 60);
    assert_eq!(read(&source, "whole").await.unwrap(), pack_bytes());
    let error = source.snapshot(&digest).await.unwrap_err();
    let CallError::Fault { fault, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(fault.code, Code::NotFound);

    let meter = source.meter();
    assert_eq!(
        meter.connections.load(Ordering::Relaxed),
        1,
        "one connection serves them all"
    );
    assert_eq!(meter.pack_bytes.load(Ordering::Relaxed), PACK_BYTES as u64);
    assert_eq!(meter.calls.load(Ordering::Relaxed), 7);
    assert_eq!(meter.failures.load(Ordering::Relaxed), 1);
    assert_eq!(scene.listener.metrics().requests.load(Ordering::Relaxed), 7);
    let session = &scene.listener.sessions()[0];
    assert_eq!(session.peer().unwrap().identity(), &scene.client.identity);
}

#[tokio::test]
async fn calls_go_over_http_1() {
    check_round_trip(false).await;
}

#[tokio::test]
async fn calls_go_over_http_2() {
    check_round_trip(true).await;
}

#[tokio::test]
async fn a_part_of_a_pack_is_the_part_asked_for() {
    let scene = Scene::new().await;
    let source = scene.source(false);
    let check = async |asked: std::ops::Range<u64>, want: std::ops::Range<usize>| {
        let name = fileset("whole");
        let mut pack = source
            .pack(&name, &pack_id(), Some(asked), true)
            .await
            .unwrap();
        assert_eq!(pack.total(), PACK_BYTES as u64);
        assert_eq!(pack.range(), want.start as u64..want.end as u64);
        let mut bytes = Vec::new();
        while let Some(part) = pack.next().await.unwrap() {
            bytes.extend_from_slice(&part);
        }
        assert_eq!(bytes, pack_bytes()[want]);
    };
    check(0..1, 0..1).await;
    check(1000..300_000, 1000..300_000).await;
    check(1000..u64::MAX, 1000..PACK_BYTES).await;
    let empty = source
        .pack(&fileset("whole"), &pack_id(), Some(5..5), false)
        .await;
    assert!(matches!(empty, Err(CallError::BadResponse { .. })));
}

#[tokio::test]
async fn a_body_that_ends_short_is_an_error() {
    let scene = Scene::new().await;
    for http2 in [false, true] {
        for name in ["short", "broken"] {
            let error = read(&scene.source(http2), name).await.unwrap_err();
            assert!(error.is_retryable(), "{name}: {error}");
            assert!(matches!(error, CallError::Broken { .. }), "{name}: {error}");
        }
        // HTTP/1.1 announces no length at all, HTTP/2 likewise: nobody could tell the end.
        let error = read(&scene.source(http2), "unmeasured").await.unwrap_err();
        assert!(matches!(error, CallError::BadResponse { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_broken_pack_stays_broken() {
    let scene = Scene::new().await;
    let source = scene.source(false);
    let mut pack = source
        .pack(&fileset("short"), &pack_id(), None, false)
        .await
        .unwrap();
    while pack.next().await.is_ok_and(|part| part.is_some()) {}
    assert!(pack.next().await.is_err());
}

#[tokio::test]
async fn an_answer_has_a_bound() {
    let scene = Scene::new().await;
    let error = scene
        .source(false)
        .statement(&Digest::of(b"x"), 999)
        .await
        .unwrap_err();
    assert!(
        matches!(error, CallError::TooLong { bytes_max: 999 }),
        "{error}"
    );
}

#[tokio::test]
async fn a_silent_answer_is_given_up() {
    let scene = Scene::new().await;
    let mut source = scene.source(true);
    source.limits.idle_timeout = Duration::from_millis(200);
    let error = read(&source, "slow").await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn calls_at_a_time_use_connections_of_their_own_and_keep_some() {
    let scene = Scene::new().await;
    let source = scene.source(false);
    let reads = (0..8).map(|_| read(&source, "whole"));
    for bytes in futures_util::future::join_all(reads).await {
        assert_eq!(bytes.unwrap().len(), PACK_BYTES);
    }
    let opened = source.meter().connections.load(Ordering::Relaxed);
    assert!((2..=8).contains(&opened), "{opened}");
    source.hello().await.unwrap();
    assert_eq!(source.meter().connections.load(Ordering::Relaxed), opened);
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_is_replaced() {
    let scene = Scene::new().await;
    for http2 in [false, true] {
        let source = scene.source(http2);
        source.hello().await.unwrap();
        for session in scene.listener.sessions() {
            session.retire();
        }
        source.hello().await.unwrap();
        source.hello().await.unwrap();
    }
}

/// Passes connections on to `target`; the first goes dumb, without a word, when `dumb` is
/// cancelled.
async fn pass_on(line: TcpListener, target: std::net::SocketAddr, dumb: CancellationToken) {
    let forward = async |dumb: Option<&CancellationToken>| {
        let (mut near, _) = line.accept().await.unwrap();
        let mut far = TcpStream::connect(target).await.unwrap();
        let copied = tokio::io::copy_bidirectional(&mut near, &mut far);
        match dumb {
            Some(dumb) => {
                dumb.run_until_cancelled(copied).await;
                std::future::pending().await
            }
            None => drop(copied.await),
        }
    };
    let first = forward(Some(&dumb));
    let others = async {
        dumb.cancelled().await;
        loop {
            forward(None).await;
        }
    };
    let ((), ()) = tokio::join!(first, others);
}

#[tokio::test]
async fn a_connection_that_went_dumb_is_not_used_again() {
    let scene = Scene::new().await;
    for http2 in [false, true] {
        let mut source = scene.source(http2);
        source.limits.call_timeout = Duration::from_secs(1);
        let line = TcpListener::bind(loopback()).await.unwrap();
        source.set_addresses(vec![line.local_addr().unwrap().to_string()]);
        let dumb = CancellationToken::new();
        let passing = pass_on(line, scene.listener.local_addr(), dumb.clone());
        let calling = async {
            source.hello().await.unwrap();
            dumb.cancel();
            let error = source.hello().await.unwrap_err();
            assert!(matches!(error, CallError::Timeout { .. }), "{error}");
            source.hello().await.unwrap();
        };
        tokio::select! {
            () = passing => {}
            () = calling => {}
        }
    }
}

#[tokio::test]
async fn a_server_that_is_somebody_else_gets_no_request() {
    let scene = Scene::new().await;
    let addr = scene.listener.local_addr();
    let bergen = scene.bed.own(Role::Booster, "bergen").identity;
    let source = scene.bed.source(addr, &bergen, Some(&scene.client), false);
    let error = source.hello().await.unwrap_err();
    let CallError::Distrusted { reason, evidence } = error else {
        panic!("{error}")
    };
    assert_eq!(reason, RefusalReason::NameMismatch);
    assert_eq!(evidence.unwrap().leaf_der, scene.booster.chain[0]);
    assert_eq!(scene.listener.metrics().requests.load(Ordering::Relaxed), 0);
    // The server hears of it too, and knows that it is not the one to tell why.
    scene
        .recorder
        .until(|records| records.refused.len() == 1 && records.refused[0].by_peer)
        .await;
}

#[tokio::test]
async fn a_server_that_was_revoked_is_left_even_with_a_connection_open() {
    let scene = Scene::new().await;
    let source = scene.source(false);
    source.hello().await.unwrap();
    scene
        .bed
        .publish(&scene.bed.node, 2, &[scene.booster.serial]);
    let error = source.hello().await.unwrap_err();
    let revoked = RefusalReason::Revoked;
    assert!(
        matches!(error, CallError::Distrusted { reason, .. } if reason == revoked),
        "{error}"
    );
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_is_dead() {
    let scene = Scene::new().await;
    let dead = TcpListener::bind(loopback()).await.unwrap();
    let dead_addr = dead.local_addr().unwrap().to_string();
    drop(dead);
    let source = scene.source(false);
    let alive = source.addresses()[0].clone();
    source.set_addresses(vec![dead_addr.clone(), alive]);
    source.hello().await.unwrap();
    let source = scene.source(false);
    source.set_addresses(vec![dead_addr.clone()]);
    let error = source.hello().await.unwrap_err();
    assert!(matches!(&error, CallError::Unreachable { addresses, .. } if *addresses == dead_addr));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn who_answers_is_learnt_from_its_certificate() {
    let scene = Scene::new().await;
    let expected = Expected::AnyOf(Role::Booster);
    let (addr, best) = (scene.listener.local_addr(), Revocation::BestEffort);
    let source = scene
        .bed
        .source_with(addr, expected, best, Some(&scene.client), false);
    assert_eq!(
        source.identify().await.unwrap().identity(),
        &scene.booster.identity
    );
}

#[test]
fn a_statement_counts_if_a_content_signer_signed_it() {
    let bed = Bed::new();
    let judge = crate::ContentJudge::new(Arc::clone(&bed.trust));
    assert_eq!(judge.deployment(), "acme");
    let now = bed.clock.now();
    let check = |role: Role, message: &[u8]| {
        let own = bed.own(role, "x");
        let signature = own.key.sign(b"message").unwrap();
        judge.judge(message, &signature, &own.chain, now).is_ok()
    };
    assert!(check(Role::Signer, b"message"));
    assert!(!check(Role::Signer, b"massage"));
    assert!(!check(Role::Booster, b"message"));
}

async fn check_renewal(http2: bool) {
    let scene = Scene::new().await;
    let source = scene.source(http2);
    let connections = || source.meter().connections.load(Ordering::Relaxed);
    let (fileset, pack) = (fileset("whole"), pack_id());
    let under_way = source.pack(&fileset, &pack, None, false);
    let mut under_way = under_way.await.unwrap();
    source.hello().await.unwrap();
    let before = connections();
    let (role, now) = (Role::Client, scene.bed.clock.now());
    let new = scene.bed.own_at(role, "laptop-7", now + 60);
    scene.client.cell.replace(&new.chain, &new.key).unwrap();
    source.hello().await.unwrap();
    assert_eq!(connections(), before + 1, "the new one is shown");
    source.hello().await.unwrap();
    assert_eq!(connections(), before + 1, "once");
    while under_way.next().await.unwrap().is_some() {}
}

#[tokio::test]
async fn a_connection_of_a_certificate_that_was_renewed_takes_no_more_calls() {
    // It would be cut off, and reported, when the old certificate ends.
    check_renewal(false).await;
    check_renewal(true).await;
}
