//! What the disk does to files behind our back: found, put aside, fetched again, never served.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use service::{CancellationToken, Clock, Drained};

use super::disk::{bytes_on_disk, damaged, path};
use super::*;
use crate::cache::scrub::{Examined, ScrubStatus, Scrubber, Wanted};
use crate::testing::{pack_of, until};

const GRACE: Duration = Duration::from_secs(60);

/// A scrub that gets round in no time.
fn fast() -> Limits {
    Limits {
        scrub_bytes_per_second: u64::MAX,
        scrub_period: Duration::from_millis(200),
        ..limits()
    }
}

/// Names all of `packs`.
fn named(packs: &[BuiltPack]) -> Wanted {
    let entries: Vec<PackEntry> = packs.iter().map(entry).collect();
    Arc::new(move |id| {
        let found = entries.iter().find(|entry| entry.id == id);
        found.map(|entry| (fileset(), *entry))
    })
}

fn scrubber(bed: &Bed, folder: &TempDir, wanted: Wanted) -> Scrubber {
    let path = folder.path().join("scrub");
    Scrubber::open(bed.cache.clone(), path, Clock::system(), wanted)
}

fn quarantined(folder: &TempDir) -> Vec<PathBuf> {
    let found = fs::read_dir(folder.path().join("quarantine")).unwrap();
    found.map(|entry| entry.unwrap().path()).collect()
}

/// Changes one bit of a pack's file, whatever the cache thinks of it.
fn flip(folder: &TempDir, pack: &BuiltPack, byte: usize) -> Vec<u8> {
    let path = path(folder, pack);
    let mut bytes = fs::read(&path).unwrap();
    let at = byte % bytes.len();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    bytes
}

fn repairs(bed: &Bed, ended: &str) -> u64 {
    bed.metrics.repairs.with_label_values(&[ended]).get()
}

fn scrubbed(bed: &Bed, result: &str) -> u64 {
    bed.metrics.scrubbed.with_label_values(&[result]).get()
}

fn few(count: u64) -> Vec<BuiltPack> {
    (0..count).map(|seed| pack_of(seed, 1)).collect()
}

#[tokio::test]
async fn what_is_damaged_while_it_is_kept_is_found_in_a_round_and_fetched_again() {
    let (packs, folder) = (few(6), folder());
    let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
    let bed = Bed::with(folder.path(), &[&source], fast()).await;
    for pack in &packs {
        bed.get(pack).await;
    }
    bed.settled().await;
    let damaged = flip(&folder, &packs[2], 70_000);
    let scrubber = scrubber(&bed, &folder, named(&packs));
    let running = scrubber.clone();
    bed.tasks.start("scrub", |stop| running.run(stop));
    until(async || repairs(&bed, "fetched"), |count| *count == 1).await;
    assert_eq!(source.asks().len(), 7);
    let [aside] = &quarantined(&folder)[..] else {
        panic!("{:?}", quarantined(&folder));
    };
    assert!(aside.ends_with(packs[2].header.id().0.hex()));
    assert!(fs::read(aside).unwrap() == damaged);
    for pack in &packs {
        assert_eq!(bed.get(pack).await, How::Disk);
    }
    until(async || scrubber.status(), |it| it.finished.is_some()).await;
    let ScrubStatus {
        damaged, repaired, ..
    } = scrubber.status();
    assert_eq!((damaged, repaired), (1, 1));
    let stored = bed.cache.stored_bytes();
    bed.close().await;
    assert_eq!(stored, bytes_on_disk(&folder));
}

#[tokio::test]
async fn what_nobody_names_is_put_aside_and_left() {
    let (packs, folder) = (few(1), folder());
    let source = Fake::new("origin").with(&[&packs[0]]);
    let bed = Bed::with(folder.path(), &[&source], fast()).await;
    bed.get(&packs[0]).await;
    let object = Bytes::from(vec![7; 5000]);
    let digest = Digest::of(&object);
    bed.cache.keep_object(digest, object).await;
    bed.settled().await;
    flip(&folder, &packs[0], 7);
    let hex = digest.hex();
    let small = folder.path().join("objects").join(&hex[..2]).join(hex);
    fs::write(&small, [8; 5000]).unwrap();
    let scrubber = scrubber(&bed, &folder, Arc::new(|_| None));
    let stop = CancellationToken::new();
    let small = Key {
        kind: Kind::Object,
        digest,
    };
    for key in [pack_key(packs[0].header.id()), small] {
        let examined = soon(scrubber.examine(key, &stop)).await;
        assert!(matches!(examined, Examined::Damaged { .. }), "{examined:?}");
        let again = soon(scrubber.examine(key, &stop)).await;
        assert!(matches!(again, Examined::Absent), "{again:?}");
    }
    bed.settled().await;
    assert_eq!((repairs(&bed, "left"), repairs(&bed, "fetched")), (1, 0));
    assert_eq!(quarantined(&folder).len(), 2);
    assert_eq!(bed.cache.object(digest, 5000).await, None);
    assert_eq!(source.asks().len(), 1);
}

