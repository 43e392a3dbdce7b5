//! A fleet: operators say who should hold what, and devices come to hold it, from their booster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{Agent, Config};
use origin::manifests::view::Holds;
use origin::model::calls::{Reason, Rollback};
use origin::model::view::{Committed, Diff, DraftView, Edit};
use origin::reports::{ReportView, ReportsView};
use protocol::FilesetState;
use serde_json::{Value, json};
use service::Component as _;
use tests::fixture;
use tests::testbed::{Testbed, until};
use tests::tree;

const DEVICES: [&str; 3] = ["one", "two", "three"];

/// An origin, and what is published there.
pub(crate) struct Scene {
    pub(crate) bed: Testbed,
}

impl Scene {
    /// Publishes a tree of so many megabytes as the next revision.
    pub(crate) async fn publish(&self, fileset: &str, megabytes: usize) -> u64 {
        let folder = self.published(fileset, megabytes);
        fixture::tree(&folder, megabytes).unwrap();
        self.bed.publish(fileset, &folder).await.unwrap().revision
    }

    pub(crate) fn published(&self, fileset: &str, megabytes: usize) -> PathBuf {
        self.bed.path(&format!("{fileset}-{megabytes}"))
    }

    /// Commits one key, and says how many devices it concerned.
    pub(crate) async fn commit(&self, edits: &[(&str, Option<Value>)]) -> Committed {
        let edits: Vec<Edit> = edits
            .iter()
            .map(|(key, says)| Edit {
                key: (*key).to_owned(),
                says: says.clone(),
            })
            .collect();
        let admin = self.bed.admin();
        let _begun: DraftView = admin.post("/model/drafts/d/edits", &edits).await.unwrap();
        let diff: Diff = admin.get("/model/drafts/d/diff").await.unwrap();
        assert_eq!(
            (&diff.offenders[..], &diff.conflicts[..]),
            (&[][..], &[][..])
        );
        let message = "a test".to_owned();
        let made: Committed = admin
            .post("/model/drafts/d/commit", &Reason { message })
            .await
            .unwrap();
        assert_eq!(made.devices, diff.devices, "what the diff had said");
        made
    }

    pub(crate) fn spec(&self, revision: u64) -> Option<Value> {
        // Each device has a root of its own; here all share one machine, and the paths differ.
        let target = self.bed.path("installed");
        Some(json!({ "revision": revision, "target": target, "mode": "tree" }))
    }

    /// Waits until the origin has heard from `device` that it holds that revision.
    pub(crate) async fn hears(&self, device: &str, revision: u64) -> Holds {
        let admin = self.bed.admin();
        let holds = async || {
            let path = format!("/devices/{device}/holds");
            admin.get::<Holds>(&path).await.unwrap()
        };
        let is_it = |holds: &Holds| {
            let said = holds.results.iter().map(|result| &result.said);
            said.into_iter()
                .any(|said| said.state == FilesetState::Active && said.revision == revision)
        };
        until(holds, is_it).await
    }
}

/// A device that is asked to check in now, and then keeps itself right.
pub(crate) async fn start(scene: &Scene, data: &Path) -> Agent {
    let config = Config::with_data(data.to_owned());
    let _told = client::check_in(&config, &scene.bed.clock()).await.unwrap();
    Agent::start(&config, &scene.bed.clock()).await.unwrap()
}

