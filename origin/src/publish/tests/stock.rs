//! Packs that are missing on disk, and come back.

use content::ChunkRun;
use content::pack::PackHeader;

use super::by_hand::{misname, pack_of};
use super::*;
use crate::stock::Stock;

impl Shop {
    async fn stock(&self) -> Stock {
        self.intake.take_stock().await.unwrap()
    }

    /// The files of all packs, by size: the content's before the index's.
    fn files(&self) -> Vec<PathBuf> {
        let packs = self.intake.catalogue.packs();
        let mut files: Vec<_> = packs.list().unwrap();
        files.sort_by_key(|id| packs.path(*id).metadata().unwrap().len());
        files.into_iter().rev().map(|id| packs.path(id)).collect()
    }
}

fn wanting(gone: u64, revisions: &[&str]) -> Stock {
    let wanting = revisions.iter().map(ToString::to_string).collect();
    Stock { gone, wanting }
}

#[tokio::test]
async fn a_pack_that_is_missing_is_asked_for_again_and_taken_in_again() {
    let shop = Shop::open().await;
    shop.put("a", &noise(200_000, 1));
    shop.publish().await;
    assert_eq!(shop.stock().await, Stock::default());
    for damage in [
        (|path: &Path| fs::remove_file(path).unwrap()) as fn(&Path),
        |path| fs::write(path, b"cut short").unwrap(),
    ] {
        shop.files().iter().for_each(|path| damage(path));
        assert_eq!(shop.stock().await, wanting(2, &["tools@1"]));
        // The very packs come again, so the revision is whole again.
        let again = shop.publish().await;
        assert_eq!((again.revision, again.unchanged), (1, true));
        assert_eq!(shop.stock().await, Stock::default());
    }
}

#[tokio::test]
async fn a_revision_that_lacks_a_pack_is_replaced_by_what_comes_instead() {
    let shop = Shop::open().await;
    shop.put("a", &noise(200_000, 1));
    shop.publish().await;
    shop.put("b", &noise(200_000, 2));
    shop.publish().await;
    // What two packs held comes in one now, so the old ones stay away.
    for path in shop.files() {
        fs::remove_file(path).unwrap();
    }
    let stock = shop.stock().await;
    assert_eq!(stock.wanting, ["tools@1", "tools@2"]);
    let again = shop.publish().await;
    assert_eq!((again.revision, again.unchanged), (3, false));
    shop.intake.retain(&name(), 1).await.unwrap();
    assert_eq!(shop.stock().await.wanting, [""; 0]);
}

#[tokio::test]
async fn a_pack_that_was_put_back_is_known_again() {
    let shop = Shop::open().await;
    shop.put("a", &noise(200_000, 1));
    shop.publish().await;
    let path = &shop.files()[0];
    let aside = shop.bed.folder.path().join("aside");
    fs::rename(path, &aside).unwrap();
    assert_eq!(shop.stock().await, wanting(1, &["tools@1"]));
    assert_eq!(shop.stock().await, wanting(1, &["tools@1"]));
    fs::rename(&aside, path).unwrap();
    assert_eq!(shop.stock().await, Stock::default());
    let again = shop.publish().await;
    assert_eq!((again.revision, again.unchanged), (1, true));
    assert_eq!(shop.files().len(), 2, "nothing was sent");
}

#[tokio::test]
async fn a_pack_that_went_bad_is_found_by_reading_and_asked_for_again() {
    let shop = Shop::open().await;
    shop.put("a", &noise(200_000, 1));
    shop.publish().await;
    assert_eq!(shop.intake.verify().await.unwrap(), Stock::default());
    let path = &shop.files()[0];
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
    assert_eq!(shop.stock().await, Stock::default(), "a brief look");
    let found = wanting(1, &["tools@1"]);
    assert_eq!(shop.intake.verify().await.unwrap(), found);
    // It is no better for being there.
    assert_eq!(shop.stock().await, found);
    let again = shop.publish().await;
    assert_eq!((again.revision, again.unchanged), (1, true));
    assert_eq!(shop.intake.verify().await.unwrap(), Stock::default());
}

#[tokio::test]
async fn a_pack_whose_header_lies_about_a_chunk_is_forgotten() {
    let shop = Shop::open().await;
    let mut run = ChunkRun::default();
    run.push(Chunk::name(b"bread"));
    let pack = misname(pack_of(&run));
    let length = PackHeader::length(&pack).unwrap().unwrap();
    let header = PackHeader::parse(&pack[..length]).unwrap();
    let lie = header.chunks()[0];
    let publish = shop.intake.begin(&name()).await.unwrap();
    // As one came in that was not looked at so closely.
    let stored = shop.intake.store(publish, header, pack.into());
    stored.await.unwrap();
    assert_eq!(shop.intake.have(publish, &[lie]).await.unwrap(), []);
    assert_eq!(shop.intake.verify().await.unwrap(), wanting(1, &[]));
    shop.intake.abandon(publish).await.unwrap();
    let publish = shop.intake.begin(&name()).await.unwrap();
    let missing = shop.intake.have(publish, &[lie]).await.unwrap();
    assert_eq!(missing, [lie.id]);
}
