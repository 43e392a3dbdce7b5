//! The cache's files: killed, damaged, vanished, given up.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::Strategy as _;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;
use crate::testing::{pack, pack_of, until};

pub(super) fn path(folder: &TempDir, pack: &BuiltPack) -> PathBuf {
    let hex = pack.header.id().0.hex();
    folder.path().join("packs").join(&hex[..2]).join(hex)
}

pub(super) fn partial(folder: &TempDir, pack: &BuiltPack) -> PathBuf {
    folder.path().join("partial").join(pack.header.id().0.hex())
}

pub(super) fn damaged(bed: &Bed) -> u64 {
    let failures = &bed.metrics.verification_failures;
    failures.with_label_values(&["disk"]).get()
}

/// What lies in the folders really takes; the few files beside them say how it all stands.
pub(super) fn bytes_on_disk(folder: &TempDir) -> u64 {
    fn below(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).unwrap();
        let bytes = entries.map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                below(&entry.path())
            } else {
                taken(metadata.len())
            }
        });
        bytes.sum()
    }
    let parts = ["objects", "packs", "partial", "quarantine", "temporary"];
    parts
        .map(|part| below(&folder.path().join(part)))
        .iter()
        .sum()
}

#[tokio::test]
async fn a_fill_that_was_killed_is_taken_up_where_it_was() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    source.gate_at(start(&pack, 2) + 1);
    let bed = Bed::open(folder.path(), &[&source]).await;
    let mut reader = bed.served(&pack).await.unwrap().reader(0, start(&pack, 2));
    while soon(reader.next()).await.unwrap().is_some() {}
    bed.kill().await;
    assert_eq!(
        fs::metadata(partial(&folder, &pack)).unwrap().len(),
        start(&pack, 2)
    );

    source.gate_at(u64::MAX);
    let bed = Bed::open(folder.path(), &[&source]).await;
    assert_eq!(bed.get(&pack).await, filled(true, false));
    assert_eq!(source.asked_from(), [0, start(&pack, 2)]);
    assert_eq!(bed.metrics.resumed_bytes.get(), start(&pack, 2));
    bed.settled().await;
    assert_eq!(bytes_on_disk(&folder), room_for(&[&pack]));
}

/// cas.md 11 and 14: nothing of what a torn file holds behind its good part is ever used.
#[tokio::test]
async fn b14_only_the_good_part_of_a_torn_fill_is_taken_up() {
    let pack = pack(1);
    let total = pack.bytes.len();
    let (second, third) = (start(&pack, 1) as usize, start(&pack, 2) as usize);
    let mut zeros = pack.bytes.clone();
    zeros[second..].fill(0);
    let mut flipped = pack.bytes.clone();
    flipped[third + 5] ^= 1;
    let mut header = pack.bytes.clone();
    header[40] ^= 1;
    let longer = [&pack.bytes[..], &[0; 100_000]].concat();
    let cases: [(&[u8], u64); 7] = [
        (&[], 0),
        (&pack.bytes[..20], 0),
        (&pack.bytes[..third - 1], second as u64),
        (&zeros, second as u64),
        (&flipped, third as u64),
        (&header, 0),
        (&longer, total as u64),
    ];
    for (left, resumed) in cases {
        let folder = folder();
        let source = Fake::new("origin").with(&[&pack]);
        Bed::open(folder.path(), &[&source]).await.kill().await;
        fs::write(partial(&folder, &pack), left).unwrap();
        let bed = Bed::open(folder.path(), &[&source]).await;
        assert_eq!(bed.get(&pack).await, filled(true, false));
        bed.settled().await;
        let asked = if resumed == total as u64 {
            vec![]
        } else {
            vec![resumed]
        };
        assert_eq!(source.asked_from(), asked);
        assert_eq!(bytes_on_disk(&folder), room_for(&[&pack]));
        assert_eq!(bed.cache.stored_bytes(), room_for(&[&pack]));
    }
}

