//! The catalogue against sources that lie, and without any.

pub(crate) mod author;

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use content::pack::BuiltPack;
use service::Tasks;
use tempfile::TempDir;

use super::*;
use crate::cache::{Asker, Extent};
use crate::testing::{Fake, entry, fileset, limits, metrics, pack, soon};
use crate::upstream::Upstream;
use author::{Author, ToyJudge};

/// A catalogue in a folder, with its source and tasks.
pub(crate) struct Bed {
    pub(crate) cache: Cache,
    pub(crate) catalogue: Catalogue,
    offset: Arc<AtomicI64>,
    source: Arc<Fake>,
    pub(crate) tasks: Tasks,
}

/// Revocation lists that are always new enough, or never.
struct ToyLists(bool);

/// Revocation lists that name the signer of everything from when they are first asked for.
#[derive(Clone, Default)]
struct Revoking(Arc<AtomicBool>);

impl Judge for Revoking {
    fn deployment(&self) -> &'static str {
        "acme"
    }

    fn judge(
        &self,
        message: &[u8],
        signature: &[u8],
        chain: &[Vec<u8>],
        at: i64,
    ) -> Result<(), JudgeError> {
        if self.0.load(Ordering::Relaxed) {
            return Err(JudgeError {
                source: "the signer is revoked".into(),
            });
        }
        ToyJudge.judge(message, signature, chain, at)
    }
}

impl Lists for Revoking {
    fn satisfy<'a>(&'a self, _: &'a [IssuerMinimum]) -> Later<'a, Result<bool, String>> {
        self.0.store(true, Ordering::Relaxed);
        Box::pin(async { Ok(true) })
    }
}

impl Lists for ToyLists {
    fn satisfy<'a>(&'a self, _: &'a [IssuerMinimum]) -> Later<'a, Result<bool, String>> {
        let new_enough = self.0;
        Box::pin(async move {
            if new_enough {
                Ok(false)
            } else {
                Err("number 3 of 4".to_owned())
            }
        })
    }
}

impl Bed {
    pub(crate) async fn open(folder: &TempDir, source: &Arc<Fake>) -> Self {
        Self::with(folder, source, ToyJudge, ToyLists(true)).await
    }

    async fn with(
        folder: &TempDir,
        source: &Arc<Fake>,
        judge: impl Judge + Send + Sync + 'static,
        lists: impl Lists,
    ) -> Self {
        let (tasks, offset) = (Tasks::new(), Arc::new(AtomicI64::new(0)));
        let clock = Clock::fixed_offset(Arc::clone(&offset));
        let sources: Vec<Arc<dyn Upstream>> = vec![Arc::new(Arc::clone(source))];
        let upstreams = Arc::new(Upstreams::new(sources));
        let state = folder.path().join("state");
        std::fs::create_dir_all(&state).unwrap();
        let cache_folder = folder.path().join("cache");
        let cache = Cache::open(
            &cache_folder,
            limits(),
            Arc::clone(&upstreams),
            tasks.spawner(),
            metrics(),
            clock.now(),
        );
        let cache = cache.await.unwrap();
        let catalogue = Catalogue::open(Parts {
            cache: cache.clone(),
            clock,
            judge: AnyJudge(Arc::new(judge)),
            lists: Arc::new(lists),
            pins: Pins::open(&state),
            spawner: tasks.spawner(),
            state: State::new(state),
            upstreams,
        });
        Self {
            catalogue: catalogue.await.unwrap(),
            cache,
            offset,
            source: Arc::clone(source),
            tasks,
        }
    }

    async fn find(&self, pack: &BuiltPack) -> Result<PackEntry, Arc<CatalogueError>> {
        soon(
            self.catalogue
                .pack(&fileset(), pack.header.id(), Asker::NOBODY),
        )
        .await
    }

    async fn version(&self) -> u64 {
        soon(self.catalogue.current())
            .await
            .unwrap()
            .timestamp
            .version
    }

    pub(crate) async fn stop(self) {
        let _drained = self.tasks.drain(Duration::from_secs(10)).await;
        self.cache.close().await.unwrap();
    }
}

fn asked(source: &Fake, route: &str) -> usize {
    let fetches = source.fetches();
    fetches.iter().filter(|path| path.contains(route)).count()
}

