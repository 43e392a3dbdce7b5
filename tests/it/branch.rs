//! A branch whose only route is its booster.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use booster::Booster;
use certs::Role;
use client::Config;
use member::{Due, EnrolError, EnrolRequest, Identity, Kind, enrol};
use origin::fleet::DeviceView;
use origin::inventory::log::LogView;
use origin::inventory::view::InventoryView;
use origin::manifests::view::Holds;
use protocol::CommandKind;
use serde_json::{Value, json};
use tests::link::{Fate, Link};
use tests::testbed::{CRL_POLL, Testbed, until};
use tests::{fixture, tree};

use crate::fleet::Scene;

const DAY: i64 = 86_400;
/// Where nobody listens.
const NOWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 1);

/// A booster that knows a way of its own to the origin's enrolment listener.
async fn booster_of(bed: &Testbed) -> Booster {
    let mut join = bed.join(Role::Booster).await.unwrap();
    join.addresses = vec![bed.origin().addresses().enrol.to_string()];
    let request = EnrolRequest {
        id: Some("booster".parse().unwrap()),
        ..EnrolRequest::new(Kind::Booster, bed.path("booster"), join)
    };
    enrol(request, &bed.clock(), |_| {}).await.unwrap();
    let config = booster::Config::on_loopback(bed.path("booster")).with_crl_poll(CRL_POLL);
    bed.start_booster(config, "booster").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_a_branch_enrol_are_vetted_and_renew_through_its_booster() {
    // Where the deployment document says that the origin enrols, nobody in the branch gets through.
    let wall = [NOWHERE.into()];
    let bed = Testbed::start_behind(&[], &wall).await.unwrap();
    fixture::tree(&bed.path("tree"), 1).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    let booster = booster_of(&bed).await;

    // A device asks through it, and waits until an operator approves.
    let mut join = bed.token(Role::Client, false).await.unwrap();
    join.addresses = vec![booster.addresses().enrol.to_string()];
    let request = EnrolRequest {
        id: Some("one".parse().unwrap()),
        patience: Duration::ZERO,
        ..EnrolRequest::new(Kind::Client, bed.path("one"), join)
    };
    let asked = enrol(request.clone(), &bed.clock(), |_| {}).await;
    assert!(
        matches!(asked, Err(EnrolError::Pending { .. })),
        "{asked:?}"
    );
    let path = "/devices/one/approve";
    let _one: DeviceView = bed.admin().post(path, &()).await.unwrap();
    let first = enrol(request, &bed.clock(), |_| {}).await.unwrap();
    assert_eq!(first.id, "one");

    let target = bed.path("target");
    let report = bed.pull(&bed.path("one"), "tools", &target).await.unwrap();
    let from: Vec<&str> = report.sources.iter().map(|it| &it.source[..]).collect();
    assert_eq!(from, ["booster booster"]);
    tree::compare(&bed.path("tree"), &target).unwrap();

    // More than half of the certificate's life is over: the next pull renews it, by the same way.
    bed.pass(9 * DAY);
    // The booster's lists are too old now, and it relays nobody until it has new ones.
    let number = || {
        booster
            .metrics()
            .crl_next_update
            .with_label_values(&["client"])
    };
    until(async || number().get(), |next| *next > bed.clock().now()).await;
    let relayed = || {
        booster
            .metrics()
            .relayed
            .with_label_values(&["relayed"])
            .get()
    };
    let before = until(async || relayed(), |count| *count > 0).await;
    bed.pull(&bed.path("one"), "tools", &target).await.unwrap();
    let folder = bed.path("one/identity");
    let now = bed.clock().now();
    let identity = Identity::load(&folder, Kind::Client, Duration::ZERO, now)
        .unwrap()
        .unwrap();
    assert!(identity.expires() > first.not_after, "renewed");
    assert_eq!(identity.due(now, 0.0), Due::NotYet);
    until(async || relayed(), |count| *count > before).await;
    let _drained = booster.drain(Duration::from_secs(5)).await;
}

/// A branch whose booster is connected to the origin, where nobody else gets through any more.
struct Branch {
    scene: Scene,
    booster: Booster,
    /// The way to the origin's content listener: whoever is on it stays.
    link: Link,
}

impl Branch {
    async fn cut_off() -> Self {
        let link = Link::open(NOWHERE.into(), Fate::Pass).await.unwrap();
        let (content, enrol) = ([link.address()], [NOWHERE.into()]);
        let bed = Testbed::start_behind(&content, &enrol).await.unwrap();
        link.lead_to(bed.origin().addresses().content);
        let booster = booster_of(&bed).await;
        let scene = Scene { bed };
        let branch = Self {
            scene,
            booster,
            link,
        };
        // By now it has opened all connections that it needs.
        let (bed, before) = (&branch.scene.bed, branch.device("before").await);
        assert_eq!(branch.scene.publish("tools", 1).await, 1);
        let pulled = bed.pull(&before, "tools", &bed.path("before-target")).await;
        let sources = pulled.unwrap().sources;
        assert_eq!(sources[0].source, "booster booster");
        let issued = || branch.booster.metrics().roster.issued.get();
        until(async || issued(), |issued| *issued > 0).await;
        branch.link.set(Fate::Full);
        branch
    }

    /// A device that has enrolled through the booster.
    async fn device(&self, id: &str) -> PathBuf {
        let bed = &self.scene.bed;
        let mut join = bed.join(Role::Client).await.unwrap();
        join.addresses = vec![self.booster.addresses().enrol.to_string()];
        let request = EnrolRequest {
            id: Some(id.parse().unwrap()),
            ..EnrolRequest::new(Kind::Client, bed.path(id), join)
        };
        enrol(request, &bed.clock(), |_| {}).await.unwrap();
        bed.path(id)
    }
}

/// An agent in a process of its own, which keeps its log. It ends with the test.
struct Agent(Child);

impl Agent {
    fn start(data: &Path) -> Self {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_party"));
        agent.args(["client", "run", "--data"]).arg(data);
        agent.stdin(Stdio::null());
        agent.stdout(Stdio::null()).stderr(Stdio::null());
        Self(agent.spawn().unwrap())
    }

    fn stop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_another_way_is_kept_right_through_its_booster() {
    let branch = Branch::cut_off().await;
    let scene = &branch.scene;
    let edits = [
        ("fileset/tools", scene.spec(1)),
        ("association/tools/group/all", Some(json!({}))),
    ];
    scene.commit(&edits).await;
    let data = branch.device("one").await;
    client::check_in(&Config::with_data(data.clone()), &scene.bed.clock())
        .await
        .unwrap();
    let mut agent = Agent::start(&data);
    // Its manifest, its packs, and its results.
    scene.hears("one", 1).await;
    let installed = scene.bed.path("installed");
    tree::compare(&scene.published("tools", 1), &installed).unwrap();
    // What it is, by the relay.
    let admin = scene.bed.admin();
    let inventory = async || {
        let path = "/devices/one/inventory";
        admin.get::<InventoryView>(path).await.ok()
    };
    until(inventory, Option::is_some).await;
    // It hears of commands at once, and of a commit.
    for what in [CommandKind::Verify, CommandKind::Log] {
        let asked = admin.post::<Value>("/devices/one/command", &what);
        asked.await.unwrap();
        let holds = async || admin.get::<Holds>("/devices/one/holds").await.unwrap();
        let is_done = |holds: &Holds| holds.commands[0].done_at.is_some();
        until(holds, is_done).await;
    }
    let log: LogView = admin.get("/devices/one/log").await.unwrap();
    assert!(log.text.contains("act=download tools"), "{log}");
    assert_eq!(scene.publish("tools", 2).await, 2);
    scene.commit(&[("fileset/tools", scene.spec(2))]).await;
    let holds = scene.hears("one", 2).await;
    tree::compare(&scene.published("tools", 2), &installed).unwrap();
    let from = holds.results.iter().flat_map(|it| &it.said.sources);
    let from: Vec<&str> = from.map(|source| source.id.as_str()).collect();
    assert_eq!(from, ["booster"]);
    agent.stop();
    let _drained = branch.booster.drain(Duration::from_secs(5)).await;
}
