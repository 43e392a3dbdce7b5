//! Whoever is killed at whatever moment: the next start goes on, and nothing half is ever used.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use booster::Booster;
use certs::Role;
use client::{PullRequest, SourceAddress};
use tests::fixture;
use tests::link::{Fate, Link};
use tests::testbed::{Party, Testbed, until};
use tests::tree;

/// A link that leads nowhere yet.
async fn link() -> Link {
    Link::open(([127, 0, 0, 1], 1).into(), Fate::Pass)
        .await
        .unwrap()
}

/// The booster's own count of pack bytes that came from the origin.
fn fetched(booster: &Booster) -> u64 {
    booster.metrics().cache.upstream_bytes.get()
}

fn start_client(words: &[&str]) -> Child {
    let mut client = Command::new(env!("CARGO_BIN_EXE_party"));
    client.arg("client").args(words).stdin(Stdio::null());
    client
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A tree is as one revision or the other, or is not there at all.
fn is_whole(target: &Path, revisions: &[&Path]) -> bool {
    !target.exists()
        || revisions
            .iter()
            .any(|revision| tree::compare(revision, target).is_ok())
}

/// Bytes that files below a folder really take up: what was never written of them does not count.
fn written(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let bytes = entries.map(|entry| {
        let path = entry.unwrap().path();
        let meta = path.metadata().unwrap();
        if meta.is_dir() {
            written(&path)
        } else {
            meta.blocks() * 512
        }
    });
    bytes.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_killed_ten_times_ends_with_the_right_tree_and_fetches_little_twice() {
    let bed = Testbed::start().await.unwrap();
    let [old, new] = [bed.path("old"), bed.path("new")];
    fixture::tree(&old, 2).unwrap();
    fixture::tree(&new, 40).unwrap();
    bed.publish("tools", &old).await.unwrap();
    let booster = bed.booster("booster").await.unwrap();
    let data = bed.enrol_client("one").await.unwrap();
    let target = bed.path("target");
    bed.pull(&data, "tools", &target).await.unwrap();
    let second = bed.publish("tools", &new).await.unwrap();
    let new_bytes = second.new_packs_bytes + second.new_index_bytes;
    // The booster asks for a newer timestamp once its own is older than five seconds.
    let [other, elsewhere] = [
        bed.enrol_client("other").await.unwrap(),
        bed.path("elsewhere"),
    ];
    let seen = async || {
        bed.pull(&other, "tools", &elsewhere)
            .await
            .unwrap()
            .revision
    };
    until(seen, |revision| *revision == 2).await;

    let line = link().await;
    line.lead_to(booster.local_addr());
    let source = format!("booster@{}", line.address());
    let (shown, at) = (target.display().to_string(), data.display().to_string());
    let words = ["pull", "tools", &shown, "--data", &at, "--source", &source];
    for kill in 1..=10u64 {
        // Somewhere within what is still to come, spread over the whole of it.
        let moment = line.bytes() + new_bytes / 11 + kill % 3 * 100_000;
        let mut client = start_client(&words);
        let done = until(
            async || line.bytes() >= moment || client.try_wait().unwrap().is_some(),
            |done| *done,
        );
        assert!(done.await);
        client.kill().unwrap();
        client.wait().unwrap();
        assert!(
            is_whole(&target, &[&old, &new]),
            "half a tree after kill {kill}"
        );
    }
    let kept = written(&data.join("downloads"));
    assert!(kept > 0, "nothing that had been verified was kept");
    let request = PullRequest {
        sources: vec![source.parse::<SourceAddress>().unwrap()],
        ..PullRequest::new(data, "tools".parse().unwrap(), target.clone())
    };
    let report = client::pull(request, &bed.clock()).await.unwrap();
    assert!(report.bypasses.is_empty(), "{:?}", report.bypasses);
    tree::compare(&new, &target).unwrap();
    // What had been verified before the last kill does not come again.
    let fetched = report.pack_bytes;
    assert!(
        kept + fetched < new_bytes + (4 << 20),
        "{kept} kept, {fetched} fetched of {new_bytes}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booster_killed_in_mid_fill_goes_on_where_it_was() {
    let line = link().await;
    let bed = Testbed::start_at(&[line.address()]).await.unwrap();
    line.lead_to(bed.origin().addresses().content);
    fixture::tree(&bed.path("tree"), 8).unwrap();
    let first = bed.publish("tools", &bed.path("tree")).await.unwrap();
    let data = bed.enrol_booster("booster").await.unwrap();
    let config = || booster::Config::on_loopback(data.clone());
    let booster = bed.start_booster(config(), "booster").await.unwrap();
    let client = bed.enrol_client("one").await.unwrap();

    line.set(Fate::HoldAfter {
        bytes: line.bytes() + (3 << 20),
    });
    let target = bed.path("target");
    let pulling = bed.pull(&client, "tools", &target);
    let held = until(async || fetched(&booster), |bytes| *bytes > 2 << 20);
    let before = tokio::select! {
        bytes = held => bytes,
        pulled = pulling => panic!("the pull ended while the line stood still: {pulled:?}"),
    };
    drop(booster);
    line.set(Fate::Pass);

    let booster = bed.start_booster(config(), "booster").await.unwrap();
    // It listens on another port now, which the client has not heard of yet.
    let source = format!("booster@{}", booster.local_addr());
    let request = PullRequest {
        sources: vec![source.parse::<SourceAddress>().unwrap()],
        ..PullRequest::new(client, "tools".parse().unwrap(), target.clone())
    };
    let report = client::pull(request, &bed.clock()).await.unwrap();
    assert!(report.bypasses.is_empty(), "{:?}", report.bypasses);
    tree::compare(&bed.path("tree"), &target).unwrap();
    let all = first.new_packs_bytes + first.new_index_bytes;
    let after = fetched(&booster);
    // The frames under way in each of its fills were lost, and nothing else.
    assert!(
        before + after < all + (4 << 20),
        "{before} and {after} bytes for {all}"
    );
    let resumed = booster.metrics().cache.resumed_bytes.get();
    assert!(resumed > 0, "{before} and {after} bytes for {all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_killed_in_mid_fill_is_waited_for() {
    let line = link().await;
    let mut bed = Testbed::start_at(&[line.address()]).await.unwrap();
    line.lead_to(bed.origin().addresses().content);
    fixture::tree(&bed.path("tree"), 8).unwrap();
    let first = bed.publish("tools", &bed.path("tree")).await.unwrap();
    let booster = bed.booster("booster").await.unwrap();
    let client = bed.enrol_client("one").await.unwrap();
    let target = bed.path("target");

    line.set(Fate::HoldAfter {
        bytes: line.bytes() + (3 << 20),
    });
    let request = PullRequest::new(client, "tools".parse().unwrap(), target.clone());
    let (clock, mut pulls) = (bed.clock(), tokio::task::JoinSet::new());
    pulls.spawn(async move { client::pull(request, &clock).await });
    until(async || fetched(&booster), |bytes| *bytes > 2 << 20).await;
    bed.kill_origin();
    line.set(Fate::Down);
    bed.restart_origin().await.unwrap();
    line.lead_to(bed.origin().addresses().content);
    line.set(Fate::Pass);
    pulls.join_next().await.unwrap().unwrap().unwrap();
    tree::compare(&bed.path("tree"), &target).unwrap();
    let all = first.new_packs_bytes + first.new_index_bytes;
    assert!(
        fetched(&booster) < all + (6 << 20),
        "{} bytes for {all}",
        fetched(&booster)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_killed_in_its_middle_leaves_the_revision_before() {
    let bed = Testbed::start().await.unwrap();
    fixture::tree(&bed.path("tree"), 2).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    fixture::tree(&bed.path("large"), 40).unwrap();
    let (folder, data) = (bed.path("large"), bed.path("origin"));
    let mut publisher = Command::new(env!("CARGO_BIN_EXE_party"))
        .args(["origin", "publish", "tools"])
        .arg(&folder)
        .arg("--data")
        .arg(&data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let packs = data.join("packs");
    let arrived = async || std::fs::read_dir(&packs).map_or(0, Iterator::count);
    let before = arrived().await;
    until(arrived, |count| *count > before + 2).await;
    publisher.kill().unwrap();
    publisher.wait().unwrap();

    let client = bed.enrol_client("one").await.unwrap();
    let target = bed.path("target");
    let report = bed.pull(&client, "tools", &target).await.unwrap();
    assert_eq!(report.revision, 1);
    tree::compare(&bed.path("tree"), &target).unwrap();
    // Dead after two minutes of silence; then the next one takes up what was sent.
    bed.pass(121);
    bed.publish("tools", &folder).await.unwrap();
    bed.pull(&client, "tools", &target).await.unwrap();
    tree::compare(&folder, &target).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_request_makes_the_booster_fetch_nothing() {
    let bed = Testbed::start().await.unwrap();
    fixture::tree(&bed.path("tree"), 1).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    let booster = bed.booster("booster").await.unwrap();
    let data = bed.enrol_client("one").await.unwrap();
    let join = bed.join(Role::Client).await.unwrap();
    let party = Party::of(&data, &join, &bed.clock()).await.unwrap();
    let calls = party
        .source(Role::Booster, "booster", booster.local_addr().to_string())
        .unwrap();
    let unknown = content::PackId(content::Digest::of(b"no such pack"));
    let fileset = "tools".parse().unwrap();
    let refused = calls
        .pack(&fileset, &unknown, None, false)
        .await
        .err()
        .unwrap();
    assert!(refused.to_string().contains("unknown-pack"), "{refused}");
    assert_eq!(fetched(&booster), 0);
}
