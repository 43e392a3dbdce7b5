//! Walks through catalogues that are right, old, forked, or of somebody else.

mod slow;

use content::Digest;
use content::statement::{
    FilesetEntry, JudgeError, OriginEntry, Payload, RevisionEntry, Signature, Snapshot, Timestamp,
    seal,
};
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::fetch::sources::Bypass;
use crate::fetch::supply::SupplyError;
use crate::testing::{Memory, Publisher, Served, Vice};

const NOW: i64 = 1_700_000_000;

/// Takes everything for the origin's word that is signed with its own digest.
struct Anybody;

impl Judge for Anybody {
    fn deployment(&self) -> &str {
        "d1"
    }

    fn judge(
        &self,
        message: &[u8],
        signature: &[u8],
        _: &[Vec<u8>],
        _: i64,
    ) -> Result<(), JudgeError> {
        if signature == Digest::of(message).as_raw() {
            Ok(())
        } else {
            Err(JudgeError {
                source: "not signed by the origin".into(),
            })
        }
    }
}

fn sealed<T: Payload>(payload: &T) -> Vec<u8> {
    let sign = |message: &[u8]| {
        Ok::<_, std::convert::Infallible>(Signature {
            signature: Digest::of(message).as_raw().to_vec(),
            chain: vec![vec![0]],
            key_id: String::new(),
        })
    };
    seal(payload, sign).unwrap()
}

/// A deployment with revisions of one fileset.
struct Bed {
    folder: TempDir,
    served: Served,
    entries: Vec<RevisionEntry>,
    epoch: u64,
    issued: i64,
    version: u64,
}

impl Bed {
    /// With revisions 1 to `count`.
    fn new(count: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("state")).unwrap();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        let mut publisher = Publisher::default();
        let mut entries = Vec::new();
        let mut objects = Vec::new();
        for number in 1..=count {
            std::fs::write(source.join("a"), number.to_string()).unwrap();
            let stated = publisher.publish(&source);
            let revision = sealed(&Revision {
                deployment: "d1".to_owned(),
                fileset: stated.fileset.clone(),
                number: stated.number,
                root: stated.root,
                root_bytes: 1,
                size: 1,
                entries: 1,
                created: NOW,
            });
            let locator = sealed(stated.locator.as_ref());
            entries.push(RevisionEntry {
                number: stated.number,
                statement: Digest::of(&revision),
                locator: Digest::of(&locator),
            });
            objects.extend([revision, locator]);
        }
        let mut served = Served {
            packs: publisher.serve().packs.clone(),
            objects: publisher.serve().objects.clone(),
        };
        let named = objects.into_iter().map(|bytes| (Digest::of(&bytes), bytes));
        served.objects.extend(named);
        Self {
            folder,
            served,
            entries,
            epoch: 1,
            issued: NOW,
            version: 0,
        }
    }

    /// States that `current` holds, and that the revisions from `from` on are kept.
    fn state(&mut self, current: u64, from: u64) -> Timestamp {
        self.version += 1;
        let numbers = from..=current;
        let kept = self.entries.iter();
        let kept = kept.filter(|entry| numbers.contains(&entry.number.0));
        let snapshot = sealed(&Snapshot {
            deployment: "d1".to_owned(),
            created: NOW,
            filesets: vec![FilesetEntry {
                name: "tools".parse().unwrap(),
                current: RevisionNumber(current),
                retained: kept.copied().collect(),
            }],
        });
        let timestamp = Timestamp {
            deployment: "d1".to_owned(),
            epoch: self.epoch,
            version: self.version,
            issued: self.issued,
            expires: self.issued + 86_400,
            snapshot: Digest::of(&snapshot),
            deployment_document: Digest::of(b"document"),
            crl_minimums: Vec::new(),
        };
        self.served.objects.insert(Digest::of(&snapshot), snapshot);
        self.put_timestamp(sealed(&timestamp));
        timestamp
    }

    fn put_timestamp(&mut self, envelope: Vec<u8>) {
        let name = Digest::of(b"timestamp");
        self.served.objects.insert(name, envelope);
    }

    fn source(&self, name: &str, vice: Vice) -> Memory {
        let served = Served {
            packs: self.served.packs.clone(),
            objects: self.served.objects.clone(),
        };
        Memory::new(name, &Arc::new(served), vice)
    }

    /// What a device finds: the revision, or what stopped it; and whom it went round.
    async fn find(&self, sources: Vec<Memory>, number: Option<u64>) -> (String, Vec<Bypass>) {
        let found = self.find_at(NOW + 60, Duration::ZERO, sources, number);
        found.await
    }

    async fn find_at(
        &self,
        now: i64,
        grace: Duration,
        sources: Vec<Memory>,
        number: Option<u64>,
    ) -> (String, Vec<Bypass>) {
        let state = State::new(self.folder.path().join("state"));
        let catalogue = Catalogue {
            judge: &Anybody,
            trust: None,
            state: &state,
            now,
            grace,
        };
        let sources = Sources::hasty(sources);
        let name = "tools".parse().unwrap();
        let walk = async {
            let fresh = catalogue.refresh(&sources).await?;
            let number = number.map(RevisionNumber);
            catalogue
                .resolve(&sources, &fresh.snapshot, &name, number)
                .await
        };
        let found = match walk.await {
            Ok(stated) => format!("{}@{}", stated.fileset, stated.number),
            Err(error) => error.to_string(),
        };
        (found, sources.bypasses())
    }
}

