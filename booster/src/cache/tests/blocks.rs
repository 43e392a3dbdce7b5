//! What is counted is what the disk gives: whole blocks.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::disk::{bytes_on_disk, partial, path};
use super::*;
use crate::testing::{pack_of, until};

/// What the file system says that the files below a folder take, once all of it has been written.
fn blocks(folder: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        bytes += if metadata.is_dir() {
            blocks(&entry.path())
        } else {
            File::open(entry.path()).unwrap().sync_all().unwrap();
            // Before it has been written, some file systems count what they will not need.
            fs::metadata(entry.path()).unwrap().blocks() * 512
        };
    }
    bytes
}

/// Whether this file system gives a file the blocks that its length needs, no more and no fewer:
/// one that compresses or keeps what is small beside its name does not.
fn is_plain(folder: &Path) -> bool {
    let probe = folder.join("probe");
    [1, 5000, 100_000].into_iter().all(|length| {
        fs::write(&probe, vec![7; length]).unwrap();
        File::open(&probe).unwrap().sync_all().unwrap();
        let given = fs::metadata(&probe).unwrap().blocks() * 512;
        fs::remove_file(&probe).unwrap();
        given == taken(length as u64)
    })
}

#[tokio::test]
async fn what_the_index_adds_up_is_what_the_files_take_to_the_block() {
    let packs: Vec<BuiltPack> = (0..12).map(|it| pack_of(it, 1 + it as usize % 3)).collect();
    let folder = folder();
    let plain = is_plain(folder.path());
    let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
    let limits = Limits {
        // So little that some are given up.
        disk_bytes_max: room_for(&packs[..6].iter().collect::<Vec<_>>()),
        ..limits()
    };
    let check = |bed: &Bed, when: &str| {
        let stored = bed.cache.stored_bytes();
        assert_eq!(stored, bytes_on_disk(&folder), "{when}");
        assert!(stored <= limits.disk_bytes_max, "{when}: {stored}");
        if plain {
            let parts = ["objects", "packs", "partial", "quarantine"];
            let given = parts.map(|part| blocks(&folder.path().join(part)));
            assert_eq!(stored, given.iter().sum::<u64>(), "{when}");
        }
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    for (at, pack) in packs.iter().enumerate() {
        bed.get(pack).await;
        let small = Bytes::from(vec![at as u8; 1 + at * 700]);
        bed.cache.keep_object(Digest::of(&small), small).await;
        bed.settled().await;
        check(&bed, "filling");
    }
    // One lies in quarantine, another is broken off.
    let last = packs.last().unwrap();
    let mut bytes = last.bytes.clone();
    bytes[9999] ^= 1;
    fs::write(path(&folder, last), bytes).unwrap();
    assert!(bed.cache.doubt(last.header.id()));
    assert_eq!(bed.get(last).await, filled(true, false));
    let broken = &packs[2];
    assert!(!bed.cache.is_stored(broken.header.id()));
    source.gate_at(start(broken, 1) + 5);
    let served = bed.served(broken).await.unwrap();
    let there = async || fs::metadata(partial(&folder, broken)).map_or(0, |it| it.len());
    until(there, |bytes| *bytes == start(broken, 1)).await;
    drop(served);
    bed.settled().await;
    check(&bed, "one broken off");
    bed.kill().await;
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    check(&bed, "after a crash");
}

#[tokio::test]
async fn what_must_stay_free_is_left_free_to_the_block_and_nothing_goes_in_vain() {
    let packs: Vec<BuiltPack> = (0..3).map(|it| pack_of(it, 2)).collect();
    let folder = folder();
    let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
    let limits = Limits {
        free_percent_min: 1,
        ..limits()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    let store = &bed.cache.shared.store;
    let free = |bytes| store.pretend_free(bytes);
    // As much as the first takes, and not a byte more: nothing has to go.
    free(room_for(&[&packs[0]]));
    assert_eq!(bed.get(&packs[0]).await, filled(true, false));
    bed.settled().await;
    // A block too little for the second: the first goes for it.
    free(room_for(&[&packs[1]]) - taken(1));
    assert_eq!(bed.get(&packs[1]).await, filled(true, false));
    bed.settled().await;
    assert!(!bed.cache.is_stored(packs[0].header.id()));
    // What cannot be kept in any case costs nobody his place, nor the room that there is.
    let in_use = bed.served(&packs[1]).await.unwrap();
    free(taken(1));
    assert_eq!(bed.get(&packs[2]).await, filled(false, false));
    assert!(bed.cache.is_stored(packs[1].header.id()));
    assert_eq!(store.pretended_free(), taken(1));
    // Operators are told for as long as that is so.
    let trouble = async || (bed.cache.trouble().await, bed.metrics.disk_trouble.get());
    let why = "less than 1 % of the disk would stay free".to_owned();
    assert_eq!(trouble().await, (Some(why), 1));
    assert_eq!(store.pretended_free(), taken(1));
    // Something can be given up for the next, however full the disk stays.
    drop(in_use);
    assert_eq!(bed.get(&packs[0]).await, filled(true, false));
    assert_eq!(trouble().await, (None, 0));
}
