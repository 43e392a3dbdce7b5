//! schemathesis, which asks everything that docs/openapi.yaml describes, well and badly, and holds
//! each answer against it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use certs::{Key, Role, csr};
use content::Digest;
use origin::model::calls::Reason;
use origin::model::view::{Committed, DraftView, Edit};
use protocol::Route;
use serde_json::{Value, json};
use tests::fixture;
use tests::openapi::Page;
use tests::testbed::{Party, Testbed};

use crate::curl::{Curl, host, roots_of};
use crate::tools::python_tool;

/// Clients that take turns.
const CLIENTS: usize = 64;
/// Requests that are made up for each operation, beside those of its coverage phase.
const EXAMPLES: &str = "25";
/// A seed like any other, so that a run can be had again.
const SEED: &str = "2026";
/// How long one listener may take.
const DEADLINE: Duration = Duration::from_secs(180);

/// A deployment in which there is something of everything.
struct Scene {
    bed: Testbed,
    clients: Vec<PathBuf>,
    described: PathBuf,
}

impl Scene {
    async fn set() -> anyhow::Result<Self> {
        let bed = Testbed::start().await?;
        let folder = bed.path("tree");
        fixture::tree(&folder, 1)?;
        bed.publish("tools", &folder).await?;
        hold(&bed).await?;
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            clients.push(bed.enrol_client(&format!("c{number}")).await?);
        }
        let described = bed.path("scene.json");
        let scene = Self {
            bed,
            clients,
            described,
        };
        let told = serde_json::to_vec(&scene.describe().await?)?;
        fs::write(&scene.described, told)?;
        Ok(scene)
    }

    /// What the hooks are told.
    async fn describe(&self) -> anyhow::Result<Value> {
        let parties = self.clients.iter().map(|data| {
            let file = |name: &str| data.join("identity").join(name);
            [file("cert.pem"), file("key.pem")]
        });
        let join = self.bed.join(Role::Client).await?;
        let party = Party::of(&self.clients[0], &join, &self.bed.clock()).await?;
        let at = self.bed.origin().addresses().content.to_string();
        let origin = party.source(Role::Origin, "origin", at)?;
        let current = fixture::current(&origin, party.trust(), "tools").await?;
        let locator = fixture::locator(&origin, party.trust(), "tools").await?;
        let packs: Vec<String> = locator.packs.iter().map(|pack| pack.id.0.hex()).collect();
        let snapshot = fixture::snapshot(&origin).await?;
        let digests = [current.statement, current.locator, locator.root];
        let trust = party.trust();
        let (roots, issuing) = (trust.roots(), trust.issuing_cas());
        let cas = roots.iter().chain(&issuing);
        let issuers: Vec<String> = cas.map(|ca| ca.id().to_string()).collect();
        let requests = (0..4).map(|number| {
            let key = Key::generate()?;
            let der = csr::make(&key, &format!("made-up-{number}"))?;
            anyhow::Ok(BASE64.encode(der))
        });
        let requests: Vec<String> = requests.collect::<anyhow::Result<_>>()?;
        let hex = "[0-9a-f]{64}";
        Ok(json!({
            "parties": parties.collect::<Vec<_>>(),
            "names": {
                "digest": digests.map(|digest| digest.to_string()),
                "issuer": issuers,
                "name": ["tools"],
                "pack": packs,
                "request": requests,
                "snapshot": [snapshot.to_string()],
            },
            "forms": {
                "digest": format!("sha256:{hex}"),
                "issuer": hex,
                "name": "[a-z0-9][a-z0-9._-]{0,62}",
                "pack": hex,
                "snapshot": format!("sha256:{hex}"),
            },
        }))
    }

    /// Asks all that is described for the listener with that `tag`.
    async fn check(&self, tag: &str, id: &str, at: SocketAddr) -> anyhow::Result<()> {
        let room = Path::new(env!("CARGO_MANIFEST_DIR"));
        let ended = python_tool("schemathesis")
            .env("SCHEMATHESIS_HOOKS", "hooks")
            .env("PYTHONPATH", room.join("interop/schemathesis"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("LARDER_SCENE", &self.described)
            .env("NO_PROXY", "*")
            .args(["--config-file"])
            .arg(room.join("interop/schemathesis/settings.toml"))
            .args(["run", "--no-color", "--url"])
            .arg(format!("https://{}:{}", host(id), at.port()))
            .args(["--include-tag", tag, "--seed", SEED])
            .args(["--max-examples", EXAMPLES, "--tls-verify"])
            .arg(roots_of(&self.clients[0]))
            .arg(room.join("../docs/openapi.yaml"))
            .at(self.bed.folder.path())
            .within(DEADLINE)
            .run()
            .await?;
        ensure!(ended.status.success(), "{tag}: {}", ended.everything());
        ended.must_say("Tested: ")
    }
}

/// Lets everybody hold the fileset.
async fn hold(bed: &Testbed) -> anyhow::Result<()> {
    let edit = |key: &str, says: Value| Edit {
        key: key.to_owned(),
        says: Some(says),
    };
    let target = bed.path("installed");
    let edits = [
        edit(
            "fileset/tools",
            json!({"revision": 1, "target": target, "mode": "tree"}),
        ),
        edit("association/tools/group/all", json!({})),
    ];
    let admin = bed.admin();
    let _begun: DraftView = admin.post("/model/drafts/d/edits", &edits.to_vec()).await?;
    let message = "a test".to_owned();
    let _made: Committed = admin
        .post("/model/drafts/d/commit", &Reason { message })
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_answer_that_is_not_described() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let booster = scene.bed.booster("b1").await?;
    let origin = scene.bed.origin().addresses().clone();
    scene.check("content", "origin", origin.content).await?;
    scene.check("enrol", "origin", origin.enrol).await?;
    scene
        .check("booster", "b1", booster.local_addr())
        .await
        .context("at the booster")
}

/// Fails unless the listener with that `tag` has exactly the routes that are described for it.
async fn check_routes(tag: &str, curl: &Curl) -> anyhow::Result<()> {
    let page = Page::read()?;
    for operation in &page.operations {
        // Whoever waits without a manifest may have to.
        let query = if operation.kind == "wait" {
            format!("?model=1&manifest={}", Digest::of(b"nothing"))
        } else {
            String::new()
        };
        let method = operation.method.to_uppercase();
        let answer = curl
            .and(["--request", method.as_str()])
            .get(&format!("{}{query}", operation.sample()))
            .await?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let nothing = body.contains("nothing is at this path") || answer.status == 405;
        let described = operation.tags.iter().any(|it| it == tag);
        let told = || {
            format!(
                "{tag}: {method} {}: {} {body}",
                operation.path, answer.status
            )
        };
        ensure!(described != nothing, "{}", told());
        ensure!(
            nothing || operation.statuses.contains(&answer.status),
            "{}",
            told()
        );
        if described {
            let wrong = curl
                .and(["--request", "DELETE"])
                .get(&operation.sample())
                .await?;
            let methods = Route::parse(&operation.sample())?.methods();
            let refused = (wrong.status, wrong.header("allow"));
            ensure!(
                refused == (405, methods),
                "{tag}: DELETE {}: {refused:?}",
                operation.path
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_listener_has_the_routes_that_are_described_for_it_and_no_other() -> anyhow::Result<()>
{
    let bed = Testbed::start().await?;
    let client = bed.enrol_client("c1").await?;
    let booster = bed.booster("b1").await?;
    let (origin, roots) = (bed.origin().addresses(), roots_of(&client));
    let to = |id: &str, at| Curl::to(id, at, &roots).with(&client);
    check_routes("content", &to("origin", origin.content)).await?;
    check_routes("enrol", &to("origin", origin.enrol)).await?;
    check_routes("booster", &to("b1", booster.local_addr())).await
}
