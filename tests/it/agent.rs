//! The agent of a device: it goes by its manifest, whatever happens to it and to the origin.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use certs::Role;
use client::{Agent, AgentError, Config};
use content::RevisionNumber;
use content::statement::{InstallMode, Item, Stage, Times};
use protocol::CommandKind;
use service::Component as _;
use tests::desk::Desk;
use tests::fixture;
use tests::link::{Fate, Link};
use tests::testbed::{Party, Testbed, until};
use tests::tree;

/// An origin that a test speaks for, and one device.
pub(crate) struct Scene {
    pub(crate) bed: Testbed,
    pub(crate) desk: Desk,
    pub(crate) data: PathBuf,
    pub(crate) link: Link,
    party: Party,
}

impl Scene {
    pub(crate) async fn set() -> Self {
        let nowhere = ([127, 0, 0, 1], 1).into();
        let link = Link::open(nowhere, Fate::Pass).await.unwrap();
        let bed = Testbed::start_at(&[link.address()]).await.unwrap();
        link.lead_to(bed.origin().addresses().content);
        let desk = Desk::open(&bed).await.unwrap();
        link.lead_to(desk.address());
        let data = bed.enrol_client("one").await.unwrap();
        let join = bed.join(Role::Client).await.unwrap();
        let party = Party::of(&data, &join, &bed.clock()).await.unwrap();
        Self {
            bed,
            desk,
            data,
            link,
            party,
        }
    }

    /// Publishes a tree that can be told from others, and says where a device should have it.
    async fn item(&self, fileset: &str, megabytes: usize, mode: InstallMode) -> Item {
        let folder = self.bed.path(&format!("{fileset}-{megabytes}"));
        fixture::tree(&folder, megabytes).unwrap();
        self.item_of(fileset, &folder, mode).await
    }

    /// Publishes a folder, and says where a device should have it.
    pub(crate) async fn item_of(&self, fileset: &str, folder: &Path, mode: InstallMode) -> Item {
        let published = self.bed.publish(fileset, folder).await.unwrap();
        let at = self.bed.origin().addresses().content.to_string();
        let origin = self.party.source(Role::Origin, "origin", at).unwrap();
        let current = fixture::current(&origin, self.party.trust(), fileset)
            .await
            .unwrap();
        Item {
            fileset: fileset.parse().unwrap(),
            revision: RevisionNumber(published.revision),
            statement: current.statement,
            target: self.target(fileset).to_str().unwrap().to_owned(),
            mode,
            times: Times::default(),
            heal: Vec::new(),
            depends: Vec::new(),
            scripts: Vec::new(),
        }
    }

    pub(crate) fn target(&self, fileset: &str) -> PathBuf {
        self.bed.path("installed").join(fileset)
    }

    pub(crate) fn say(&self, items: &[&Item]) {
        let items = items.iter().map(|item| (*item).clone()).collect();
        self.desk.say(&self.bed, "one", items).unwrap();
    }

    pub(crate) async fn start(&self) -> Agent {
        let config = Config::with_data(self.data.clone());
        Agent::start(&config, &self.bed.clock()).await.unwrap()
    }

    /// Waits until the origin has heard that a fileset stands like that.
    pub(crate) async fn hears(&self, fileset: &str, state: &str, revision: u64) -> String {
        let result = async || self.desk.result(fileset);
        let is_it = |result: &Option<(&str, u64, String)>| {
            result
                .as_ref()
                .is_some_and(|it| it.0 == state && it.1 == revision)
        };
        until(result, is_it).await.unwrap().2
    }

    fn check_tree(&self, fileset: &str, megabytes: usize) {
        let published = self.bed.path(&format!("{fileset}-{megabytes}"));
        tree::compare(&published, &self.target(fileset)).unwrap();
    }

    /// The same in a shared folder, where folders have times of their own.
    fn is_merged(&self, fileset: &str, megabytes: usize) -> bool {
        let published = self.bed.path(&format!("{fileset}-{megabytes}"));
        files(&published).is_some_and(|files_of| Some(files_of) == files(&self.target(fileset)))
    }
}

/// The large files below a folder, with their content; none if it has none.
fn files(folder: &Path) -> Option<BTreeMap<OsString, Vec<u8>>> {
    let entries = std::fs::read_dir(folder.join("large")).ok()?;
    let read =
        |entry: std::fs::DirEntry| Some((entry.file_name(), std::fs::read(entry.path()).ok()?));
    entries.map(|entry| read(entry.ok()?)).collect()
}

