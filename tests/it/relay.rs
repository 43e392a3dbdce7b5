//! Devices that speak through their booster: what crosses the line, what they may read, and what a
//! booster cannot make them believe.

mod scene;

use std::time::Duration;

use booster::Booster;
use certs::Role;
use origin::inventory::view::InventoryView;
use origin::manifests::view::Holds;
use protocol::{Code, Inventory, Relayed};
use tests::fixture;
use tests::liar::{Liar, Lie};
use tests::link::Fate;
use tests::scrape::metric;
use tests::testbed::{CRL_POLL, Party, until};
use transport::CallError;

use scene::{Device, Scene, active, code, goes_by};

async fn stop(booster: Booster) {
    let _drained = booster.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nothing_changes_the_origin_hears_of_no_device_behind_a_booster() {
    let scene = Scene::set().await;
    let booster = scene.bed.booster("b1").await.unwrap();
    let ids = ["one", "two", "three", "four"];
    let mut devices = Vec::new();
    for id in ids {
        devices.push(scene.device(id).await);
    }
    let at = devices[0].at(&booster, "b1");
    // Its timestamp may be from before the publish for five seconds.
    devices[0].comes_to(&at, "notes", Ok(())).await;
    assert_eq!(scene.commit("tools", None).await, 1);
    // The program's own check-ins, until it has heard what there is.
    let here = format!("b1@{}", booster.local_addr());
    for device in &devices {
        let look = async || scene.check_in(&device.data, &here).await;
        let told = until(look, |told| told.unchanged && told.manifest.is_some()).await;
        assert_eq!(told.manifest, Some(1), "{}", device.id);
    }
    let routes = ["check-in", "relayed", "statement", "inventory"];
    let counts = async || {
        let mut counts = Vec::new();
        for route in routes {
            counts.push(scene.asked(route).await);
        }
        counts
    };
    let (before, waits) = (counts().await, scene.asked("wait").await);
    let rosters = scene.asked("roster").await;
    for round in 0..5 {
        for device in &devices {
            let told = scene.check_in(&device.data, &here).await;
            assert!(told.unchanged, "{} in round {round}: {told:?}", device.id);
        }
    }
    for (index, device) in devices.iter().enumerate() {
        let source = device.at(&booster, "b1");
        let manifest = device.proof(&source, 1).await.entry.manifest;
        for counter in 0..20 {
            let said = scene.sealed(device.id, device, counter, goes_by(manifest));
            let answer = source.speak(said).await.unwrap();
            assert!(answer.is_none(), "{index}: {answer:?}");
        }
    }
    assert_eq!(counts().await, before, "{routes:?} were asked for");
    // One wait for all of them: it ends every 55 seconds.
    let ended = scene.asked("wait").await - waits;
    assert!(ended <= 1, "{ended} waits have ended");
    assert!(scene.asked("roster").await - rosters <= 1);
    let ops = scene.bed.origin().addresses().ops;
    let waiting = metric(ops, "larder_origin_devices_waiting", "").await;
    assert_eq!(waiting.unwrap(), 0, "no device waits at the origin");
    let ops = booster.addresses().ops;
    let unchanged = "answer=\"unchanged\"";
    let unchanged = metric(ops, "larder_booster_check_ins_total", unchanged).await;
    assert!(unchanged.unwrap() >= 4 * (5 + 20));
    stop(booster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_reads_at_a_booster_what_its_manifest_names_and_speaks_for_itself_alone() {
    let scene = Scene::set().await;
    let booster = scene.bed.booster("b1").await.unwrap();
    let [one, two] = [scene.device("one").await, scene.device("two").await];
    let (at, other) = (one.at(&booster, "b1"), two.at(&booster, "b1"));
    // Nobody has asked for anything yet: its timestamp is from after the publish once it names it.
    let known = async || {
        fixture::locator(&at, one.party.trust(), "notes")
            .await
            .is_ok()
    };
    until(known, |known| *known).await;
    assert_eq!(scene.commit("tools", None).await, 1);
    let entry = one.proof(&at, 1).await.entry;
    let fetched = booster.counted().upstream_pack_bytes;
    assert_eq!(one.reads(&at, "notes").await, Err(Some(Code::Forbidden)));
    let now = booster.counted().upstream_pack_bytes;
    assert_eq!(now, fetched, "something was fetched for it");
    assert_eq!(one.reads(&at, "tools").await, Ok(()));
    // Its manifest comes from the booster, to it alone.
    let manifest = entry.manifest.unwrap();
    at.statement(&manifest, 1 << 20).await.unwrap();
    assert!(other.statement(&manifest, 1 << 20).await.is_err());
    // What holds from now on holds at the booster at once.
    assert_eq!(scene.commit("notes", Some("tools")).await, 2);
    one.comes_to(&at, "notes", Ok(())).await;
    let denied = Err(Some(Code::Forbidden));
    assert_eq!(one.reads(&at, "tools").await, denied);
    // A device waits once: its next wait takes the place of the one before.
    let held = one.proof(&at, 2).await.entry.manifest;
    let either = async {
        tokio::select! {
            ended = at.wait(2, held.as_ref()) => ended,
            ended = at.wait(2, held.as_ref()) => ended,
        }
    };
    // Neither would be over by itself before 55 seconds.
    let ended = tokio::time::timeout(Duration::from_secs(30), either).await;
    assert!(ended.expect("both go on").unwrap().is_none());
    // Nor does it ask as often as it likes: what it says that it holds is answered at once.
    let asks = async || at.wait(2, None).await.map(drop).map_err(|it| code(&it));
    let too_many = until(asks, |asked| *asked != Ok(())).await;
    assert_eq!(too_many, Err(Some(Code::TooMany)));
    // Nobody speaks for another, by whatever key; what a device says itself arrives.
    let told = async |said: Vec<u8>| at.speak(said).await.map(drop).map_err(|it| code(&it));
    let by_other = scene.sealed("two", &two, 1, active("notes"));
    let by_own = scene.sealed("two", &one, 1, active("notes"));
    assert_eq!(told(by_other).await, denied);
    assert_eq!(told(by_own).await, denied);
    let said = scene.sealed("one", &one, 1, active("notes"));
    assert_eq!(told(said.clone()).await, Ok(()));
    assert_eq!(told(said).await, denied, "it was said");
    let admin = scene.bed.admin();
    for (id, results) in [("one", 1), ("two", 0)] {
        let path = format!("/devices/{id}/holds");
        let holds: Holds = admin.get(&path).await.unwrap();
        assert_eq!(holds.results.len(), results, "{id}");
    }
    stop(booster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_booster_knew_of_its_devices_outlives_its_restart_and_the_end_of_its_line() {
    let scene = Scene::set().await;
    let data = scene.bed.enrol_booster("b1").await.unwrap();
    let config = booster::Config::on_loopback(data).with_crl_poll(CRL_POLL);
    let booster = scene.bed.start_booster(config.clone(), "b1").await.unwrap();
    let [one, two] = [scene.device("one").await, scene.device("two").await];
    let at = one.at(&booster, "b1");
    for name in ["tools", "notes"] {
        one.comes_to(&at, name, Ok(())).await;
    }
    assert_eq!(scene.commit("tools", None).await, 1);
    one.proof(&at, 1).await;
    assert_eq!(one.reads(&at, "tools").await, Ok(()));
    stop(booster).await;
    scene.link.set(Fate::Down);
    let booster = Booster::bind(config.clone(), scene.bed.clock())
        .await
        .unwrap();
    let at = one.at(&booster, "b1");
    assert_eq!(one.reads(&at, "tools").await, Ok(()));
    assert_eq!(one.reads(&at, "notes").await, Err(Some(Code::Forbidden)));
    // Who has never been here may have any manifest.
    let at = two.at(&booster, "b1");
    let unknown = two.reads(&at, "tools").await;
    assert_eq!(unknown, Err(Some(Code::UpstreamUnavailable)));
    stop(booster).await;
    // One that cannot be read any more is not none.
    let file = scene.bed.path("b1").join("state/roster");
    let kept = std::fs::read(&file).unwrap();
    std::fs::write(&file, &kept[..kept.len() / 2]).unwrap();
    let booster = Booster::bind(config, scene.bed.clock()).await.unwrap();
    let at = one.at(&booster, "b1");
    for name in ["tools", "notes"] {
        let lost = one.reads(&at, name).await;
        assert_eq!(lost, Err(Some(Code::UpstreamUnavailable)), "{name}");
    }
    stop(booster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_was_started_again_hears_at_once_of_all_who_come_to_a_booster() {
    let mut scene = Scene::set().await;
    assert_eq!(scene.commit("tools", None).await, 1);
    let booster = scene.bed.booster("b1").await.unwrap();
    for id in ["one", "two", "three"] {
        let device = scene.device(id).await;
        device
            .comes_to(&device.at(&booster, "b1"), "tools", Ok(()))
            .await;
    }
    let on_roster = || booster.metrics().roster.devices.get();
    until(async || on_roster(), |count| *count == 3).await;
    scene.bed.kill_origin();
    scene.link.set(Fate::Down);
    scene.bed.restart_origin().await.unwrap();
    scene.link.lead_to(scene.bed.origin().addresses().content);
    scene.link.set(Fate::Pass);
    // It has forgotten them, and hears of somebody else first.
    let four = scene.device("four").await;
    four.comes_to(&four.at(&booster, "b1"), "tools", Ok(()))
        .await;
    until(async || on_roster(), |count| *count == 4).await;
    stop(booster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booster_that_never_had_a_roster_gives_what_it_gets_from_the_booster_above_it() {
    let scene = Scene::set().await;
    assert_eq!(scene.commit("tools", None).await, 1);
    let data = scene.bed.enrol_booster("hub").await.unwrap();
    let config = booster::Config::on_loopback(data).with_crl_poll(CRL_POLL);
    let hub = scene.bed.start_booster(config.with_boosters(), "hub");
    let hub = hub.await.unwrap();
    let one = scene.device("one").await;
    let at = one.at(&hub, "hub");
    one.comes_to(&at, "tools", Ok(())).await;
    scene.link.set(Fate::Down);
    let data = scene.bed.enrol_booster("branch").await.unwrap();
    let parent = format!("hub@{}", hub.local_addr()).parse().unwrap();
    let config = booster::Config::on_loopback(data).with_crl_poll(CRL_POLL);
    let config = config.with_parents(vec![parent]);
    let branch = Booster::bind(config, scene.bed.clock()).await.unwrap();
    let at = one.at(&branch, "branch");
    one.comes_to(&at, "tools", Ok(())).await;
    // It proves nothing, and says so.
    let proof = at.roster_proof().await.unwrap_err();
    assert!(
        matches!(&proof, CallError::Fault { fault, .. } if fault.code == Code::UpstreamUnavailable),
        "{proof}"
    );
    // Once it hears from the origin, it goes by that.
    scene.link.set(Fate::Pass);
    let denied = Err(Some(Code::Forbidden));
    one.comes_to(&at, "notes", denied).await;
    stop(branch).await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booster_that_lies_of_manifests_and_reports_takes_nobody_in() {
    let scene = Scene::set().await;
    let booster = scene.bed.booster("b1").await.unwrap();
    let [one, two] = [scene.device("one").await, scene.device("two").await];
    assert_eq!(scene.commit("tools", None).await, 1);
    let at = one.at(&booster, "b1");
    let first = one.proof(&at, 1).await.encode();
    let others = two.proof(&two.at(&booster, "b1"), 1).await.encode();
    let address = scene.link.address().to_string();
    let b1 = scene.bed.path("b1");
    stop(booster).await;
    // Whoever stole its key stands where it stood.
    let join = scene.bed.join(Role::Client).await.unwrap();
    let thief = Party::of(&b1, &join, &scene.bed.clock()).await.unwrap();
    let origin = || {
        thief
            .source(Role::Origin, "origin", address.clone())
            .unwrap()
    };
    let liar = Liar::start(&thief, origin()).await.unwrap();
    let here = format!("b1@{}", liar.address());
    let goes_by = async |device: &Device, lie: Vec<u8>| {
        liar.set(Lie::Proof(lie.into()));
        scene.check_in(&device.data, &here).await.manifest
    };
    // Another's proof, or one that was changed: the origin is asked.
    assert_eq!(goes_by(&one, others.clone()).await, Some(1));
    assert_eq!(goes_by(&two, first.clone()).await, Some(1));
    // Within half an hour a booster can keep something new back.
    assert_eq!(scene.commit("notes", Some("tools")).await, 2);
    let admin = scene.bed.admin();
    let made = async || admin.get::<Holds>("/devices/one/holds").await.unwrap();
    until(made, |holds| holds.manifest == Some(2)).await;
    assert_eq!(goes_by(&one, first.clone()).await, Some(1));
    // Nobody who has heard of it goes back.
    liar.set(Lie::None);
    assert_eq!(scene.check_in(&two.data, &here).await.manifest, Some(2));
    assert_eq!(goes_by(&two, others).await, Some(2));
    scene.bed.pass(1801);
    assert_eq!(goes_by(&one, first).await, Some(2));
    // What a device said it cannot make up.
    let forged = scene.sealed("one", &two, 1, active("notes"));
    let relayed = Relayed {
        messages: vec![String::from_utf8(forged).unwrap()],
        joined: vec!["one".to_owned()],
    };
    let answers = origin().pass_on(&relayed).await.unwrap().answers;
    assert_eq!(answers[0].status, 403, "{:?}", answers[0]);
    let holds: Holds = admin.get("/devices/one/holds").await.unwrap();
    assert!(holds.results.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inventory_comes_through_the_relay_to_the_enrolment_listener_too() {
    let scene = Scene::set().await;
    let booster = scene.bed.booster("b1").await.unwrap();
    let one = scene.device("one").await;
    let relay = booster.addresses().enrol.to_string();
    let origin = one.party.source(Role::Origin, "origin", relay).unwrap();
    let mut inventory = Inventory::default();
    inventory.system.hostname = "one".to_owned();
    origin.inventory(inventory.encode()).await.unwrap();
    let admin = scene.bed.admin();
    let shown: InventoryView = admin.get("/devices/one/inventory").await.unwrap();
    assert_eq!(shown.inventory.system.hostname, "one");
    stop(booster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_to_a_booster_for_the_first_time_is_not_refused_what_it_may_read() {
    let scene = Scene::set().await;
    assert_eq!(scene.commit("tools", None).await, 1);
    let booster = scene.bed.booster("b1").await.unwrap();
    let admin = scene.bed.admin();
    let mut devices = Vec::new();
    for id in ["one", "two", "three", "four"] {
        devices.push(scene.device(id).await);
        let path = format!("/devices/{id}/holds");
        let made = async || admin.get::<Holds>(&path).await.unwrap();
        until(made, |holds| holds.manifest.is_some()).await;
    }
    let first = &devices[0];
    let at = first.at(&booster, "b1");
    first.comes_to(&at, "tools", Ok(())).await;
    for device in &devices[1..] {
        // The booster has just asked, and told nobody of this one.
        let denied = Err(Some(Code::Forbidden));
        assert_eq!(first.reads(&at, "notes").await, denied);
        let at = device.at(&booster, "b1");
        assert_eq!(device.reads(&at, "tools").await, Ok(()), "{}", device.id);
    }
    stop(booster).await;
}
