//! Manifests follow from models, for those whom a commit concerns and for nobody else.

use crate::ledger::{counters, manifests as table};
use crate::model::ModelError;
use crate::restore::restore;
use crate::testing::estate::{Estate, spec};

/// Three devices; `a` is for all, and the group g is there.
async fn three() -> (Estate, [certs::Peer; 3]) {
    let estate = Estate::new().await;
    for name in ["a", "b"] {
        estate.publish(name).await;
    }
    let mut peers = Vec::new();
    for name in ["one", "two", "three"] {
        peers.push(estate.enrol(name).await);
    }
    let edits = [
        &spec("a", 1)[..],
        &spec("b", 1),
        "group/g",
        "association/a/group/all",
    ];
    let made = estate.commit(&edits).await.unwrap();
    assert_eq!((made.model, made.changes, made.devices), (1, 4, 3));
    (estate, peers.try_into().unwrap())
}

#[tokio::test]
async fn a_commit_touches_whom_it_concerns() {
    let (estate, [one, two, _]) = three().await;
    assert_eq!(estate.holds(&one).await, ("a@1".to_owned(), 1));
    let edits = ["member/g/one", "association/b/group/g"];
    let made = estate.commit(&edits).await.unwrap();
    assert_eq!((made.devices, made.looked_at), (1, 1));
    assert_eq!(estate.holds(&one).await, ("a@1 b@1".to_owned(), 2));
    assert_eq!(estate.holds(&two).await, ("a@1".to_owned(), 1));
    // A publish changes nobody; a commit of the new number does.
    estate.publish("b").await;
    estate.settled().await;
    assert_eq!(estate.holds(&one).await, ("a@1 b@1".to_owned(), 2));
    let made = estate.commit(&[&spec("b", 2)]).await.unwrap();
    assert_eq!((made.devices, made.looked_at), (1, 1));
    assert_eq!(estate.holds(&one).await, ("a@1 b@2".to_owned(), 3));
    // What says the same in the end is no new manifest, whatever was looked at.
    let edits = ["association/a/device/two"];
    let made = estate.commit(&edits).await.unwrap();
    assert_eq!((made.devices, made.looked_at), (0, 1));
    estate.settled().await;
    assert_eq!(estate.holds(&two).await, ("a@1".to_owned(), 1));
}

#[tokio::test]
async fn a_manifest_is_for_its_device_alone() {
    let (estate, [one, two, _]) = three().await;
    let held = estate.manifests.standing(one.id()).await.manifest.unwrap();
    let get = async |peer| estate.manifests.envelope(peer, held.digest).await.unwrap();
    assert!(get(&one).await.is_some());
    assert!(get(&two).await.is_none());
    assert_eq!(estate.manifest(&one).await.unwrap().device, "one");
    // The one before is gone as soon as there is another.
    estate.commit(&["association/b/device/one"]).await.unwrap();
    assert_eq!(estate.holds(&one).await.1, 2);
    assert!(get(&one).await.is_none());
}

#[tokio::test]
async fn whoever_comes_in_has_its_manifest_at_its_first_check_in() {
    let (estate, _) = three().await;
    estate
        .commit(&["group/north", "association/b/group/north"])
        .await
        .unwrap();
    let four = estate.enrol("four").await;
    assert_eq!(estate.holds(&four).await, ("a@1 b@1".to_owned(), 1));
    // Even if there is nothing for it.
    let edits = ["-association/a/group/all", "-association/b/group/north"];
    estate.commit(&edits).await.unwrap();
    let five = estate.enrol("five").await;
    assert_eq!(estate.holds(&five).await, (String::new(), 1));
    assert_eq!(estate.holds(&four).await, (String::new(), 2));
}

#[tokio::test]
async fn a_name_that_passes_to_another_device_goes_on_with_its_numbers() {
    let (estate, [one, ..]) = three().await;
    assert_eq!(estate.holds(&one).await.1, 1);
    estate.bed.revoke("one").await;
    estate.commit(&["association/b/device/one"]).await.unwrap();
    estate.settled().await;
    let again = estate.enrol("one").await;
    estate.settled().await;
    assert_eq!(estate.holds(&again).await, ("a@1 b@1".to_owned(), 2));
}

