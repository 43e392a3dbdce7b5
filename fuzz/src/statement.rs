//! What the origin states, and the envelopes that carry it.

use std::convert::Infallible;
use std::fmt::Debug;

use content::locator::{Locator, PackEntry, Run};
use content::marks::Marks;
use content::pack::{PACK_BYTES_MAX, PACK_CHUNKS_MAX};
use content::statement::{
    BoosterEntry, Deployment, FilesetEntry, HealMode, HealRule, InstallMode, IssuerMinimum, Item,
    Judge, JudgeError, Manifest, OriginEntry, Payload, Revision, RevisionEntry, Script, Signature,
    Snapshot, Stage, Statement, Times, Timestamp, seal,
};
use content::{Digest, PackId, RevisionNumber};

/// A judge that trusts everybody, so that what lies behind a signature is reached too.
struct Credulous;

impl Judge for Credulous {
    fn deployment(&self) -> &str {
        DEPLOYMENT
    }

    fn judge(&self, _: &[u8], _: &[u8], _: &[Vec<u8>], _: i64) -> Result<(), JudgeError> {
        Ok(())
    }
}

/// The payload in `data`, if it is one: it has one form, and comes back out of an envelope if it is
/// this deployment's.
fn payload<T: Payload + Clone + Debug + PartialEq>(data: &[u8]) -> Option<T> {
    let payload = T::decode(data).ok()?;
    assert_eq!(payload.encode(), data, "a payload has one form");
    let envelope = sealed(&payload);
    if data.len() > T::BYTES_MAX {
        assert!(Statement::<T>::open(&envelope, &Credulous, 0).is_err());
        return Some(payload);
    }
    assert!(envelope.len() <= T::ENVELOPE_BYTES_MAX);
    let name = Digest::of(&envelope);
    let opened = Statement::<T>::open_named(&envelope, name, &Credulous, 0);
    assert_eq!(opened.is_ok(), payload.deployment() == DEPLOYMENT);
    if let Ok(statement) = opened {
        assert_eq!(statement.digest(), name);
        assert_eq!(statement.into_payload(), payload);
    }
    Some(payload)
}

fn sealed<T: Payload>(payload: &T) -> Vec<u8> {
    let signed = seal(payload, |message| {
        Ok::<_, Infallible>(Signature {
            signature: Digest::of(message).as_raw().to_vec(),
            chain: vec![b"leaf".to_vec()],
            key_id: "k".to_owned(),
        })
    });
    let Ok(envelope) = signed;
    envelope
}

/// An envelope in its JSON form: whatever it holds, it is opened as one type at most, and what it
/// holds can be sealed again.
pub fn envelope(data: &[u8]) {
    let opened = [
        reseals::<Deployment>(data),
        reseals::<Locator>(data),
        reseals::<Revision>(data),
        reseals::<Snapshot>(data),
        reseals::<Timestamp>(data),
    ];
    assert!(opened.iter().filter(|opened| **opened).count() <= 1);
}

fn reseals<T: Payload + Debug + PartialEq>(data: &[u8]) -> bool {
    let Ok(statement) = Statement::<T>::open(data, &Credulous, 0) else {
        return false;
    };
    assert_eq!(statement.digest(), Digest::of(data));
    let payload = statement.into_payload();
    let again = Statement::<T>::open(&sealed(&payload), &Credulous, 0)
        .expect("what was opened can be sealed again");
    assert_eq!(again.into_payload(), payload);
    true
}

/// An envelope of each type.
#[must_use]
pub fn envelope_seeds() -> Vec<Vec<u8>> {
    vec![
        sealed(&deployment_sample()),
        sealed(&locator_sample()),
        sealed(&manifest_sample()),
        sealed(&revision_sample()),
        sealed(&snapshot_sample()),
        sealed(&timestamp_sample()),
    ]
}

/// The deployment document.
pub fn deployment(data: &[u8]) {
    if let Some(document) = payload::<Deployment>(data) {
        let boosters = document.boosters;
        assert!(boosters.is_sorted_by(|a, b| a.id < b.id));
    }
}

/// A deployment with one booster, and one with none.
#[must_use]
pub fn deployment_seeds() -> Vec<Vec<u8>> {
    let without = Deployment {
        boosters: Vec::new(),
        ..deployment_sample()
    };
    vec![deployment_sample().encode(), without.encode()]
}