#[tokio::test]
async fn the_current_revision_is_found_and_an_older_one_if_it_is_kept() {
    let mut bed = Bed::new(3);
    bed.state(3, 2);
    let find = |number| bed.find(vec![bed.source("origin o1", Vice::None)], number);
    assert_eq!(find(None).await.0, "tools@3");
    assert_eq!(find(Some(2)).await.0, "tools@2");
    assert_eq!(
        find(Some(1)).await.0,
        "cannot get tools@1: the origin keeps revisions 2, 3"
    );
    // The older one has lowered no mark: the current one may not fall.
    assert_eq!(find(None).await.0, "tools@3");
    bed.state(2, 2);
    let (found, _) = bed
        .find(vec![bed.source("origin o1", Vice::None)], None)
        .await;
    assert!(
        found.contains("would go back from revision 3 to 2"),
        "{found}"
    );
}

#[tokio::test]
async fn a_restored_origin_is_believed_though_its_revisions_go_back() {
    let mut bed = Bed::new(3);
    let find = async |bed: &Bed| {
        let sources = vec![bed.source("origin o1", Vice::None)];
        bed.find(sources, None).await.0
    };
    bed.state(3, 1);
    assert_eq!(find(&bed).await, "tools@3");
    bed.epoch = 2;
    bed.state(1, 1);
    assert_eq!(find(&bed).await, "tools@1");
    bed.state(2, 1);
    assert_eq!(find(&bed).await, "tools@2");
    // Once in the new epoch, nothing goes back any more.
    bed.state(1, 1);
    let found = find(&bed).await;
    assert!(
        found.contains("would go back from revision 2 to 1"),
        "{found}"
    );
}

