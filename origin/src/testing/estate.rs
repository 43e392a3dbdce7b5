//! A fleet without a network: devices that are enrolled, revisions that say nothing, models and
//! manifests.

use std::time::Duration;

use certs::{DeviceId, Key, Peer};
use content::statement::{Manifest, Statement};
use content::{Digest, RevisionNumber};
use protocol::CurrentManifest;
use service::Tasks;
use service::metrics::Registry;
use transport::ContentJudge;

use super::{Bed, request};
use crate::check_in::{CheckIns, Keeper};
use crate::documents::Documents;
use crate::enrol::Decision;
use crate::inventory::Inventories;
use crate::ledger::devices::State;
use crate::ledger::filesets::{self, ObjectKind};
use crate::ledger::{commit, manifests as table};
use crate::manifests::Manifests;
use crate::metrics::Metrics;
use crate::model::view::{Committed, Edit};
use crate::model::{ModelError, Models, SmartGroups};

/// Models and manifests at work.
pub(crate) struct Estate {
    pub(crate) bed: Bed,
    pub(crate) inventories: Inventories,
    pub(crate) manifests: Manifests,
    pub(crate) models: Models,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: Tasks,
}

impl Estate {
    pub(crate) async fn new() -> Self {
        Self::on(Bed::new().await).await
    }

    /// The same on a bed that is there, as the next start finds it.
    pub(crate) async fn on(bed: Bed) -> Self {
        let metrics = Metrics::register(&Registry::new("test")).unwrap();
        let opened = Manifests::open(bed.authority.clone(), metrics.clone()).await;
        let (manifests, builder) = opened.unwrap();
        let tasks = Tasks::new();
        tasks.start("manifests", |stop| builder.run(stop));
        let authority = bed.authority.clone();
        let opened = Inventories::open(authority, manifests.clone(), metrics.clone()).await;
        let inventories = opened.unwrap();
        Self {
            models: Models::new(
                bed.authority.clone(),
                manifests.clone(),
                inventories.clone(),
            ),
            inventories,
            bed,
            manifests,
            metrics,
            tasks,
        }
    }

    /// Its inventories, as the next start finds them.
    pub(crate) async fn inventories_anew(&self) -> Inventories {
        let (authority, manifests) = (self.bed.authority.clone(), self.manifests.clone());
        let opened = Inventories::open(authority, manifests, self.metrics.clone()).await;
        opened.unwrap()
    }

    /// Its smart groups, which look at what changes with time every five minutes.
    pub(crate) fn smart_groups(&self) -> SmartGroups {
        let (inventories, manifests) = (self.inventories.clone(), self.manifests.clone());
        let every = Duration::from_secs(300);
        SmartGroups::new(self.bed.authority.clone(), inventories, manifests, every)
    }

    /// Its check-ins, every two minutes.
    pub(crate) fn check_ins(&self, documents: &Documents) -> CheckIns {
        let (authority, manifests) = (self.bed.authority.clone(), self.manifests.clone());
        let inventories = self.inventories.clone();
        let (keep, keeper) = Keeper::new(authority, manifests.clone());
        self.tasks.start("results", |stop| keeper.run(stop));
        let interval = Duration::from_secs(120);
        let metrics = self.metrics.clone();
        CheckIns::new(
            documents.clone(),
            manifests,
            inventories,
            keep,
            metrics,
            interval,
        )
    }

    /// Stops whoever makes manifests, as a kill between two of its transactions does.
    pub(crate) async fn stop(self) -> Bed {
        let drained = self.tasks.drain(Duration::from_secs(10)).await;
        assert_eq!(drained, service::Drained::InTime);
        self.bed
    }

    /// A client of that name comes in, into the group north.
    pub(crate) async fn enrol(&self, id: &str) -> Peer {
        let (key, token) = (Key::generate().unwrap(), self.bed.token(true).await);
        let asked = request(&key, id, Some(token));
        let held = match self.bed.enrolment.enrol(asked).await.unwrap() {
            Decision::Issued(held) => held,
            Decision::Pending => {
                // A name that somebody had before waits for an operator.
                self.bed.decide(id, State::Approved).await;
                let asked = request(&key, id, None);
                let Decision::Issued(held) = self.bed.enrolment.enrol(asked).await.unwrap() else {
                    panic!("still pending");
                };
                held
            }
        };
        let (trust, now) = (self.bed.authority.trust(), self.bed.authority.clock().now());
        trust.verify_client(&held.der, &[], now).unwrap()
    }

