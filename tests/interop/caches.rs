//! A stock cache in front of an origin's packs keeps them, and what comes out of it verifies.

use anyhow::ensure;
use tests::scrape::metric;
use tokio::task::JoinSet;

use crate::curl::Curl;
use crate::nginx::Nginx;
use crate::shop::{Shop, verify};

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_nginx_keeps_the_packs_of_an_origin() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let origin = shop.bed.origin().addresses().clone();
    let gateway = shop.bed.enrol_client("gateway").await?;
    let folder = shop.bed.path("nginx");
    let nginx = Nginx::start(&folder, &gateway, "origin", origin.content).await?;
    let curl = Curl::plain(&nginx.base);
    for wanted in ["MISS", "HIT", "HIT"] {
        let answer = curl.get(&shop.path()).await?;
        answer.must_be(200)?;
        answer.must_have("x-cache-status", wanted)?;
        answer.must_have("etag", &shop.etag())?;
        verify(&answer.body, shop.pack)?;
        ensure!(answer.body == shop.bytes, "other bytes than the origin's");
    }
    let answer = curl
        .and(["--range", "1000-2000000"])
        .get(&shop.path())
        .await?;
    answer.must_be(206)?;
    answer.must_have("x-cache-status", "HIT")?;
    ensure!(answer.body == shop.bytes[1000..=2_000_000], "wrong bytes");
    let has = format!("If-None-Match: {}", shop.etag());
    let answer = curl.and(["--header", &has]).get(&shop.path()).await?;
    answer.must_be(304)?;
    ensure!(packs_asked(&shop).await? == 1, "the origin was asked again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_nginx_asks_an_origin_once_for_many() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let origin = shop.bed.origin().addresses().clone();
    let gateway = shop.bed.enrol_client("gateway").await?;
    let folder = shop.bed.path("nginx");
    let nginx = Nginx::start(&folder, &gateway, "origin", origin.content).await?;
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let (curl, path) = (Curl::plain(&nginx.base), shop.path());
        all.spawn(async move { curl.get(&path).await });
    }
    while let Some(answer) = all.join_next().await {
        let answer = answer??;
        answer.must_be(200)?;
        verify(&answer.body, shop.pack)?;
    }
    ensure!(packs_asked(&shop).await? == 1, "the origin was asked again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_nginx_passes_on_nothing_from_somebody_else() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let booster = shop.bed.booster("b1").await?;
    // Somebody answers at the address, with a good certificate: only the name tells who it is.
    for (expected, status, asked) in [("origin", 502, 0), ("b1", 200, 1)] {
        let folder = shop.bed.path(&format!("nginx-{expected}"));
        let nginx = Nginx::start(&folder, &shop.client, expected, booster.local_addr()).await?;
        let answer = Curl::plain(&nginx.base).get(&shop.path()).await?;
        answer.must_be(status)?;
        // A booster that is asked for what it does not have asks the origin.
        let got = packs_asked(&shop).await?;
        ensure!(got == asked, "{expected}: want {asked}, got {got}");
    }
    Ok(())
}

/// How many packs the origin was asked for on its content listener.
async fn packs_asked(shop: &Shop) -> anyhow::Result<u64> {
    let ops = shop.bed.origin().addresses().ops;
    let name = "larder_origin_http_requests_total";
    // Before the first, there is no such line.
    Ok(metric(ops, name, r#"route="pack""#).await.unwrap_or(0))
}
