//! An origin behind a link, devices that come to a booster of it, and what they say.

use std::path::{Path, PathBuf};

use booster::Booster;
use certs::Role;
use certs::keyfile;
use client::CheckedIn;
use content::statement::{Payload as _, Signature, Spoken, seal};
use content::{Digest, RosterProof};
use origin::model::calls::Reason;
use origin::model::view::{Committed, DraftView, Edit};
use protocol::{CheckIn, Code, FilesetResult, FilesetState, Held};
use serde_json::{Value, json};
use tests::fixture;
use tests::link::{Fate, Link};
use tests::scrape::metric;
use tests::testbed::{Party, Testbed, until};
use transport::{CallError, Source};

/// An origin behind a link, with the filesets `tools` and `notes`.
pub(super) struct Scene {
    pub(super) bed: Testbed,
    pub(super) link: Link,
}

impl Scene {
    pub(super) async fn set() -> Self {
        let nowhere = ([127, 0, 0, 1], 1).into();
        let link = Link::open(nowhere, Fate::Pass).await.unwrap();
        let bed = Testbed::start_at(&[link.address()]).await.unwrap();
        link.lead_to(bed.origin().addresses().content);
        for name in ["tools", "notes"] {
            let folder = bed.path(name);
            fixture::tree(&folder, 1).unwrap();
            bed.publish(name, &folder).await.unwrap();
        }
        Self { bed, link }
    }

    /// Commits a model by which everybody holds `comes`, and no more what `goes`.
    pub(super) async fn commit(&self, comes: &str, goes: Option<&str>) -> u64 {
        let target = self.bed.path("installed").join(comes);
        let spec = json!({ "revision": 1, "target": target, "mode": "tree" });
        let group = |name: &str| format!("association/{name}/group/all");
        let mut edits = vec![
            edit(&format!("fileset/{comes}"), Some(spec)),
            edit(&group(comes), Some(json!({}))),
        ];
        edits.extend(goes.map(|goes| edit(&group(goes), None)));
        let admin = self.bed.admin();
        let _begun: DraftView = admin.post("/model/drafts/d/edits", &edits).await.unwrap();
        let message = "a test".to_owned();
        let reason = Reason { message };
        let made: Committed = admin.post("/model/drafts/d/commit", &reason).await.unwrap();
        made.model
    }

    pub(super) async fn device(&self, id: &'static str) -> Device {
        let data = self.bed.enrol_client(id).await.unwrap();
        let join = self.bed.join(Role::Client).await.unwrap();
        let party = Party::of(&data, &join, &self.bed.clock()).await.unwrap();
        Device { id, data, party }
    }

    /// How often the origin was asked for that route.
    pub(super) async fn asked(&self, route: &str) -> u64 {
        let (ops, label) = (self.bed.origin().addresses().ops, route_label(route));
        let counted = metric(ops, "larder_origin_http_requests_total", &label).await;
        counted.unwrap_or(0)
    }

    /// What the device of `data` hears at a check-in that knows no booster but `source`.
    pub(super) async fn check_in(&self, data: &Path, source: &str) -> CheckedIn {
        let file = self.bed.path("check-in.toml");
        std::fs::write(&file, format!("data = {data:?}\nsources = [{source:?}]\n")).unwrap();
        let config = client::Config::load(&file).unwrap();
        client::check_in(&config, &self.bed.clock()).await.unwrap()
    }

    /// What `device` says, sealed with the key of `signer`.
    pub(super) fn sealed(
        &self,
        device: &str,
        signer: &Device,
        counter: u64,
        held: Held,
    ) -> Vec<u8> {
        let identity = signer.data.join("identity");
        let key = keyfile::load(&identity.join("key.pem")).unwrap();
        let chain = std::fs::read_to_string(identity.join("cert.pem")).unwrap();
        let chain = certs::pem::to_certs(&chain).unwrap();
        let check_in = CheckIn {
            release: "test".to_owned(),
            booster: None,
            held: Some(held),
        };
        let spoken = Spoken {
            deployment: self.bed.origin().authority().deployment().id.to_string(),
            device: device.to_owned(),
            run: [3; 16],
            counter,
            at: self.bed.clock().now(),
            body: check_in.encode(),
        };
        let sign = |message: &[u8]| {
            Ok::<_, std::convert::Infallible>(Signature {
                signature: key.sign(message).unwrap(),
                chain: chain.clone(),
                key_id: String::new(),
            })
        };
        let sealed = seal(&spoken, sign).unwrap();
        assert!(sealed.len() <= Spoken::ENVELOPE_BYTES_MAX);
        sealed
    }
}

/// A device that has enrolled.
pub(super) struct Device {
    pub(super) id: &'static str,
    pub(super) data: PathBuf,
    pub(super) party: Party,
}

impl Device {
    pub(super) fn at(&self, booster: &Booster, id: &str) -> Source {
        let address = booster.local_addr().to_string();
        self.party.source(Role::Booster, id, address).unwrap()
    }

    /// Whether it gets the first pack of `fileset` from `source`.
    pub(super) async fn reads(&self, source: &Source, fileset: &str) -> Result<(), Option<Code>> {
        let locator = fixture::locator(source, self.party.trust(), fileset).await;
        let pack = locator.map_err(|_| None)?.packs[0].id;
        let name = fileset.parse().unwrap();
        let got = source.pack(&name, &pack, None, false).await;
        got.map(drop).map_err(|error| code(&error))
    }

    /// Waits until it gets that of `fileset` from `source`.
    pub(super) async fn comes_to(
        &self,
        source: &Source,
        fileset: &str,
        expected: Result<(), Option<Code>>,
    ) {
        let reads = async || self.reads(source, fileset).await;
        let got = until(reads, |got| *got == expected).await;
        assert_eq!(got, expected, "{fileset}");
    }

    /// What is proved to it once its manifest has that number.
    pub(super) async fn proof(&self, source: &Source, number: u64) -> RosterProof {
        let ask = async || source.roster_proof().await.ok();
        let is_it = |proof: &Option<RosterProof>| {
            let proof = proof.as_ref();
            proof.is_some_and(|proof| proof.entry.number == number)
        };
        until(ask, is_it).await.unwrap()
    }
}

pub(super) fn code(error: &CallError) -> Option<Code> {
    if let CallError::Fault { fault, .. } = error {
        Some(fault.code)
    } else {
        None
    }
}

fn edit(key: &str, says: Option<Value>) -> Edit {
    let key = key.to_owned();
    Edit { key, says }
}

fn route_label(route: &str) -> String {
    format!("route=\"{route}\"")
}

pub(super) fn goes_by(manifest: Option<Digest>) -> Held {
    Held {
        model: 1,
        manifest,
        ..Held::default()
    }
}

pub(super) fn active(fileset: &str) -> Held {
    let result = FilesetResult {
        fileset: fileset.parse().unwrap(),
        revision: 1,
        state: FilesetState::Active,
        at: 5,
        note: String::new(),
        sources: Vec::new(),
    };
    Held {
        results: vec![result],
        ..Held::default()
    }
}
