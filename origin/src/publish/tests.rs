//! Folders become revisions that hold just what the folders held, whatever comes in between.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::index::{CasePolicy, IndexReader, IndexRoot, Kind, Record};
use content::locator::Locator;
use content::pack::{PackDir, PackFile};
use content::statement::Statement;
use content::{Chunk, Digest, FilesetName};
use service::Tasks;
use service::unix::UnixServer;
use tempfile::TempDir;
use transport::ContentJudge;

use super::commit::CommitError;
use super::intake::{Intake, PublishError};
use super::messages::Committed;
use super::send::{self, PublishFailure, Quiet, Request};
use crate::admin::{AdminContent as _, BODY_BYTES_MAX};
use crate::catalogue::Catalogue;
use crate::documents::{Addresses, Documents};
use crate::ledger::filesets::{self, ObjectKind};
use crate::testing::{Bed, DAY};

mod by_hand;
mod cut_off;
mod restored;
mod stock;

/// An origin's intake behind its socket, and a folder to publish.
pub(super) struct Shop {
    pub(super) bed: Bed,
    pub(super) intake: Intake,
    server: UnixServer,
    socket: PathBuf,
    pub(super) tasks: Tasks,
    tree: TempDir,
}

impl Shop {
    pub(super) async fn open() -> Self {
        Self::at(Bed::new().await, tempfile::tempdir().unwrap()).await
    }

    async fn at(bed: Bed, tree: TempDir) -> Self {
        let addresses = Addresses {
            content: Vec::new(),
            enrol: Vec::new(),
        };
        let documents = Documents::open(bed.authority.clone(), addresses, 1)
            .await
            .unwrap();
        let packs = PackDir::new(bed.folder.path().join("packs"));
        fs::create_dir_all(packs.root()).unwrap();
        let catalogue = Catalogue::new(bed.authority.clone(), documents, packs);
        let tasks = Tasks::new();
        let intake = Intake::new(catalogue, tasks.spawner());
        let socket = bed.folder.path().join("s");
        let at_work = Arc::new(intake.clone());
        let answer = move |request| {
            let at_work = Arc::clone(&at_work);
            async move { at_work.answer(request).await }
        };
        let server = UnixServer::bind(&socket, BODY_BYTES_MAX, answer)
            .await
            .unwrap();
        Self {
            bed,
            intake,
            server,
            socket,
            tasks,
            tree,
        }
    }

    /// The numbers of the revisions that are retained.
    pub(super) async fn numbers(&self) -> Vec<u64> {
        let mut db = self.bed.authority.ledger().read().await.unwrap();
        let revisions = filesets::revisions(&mut db, Some(&name())).await.unwrap();
        let number = |it: &filesets::Revision| it.number.0;
        revisions.iter().map(number).collect()
    }

    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    async fn try_publish(&self) -> Result<Committed, PublishFailure> {
        let request = Request {
            fileset: name(),
            folder: self.tree.path().to_owned(),
            case_policy: CasePolicy::Unique,
        };
        send::publish(&self.socket, request, Arc::new(Quiet)).await
    }

    pub(super) async fn publish(&self) -> Committed {
        let committed = self.try_publish().await.unwrap();
        let held = self.held().await;
        let wanted = tree(self.tree.path());
        assert_eq!(
            held.keys().collect::<Vec<_>>(),
            wanted.keys().collect::<Vec<_>>()
        );
        assert!(
            held == wanted,
            "the revision holds something else than the folder"
        );
        committed
    }

    /// What the current revision holds, as a reader finds it who trusts nothing.
    async fn held(&self) -> BTreeMap<String, Vec<u8>> {
        let catalogue = &self.intake.catalogue;
        let mut db = catalogue.authority().ledger().read().await.unwrap();
        let revision = filesets::revisions(&mut db, Some(&name()))
            .await
            .unwrap()
            .pop()
            .unwrap();
        let (_, locator) = filesets::object(&mut db, revision.locator, &[ObjectKind::Locator])
            .await
            .unwrap()
            .unwrap();
        let (_, root) = filesets::object(&mut db, revision.root, &[ObjectKind::Root])
            .await
            .unwrap()
            .unwrap();
        let trust = catalogue.authority().trust();
        let judge = ContentJudge::new(Arc::clone(trust));
        let locator = Statement::<Locator>::open(&locator, &judge, 0).unwrap();
        let root = IndexRoot::verify(&root, revision.root).unwrap();
        read_revision(catalogue.packs(), &locator, &root)
    }
}

