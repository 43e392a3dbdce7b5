//! What boosters pass on, and what they can prove.

use certs::Key;
use content::statement::{RosterHead, Signature, Spoken, Statement, seal};
use content::{Digest, Roster, RosterTree};
use http_body_util::BodyExt as _;
use protocol::{CheckIn, FilesetResult, FilesetState, Held, Relayed, RelayedAnswers};

use super::*;
use crate::ledger::results;
use crate::testing::estate::{id, spec};

/// A device with its key.
struct Device {
    key: Key,
    der: Vec<u8>,
    id: &'static str,
}

impl Device {
    async fn enrol(branch: &Branch, id: &'static str) -> Self {
        let bed = &branch.estate.bed;
        let (key, token) = (Key::generate().unwrap(), bed.token(true).await);
        let asked = bed.enrolment.enrol(request(&key, id, Some(token)));
        let Decision::Issued(held) = asked.await.unwrap() else {
            panic!("pending");
        };
        let der = held.der;
        Self { key, der, id }
    }

    /// What it says, under its own key, edited before it is signed.
    fn says(&self, held: Held, edit: impl FnOnce(&mut Spoken)) -> String {
        let check_in = CheckIn {
            release: "1".to_owned(),
            booster: None,
            held: Some(held),
        };
        let mut spoken = Spoken {
            deployment: "acme".to_owned(),
            device: self.id.to_owned(),
            run: [1; 16],
            counter: 1,
            at: 0,
            body: check_in.encode(),
        };
        edit(&mut spoken);
        let sign = |message: &[u8]| {
            Ok::<_, std::convert::Infallible>(Signature {
                signature: self.key.sign(message).unwrap(),
                chain: vec![self.der.clone()],
                key_id: String::new(),
            })
        };
        String::from_utf8(seal(&spoken, sign).unwrap()).unwrap()
    }
}

fn active() -> Held {
    let result = FilesetResult {
        fileset: "a".parse().unwrap(),
        revision: 1,
        state: FilesetState::Active,
        at: 5,
        note: String::new(),
        sources: Vec::new(),
    };
    Held {
        results: vec![result],
        ..Held::default()
    }
}

impl Branch {
    async fn passes_on(&self, messages: Vec<String>, joined: &[&str]) -> Vec<u16> {
        let joined = joined.iter().map(ToString::to_string).collect();
        let body = Relayed { messages, joined }.encode();
        let reply = self.check_ins.relayed(&self.peer, &body).await;
        assert_eq!(reply.status(), StatusCode::OK);
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let answers = RelayedAnswers::decode(&body).unwrap().answers;
        answers.iter().map(|answer| answer.status).collect()
    }

    /// What it hears of its roster, with its list.
    async fn roster(&self) -> (Statement<RosterHead>, Roster) {
        let reply = self.check_ins.roster(&self.peer).await;
        assert_eq!(reply.status(), StatusCode::OK);
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let judge = ContentJudge::new(Arc::clone(self.estate.bed.authority.trust()));
        let now = self.estate.bed.authority.clock().now();
        let head = Statement::<RosterHead>::open(&body, &judge, now).unwrap();
        let list = self.estate.manifests.list(&self.peer, head.list).unwrap();
        (head, Roster::decode(&list).unwrap())
    }
}

