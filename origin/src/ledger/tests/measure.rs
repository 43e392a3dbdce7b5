//! What entering the chunks of a large publish costs. Run by hand, optimised:
//! `cargo test --release -p origin --lib -- --ignored --nocapture measure`.

use std::time::Instant;

use content::frame::{CHUNKS_PER_FRAME_MAX, PlainFrame};
use content::pack::{PACK_CHUNKS_MAX, PackBuilder, PackHeader};
use content::{Chunk, ChunkRun};

use super::*;

/// As many as there are small files in the largest tree that we promise to publish.
const CHUNKS: u64 = 1_000_000;

/// Chunks as they come: so many that they fill a pack, however small they are.
fn batch(first: u64) -> (ChunkRun, PackHeader) {
    let mut run = ChunkRun::default();
    for number in first..CHUNKS.min(first + PACK_CHUNKS_MAX as u64) {
        run.push(Chunk::name(&number.to_be_bytes()));
    }
    let mut builder = PackBuilder::default();
    let chunks: Vec<_> = run.iter().collect();
    for frame in chunks.chunks(CHUNKS_PER_FRAME_MAX) {
        let mut plain = PlainFrame::default();
        frame.iter().for_each(|chunk| plain.push(*chunk));
        builder.push(plain.pack(1).unwrap());
    }
    let header = builder.finish().unwrap().header;
    (run, header)
}

/// Tells what a step cost: wall clock, and processor time of all threads.
struct Cost {
    began: Instant,
    ticks: u64,
}

impl Cost {
    fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        // Fields 14 and 15 of proc(5), in hundredths of a second; the second one may hold spaces.
        let after_name = &stat[stat.rfind(')').unwrap()..];
        let fields = after_name.split(' ').skip(12).take(2);
        Self {
            began: Instant::now(),
            ticks: fields.map(|field| field.parse::<u64>().unwrap()).sum(),
        }
    }

    fn tell(self, what: &str) {
        let wall = self.began.elapsed().as_secs_f64();
        let cpu = (Self::now().ticks - self.ticks) as f64 / 100.0;
        eprintln!("{what:20} {wall:6.1} s, {cpu:6.1} CPU s");
    }
}

#[tokio::test]
#[ignore = "a measurement of a minute or two"]
async fn measure_a_million_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("larder.db"))
        .await
        .unwrap();
    let mut tx = ledger.write().await.unwrap();
    let fileset = "many".parse().unwrap();
    let publish = publishes::begin(&mut tx, &fileset, 0, 1).await.unwrap();
    let publish = publish.unwrap();
    commit(tx).await.unwrap();
    let firsts = || (0..CHUNKS).step_by(PACK_CHUNKS_MAX);

    let cost = Cost::now();
    firsts().for_each(|first| drop(batch(first)));
    cost.tell("(making them)");

    let cost = Cost::now();
    for first in firsts() {
        let (run, header) = batch(first);
        let mut tx = ledger.write().await.unwrap();
        let missing = publishes::add_chunks(&mut tx, publish, run.refs());
        assert_eq!(missing.await.unwrap().len(), run.refs().len());
        commit(tx).await.unwrap();
        let mut tx = ledger.write().await.unwrap();
        let pack = packs::insert(&mut tx, &header, 1).await.unwrap();
        publishes::lease(&mut tx, publish, pack).await.unwrap();
        commit(tx).await.unwrap();
    }
    cost.tell("new chunks");

    let cost = Cost::now();
    let mut after = None;
    loop {
        let mut tx = ledger.write().await.unwrap();
        after = publishes::place_chunks(&mut tx, publish, after, 65_536)
            .await
            .unwrap();
        commit(tx).await.unwrap();
        if after.is_none() {
            break;
        }
    }
    cost.tell("finding their packs");

    let cost = Cost::now();
    let mut db = ledger.read().await.unwrap();
    for first in firsts() {
        let ids: Vec<_> = batch(first).0.refs().iter().map(|chunk| chunk.id).collect();
        let places = publishes::places(&mut db, publish, &ids).await.unwrap();
        assert_eq!(places.len(), ids.len());
    }
    publishes::uses(&mut db, publish).await.unwrap();
    cost.tell("their places");

    let cost = Cost::now();
    let mut tx = ledger.write().await.unwrap();
    publishes::end(&mut tx, publish).await.unwrap();
    commit(tx).await.unwrap();
    cost.tell("end");

    let mut tx = ledger.write().await.unwrap();
    let again = publishes::begin(&mut tx, &fileset, 0, 1).await.unwrap();
    commit(tx).await.unwrap();
    let cost = Cost::now();
    for first in firsts() {
        let mut tx = ledger.write().await.unwrap();
        let (run, _) = batch(first);
        let missing = publishes::add_chunks(&mut tx, again.unwrap(), run.refs());
        assert!(missing.await.unwrap().is_empty());
        commit(tx).await.unwrap();
    }
    cost.tell("the same again");
}
