//! Fills between those who ask, and between them and the machine's memory.

use futures_util::future::join_all;

use super::*;
use crate::testing::{pack, pack_of};

/// A source that sends nothing yet, and a cache that runs one fill at a time.
async fn one_at_a_time(folder: &TempDir, packs: &[BuiltPack]) -> (Bed, Arc<Fake>) {
    let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
    source.gate_at(0);
    let limits = Limits {
        fills_max: 1,
        stall: Duration::from_secs(3600),
        ..limits()
    };
    (Bed::with(folder.path(), &[&source], limits).await, source)
}

#[tokio::test]
async fn one_who_asks_for_many_packs_does_not_hold_up_one_who_asks_for_one() {
    let folder = folder();
    let packs: Vec<BuiltPack> = (0..30).map(|seed| pack_of(seed, 1)).collect();
    let (bed, source) = one_at_a_time(&folder, &packs).await;
    let want = |at: usize, who: u8| {
        let (name, entry) = (fileset(), entry(&packs[at]));
        let cache = bed.cache.clone();
        async move {
            cache
                .pack(&name, entry, Extent::Whole, Asker::device(&who.to_string()))
                .await
        }
    };
    let mut greedy: Vec<_> = (0..29).map(|at| Box::pin(want(at, 1))).collect();
    for waiting in &mut greedy {
        assert!(futures_util::poll!(waiting).is_pending());
    }
    let mut modest = Box::pin(want(29, 2));
    assert!(futures_util::poll!(&mut modest).is_pending());
    source.gate_at(u64::MAX);
    let (got, all) = soon(async { tokio::join!(modest, join_all(greedy)) }).await;
    assert!(got.is_ok() && all.iter().all(Result::is_ok));
    let modest = packs[29].header.id();
    let place = source.asks().iter().position(|ask| ask.id == modest);
    assert!(place <= Some(2), "it came after {place:?} others");
}

#[tokio::test]
async fn what_more_devices_want_goes_earlier() {
    let folder = folder();
    let packs: Vec<BuiltPack> = (0..5).map(|seed| pack_of(seed, 1)).collect();
    let (bed, source) = one_at_a_time(&folder, &packs).await;
    let mut waiting = Vec::new();
    for (at, who) in [(0, 0), (1, 1), (2, 1), (3, 1), (3, 2), (3, 3), (4, 1)] {
        let (name, entry) = (fileset(), entry(&packs[at]));
        let cache = bed.cache.clone();
        let mut want = Box::pin(async move {
            cache
                .pack(&name, entry, Extent::Whole, Asker::device(&who.to_string()))
                .await
        });
        assert!(futures_util::poll!(&mut want).is_pending());
        waiting.push(want);
    }
    source.gate_at(u64::MAX);
    assert!(soon(join_all(waiting)).await.iter().all(Result::is_ok));
    let ids: Vec<PackId> = source.asks().iter().map(|ask| ask.id).collect();
    let expected = [0, 3, 1, 2, 4].map(|at: usize| packs[at].header.id());
    assert_eq!(ids, expected);
}

/// cas.md 3: who is slow reads from the file, and no more than the last frames stay in memory.
#[tokio::test]
async fn b03_a_fill_that_is_stored_holds_little_for_those_who_are_slow() {
    // Some 4 MB in frames of 100,000 bytes.
    let (pack, folder) = (pack_of(1, 40), folder());
    let source = Fake::new("origin").with(&[&pack]);
    source.gate_at(start(&pack, 39));
    let bed = Bed::open(folder.path(), &[&source]).await;
    let slow = bed.served(&pack).await.unwrap().reader(0, u64::MAX);
    let mut quick = bed.served(&pack).await.unwrap().reader(0, start(&pack, 39));
    while soon(quick.next()).await.unwrap().is_some() {}
    let fill = Arc::clone(&bed.cache.shared.flights()[&pack.header.id()]);
    let held = fill.held_bytes();
    assert!(held < 1_200_000, "{held} bytes are held");
    source.gate_at(u64::MAX);
    assert!(soon(all(slow)).await.unwrap() == pack.bytes);
    bed.settled().await;
    assert_eq!(bed.metrics.fill_bytes.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn memory_is_given_back_however_a_fill_ends() {
    let (packs, folder) = ([pack(1), pack(2), pack(3)], folder());
    let source = Fake::new("origin").with(&[&packs[0], &packs[1]]);
    // Too small for any pack: all is streamed through.
    let limits = Limits {
        disk_bytes_max: 1000,
        ..limits()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    let slow = bed.served(&packs[0]).await.unwrap().reader(0, u64::MAX);
    assert_eq!(bed.get(&packs[1]).await, filled(false, false));
    assert!(bed.served(&packs[2]).await.is_err(), "nobody has it");
    assert!(bed.metrics.fill_bytes.get() >= packs[0].bytes.len() as i64);
    assert!(soon(all(slow)).await.unwrap() == packs[0].bytes);
    bed.settled().await;
    assert_eq!(bed.metrics.fill_bytes.get(), 0);
    assert_eq!(bed.metrics.fills_waiting.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn how_long_a_turn_may_be_waited_for_counts_from_when_somebody_asked() {
    let folder = folder();
    let packs: Vec<BuiltPack> = (0..2).map(|seed| pack_of(seed, 1)).collect();
    let (bed, _source) = one_at_a_time(&folder, &packs).await;
    let want = |at: usize, asker: Asker| {
        let (name, entry, cache) = (fileset(), entry(&packs[at]), bed.cache.clone());
        async move { cache.pack(&name, entry, Extent::Whole, asker).await }
    };
    let mut first = Box::pin(want(0, Asker::device("laptop-1")));
    assert!(futures_util::poll!(&mut first).is_pending());
    let most = bed.cache.shared.limits.turn_wait * 2 / 3;
    let mut ahead = Box::pin(want(1, Asker::NOBODY));
    assert!(tokio::time::timeout(most, &mut ahead).await.is_err());
    let mut asked = Box::pin(want(1, Asker::device("laptop-2")));
    assert!(tokio::time::timeout(most, &mut asked).await.is_err());
    let refused = soon(asked).await.unwrap_err();
    assert!(matches!(refused, FillError::Busy), "{refused}");
    // What nobody has asked for is not refused: it may come another time.
    drop(ahead);
    let put_off = soon(want(1, Asker::NOBODY)).await.unwrap_err();
    assert!(matches!(put_off, FillError::PutOff), "{put_off}");
    assert!(futures_util::poll!(&mut first).is_pending());
}
