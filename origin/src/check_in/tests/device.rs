//! What a device says and hears.

use http_body_util::BodyExt as _;
use protocol::{CommandKind, FilesetResult, FilesetState, Held};

use super::*;
use crate::ledger::results;
use crate::testing::estate::{id, spec};

/// A device that checks in, and the estate that it belongs to.
struct Desk {
    branch: Branch,
    peer: Peer,
}

impl Desk {
    async fn new() -> Self {
        let branch = Branch::new().await;
        let peer = branch.estate.enrol("desk").await;
        Self { branch, peer }
    }

    async fn says(&self, held: Held) -> Option<CheckInAnswer> {
        // Past every bound of how often: that is another test.
        let reply = self.branch.check_ins.hold(self.peer.id(), held).await;
        heard(reply).await
    }
}

async fn heard(reply: Reply) -> Option<CheckInAnswer> {
    if reply.status() == StatusCode::NO_CONTENT {
        return None;
    }
    assert_eq!(reply.status(), StatusCode::OK);
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    Some(CheckInAnswer::decode(&body).unwrap())
}

fn by(answer: &CheckInAnswer) -> Held {
    let manifest = answer.manifest.as_ref().unwrap();
    Held {
        model: manifest.model,
        manifest: Some(manifest.digest),
        ..Held::default()
    }
}

#[tokio::test]
async fn who_goes_by_its_manifest_hears_nothing() {
    let desk = Desk::new().await;
    let estate = &desk.branch.estate;
    let first = desk.says(Held::default()).await.unwrap();
    assert_eq!(first.manifest, None, "nothing was ever committed");
    assert!((108..=132).contains(&first.next_seconds));

    estate.publish("a").await;
    let all = "association/a/group/all";
    estate.commit(&[&spec("a", 1), all]).await.unwrap();
    let told = desk.says(Held::default()).await.unwrap();
    let manifest = told.manifest.clone().unwrap();
    assert_eq!((manifest.model, manifest.number), (1, 1));
    assert_eq!(desk.says(by(&told)).await, None);
    // What changes for others is not news.
    estate.publish("b").await;
    let other = "association/b/device/other";
    estate.commit(&[&spec("b", 1), other]).await.unwrap();
    assert_eq!(desk.says(by(&told)).await, None);
    estate.commit(&["-association/a/group/all"]).await.unwrap();
    let last = desk.says(by(&told)).await.unwrap();
    assert_eq!(last.manifest.unwrap().number, 2);
}

#[tokio::test]
async fn a_device_is_told_the_interval_once_after_each_start() {
    let desk = Desk::new().await;
    desk.branch.estate.publish("a").await;
    let edits = [&spec("a", 1)[..], "association/a/group/all"];
    desk.branch.estate.commit(&edits).await.unwrap();
    let told = desk.says(Held::default()).await.unwrap();
    assert_eq!(desk.says(by(&told)).await, None);
    let Branch {
        estate, documents, ..
    } = desk.branch;
    let estate = Estate::on(estate.stop().await).await;
    let check_ins = estate.check_ins(&documents);
    let held = by(&told);
    let again = heard(check_ins.hold(desk.peer.id(), held.clone()).await).await;
    assert_eq!(again.unwrap().manifest, told.manifest);
    assert_eq!(
        heard(check_ins.hold(desk.peer.id(), held).await).await,
        None
    );
}

fn result(revision: u64, state: FilesetState, at: i64) -> FilesetResult {
    FilesetResult {
        fileset: "a".parse().unwrap(),
        revision,
        state,
        at,
        note: String::new(),
        sources: Vec::new(),
    }
}

#[tokio::test]
async fn of_what_a_device_says_the_newest_is_kept() {
    let desk = Desk::new().await;
    desk.branch.estate.publish("a").await;
    let authority = &desk.branch.estate.bed.authority;
    let now = authority.clock().now();
    let check = async |said: FilesetResult, expected: (u64, FilesetState)| {
        let held = Held {
            results: vec![said.clone()],
            ..Held::default()
        };
        desk.says(held.clone()).await.unwrap();
        desk.says(held).await.unwrap();
        let mut db = authority.ledger().read().await.unwrap();
        let kept = results::of_device(&mut db, desk.peer.id()).await.unwrap();
        let kept: Vec<_> = kept.iter().map(|(it, _)| (it.revision, it.state)).collect();
        assert_eq!(kept, [expected], "after {said:?}");
    };
    let (active, failed) = (FilesetState::Active, FilesetState::Failed);
    check(result(1, active, now - 20), (1, active)).await;
    check(result(2, failed, now - 10), (2, failed)).await;
    check(result(1, active, now - 20), (2, failed)).await;
    // A clock that is years ahead is not believed for years.
    check(result(3, failed, now + 100_000_000), (3, failed)).await;
    desk.branch.estate.bed.pass(60);
    check(result(3, active, now + 60), (3, active)).await;
}