pub(crate) async fn stop(agent: Agent) {
    let _drained = agent.drain(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_brings_a_device_what_it_should_hold_and_a_rollback_takes_it_back() {
    let bed = Testbed::start().await.unwrap();
    let booster = bed.booster("b1").await.unwrap();
    let scene = Scene { bed };
    let data = scene.bed.enrol_client("one").await.unwrap();
    assert_eq!(scene.publish("tools", 1).await, 1);
    let made = scene
        .commit(&[
            ("fileset/tools", scene.spec(1)),
            ("association/tools/group/all", Some(json!({}))),
        ])
        .await;
    assert_eq!((made.model, made.devices), (1, 1));
    let agent = start(&scene, &data).await;
    scene.hears("one", 1).await;
    let installed = scene.bed.path("installed");
    tree::compare(&scene.published("tools", 1), &installed).unwrap();

    // A publish alone changes nobody; the commit does, and is heard at once: a check-in would come
    // in two minutes.
    assert_eq!(scene.publish("tools", 2).await, 2);
    let made = scene.commit(&[("fileset/tools", scene.spec(2))]).await;
    assert_eq!((made.model, made.devices), (2, 1));
    let holds = scene.hears("one", 2).await;
    tree::compare(&scene.published("tools", 2), &installed).unwrap();
    let sources: Vec<&str> = holds.results[0]
        .said
        .sources
        .iter()
        .map(|source| source.id.as_str())
        .collect();
    assert!(sources.contains(&"b1"), "from {sources:?}");

    let wish = Rollback {
        model: 1,
        message: "it broke".to_owned(),
    };
    let made: Committed = scene
        .bed
        .admin()
        .post("/model/rollback", &wish)
        .await
        .unwrap();
    assert_eq!((made.model, made.devices), (3, 1));
    scene.hears("one", 1).await;
    tree::compare(&scene.published("tools", 1), &installed).unwrap();
    stop(agent).await;
    drop(booster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_touches_only_those_whom_it_concerns() {
    let bed = Testbed::start().await.unwrap();
    let scene = Scene { bed };
    for device in DEVICES {
        scene.bed.enrol_client(device).await.unwrap();
    }
    assert_eq!(scene.publish("tools", 1).await, 1);
    let made = scene
        .commit(&[
            ("fileset/tools", scene.spec(1)),
            ("association/tools/device/two", Some(json!({}))),
        ])
        .await;
    assert_eq!((made.devices, made.looked_at), (1, 1));
    let made = scene
        .commit(&[("association/tools/device/two", None)])
        .await;
    assert_eq!((made.devices, made.looked_at), (1, 1));
}

/// What the origin has kept of bypasses.
async fn bypasses(scene: &Scene) -> Vec<ReportView> {
    let path = "/reports?reason=bypass&within=86400&limit=100";
    let view: ReportsView = scene.bed.admin().get(path).await.unwrap();
    view.reports
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booster_that_is_gone_round_is_left_alone_and_told_of_with_what_it_cost() {
    let bed = Testbed::start().await.unwrap();
    let booster = bed.booster("b1").await.unwrap();
    let scene = Scene { bed };
    let data = scene.bed.enrol_client("one").await.unwrap();
    let config = Config::with_data(data.clone());
    assert_eq!(scene.publish("tools", 1).await, 1);
    scene
        .commit(&[
            ("fileset/tools", scene.spec(1)),
            ("association/tools/group/all", Some(json!({}))),
        ])
        .await;
    let agent = start(&scene, &data).await;
    scene.hears("one", 1).await;
    let clock = scene.bed.clock();
    let fileset = || Some("tools".parse().unwrap());
    let well = client::why(&config, fileset(), &clock).await.unwrap();
    println!("{well}");
    assert_eq!(well.decision.as_deref(), Some("booster b1"));
    assert!(
        well.to_string()
            .contains("named by the origin for this device"),
        "{well}"
    );
    assert!(well.to_string().contains("came from b1"), "{well}");

    let _drained = booster.drain(Duration::from_secs(5)).await;
    assert_eq!(scene.publish("tools", 2).await, 2);
    scene.commit(&[("fileset/tools", scene.spec(2))]).await;
    scene.hears("one", 2).await;
    let told = until(
        async || bypasses(&scene).await,
        |told| {
            told.iter()
                .any(|it| it.bytes.is_some_and(|bytes| bytes > 1 << 20))
        },
    )
    .await;
    assert_eq!(told[0].booster.as_deref(), Some("b1"), "{told:?}");
    assert_eq!(told[0].reporter, "client/one");
    let ill = client::why(&config, fileset(), &clock).await.unwrap();
    println!("{ill}");
    assert_eq!(ill.decision.as_deref(), Some("origin origin"));
    let last = ill.sources.last().unwrap();
    assert_eq!(last.source, "booster b1");
    assert!(
        last.rest.is_some() && !last.test.as_ref().unwrap().answers,
        "{ill}"
    );
    stop(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_by_hand_asks_the_booster_that_the_origin_has_named() {
    let bed = Testbed::start().await.unwrap();
    let boosters = [
        bed.booster("b1").await.unwrap(),
        bed.booster("b2").await.unwrap(),
    ];
    let scene = Scene { bed };
    assert_eq!(scene.publish("tools", 1).await, 1);
    let mut asked = Vec::new();
    for device in ["one", "two", "three", "four", "five", "six"] {
        let data = scene.bed.enrol_client(device).await.unwrap();
        let (config, clock) = (Config::with_data(data.clone()), scene.bed.clock());
        client::check_in(&config, &clock).await.unwrap();
        let named = client::why(&config, None, &clock).await.unwrap();
        let target = scene.bed.path(&format!("{device}-tools"));
        let pulled = async || scene.bed.pull(&data, "tools", &target).await;
        let report = until(pulled, Result::is_ok).await.unwrap();
        let first = report.sources.iter().find(|it| it.pack_bytes > 0).unwrap();
        assert_eq!(Some(&first.source), named.decision.as_ref(), "{device}");
        asked.push(first.source.clone());
    }
    // The document lists b1 first, for everybody.
    assert!(asked.iter().any(|it| it == "booster b2"), "{asked:?}");
    for booster in boosters {
        let _drained = booster.drain(Duration::from_secs(5)).await;
    }
}
