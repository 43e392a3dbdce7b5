//! What is asked for again and again: it moves into memory, once.

use futures_util::future::join_all;

use super::*;
use crate::testing::pack;

/// A cache with a memory tier, which has the pack on disk alone.
async fn on_disk(folder: &TempDir, pack: &BuiltPack) -> Bed {
    let source = Fake::new("origin").with(&[pack]);
    let bed = Bed::with(folder.path(), &[&source], testing::limits()).await;
    assert_eq!(bed.get(pack).await, filled(true, false));
    bed.settled().await;
    bed.close().await;
    Bed::with(folder.path(), &[&source], testing::limits()).await
}

fn in_memory(served: &Served) -> Option<&Arc<Rope>> {
    match &served.origin {
        Origin::Memory(rope) => Some(rope),
        Origin::Disk(_) | Origin::Fill(_) => None,
    }
}

#[tokio::test]
async fn a_hot_pack_moves_into_memory() {
    let (pack, folder) = (pack(1), folder());
    let bed = on_disk(&folder, &pack).await;
    assert_eq!(bed.get(&pack).await, How::Disk);
    assert_eq!(bed.get(&pack).await, How::Disk);
    assert_eq!(bed.get(&pack).await, How::Memory);
    // A doubt takes it out again, but not twice within a second.
    assert!(bed.cache.doubt(pack.header.id()));
    assert_eq!(bed.get(&pack).await, How::Disk);
    assert!(!bed.cache.doubt(pack.header.id()));
}

#[tokio::test]
async fn many_who_make_a_pack_hot_have_it_read_into_memory_once() {
    let (pack, folder) = (pack(1), folder());
    let bed = on_disk(&folder, &pack).await;
    let served = join_all((0..50).map(|_| bed.served(&pack))).await;
    let served: Vec<Served> = served.into_iter().map(Result::unwrap).collect();
    let ropes: Vec<&Arc<Rope>> = served.iter().filter_map(in_memory).collect();
    let same = |pair: &[&Arc<Rope>]| Arc::ptr_eq(pair[0], pair[1]);
    assert!(!ropes.is_empty() && ropes.windows(2).all(same));
    for served in served {
        let got = soon(all(served.reader(0, u64::MAX))).await.unwrap();
        assert!(got == pack.bytes);
    }
}

#[tokio::test]
async fn who_wants_a_part_does_not_have_the_whole_read() {
    let (pack, folder) = (pack(1), folder());
    let bed = on_disk(&folder, &pack).await;
    for _ in 0..4 {
        let part = bed.want(&pack, Extent::Part).await.unwrap();
        assert!(part.how() == How::Disk && in_memory(&part).is_none());
        let got = soon(all(part.reader(10, 20))).await.unwrap();
        assert_eq!(got, pack.bytes[10..20]);
    }
    let whole = bed.served(&pack).await.unwrap();
    assert!(in_memory(&whole).is_some());
}

#[tokio::test]
async fn a_doubt_that_comes_while_a_pack_is_read_into_memory_counts() {
    let (pack, folder) = (pack(1), folder());
    let bed = on_disk(&folder, &pack).await;
    let (shared, key) = (&bed.cache.shared, pack_key(pack.header.id()));
    let stored = shared.store.lease(key).unwrap().open().unwrap();
    let promotion = shared.promotions.begin(key).unwrap();
    assert!(bed.cache.doubt(pack.header.id()));
    assert!(promotion.read(&stored).is_some());
    assert!(shared.memory.get(key).is_none());
}

#[tokio::test]
async fn many_who_want_a_small_object_have_it_read_once() {
    let folder = folder();
    let bytes = Bytes::from(vec![7; 1000]);
    let digest = Digest::of(&bytes);
    let bed = Bed::open(folder.path(), &[]).await;
    bed.cache.keep_object(digest, bytes.clone()).await;
    bed.close().await;
    // Without a memory tier, so that only those who ask at once share it.
    let bed = Bed::open(folder.path(), &[]).await;
    let objects = join_all((0..50).map(|_| bed.cache.object(digest, 1000)));
    let objects: Vec<Bytes> = soon(objects).await.into_iter().flatten().collect();
    assert_eq!(objects, vec![bytes; 50]);
    let at = objects[0].as_ptr();
    assert!(objects.iter().all(|object| object.as_ptr() == at));
}
