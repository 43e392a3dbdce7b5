//! Revocation reaches who is under way, and whoever slept through everything comes back.

use certs::{RefusalReason, Role};
use content::PackId;
use protocol::Code;
use tests::fixture::{self, locator};
use tests::testbed::{CRL_POLL, Party, Testbed, until};
use tests::tree;
use tokio::time::{Duration, Instant, timeout};
use transport::{CallError, Source};

const DAY: i64 = 86_400;

/// Downloads the same packs over and over, until `ends` or an error; how many it got.
async fn download(source: &Source, packs: &[PackId], ends: Instant) -> Result<u64, CallError> {
    let fileset = "tools".parse().unwrap();
    let mut got = 0;
    loop {
        for id in packs {
            if Instant::now() >= ends {
                return Ok(got);
            }
            let mut body = source.pack(&fileset, id, None, false).await?;
            while body.next().await?.is_some() {}
            got += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_revoked_in_mid_download_is_put_out_and_another_is_not() {
    let bed = Testbed::start().await.unwrap();
    fixture::tree(&bed.path("tree"), 6).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    let booster = bed.booster("booster").await.unwrap();
    let join = bed.join(Role::Client).await.unwrap();
    let mut sources = Vec::new();
    let mut packs = Vec::new();
    for id in ["bad", "good"] {
        let data = bed.enrol_client(id).await.unwrap();
        let party = Party::of(&data, &join, &bed.clock()).await.unwrap();
        let address = booster.local_addr().to_string();
        let source = party.source(Role::Booster, "booster", address).unwrap();
        let found = locator(&source, party.trust(), "tools").await.unwrap();
        packs = found.packs.iter().map(|pack| pack.id).collect();
        sources.push(source);
    }
    let (good, bad) = (sources.pop().unwrap(), sources.pop().unwrap());
    let ends = Instant::now() + Duration::from_secs(6);
    let revoking = async {
        bed.revoke("bad").await.unwrap();
        Instant::now()
    };
    let long = Instant::now() + Duration::from_secs(60);
    let (bad_end, good_end, revoked) = tokio::join!(
        async {
            (
                timeout(Duration::from_secs(20), download(&bad, &packs, long)).await,
                Instant::now(),
            )
        },
        download(&good, &packs, ends),
        revoking,
    );
    let (ended, at) = bad_end;
    let error = ended.expect("the download ends").unwrap_err();
    let put_out = matches!(error, CallError::Refused { .. } | CallError::Broken { .. });
    // Between two packs the session is told in words.
    let told = matches!(&error, CallError::Fault { fault, .. } if fault.code == Code::Revoked);
    assert!(put_out || told, "{error}");
    let allowed = CRL_POLL + Duration::from_secs(2);
    assert!(
        at.duration_since(revoked) < allowed,
        "{:?}",
        at.duration_since(revoked)
    );
    assert!(good_end.unwrap() > 0, "the bystander lost nothing");
    let refused = async || Party::refusal(&bad).await.ok().flatten();
    assert_eq!(
        until(refused, Option::is_some).await,
        Some(RefusalReason::Revoked)
    );
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