#[tokio::test]
async fn what_a_stopped_origin_left_is_made_at_its_next_start() {
    let (estate, [one, ..]) = three().await;
    estate.settled().await;
    let bed = estate.stop().await;
    // Nobody makes manifests while this is committed.
    let (idle, models) = {
        let registry = service::metrics::Registry::new("idle");
        let metrics = crate::metrics::Metrics::register(&registry).unwrap();
        let opened = super::Manifests::open(bed.authority.clone(), metrics.clone()).await;
        let (manifests, builder) = opened.unwrap();
        let authority = bed.authority.clone();
        let opened = crate::inventory::Inventories::open(authority, manifests.clone(), metrics);
        let inventories = opened.await.unwrap();
        let authority = bed.authority.clone();
        (
            builder,
            crate::model::Models::new(authority, manifests, inventories),
        )
    };
    let edit = crate::model::view::Edit {
        key: "association/b/group/all".to_owned(),
        says: Some(serde_json::json!({})),
    };
    models.edit("d", &[edit]).await.unwrap();
    models.commit("d", "then the power goes").await.unwrap();
    drop((idle, models));
    let mut db = bed.authority.ledger().read().await.unwrap();
    assert_eq!(table::count_due(&mut db).await.unwrap(), 3);
    drop(db);
    let estate = Estate::on(bed).await;
    assert_eq!(estate.holds(&one).await, ("a@1 b@1".to_owned(), 2));
    estate.settled().await;
}

#[tokio::test]
async fn a_restored_origin_gives_out_higher_numbers_than_ever() {
    let (estate, [one, two, _]) = three().await;
    estate.settled().await;
    let data = estate.bed.folder.path().to_owned();
    let backup = data.join("backup.db");
    sqlx::query("VACUUM INTO $1")
        .bind(backup.to_str().unwrap())
        .execute(&mut *estate.bed.authority.ledger().read().await.unwrap())
        .await
        .unwrap();
    // After the backup: a device and numbers that it knows nothing of.
    estate.publish("b").await;
    let late = estate.enrol("late").await;
    for revision in [1, 2] {
        let edits = [&spec("b", revision)[..], "association/b/group/all"];
        estate.commit(&edits).await.unwrap();
        estate.settled().await;
    }
    let highest = estate.holds(&one).await.1.max(estate.holds(&late).await.1);
    assert_eq!(highest, 3);
    let mut bed = estate.stop().await;
    bed.authority.ledger().close().await;
    restore(&data, &backup, None, 7).await.unwrap();
    bed.authority = bed.reopen().await.unwrap();
    let mut db = bed.authority.ledger().read().await.unwrap();
    let floor = counters::all(&mut db).await.unwrap()[table::FLOOR];
    assert!(floor > highest);
    drop(db);
    let bed = bed.reopened();
    let estate = Estate::on(bed).await;
    for peer in [&one, &two] {
        let manifest = estate.manifest(peer).await.unwrap();
        assert!(manifest.number > floor, "{}", manifest.number);
        assert!(manifest.model > 1000, "{}", manifest.model);
    }
    // Whom the backup does not know begins above what it had.
    let late = estate.enrol("late").await;
    assert!(estate.holds(&late).await.1 > floor);
}

#[tokio::test]
async fn a_revision_that_the_model_names_is_kept() {
    let (estate, _) = three().await;
    for _ in 0..4 {
        estate.publish("a").await;
    }
    // Two are kept, and the one that counts.
    let kept = async || {
        let mut db = estate.bed.authority.ledger().read().await.unwrap();
        let name = "a".parse().unwrap();
        let kept = crate::ledger::filesets::revisions(&mut db, Some(&name)).await;
        let number = |it: &crate::ledger::filesets::Revision| it.number.0;
        kept.unwrap().iter().map(number).collect::<Vec<_>>()
    };
    assert_eq!(kept().await, [1, 4, 5]);
    estate.commit(&[&spec("a", 5)]).await.unwrap();
    estate.publish("a").await;
    assert_eq!(kept().await, [5, 6]);
    // So there is no way back to it.
    let refusal = estate.models.rollback(1, "back").await.unwrap_err();
    let ModelError::Offenders { offenders } = refusal else {
        panic!("{refusal:?}");
    };
    assert_eq!(offenders, ["fileset/a names a@1, which is not kept"]);
}
