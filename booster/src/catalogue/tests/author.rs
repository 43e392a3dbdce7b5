//! An origin whose signatures are digests: it publishes to a [`Fake`] source.

use std::convert::Infallible;
use std::sync::Arc;

use certs::ContentSigner;
use content::locator::{Locator, PackEntry};
use content::pack::BuiltPack;
use content::statement::{
    Deployment, FilesetEntry, IssuerMinimum, Judge, JudgeError, OriginEntry, Payload, Revision,
    RevisionEntry, Signature, Snapshot, Timestamp, seal,
};
use content::{Digest, RevisionNumber};
use protocol::Route;
use service::Clock;

use crate::testing::{Fake, entry, fileset};

/// How long timestamps hold.
pub(crate) const LIFETIME: i64 = 86_400;

/// A judge for whom the right signature is the message's digest.
pub(crate) struct ToyJudge;

impl Judge for ToyJudge {
    fn deployment(&self) -> &'static str {
        "acme"
    }

    fn judge(&self, message: &[u8], sig: &[u8], _: &[Vec<u8>], _: i64) -> Result<(), JudgeError> {
        if sig == Digest::of(message).as_raw() {
            Ok(())
        } else {
            Err(JudgeError {
                source: "bad signature".into(),
            })
        }
    }
}

pub(crate) struct Author {
    /// Where the origin serves content and enrols.
    pub(crate) addresses: (String, String),
    envelope: Vec<u8>,
    /// How often the origin was restored, plus one.
    pub(crate) epoch: u64,
    /// How many revisions are kept.
    pub(crate) keep: usize,
    /// The least numbers of revocation lists.
    pub(crate) minimums: Vec<IssuerMinimum>,
    /// By which everything is dated.
    pub(crate) now: i64,
    retained: Vec<RevisionEntry>,
    /// Signs in earnest; digests do otherwise.
    pub(crate) signer: Option<ContentSigner>,
    source: Arc<Fake>,
    timestamp: Option<Timestamp>,
}

/// The names of what a revision consists of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    pub(crate) locator: Digest,
    pub(crate) root: Digest,
    pub(crate) statement: Digest,
}

impl Author {
    pub(crate) fn new(source: &Arc<Fake>) -> Self {
        Self {
            addresses: ("127.0.0.1:7443".to_owned(), "127.0.0.1:7444".to_owned()),
            envelope: Vec::new(),
            epoch: 1,
            keep: 5,
            minimums: Vec::new(),
            now: Clock::system().now(),
            retained: Vec::new(),
            signer: None,
            source: Arc::clone(source),
            timestamp: None,
        }
    }

    pub(crate) fn publish(&mut self, packs: &[&BuiltPack]) -> Published {
        self.publish_entries(packs.iter().map(|pack| entry(pack)).collect())
    }

    pub(crate) fn publish_entries(&mut self, packs: Vec<PackEntry>) -> Published {
        let root = self.root();
        self.publish_all(packs, root, false)
    }

    /// Publishes with a locator that belongs to another index root than the revision.
    pub(crate) fn publish_with_root(&mut self, packs: &[&BuiltPack], root: Digest) {
        self.publish_all(packs.iter().map(|pack| entry(pack)).collect(), root, false);
    }

    /// Publishes with a locator that nobody signed.
    pub(crate) fn publish_forged(&mut self, packs: &[&BuiltPack]) {
        let root = self.root();
        self.publish_all(packs.iter().map(|pack| entry(pack)).collect(), root, true);
    }

    /// Sends other bytes under the last locator's name.
    pub(crate) fn garble_locator(&self) {
        let last = self.retained.last().unwrap();
        self.source
            .put(&Route::Statement(last.locator), "something else");
    }

    /// Signs a new timestamp over the same snapshot.
    pub(crate) fn renew(&mut self) {
        let mut timestamp = self.timestamp.clone().unwrap();
        timestamp.version += 1;
        timestamp.issued = self.now;
        timestamp.expires = self.now + LIFETIME;
        timestamp.crl_minimums.clone_from(&self.minimums);
        self.put_timestamp(timestamp);
    }

    /// The timestamp's envelope.
    pub(crate) fn envelope(&self) -> Vec<u8> {
        self.envelope.clone()
    }

