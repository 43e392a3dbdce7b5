//! Bits that flip on a booster's disk: nobody installs them, and the booster mends itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use booster::cache::Limits;
use booster::{Booster, Config};
use client::{PullReport, PullRequest, SourceAddress};
use tests::fixture;
use tests::testbed::{CRL_POLL, Testbed, until};
use tests::tree;

const GRACE: Duration = Duration::from_secs(20);

/// A booster whose cache holds all packs of a fileset, which has been pulled once.
struct Scene {
    bed: Testbed,
    booster: Booster,
}

impl Scene {
    async fn set(limits: Limits) -> Self {
        let bed = Testbed::start().await.unwrap();
        fixture::tree(&bed.path("tree"), 24).unwrap();
        bed.publish("tools", &bed.path("tree")).await.unwrap();
        let data = bed.enrol_booster("berlin").await.unwrap();
        let booster = Booster::bind(config(data, limits), bed.clock());
        let booster = booster.await.unwrap();
        let scene = Self { bed, booster };
        scene.pull("first").await;
        until(async || scene.packs().len(), |packs| *packs >= 6).await;
        scene
    }

    /// A new client pulls, gets what was published, and says how.
    async fn pull(&self, client: &str) -> PullReport {
        let data = self.bed.enrol_client(client).await.unwrap();
        let target = self.bed.path(&format!("{client}-tree"));
        let fileset = "tools".parse().unwrap();
        let mut request = PullRequest::new(data, fileset, target.clone());
        request.sources = vec![SourceAddress {
            id: "berlin".parse().unwrap(),
            address: self.booster.local_addr().to_string(),
        }];
        let report = client::pull(request, &self.bed.clock()).await.unwrap();
        tree::compare(&self.bed.path("tree"), &target).unwrap();
        report
    }

    fn packs(&self) -> Vec<PathBuf> {
        packs(&self.bed.path("berlin"))
    }

    fn damaged(&self) -> u64 {
        let failures = &self.booster.metrics().cache.verification_failures;
        failures.with_label_values(&["disk"]).get()
    }

    async fn stop(self) {
        let _drained = self.booster.drain(GRACE).await;
        self.bed.stop().await;
    }
}

/// Without a memory tier, so that what is on the disk is what is served.
fn limits() -> Limits {
    Limits {
        // Whatever else fills the disk of whoever runs this.
        free_percent_min: 0,
        memory_bytes_max: 0,
        ..Limits::default()
    }
}

fn config(data: PathBuf, limits: Limits) -> Config {
    let config = Config::on_loopback(data).with_crl_poll(CRL_POLL);
    config.with_cache(limits)
}

fn packs(data: &Path) -> Vec<PathBuf> {
    let Ok(folders) = fs::read_dir(data.join("cache/packs")) else {
        return Vec::new();
    };
    let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let mut packs: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    packs.sort();
    packs
}

/// Flips a bit at some place of every other pack.
fn rot(packs: &[PathBuf]) -> Vec<(&PathBuf, Vec<u8>)> {
    let mut good = Vec::new();
    for (at, path) in packs.iter().enumerate().step_by(2) {
        let mut bytes = fs::read(path).unwrap();
        good.push((path, bytes.clone()));
        let place = bytes.len() * (at + 1) / (packs.len() + 1);
        bytes[place] ^= 1 << (at % 8);
        fs::write(path, bytes).unwrap();
    }
    good
}

#[tokio::test(flavor = "multi_thread")]
async fn bits_that_flip_under_a_running_booster_are_mended_on_the_first_complaint() {
    let scene = Scene::set(Limits {
        scrub_period: Duration::ZERO,
        ..limits()
    })
    .await;
    let packs = scene.packs();
    let good = rot(&packs);
    let report = scene.pull("second").await;
    assert!(report.bypasses.is_empty(), "{:?}", report.bypasses);
    assert_eq!(scene.damaged(), good.len() as u64);
    for (path, bytes) in &good {
        let mended = async || fs::read(path).is_ok_and(|now| now == *bytes);
        until(mended, |mended| *mended).await;
    }
    scene.pull("third").await;
    assert_eq!(scene.damaged(), good.len() as u64);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bits_that_flip_under_a_running_booster_are_mended_within_a_scrub_period() {
    let scene = Scene::set(Limits {
        scrub_bytes_per_second: u64::MAX,
        scrub_period: Duration::from_secs(2),
        ..limits()
    })
    .await;
    let packs = scene.packs();
    let good = rot(&packs);
    for (path, bytes) in &good {
        let mended = async || fs::read(path).is_ok_and(|now| now == *bytes);
        until(mended, |mended| *mended).await;
    }
    let report = scene.pull("second").await;
    assert!(report.bypasses.is_empty(), "{:?}", report.bypasses);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bits_that_flip_while_a_killed_booster_is_down_reach_nobody() {
    let scene = Scene::set(limits()).await;
    let Scene { bed, booster } = scene;
    // As a kill does: nothing is drained, and no marker is written.
    drop(booster);
    let data = bed.path("berlin");
    let left = packs(&data);
    let good = rot(&left);
    // It may still hold its lock for a moment.
    let start = async || Booster::bind(config(data.clone(), limits()), bed.clock()).await;
    let booster = until(start, Result::is_ok).await.unwrap();
    let scene = Scene { bed, booster };
    let report = scene.pull("second").await;
    assert!(report.bypasses.is_empty(), "{:?}", report.bypasses);
    assert_eq!(scene.damaged(), good.len() as u64);
    scene.stop().await;
}
