//! The line of a branch: what comes ahead of time, and how fast.

use std::time::{Duration, Instant};

use booster::Config;
use booster::admin::{PinWish, Pinned};
use booster::wan::Schedule;
use booster::wan::schedule::Limits;
use config::Rate;
use tests::scrape::metric;
use tests::testbed::{Testbed, until};
use tests::{fixture, tree};
use transport::admin::AdminClient;

/// A booster under `limits` that has pinned "tools", which is then published.
struct Branch {
    bed: Testbed,
    booster: booster::Booster,
}

impl Branch {
    async fn set(limits: Limits) -> Self {
        let bed = Testbed::start().await.unwrap();
        let data = bed.enrol_booster("booster").await.unwrap();
        let config = Config::on_loopback(data.clone()).with_wan(Schedule::constant(limits));
        let booster = bed.start_booster(config, "booster").await.unwrap();
        let pin = "tools".parse().unwrap();
        let admin = AdminClient::new(&data);
        let pinned: Pinned = admin.post("/pins", &PinWish { pin }).await.unwrap();
        assert!(pinned.changed);
        fixture::tree(&bed.path("tree"), 2).unwrap();
        bed.publish("tools", &bed.path("tree")).await.unwrap();
        Self { bed, booster }
    }

    /// The sum of one of the booster's numbers; 0 before it is first counted.
    async fn number(&self, name: &str, label: &str) -> u64 {
        let ops = self.booster.addresses().ops;
        let name = format!("larder_booster_{name}");
        metric(ops, &name, label).await.unwrap_or(0)
    }

    async fn pull(&self) {
        let one = self.bed.enrol_client("one").await.unwrap();
        let target = self.bed.path("target");
        let report = self.bed.pull(&one, "tools", &target).await.unwrap();
        let from: Vec<&str> = report.sources.iter().map(|it| &it.source[..]).collect();
        assert_eq!(from, ["booster booster"]);
        tree::compare(&self.bed.path("tree"), &target).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_comes_before_anybody_asks_for_it() {
    let branch = Branch::set(Limits {
        prefetch: Rate::UNLIMITED,
        rate: Rate::UNLIMITED,
    })
    .await;
    let ended = async || branch.number("prefetches_total", "stored").await;
    // An index pack and one with content.
    until(ended, |packs| *packs >= 2).await;
    let came = branch.number("upstream_pack_bytes_total", "").await;
    assert!(came > 2 << 20, "{came}");
    branch.pull().await;
    assert_eq!(branch.number("upstream_pack_bytes_total", "").await, came);
    assert_eq!(branch.number("wan_bytes_total", "wanted").await, 0);
    assert!(branch.number("wan_bytes_total", "prefetch").await >= came);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_line_is_kept_to_and_its_hours_without_prefetch_too() {
    let rate = Rate::bits(8_000_000);
    let branch = Branch::set(Limits {
        prefetch: Rate::bits(0),
        rate,
    })
    .await;
    let put_off = async || branch.number("prefetches_total", "put_off").await;
    until(put_off, |packs| *packs > 0).await;
    assert_eq!(branch.number("upstream_pack_bytes_total", "").await, 0);
    let begun = Instant::now();
    branch.pull().await;
    let came = branch.number("wan_bytes_total", "wanted").await;
    assert!(came > 2 << 20, "{came}");
    // What a timer oversleeps is made up for; that much may have come too early.
    let least = rate
        .time_for(came)
        .unwrap()
        .saturating_sub(Duration::from_millis(200));
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    assert_eq!(branch.number("prefetches_total", "stored").await, 0);
}
