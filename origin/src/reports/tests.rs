//! Reports from the wire to the operator's eyes.

use content::Digest;
use protocol::Reported;
use protocol::report::{Bypass, BypassReason, Direction, Matter, Notice, Refusal, Stage};
use service::metrics::Registry;

use super::*;
use crate::testing::Bed;

fn reports(bed: &Bed) -> Reports {
    let metrics = Metrics::register(&Registry::new("larder_origin")).unwrap();
    Reports::new(&bed.authority, metrics)
}

fn refusal(id: u8, reason: &str, cert: &[u8]) -> Reported {
    Reported {
        id: format!("{id:032x}"),
        first_at: 1_700_000_000,
        last_at: 1_700_000_000,
        count: 1,
        matter: Matter::Refusal(Refusal {
            direction: Direction::Inbound,
            stage: Stage::Handshake,
            reason: reason.to_owned(),
            possession_proved: true,
            remote: "192.0.2.1:4000".to_owned(),
            party: None,
            cert_sha256: Some(Digest::of(cert).hex()),
            cert: Refusal::cert_text(cert),
        }),
    }
}

fn body(all: &[Reported]) -> Body {
    Body {
        dropped: 0,
        reports: all.to_vec(),
    }
}

async fn list(reports: &Reports, query: &Query) -> Vec<ReportView> {
    reports.list(query).await.unwrap().reports
}

#[tokio::test]
async fn a_report_that_comes_twice_is_one_and_its_numbers_only_rise() {
    let bed = Bed::new().await;
    let reports = reports(&bed);
    let cert = bed.authority.own_certificate().chain_der().remove(0);
    let mut report = refusal(1, "revoked", &cert);
    for (count, last_at) in [(2, 70), (5, 90), (3, 80)] {
        report.count = count;
        report.last_at = 1_700_000_000 + last_at;
        let kept = reports
            .keep("booster/berlin", &body(&[report.clone()]))
            .await;
        assert!(kept.unwrap());
    }
    let listed = list(&reports, &Query::default()).await;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].count, listed[0].last_at), (5, 1_700_000_090));
    let claims = listed[0].claims_unverified.as_ref().unwrap();
    assert!(claims.issuer.contains("Node CA G1"), "{claims:?}");
    // The same id of another reporter is another report.
    assert!(
        reports
            .keep("client/laptop", &body(&[report]))
            .await
            .unwrap()
    );
    assert_eq!(list(&reports, &Query::default()).await.len(), 2);
}

#[tokio::test]
async fn an_operator_sees_what_was_asked_for_the_newest_first() {
    let bed = Bed::new().await;
    let reports = reports(&bed);
    for (id, reason) in [(1, "revoked"), (2, "expired"), (3, "revoked")] {
        let one = body(&[refusal(id, reason, b"cert")]);
        assert!(reports.keep("booster/berlin", &one).await.unwrap());
        bed.pass(60);
    }
    let check = async |query: Query, expected: &[&str]| {
        let listed = list(&reports, &query).await;
        let reasons: Vec<_> = listed
            .iter()
            .map(|it| it.reason.as_deref().unwrap())
            .collect();
        assert_eq!(reasons, expected, "{query:?}");
    };
    check(Query::default(), &["revoked", "expired", "revoked"]).await;
    let reason = Some("expired".to_owned());
    check(
        Query {
            reason,
            ..Query::default()
        },
        &["expired"],
    )
    .await;
    let since = reports.now() - 130;
    check(
        Query {
            since,
            ..Query::default()
        },
        &["revoked", "expired"],
    )
    .await;
    let limit = Some(1);
    check(
        Query {
            limit,
            ..Query::default()
        },
        &["revoked"],
    )
    .await;
    let reporter = Some("booster/oslo".to_owned());
    check(
        Query {
            reporter,
            ..Query::default()
        },
        &[],
    )
    .await;
}