pub(crate) async fn stop(agent: Agent) {
    let _drained = agent.drain(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_goes_by_its_manifest_from_the_first_to_the_last() {
    let scene = Box::pin(Scene::set()).await;
    let marks = scene.bed.path("marks");
    let log = |stage: Stage| {
        let text = format!(
            "#!/bin/sh\necho $LARDER_STAGE $LARDER_FILESET $LARDER_REVISION >> {}\n",
            marks.display()
        );
        scene.desk.script(stage, &text)
    };
    let mut tools = scene.item("tools", 1, InstallMode::Tree).await;
    tools.scripts = Stage::ALL.iter().map(|stage| log(*stage)).collect();
    let extras = scene.item("extras", 2, InstallMode::Merge).await;
    scene.say(&[&tools, &extras]);
    let agent = scene.start().await;
    scene.hears("tools", "active", 1).await;
    scene.hears("extras", "active", 1).await;
    scene.check_tree("tools", 1);
    assert!(scene.is_merged("extras", 2));
    // Beside the agent nobody else is at work.
    let config = Config::with_data(scene.data.clone());
    let beside = client::check_in(&config, &scene.bed.clock()).await;
    assert!(matches!(beside, Err(AgentError::Session(_))), "{beside:?}");
    // What is damaged is healed when somebody asks for a look.
    std::fs::write(scene.target("tools").join("small/7.txt"), "not seven").unwrap();
    scene.desk.ask(protocol::Command {
        id: 7,
        what: CommandKind::Verify,
    });
    let done = async || scene.desk.heard().iter().any(|held| held.done.contains(&7));
    assert!(until(done, |done| *done).await);
    assert_eq!(scene.hears("tools", "active", 1).await, "");
    scene.check_tree("tools", 1);
    scene.say(&[&extras]);
    scene.hears("tools", "removed", 1).await;
    assert!(!scene.target("tools").exists());
    assert!(scene.is_merged("extras", 2));
    stop(agent).await;
    let ran = std::fs::read_to_string(&marks).unwrap();
    let stages: Vec<_> = ran
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    let wanted = "requirement preflight activation postflight verification verification \
                  pre-uninstall post-uninstall";
    assert_eq!(stages.join(" "), wanted);
    assert!(ran.lines().all(|line| line.ends_with(" tools 1")), "{ran}");
    scene.bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_downloaded_becomes_active_on_time_without_the_origin() {
    let scene = Box::pin(Scene::set()).await;
    let first = scene.item("tools", 1, InstallMode::Tree).await;
    scene.say(&[&first]);
    let agent = scene.start().await;
    scene.hears("tools", "active", 1).await;
    let mut second = scene.item("tools", 2, InstallMode::Tree).await;
    let now = scene.bed.clock().now();
    second.times.activate_from = Some(now + 8 * 3600);
    second.times.deactivate_at = Some(now + 20 * 3600);
    scene.say(&[&second]);
    scene.hears("tools", "downloaded", 2).await;
    scene.check_tree("tools", 1);
    // From here on, for a day, nobody is there to be asked.
    scene.desk.set_deaf(true);
    scene.link.set(Fate::Down);
    stop(agent).await;
    let agent = scene.start().await;
    scene.bed.pass(8 * 3600 + 60);
    let installed = async || tree::compare(&scene.bed.path("tools-2"), &scene.target("tools"));
    until(installed, Result::is_ok).await.unwrap();
    scene.bed.pass(12 * 3600);
    let exists = async || scene.target("tools").exists();
    until(exists, |exists| !exists).await;
    scene.link.set(Fate::Pass);
    scene.desk.set_deaf(false);
    scene.hears("tools", "inactive", 2).await;
    stop(agent).await;
    scene.bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_work_makes_way_for_what_did() {
    for mode in [InstallMode::Tree, InstallMode::Merge] {
        let scene = Box::pin(Scene::set()).await;
        let first = scene.item("tools", 1, mode).await;
        scene.say(&[&first]);
        let agent = scene.start().await;
        scene.hears("tools", "active", 1).await;
        let mut second = scene.item("tools", 2, mode).await;
        let bad = "#!/bin/sh\ntest -d $LARDER_TARGET/large && echo it is there\nexit 3\n";
        second.scripts = vec![scene.desk.script(Stage::Verification, bad)];
        scene.say(&[&second]);
        let note = scene.hears("tools", "failed", 2).await;
        assert_eq!(note, "verification script script: exit code 3");
        until(async || scene.is_merged("tools", 1), |back| *back).await;
        let log = scene.data.join("agent/logs/tools.verification");
        let said = std::fs::read_to_string(log).unwrap();
        assert!(said.contains("it is there"), "{said}");
        // An old manifest changes nothing, whoever tells of it.
        let heard = scene.desk.heard().len();
        let current = scene.desk.current().unwrap();
        scene.desk.repeat(1, current.digest);
        until(async || scene.desk.heard().len(), |now| *now > heard + 1).await;
        scene.desk.repeat(current.number, current.digest);
        second.scripts.clear();
        scene.say(&[&second]);
        scene.hears("tools", "active", 2).await;
        assert!(scene.is_merged("tools", 2));
        stop(agent).await;
        scene.bed.stop().await;
    }
}
