//! A whole branch wants what its booster has not got, over a thin line.

use std::time::{Duration, Instant};

use booster::Booster;
use certs::Role;
use content::FilesetName;
use content::locator::Locator;
use tests::fixture::{self, locator, rest_of};
use tests::link::{Fate, Link};
use tests::testbed::{Party, Testbed};
use tokio::task::JoinSet;
use transport::Source;

/// A branch at the end of a line to the origin.
struct Branch {
    bed: Testbed,
    booster: Booster,
    line: Link,
    locator: Locator,
    party: Party,
}

impl Branch {
    /// With a fileset of `megabytes` that do not compress, of which the booster knows, and has
    /// nothing.
    async fn set(megabytes: usize) -> Self {
        let line = Link::open(([127, 0, 0, 1], 1).into(), Fate::Pass);
        let line = line.await.unwrap();
        let bed = Testbed::start_at(&[line.address()]).await.unwrap();
        line.lead_to(bed.origin().addresses().content);
        fixture::tree(&bed.path("tree"), megabytes).unwrap();
        bed.publish("tools", &bed.path("tree")).await.unwrap();
        let booster = bed.booster("booster").await.unwrap();
        let data = bed.enrol_client("one").await.unwrap();
        let join = bed.join(Role::Client).await.unwrap();
        let party = Party::of(&data, &join, &bed.clock()).await.unwrap();
        let address = booster.local_addr().to_string();
        let source = party.source(Role::Booster, "booster", address).unwrap();
        let locator = locator(&source, party.trust(), "tools").await.unwrap();
        Self {
            bed,
            booster,
            line,
            locator,
            party,
        }
    }

    fn source(&self) -> Source {
        let address = self.booster.local_addr().to_string();
        let source = self.party.source(Role::Booster, "booster", address);
        source.unwrap()
    }

    fn bytes(&self) -> u64 {
        let packs = self.locator.packs.iter();
        packs.map(|pack| u64::from(pack.total_bytes)).sum()
    }

    /// So many clients fetch it, pack by pack, each `at_once` of them. The first `checking` hold all
    /// against its digests.
    async fn herd(&self, clients: usize, at_once: usize, checking: usize) {
        let mut herd = JoinSet::new();
        for client in 0..clients {
            let (source, packs) = (self.source(), self.locator.packs.clone());
            herd.spawn(async move {
                let fileset: FilesetName = "tools".parse().unwrap();
                let source = std::sync::Arc::new(source);
                let mut under_way = JoinSet::new();
                for pack in packs {
                    if under_way.len() >= at_once {
                        under_way.join_next().await.unwrap().unwrap();
                    }
                    let (source, fileset) = (std::sync::Arc::clone(&source), fileset.clone());
                    under_way.spawn(async move {
                        let body = source.pack(&fileset, &pack.id, None, false).await;
                        let mut body = body.unwrap();
                        if client < checking {
                            return rest_of(body, Vec::new(), pack.id).await.unwrap();
                        }
                        let mut bytes = 0;
                        while let Some(piece) = body.next().await.unwrap() {
                            bytes += piece.len();
                        }
                        assert_eq!(bytes, pack.total_bytes as usize);
                    });
                }
                while let Some(fetched) = under_way.join_next().await {
                    fetched.unwrap();
                }
            });
        }
        while let Some(done) = herd.join_next().await {
            done.unwrap();
        }
    }

    async fn end(self) {
        let _drained = self.booster.drain(Duration::from_secs(5)).await;
        self.bed.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_on_a_thin_line_costs_each_pack_once_and_waits_for_nobody_slow() {
    let branch = Branch::set(6).await;
    branch.line.slow_down(4 << 20, Duration::from_millis(20));
    // The first of all takes a little of each pack, and no more.
    let slow = branch.source();
    let mut held = Vec::new();
    for pack in &branch.locator.packs {
        let fileset: FilesetName = "tools".parse().unwrap();
        let mut body = slow.pack(&fileset, &pack.id, None, false).await.unwrap();
        assert!(body.next().await.unwrap().is_some());
        held.push(body);
    }
    branch.herd(64, 2, 2).await;
    let upstream = branch.booster.metrics().cache.upstream_bytes.get();
    assert_eq!(upstream, branch.bytes(), "each byte came once");
    let counted = branch.booster.counted().upstream_pack_bytes;
    assert_eq!(counted, upstream);
    drop(held);
    branch.end().await;
}

/// `cargo test --release -p tests --test it measure_a_herd -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute of an idle machine: measured by hand"]
async fn measure_a_herd() {
    let number = |name: &str, or: usize| {
        let said = std::env::var(name).ok();
        said.map_or(or, |text| text.parse().unwrap())
    };
    let (clients, at_once) = (number("CLIENTS", 64), number("AT_ONCE", 2));
    let (mbit, delay) = (number("MBIT", 100), number("DELAY_MS", 0));
    let branch = Branch::set(number("MEGABYTES", 64)).await;
    let rate = mbit as u64 * 125_000;
    branch
        .line
        .slow_down(rate, Duration::from_millis(delay as u64));
    let began = (Instant::now(), branch.line.bytes());
    branch.herd(clients, at_once, 2).await;
    let took = began.0.elapsed().as_secs_f64();
    let carried = branch.line.bytes() - began.1;
    let upstream = branch.booster.metrics().cache.upstream_bytes.get();
    let concurrency = &branch.booster.metrics().cache.upstream_concurrency;
    println!(
        "{clients} clients, {at_once} packs at once, {mbit} Mbit/s, {delay} ms: {took:.2} s, \
         {:.3} of the line's time; upstream / packs {:.4}; concurrency {}; peak {} MiB",
        took / (carried as f64 / rate as f64),
        upstream as f64 / branch.bytes() as f64,
        concurrency.with_label_values(&["origin"]).get(),
        peak(),
    );
    branch.end().await;
}

/// The most memory that this process, origin and clients included, ever had, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.map_or(0, |kib| kib.parse::<u64>().unwrap() >> 10)
}