    fn root(&self) -> Digest {
        let number = self.retained.last().map_or(0, |last| last.number.0) + 1;
        let root = format!("the index root of revision {number}");
        let digest = Digest::of(root.as_bytes());
        self.source.put(&Route::Statement(digest), root);
        digest
    }

    fn publish_all(&mut self, packs: Vec<PackEntry>, at: Digest, forged: bool) -> Published {
        let number = RevisionNumber(self.retained.last().map_or(0, |last| last.number.0) + 1);
        let root = self.root();
        let revision = Revision {
            deployment: "acme".to_owned(),
            fileset: fileset(),
            number,
            root,
            root_bytes: 30,
            size: 1,
            entries: 1,
            created: self.now,
        };
        let locator = Locator {
            deployment: "acme".to_owned(),
            fileset: fileset(),
            number,
            root: at,
            created: self.now,
            index_packs: 0,
            packs,
            runs: Vec::new(),
        };
        let statement = self.put(self.sealed(&revision, false));
        let locator = self.put(self.sealed(&locator, forged));
        self.retained.push(RevisionEntry {
            number,
            statement,
            locator,
        });
        let kept = self.retained.len().saturating_sub(self.keep);
        self.retained.drain(..kept);
        self.put_snapshot(number);
        Published {
            locator,
            root,
            statement,
        }
    }

    fn put(&self, envelope: Vec<u8>) -> Digest {
        let digest = Digest::of(&envelope);
        self.source.put(&Route::Statement(digest), envelope);
        digest
    }

    fn put_snapshot(&mut self, current: RevisionNumber) {
        let snapshot = Snapshot {
            deployment: "acme".to_owned(),
            created: self.now,
            filesets: vec![FilesetEntry {
                name: fileset(),
                current,
                retained: self.retained.clone(),
            }],
        };
        let envelope = self.sealed(&snapshot, false);
        let snapshot = Digest::of(&envelope);
        self.source.put(&Route::Snapshot(snapshot), envelope);
        let document = self.sealed(&self.document(), false);
        let deployment_document = Digest::of(&document);
        self.source.put(&Route::Deployment, document);
        self.put_timestamp(Timestamp {
            deployment: "acme".to_owned(),
            epoch: self.epoch,
            version: self.timestamp.as_ref().map_or(0, |last| last.version) + 1,
            issued: self.now,
            expires: self.now + LIFETIME,
            snapshot,
            deployment_document,
            crl_minimums: self.minimums.clone(),
        });
    }

    fn put_timestamp(&mut self, timestamp: Timestamp) {
        self.envelope = self.sealed(&timestamp, false);
        self.source.put(&Route::Timestamp, self.envelope.clone());
        self.timestamp = Some(timestamp);
    }

    /// Puts out a deployment document that no timestamp names: the origin serves at `address`
    /// since `created`.
    pub(crate) fn move_to(&self, address: &str, created: i64) {
        let mut document = self.document();
        document.version += 1;
        document.created = created;
        document.origin.addresses = vec![address.to_owned()];
        let envelope = self.sealed(&document, false);
        self.source.put(&Route::Deployment, envelope);
    }

    fn document(&self) -> Deployment {
        Deployment {
            deployment: "acme".to_owned(),
            version: 1,
            created: self.now,
            roots: vec![b"root".to_vec()],
            origin: OriginEntry {
                id: "origin".to_owned(),
                addresses: vec![self.addresses.0.clone()],
                enrol_addresses: vec![self.addresses.1.clone()],
            },
            boosters: Vec::new(),
            protocol_min: 1,
            protocol_max: 1,
        }
    }

    fn sealed<T: Payload>(&self, payload: &T, forged: bool) -> Vec<u8> {
        let sign = |message: &[u8]| {
            let digest = Digest::of(if forged { b"forged" } else { message });
            let toy = || (digest.as_raw().to_vec(), vec![b"leaf".to_vec()]);
            let real = |signer: &ContentSigner| {
                let signature = signer.sign(message).unwrap();
                (signature, signer.chain_der().to_vec())
            };
            let (signature, chain) = self.signer.as_ref().map_or_else(toy, real);
            Ok::<_, Infallible>(Signature {
                signature,
                chain,
                key_id: "k".to_owned(),
            })
        };
        seal(payload, sign).unwrap()
    }
}
