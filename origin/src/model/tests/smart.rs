//! Smart groups: who is in, and when.

use std::collections::BTreeSet;

use certs::Peer;
use protocol::{Inventory, System};

use crate::model::{ModelError, SmartGroups};
use crate::testing::estate::{Estate, spec};

/// A fleet in which the smart group g holds t.
struct Fleet {
    estate: Estate,
    smart: SmartGroups,
}

impl Fleet {
    async fn new() -> Self {
        let estate = Estate::new().await;
        estate.publish("t").await;
        let smart = estate.smart_groups();
        Self { estate, smart }
    }

    async fn enrol(&self, name: &str, os: &str) -> Peer {
        let peer = self.estate.enrol(name).await;
        self.says(&peer, os).await;
        peer
    }

    /// The device `peer` runs the system `os` from now on.
    async fn says(&self, peer: &Peer, os: &str) {
        let system = System {
            os: os.to_owned(),
            ..System::default()
        };
        let inventory = Inventory {
            system,
            ..Inventory::default()
        };
        let body = inventory.encode().into();
        let reply = self.estate.inventories.answer(peer, &body).await;
        assert_eq!(reply.status(), http::StatusCode::NO_CONTENT);
    }

    async fn rule(&mut self, rule: &str) {
        let group = format!("group/g {{\"rule\":\"{rule}\"}}");
        self.estate.commit(&[&group]).await.unwrap();
        self.smart.look().await.unwrap();
    }

    async fn check(&self, peers: &[&Peer], expected: &[&str]) {
        let mut found = Vec::new();
        for peer in peers {
            found.push(self.estate.holds(peer).await.0);
        }
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn who_fits_the_rule_holds_what_the_group_does() {
    let mut fleet = Fleet::new().await;
    let (one, two) = (
        fleet.enrol("one", "debian").await,
        fleet.enrol("two", "arch").await,
    );
    let edits = [
        &spec("t", 1)[..],
        "group/g {\"rule\":\"os = debian\"}",
        "association/t/group/g",
    ];
    fleet.estate.edit(&edits).await.unwrap();
    let diff = fleet.estate.models.diff("d").await.unwrap();
    let g = &diff.smart[0];
    assert_eq!((g.members, g.come, g.go, diff.devices), (1, 1, 0, 1));
    fleet.estate.models.commit("d", "a test").await.unwrap();
    fleet.check(&[&one, &two], &["", ""]).await;
    fleet.smart.look().await.unwrap();
    fleet.check(&[&one, &two], &["t@1", ""]).await;
    let shown = fleet.estate.models.group("g").await.unwrap();
    assert_eq!(
        (shown.by_rule, shown.looked_at.is_some()),
        (vec!["one".to_owned()], true)
    );

    // What a device says counts at once, and for it alone.
    fleet.says(&two, "debian").await;
    fleet.check(&[&one, &two], &["t@1", "t@1"]).await;
    fleet.says(&one, "arch").await;
    fleet.check(&[&one, &two], &["", "t@1"]).await;
    let three = fleet.enrol("three", "debian").await;
    fleet.check(&[&three], &["t@1"]).await;

    fleet.rule("os = arch or id = three").await;
    fleet
        .check(&[&one, &two, &three], &["t@1", "", "t@1"])
        .await;
    // Who is named is in, whatever the rule says.
    fleet.estate.commit(&["member/g/two"]).await.unwrap();
    fleet
        .check(&[&one, &two, &three], &["t@1", "t@1", "t@1"])
        .await;
    fleet.estate.edit(&["group/g"]).await.unwrap();
    let diff = fleet.estate.models.diff("d").await.unwrap();
    assert_eq!((diff.smart[0].go, diff.devices), (2, 2));
    fleet.estate.models.commit("d", "a test").await.unwrap();
    fleet.smart.look().await.unwrap();
    fleet.check(&[&one, &two, &three], &["", "t@1", ""]).await;
}

#[tokio::test]
async fn who_changes_no_group_keeps_its_manifest() {
    let mut fleet = Fleet::new().await;
    let (one, two) = (
        fleet.enrol("one", "debian").await,
        fleet.enrol("two", "arch").await,
    );
    let edits = [&spec("t", 1)[..], "group/g", "association/t/group/g"];
    fleet.estate.commit(&edits).await.unwrap();
    fleet.rule("os = debian").await;
    let before = (
        fleet.estate.holds(&one).await,
        fleet.estate.holds(&two).await,
    );
    fleet.rule("os = debian and not os = arch").await;
    fleet.says(&two, "gentoo").await;
    let mut db = fleet.estate.bed.authority.ledger().read().await.unwrap();
    let due = crate::ledger::manifests::count_due(&mut db).await.unwrap();
    drop(db);
    assert_eq!(due, 0);
    let after = (
        fleet.estate.holds(&one).await,
        fleet.estate.holds(&two).await,
    );
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_rule_that_is_none_is_refused_when_it_is_edited() {
    let estate = Estate::new().await;
    let refused = estate
        .edit(&["group/g {\"rule\":\"mood = good\"}"])
        .await
        .unwrap_err();
    assert!(matches!(refused, ModelError::Value(_)), "{refused}");
    let told = refused.fault().detail;
    assert!(told.contains("there is no field mood"), "{told}");
}

#[tokio::test]
async fn what_was_begun_is_brought_to_its_end_after_a_kill() {
    let mut fleet = Fleet::new().await;
    let one = fleet.enrol("one", "debian").await;
    let edits = [&spec("t", 1)[..], "group/g", "association/t/group/g"];
    fleet.estate.commit(&edits).await.unwrap();
    fleet.smart.look().await.unwrap();
    // Committed, and killed before anybody was held against it.
    fleet
        .estate
        .commit(&["group/g {\"rule\":\"os = debian\"}"])
        .await
        .unwrap();
    let estate = Estate::on(fleet.estate.stop().await).await;
    let mut smart = estate.smart_groups();
    smart.look().await.unwrap();
    assert_eq!(estate.holds(&one).await.0, "t@1");
    let names: BTreeSet<String> = estate
        .models
        .group("g")
        .await
        .unwrap()
        .by_rule
        .into_iter()
        .collect();
    assert_eq!(names, BTreeSet::from(["one".to_owned()]));
}