#[tokio::test]
async fn a_bypass_is_kept_with_its_bytes_and_counted_by_what_came_since() {
    let bed = Bed::new().await;
    let reports = reports(&bed);
    let mut report = refusal(1, "revoked", b"cert");
    for (count, bytes) in [(1, 100), (3, 150), (2, 120)] {
        report.count = count;
        report.matter = Matter::Bypass(Bypass {
            booster: "b1".to_owned(),
            reason: BypassReason::Timeout,
            bytes,
        });
        let kept = reports.keep("client/one", &body(&[report.clone()])).await;
        assert!(kept.unwrap());
    }
    for wanted in ["bypass", "timeout"] {
        let query = Query {
            reason: Some(wanted.to_owned()),
            ..Query::default()
        };
        let listed = list(&reports, &query).await;
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!((listed[0].count, listed[0].bytes), (3, Some(150)));
        let told = listed[0].to_string();
        assert!(
            told.contains("went round booster b1: timeout, 150 B"),
            "{told}"
        );
    }
    let counted = reports.metrics.bypass_counts(BypassReason::Timeout);
    assert_eq!(counted, (3, 150));
}

#[tokio::test]
async fn texts_of_strangers_are_shown_escaped() {
    let bed = Bed::new().await;
    let reports = reports(&bed);
    let mut stranger = refusal(1, "protocol", b"cert");
    if let Matter::Refusal(it) = &mut stranger.matter {
        it.remote = "a\u{1b}[2J".to_owned();
        it.party = Some("b\u{202e}c".to_owned());
    }
    let notice = Reported {
        id: format!("{:032x}", 2),
        matter: Matter::Notice(Notice {
            kind: "clock_skew".to_owned(),
            detail: "d\r\u{9b}".to_owned(),
        }),
        ..stranger.clone()
    };
    let kept = reports
        .keep("client/laptop", &body(&[stranger, notice]))
        .await;
    assert!(kept.unwrap());
    let view = reports.list(&Query::default()).await.unwrap();
    let shown = [view.to_string(), serde_json::to_string(&view).unwrap()];
    for shown in shown {
        let is_plain = |letter: char| letter == '\n' || !letter.is_control();
        assert!(shown.chars().all(is_plain), "{shown:?}");
        assert!(!shown.contains('\u{202e}'), "{shown:?}");
    }
}

#[tokio::test]
async fn a_certificate_under_another_ones_digest_is_not_kept() {
    let bed = Bed::new().await;
    let reports = reports(&bed);
    let mut lying = refusal(
        1,
        "revoked",
        &bed.authority.own_certificate().chain_der().remove(0),
    );
    if let Matter::Refusal(it) = &mut lying.matter {
        it.cert_sha256 = Some(Digest::of(b"another").hex());
    }
    assert!(
        reports
            .keep("booster/berlin", &body(&[lying]))
            .await
            .unwrap()
    );
    let listed = list(&reports, &Query::default()).await;
    assert_eq!(listed[0].claims_unverified, None);
}

#[tokio::test]
async fn what_one_party_may_report_in_an_hour_ends() {
    let bed = Bed::new().await;
    let reports = reports(&bed);
    let many = |from: u32| {
        let one = |id: u32| Reported {
            id: format!("{id:032x}"),
            ..refusal(0, "protocol", b"cert")
        };
        body(&(from..from + 64).map(one).collect::<Vec<_>>())
    };
    for round in 0..16 {
        let kept = reports.keep("booster/berlin", &many(round * 64)).await;
        assert!(kept.unwrap(), "round {round}");
    }
    let kept = reports.keep("booster/berlin", &many(5_000)).await;
    assert!(!kept.unwrap(), "that was enough");
    let other = reports.keep("booster/oslo", &many(0)).await;
    assert!(other.unwrap(), "nobody else pays for it");
    bed.pass(3_601);
    let kept = reports.keep("booster/berlin", &many(5_000)).await;
    assert!(kept.unwrap(), "an hour later");
}

#[tokio::test]
async fn old_reports_and_their_certificates_are_forgotten() {
    let bed = Bed::new().await;
    let reports = reports(&bed);
    let cert = bed.authority.own_certificate().chain_der().remove(0);
    let one = body(&[refusal(1, "revoked", &cert)]);
    assert!(reports.keep("booster/berlin", &one).await.unwrap());
    bed.pass(89 * crate::testing::DAY);
    reports.tidy().await.unwrap();
    assert_eq!(list(&reports, &Query::default()).await.len(), 1);
    bed.pass(2 * crate::testing::DAY);
    reports.tidy().await.unwrap();
    assert_eq!(list(&reports, &Query::default()).await, []);
    // The digest alone does not bring the certificate back.
    let mut again = refusal(2, "revoked", &cert);
    if let Matter::Refusal(it) = &mut again.matter {
        it.cert = None;
    }
    assert!(
        reports
            .keep("booster/berlin", &body(&[again]))
            .await
            .unwrap()
    );
    let listed = list(&reports, &Query::default()).await;
    assert_eq!(listed[0].claims_unverified, None);
}

