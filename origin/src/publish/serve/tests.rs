//! Calls whose caller goes away.

use std::time::Duration;

use futures_util::poll;
use tokio::time::timeout;

use super::*;
use crate::publish::tests::{Shop, name};
use crate::testing::DAY;

impl Shop {
    /// Makes a call, and hangs up as soon as it has begun; then waits for what goes on without it.
    async fn hang_up(&self, call: impl Future<Output = Result<Reply, Fault>>) {
        // As long as the ledger is busy no call comes to its end.
        let busy = self.bed.authority.ledger().write().await.unwrap();
        let mut call = Box::pin(call);
        assert!(poll!(&mut call).is_pending());
        drop((call, busy));
        let ended = async {
            while self.tasks.live() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), ended).await.unwrap();
    }
}

#[tokio::test]
async fn a_commit_comes_to_its_end_though_the_publisher_hangs_up() {
    let shop = Shop::open().await;
    let (publish, root) = shop.send_file(b"bread", 5).await;
    let (number, root) = (publish.to_string(), root.encode());
    shop.hang_up(settle(&shop.intake, &number, &root)).await;
    assert_eq!(shop.numbers().await, [1]);
}

#[tokio::test]
async fn retain_and_gc_come_to_their_end_though_the_operator_hangs_up() {
    let shop = Shop::open().await;
    for turn in 1..=2_u8 {
        shop.put("a", &[turn]);
        shop.publish().await;
    }
    let fileset = name().to_string();
    shop.hang_up(keep(&shop.intake, &fileset, br#"{"keep":1}"#))
        .await;
    assert_eq!(shop.numbers().await, [2]);
    shop.bed.pass(3 * DAY + 1);
    let due = shop.intake.collect(true).await.unwrap();
    assert!(due.packs > 0, "{due:?}");
    shop.hang_up(gc(&shop.intake, br#"{"dry_run":false}"#))
        .await;
    assert_eq!(shop.intake.collect(true).await.unwrap().packs, 0);
}

#[tokio::test]
async fn gc_reads_every_pack_if_it_is_asked_to() {
    let shop = Shop::open().await;
    shop.put("a", b"bread");
    shop.publish().await;
    let packs = shop.intake.catalogue.packs();
    for id in packs.list().unwrap() {
        let mut bytes = std::fs::read(packs.path(id)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(packs.path(id), bytes).unwrap();
    }
    for (call, bad) in [
        (&br#"{"dry_run":false}"#[..], 0),
        (br#"{"dry_run":true,"verify":true}"#, 0),
        (br#"{"dry_run":false,"verify":true}"#, 2),
    ] {
        let answer = gc(&shop.intake, call).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let collected: Collected = serde_json::from_slice(&body).unwrap();
        assert_eq!(collected.bad, bad);
    }
}
