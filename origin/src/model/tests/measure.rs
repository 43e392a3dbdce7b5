//! What commits cost in fleets of different sizes, and a check-in that brings nothing. Run by hand,
//! optimised: `cargo test --release -p origin --lib -- --ignored --nocapture measure_models`.

use std::time::Instant;

use super::*;
use crate::ledger::commit;

/// The group that is changed.
const GROUP: usize = 100;

/// Enters `count` clients as if they had enrolled.
async fn populate(estate: &Estate, count: usize) {
    let mut tx = estate.bed.authority.ledger().write().await.unwrap();
    for number in 0..count {
        let key = Digest::of(&number.to_be_bytes());
        let insert = sqlx::query(
            "INSERT INTO devices (id, role, state, spki, spki_sha256, with_token, requested_at, \
             seen_at) VALUES ($1, 'client', 'enrolled', $2, $2, 0, 0, 0)",
        );
        let insert = insert.bind(format!("d{number:06}"));
        let insert = insert.bind(key.as_raw().to_vec());
        insert.execute(&mut *tx).await.unwrap();
    }
    commit(tx).await.unwrap();
    settle(estate).await;
}

/// Waits until nothing is due, however long that takes.
async fn settle(estate: &Estate) {
    let ledger = estate.bed.authority.ledger();
    loop {
        let mut db = ledger.read().await.unwrap();
        if crate::ledger::manifests::count_due(&mut db).await.unwrap() == 0 {
            return;
        }
        drop(db);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

async fn timed(estate: &Estate, what: &str, edits: &[&str]) {
    estate.edit(edits).await.unwrap();
    let begun = Instant::now();
    estate.models.diff("d").await.unwrap();
    let diffed = begun.elapsed();
    let begun = Instant::now();
    let made = estate.models.commit("d", "a test").await.unwrap();
    let committed = begun.elapsed();
    settle(estate).await;
    let all = begun.elapsed();
    println!(
        "{what:<24} looked at {:>6}, new manifests {:>6}: diff {diffed:>9.1?}, commit \
         {committed:>9.1?}, all signed after {all:>9.1?}",
        made.looked_at, made.devices
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: minutes"]
async fn measure_models() {
    for count in [1_000, 10_000, 100_000] {
        let estate = Estate::new().await;
        for name in ["a", "b"] {
            estate.publish(name).await;
            estate.publish(name).await;
        }
        populate(&estate, count).await;
        println!("{count} devices");
        let all = [&spec("a", 1)[..], "association/a/group/all"];
        timed(&estate, "one fileset for all", &all).await;
        let members: Vec<String> = (0..GROUP)
            .map(|number| format!("member/g/d{:06}", number * count / GROUP))
            .collect();
        let mut edits: Vec<&str> = members.iter().map(String::as_str).collect();
        let b = spec("b", 1);
        edits.extend(["group/g", "association/b/group/g", &b]);
        timed(&estate, "a group of 100", &edits).await;
        timed(&estate, "its next revision", &[&spec("b", 2)]).await;
        timed(&estate, "the next for all", &[&spec("a", 2)]).await;
        look(&estate, count).await;
        estate.stop().await;
    }
}

/// What the board costs a check-in that brings nothing.
async fn look(estate: &Estate, count: usize) {
    let begun = Instant::now();
    let rounds = 100_000;
    for round in 0..rounds {
        let id = format!("d{:06}", (round * 7) % count);
        let standing = estate.manifests.standing(&id.parse().unwrap()).await;
        assert!(standing.manifest.is_some());
    }
    let each = begun.elapsed() / rounds as u32;
    println!("what holds for a device: {each:?}");
}