#[tokio::test]
async fn what_nobody_published_is_not_kept() {
    let desk = Desk::new().await;
    let held = Held {
        results: vec![result(1, FilesetState::Active, 0)],
        ..Held::default()
    };
    desk.says(held).await.unwrap();
    let mut db = desk
        .branch
        .estate
        .bed
        .authority
        .ledger()
        .read()
        .await
        .unwrap();
    let kept = results::of_device(&mut db, desk.peer.id()).await.unwrap();
    assert_eq!(kept, []);
}

#[tokio::test]
async fn a_command_is_told_until_it_is_done() {
    let desk = Desk::new().await;
    let estate = &desk.branch.estate;
    let ask = async |what| estate.manifests.ask(&id("desk"), what).await.unwrap();
    let first = ask(CommandKind::Verify).await;
    assert_eq!(
        ask(CommandKind::Verify).await,
        first,
        "asked once is enough"
    );
    let second = ask(CommandKind::Renew).await;
    assert!(second.id > first.id);
    let asked = async |done: &[u64]| {
        let held = Held {
            done: done.to_vec(),
            ..Held::default()
        };
        let answer = desk.says(held).await.unwrap();
        answer.commands.iter().map(|it| it.id).collect::<Vec<_>>()
    };
    assert_eq!(asked(&[]).await, [first.id, second.id]);
    assert_eq!(asked(&[first.id]).await, [second.id]);
    assert_eq!(asked(&[first.id, second.id]).await, [0; 0]);
    // What is done stays done, and what another device says of it counts nothing.
    let third = ask(CommandKind::Verify).await;
    assert_eq!(asked(&[first.id]).await, [third.id]);
    let other = estate.enrol("other").await;
    let held = Held {
        done: vec![third.id],
        ..Held::default()
    };
    desk.branch.check_ins.hold(other.id(), held).await;
    assert_eq!(asked(&[]).await, [third.id]);
    let refusal = estate
        .manifests
        .ask(&id("berlin"), CommandKind::Verify)
        .await;
    assert!(refusal.is_err(), "a booster takes none: {refusal:?}");
}

#[tokio::test]
async fn a_wait_ends_when_something_changes_for_the_device() {
    let desk = Desk::new().await;
    let estate = &desk.branch.estate;
    estate.publish("a").await;
    estate.publish("b").await;
    let edits = [&spec("a", 1)[..], "association/a/group/all"];
    estate.commit(&edits).await.unwrap();
    let told = desk.says(Held::default()).await.unwrap();
    let manifest = told.manifest.clone().unwrap();
    // Who goes by another one need not wait.
    let reply = desk.branch.check_ins.wait(&desk.peer, "").await;
    assert_eq!(heard(reply).await.unwrap().manifest, told.manifest);

    let query = format!("model=1&manifest={}", manifest.digest);
    let wait = desk.branch.check_ins.wait(&desk.peer, &query);
    let change = async {
        while estate.manifests.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        let other = [&spec("b", 1)[..], "association/b/device/other"];
        estate.commit(&other).await.unwrap();
        estate.settled().await;
        assert_eq!(estate.manifests.waiting(), 1, "that was no news");
        let mine = ["association/b/group/all"];
        estate.commit(&mine).await.unwrap();
    };
    let (reply, ()) = tokio::join!(wait, change);
    let woken = heard(reply).await.unwrap().manifest.unwrap();
    assert_eq!(woken.number, 2);

    let query = format!("manifest={}", woken.digest);
    let wait = desk.branch.check_ins.wait(&desk.peer, &query);
    let stop = async {
        while estate.manifests.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        estate.manifests.stop_waiting();
    };
    let (reply, ()) = tokio::join!(wait, stop);
    assert_eq!(heard(reply).await, None);
    let reply = desk.branch.check_ins.wait(&desk.peer, &query).await;
    assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE);
    let reply = desk.branch.check_ins.wait(&desk.branch.peer, &query).await;
    assert_eq!(
        reply.status(),
        StatusCode::BAD_REQUEST,
        "a booster waits for its roster"
    );
}
