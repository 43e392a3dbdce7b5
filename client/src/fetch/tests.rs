//! Sources that take their time.

use std::collections::{BTreeMap, HashMap};

use content::Digest;
use content::index::IndexRoot;

use super::*;
use crate::fetch::sources::Sources;
use crate::fetch::supply::Ask;
use crate::pull::Kept;
use crate::testing::{Memory, Publisher, Served, Vice};

/// Whether an answer to `ask` that takes `seconds` is waited for.
async fn check(ask: Ask, seconds: u64, wanted: bool) {
    let names = [Digest::of(b"timestamp"), Digest::of(b"long")];
    let served = Arc::new(Served {
        packs: BTreeMap::new(),
        objects: HashMap::from(names.map(|name| (name, b"it".to_vec()))),
    });
    let vice = Vice::Slow(Duration::from_secs(seconds));
    let sources = Sources::new(vec![Memory::new("booster b1", &served, vice)]);
    let begun = Instant::now();
    let got = sources.get(ask, |bytes| Ok(bytes.to_vec())).await;
    match got {
        Ok(got) => {
            assert!(
                wanted && got == b"it",
                "{ask:?} in {seconds} s was waited for"
            );
            assert_eq!(begun.elapsed().as_secs(), seconds);
        }
        Err(error) => {
            let error = error.to_string();
            assert!(!wanted, "{ask:?} in {seconds} s: {error}");
            assert!(error.contains("the answer took over"), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_be_long_may_take_long() {
    let digest = Digest::of(b"long");
    check(Ask::Timestamp, 59, true).await;
    check(Ask::Timestamp, 90, false).await;
    // 14 MB at 64 kbit/s.
    check(Ask::Locator(digest), 1800, true).await;
    check(Ask::Root(digest), 1800, true).await;
    // Longer than the longest at that rate.
    check(Ask::Locator(digest), 12_000, false).await;
}

/// What is fetched of the packs of an index, first from a source with `vice`: whom the fetching
/// went round, and how long it took.
async fn fetch(vice: Vice) -> (Vec<String>, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    // Names that do not compress.
    for number in 0..300u32 {
        let noise = Digest::of(&number.to_be_bytes()).hex();
        let name = format!("{noise}{}", Digest::of(noise.as_bytes()).hex());
        std::fs::write(source.join(name), number.to_be_bytes()).unwrap();
    }
    let mut publisher = Publisher::default();
    let stated = publisher.publish(&source);
    let served = publisher.serve();
    let root = IndexRoot::verify(&served.objects[&stated.root], stated.root).unwrap();
    let demand = Kept::default().demand(&root, &stated.locator);
    let sources = Arc::new(Sources::new(vec![
        Memory::new("booster b1", &served, vice),
        Memory::new("origin o1", &served, Vice::None),
    ]));
    let fetcher = Arc::new(Fetcher {
        sources: Arc::clone(&sources),
        downloads: Downloads::open(&folder.path().join("downloads"), stated.root).unwrap(),
        fileset: stated.fileset.clone(),
        progress: Arc::default(),
    });
    let arrivals = Arc::new(Arrivals::new(stated.locator.packs.len()));
    let begun = Instant::now();
    fetcher
        .fetch(&stated.locator, &demand, arrivals)
        .await
        .unwrap();
    let bypasses = sources.bypasses().into_iter();
    let bypassed = bypasses.map(|bypass| format!("{}: {}", bypass.source, bypass.reason));
    (bypassed.collect(), begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_source_that_gets_on_is_waited_for_and_one_that_trickles_is_not() {
    // 10 kB in 25 s are slow, and enough.
    let (bypassed, took) = fetch(Vice::Slow(Duration::from_secs(25))).await;
    assert!(
        bypassed.is_empty() && took.as_secs() >= 75,
        "{bypassed:?} {took:?}"
    );
    let (bypassed, took) = fetch(Vice::Trickles(Duration::from_secs(20))).await;
    assert_eq!(
        bypassed,
        ["booster b1: next to nothing came for 60 seconds"]
    );
    assert!(took.as_secs() < 200, "{took:?}");
}
