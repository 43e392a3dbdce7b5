//! Tests of the tables that their users don't reach by other ways.

use std::os::unix::fs::PermissionsExt as _;

use certs::{Key, Role};
use content::frame::PlainFrame;
use content::pack::PackBuilder;
use content::{Chunk, ChunkRun};

use super::devices::{Device, Stage, State};
use super::*;

mod measure;

async fn new() -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("larder.db"))
        .await
        .unwrap();
    (folder, ledger)
}

fn device(id: &str, state: State, seen_at: i64) -> Device {
    let key = Key::generate().unwrap();
    Device {
        id: id.parse().unwrap(),
        role: Role::Client,
        state,
        spki: key.spki_der().to_vec(),
        spki_sha256: key.spki_sha256(),
        group: Some("north".to_owned()),
        address: None,
        claims: None,
        with_token: false,
        token: None,
        requested_at: 1,
        decided_at: None,
        revoked_for: None,
        seen_at,
    }
}

#[tokio::test]
async fn a_ledger_is_nobody_elses_to_read() {
    let (folder, _ledger) = new().await;
    for file in ["larder.db", "larder.db-wal"] {
        let mode = std::fs::metadata(folder.path().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn devices_come_back_as_they_were_in_pages_by_name() {
    let (_folder, ledger) = new().await;
    let mut tx = ledger.write().await.unwrap();
    let all = [
        device("a", State::Pending, 1),
        device("b", State::Enrolled, 1),
        device("c", State::Pending, 9),
    ];
    for device in &all {
        devices::insert(&mut tx, device).await.unwrap();
    }
    let list = async |tx: &mut Write, stage, after, limit| {
        let listed = devices::list(tx, stage, after, limit, 50).await.unwrap();
        let ids = listed.into_iter().map(|(device, stage)| {
            assert!(all.contains(&device));
            format!("{} {stage}", device.id)
        });
        ids.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(list(&mut tx, None, "", 2).await, "a pending, b enrolled");
    assert_eq!(list(&mut tx, None, "b", 2).await, "c pending");
    let pending = Some(Stage::Stored(State::Pending));
    assert_eq!(list(&mut tx, pending, "", 9).await, "a pending, c pending");
    // Only what waits unheard of is forgotten.
    assert_eq!(devices::prune_pending(&mut tx, 5).await.unwrap(), 1);
    assert_eq!(list(&mut tx, None, "", 9).await, "b enrolled, c pending");
    // A name that is held is not taken over.
    assert!(
        devices::insert(&mut tx, &device("b", State::Pending, 1))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_no_trace() {
    let (_folder, ledger) = new().await;
    let mut tx = ledger.write().await.unwrap();
    assert_eq!(counters::next(&mut tx, "epoch").await.unwrap(), 1);
    drop(tx);
    let mut tx = ledger.write().await.unwrap();
    assert_eq!(counters::next(&mut tx, "epoch").await.unwrap(), 1);
    counters::raise(&mut tx, "epoch", 7).await.unwrap();
    counters::raise(&mut tx, "epoch", 3).await.unwrap();
    assert_eq!(counters::next(&mut tx, "epoch").await.unwrap(), 8);
    commit(tx).await.unwrap();
    let mut db = ledger.read().await.unwrap();
    assert_eq!(counters::all(&mut db).await.unwrap()["epoch"], 8);
}

#[tokio::test]
async fn readers_cannot_write() {
    let (_folder, ledger) = new().await;
    let mut db = ledger.read().await.unwrap();
    assert!(counters::next(&mut db, "epoch").await.is_err());
}

#[tokio::test]
async fn tokens_are_counted_down_and_forgotten() {
    let (_folder, ledger) = new().await;
    let token = tokens::Token {
        role: Role::Booster,
        auto_approve: true,
        group: None,
        device: None,
        uses: 2,
        uses_left: 2,
        created_at: 1,
        expires_at: 100,
    };
    let mut tx = ledger.write().await.unwrap();
    tokens::insert(&mut tx, &[1; 32], &token).await.unwrap();
    let name = "berlin".parse().unwrap();
    for (role, now, left) in [
        (Role::Client, 50, None),
        (Role::Booster, 100, None),
        (Role::Booster, 50, Some(1)),
        (Role::Booster, 50, Some(0)),
        (Role::Booster, 50, None),
    ] {
        let taken = tokens::take(&mut tx, &[1; 32], role, &name, now)
            .await
            .unwrap();
        assert_eq!(taken.map(|token| token.uses_left), left, "{role} at {now}");
    }
    // Used up, it is still there to be seen until its time is over.
    assert_eq!(tokens::prune(&mut tx, 50).await.unwrap(), 0);
    assert_eq!(tokens::prune(&mut tx, 100).await.unwrap(), 1);
}

#[tokio::test]
async fn chunks_are_placed_a_few_at_a_time_and_their_packs_are_leased() {
    let (_folder, ledger) = new().await;
    let mut tx = ledger.write().await.unwrap();
    let fileset = "tools".parse().unwrap();
    let publish = publishes::begin(&mut tx, &fileset, 0, 1).await.unwrap();
    let publish = publish.unwrap();
    let mut run = ChunkRun::default();
    (0..5_u8).for_each(|byte| run.push(Chunk::name(&[byte])));
    let missing = publishes::add_chunks(&mut tx, publish, run.refs()).await;
    assert_eq!(missing.unwrap().len(), 5);
    // All but the last come.
    let mut plain = PlainFrame::default();
    run.iter().take(4).for_each(|chunk| plain.push(chunk));
    let mut builder = PackBuilder::default();
    builder.push(plain.pack(3).unwrap());
    let header = builder.finish().unwrap().header;
    let pack = packs::insert(&mut tx, &header, 1).await.unwrap();
    let mut after = None;
    for is_last in [false, false, true] {
        let placed = publishes::place_chunks(&mut tx, publish, after, 2).await;
        after = placed.unwrap();
        assert_eq!(after.is_none(), is_last);
    }
    let ids: Vec<_> = run.refs().iter().map(|chunk| chunk.id).collect();
    let places = publishes::places(&mut tx, publish, &ids).await.unwrap();
    let found: Vec<_> = ids.iter().map(|id| places.get(id)).collect();
    assert!(found[..4].iter().all(|place| place.unwrap().pack == pack));
    assert_eq!(found[4], None);
    let removable = packs::unreferenced(&mut tx, 9, 9).await.unwrap();
    assert_eq!(removable, []);
    publishes::end(&mut tx, publish).await.unwrap();
    let removable = packs::unreferenced(&mut tx, 9, 9).await.unwrap();
    assert_eq!(removable[0].number, pack);
    // Whoever counts on a chunk that is there leases its pack at once.
    let again = publishes::begin(&mut tx, &fileset, 0, 1).await.unwrap();
    let missing = publishes::add_chunks(&mut tx, again.unwrap(), run.refs()).await;
    assert_eq!(missing.unwrap(), ids[4..]);
    let removable = packs::unreferenced(&mut tx, 9, 9).await.unwrap();
    assert_eq!(removable, []);
}