/// The locator: no place that it names lies outside its packs.
pub fn locator(data: &[u8]) {
    let Some(locator) = payload::<Locator>(data) else {
        return;
    };
    assert!(locator.index_packs as usize <= locator.packs.len());
    for pack in &locator.packs {
        assert!(pack.header_bytes < pack.total_bytes);
        assert!(pack.total_bytes as usize <= PACK_BYTES_MAX);
    }
    // Runs may repeat a chunk billions of times: look at some places, and at the ends by rule.
    for place in locator.places().take(10_000) {
        assert!((place.pack as usize) < locator.packs.len());
        assert!((place.ordinal as usize) < PACK_CHUNKS_MAX);
    }
    for run in &locator.runs {
        assert!(run.count > 0);
        let last = if run.repeat {
            run.first
        } else {
            run.first + (run.count - 1)
        };
        assert!((last as usize) < PACK_CHUNKS_MAX);
    }
}

/// A locator with two packs and both kinds of runs.
#[must_use]
pub fn locator_seeds() -> Vec<Vec<u8>> {
    vec![locator_sample().encode()]
}

/// The manifest: in order, with targets below which a client can work, and patterns that no path
/// makes slow.
pub fn manifest(data: &[u8]) {
    let Some(manifest) = payload::<Manifest>(data) else {
        return;
    };
    let items = &manifest.items;
    assert!(items.is_sorted_by(|a, b| a.fileset < b.fileset));
    for item in items {
        assert_eq!(manifest.item(&item.fileset), Some(item));
        assert!(Item::is_target(&item.target));
        assert!(item.times.are_in_order());
        assert!(item.scripts.is_sorted_by_key(|script| script.stage));
        assert!(item.depends.is_sorted_by(|a, b| a < b));
        // Whatever stands in it, a target is also a path.
        let _mode = item.heal_mode(&item.target);
    }
}

/// A manifest with everything in it, and an empty one.
#[must_use]
pub fn manifest_seeds() -> Vec<Vec<u8>> {
    let empty = Manifest {
        items: Vec::new(),
        ..manifest_sample()
    };
    vec![manifest_sample().encode(), empty.encode()]
}

fn manifest_sample() -> Manifest {
    let item = Item {
        fileset: "tools".parse().expect("a name"),
        revision: RevisionNumber(3),
        statement: Digest::of(b"statement"),
        target: "/opt/tools".to_owned(),
        mode: InstallMode::Merge,
        times: Times {
            download_from: Some(NOW),
            delete_at: Some(NOW + 1),
            ..Times::default()
        },
        heal: vec![HealRule {
            pattern: "etc/**/*.conf".parse().expect("a pattern"),
            mode: HealMode::IfMissing,
        }],
        depends: vec!["libs".parse().expect("a name")],
        scripts: vec![Script {
            stage: Stage::Preflight,
            name: "stop".to_owned(),
            digest: Digest::of(b"script"),
            bytes: 6,
            seconds: 60,
        }],
    };
    Manifest {
        deployment: DEPLOYMENT.to_owned(),
        device: "c1".to_owned(),
        number: 7,
        model: 2,
        created: NOW,
        items: vec![item],
    }
}

/// A revision.
pub fn revision(data: &[u8]) {
    payload::<Revision>(data);
}

/// One revision.
#[must_use]
pub fn revision_seeds() -> Vec<Vec<u8>> {
    vec![revision_sample().encode()]
}

/// The snapshot: what is current is kept, and all is in order.
pub fn snapshot(data: &[u8]) {
    let Some(snapshot) = payload::<Snapshot>(data) else {
        return;
    };
    assert!(snapshot.filesets.is_sorted_by(|a, b| a.name < b.name));
    for fileset in &snapshot.filesets {
        assert_eq!(snapshot.fileset(&fileset.name), Some(fileset));
        assert!(fileset.revision(fileset.current).is_some());
        assert!(fileset.retained.is_sorted_by(|a, b| a.number < b.number));
    }
}