#[tokio::test]
async fn what_a_device_did_not_sign_itself_and_just_now_is_refused() {
    let branch = Branch::new().await;
    let estate = &branch.estate;
    estate.publish("a").await;
    let [desk, till] = [
        Device::enrol(&branch, "desk").await,
        Device::enrol(&branch, "till").await,
    ];
    let now = estate.bed.authority.clock().now();
    let deployment = estate.bed.authority.deployment().id.to_string();
    let said = |device: &Device, edit: &dyn Fn(&mut Spoken)| {
        device.says(active(), |spoken| {
            (spoken.at, spoken.deployment) = (now, deployment.clone());
            edit(spoken);
        })
    };
    let good = said(&desk, &|_| {});
    let mut altered: serde_json::Value = serde_json::from_str(&good).unwrap();
    let other: serde_json::Value =
        serde_json::from_str(&said(&desk, &|it| it.counter = 9)).unwrap();
    altered["payload"] = other["payload"].clone();
    // Forged, of another deployment, too old, from the future, altered: none counts.
    let bad = vec![
        said(&till, &|it| it.device = "desk".to_owned()),
        said(&desk, &|it| it.deployment = "other".to_owned()),
        said(&desk, &|it| it.at -= 4000),
        said(&desk, &|it| it.at += 1000),
        altered.to_string(),
        "{}".to_owned(),
    ];
    assert_eq!(branch.passes_on(bad, &[]).await, [403; 6]);
    let mut db = estate.bed.authority.ledger().read().await.unwrap();
    let kept = results::of_device(&mut db, &id("desk")).await.unwrap();
    assert!(kept.is_empty());
    drop(db);
    assert_eq!(branch.passes_on(vec![good.clone()], &[]).await, [200]);
    let mut db = estate.bed.authority.ledger().read().await.unwrap();
    let kept = results::of_device(&mut db, &id("desk")).await.unwrap();
    assert_eq!(kept.len(), 1);
    drop(db);
    // What was heard is not heard again; what comes after it is, from a later run too.
    let again = vec![
        good,
        said(&desk, &|it| it.counter = 2),
        said(&desk, &|it| (it.run, it.at) = ([2; 16], now - 1)),
        said(&desk, &|it| (it.run, it.at) = ([2; 16], now + 1)),
    ];
    assert_eq!(branch.passes_on(again, &[]).await, [403, 200, 403, 200]);
    // Devices pass nothing on.
    let peer = estate.enrol("third").await;
    let body = Relayed::default().encode();
    let reply = branch.check_ins.relayed(&peer, &body).await;
    assert_eq!(reply.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_roster_says_what_holds_for_the_devices_of_its_booster_and_for_no_others() {
    let branch = Branch::new().await;
    let estate = &branch.estate;
    estate.publish("a").await;
    let [one, two] = [estate.enrol("one").await, estate.enrol("two").await];
    let joined = branch.passes_on(Vec::new(), &["one", "berlin", "nobody"]);
    assert_eq!(joined.await, [0; 0]);
    let heard = |id| branch.check_ins.inventories.seen_at(id).is_some();
    assert!(heard(one.id()), "its booster has heard it");
    assert!(!heard(two.id()) && !heard(&id("nobody")));
    let (first, list) = branch.roster().await;
    assert_eq!((first.model, first.count), (0, 1), "clients of ours alone");
    assert_eq!(list.entry("one").unwrap().number, 0);
    let (again, _) = branch.roster().await;
    assert_eq!(again, first, "nothing is signed anew for nothing");
    // A commit that concerns somebody else changes nothing but that there is a model.
    let other = "association/a/device/two";
    estate.commit(&[&spec("a", 1), other]).await.unwrap();
    estate.settled().await;
    let (open, _) = branch.roster().await;
    assert_eq!((open.list, open.model), (first.list, 1));
    let query = format!("roster={}", open.list);
    let mut wait = pin!(branch.check_ins.wait(&branch.peer, &query));
    let is_pending = |polled: Poll<Reply>| assert!(polled.is_pending());
    is_pending(poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx))).await);
    estate.commit(&["association/a/device/one"]).await.unwrap();
    let reply = wait.await;
    assert_eq!(reply.status(), StatusCode::OK);
    let (head, list) = branch.roster().await;
    let held = estate.manifests.standing(one.id()).await.manifest.unwrap();
    let entry = list.entry("one").unwrap();
    assert_eq!((entry.manifest, entry.number), (Some(held.digest), 1));
    let proof = RosterTree::new(list).proof("one", b"").unwrap();
    assert!(proof.holds(&head.root, head.count));
    // Whoever was given the head before asks for its list now.
    let before = estate.manifests.list(&branch.peer, first.list);
    assert!(before.is_some() && first.list != head.list);
    // Its booster reads its manifest, and not that of a device that never came to it.
    let get = async |digest| {
        let got = estate.manifests.envelope(&branch.peer, digest).await;
        got.unwrap().is_some()
    };
    assert!(get(held.digest).await);
    let foreign = estate.manifests.standing(two.id()).await.manifest.unwrap();
    assert!(!get(foreign.digest).await);
    assert!(estate.manifests.list(&two, head.list).is_none());
    assert!(!get(Digest::of(b"none")).await);
}

#[tokio::test]
async fn from_the_first_model_on_a_device_reads_what_its_manifest_names() {
    let branch = Branch::new().await;
    let estate = &branch.estate;
    let desk = estate.enrol("desk").await;
    for name in ["a", "b"] {
        estate.publish(name).await;
    }
    let may = async |peer: &Peer| {
        let mut may = Vec::new();
        for name in ["a", "b"] {
            let name = name.parse().unwrap();
            may.push(estate.manifests.may_read(peer, &name).await.unwrap());
        }
        (may[0], may[1])
    };
    assert_eq!(may(&desk).await, (true, true));
    estate
        .commit(&[&spec("a", 1)[..], &spec("b", 1)])
        .await
        .unwrap();
    assert_eq!(may(&desk).await, (false, false));
    estate.commit(&["association/a/device/desk"]).await.unwrap();
    assert_eq!(may(&desk).await, (true, false));
    let edits = ["association/b/device/desk", "-association/a/device/desk"];
    estate.commit(&edits).await.unwrap();
    assert_eq!(estate.holds(&desk).await.0, "b@1");
    assert_eq!(may(&desk).await, (false, true));
    // A booster fetches for all of its devices.
    assert_eq!(may(&branch.peer).await, (true, true));
}