/// "Cannot be read for now" says nothing about a file.
#[tokio::test]
async fn what_cannot_be_read_for_now_stays() {
    let (packs, folder) = (few(1), folder());
    let source = Fake::new("origin").with(&[&packs[0]]);
    let bed = Bed::with(folder.path(), &[&source], fast()).await;
    bed.get(&packs[0]).await;
    bed.settled().await;
    let path = path(&folder, &packs[0]);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let scrubber = scrubber(&bed, &folder, named(&packs));
    let key = pack_key(packs[0].header.id());
    let examined = soon(scrubber.examine(key, &CancellationToken::new())).await;
    assert!(
        matches!(examined, Examined::Unreadable { .. }),
        "{examined:?}"
    );
    assert!(bed.cache.has_pack(packs[0].header.id()));
    assert_eq!(scrubbed(&bed, "unreadable"), 1);
    assert!(quarantined(&folder).is_empty());
}

#[tokio::test]
async fn a_round_goes_on_where_the_last_run_left_it() {
    let (mut packs, folder) = (few(8), folder());
    packs.sort_by_key(|pack| pack.header.id().0);
    let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
    let limits = Limits {
        scrub_period: Duration::from_secs(3600),
        ..fast()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    for pack in &packs {
        bed.get(pack).await;
    }
    bed.settled().await;
    let now = Clock::system().now();
    let after = packs[4].header.id().0.hex();
    let position = format!(
        r#"{{"version":1,"after":"{after}","began":{},"done":false,"finished":null}}"#,
        now - 3500
    );
    fs::write(folder.path().join("scrub"), position).unwrap();
    let scrubber = scrubber(&bed, &folder, named(&packs));
    let (running, stop) = (scrubber.clone(), CancellationToken::new());
    let stopping = stop.clone();
    let round = running.run(stop);
    let watch = async {
        until(async || scrubber.status(), |it| it.finished.is_some()).await;
        stopping.cancel();
    };
    soon(async { tokio::join!(round, watch) }).await;
    assert_eq!(scrubbed(&bed, "good"), 3, "the next round is a while away");
    let kept = fs::read_to_string(folder.path().join("scrub")).unwrap();
    assert!(!kept.contains("\"finished\":null"), "{kept}");
}

#[tokio::test]
async fn a_scrub_that_waits_ends_at_once() {
    let (packs, folder) = (few(3), folder());
    let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
    let limits = Limits {
        scrub_bytes_per_second: 1,
        ..fast()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    for pack in &packs {
        bed.get(pack).await;
    }
    bed.settled().await;
    let scrubber = scrubber(&bed, &folder, named(&packs));
    bed.tasks.start("scrub", |stop| scrubber.run(stop));
    until(async || scrubbed(&bed, "good"), |count| *count == 1).await;
    let metrics = bed.metrics.clone();
    assert_eq!(bed.tasks.drain(GRACE).await, Drained::InTime);
    let good = metrics.scrubbed.with_label_values(&["good"]).get();
    assert_eq!(good, 1, "the next was a day away");
}

#[tokio::test]
async fn quarantine_has_a_bound_and_makes_room_first() {
    let (packs, folder) = (few(20), folder());
    let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
    let bed = Bed::with(folder.path(), &[&source], fast()).await;
    for pack in &packs {
        bed.get(pack).await;
    }
    bed.settled().await;
    let scrubber = scrubber(&bed, &folder, Arc::new(|_| None));
    for pack in &packs {
        flip(&folder, pack, 99);
        let key = pack_key(pack.header.id());
        soon(scrubber.examine(key, &CancellationToken::new())).await;
    }
    assert_eq!(quarantined(&folder).len(), 16);
    assert!(
        !quarantined(&folder)
            .iter()
            .any(|path| path.ends_with(packs[3].header.id().0.hex()))
    );
    assert_eq!(bed.cache.stored_bytes(), bytes_on_disk(&folder));
    bed.settled().await;
    bed.kill().await;

    let limits = Limits {
        disk_bytes_max: room_for(&packs.iter().collect::<Vec<_>>()),
        ..fast()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    assert_eq!(quarantined(&folder).len(), 16);
    for pack in &packs {
        bed.get(pack).await;
    }
    bed.settled().await;
    assert!(quarantined(&folder).is_empty());
    for pack in &packs {
        assert_eq!(bed.get(pack).await, How::Disk);
    }
}

/// The client's complaint: at once if there are few, and soon if there are many.
#[tokio::test]
async fn every_complaint_has_a_damaged_pack_repaired() {
    let (packs, folder) = (few(24), folder());
    let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
    let limits = Limits {
        scrub_period: Duration::ZERO,
        ..fast()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    for pack in &packs {
        bed.get(pack).await;
    }
    bed.settled().await;
    for (at, pack) in packs.iter().enumerate() {
        flip(&folder, pack, at * 1000);
    }
    let doubted = packs.iter().filter(|it| bed.cache.doubt(it.header.id()));
    let later = packs.len() as u64 - doubted.count() as u64;
    assert!(later > 0, "not all are looked at at once");
    let scrubber = scrubber(&bed, &folder, named(&packs));
    bed.tasks.start("scrub", |stop| scrubber.run(stop));
    until(async || repairs(&bed, "fetched"), |count| *count == later).await;
    for pack in &packs {
        bed.get(pack).await;
    }
    assert_eq!(source.asks().len(), 48);
}

#[tokio::test]
async fn bits_flipped_after_a_kill_are_never_served() {
    let (packs, folder) = (few(100), folder());
    let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
    let bed = Bed::open(folder.path(), &[&source]).await;
    for pack in &packs {
        bed.get(pack).await;
    }
    bed.settled().await;
    bed.kill().await;
    for (at, byte) in [(3, 0), (29, 50_000), (57, usize::MAX)] {
        flip(&folder, &packs[at], byte);
    }
    let bed = Bed::open(folder.path(), &[&source]).await;
    for pack in &packs {
        // It holds the bytes to what they should be.
        bed.get(pack).await;
    }
    assert_eq!(source.asks().len(), 103);
    assert_eq!(damaged(&bed), 3);
}

#[tokio::test]
async fn a_pack_that_may_not_be_fetched_now_is_when_somebody_asks() {
    let (packs, folder) = (few(1), folder());
    let source = Fake::new("origin").with(&[&packs[0]]);
    let bed = Bed::with(folder.path(), &[&source], fast()).await;
    bed.get(&packs[0]).await;
    bed.settled().await;
    flip(&folder, &packs[0], 5);
    let allowed = Arc::new(AtomicBool::new(false));
    let (known, may) = (named(&packs), Arc::clone(&allowed));
    let wanted: Wanted = Arc::new(move |id| may.load(Ordering::Relaxed).then(|| known(id))?);
    let scrubber = scrubber(&bed, &folder, wanted);
    let key = pack_key(packs[0].header.id());
    soon(scrubber.examine(key, &CancellationToken::new())).await;
    bed.settled().await;
    assert_eq!((repairs(&bed, "left"), source.asks().len()), (1, 1));
    assert_eq!(bed.get(&packs[0]).await, filled(true, false));
}

#[tokio::test]
async fn a_pack_is_given_up_when_an_operator_says_so_unless_it_is_in_use() {
    let (packs, folder) = (few(1), folder());
    let source = Fake::new("origin").with(&[&packs[0]]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    let id = packs[0].header.id();
    assert_eq!(bed.cache.evict(id), Err(Kept::Absent));
    bed.get(&packs[0]).await;
    bed.settled().await;
    let held = bed.served(&packs[0]).await.unwrap();
    assert_eq!(bed.cache.evict(id), Err(Kept::InUse));
    drop(held);
    assert_eq!(bed.cache.evict(id), Ok(packs[0].bytes.len() as u64));
    assert_eq!((bed.cache.stored_bytes(), bytes_on_disk(&folder)), (0, 0));
    assert_eq!(bed.get(&packs[0]).await, filled(true, false));
}
