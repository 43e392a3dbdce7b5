//! Indexes that the disk has not kept as they were.

use super::*;

/// What may happen to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// One bit changes.
    Bit,
    /// It is lost.
    Gone,
    /// It loses its second half.
    Half,
    /// Something is written behind its end.
    Longer,
    /// The root beside it is lost.
    Rootless,
}

/// One of each kind.
const SOME: [Damage; 3] = [Damage::Bit, Damage::Gone, Damage::Rootless];

impl Damage {
    const ALL: [Self; 5] = [
        Self::Bit,
        Self::Gone,
        Self::Half,
        Self::Longer,
        Self::Rootless,
    ];

    fn befalls(self, index: &Path) {
        let mut bytes = fs::read(index).unwrap();
        match self {
            Self::Bit => bytes[100] ^= 1,
            Self::Gone => return fs::remove_file(index).unwrap(),
            Self::Half => bytes.truncate(bytes.len() / 2),
            Self::Longer => bytes.push(0),
            Self::Rootless => return fs::remove_file(index.with_extension("root")).unwrap(),
        }
        fs::write(index, bytes).unwrap();
    }
}

/// A bed in which a revision is installed whose index has many chunks.
async fn bed() -> (Bed, Stated, Arc<Served>, PathBuf) {
    let mut bed = Bed::new();
    for number in 0..200u32 {
        let name = format!("{number:0240}");
        write(&bed.source().join(name), &number.to_be_bytes());
    }
    write(&bed.source().join("big"), &noise(60_000, 1));
    let (stated, served) = bed.publish();
    bed.pull(&stated, &served).await;
    let index = index_of(&bed, &stated);
    (bed, stated, served, index)
}

/// Where the index of `stated` is kept.
fn index_of(bed: &Bed, stated: &Stated) -> PathBuf {
    let records = fs::read_dir(bed.folder.path().join("data/installed")).unwrap();
    let record = records.map(|entry| entry.unwrap().path()).next().unwrap();
    record.join(format!("{}.index", stated.root.hex()))
}

#[tokio::test]
async fn a_damaged_index_of_the_wanted_revision_is_mended_with_what_it_lacks() {
    for damage in Damage::ALL {
        let (bed, stated, served, index) = bed().await;
        let whole = fs::read(&index).unwrap();
        damage.befalls(&index);
        let (outcome, sent) = bed.pull(&stated, &served).await;
        assert!(outcome.unchanged, "{damage:?}");
        assert!(fs::read(&index).unwrap() == whole, "{damage:?}");
        assert!(sent < 150_000, "{damage:?}: {sent} bytes were fetched");
        // Mended for good.
        let (outcome, sent) = bed.pull(&stated, &served).await;
        assert!(outcome.unchanged && sent == 0, "{damage:?}");
    }
}

#[tokio::test]
async fn a_damaged_index_of_what_is_installed_is_mended_with_the_help_of_the_new_one() {
    let (mut bed, _, _, index) = bed().await;
    Damage::Bit.befalls(&index);
    write(&bed.source().join("zzz"), b"new");
    let (stated, served) = bed.publish();
    // What others put there can still be told from what we did.
    fs::write(bed.target().join("mine"), b"1").unwrap();
    let job = bed.job(&stated, vec![Memory::new("origin o1", &served, Vice::None)]);
    let error = job.run().await.unwrap_err().to_string();
    assert!(error.contains("mine"), "{error}");
    fs::remove_file(bed.target().join("mine")).unwrap();
    let (outcome, sent) = bed.pull(&stated, &served).await;
    assert_eq!(look(&bed.target()), look(&bed.source()));
    // Nothing that was installed is fetched again.
    assert!(outcome.reused > 60_000 && sent < 50_000, "{sent} bytes");
}

#[tokio::test]
async fn an_index_of_what_is_installed_that_is_past_mending_blocks_nothing() {
    for damage in SOME {
        let (mut bed, _, _, index) = bed().await;
        // Another first file, so that the damaged chunk is none of the new index.
        let first = bed.source().join(format!("{:0240}", 0));
        fs::rename(first, bed.source().join("0")).unwrap();
        damage.befalls(&index);
        let (stated, served) = bed.publish();
        let (outcome, _) = bed.pull(&stated, &served).await;
        assert_eq!(look(&bed.target()), look(&bed.source()), "{damage:?}");
        assert!(!outcome.unchanged, "{damage:?}");
        let (outcome, sent) = bed.pull(&stated, &served).await;
        assert!(outcome.unchanged && sent == 0, "{damage:?}");
    }
}

#[tokio::test]
async fn an_index_that_an_earlier_try_has_left_is_not_believed_unread() {
    for damage in SOME {
        let (mut bed, _, _, _) = bed().await;
        write(&bed.source().join("zzz"), &noise(20_000, 2));
        let (stated, served) = bed.publish();
        // No room: the index has been fetched by then.
        let mut job = bed.job(&stated, vec![Memory::new("origin o1", &served, Vice::None)]);
        job.room.bytes_max = Some(1000);
        job.run().await.unwrap_err();
        damage.befalls(&index_of(&bed, &stated));
        let (outcome, _) = bed.pull(&stated, &served).await;
        assert_eq!(look(&bed.target()), look(&bed.source()), "{damage:?}");
        assert!(outcome.reused > 60_000, "{damage:?}");
    }
}