/// Snapshots of one fileset and of none.
#[must_use]
pub fn snapshot_seeds() -> Vec<Vec<u8>> {
    let empty = Snapshot {
        filesets: Vec::new(),
        ..snapshot_sample()
    };
    vec![snapshot_sample().encode(), empty.encode()]
}

/// The timestamp, and the marks' verdict on it: only what is fresh at the time passes.
pub fn timestamp(data: &[u8]) {
    let Some(timestamp) = payload::<Timestamp>(data) else {
        return;
    };
    let minimums = &timestamp.crl_minimums;
    assert!(minimums.is_sorted_by(|a, b| a.issuer < b.issuer));
    for now in [0, NOW, timestamp.issued, timestamp.expires] {
        // Clocks give seconds since 1970, and have some way to go until the end of i64.
        let now = now.clamp(0, 1 << 40);
        if Marks::default().check(&timestamp, now).is_ok() {
            assert!(now < timestamp.expires);
            assert!(timestamp.issued <= now + 600);
            assert!(timestamp.expires <= timestamp.issued + 7 * 86_400);
        }
    }
}

/// One timestamp.
#[must_use]
pub fn timestamp_seeds() -> Vec<Vec<u8>> {
    let endless = Timestamp {
        issued: i64::MIN,
        expires: i64::MAX,
        ..timestamp_sample()
    };
    vec![timestamp_sample().encode(), endless.encode()]
}

fn deployment_sample() -> Deployment {
    let addresses = vec!["10.0.0.1:8543".to_owned(), "larder.example:8543".to_owned()];
    Deployment {
        deployment: DEPLOYMENT.to_owned(),
        version: 3,
        created: NOW,
        roots: vec![b"root".to_vec()],
        origin: OriginEntry {
            id: "o1".to_owned(),
            addresses: addresses.clone(),
            enrol_addresses: Vec::new(),
        },
        boosters: vec![BoosterEntry {
            id: "b1".to_owned(),
            addresses,
            enrol_addresses: Vec::new(),
            site: "north".to_owned(),
        }],
        protocol_min: 1,
        protocol_max: 1,
    }
}

fn locator_sample() -> Locator {
    let pack = |name: &[u8]| PackEntry {
        id: PackId(Digest::of(name)),
        header_bytes: 200,
        total_bytes: 4 << 20,
    };
    let run = |pack, first, count, repeat| Run {
        pack,
        first,
        count,
        repeat,
    };
    Locator {
        deployment: DEPLOYMENT.to_owned(),
        fileset: "tools".parse().expect("a plain name"),
        number: RevisionNumber(7),
        root: Digest::of(b"root"),
        created: NOW,
        index_packs: 1,
        packs: vec![pack(b"a"), pack(b"b")],
        runs: vec![run(0, 0, 2, false), run(1, 5, 3, true)],
    }
}

fn revision_sample() -> Revision {
    Revision {
        deployment: DEPLOYMENT.to_owned(),
        fileset: "tools".parse().expect("a plain name"),
        number: RevisionNumber(3),
        root: Digest::of(b"root"),
        root_bytes: 100,
        size: 1 << 30,
        entries: 12,
        created: NOW,
    }
}

pub(crate) fn snapshot_sample() -> Snapshot {
    let revision = |number| RevisionEntry {
        number: RevisionNumber(number),
        statement: Digest::of(b"statement"),
        locator: Digest::of(b"locator"),
    };
    Snapshot {
        deployment: DEPLOYMENT.to_owned(),
        created: NOW,
        filesets: vec![FilesetEntry {
            name: "tools".parse().expect("a plain name"),
            current: RevisionNumber(3),
            retained: vec![revision(2), revision(3)],
        }],
    }
}

pub(crate) fn timestamp_sample() -> Timestamp {
    let minimum = |byte, number| IssuerMinimum {
        issuer: [byte; 32],
        number,
    };
    Timestamp {
        deployment: DEPLOYMENT.to_owned(),
        epoch: 1,
        version: 9,
        issued: NOW,
        expires: NOW + 86_400,
        snapshot: Digest::of(b"snapshot"),
        deployment_document: Digest::of(b"document"),
        crl_minimums: vec![minimum(1, 4), minimum(2, 5)],
    }
}

const DEPLOYMENT: &str = "d1";
const NOW: i64 = 1_700_000_000;