/// One refusal of a listener of ours, as it comes from a stranger.
fn stranger() -> Refused {
    Refused {
        remote: "192.0.2.1:4000".parse().unwrap(),
        by_peer: false,
        reason: certs::RefusalReason::NoCertificate,
        stage: transport::Handshake::Failed,
        possession_proved: false,
        evidence: None,
        peer: None,
    }
}

#[tokio::test]
async fn who_knocks_without_a_pause_does_not_keep_us_at_it() {
    let bed = Bed::new().await;
    let reports = reports(&bed);
    let refusals = Refusals::new(reports.clock.clone());
    let stop = CancellationToken::new();
    let run = reports.clone().run(refusals.clone(), stop.clone());
    let knock = async {
        // Somebody knocks again before each step of ours.
        loop {
            refusals.note(&stranger());
            if refusals.counts().delivered >= 2 {
                stop.cancel();
            }
            if stop.is_cancelled() {
                break;
            }
            tokio::task::yield_now().await;
        }
        // Until it has seen that it shall stop.
        loop {
            refusals.note(&stranger());
            tokio::task::yield_now().await;
        }
    };
    let ended = async {
        tokio::select! {
            () = run => {}
            () = knock => {}
        }
    };
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, ended).await.unwrap();
    assert!(refusals.counts().delivered <= 4, "with a pause between");
    assert_eq!(list(&reports, &Query::default()).await.len(), 1);
}

#[tokio::test]
async fn strangers_leave_room_for_those_who_prove_something() {
    let bed = Bed::new().await;
    let reports = reports(&bed);
    let one = |id: u32, possession_proved| {
        let mut one = refusal(0, "protocol", b"cert");
        one.id = format!("{id:032x}");
        if let Matter::Refusal(it) = &mut one.matter {
            it.possession_proved = possession_proved;
        }
        one
    };
    let strangers: Vec<_> = (0..1024).map(|id| one(id, false)).collect();
    let kept = reports.keep("booster/berlin", &body(&strangers)).await;
    assert!(!kept.unwrap());
    let proved = body(&[one(5_000, true)]);
    let kept = reports.keep("booster/berlin", &proved).await;
    assert!(kept.unwrap());
    // What is there is counted on, even now.
    let mut again = one(1, false);
    again.count = 9;
    let kept = reports.keep("booster/berlin", &body(&[again])).await;
    assert!(kept.unwrap());
    let query = Query {
        limit: Some(2000),
        ..Query::default()
    };
    let listed = list(&reports, &query).await;
    assert_eq!(listed.len(), 769);
    assert_eq!(listed.iter().filter(|it| it.count == 9).count(), 1);
}

#[tokio::test]
async fn nobodys_flood_pushes_out_what_others_reported() {
    let bed = Bed::new().await;
    let reports = reports(&bed);
    let many = |from: u32, count: u32| {
        let one = |id: u32| Reported {
            id: format!("{id:032x}"),
            ..refusal(0, "protocol", b"cert")
        };
        body(&(from..from + count).map(one).collect::<Vec<_>>())
    };
    for (reporter, count) in [("booster/oslo", 5), ("booster/berlin", 40)] {
        let kept = reports.keep(reporter, &many(0, count)).await;
        assert!(kept.unwrap());
        bed.pass(1);
    }
    let mut tx = reports.ledger.write().await.unwrap();
    let gone = table::prune(&mut tx, 0, 10, 20).await.unwrap();
    commit(tx).await.unwrap();
    assert_eq!(gone, 30);
    let listed = list(&reports, &Query::default()).await;
    let of = |reporter| listed.iter().filter(|it| it.reporter == reporter).count();
    assert_eq!((of("booster/oslo"), of("booster/berlin")), (5, 10));
}

#[tokio::test]
async fn what_a_reporter_said_lately_is_counted_by_an_index() {
    let bed = Bed::new().await;
    let mut db = bed.authority.ledger().read().await.unwrap();
    let plan = sqlx::query(
        "EXPLAIN QUERY PLAN SELECT count(*) AS n FROM reports \
         WHERE reporter = 'booster/oslo' AND received_at >= 5",
    );
    let row = plan.fetch_one(&mut *db).await.unwrap();
    let plan: String = sqlx::Row::get(&row, "detail");
    assert!(plan.contains("(reporter=? AND received_at>?)"), "{plan}");
}

