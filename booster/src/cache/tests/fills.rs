//! Fills: shared, resumed, checked, given up.

use super::*;
use crate::testing::{Wrong, pack, pack_of, until};

/// cas.md 21: many clients, one cold pack, one request upstream, and bytes before its end.
#[tokio::test]
async fn b21_a_hundred_readers_of_a_cold_pack_make_one_request_and_hold_bytes_before_its_end() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    source.gate_at(start(&pack, 1));
    let bed = Bed::open(folder.path(), &[&source]).await;
    let mut readers = Vec::new();
    for _ in 0..100 {
        readers.push(bed.served(&pack).await.unwrap().reader(0, u64::MAX));
    }
    let mut firsts = Vec::new();
    for reader in &mut readers {
        let mut got = 0;
        while got < start(&pack, 1) {
            got += soon(reader.next()).await.unwrap().unwrap().len() as u64;
        }
        firsts.push(got);
    }
    assert_eq!(firsts, [start(&pack, 1); 100]);
    source.gate_at(u64::MAX);
    for reader in readers {
        let rest = soon(all(reader)).await.unwrap();
        assert!(rest == pack.bytes[start(&pack, 1) as usize..]);
    }
    assert_eq!(source.asked_from(), [0]);
    assert_eq!(bed.metrics.coalesced.get(), 99);
    bed.settled().await;
    assert_eq!(bed.get(&pack).await, How::Disk);
}

/// cas.md 4: who falls behind finds all that he has not taken, in order, kept or not.
#[tokio::test]
async fn b04_a_reader_who_falls_far_behind_loses_no_byte() {
    let (pack, folder) = (pack_of(1, 16), folder());
    let total = pack.bytes.len() as u64;
    for (disk_bytes_max, stored) in [(u64::MAX, true), (1000, false)] {
        let source = Fake::new("origin").with(&[&pack]);
        let limits = Limits {
            disk_bytes_max,
            ..limits()
        };
        let bed = Bed::with(&folder.path().join(stored.to_string()), &[&source], limits).await;
        let mut readers = Vec::new();
        let mut taken = Vec::new();
        for _ in 0..3 {
            let served = bed.served(&pack).await.unwrap();
            let mut reader = served.reader(0, u64::MAX);
            taken.push(soon(reader.next()).await.unwrap().unwrap().to_vec());
            readers.push(reader);
        }
        // All of it comes while they take nothing.
        let received = async || bed.metrics.upstream_bytes.get();
        until(received, |bytes| *bytes == total).await;
        for (reader, mut got) in readers.into_iter().zip(taken) {
            assert!((got.len() as u64) < total / 2, "they are not behind");
            got.extend(soon(all(reader)).await.unwrap());
            assert!(got == pack.bytes);
        }
        assert_eq!(source.asked_from(), [0]);
        let how = ["streamed", "stored"][usize::from(stored)];
        assert_eq!(bed.metrics.fills.with_label_values(&[how]).get(), 1);
        bed.kill().await;
    }
}