pub(super) fn name() -> FilesetName {
    "tools".parse().unwrap()
}

fn read_revision(
    packs: &PackDir,
    locator: &Locator,
    root: &IndexRoot,
) -> BTreeMap<String, Vec<u8>> {
    let mut places = locator.places();
    let mut next = |chunk: &content::ChunkRef| {
        let place = places.next().expect("a place for each chunk");
        let id = locator.packs[place.pack as usize].id;
        let pack = PackFile::open(&packs.path(id), id).unwrap();
        let (frame, start) = pack.header().locate(place.ordinal).unwrap();
        let mut plain = Vec::new();
        pack.unpack(frame, &mut plain).unwrap();
        let bytes = &plain[start..start + chunk.length as usize];
        Chunk::verify(bytes, chunk.id).unwrap().bytes().to_vec()
    };
    let index: Vec<u8> = root.chunks.iter().flat_map(&mut next).collect();
    let mut reader = IndexReader::new(&index[..]).unwrap();
    let mut held: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    while let Some(record) = reader.next_record().unwrap() {
        let Record::Entry(entry) = record else {
            panic!("no file here is that long")
        };
        let bytes = match entry.kind {
            Kind::File { chunks, digest, .. } => {
                let bytes: Vec<u8> = chunks.iter().flat_map(&mut next).collect();
                assert!(digest.is_none_or(|digest| digest == Digest::of(&bytes)));
                bytes
            }
            Kind::Folder => b"folder".to_vec(),
            Kind::HardLink { target } => held[target.as_str()].clone(),
            Kind::Symlink { target } => format!("to {target}").into_bytes(),
        };
        held.insert(entry.path.to_string(), bytes);
    }
    assert_eq!(places.next(), None);
    assert_eq!(reader.records(), root.records);
    held
}

/// The same, read from the folder itself.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let bytes = if meta.is_dir() {
                walk(root, &path, found);
                b"folder".to_vec()
            } else if meta.is_symlink() {
                format!("to {}", fs::read_link(&path).unwrap().display()).into_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            found.insert(
                path.strip_prefix(root).unwrap().display().to_string(),
                bytes,
            );
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

/// Bytes that do not compress and differ by `seed`.
pub(super) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(bytes)
        .collect()
}

#[tokio::test]
async fn a_folder_becomes_a_revision_and_a_change_the_next() {
    let shop = Shop::open().await;
    assert_eq!(
        shop.publish().await.revision,
        1,
        "an empty folder is one too"
    );
    for (path, size) in [
        ("a/x", 10),
        ("a-b", 20),
        ("a/y/z", 0),
        ("big", 3 << 20),
        ("b/one", 16 << 10),
    ] {
        shop.put(path, &noise(size, size as u64));
    }
    symlink("../anywhere", shop.tree.path().join("link")).unwrap();
    fs::hard_link(shop.tree.path().join("a/x"), shop.tree.path().join("z")).unwrap();
    let first = shop.publish().await;
    assert_eq!((first.revision, first.entries, first.files), (2, 10, 5));
    assert!(first.new_packs_bytes > 3 << 20 && first.new_packs_bytes == first.packs_bytes);

    let again = shop.publish().await;
    assert_eq!((again.revision, again.unchanged), (2, true));

    fs::rename(shop.tree.path().join("big"), shop.tree.path().join("large")).unwrap();
    let renamed = shop.publish().await;
    assert_eq!(
        (renamed.revision, renamed.new_packs_bytes),
        (3, 0),
        "a rename sends no content"
    );
    assert!(renamed.new_index_bytes > 0);

    let mut bytes = noise(3 << 20, 3 << 20);
    bytes.splice(1_500_000..1_500_010, *b"an edit");
    shop.put("large", &bytes);
    let edited = shop.publish().await;
    assert!((1..800_000).contains(&edited.new_packs_bytes), "{edited:?}");
}