#[tokio::test]
async fn what_reporters_had_to_drop_is_told_over_all_their_runs() {
    let bed = Bed::new().await;
    let registry = Registry::new("larder_origin");
    let metrics = Metrics::register(&registry).unwrap();
    let reports = Reports::new(&bed.authority, metrics);
    let tell = async |reporter: &str, dropped| {
        let told = Body {
            dropped,
            reports: Vec::new(),
        };
        assert!(reports.keep(reporter, &told).await.unwrap());
    };
    // A body may come twice, and after a new start the count begins anew.
    for dropped in [0, 3, 3, 7, 2, 2, 5] {
        tell("booster/berlin", dropped).await;
    }
    bed.pass(3600);
    tell("client/liar", u64::MAX).await;
    tell("client/liar", 0).await;
    tell("client/liar", u64::MAX).await;
    tell("client/quiet", 0).await;
    let now = bed.authority.clock().now();
    let check = async |query: Query, expected: &[(&str, u64)]| {
        let view = reports.list(&query).await.unwrap();
        let found = view.dropped.iter();
        let found: Vec<_> = found.map(|it| (&it.reporter[..], it.count)).collect();
        assert_eq!(found, expected, "{query:?}");
        view.to_string()
    };
    let both = [("client/liar", 2 << 32), ("booster/berlin", 12)];
    let text = check(Query::default(), &both).await;
    let line = "  booster/berlin  dropped 12 of what it had to report";
    assert!(text.lines().any(|it| it.ends_with(line)), "{text}");
    let reporter = Some("booster/berlin".to_owned());
    check(
        Query {
            reporter,
            ..Query::default()
        },
        &both[1..],
    )
    .await;
    check(
        Query {
            since: now - 60,
            ..Query::default()
        },
        &both[..1],
    )
    .await;
    let page = registry.page().unwrap();
    let sum = (2_u64 << 32) + 12;
    let line = format!("larder_origin_reports_dropped_total{{by=\"members\"}} {sum}\n");
    assert!(page.contains(&line), "{page}");
}

#[tokio::test]
async fn what_our_own_listeners_drop_is_told_too() {
    let bed = Bed::new().await;
    let registry = Registry::new("larder_origin");
    let metrics = Metrics::register(&registry).unwrap();
    let reports = Reports::new(&bed.authority, metrics.clone());
    let refusals = Refusals::new(bed.authority.clock().clone());
    for n in 0..260 {
        refusals.notice("name_conflict", &format!("{n}"));
    }
    metrics.show_reports(&refusals);
    metrics.show_reports(&refusals);
    let page = registry.page().unwrap();
    for line in [
        "larder_origin_reports_dropped_total{by=\"origin\"} 4\n",
        "larder_origin_reports_waiting 256\n",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    assert!(reports.keep_own(&refusals).await);
    let view = reports.list(&Query::default()).await.unwrap();
    let told = &view.dropped[0];
    assert_eq!((&told.reporter[..], told.count), ("origin/origin", 4));
    assert_eq!(view.dropped.len(), 1);
    let page = registry.page().unwrap();
    assert!(!page.contains("by=\"members\""), "counted twice: {page}");
}

#[tokio::test]
async fn certificates_that_are_shown_are_taken_apart_beside_the_runtime() {
    let bed = Bed::new().await;
    let reports = reports(&bed);
    let cert = bed.authority.own_certificate().chain_der().remove(0);
    let one = |id| Reported {
        id: format!("{id:032x}"),
        ..refusal(0, "revoked", &cert)
    };
    for round in 0..8_u32 {
        let some: Vec<_> = (round * 64..round * 64 + 64).map(one).collect();
        assert!(reports.keep("booster/berlin", &body(&some)).await.unwrap());
    }
    let mut db = bed.authority.ledger().read().await.unwrap();
    let found = table::list(&mut db, &Wanted::default(), 512).await.unwrap();
    drop(db);
    let mut reading = std::pin::pin!(read(found));
    // Whoever polls it is not kept: there is nothing to do here but to wait.
    let waker = std::task::Waker::noop();
    let polled = reading
        .as_mut()
        .poll(&mut std::task::Context::from_waker(waker));
    assert!(polled.is_pending(), "it was done on the runtime");
    let read = reading.await.unwrap();
    assert_eq!(read.len(), 512);
    assert!(read.iter().all(|it| it.claims_unverified.is_some()));
}