/// cas.md 3: the first reader neither holds the others up nor takes the fill with it.
#[tokio::test]
async fn b03_a_slow_or_vanished_first_reader_does_not_hold_the_fill_up() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    source.gate_at(start(&pack, 1));
    let bed = Bed::open(folder.path(), &[&source]).await;
    let _slow = bed.served(&pack).await.unwrap().reader(0, u64::MAX);
    let vanishing = bed.served(&pack).await.unwrap();
    drop(vanishing);
    let other = bed.served(&pack).await.unwrap().reader(0, u64::MAX);
    source.gate_at(u64::MAX);
    assert!(soon(all(other)).await.unwrap() == pack.bytes);
    assert_eq!(source.asked_from(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_fill_that_is_cut_goes_on_at_the_last_good_frame() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    let in_frame = |frame| start(&pack, frame) + 50;
    source.will([Wrong::CutAt(in_frame(1)), Wrong::CutAt(in_frame(3))]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    assert_eq!(bed.get(&pack).await, filled(true, false));
    assert_eq!(source.asked_from(), [0, start(&pack, 1), start(&pack, 3)]);
    let received = pack.bytes.len() as u64 + 50 + 50;
    assert_eq!(bed.metrics.upstream_bytes.get(), received);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_ignores_ranges_is_put_up_with() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    source.will([Wrong::CutAt(start(&pack, 2)), Wrong::IgnoreRange]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    assert_eq!(bed.get(&pack).await, filled(true, false));
    assert_eq!(source.asked_from(), [0, start(&pack, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_makes_its_source_bad_and_the_next_one_is_asked() {
    let (first, second, folder) = (pack(1), pack(2), folder());
    let packs = [&first, &second];
    let liar = Fake::new("parent").with(&packs);
    let source = Fake::new("origin").with(&packs);
    liar.will([Wrong::Flip(start(&first, 2) + 7)]);
    let bed = Bed::open(folder.path(), &[&liar, &source]).await;
    assert_eq!(bed.get(&first).await, filled(true, false));
    assert_eq!(source.asked_from(), [start(&first, 2)]);
    assert!(source.asks()[0].no_cache, "caches in between were not told");
    let failures = &bed.metrics.verification_failures;
    assert_eq!(failures.with_label_values(&["upstream"]).get(), 1);
    // For a while it is asked last, and then no longer.
    bed.get(&second).await;
    assert_eq!((liar.asks().len(), source.asks().len()), (1, 2));
    tokio::time::advance(Duration::from_secs(61)).await;
    let third = pack_after(&liar, 3);
    bed.get(&third).await;
    assert_eq!((liar.asks().len(), source.asks().len()), (2, 2));
}

fn pack_after(source: &Arc<Fake>, seed: u64) -> BuiltPack {
    let pack = pack(seed);
    let _with = Arc::clone(source).with(&[&pack]);
    pack
}

#[tokio::test(start_paused = true)]
async fn a_header_of_another_pack_is_refused_before_anybody_sees_it() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    source.will([Wrong::Flip(30), Wrong::Flip(30), Wrong::Flip(30)]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    let failed = bed.served(&pack).await.unwrap_err();
    assert!(matches!(failed, FillError::Unverified { .. }), "{failed}");
    assert_eq!(bed.get(&pack).await, filled(true, false));
}

/// cas.md 1: the end of a fill's task is never taken for the end of the pack.
#[tokio::test]
async fn b01_readers_of_a_fill_that_is_cut_off_get_an_error() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    source.gate_at(start(&pack, 2));
    let bed = Bed::open(folder.path(), &[&source]).await;
    let mut reader = bed.served(&pack).await.unwrap().reader(0, u64::MAX);
    soon(reader.next()).await.unwrap();
    let Bed { cache, tasks, .. } = bed;
    drop(tasks);
    let broken = soon(all(reader)).await.unwrap_err();
    assert!(matches!(broken, ReadError::Fill { .. }), "{broken}");
    // Nor can a new fill be started once the owner of the tasks has gone.
    let refused = soon(cache.pack(&fileset(), entry(&pack), Extent::Whole, Asker::NOBODY))
        .await
        .unwrap_err();
    assert!(matches!(refused, FillError::Aborted), "{refused}");
}

/// cas.md 2: an answer that ends early without an error is not the pack.
#[tokio::test(start_paused = true)]
async fn b02_a_source_that_has_only_half_of_the_pack_does_not_pass_for_all_of_it() {
    let (whole, folder) = (pack(1), folder());
    let mut half = whole.clone();
    half.bytes.truncate(start(&whole, 2) as usize);
    let source = Fake::new("origin").with(&[&half]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    let reader = bed.served(&whole).await.unwrap().reader(0, u64::MAX);
    let broken = soon(all(reader)).await.unwrap_err();
    assert!(matches!(broken, ReadError::Fill { .. }), "{broken}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_says_nothing_is_left_for_the_next() {
    let (pack, folder) = (pack(1), folder());
    let silent = Fake::new("parent").with(&[&pack]);
    silent.will([Wrong::Silent]);
    let source = Fake::new("origin").with(&[&pack]);
    let bed = Bed::open(folder.path(), &[&silent, &source]).await;
    assert_eq!(bed.get(&pack).await, filled(true, false));
    assert_eq!((silent.asks().len(), source.asks().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_pack_that_no_source_has_is_given_up_soon() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin");
    let bed = Bed::open(folder.path(), &[&source]).await;
    let failed = bed.served(&pack).await.unwrap_err();
    assert!(matches!(failed, FillError::Upstream { .. }), "{failed}");
    assert_eq!(source.asks().len(), 3);
}

#[tokio::test]
async fn a_fill_that_nobody_wants_is_cancelled_early_and_finished_late() {
    let (early, late, folder) = (pack(1), pack(2), folder());
    let source = Fake::new("origin").with(&[&early, &late]);
    let bed = Bed::open(folder.path(), &[&source]).await;

    source.gate_at(start(&early, 1));
    drop(bed.served(&early).await.unwrap());
    bed.settled().await;
    let fills = |ended| bed.metrics.fills.with_label_values(&[ended]).get();
    assert_eq!((fills("cancelled"), fills("stored")), (1, 0));

    source.gate_at(start(&late, 3));
    let mut reader = bed.served(&late).await.unwrap().reader(0, u64::MAX);
    while reader.left() > u64::from(late.header.total_bytes()) - start(&late, 3) {
        soon(reader.next()).await.unwrap();
    }
    drop(reader);
    source.gate_at(u64::MAX);
    bed.settled().await;
    assert_eq!((fills("cancelled"), fills("stored")), (1, 1));
    assert_eq!(bed.get(&late).await, How::Disk);

    // What the cancelled one had is not fetched again.
    assert_eq!(bed.get(&early).await, filled(true, false));
    assert_eq!(source.asks()[2].from, start(&early, 1));
}

#[tokio::test(start_paused = true)]
async fn no_more_fills_run_than_are_allowed() {
    let (first, second, folder) = (pack(1), pack(2), folder());
    let source = Fake::new("origin").with(&[&first, &second]);
    source.gate_at(start(&first, 1));
    let limits = Limits {
        fills_max: 1,
        stall: Duration::from_secs(3600),
        ..limits()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    let _filling = bed.served(&first).await.unwrap();
    let refused = bed.served(&second).await.unwrap_err();
    assert!(matches!(refused, FillError::Busy), "{refused}");
    assert_eq!(source.asks().len(), 1);
}

/// cas.md 9: parts that overlap come from one fill, and from what it left.
#[tokio::test]
async fn b09_overlapping_ranges_make_one_fill() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    let parts = [
        (0, 10),
        (5, 120_000),
        (100_000, 300_000),
        (399_999, u64::MAX),
    ];
    let mut readers = Vec::new();
    for (from, end) in parts {
        readers.push(bed.served(&pack).await.unwrap().reader(from, end));
    }
    for _ in 0..2 {
        for ((from, end), reader) in parts.into_iter().zip(readers) {
            let end = end.min(pack.bytes.len() as u64);
            let got = soon(all(reader)).await.unwrap();
            assert!(got == pack.bytes[from as usize..end as usize]);
        }
        bed.settled().await;
        readers = Vec::new();
        for (from, end) in parts {
            let served = bed.served(&pack).await.unwrap();
            assert_eq!(served.how(), How::Disk);
            readers.push(served.reader(from, end));
        }
    }
    assert_eq!(source.asked_from(), [0]);
}
