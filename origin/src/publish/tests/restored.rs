//! What publishing gives after the ledger came back from a backup.

use std::time::Duration;

use content::RevisionNumber;

use super::*;
use crate::LEDGER_FILE;
use crate::restore::restore;

impl Shop {
    /// The same origin with the ledger of `backup`, and its folder to publish.
    async fn restored(self, backup: &Path) -> Self {
        let Self {
            mut bed,
            server,
            tree,
            ..
        } = self;
        let _drained = server.drain(Duration::from_secs(10)).await;
        bed.authority.ledger().close().await;
        let now = bed.authority.clock().now();
        restore(bed.folder.path(), backup, None, now).await.unwrap();
        bed.authority = bed.reopen().await.unwrap();
        Self::at(bed, tree).await
    }

    /// A copy of the ledger as it is.
    fn back_up(&self) -> PathBuf {
        let from = self.bed.folder.path().join(LEDGER_FILE);
        let to = self.bed.folder.path().join("backup.db");
        for suffix in ["", "-wal"] {
            let file = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
            fs::copy(file(&from), file(&to)).unwrap();
        }
        to
    }
}

#[tokio::test]
async fn a_restored_origin_gives_no_revision_number_twice_and_keeps_what_it_has() {
    let shop = Shop::open().await;
    shop.put("a", b"1");
    shop.publish().await;
    shop.put("a", b"2");
    shop.publish().await;
    let backup = shop.back_up();
    shop.put("a", b"lost");
    assert_eq!(shop.publish().await.revision, 3);
    shop.intake.catalogue.timestamp().await.unwrap();
    let published = shop.bed.authority.published();
    assert_eq!(published.marks()["fileset:tools"], 3);
    // And one that the backup knows nothing of.
    published.raise("fileset:maps", 9).await.unwrap();

    let shop = shop.restored(&backup).await;
    assert_eq!(shop.numbers().await, [1, 2]);
    shop.intake.catalogue.timestamp().await.unwrap();
    shop.put("a", b"3");
    let next = shop.publish().await.revision;
    assert!(next > 3 + (1 << 20), "{next}");
    assert_eq!(shop.numbers().await, [1, 2, next], "five are kept");
    let mut tx = shop.bed.authority.ledger().write().await.unwrap();
    let maps = "maps".parse().unwrap();
    let first = filesets::next_number(&mut tx, &maps, 5, 0).await.unwrap();
    assert!(first > RevisionNumber(9 + (1 << 20)), "{first}");
}

#[tokio::test]
async fn as_many_revisions_are_kept_as_were_asked_for_whatever_their_numbers() {
    let shop = Shop::open().await;
    for turn in 1..=3_u8 {
        shop.put("a", &[turn]);
        shop.publish().await;
    }
    let mut tx = shop.bed.authority.ledger().write().await.unwrap();
    filesets::raise(&mut tx, &name(), 50, 1, 0).await.unwrap();
    crate::ledger::commit(tx).await.unwrap();
    shop.put("a", b"after a gap");
    assert_eq!(shop.publish().await.revision, 51);
    shop.intake.retain(&name(), 3).await.unwrap();
    assert_eq!(shop.numbers().await, [2, 3, 51]);
    shop.intake.retain(&name(), 1).await.unwrap();
    assert_eq!(shop.numbers().await, [51]);
}
