//! What the system refuses: too many open files, no room, a file that cannot be read.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::disk::{bytes_on_disk, damaged, partial, path};
use super::*;
use crate::testing::{Wrong, pack};

/// What the system refuses says nothing of the bytes: they are fetched, and what is there stays.
#[tokio::test]
async fn a_pack_that_cannot_be_read_for_now_stays() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    // There is no room for another beside it.
    let limits = Limits {
        disk_bytes_max: room_for(&[&pack]),
        ..limits()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    bed.get(&pack).await;
    bed.settled().await;
    let (path, away) = (path(&folder, &pack), folder.path().join("away"));
    fs::rename(&path, &away).unwrap();
    // Opening it fails even for root, removing it would not.
    symlink(&path, &path).unwrap();
    for _ in 0..2 {
        assert_eq!(bed.get(&pack).await, filled(false, false));
        bed.settled().await;
    }
    assert!(path.is_symlink());
    assert_eq!((damaged(&bed), bed.metrics.read_failures.get()), (0, 2));
    assert_eq!(bed.cache.stored_bytes(), room_for(&[&pack]));

    fs::rename(&away, &path).unwrap();
    assert_eq!(bed.get(&pack).await, How::Disk);
    assert_eq!(source.asks().len(), 3);
}

#[tokio::test]
async fn a_pack_that_cannot_be_read_is_replaced_if_the_disk_takes_another() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    let total = room_for(&[&pack]);
    let limits = Limits {
        disk_bytes_max: total * 2,
        ..limits()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    bed.get(&pack).await;
    bed.settled().await;
    fs::remove_file(path(&folder, &pack)).unwrap();
    symlink(path(&folder, &pack), path(&folder, &pack)).unwrap();
    assert_eq!(bed.get(&pack).await, filled(true, false));
    bed.settled().await;
    assert_eq!(bed.get(&pack).await, How::Disk);
    assert_eq!(
        (bed.cache.stored_bytes(), bytes_on_disk(&folder)),
        (total, total)
    );
    assert_eq!((damaged(&bed), source.asks().len()), (0, 2));
}

/// cas.md 15: whatever happens to packs, no descriptor is left behind.
#[tokio::test]
async fn b15_no_file_stays_open_that_nobody_needs() {
    let packs: Vec<BuiltPack> = (0..6).map(pack).collect();
    let folder = folder();
    let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
    let limits = Limits {
        disk_bytes_max: room_for(&[&packs[0], &packs[1]]),
        ..limits()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    let open = || {
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let links = links.filter_map(|link| fs::read_link(link.path()).ok());
        links.filter(|file| file.starts_with(folder.path())).count()
    };
    for round in 0..5 {
        for pack in &packs {
            // Fetched, given up, broken off, damaged, vanished, doubted.
            match round {
                1 => source.will([Wrong::CutAt(start(pack, 2) + 5)]),
                2 => drop(bed.served(pack).await),
                3 => drop(fs::write(path(&folder, pack), "short")),
                4 => drop(fs::remove_file(path(&folder, pack))),
                _ => {}
            }
            bed.get(pack).await;
            let _granted = bed.cache.doubt(pack.header.id());
            bed.get(pack).await;
            bed.settled().await;
        }
        let there = packs.iter().filter(|pack| path(&folder, pack).exists());
        // Those that are there may be kept open for the next reader.
        assert!(open() <= there.count(), "round {round}: {} open", open());
    }
}

/// Runs in a process of its own, since all of a process share the files that it may open.
#[tokio::test]
async fn too_many_open_files_cost_no_file() {
    if std::env::var_os(ALONE).is_none() {
        let name = "cache::tests::refused::too_many_open_files_cost_no_file";
        let alone = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(ALONE, "1")
            .status();
        assert!(alone.unwrap().success());
        return;
    }
    let (kept, begun, folder) = (pack(1), pack(2), folder());
    let source = Fake::new("origin").with(&[&kept, &begun]);
    Bed::open(folder.path(), &[&source]).await.kill().await;
    fs::write(partial(&folder, &begun), &begun.bytes[..50_000]).unwrap();
    let bed = Bed::open(folder.path(), &[&source]).await;
    bed.get(&kept).await;
    bed.settled().await;
    let bytes = Bytes::from(vec![7; 1000]);
    let digest = Digest::of(&bytes);
    bed.cache.keep_object(digest, bytes.clone()).await;
    let before = bytes_on_disk(&folder);

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(100);
    setrlimit(Resource::Nofile, limit).unwrap();
    let open = || fs::File::open("/dev/null");
    let files: Vec<fs::File> = std::iter::from_fn(|| open().ok()).collect();
    assert_eq!(bed.get(&kept).await, filled(false, false));
    assert_eq!(bed.get(&begun).await, filled(false, false));
    assert_eq!(bed.cache.object(digest, 1000).await, None);
    bed.settled().await;
    drop(files);

    assert_eq!(
        (bytes_on_disk(&folder), bed.cache.stored_bytes()),
        (before, before)
    );
    assert_eq!(bed.get(&kept).await, How::Disk);
    assert_eq!(bed.cache.object(digest, 1000).await, Some(bytes));
    assert_eq!((damaged(&bed), bed.metrics.read_failures.get()), (0, 2));
}

/// Says that a test has this process to itself.
const ALONE: &str = "LARDER_TEST_ALONE";