#[tokio::test]
async fn packs_that_a_verified_locator_names_are_known_and_others_are_not_asked_for() {
    let (named, other, folder) = (pack(1), pack(2), tempfile::tempdir().unwrap());
    let source = Fake::new("origin").with(&[&named, &other]);
    let mut author = Author::new(&source);
    author.publish(&[&named]);
    let bed = Bed::open(&folder, &source).await;
    assert_eq!(bed.find(&named).await.unwrap(), entry(&named));
    let unknown = bed.find(&other).await.unwrap_err();
    assert!(matches!(*unknown, CatalogueError::UnknownPack), "{unknown}");
    let other = "other".parse().unwrap();
    let nowhere = bed.catalogue.pack(&other, named.header.id(), Asker::NOBODY);
    let unknown = soon(nowhere).await.unwrap_err();
    assert!(
        matches!(*unknown, CatalogueError::UnknownFileset),
        "{unknown}"
    );
    let unknown = bed.catalogue.object(Digest::of(b"anything"));
    let unknown = soon(unknown).await.unwrap_err();
    assert!(matches!(*unknown, CatalogueError::NotNamed), "{unknown}");
    assert_eq!(source.asks(), [], "no pack is asked for to find this out");
    // One timestamp, one snapshot, one document, one statement, one locator.
    assert_eq!(source.fetches().len(), 5, "{:?}", source.fetches());
}