#[tokio::test]
async fn what_is_needed_of_a_weak_pack_is_packed_anew() {
    let shop = Shop::open().await;
    for at in 0..40 {
        shop.put(&format!("{at:02}"), &noise(60_000, at));
    }
    let first = shop.publish().await;
    assert_eq!(first.packs, 1);
    for at in 0..30 {
        fs::remove_file(shop.tree.path().join(format!("{at:02}"))).unwrap();
    }
    let second = shop.publish().await;
    assert_eq!(second.packs, 1);
    let live = 10 * 60_000..10 * 60_000 + 10_000;
    assert!(live.contains(&second.packs_bytes), "{second:?}");
    // Of the new pack nine tenths are live: it stays.
    fs::remove_file(shop.tree.path().join("35")).unwrap();
    assert_eq!(shop.publish().await.new_packs_bytes, 0);
}

#[tokio::test]
async fn all_that_cannot_be_published_is_listed_and_nothing_is() {
    let shop = Shop::open().await;
    shop.put("fine", b"fine");
    shop.publish().await;
    shop.put("Dup", b"1");
    shop.put("dup", b"2");
    let socket = shop.tree.path().join("socket");
    let _listener = UnixListener::bind(socket).unwrap();
    let odd = std::os::unix::ffi::OsStringExt::from_vec(b"not-\xff-utf8".to_vec());
    let odd: std::ffi::OsString = odd;
    fs::write(shop.tree.path().join(odd), b"x").unwrap();
    let error = shop.try_publish().await.unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 4, "{error}");
    for part in ["differs from", "it is a socket", "its name is not UTF-8"] {
        assert!(
            lines.iter().any(|line| line.contains(part)),
            "no {part:?} in {error}"
        );
    }
    assert_eq!(
        shop.held().await.len(),
        1,
        "the revision before is still the current one"
    );
}

#[tokio::test]
async fn a_file_that_nobody_may_read_is_named() {
    let shop = Shop::open().await;
    shop.put("secret", b"x");
    let path = shop.tree.path().join("secret");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let tried = shop.try_publish().await;
    // Root reads everything, whatever the mode says.
    match rustix::process::geteuid().is_root() {
        true => assert!(tried.is_ok()),
        false => assert!(tried.unwrap_err().to_string().contains("it cannot be read")),
    }
}

#[tokio::test]
async fn a_second_publish_of_one_name_is_refused_until_the_first_is_dead() {
    let shop = Shop::open().await;
    let first = shop.intake.begin(&name()).await.unwrap();
    let second = shop.intake.begin(&name()).await;
    assert!(matches!(second, Err(PublishError::Conflict { .. })));
    assert!(shop.intake.begin(&"other".parse().unwrap()).await.is_ok());
    shop.bed.pass(121);
    assert!(shop.intake.begin(&name()).await.is_ok());
    let gone = shop.intake.have(first, &[]).await;
    assert!(matches!(gone, Err(PublishError::Gone { .. })));
}

#[tokio::test]
async fn what_a_killed_publish_sent_is_not_sent_again() {
    let shop = Shop::open().await;
    shop.put("one", &noise(200_000, 1));
    let packs = PackDir::new(shop.bed.folder.path().join("packs"));
    // Everything but the commit, and then silence.
    let publish = shop.intake.begin(&name()).await.unwrap();
    let mut run = content::ChunkRun::default();
    let bytes = noise(200_000, 1);
    let mut chunker =
        content::chunker::Chunker::new(&bytes[..], content::chunker::Profile::Content);
    while let Some(bytes) = chunker.next_chunk().unwrap() {
        run.push(Chunk::name(bytes));
    }
    let missing = shop.intake.have(publish, run.refs()).await.unwrap();
    assert_eq!(missing.len(), run.refs().len());
    let mut plain = content::frame::PlainFrame::default();
    run.iter().for_each(|chunk| plain.push(chunk));
    let mut builder = content::pack::PackBuilder::default();
    builder.push(plain.pack(3).unwrap());
    let pack = builder.finish().unwrap();
    shop.intake.pack(publish, pack.bytes.into()).await.unwrap();
    shop.bed.pass(121);

    let before = packs.list().unwrap().len();
    shop.publish().await;
    let index_packs = 1;
    assert_eq!(packs.list().unwrap().len(), before + index_packs);
}

