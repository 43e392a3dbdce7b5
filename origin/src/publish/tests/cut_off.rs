//! What happens while the disk is slow: somebody gives up waiting, or something else changes.

use std::sync::mpsc;
use std::time::Duration;

use content::ChunkRun;
use content::pack::PackHeader;
use futures_util::poll;
use tokio::runtime;
use tokio::time::timeout;

use super::by_hand::pack_of;
use super::*;

/// Runs `test` where only one thread works at the disk, so that one can keep it busy.
fn with_one_blocking_thread(test: impl Future<Output = ()>) {
    let runtime = runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build();
    runtime.unwrap().block_on(test);
}

/// Keeps that thread busy until the sender is dropped.
fn slow_disk() -> mpsc::Sender<()> {
    let (slow, done) = mpsc::channel::<()>();
    let _working = tokio::task::spawn_blocking(move || done.recv().is_err());
    slow
}

impl Shop {
    fn files_are_free(&self) -> bool {
        self.intake.files.try_lock().is_ok()
    }

    async fn files_become_free(&self) {
        let freed = timeout(Duration::from_secs(10), self.intake.lock_files());
        drop(freed.await.unwrap());
    }
}

#[test]
fn a_publisher_who_gives_up_frees_no_files_that_are_being_written() {
    with_one_blocking_thread(async {
        let shop = Shop::open().await;
        let publish = shop.intake.begin(&name()).await.unwrap();
        let mut run = ChunkRun::default();
        run.push(Chunk::name(b"bread"));
        let pack = pack_of(&run);
        let length = PackHeader::length(&pack).unwrap().unwrap();
        let header = PackHeader::parse(&pack[..length]).unwrap();
        let disk = slow_disk();
        let mut store = Box::pin(shop.intake.store(publish, header, pack.into()));
        assert!(poll!(&mut store).is_pending());
        drop(store);
        assert!(!shop.files_are_free());
        drop(disk);
        shop.files_become_free().await;
        assert_eq!(shop.intake.catalogue.packs().list().unwrap().len(), 1);
    });
}

#[test]
fn an_operator_who_gives_up_frees_no_files_that_are_being_removed() {
    with_one_blocking_thread(async {
        let shop = Shop::open().await;
        shop.put("a", b"bread");
        shop.publish().await;
        shop.put("a", b"butter");
        shop.publish().await;
        shop.intake.retain(&name(), 1).await.unwrap();
        let disk = slow_disk();
        let mut collect = Box::pin(shop.intake.collect_older(0, false));
        assert!(poll!(&mut collect).is_pending());
        // Whoever writes next comes after the packs have left the ledger.
        let ledger = shop.bed.authority.ledger();
        tokio::select! {
            biased;
            ended = &mut collect => panic!("on a disk that does nothing: {ended:?}"),
            next = ledger.write() => drop(next.unwrap()),
        }
        drop(collect);
        assert!(!shop.files_are_free());
        drop(disk);
        shop.files_become_free().await;
        assert_eq!(shop.intake.catalogue.packs().list().unwrap().len(), 2);
    });
}

#[test]
fn a_timestamp_that_was_made_beside_a_change_does_not_hide_it() {
    with_one_blocking_thread(async {
        let shop = Shop::open().await;
        for turn in 1..=2_u8 {
            shop.put("a", &[turn]);
            shop.publish().await;
        }
        let catalogue = &shop.intake.catalogue;
        let (fileset, disk) = (name(), slow_disk());
        let mut asked = Box::pin(catalogue.timestamp());
        assert!(poll!(&mut asked).is_pending());
        // It has read what is current, and now waits for the disk.
        tokio::select! {
            biased;
            made = &mut asked => panic!("on a disk that does nothing: {made:?}"),
            changed = shop.intake.retain(&fileset, 1) => assert!(changed.unwrap()),
        }
        drop(disk);
        let beside = asked.await.unwrap();
        let next = catalogue.timestamp().await.unwrap();
        assert_ne!(next.digest, beside.digest);
        let again = catalogue.timestamp().await.unwrap();
        assert_eq!(again.digest, next.digest, "what holds is made once");
    });
}
