//! An operator's calls, over a real socket.

use std::time::Duration;

use content::pack::BuiltPack;
use serde::de::DeserializeOwned;
use service::unix::UnixServer;
use tempfile::TempDir;
use transport::admin::{AdminClient, SOCKET_FILE};

use super::evict::{Evicted, Slice, Verified};
use super::list::{CacheList, PackList};
use super::*;
use crate::cache::{Asker, Extent};
use crate::catalogue::tests::Bed as Catalogued;
use crate::catalogue::tests::author::Author;
use crate::testing::{Fake, fileset, pack_of, soon, until};

/// A booster that can be asked, with two revisions: packs 0 and 1, then 1 and 2.
struct Bed {
    admin: AdminClient,
    bed: Catalogued,
    folder: TempDir,
    packs: Vec<BuiltPack>,
    _server: UnixServer,
}

impl Bed {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let packs: Vec<BuiltPack> = (0..3).map(|seed| pack_of(seed, 1)).collect();
        let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
        let mut author = Author::new(&source);
        author.publish(&[&packs[0], &packs[1]]);
        author.publish(&[&packs[1], &packs[2]]);
        let bed = Catalogued::open(&folder, &source).await;
        soon(bed.catalogue.current()).await.unwrap();
        let (cache, catalogue) = (bed.cache.clone(), bed.catalogue.clone());
        let (clock, known) = (Clock::system(), catalogue.clone());
        let path = folder.path().join("scrub.json");
        let wanted = Arc::new(move |id| known.find(id));
        let admin = Arc::new(Admin {
            scrubber: Scrubber::open(cache.clone(), path, clock.clone(), wanted),
            cache,
            catalogue: catalogue.clone(),
            clock,
            pins: catalogue.pins(),
            status: Box::new(|| unreachable!("nobody asks")),
            stop: bed.tasks.stop_token(),
        });
        let answer = move |request| Arc::clone(&admin).answer(request);
        let socket = folder.path().join(SOCKET_FILE);
        let server = UnixServer::bind(&socket, BODY_BYTES_MAX, answer).await;
        bed.tasks.start("pins", |stop| catalogue.follow_pins(stop));
        Self {
            admin: AdminClient::new(folder.path()),
            bed,
            folder,
            packs,
            _server: server.unwrap(),
        }
    }

    /// A device gets all packs.
    async fn fill(&self) {
        for pack in &self.packs {
            let id = pack.header.id();
            let entry = soon(self.bed.catalogue.pack(&fileset(), id, Asker::NOBODY))
                .await
                .unwrap();
            let name = fileset();
            let served = self
                .bed
                .cache
                .pack(&name, entry, Extent::Whole, Asker::NOBODY);
            let mut reader = soon(served).await.unwrap().reader(0, u64::MAX);
            while soon(reader.next()).await.unwrap().is_some() {}
            until(async || self.bed.cache.sight(id), Option::is_some).await;
        }
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, String> {
        let posted = soon(self.admin.post(path, body)).await;
        posted.map_err(|error| error.to_string())
    }

    async fn pin(&self, pin: &str) -> Pinned {
        let pin = pin.parse().unwrap();
        self.post("/pins", &PinWish { pin }).await.unwrap()
    }

    async fn unpin(&self, pin: &str) -> Pinned {
        let pin = pin.parse().unwrap();
        self.post("/pins/remove", &PinWish { pin }).await.unwrap()
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let got = soon(self.admin.get(path)).await;
        got.map_err(|error| error.to_string())
    }

    async fn evict(&self, what: &str) -> Result<Evicted, String> {
        let what = Some(what.parse().unwrap());
        self.post("/cache/evict", &Slice { after: None, what })
            .await
    }

    async fn verify(&self, what: Option<&str>) -> Verified {
        let mut done = Verified::default();
        loop {
            let slice = Slice {
                after: done.next.take(),
                what: what.map(|what| what.parse().unwrap()),
            };
            done.add(self.post("/cache/verify", &slice).await.unwrap());
            if done.next.is_none() {
                return done;
            }
        }
    }

    fn name(&self, at: usize) -> String {
        self.packs[at].header.id().to_string()
    }

    /// How soon each pack is given up; none if it is not here.
    fn ranks(&self) -> Vec<Option<&'static str>> {
        let packs = self.packs.iter();
        let sights = packs.map(|pack| self.bed.cache.sight(pack.header.id()));
        sights
            .map(|sight| sight.map(|sight| sight.glimpse.rank.name()))
            .collect()
    }
}

#[tokio::test]
async fn what_is_pinned_stays_until_it_is_pinned_no_more() {
    let bed = Bed::start().await;
    let pinned = bed.pin("tools@1").await;
    assert!(pinned.changed && pinned.known);
    assert!(!bed.pin("other").await.known);
    bed.fill().await;
    let [one, two, three] = bed.ranks()[..] else {
        panic!("three packs")
    };
    // They came after the pin was set, which says of each where it stands.
    assert_eq!((one, two), (Some("pinned"), Some("pinned")));
    assert_eq!(three, Some("current"));
    let hint = bed.evict("tools").await.unwrap_err();
    assert!(hint.contains("cache unpin tools@1 first"), "{hint}");
    let refused = bed.evict(&bed.name(0)).await.unwrap();
    assert_eq!((refused.packs, refused.pinned), (0, 1));

    assert!(bed.unpin("tools@1").await.changed);
    assert!(bed.pin("tools").await.changed);
    let followed = [Some("older"), Some("pinned"), Some("pinned")];
    until(async || bed.ranks(), |ranks| ranks[..] == followed).await;
    assert!(bed.unpin("tools").await.changed);
    let followed = [Some("older"), Some("current"), Some("current")];
    until(async || bed.ranks(), |ranks| ranks[..] == followed).await;
    let evicted = bed.evict(&bed.name(0)).await.unwrap();
    let bytes = bed.packs[0].bytes.len() as u64;
    assert_eq!((evicted.packs, evicted.bytes), (1, bytes));
    let hint = bed.evict(&bed.name(0)).await.unwrap_err();
    assert!(hint.contains("is not here: see cache list"), "{hint}");
    assert_eq!(bed.evict("tools").await.unwrap().packs, 2);
    assert_eq!(bed.ranks(), [None; 3]);
    let hint = bed.evict("nothing").await.unwrap_err();
    assert!(hint.contains("no fileset nothing is published"), "{hint}");
}