#[tokio::test]
async fn a_source_with_an_old_or_foreign_word_is_named_and_the_next_one_asked() {
    let mut bed = Bed::new(2);
    bed.state(1, 1);
    let old = bed.source("booster b1", Vice::None);
    bed.state(2, 1);
    let new = || vec![bed.source("origin o1", Vice::None)];
    assert_eq!(bed.find(new(), None).await.0, "tools@2");
    let check = async |bad: Memory, expected: &str| {
        let sources = vec![bad, bed.source("origin o1", Vice::None)];
        let (found, bypasses) = bed.find(sources, None).await;
        assert_eq!(found, "tools@2", "{expected}");
        assert_eq!(bypasses.len(), 1, "{bypasses:?}");
        assert_eq!(bypasses[0].source, "booster b1");
        assert_eq!(bypasses[0].check.as_deref(), Some("timestamp"));
        assert!(bypasses[0].reason.contains(expected), "{bypasses:?}");
    };
    check(old, "below (1, 2), seen before").await;
    check(
        bed.source("booster b1", Vice::Lies),
        "cannot read the envelope",
    )
    .await;
    // One that has ended, one of another deployment, one that nobody signed.
    let good = Timestamp {
        version: 9,
        ..bed_timestamp(&bed)
    };
    let served = |envelope: Vec<u8>| {
        let mut objects = bed.served.objects.clone();
        objects.insert(Digest::of(b"timestamp"), envelope);
        let packs = bed.served.packs.clone();
        Memory::new(
            "booster b1",
            &Arc::new(Served { packs, objects }),
            Vice::None,
        )
    };
    let ended = Timestamp {
        issued: NOW - 86_400,
        expires: NOW,
        ..good.clone()
    };
    check(served(sealed(&ended)), "it ended at").await;
    let foreign = Timestamp {
        deployment: "d2".to_owned(),
        ..good.clone()
    };
    check(served(sealed(&foreign)), "another deployment").await;
    let forged = String::from_utf8(sealed(&good)).unwrap();
    let forged = forged.replace("\"sig\":\"", "\"sig\":\"AAAA");
    check(served(forged.into_bytes()), "not signed by the origin").await;
}

fn bed_timestamp(bed: &Bed) -> Timestamp {
    let envelope = &bed.served.objects[&Digest::of(b"timestamp")];
    Statement::<Timestamp>::open(envelope, &Anybody, NOW)
        .unwrap()
        .into_payload()
}

#[tokio::test]
async fn a_statement_of_something_else_is_refused_though_its_digest_is_right() {
    let mut bed = Bed::new(2);
    // The origin itself has mixed them up: no source can help, and nothing is believed.
    let (first, second) = (bed.entries[0], bed.entries[1]);
    bed.entries[1].locator = first.locator;
    bed.state(2, 1);
    let (found, _) = bed
        .find(vec![bed.source("origin o1", Vice::None)], None)
        .await;
    assert!(
        found.contains("locator check failed: it is not the one of tools@2"),
        "{found}"
    );
    bed.entries[1] = RevisionEntry {
        statement: first.statement,
        ..second
    };
    bed.state(2, 1);
    let (found, _) = bed
        .find(vec![bed.source("origin o1", Vice::None)], None)
        .await;
    assert!(
        found.contains("revision check failed: it is not the one of tools@2"),
        "{found}"
    );
}

#[tokio::test]
async fn a_fileset_that_is_not_there_is_said_to_be_unknown() {
    let mut bed = Bed::new(1);
    bed.state(1, 1);
    let state = State::new(bed.folder.path().join("state"));
    let catalogue = Catalogue {
        judge: &Anybody,
        trust: None,
        state: &state,
        now: NOW,
        grace: Duration::ZERO,
    };
    let sources = Sources::hasty(vec![bed.source("origin o1", Vice::None)]);
    let fresh = catalogue.refresh(&sources).await.unwrap();
    let name = "maps".parse().unwrap();
    let error = catalogue
        .resolve(&sources, &fresh.snapshot, &name, None)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "cannot find a fileset called maps");
}

/// A booster that goes by what it has learnt, until it must ask again.
struct Later {
    before: Memory,
    after: Memory,
    asks_at: Instant,
}

impl Later {
    fn now(&self) -> &Memory {
        if Instant::now() < self.asks_at {
            &self.before
        } else {
            &self.after
        }
    }
}

impl Supply for Later {
    type Body = <Memory as Supply>::Body;

    fn name(&self) -> &str {
        self.before.name()
    }

    async fn get(&self, ask: Ask) -> Result<Vec<u8>, SupplyError> {
        self.now().get(ask).await
    }

    async fn pack(
        &self,
        fileset: &FilesetName,
        id: content::PackId,
        range: Option<std::ops::Range<u64>>,
        doubted: bool,
    ) -> Result<Self::Body, SupplyError> {
        self.now().pack(fileset, id, range, doubted).await
    }
}