#[tokio::test(start_paused = true)]
async fn the_timestamp_is_asked_for_again_after_five_seconds_by_all_together() {
    let folder = tempfile::tempdir().unwrap();
    let source = Fake::new("origin");
    let mut author = Author::new(&source);
    author.publish(&[&pack(1)]);
    let bed = Bed::open(&folder, &source).await;
    for _ in 0..2 {
        let all = (0..50).map(|_| bed.catalogue.current());
        let all = soon(futures_util::future::join_all(all)).await;
        assert!(all.iter().all(Result::is_ok));
    }
    assert_eq!(asked(&source, "timestamp"), 1);
    author.renew();
    assert_eq!(bed.version().await, 1);
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(bed.version().await, 2);
    assert_eq!(
        (asked(&source, "timestamp"), asked(&source, "snapshots")),
        (2, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn without_upstream_the_last_timestamp_is_served_until_it_expires() {
    let (named, folder) = (pack(1), tempfile::tempdir().unwrap());
    let source = Fake::new("origin");
    let mut author = Author::new(&source);
    author.publish(&[&named]);
    let bed = Bed::open(&folder, &source).await;
    bed.find(&named).await.unwrap();
    bed.stop().await;

    // Nor does it take an upstream to start.
    let dead = Fake::new("origin");
    let bed = Bed::open(&folder, &dead).await;
    assert_eq!(bed.version().await, 1);
    assert_eq!(bed.find(&named).await.unwrap(), entry(&named));
    assert!(bed.catalogue.document().borrow().is_some());
    bed.offset.store(author::LIFETIME + 10, Ordering::Relaxed);
    let expired = soon(bed.catalogue.current()).await.unwrap_err();
    assert!(
        matches!(*expired, CatalogueError::Upstream { .. }),
        "{expired}"
    );
    // What was named then is named still: packs need no timestamp to be what they are.
    assert_eq!(bed.find(&named).await.unwrap(), entry(&named));
}

#[tokio::test(start_paused = true)]
async fn an_old_timestamp_is_refused_even_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let source = Fake::new("origin");
    let mut author = Author::new(&source);
    author.publish(&[&pack(1)]);
    let old = author.envelope();
    author.publish(&[&pack(2)]);
    let bed = Bed::open(&folder, &source).await;
    assert_eq!(bed.version().await, 2);
    source.put(&protocol::Route::Timestamp, old);
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(bed.version().await, 2, "the last good one is served on");
    bed.stop().await;
    std::fs::remove_file(folder.path().join("state/timestamp.json")).unwrap();
    let bed = Bed::open(&folder, &source).await;
    let refused = soon(bed.catalogue.current()).await.unwrap_err();
    let rollback = MarksError::Rollback {
        seen: (1, 2),
        got: (1, 1),
    };
    assert!(
        matches!(&*refused, CatalogueError::Marks { source } if *source == rollback),
        "{refused}"
    );
}

#[tokio::test]
async fn a_timestamp_is_not_taken_before_the_lists_that_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let source = Fake::new("origin");
    Author::new(&source).publish(&[&pack(1)]);
    let bed = Bed::with(&folder, &source, ToyJudge, ToyLists(false)).await;
    let refused = soon(bed.catalogue.current()).await.unwrap_err();
    assert!(
        matches!(*refused, CatalogueError::Lists { .. }),
        "{refused}"
    );
    assert!(!folder.path().join("state/marks").exists());
}

#[tokio::test]
async fn locators_that_lie_or_are_forged_name_nothing() {
    type Lie = fn(&mut Author, &BuiltPack);
    let lies: [(&str, Lie); 3] = [
        ("forged", |author, pack| author.publish_forged(&[pack])),
        ("other root", |author, pack| {
            author.publish_with_root(&[pack], Digest::of(b"lie"))
        }),
        ("other bytes", |author, pack| {
            author.publish(&[pack]);
            author.garble_locator();
        }),
    ];
    for (what, lie) in lies {
        let (named, folder) = (pack(1), tempfile::tempdir().unwrap());
        let source = Fake::new("origin").with(&[&named]);
        let mut author = Author::new(&source);
        lie(&mut author, &named);
        let bed = Bed::open(&folder, &source).await;
        let found = bed.find(&named).await;
        assert!(found.is_err(), "{what}");
        assert_eq!(source.asks(), [], "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_locator_that_cannot_be_read_keeps_nobody_from_the_others() {
    let (old, new, other) = (pack(1), pack(2), pack(3));
    let folder = tempfile::tempdir().unwrap();
    let source = Fake::new("origin");
    let mut author = Author::new(&source);
    author.publish(&[&old]);
    let published = author.publish(&[&new]);
    let (_etag, good) = source
        .small(&protocol::Route::Statement(published.locator))
        .unwrap();
    author.garble_locator();
    let bed = Bed::open(&folder, &source).await;
    // The current revision's locator, which comes first, is the bad one.
    assert_eq!(bed.find(&old).await.unwrap(), entry(&old));
    let fetched = asked(&source, "statements");
    // Nobody can tell what it names, but it is not fetched for each who asks.
    for _ in 0..10 {
        for unknown in [&new, &other] {
            let unknown = bed.find(unknown).await.unwrap_err();
            assert!(matches!(*unknown, CatalogueError::Bad { .. }), "{unknown}");
        }
    }
    assert_eq!(asked(&source, "statements"), fetched);
    // It is tried again in time.
    tokio::time::advance(Duration::from_secs(2)).await;
    bed.find(&other).await.unwrap_err();
    assert_eq!(asked(&source, "statements"), fetched + 1);
    source.put(&protocol::Route::Statement(published.locator), good);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(bed.find(&new).await.unwrap(), entry(&new));
    let unknown = bed.find(&other).await.unwrap_err();
    assert!(matches!(*unknown, CatalogueError::UnknownPack), "{unknown}");
}

#[tokio::test(start_paused = true)]
async fn what_no_kept_revision_names_is_superseded() {
    let packs: Vec<BuiltPack> = (0..4).map(pack).collect();
    let folder = tempfile::tempdir().unwrap();
    let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
    let mut author = Author::new(&source);
    author.keep = 1;
    author.publish(&[&packs[0], &packs[1]]);
    let bed = Bed::open(&folder, &source).await;
    for pack in &packs[..2] {
        let found = bed.find(pack).await.unwrap();
        let name = fileset();
        let served = bed.cache.pack(&name, found, Extent::Whole, Asker::NOBODY);
        let served = soon(served).await.unwrap();
        let mut reader = served.reader(0, u64::MAX);
        while soon(reader.next()).await.unwrap().is_some() {}
    }
    author.publish(&[&packs[1], &packs[2]]);
    tokio::time::advance(Duration::from_secs(6)).await;
    bed.find(&packs[2]).await.unwrap();
    let unknown = bed.find(&packs[0]).await.unwrap_err();
    assert!(matches!(*unknown, CatalogueError::UnknownPack), "{unknown}");
    let shared = &bed.catalogue.shared;
    let named: HashSet<PackId> = shared
        .names()
        .standings(&BTreeSet::new())
        .into_keys()
        .collect();
    assert_eq!(named, [packs[1].header.id(), packs[2].header.id()].into());
}

/// What it is good to have at the next start is not worth an outage now; marks are.
#[tokio::test(start_paused = true)]
async fn what_the_disk_does_not_keep_is_taken_all_the_same_but_not_without_marks() {
    let folder = tempfile::tempdir().unwrap();
    let source = Fake::new("origin");
    let mut author = Author::new(&source);
    author.publish(&[&pack(1)]);
    // Nothing can be renamed to what these are called.
    let in_the_way = |name| folder.path().join("state").join(name).join("in-the-way");
    for name in ["timestamp.json", "deployment.json"] {
        std::fs::create_dir_all(in_the_way(name)).unwrap();
    }
    let bed = Bed::open(&folder, &source).await;
    assert_eq!(bed.version().await, 1);
    assert!(bed.catalogue.document().borrow().is_some());
    author.renew();
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(bed.version().await, 2);
    assert_eq!(asked(&source, "deployment"), 1, "it is not fetched in vain");

    let marks = folder.path().join("state/marks");
    std::fs::remove_file(&marks).unwrap();
    std::fs::create_dir_all(in_the_way("marks")).unwrap();
    author.renew();
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(bed.version().await, 2, "the last is served on");
    std::fs::remove_dir_all(&marks).unwrap();
    tokio::time::advance(Duration::from_secs(6)).await;
    // Who names what is not known waits for the answer.
    bed.find(&pack(2)).await.unwrap_err();
    assert_eq!(bed.version().await, 3);
}

/// cas.md 16: nothing is written down before the last check.
#[tokio::test]
async fn b16_a_timestamp_whose_signer_the_lists_it_asks_for_revoke_leaves_no_mark() {
    let folder = tempfile::tempdir().unwrap();
    let source = Fake::new("origin");
    Author::new(&source).publish(&[&pack(1)]);
    let revoking = Revoking::default();
    let bed = Bed::with(&folder, &source, revoking.clone(), revoking).await;
    let refused = soon(bed.catalogue.current()).await.unwrap_err();
    assert!(refused.to_string().contains("a timestamp"), "{refused}");
    assert!(bed.catalogue.last().is_none());
    // Nor has it left a mark.
    assert!(!folder.path().join("state/marks").exists());
}

#[tokio::test(start_paused = true)]
async fn a_restored_origin_is_followed_though_its_revisions_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let source = Fake::new("origin");
    let mut author = Author::new(&source);
    for number in 1..=3 {
        author.publish(&[&pack(number)]);
    }
    let bed = Bed::open(&folder, &source).await;
    assert_eq!(bed.version().await, 3);
    let mut restored = Author::new(&source);
    restored.epoch = 2;
    restored.publish(&[&pack(1)]);
    restored.publish(&[&pack(4)]);
    tokio::time::advance(Duration::from_secs(6)).await;
    let view = soon(bed.catalogue.current()).await.unwrap();
    assert_eq!((view.timestamp.epoch, view.timestamp.version), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_revision_of_a_moment_ago_is_looked_for_at_once() {
    let (first, second, folder) = (pack(1), pack(2), tempfile::tempdir().unwrap());
    let source = Fake::new("origin").with(&[&first, &second]);
    let mut author = Author::new(&source);
    author.publish(&[&first]);
    let bed = Bed::open(&folder, &source).await;
    bed.find(&first).await.unwrap();
    author.publish(&[&second]);
    // But no more than once a second, whoever asks.
    bed.find(&second).await.unwrap_err();
    tokio::time::advance(Duration::from_millis(1100)).await;
    assert_eq!(bed.find(&second).await.unwrap(), entry(&second));
}

#[tokio::test]
async fn objects_that_are_named_come_once_and_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let source = Fake::new("origin");
    let mut author = Author::new(&source);
    let published = author.publish(&[&pack(1)]);
    let bed = Bed::open(&folder, &source).await;
    for digest in [published.statement, published.locator, published.root] {
        let all = (0..20).map(|_| bed.catalogue.object(digest));
        for object in soon(futures_util::future::join_all(all)).await {
            assert_eq!(Digest::of(&object.unwrap()), digest);
        }
    }
    assert_eq!(asked(&source, "statements"), 3);
    bed.stop().await;
    let dead = Fake::new("origin");
    let bed = Bed::open(&folder, &dead).await;
    for digest in [published.locator, published.root, published.statement] {
        let object = soon(bed.catalogue.object(digest)).await.unwrap();
        assert_eq!(Digest::of(&object), digest);
    }
}

#[tokio::test]
async fn a_new_deployment_document_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let source = Fake::new("origin");
    let mut author = Author::new(&source);
    author.publish(&[&pack(1)]);
    let bed = Bed::open(&folder, &source).await;
    let mut document = bed.catalogue.document();
    assert!(document.borrow().is_none());
    bed.version().await;
    let shown = soon(document.wait_for(Option::is_some))
        .await
        .unwrap()
        .clone();
    assert_eq!(shown.unwrap().statement.origin.id, "origin");
    assert_eq!(bed.source.fetches().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_document_newer_than_the_timestamp_is_taken_and_an_older_one_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = Fake::new("origin");
    let mut author = Author::new(&source);
    author.publish(&[&pack(1)]);
    let bed = Bed::open(&folder, &source).await;
    let shown = || {
        let document = bed.catalogue.document().borrow().clone();
        document.map(|document| document.statement.origin.addresses[0].clone())
    };
    author.move_to("past.example:1", author.now - 60);
    bed.version().await;
    assert_eq!(shown(), None, "older, and not the one that is named");
    author.move_to("next.example:1", author.now + 1);
    tokio::time::advance(Duration::from_secs(6)).await;
    // The timestamp has not changed.
    bed.version().await;
    assert_eq!(shown().as_deref(), Some("next.example:1"));
    let asked_for = asked(&source, "deployment");
    tokio::time::advance(Duration::from_secs(6)).await;
    bed.version().await;
    assert_eq!(asked(&source, "deployment"), asked_for, "it has it");
}
