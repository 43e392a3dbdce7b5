//! Settings that an operator brings to a device by a fileset: in force once it is active, and gone
//! again when they cannot be used, when the device cannot check in any more, or with the fileset.

use std::fs;

use client::{Agent, Config};
use content::statement::{InstallMode, Item, Stage};
use tests::link::Fate;
use tests::testbed::until;

use crate::agent::{Scene, stop};

const FILESET: &str = "settings";

struct Bench {
    scene: Scene,
    config: Config,
}

impl Bench {
    async fn set() -> Self {
        let scene = Box::pin(Scene::set()).await;
        let file = scene.bed.path("client.toml");
        let (data, folder) = (&scene.data, scene.target(FILESET));
        fs::write(
            &file,
            format!("data = {data:?}\nagent.settings = {folder:?}\n"),
        )
        .unwrap();
        let config = Config::load(&file).unwrap();
        Self { scene, config }
    }

    /// Publishes settings as the next revision.
    async fn item(&self, text: &str) -> Item {
        let folder = self.scene.bed.path("published");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("agent.toml"), text).unwrap();
        let mode = InstallMode::Tree;
        Box::pin(self.scene.item_of(FILESET, &folder, mode)).await
    }

    /// The boosters that this device would ask, which is what the settings say here.
    async fn asks(&self) -> String {
        let clock = self.scene.bed.clock();
        let why = Box::pin(client::why(&self.config, None, &clock)).await;
        let sources = why.unwrap().sources.into_iter().map(|it| it.source);
        let boosters = sources.filter(|it| it.starts_with("booster"));
        boosters.collect::<Vec<_>>().join(", ")
    }

    /// Waits until it would ask these.
    async fn comes_to_ask(&self, boosters: &str) {
        until(async || self.asks().await, |asks| asks == boosters).await;
    }

    fn in_force(&self) -> Option<String> {
        let clock = self.scene.bed.clock();
        let status = client::status(self.config.data(), self.config.grace(), &clock);
        status.unwrap().agent.and_then(|agent| agent.settings)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_by_fileset_and_bad_ones_go_back_and_are_told_of() {
    let bench = Box::pin(Bench::set()).await;
    let scene = &bench.scene;
    let first = bench.item("sources = [\"one@127.0.0.1:1\"]").await;
    scene.say(&[&first]);
    let clock = scene.bed.clock();
    let agent = Agent::start(&bench.config, &clock).await.unwrap();
    scene.hears(FILESET, "active", 1).await;
    assert_eq!(bench.asks().await, "booster one");
    assert_eq!(bench.in_force().as_deref(), Some("settings@1"));

    // What cannot be used is named, and what was there before stays in force.
    let bad = bench
        .item("sources = []\n[agent]\nverify_evry = \"1h\"")
        .await;
    scene.say(&[&bad]);
    let note = scene.hears(FILESET, "failed", 2).await;
    assert!(
        note.contains("agent.toml, line 3") && note.contains("verify_evry"),
        "{note}"
    );
    assert_eq!(bench.asks().await, "booster one");

    // So does what leaves the device without a way to check in.
    let mut third = bench.item("sources = [\"three@127.0.0.1:1\"]").await;
    let (begun, go_on) = (scene.bed.path("begun"), scene.bed.path("go-on"));
    let script =
        format!("#!/bin/sh\ntouch {begun:?}\nwhile ! test -e {go_on:?}; do sleep 0.05; done\n");
    third.scripts = vec![scene.desk.script(Stage::Verification, &script)];
    scene.say(&[&third]);
    until(async || begun.exists(), |begun| *begun).await;
    scene.link.set(Fate::Down);
    fs::write(&go_on, "").unwrap();
    bench.comes_to_ask("booster three").await;
    bench.comes_to_ask("booster one").await;
    let file = scene.target(FILESET).join("agent.toml");
    let is_back = |text: &String| text.contains("one@");
    until(
        async || fs::read_to_string(&file).unwrap_or_default(),
        is_back,
    )
    .await;
    scene.link.set(Fate::Pass);
    let note = scene.hears(FILESET, "failed", 3).await;
    assert!(note.contains("3 check-ins failed"), "{note}");

    // They come with another revision, and go with the fileset.
    let last = bench.item("sources = [\"four@127.0.0.1:1\"]").await;
    scene.say(&[&last]);
    scene.hears(FILESET, "active", 4).await;
    assert_eq!(bench.asks().await, "booster four");
    scene.say(&[]);
    scene.hears(FILESET, "removed", 4).await;
    assert_eq!((bench.asks().await.as_str(), bench.in_force()), ("", None));
    stop(agent).await;
    bench.scene.bed.stop().await;
}