    /// The next revision of a fileset, which holds nothing.
    pub(crate) async fn publish(&self, name: &str) -> u64 {
        let name: content::FilesetName = name.parse().unwrap();
        let mut tx = self.bed.authority.ledger().write().await.unwrap();
        let number = filesets::next_number(&mut tx, &name, 2, 0).await.unwrap();
        let mut objects: Vec<Digest> = Vec::new();
        for kind in [ObjectKind::Revision, ObjectKind::Locator, ObjectKind::Root] {
            let bytes = format!("{kind:?} {name}@{number}");
            let put = filesets::put_object(&mut tx, kind, bytes.as_bytes()).await;
            objects.push(put.unwrap());
        }
        let revision = filesets::Revision {
            fileset: name,
            number,
            statement: objects[0],
            locator: objects[1],
            root: objects[2],
            entries: 0,
            files: 0,
            chunks: 0,
            size: 0,
            packs_bytes: 0,
            metadata_bytes: 0,
            created_at: 0,
        };
        filesets::insert(&mut tx, &revision, &[]).await.unwrap();
        filesets::prune(&mut tx).await.unwrap();
        commit(tx).await.unwrap();
        number.0
    }

    /// Puts what `edits` say into the draft d: `KEY`, `KEY JSON` or `-KEY`.
    pub(crate) async fn edit(&self, edits: &[&str]) -> Result<(), ModelError> {
        let edits: Vec<Edit> = edits.iter().map(|text| edit(text)).collect();
        self.models.edit("d", &edits).await.map(drop)
    }

    /// The same, and commits it.
    pub(crate) async fn commit(&self, edits: &[&str]) -> Result<Committed, ModelError> {
        self.edit(edits).await?;
        self.models.commit("d", "a test").await
    }

    /// The manifest of a device, once it is as it should be, as the device reads it.
    pub(crate) async fn manifest(&self, peer: &Peer) -> Option<Manifest> {
        let held = self.manifests.standing(peer.id()).await.manifest?;
        let envelope = self.manifests.envelope(peer, held.digest).await.unwrap();
        Some(self.read(&envelope.unwrap(), &held))
    }

    fn read(&self, envelope: &[u8], held: &CurrentManifest) -> Manifest {
        let judge = ContentJudge::new(std::sync::Arc::clone(self.bed.authority.trust()));
        let read = Statement::<Manifest>::open_named(envelope, held.digest, &judge, 0);
        let manifest = read.unwrap().into_payload();
        assert_eq!((manifest.number, manifest.model), (held.number, held.model));
        manifest
    }

    /// What a device holds, as `NAME@N`, and the number of its manifest.
    pub(crate) async fn holds(&self, peer: &Peer) -> (String, u64) {
        let Some(manifest) = self.manifest(peer).await else {
            return (String::new(), 0);
        };
        let said = |item: &content::statement::Item| {
            let RevisionNumber(number) = item.revision;
            format!("{}@{number}", item.fileset)
        };
        let said: Vec<String> = manifest.items.iter().map(said).collect();
        (said.join(" "), manifest.number)
    }

    /// Waits until nothing is due.
    pub(crate) async fn settled(&self) {
        let ledger = self.bed.authority.ledger();
        for _ in 0..1000 {
            let mut db = ledger.read().await.unwrap();
            if table::count_due(&mut db).await.unwrap() == 0 {
                return;
            }
            drop(db);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("manifests are due for ten seconds");
    }
}

/// A fileset's entry in a folder of its own.
pub(crate) fn spec(name: &str, revision: u64) -> String {
    format!(
        "fileset/{name} {{\"revision\":{revision},\"target\":\"/opt/{name}\",\"mode\":\"tree\"}}"
    )
}

fn edit(text: &str) -> Edit {
    match (text.strip_prefix('-'), text.split_once(' ')) {
        (Some(key), _) => Edit {
            key: key.to_owned(),
            says: None,
        },
        (None, Some((key, says))) => Edit {
            key: key.to_owned(),
            says: Some(serde_json::from_str(says).unwrap()),
        },
        (None, None) => Edit {
            key: text.to_owned(),
            says: Some(serde_json::json!({})),
        },
    }
}

/// A device's name.
pub(crate) fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}
