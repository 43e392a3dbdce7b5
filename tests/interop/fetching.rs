//! curl with a client certificate fetches a pack from a booster.

use std::path::Path;

use anyhow::ensure;
use tests::testbed::until;

use crate::curl::{Curl, roots_of};
use crate::openssl;
use crate::shop::{Shop, verify};

const VERSIONS: [(&str, &str); 2] = [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")];

#[tokio::test(flavor = "multi_thread")]
async fn curl_fetches_a_pack_from_a_booster_whole_and_by_range() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let booster = shop.bed.booster("b1").await?;
    let roots = roots_of(&shop.client);
    let curl = Curl::to("b1", booster.local_addr(), &roots).with(&shop.client);
    for (flag, version) in VERSIONS {
        let curl = curl.and([flag]);
        fetches_whole(&curl, &shop, version).await?;
        fetches_ranges(&curl, &shop, version).await?;
        asks_before_it_fetches(&curl, &shop).await?;
    }
    Ok(())
}

async fn fetches_whole(curl: &Curl, shop: &Shop, version: &str) -> anyhow::Result<()> {
    let answer = curl.get(&shop.path()).await?;
    answer.must_be(200)?;
    ensure!(answer.version == version, "want {version}, got {answer:?}");
    answer.must_have("content-type", "application/vnd.larder.pack")?;
    answer.must_have("content-length", &shop.bytes.len().to_string())?;
    answer.must_have("accept-ranges", "bytes")?;
    answer.must_have("etag", &shop.etag())?;
    verify(&answer.body, shop.pack)?;
    ensure!(answer.body == shop.bytes, "other bytes than the origin's");
    Ok(())
}

async fn fetches_ranges(curl: &Curl, shop: &Shop, version: &str) -> anyhow::Result<()> {
    let length = shop.bytes.len();
    let table = [
        ("0-0".to_owned(), 0..1),
        ("0-1023".to_owned(), 0..1024),
        ("1000000-3000000".to_owned(), 1_000_000..3_000_001),
        (format!("{}-", length - 700), length - 700..length),
        ("-65537".to_owned(), length - 65537..length),
        (format!("5-{}", length * 2), 5..length),
    ];
    for (range, wanted) in table {
        let answer = curl.and(["--range", &range]).get(&shop.path()).await?;
        answer.must_be(206)?;
        ensure!(answer.version == version, "want {version}, got {answer:?}");
        let told = format!("bytes {}-{}/{length}", wanted.start, wanted.end - 1);
        answer.must_have("content-range", &told)?;
        answer.must_have("content-length", &wanted.len().to_string())?;
        ensure!(answer.body == shop.bytes[wanted], "{range}: wrong bytes");
    }
    let outside = format!("{length}-");
    let answer = curl.and(["--range", &outside]).get(&shop.path()).await?;
    answer.must_be(416)?;
    answer.must_have("content-range", &format!("bytes */{length}"))
}

async fn asks_before_it_fetches(curl: &Curl, shop: &Shop) -> anyhow::Result<()> {
    let has = format!("If-None-Match: {}", shop.etag());
    let answer = curl.and(["--header", &has]).get(&shop.path()).await?;
    answer.must_be(304)?;
    answer.must_have("etag", &shop.etag())?;
    ensure!(answer.body.is_empty(), "a 304 has no body: {answer:?}");

    let answer = curl.head(&shop.path()).await?;
    answer.must_be(200)?;
    answer.must_have("content-length", &shop.bytes.len().to_string())?;
    answer.must_have("etag", &shop.etag())?;

    let unknown = shop.path().replace(&shop.pack.0.hex(), &"0".repeat(64));
    let answer = curl.get(&unknown).await?;
    answer.must_be(404)?;
    answer.must_have("content-type", "application/problem+json")
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_gets_nothing_without_a_certificate_that_is_good() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let booster = shop.bed.booster("b1").await?;
    let thief = shop.bed.enrol_client("thief").await?;
    let forged = openssl::self_signed(&shop.bed.path("forged"), "c1").await?;
    let origin = shop.bed.origin().addresses().content;
    let parties = [("b1", booster.local_addr()), ("origin", origin)];
    for (id, address) in parties {
        let nobody = Curl::to(id, address, &roots_of(&shop.client));
        let path = shop.path();
        nobody.with(&thief).head(&path).await?.must_be(200)?;
        for (flag, _) in VERSIONS {
            let curl = nobody.and([flag]);
            gets_nothing(&curl, &path, "certificate required").await?;
            let forger = curl.showing(&forged.cert, &forged.key);
            gets_nothing(&forger, &path, "unknown ca").await?;
        }
    }
    shop.bed.revoke("thief").await?;
    for (id, address) in parties {
        let revoked = Curl::to(id, address, &roots_of(&shop.client)).with(&thief);
        becomes_refused(&revoked, &shop.path()).await;
        for (flag, _) in VERSIONS {
            let curl = revoked.and([flag]);
            gets_nothing(&curl, &shop.path(), "certificate revoked").await?;
        }
        let other = Curl::to(id, address, &roots_of(&shop.client)).with(&shop.client);
        other.head(&shop.path()).await?.must_be(200)?;
    }
    Ok(())
}

/// Waits for the new list to have come to whoever answers.
async fn becomes_refused(curl: &Curl, path: &str) {
    until(async || curl.head(path).await.is_err(), |refused| *refused).await;
}

async fn gets_nothing(curl: &Curl, path: &str, alert: &str) -> anyhow::Result<()> {
    let ended = curl.program(path).run().await?;
    ensure!(!ended.status.success(), "let in: {}", ended.told());
    ensure!(ended.stdout.is_empty(), "got something: {}", ended.told());
    ended.must_say(alert)
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_believes_no_other_name_and_no_other_root() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let booster = shop.bed.booster("b1").await?;
    let (address, roots) = (booster.local_addr(), roots_of(&shop.client));
    let other = openssl::self_signed(&shop.bed.path("other"), "root").await?;
    let check = async |id: &str, roots: &Path, wanted: &str| {
        let curl = Curl::to(id, address, roots).with(&shop.client);
        gets_nothing(&curl, &shop.path(), wanted).await
    };
    check(
        "b2",
        &roots,
        "no alternative certificate subject name matches",
    )
    .await?;
    check("b1", &other.cert, "SSL certificate problem").await
}