/// What a device finds that asks for `wanted` when `tools@2` has just been published, and its
/// booster has asked the origin the moment before; and how many seconds that takes.
async fn look_up(wanted: &str, vice: Vice) -> (String, u64) {
    let mut bed = Bed::new(2);
    let document = Deployment {
        deployment: "d1".to_owned(),
        version: 1,
        created: NOW,
        roots: vec![vec![0]],
        origin: OriginEntry {
            id: "o1".to_owned(),
            addresses: vec!["origin:1".to_owned()],
            enrol_addresses: Vec::new(),
        },
        boosters: Vec::new(),
        protocol_min: 1,
        protocol_max: 1,
    };
    let name = Digest::of(b"deployment");
    bed.served.objects.insert(name, sealed(&document));
    bed.state(1, 1);
    let before = bed.source("booster b1", vice);
    bed.state(2, 1);
    let booster = Later {
        before,
        after: bed.source("booster b1", vice),
        asks_at: Instant::now()
            + Duration::from_secs(protocol::TIMESTAMP_FRESH_SECONDS.unsigned_abs()),
    };
    let state = State::new(bed.folder.path().join("state"));
    let catalogue = Catalogue {
        judge: &Anybody,
        trust: None,
        state: &state,
        now: NOW + 60,
        grace: Duration::ZERO,
    };
    let (sources, begun) = (Sources::hasty(vec![booster]), Instant::now());
    let (fileset, number) = wanted.split_once('@').unwrap();
    let (fileset, number) = (fileset.parse().unwrap(), number.parse().unwrap());
    let number = Some(RevisionNumber(number));
    let found = match catalogue.look_up(&sources, &fileset, number).await {
        Ok((_, stated)) => format!("{}@{}", stated.fileset, stated.number),
        Err(error) => error.to_string(),
    };
    (found, begun.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn what_a_booster_does_not_know_yet_is_asked_for_once_more_when_it_must_have_asked() {
    // What it knows is not waited for.
    assert_eq!(look_up("tools@1", Vice::None).await, ("tools@1".into(), 0));
    let waited = protocol::TIMESTAMP_FRESH_SECONDS.unsigned_abs() + 1;
    assert_eq!(
        look_up("tools@2", Vice::None).await,
        ("tools@2".into(), waited)
    );
    // What is still not known then is told so, and a source that is out of reach at once.
    for (wanted, message) in [
        (
            "tools@3",
            "cannot get tools@3: the origin keeps revisions 1, 2",
        ),
        ("maps@1", "cannot find a fileset called maps"),
    ] {
        assert_eq!(look_up(wanted, Vice::None).await, (message.into(), waited));
    }
    let (found, took) = look_up("tools@2", Vice::Dead).await;
    assert!(
        found.contains("the connection broke") && took == 0,
        "{found}"
    );
}

#[tokio::test]
async fn a_timestamp_that_has_ended_counts_in_grace_if_nobody_has_a_newer_one() {
    let mut bed = Bed::new(2);
    bed.state(1, 1);
    let (day, hour) = (86_400, Duration::from_secs(3600));
    let frozen = |bed: &Bed| vec![bed.source("booster b1", Vice::None)];
    for (now, grace) in [(NOW + day, Duration::ZERO), (NOW + day + 3600, hour)] {
        let (found, bypasses) = bed.find_at(now, grace, frozen(&bed), None).await;
        assert!(
            found.contains("timestamp check failed: it ended"),
            "{found}"
        );
        assert_eq!(bypasses[0].check.as_deref(), Some("timestamp"));
    }
    let now = NOW + day + 1800;
    let dead = bed.source("origin o1", Vice::Dead);
    let mut sources = frozen(&bed);
    sources.push(dead);
    assert_eq!(bed.find_at(now, hour, sources, None).await.0, "tools@1");
    // Who has a newer one goes before who is nearer.
    let mut sources = frozen(&bed);
    bed.issued = NOW + day;
    bed.state(2, 1);
    sources.push(bed.source("origin o1", Vice::None));
    assert_eq!(bed.find_at(now, hour, sources, None).await.0, "tools@2");
}
