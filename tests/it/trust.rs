//! Revocation reaches who is under way, and whoever slept through everything comes back.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use certs::{CaKind, RefusalReason, Role, Trust};
use content::{Digest, PackId};
use protocol::Code;
use tests::fixture::{self, locator};
use tests::testbed::{CRL_POLL, PATIENCE, Party, Testbed, until};
use tests::tree;
use tokio::time::{Duration, Instant, timeout};
use transport::{CallError, Source};

const DAY: i64 = 86_400;

/// Downloads the same packs over and over until `over`, and holds each against its name; how many
/// it got.
async fn download(source: &Source, packs: &[PackId], over: &AtomicBool) -> anyhow::Result<u64> {
    let fileset = "tools".parse().unwrap();
    let mut got = 0;
    loop {
        for id in packs {
            if over.load(Ordering::Relaxed) {
                return Ok(got);
            }
            let body = source.pack(&fileset, id, None, false).await?;
            fixture::rest_of(body, Vec::new(), *id).await?;
            got += 1;
        }
    }
}

/// Waits until the booster has a new list of the Client CA; when that was. It is written down
/// before it is put in force, so this is not too late.
fn arrival(bed: &Testbed, trust: &Trust) -> impl Future<Output = Instant> + use<> {
    let cas = trust.issuing_cas();
    let client = cas.iter().find(|ca| ca.kind() == Some(CaKind::Client));
    let issuer = Digest::from_raw(*client.unwrap().id().as_bytes());
    let path = bed.path(&format!("booster/state/{}.crl", issuer.hex()));
    // A list is replaced by a file of its own.
    let file = move || std::fs::metadata(&path).map(|it| it.ino()).unwrap();
    let before = file();
    async move {
        until(async || file(), |now| *now != before).await;
        Instant::now()
    }
}

/// A thief and three bystanders, all of them downloading, when the thief is revoked.
async fn revoke_in_mid_download(http2: bool) {
    let bed = Testbed::start().await.unwrap();
    fixture::tree(&bed.path("tree"), 6).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    let booster = bed.booster("booster").await.unwrap();
    let join = bed.join(Role::Client).await.unwrap();
    let (mut sources, mut packs, mut trusts) = (Vec::new(), Vec::new(), Vec::new());
    for id in ["bad", "good", "better", "best"] {
        let data = bed.enrol_client(id).await.unwrap();
        let party = Party::of(&data, &join, &bed.clock()).await.unwrap();
        let address = booster.local_addr().to_string();
        let source = party.source_over(http2, Role::Booster, "booster", address);
        let source = source.unwrap();
        let found = locator(&source, party.trust(), "tools").await.unwrap();
        packs = found.packs.iter().map(|pack| pack.id).collect();
        trusts.push(Arc::clone(party.trust()));
        sources.push(source);
    }
    let bad = sources.remove(0);
    let over = AtomicBool::new(false);
    let arrived = arrival(&bed, &trusts[0]);
    let thief = async {
        let ended = timeout(PATIENCE, download(&bad, &packs, &AtomicBool::new(false))).await;
        let at = Instant::now();
        // What the bystanders are at now, they finish.
        over.store(true, Ordering::Relaxed);
        (ended.expect("the download ends").unwrap_err(), at)
    };
    let [good, better, best] = [0, 1, 2].map(|at| download(&sources[at], &packs, &over));
    let revoke = bed.revoke("bad");
    let ((error, ended), good, better, best, arrived, revoked) =
        tokio::join!(thief, good, better, best, arrived, revoke);
    revoked.unwrap();
    let late = ended.saturating_duration_since(arrived);
    assert!(late < Duration::from_secs(1), "{late:?}");
    // Between two packs the session is told in words.
    let put_out = match error.downcast_ref::<CallError>() {
        Some(CallError::Fault { fault, .. }) => fault.code == Code::Revoked,
        Some(other) => matches!(other, CallError::Refused { .. } | CallError::Broken { .. }),
        None => false,
    };
    assert!(put_out, "{error:?}");
    for got in [good, better, best] {
        assert!(got.unwrap() > 0, "the bystanders lost nothing");
    }
    let refused = async || Party::refusal(&bad).await.ok().flatten();
    assert_eq!(
        until(refused, Option::is_some).await,
        Some(RefusalReason::Revoked)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_revoked_in_mid_download_is_put_out_within_a_second_of_the_lists_arrival() {
    revoke_in_mid_download(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_too_it_is_put_out_within_a_second_and_others_lose_nothing() {
    revoke_in_mid_download(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_days_on_a_client_and_a_booster_that_were_off_recover() {
    let bed = Testbed::start().await.unwrap();
    fixture::tree(&bed.path("tree"), 1).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    let booster = bed.booster("booster").await.unwrap();
    let client = bed.enrol_client("one").await.unwrap();
    let target = bed.path("target");
    bed.pull(&client, "tools", &target).await.unwrap();
    let _drained = booster.drain(Duration::from_secs(5)).await;

    bed.pass(30 * DAY);
    let now = bed.clock().now();
    let renewed = async || {
        let (_, not_after) = bed
            .origin()
            .authority()
            .own_certificate()
            .validity()
            .unwrap();
        not_after > now
    };
    until(renewed, |renewed| *renewed).await;
    std::fs::write(bed.path("tree/news"), b"after a month").unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();

    let config = booster::Config::on_loopback(bed.path("booster")).with_crl_poll(CRL_POLL);
    let booster = bed.start_booster(config, "booster").await.unwrap();
    // Its first call finds an old deployment document, and may go to the origin.
    bed.pull(&client, "tools", &target).await.unwrap();
    tree::compare(&bed.path("tree"), &target).unwrap();
    let other = bed.path("other");
    let report = bed.pull(&client, "tools", &other).await.unwrap();
    assert!(report.bypasses.is_empty(), "{:?}", report.bypasses);
    tree::compare(&bed.path("tree"), &other).unwrap();
    assert!(
        report
            .sources
            .iter()
            .any(|it| it.source.contains("booster")),
        "{report:?}"
    );
    let _drained = booster.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_booster_goes_to_the_origin_and_says_why() {
    let bed = Testbed::start().await.unwrap();
    fixture::tree(&bed.path("tree"), 1).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    let booster = bed.booster("booster").await.unwrap();
    let client = bed.enrol_client("one").await.unwrap();
    let [first, second] = [bed.path("first"), bed.path("second")];
    bed.pull(&client, "tools", &first).await.unwrap();
    let _drained = booster.drain(Duration::from_secs(5)).await;
    let report = bed.pull(&client, "tools", &second).await.unwrap();
    tree::compare(&bed.path("tree"), &second).unwrap();
    let [bypass] = &report.bypasses[..] else {
        panic!("{report:?}")
    };
    assert!(bypass.reason.contains("cannot reach"), "{bypass:?}");
}