#[tokio::test]
async fn a_list_comes_in_pages_and_says_what_there_is() {
    let bed = Bed::start().await;
    bed.fill().await;
    bed.pin("tools@latest").await;
    let pinned = [Some("older"), Some("pinned"), Some("pinned")];
    until(async || bed.ranks(), |ranks| ranks[..] == pinned).await;
    let list: CacheList = bed.get("/cache").await.unwrap();
    let [row] = &list.filesets[..] else {
        panic!("{list:?}")
    };
    assert_eq!(
        (row.fileset.as_str(), row.current, row.unread),
        ("tools", 2, 0)
    );
    assert_eq!((row.packs, row.named_packs), (3, 3));
    assert_eq!(row.pinned, ["latest"]);
    let bytes: u64 = bed.packs.iter().map(|pack| pack.bytes.len() as u64).sum();
    assert_eq!((row.bytes, row.named_bytes), (bytes, bytes));
    let packs = list.totals.iter().filter(|row| row.kind == "pack");
    // Those are whole blocks of the file system.
    let taken = packs.map(|row| row.bytes).sum::<u64>();
    assert!((bytes..bytes + (3 << 16)).contains(&taken), "{taken}");
    assert_eq!(
        list.totals.iter().map(|row| row.bytes).sum::<u64>(),
        list.bytes
    );
    assert!(list.next.is_none());

    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/cache/tools?limit=2&after={after}");
        let page: PackList = bed.get(&path).await.unwrap();
        assert!(page.packs.len() <= 2);
        seen.extend(page.packs);
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    let revisions = |at: usize| {
        let name = bed.name(at);
        let row = seen.iter().find(|row| row.pack == name);
        row.map(|row| row.revisions.clone()).unwrap()
    };
    assert_eq!(
        [revisions(0), revisions(1), revisions(2)],
        [vec![1], vec![1, 2], vec![2]]
    );
    assert!(seen.iter().all(|row| row.verified && row.last_used > 0));
    for (path, told) in [
        ("/cache/nothing", "no fileset nothing is published"),
        ("/cache?limit=0", "cannot use limit=0"),
        ("/cache/Tools", "not a fileset name"),
        ("/cache/tools?after=x", "not a digest"),
        ("/nowhere", "there is no such call"),
    ] {
        let refused = bed.get::<CacheList>(path).await.unwrap_err();
        assert!(refused.contains(told), "{refused}");
    }
}

#[tokio::test]
async fn a_damaged_pack_is_found_when_somebody_asks_and_fetched_again() {
    let bed = Bed::start().await;
    bed.fill().await;
    let (id, hex) = (bed.packs[1].header.id(), bed.packs[1].header.id().0.hex());
    let path = bed
        .folder
        .path()
        .join("cache/packs")
        .join(&hex[..2])
        .join(&hex);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[50_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let one = bed.verify(Some(&bed.name(0))).await;
    assert_eq!((one.good, one.damaged_files, one.percent), (1, 0, 100));
    let found = bed.verify(Some("tools")).await;
    assert_eq!((found.good, found.damaged), (2, vec![bed.name(1)]));
    until(async || bed.bed.cache.sight(id), Option::is_some).await;
    assert!(std::fs::read(&path).unwrap() == bed.packs[1].bytes);
    let all = bed.verify(None).await;
    let objects = std::fs::read_dir(bed.folder.path().join("cache/objects"));
    assert!(objects.unwrap().count() > 0);
    let list: CacheList = bed.get("/cache").await.unwrap();
    let kept = list.totals.iter().filter(|row| row.kind != "quarantined");
    assert_eq!(all.good, kept.clone().map(|row| row.files).sum::<u64>());
    // What they take is whole blocks of the file system.
    assert!(all.bytes <= kept.map(|row| row.bytes).sum::<u64>());
    assert_eq!((all.damaged_files, all.unreadable), (0, 0));
}

/// What is published of a pinned fileset is known, and stands as pinned, before anybody asks.
#[tokio::test(start_paused = true)]
async fn a_pin_follows_what_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let packs: Vec<BuiltPack> = (0..2).map(|seed| pack_of(seed, 1)).collect();
    let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
    let mut author = Author::new(&source);
    author.publish(&[&packs[0]]);
    let bed = Catalogued::open(&folder, &source).await;
    let catalogue = bed.catalogue.clone();
    bed.catalogue
        .pins()
        .add("tools".parse().unwrap())
        .await
        .unwrap();
    bed.tasks.start("pins", |stop| catalogue.follow_pins(stop));
    for pack in &packs {
        soon(bed.catalogue.current()).await.unwrap();
        let id = pack.header.id();
        until(async || bed.catalogue.find(id), Option::is_some).await;
        author.publish(&[&packs[1]]);
        tokio::time::advance(Duration::from_secs(6)).await;
    }
}