#[tokio::test]
async fn a_pack_that_is_none_is_refused_and_leaves_nothing() {
    let shop = Shop::open().await;
    let publish = shop.intake.begin(&name()).await.unwrap();
    let mut plain = content::frame::PlainFrame::default();
    plain.push(Chunk::name(b"bread"));
    let mut builder = content::pack::PackBuilder::default();
    builder.push(plain.pack(3).unwrap());
    let good = builder.finish().unwrap().bytes;
    let flipped = [&good[..good.len() - 1], &[good[good.len() - 1] ^ 1]].concat();
    let misnamed = by_hand::misname(good.clone());
    for bad in [
        &b""[..],
        b"bread",
        &good[..50],
        &good[..good.len() - 1],
        &flipped,
        &misnamed,
    ] {
        let taken = shop.intake.pack(publish, bad.to_vec().into()).await;
        assert!(matches!(taken, Err(PublishError::Pack { .. })), "{taken:?}");
    }
    assert!(shop.intake.catalogue.packs().list().unwrap().is_empty());
    assert!(
        shop.intake.commit(publish, b"\xa0").await.is_err(),
        "no root, no revision"
    );
}

#[tokio::test]
async fn a_length_that_only_the_publisher_claims_is_refused() {
    let shop = Shop::open().await;
    let (publish, root) = shop.send_file(b"bread", 7).await;
    let refused = shop.intake.commit(publish, &root.encode()).await;
    assert!(
        matches!(
            &refused,
            Err(PublishError::Commit { source })
                if matches!(**source, CommitError::ChunkLength { wanted: 7, got: 5, .. })
        ),
        "{refused:?}"
    );
    assert_eq!(shop.numbers().await, [0; 0]);
}

#[tokio::test]
async fn gc_removes_what_nothing_needs_and_keeps_the_rest() {
    let shop = Shop::open().await;
    shop.put("old", &noise(100_000, 1));
    shop.publish().await;
    fs::remove_file(shop.tree.path().join("old")).unwrap();
    shop.put("new", &noise(100_000, 2));
    shop.publish().await;
    shop.intake.retain(&name(), 1).await.unwrap();
    let kept = shop.intake.collect(false).await.unwrap();
    assert_eq!(kept.packs, 0, "nothing is old enough");
    shop.bed.pass(3 * DAY + 1);
    let dry = shop.intake.collect(true).await.unwrap();
    let gone = shop.intake.collect(false).await.unwrap();
    assert_eq!((dry.packs, dry.bytes), (gone.packs, gone.bytes));
    assert!(gone.packs >= 2, "{gone:?}");
    shop.held().await;
    assert_eq!(shop.intake.collect(false).await.unwrap().packs, 0);
}

#[tokio::test]
async fn a_hundred_races_of_publish_and_gc_lose_no_chunk() {
    let shop = Shop::open().await;
    shop.put("stays", &noise(50_000, 0));
    shop.publish().await;
    shop.intake.retain(&name(), 1).await.unwrap();
    for round in 0..100 {
        // The same few files come and go: what one round drops the next one needs again.
        for file in 0..3 {
            let path = shop.tree.path().join(format!("file{file}"));
            if (round + file) % 3 == 0 {
                let _absent = fs::remove_file(path);
            } else {
                fs::write(path, noise(40_000, (round + file) % 5)).unwrap();
            }
        }
        let collect = shop.intake.collect_older(0, false);
        let (published, collected) = tokio::join!(shop.try_publish(), collect);
        published.unwrap();
        collected.unwrap();
        assert_eq!(shop.held().await, tree(shop.tree.path()), "round {round}");
    }
}