#[tokio::test]
async fn a_fill_that_was_broken_off_over_a_day_ago_is_dropped() {
    let (old, young, folder) = (pack(1), pack(2), folder());
    let source = Fake::new("origin").with(&[&old, &young]);
    Bed::open(folder.path(), &[&source]).await.kill().await;
    fs::write(partial(&folder, &old), &old.bytes[..50_000]).unwrap();
    fs::write(partial(&folder, &young), &young.bytes[..50_000]).unwrap();
    let yesterday = std::time::SystemTime::now() - Duration::from_secs(25 * 3600);
    let file = fs::File::options()
        .write(true)
        .open(partial(&folder, &old))
        .unwrap();
    file.set_modified(yesterday).unwrap();
    let bed = Bed::open(folder.path(), &[&source]).await;
    assert!(!partial(&folder, &old).exists());
    assert_eq!(bed.cache.stored_bytes(), taken(50_000));
    let now = service::Clock::system().now();
    bed.cache.tidy(now).await;
    assert_eq!(bed.cache.stored_bytes(), taken(50_000));
    bed.cache.tidy(now + 25 * 3600).await;
    assert_eq!((bed.cache.stored_bytes(), bytes_on_disk(&folder)), (0, 0));
}

#[tokio::test]
async fn after_a_kill_packs_are_checked_at_their_first_use_and_after_a_stop_they_are_not() {
    let (good, bad, folder) = (pack(1), pack(2), folder());
    let source = Fake::new("origin").with(&[&good, &bad]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    bed.get(&good).await;
    bed.get(&bad).await;
    bed.kill().await;
    let mut bytes = bad.bytes.clone();
    bytes[300_000] ^= 1;
    fs::write(path(&folder, &bad), bytes).unwrap();

    let bed = Bed::open(folder.path(), &[&source]).await;
    assert_eq!(bed.get(&good).await, How::Disk);
    assert_eq!(bed.get(&bad).await, filled(true, false));
    assert_eq!((damaged(&bed), source.asks().len()), (1, 3));
    bed.settled().await;
    bed.close().await;
    assert!(folder.path().join("clean").exists());

    // A clean stop vouches for what lies there: a test can tell by damaging it all the same.
    let bed = Bed::open(folder.path(), &[&source]).await;
    assert!(
        !folder.path().join("clean").exists(),
        "the marker must go before the first write"
    );
    let mut bytes = good.bytes.clone();
    bytes[300_000] ^= 1;
    fs::write(path(&folder, &good), bytes).unwrap();
    let served = bed.served(&good).await.unwrap();
    assert_eq!(served.how(), How::Disk);
    drop(served);
    // A client's complaint has it found out.
    assert!(bed.cache.doubt(good.header.id()));
    assert_eq!(bed.get(&good).await, filled(true, false));
    assert_eq!(damaged(&bed), 1);
}

/// A stop in good order vouches only for what this run has written or checked.
#[tokio::test]
async fn what_a_crash_left_is_not_vouched_for_by_a_stop_that_comes_before_its_first_use() {
    let (good, bad, folder) = (pack(1), pack(2), folder());
    let source = Fake::new("origin").with(&[&good, &bad]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    bed.get(&good).await;
    bed.get(&bad).await;
    bed.kill().await;
    let mut bytes = bad.bytes.clone();
    bytes[300_000] ^= 1;
    fs::write(path(&folder, &bad), bytes).unwrap();
    let bed = Bed::open(folder.path(), &[&source]).await;
    assert_eq!(bed.get(&good).await, How::Disk);
    bed.close().await;

    let bed = Bed::open(folder.path(), &[&source]).await;
    assert_eq!(bed.get(&good).await, How::Disk);
    assert_eq!(bed.get(&bad).await, filled(true, false));
    assert_eq!((damaged(&bed), source.asks().len()), (1, 3));
    // Now all is known to be good.
    bed.settled().await;
    bed.close().await;
    assert!(folder.path().join("clean").exists());
}

/// cas.md 7: the index is no promise.
#[tokio::test]
async fn b07_a_file_that_vanished_or_shrank_is_a_miss() {
    let (gone, short, folder) = (pack(1), pack(2), folder());
    let source = Fake::new("origin").with(&[&gone, &short]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    bed.get(&gone).await;
    bed.get(&short).await;
    bed.settled().await;
    fs::remove_file(path(&folder, &gone)).unwrap();
    fs::write(path(&folder, &short), &short.bytes[..5000]).unwrap();
    assert_eq!(bed.get(&gone).await, filled(true, false));
    assert_eq!(bed.get(&short).await, filled(true, false));
    assert_eq!(damaged(&bed), 1, "a vanished file is not damage");
    bed.settled().await;
    // What was left of the short one lies in quarantine.
    let total = room_for(&[&gone, &short]) + taken(5000);
    assert_eq!(bed.cache.stored_bytes(), total);
    assert_eq!(bytes_on_disk(&folder), total);
}

/// cas.md 8: what is read stays until it has been read.
#[tokio::test]
async fn b08_a_pack_in_use_is_never_given_up() {
    let (held, other, third, folder) = (pack(1), pack(2), pack(3), folder());
    let source = Fake::new("origin").with(&[&held, &other, &third]);
    let limits = Limits {
        disk_bytes_max: room_for(&[&held, &other]),
        ..limits()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    bed.get(&held).await;
    bed.settled().await;
    let reader = bed.served(&held).await.unwrap().reader(0, u64::MAX);
    bed.get(&other).await;
    bed.settled().await;
    bed.get(&third).await;
    bed.settled().await;
    assert!(path(&folder, &held).exists() && !path(&folder, &other).exists());
    assert!(soon(all(reader)).await.unwrap() == held.bytes);
    assert!(bytes_on_disk(&folder) <= limits.disk_bytes_max);
}

/// cas.md 5: no room, no file left behind, and everybody served.
#[tokio::test(start_paused = true)]
async fn b05_without_room_a_pack_is_streamed_through() {
    let (held, big, folder) = (pack(1), pack_of(2, 6), folder());
    let source = Fake::new("origin").with(&[&held, &big]);
    let limits = Limits {
        disk_bytes_max: room_for(&[&held]) + 1000,
        ..limits()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    assert_eq!(bed.get(&held).await, filled(true, false));
    let reading = bed.served(&held).await.unwrap();
    let (first, second) = tokio::join!(bed.get(&big), bed.get(&big));
    assert_eq!((first, second), (filled(false, false), filled(false, true)));
    assert_eq!(
        source.asks().len(),
        2,
        "streamed readers share the fill too"
    );
    drop(reading);
    bed.settled().await;
    // Larger than the whole cache: streamed again, and nothing was given up for it.
    assert_eq!(bed.get(&big).await, filled(false, false));
    assert_eq!(bed.get(&held).await, How::Disk);
    assert_eq!(bytes_on_disk(&folder), room_for(&[&held]));
    let fills = &bed.metrics.fills;
    assert_eq!(fills.with_label_values(&["streamed"]).get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_does_not_hold_a_streamed_pack_in_memory_for_ever() {
    let (big, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&big]);
    let limits = Limits {
        disk_bytes_max: 1000,
        ..limits()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    let mut slow = bed.served(&big).await.unwrap().reader(0, u64::MAX);
    bed.settled().await;
    let failed = soon(slow.next()).await.unwrap_err();
    let too_slow = matches!(
        failed,
        ReadError::Fill {
            source: FillError::TooSlow
        }
    );
    assert!(too_slow, "{failed}");
}

/// cas.md 4 and 6: the disk's refusals are seen at once, and lose nobody a byte.
#[tokio::test]
async fn b06_a_disk_that_refuses_to_be_written_to_is_no_outage() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    // Whoever runs this may be root, whom modes do not stop: a file in the folder's place does.
    fs::remove_dir(folder.path().join("partial")).unwrap();
    fs::write(folder.path().join("partial"), "").unwrap();
    assert_eq!(bed.get(&pack).await, filled(false, false));
    assert_eq!(bed.metrics.write_failures.get(), 1);
    assert_eq!(bed.cache.stored_bytes(), 0);
    assert!(bed.cache.trouble().await.is_some());
    assert_eq!(bed.metrics.disk_trouble.get(), 1);
    // It comes back by itself, whether anybody asks for a pack or not.
    fs::remove_file(folder.path().join("partial")).unwrap();
    fs::create_dir(folder.path().join("partial")).unwrap();
    until(async || bed.cache.trouble().await, Option::is_none).await;
    assert_eq!(bed.get(&pack).await, filled(true, false));
    assert_eq!(bed.metrics.disk_trouble.get(), 0);
}

#[tokio::test]
async fn a_cache_that_is_laid_out_in_another_way_is_refused_and_left_as_it_is() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    bed.get(&pack).await;
    bed.settled().await;
    bed.close().await;
    let layout = folder.path().join("layout");
    let ours = fs::read(&layout).unwrap();
    fs::write(&layout, "larder cache layout 2\n").unwrap();
    let open = || Store::open(folder.path(), 1 << 30, 0, 0, metrics());
    let refused = service::Report(&open().unwrap_err()).to_string();
    assert!(refused.contains("layout 2"), "{refused}");
    assert!(path(&folder, &pack).exists() && folder.path().join("clean").exists());
    fs::write(&layout, ours).unwrap();
    // What is not ours stays, too.
    let foreign = path(&folder, &pack).with_file_name("readme.txt");
    fs::write(&foreign, "mine").unwrap();
    let store = open().unwrap();
    assert!(foreign.exists() && store.contains(pack_key(pack.header.id())));
}

/// cas.md 20: a new version under a full cache is fetched once, whatever was hot before it.
#[tokio::test]
async fn b20_a_new_version_under_a_full_cache_is_fetched_once() {
    let old: Vec<BuiltPack> = (0..6).map(pack).collect();
    let new: Vec<BuiltPack> = (6..12).map(pack).collect();
    let folder = folder();
    let packs: Vec<&BuiltPack> = old.iter().chain(&new).collect();
    let source = Fake::new("origin").with(&packs);
    let limits = Limits {
        disk_bytes_max: room_for(&old.iter().collect::<Vec<_>>()),
        ..limits()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    for _ in 0..5 {
        for pack in &old {
            bed.get(pack).await;
        }
    }
    bed.settled().await;
    assert_eq!(source.asks().len(), 6);
    let named: Vec<PackId> = new.iter().map(|pack| pack.header.id()).collect();
    let standing = |id| {
        if named.contains(&id) {
            Standing::Current
        } else {
            Standing::Superseded
        }
    };
    bed.cache.rank(standing, |_| Standing::Current);
    for _ in 0..5 {
        for pack in &new {
            bed.get(pack).await;
            bed.settled().await;
            assert!(bytes_on_disk(&folder) <= limits.disk_bytes_max);
        }
    }
    assert_eq!(source.asks().len(), 12);
    assert_eq!(bed.cache.stored_bytes(), bytes_on_disk(&folder));
}

#[tokio::test]
async fn small_objects_share_the_limit_and_are_checked_when_read() {
    let folder = folder();
    let bytes = Bytes::from(vec![7; 1000]);
    let digest = Digest::of(&bytes);
    let limits = Limits {
        disk_bytes_max: 3 * taken(1),
        ..limits()
    };
    let bed = Bed::with(folder.path(), &[], limits).await;
    bed.cache.keep_object(digest, bytes.clone()).await;
    for other in 1..=2 {
        let other = Bytes::from(vec![other; 700]);
        bed.cache.keep_object(Digest::of(&other), other).await;
    }
    assert_eq!(bed.cache.stored_bytes(), 3 * taken(1));
    assert_eq!(bed.cache.object(digest, 999).await, None, "over its bound");
    assert_eq!(bed.cache.object(digest, 1000).await, Some(bytes.clone()));
    // The least recently used makes room.
    let last = Bytes::from(vec![3; 700]);
    bed.cache.keep_object(Digest::of(&last), last).await;
    assert_eq!(bed.cache.stored_bytes(), 3 * taken(1));
    assert_eq!(bytes_on_disk(&folder), 3 * taken(1));
    assert_eq!(bed.cache.object(Digest::of(&[1; 700]), 1000).await, None);
    let hex = digest.hex();
    let path = folder.path().join("objects").join(&hex[..2]).join(hex);
    fs::write(path, vec![8; 1000]).unwrap();
    assert_eq!(bed.cache.object(digest, 1000).await, None);
    assert_eq!(damaged(&bed), 1);
    assert_eq!(bytes_on_disk(&folder), bed.cache.stored_bytes());
}

/// Whatever is killed, damaged or doubted, and however little room there is: right bytes.
#[tokio::test]
async fn the_right_bytes_come_whatever_happens_to_the_files() {
    let packs: Vec<BuiltPack> = (0..5)
        .map(|seed| pack_of(seed, 1 + seed as usize % 3))
        .collect();
    let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
    let steps = proptest::collection::vec((0u8..10, 0usize..5, 0u32..300_000), 60);
    let mut runner = TestRunner::deterministic();
    for _ in 0..8 {
        let steps = steps.new_tree(&mut runner).unwrap().current();
        let folder = folder();
        let limits = Limits {
            disk_bytes_max: 700_000,
            ..limits()
        };
        let mut bed = Bed::with(folder.path(), &[&source], limits).await;
        for (step, at, byte) in steps {
            let pack = &packs[at];
            match step {
                0 => {
                    bed.settled().await;
                    bed.kill().await;
                    bed = Bed::with(folder.path(), &[&source], limits).await;
                }
                1 => {
                    let _was = bed.cache.doubt(pack.header.id());
                }
                2 => {
                    // Damage is found after a crash, so that is when it is done.
                    bed.settled().await;
                    bed.kill().await;
                    if let Ok(mut bytes) = fs::read(path(&folder, pack)) {
                        let byte = byte as usize % bytes.len();
                        bytes[byte] ^= 1;
                        fs::write(path(&folder, pack), bytes).unwrap();
                    }
                    bed = Bed::with(folder.path(), &[&source], limits).await;
                }
                _ => {
                    bed.get(pack).await;
                    bed.settled().await;
                    assert_eq!(bed.cache.stored_bytes(), bytes_on_disk(&folder));
                    assert!(bed.cache.stored_bytes() <= limits.disk_bytes_max);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_pack_that_is_read_again_is_not_opened_again_unless_it_is_doubted() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    bed.get(&pack).await;
    bed.settled().await;
    assert_eq!(bed.get(&pack).await, How::Disk);
    fs::remove_file(path(&folder, &pack)).unwrap();
    assert_eq!(bed.get(&pack).await, How::Disk);
    assert!(bed.cache.doubt(pack.header.id()));
    assert_eq!(bed.get(&pack).await, filled(true, false));
}

#[tokio::test]
async fn a_pack_that_is_given_up_is_not_kept_open() {
    let (old, new, folder) = (pack(1), pack(2), folder());
    let source = Fake::new("origin").with(&[&old, &new]);
    let limits = Limits {
        disk_bytes_max: room_for(&[&old]).max(room_for(&[&new])),
        ..limits()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    bed.get(&old).await;
    bed.settled().await;
    assert_eq!(bed.get(&old).await, How::Disk);
    let open = || {
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let links = links.filter_map(|link| fs::read_link(link.path()).ok());
        let ours = links.filter(|file| file.starts_with(folder.path().join("packs")));
        ours.count()
    };
    assert_eq!(open(), 1);
    bed.get(&new).await;
    bed.settled().await;
    assert!(!path(&folder, &old).exists());
    assert_eq!(open(), 0);
}
