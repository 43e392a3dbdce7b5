//! Boosters that lie: what is wrong is named, and the content comes from the origin.

use bytes::Bytes;
use certs::Role;
use client::{PullReport, PullRequest, SourceAddress};
use tests::fixture::{self, locator};
use tests::liar::{Liar, Lie};
use tests::testbed::{Party, Testbed};
use tests::tree;
use transport::{Fetched, Source};

/// A liar between a client and the origin.
struct Scene {
    bed: Testbed,
    liar: Liar,
    origin: Source,
    party: Party,
}

impl Scene {
    async fn set() -> Self {
        let bed = Testbed::start().await.unwrap();
        fixture::tree(&bed.path("tree"), 2).unwrap();
        bed.publish("tools", &bed.path("tree")).await.unwrap();
        let data = bed.enrol_booster("liar").await.unwrap();
        let join = bed.join(Role::Client).await.unwrap();
        let party = Party::of(&data, &join, &bed.clock()).await.unwrap();
        let at = bed.origin().addresses().content.to_string();
        let calls = || party.source(Role::Origin, "origin", at.clone()).unwrap();
        let liar = Liar::start(&party, calls()).await.unwrap();
        let origin = calls();
        Self {
            bed,
            liar,
            origin,
            party,
        }
    }

    /// A client pulls, with the liar as its booster.
    async fn pull(&self, client: &str) -> PullReport {
        let data = self.bed.path(client);
        if !data.exists() {
            self.bed.enrol_client(client).await.unwrap();
        }
        let target = self.bed.path(&format!("{client}-tree"));
        let fileset = "tools".parse().unwrap();
        let mut request = PullRequest::new(data, fileset, target.clone());
        let address = self.liar.address();
        request.sources = vec![SourceAddress {
            id: "liar".parse().unwrap(),
            address,
        }];
        let report = client::pull(request, &self.bed.clock()).await.unwrap();
        tree::compare(&self.bed.path("tree"), &target).unwrap();
        report
    }

    /// A client is lied to; `check` names what it found.
    async fn check(&self, client: &str, lie: Lie, check: &str) {
        self.liar.set(lie);
        let report = self.pull(client).await;
        let [bypass] = &report.bypasses[..] else {
            panic!("{check}: {:?}", report.bypasses)
        };
        assert!(bypass.source.contains("liar"), "{bypass:?}");
        let named = format!("{:?} {}", bypass.check, bypass.reason);
        assert!(named.contains(check), "want {check:?} in {named:?}");
        let from_origin = report
            .sources
            .iter()
            .find(|it| it.source.contains("origin"));
        assert!(
            from_origin.is_some_and(|it| it.pack_bytes + it.other_bytes > 0),
            "{report:?}"
        );
    }

    async fn timestamp(&self) -> Bytes {
        match self.origin.timestamp(None).await.unwrap() {
            Fetched::New { bytes, .. } => bytes,
            Fetched::Unchanged => panic!("nothing was asked that could be unchanged"),
        }
    }

    async fn pack_of(&self, fileset: &str) -> Bytes {
        let found = locator(&self.origin, self.party.trust(), fileset)
            .await
            .unwrap();
        let id = found.packs.last().unwrap().id;
        let name = fileset.parse().unwrap();
        let mut body = self.origin.pack(&name, &id, None, false).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await.unwrap() {
            bytes.extend_from_slice(&piece);
        }
        bytes.into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_booster_is_named_and_the_origin_gives_the_content() {
    let scene = Scene::set().await;
    scene.liar.set(Lie::None);
    assert!(
        scene.pull("honest").await.bypasses.is_empty(),
        "an honest booster is not gone round"
    );
    scene.check("flip", Lie::FlipByte, "frame").await;
    scene.check("short", Lie::Truncate, "length").await;
    fixture::tree(&scene.bed.path("other"), 3).unwrap();
    scene
        .bed
        .publish("other", &scene.bed.path("other"))
        .await
        .unwrap();
    let other = scene.pack_of("other").await;
    scene
        .check("other-pack", Lie::OtherPack(other), "length")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_words_are_refused_however_well_they_were_signed() {
    let scene = Scene::set().await;
    let old = scene.timestamp().await;
    let current = async || {
        let named = fixture::current(&scene.origin, scene.party.trust(), "tools");
        named.await.unwrap().statement
    };
    let first = current().await;
    let first = scene.origin.statement(&first, 1 << 20).await.unwrap();
    let snapshot = fixture::snapshot(&scene.origin).await.unwrap();
    let snapshot = scene.origin.snapshot(&snapshot).await.unwrap();
    // The client has seen a newer one: the old one is a rollback, though it is in date.
    std::fs::write(scene.bed.path("tree/new"), b"news").unwrap();
    scene
        .bed
        .publish("tools", &scene.bed.path("tree"))
        .await
        .unwrap();
    scene.liar.set(Lie::None);
    scene.pull("fresh").await;
    scene
        .check("fresh", Lie::OldTimestamp(old), "timestamp")
        .await;
    scene
        .check("snapshot", Lie::OldSnapshot(snapshot), "snapshot")
        .await;
    scene
        .check("revision", Lie::OldRevision(first), "revision")
        .await;
}
