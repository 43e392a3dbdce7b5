//! A model on its way to a device, over the wire.

use protocol::{CommandKind, Held};

use super::*;
use crate::manifests::view::{CommandView, Holds};
use crate::model::calls::Reason;
use crate::model::view::{Committed, DraftView, Edit};

impl Served {
    /// A client that is enrolled, and its way to the content.
    async fn client(&self, id: &str) -> Source {
        let device = self.device(self.join("client", true).await).await;
        assert!(self.enrol(&device, EnrolRole::Client, id).await);
        self.content(&device)
    }

    async fn publish(&self, bytes: &[u8]) {
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("a"), bytes).unwrap();
        let request = send::Request {
            fileset: "tools".parse().unwrap(),
            folder: tree.path().to_owned(),
            case_policy: CasePolicy::Unique,
        };
        let socket = self.folder.path().join(SOCKET_FILE);
        let published = send::publish(&socket, request, Arc::new(send::Quiet));
        published.await.unwrap();
    }

    async fn commit(&self, edits: &[(&str, serde_json::Value)]) -> Committed {
        let edits: Vec<Edit> = edits
            .iter()
            .map(|(key, says)| Edit {
                key: (*key).to_owned(),
                says: Some(says.clone()),
            })
            .collect();
        let draft: DraftView = self
            .admin
            .post("/model/drafts/d/edits", &edits)
            .await
            .unwrap();
        assert_eq!(draft.edits, edits.len() as u64);
        let reason = Reason {
            message: "a test".to_owned(),
        };
        let made = self.admin.post("/model/drafts/d/commit", &reason).await;
        made.unwrap()
    }
}

fn check_in(held: Held) -> CheckIn {
    CheckIn {
        release: "0.1.0".to_owned(),
        booster: None,
        held: Some(held),
    }
}

#[tokio::test]
async fn what_is_committed_comes_to_the_device_that_it_is_for() {
    let served = Served::start().await;
    let (one, two) = (served.client("one").await, served.client("two").await);
    served.publish(b"bread").await;
    let script = http::Request::put("/model/scripts")
        .body(http_body_util::Full::new(bytes::Bytes::from_static(
            b"exit 0",
        )))
        .unwrap();
    let kept = served.admin.send(script, GRACE).await.unwrap();
    let kept: crate::model::view::ScriptKept = serde_json::from_slice(&kept).unwrap();
    let spec = serde_json::json!({
        "revision": 1, "target": "/opt/tools", "mode": "tree",
        "scripts": [{"stage": "preflight", "name": "x", "digest": kept.digest,
                     "bytes": kept.bytes, "seconds": 9}],
    });
    let first = one.check_in(&check_in(Held::default())).await.unwrap();
    assert_eq!(first.unwrap().manifest, None);
    let waits = one.wait(0, None);
    let edits = [
        ("fileset/tools", spec),
        ("association/tools/device/one", serde_json::json!({})),
    ];
    let commits = served.commit(&edits);
    let (woken, made) = tokio::join!(waits, commits);
    assert_eq!((made.model, made.devices), (1, 1));
    // It was woken, or came too late to wait.
    let manifest = woken.unwrap().unwrap().manifest.unwrap();
    assert_eq!((manifest.model, manifest.number), (1, 1));

    let limit = 1 << 20;
    assert!(one.statement(&manifest.digest, limit).await.is_ok());
    let denied = two.statement(&manifest.digest, limit).await.unwrap_err();
    assert!(denied.to_string().contains("no such statement"), "{denied}");
    let script = one.statement(&kept.digest.parse().unwrap(), limit).await;
    assert_eq!(script.unwrap(), b"exit 0".as_slice());

    let held = Held {
        model: 1,
        manifest: Some(manifest.digest),
        ..Held::default()
    };
    let again = one.check_in(&check_in(held.clone())).await.unwrap();
    assert_eq!(again, None);
    // An inventory is longer than any other body.
    let package = |number| protocol::Software {
        name: format!("package-{number}"),
        version: "1.2.3-4".to_owned(),
        arch: "amd64".to_owned(),
    };
    let inventory = protocol::Inventory {
        software: (0..3000).map(package).collect(),
        ..protocol::Inventory::default()
    };
    let body = inventory.encode();
    assert!(body.len() > protocol::ENROL_BODY_BYTES_MAX);
    let named = Held {
        inventory: Some(::content::Digest::of(&body)),
        ..held.clone()
    };
    let asked = one.check_in(&check_in(named.clone())).await.unwrap();
    assert!(asked.unwrap().inventory);
    one.inventory(body).await.unwrap();
    assert_eq!(one.check_in(&check_in(named)).await.unwrap(), None);
    let path = "/devices/one/inventory";
    let shown: crate::inventory::view::InventoryView = served.admin.get(path).await.unwrap();
    assert_eq!(shown.inventory, inventory);
    let path = "/devices/one/command";
    let asked: CommandView = served.admin.post(path, &CommandKind::Verify).await.unwrap();
    let told = one.check_in(&check_in(held)).await.unwrap().unwrap();
    assert_eq!(told.commands[0].id, asked.id);
    let holds: Holds = served.admin.get("/devices/one/holds").await.unwrap();
    assert_eq!(holds.filesets[0].fileset, "tools");
    assert_eq!((holds.manifest, holds.commands.len()), (Some(1), 1));
    assert_eq!(served.origin.drain(GRACE).await, Drained::InTime);
}
