//! A booster behind a booster: what crosses which line, whatever becomes of the one in between.

use std::net::SocketAddr;
use std::time::Duration;

use booster::Booster;
use certs::Role;
use client::{PullReport, PullRequest, SourceAddress};
use tests::fixture;
use tests::liar::{Liar, Lie};
use tests::link::{Fate, Link};
use tests::testbed::{CRL_POLL, Party, Testbed, until};
use tests::tree;

/// An origin, a hub, a link to it, and a branch whose parent is the hub.
struct Chain {
    bed: Testbed,
    branch: Booster,
    hub: Booster,
    line: Link,
}

async fn booster_behind(bed: &Testbed, id: &str, parent: (&str, SocketAddr)) -> Booster {
    let data = bed.enrol_booster(id).await.unwrap();
    let parent = format!("{}@{}", parent.0, parent.1).parse().unwrap();
    let config = booster::Config::on_loopback(data)
        .with_crl_poll(CRL_POLL)
        .with_parents(vec![parent]);
    bed.start_booster(config, id).await.unwrap()
}

/// Bytes of packs that came from the origin itself.
fn from_origin(booster: &Booster) -> u64 {
    booster.counted().upstream_pack_bytes
}

/// Bytes of packs that came at all.
fn received(booster: &Booster) -> u64 {
    booster.metrics().cache.upstream_bytes.get()
}

/// A client that knows nobody but `booster` and the origin pulls the tree, by way of the booster
/// alone.
async fn pull(bed: &Testbed, client: &str, id: &str, booster: &Booster) -> PullReport {
    let data = bed.path(client);
    if !data.exists() {
        bed.enrol_client(client).await.unwrap();
    }
    let target = bed.path(&format!("{client}-tree"));
    let mut request = PullRequest::new(data, "tools".parse().unwrap(), target.clone());
    request.sources = vec![SourceAddress {
        id: id.parse().unwrap(),
        address: booster.local_addr().to_string(),
    }];
    let report = client::pull(request, &bed.clock()).await.unwrap();
    assert!(report.bypasses.is_empty(), "{:?}", report.bypasses);
    report
}

impl Chain {
    async fn set() -> Self {
        let bed = Testbed::start().await.unwrap();
        let data = bed.enrol_booster("hub").await.unwrap();
        let config = booster::Config::on_loopback(data).with_crl_poll(CRL_POLL);
        let hub = bed.start_booster(config.with_boosters(), "hub");
        let hub = hub.await.unwrap();
        let line = Link::open(hub.local_addr(), Fate::Pass).await.unwrap();
        let branch = booster_behind(&bed, "branch", ("hub", line.address())).await;
        Self {
            bed,
            branch,
            hub,
            line,
        }
    }

    /// Publishes `megabytes` that nobody has, and waits until the branch has heard of it.
    async fn publish(&self, megabytes: usize) {
        let _before = std::fs::remove_dir_all(self.bed.path("tree"));
        fixture::tree(&self.bed.path("tree"), megabytes).unwrap();
        let done = self.bed.publish("tools", &self.bed.path("tree")).await;
        let number = done.unwrap().revision;
        let fileset = "tools".parse().unwrap();
        let seen = async || {
            let view = self.branch.catalogue().current().await.ok()?;
            view.snapshot.fileset(&fileset).map(|it| it.current.0)
        };
        until(seen, |current| *current == Some(number)).await;
    }

    async fn pull(&self, client: &str) {
        pull(&self.bed, client, "branch", &self.branch).await;
        let target = self.bed.path(&format!("{client}-tree"));
        tree::compare(&self.bed.path("tree"), &target).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_boosters_serves_cold_and_hot_and_without_its_middle() {
    let chain = Chain::set().await;
    let Chain {
        branch, hub, line, ..
    } = &chain;
    chain.publish(6).await;
    chain.pull("one").await;
    let cold = received(branch);
    assert!(cold > 6 << 20, "only {cold} bytes crossed the line");
    assert_eq!((received(hub), from_origin(hub)), (cold, cold));
    assert_eq!(from_origin(branch), 0, "the hub has it all");

    chain.pull("two").await;
    assert_eq!((received(branch), received(hub)), (cold, cold), "hot");

    // The hub dies while the branch fills from it.
    chain.publish(14).await;
    line.set(Fate::HoldAfter {
        bytes: line.bytes() + (3 << 20),
    });
    let dies = async {
        let held = line.bytes() + (5 << 19);
        until(async || line.bytes(), |bytes| *bytes >= held).await;
        line.set(Fate::Down);
    };
    tokio::join!(chain.pull("one"), dies);
    let rest = from_origin(branch);
    assert!(rest > 0, "the origin gave the rest");
    let again = received(branch) - cold;
    assert!(
        again < 11 << 20,
        "{again} bytes came: what had been checked came twice"
    );

    // And stays away.
    chain.publish(16).await;
    chain.pull("two").await;
    assert!(from_origin(branch) > rest);
    line.set(Fate::Pass);
    for booster in [chain.branch, chain.hub] {
        let _drained = booster.drain(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_lies_or_is_another_than_it_should_be_does_no_harm() {
    let bed = Testbed::start().await.unwrap();
    fixture::tree(&bed.path("tree"), 4).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    let data = bed.enrol_booster("liar").await.unwrap();
    let join = bed.join(Role::Client).await.unwrap();
    let party = Party::of(&data, &join, &bed.clock()).await.unwrap();
    let at = bed.origin().addresses().content.to_string();
    let liar = Liar::start(&party, party.source(Role::Origin, "origin", at).unwrap());
    let liar = liar.await.unwrap();
    liar.set(Lie::FlipByte);
    let address: SocketAddr = liar.address().parse().unwrap();
    for (branch, parent) in [("first", "liar"), ("second", "nobody")] {
        let booster = booster_behind(&bed, branch, (parent, address)).await;
        let client = format!("client-{branch}");
        pull(&bed, &client, branch, &booster).await;
        let target = bed.path(&format!("{client}-tree"));
        tree::compare(&bed.path("tree"), &target).unwrap();
        assert!(from_origin(&booster) > 0);
        let lied = &booster.metrics().cache.verification_failures;
        let lied = lied.with_label_values(&["upstream"]).get();
        assert_eq!(lied > 0, parent == "liar", "{lied} lies of {parent}");
        let _drained = booster.drain(Duration::from_secs(5)).await;
    }
}
