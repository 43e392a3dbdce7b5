//! Commits in the middle of which something else happens.

use super::*;
use crate::publish::tests::{Shop, name};

impl Shop {
    /// Does all of a commit but signing.
    async fn lay_out(&self, publish: i64, root: &IndexRoot) -> Layout {
        self.intake.place(publish).await.unwrap();
        let index = self.intake.assemble(publish, root).await.unwrap();
        self.intake.lay_out(publish, root, &index).await.unwrap()
    }

    async fn sign(
        &self,
        publish: i64,
        root: &IndexRoot,
        layout: Layout,
    ) -> Result<Committed, CommitError> {
        let (fileset, root) = (name(), root.encode());
        self.intake.sign(publish, &fileset, &root, layout).await
    }
}

#[tokio::test]
async fn a_commit_of_many_minutes_is_not_taken_for_dead() {
    let shop = Shop::open().await;
    let (publish, root) = shop.send_file(b"bread", 5).await;
    shop.intake.collect_older(0, false).await.unwrap();
    shop.intake.place(publish).await.unwrap();
    let index = shop.intake.assemble(publish, &root).await.unwrap();
    for _ in 0..3 {
        // So long does each of its batches take.
        shop.bed.pass(100);
        shop.intake.places(publish, &root.chunks).await.unwrap();
        shop.intake.collect_older(0, false).await.unwrap();
    }
    let other = shop.intake.begin(&name()).await;
    assert!(matches!(other, Err(PublishError::Conflict { .. })));
    let layout = shop.intake.lay_out(publish, &root, &index).await.unwrap();
    let signed = shop.sign(publish, &root, layout);
    assert_eq!(signed.await.unwrap().revision, 1);
}

#[tokio::test]
async fn what_ended_while_it_was_committed_becomes_no_revision() {
    let shop = Shop::open().await;
    let (publish, root) = shop.send_file(b"bread", 5).await;
    let layout = shop.lay_out(publish, &root).await;
    shop.bed.pass(121);
    shop.intake.collect_older(0, false).await.unwrap();
    let signed = shop.sign(publish, &root, layout);
    let refused = signed.await.map_err(CommitError::told);
    assert!(
        matches!(refused, Err(PublishError::Gone { .. })),
        "{refused:?}"
    );
    assert_eq!(shop.numbers().await, [0; 0]);
}

#[tokio::test]
async fn a_pack_that_is_lost_while_it_is_needed_fails_the_commit() {
    let shop = Shop::open().await;
    let (publish, root) = shop.send_file(b"bread", 5).await;
    let layout = shop.lay_out(publish, &root).await;
    let packs = shop.intake.catalogue.packs();
    for id in packs.list().unwrap() {
        std::fs::remove_file(packs.path(id)).unwrap();
    }
    shop.intake.take_stock().await.unwrap();
    let signed = shop.sign(publish, &root, layout);
    let refused = signed.await;
    assert!(matches!(refused, Err(CommitError::PackLost)), "{refused:?}");
    assert_eq!(shop.numbers().await, [0; 0]);
}
