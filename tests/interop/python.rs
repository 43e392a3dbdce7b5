//! A second client, in Python, written from docs/protocol.md and docs/formats.md alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use certs::Role;
use origin::fleet::DeviceView;
use protocol::{Join, Token};
use serde_json::Value;
use tests::fixture;
use tests::liar::{Liar, Lie};
use tests::testbed::{Party, Testbed, until};
use tests::tree;
use transport::{Fetched, Source};

use crate::curl::Curl;
use crate::openssl::{openssl, self_signed};
use crate::program::Program;
use crate::tools::python_tool;

/// A device with that client, and nothing of ours.
struct Device {
    home: PathBuf,
    id: &'static str,
    targets: PathBuf,
}

impl Device {
    fn of(bed: &Testbed, id: &'static str) -> Self {
        Self {
            home: bed.path(&format!("{id}-home")),
            id,
            targets: bed.path(id),
        }
    }

    /// One that has enrolled.
    async fn enrolled(bed: &Testbed, id: &'static str) -> anyhow::Result<Self> {
        let device = Self::of(bed, id);
        let join = bed.join(Role::Client).await?;
        let told = parsed(&device.enrol(&join.reveal(), "60").succeed().await?)?;
        let wanted = serde_json::json!({"deployment": "bed", "id": id, "role": "client"});
        ensure!(told == wanted, "want {wanted}, got {told}");
        Ok(device)
    }

    fn enrol(&self, join: &str, patience: &str) -> Program {
        let words = ["--id", self.id, "--patience", patience];
        command("enrol").arg(join).arg(&self.home).args(words)
    }

    /// Pulls into a new folder, asking `boosters` (`ID@HOST:PORT`) before those that are listed.
    fn pull(&self, name: &str, boosters: &[String]) -> Program {
        let boosters = boosters.iter().flat_map(|booster| ["--booster", booster]);
        command("pull")
            .arg("tools")
            .arg(self.target(name))
            .arg(&self.home)
            .args(boosters)
    }

    fn target(&self, name: &str) -> PathBuf {
        let _there_already = fs::create_dir(&self.targets).is_err();
        self.targets.join(name)
    }

    /// Pulls, compares what came with `wanted`, and returns what the client said.
    async fn pulls(&self, name: &str, boosters: &[String], wanted: &Path) -> anyhow::Result<Value> {
        let told = parsed(&self.pull(name, boosters).succeed().await?)?;
        tree::compare(wanted, &self.target(name)).with_context(|| told.to_string())?;
        Ok(told)
    }
}

/// A command of the client, which may take a while on a machine that has much to do.
fn command(name: &str) -> Program {
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    python_tool("python")
        // No folder of compiled modules in the tree; and every warning is a failure.
        .args(["-B", "-W", "error"])
        .arg(room.join("interop/python/larder_client.py"))
        .arg(name)
        .within(Duration::from_secs(120))
}

fn parsed(told: &[u8]) -> anyhow::Result<Value> {
    let text = String::from_utf8_lossy(told);
    serde_json::from_slice(told).with_context(|| format!("no JSON object: {text}"))
}

/// A tree with one of everything: also what has a place of its own in the formats.
fn publishable(folder: &Path) -> anyhow::Result<()> {
    fixture::tree(folder, 2)?;
    // One chunk many times over; a path that sorts between a folder and what lies in it.
    fs::write(folder.join("large/zeros"), vec![0; 3 << 20])?;
    fs::write(folder.join("small-er"), b"smaller\n")?;
    fs::create_dir_all(folder.join("empty/very"))?;
    fs::set_permissions(folder.join("empty"), fs::Permissions::from_mode(0o2750))?;
    let strange = folder.join("small/Ünïcode name");
    fs::write(&strange, b"#!/bin/sh\n")?;
    fs::set_permissions(strange, fs::Permissions::from_mode(0o4511))?;
    Ok(())
}

/// A deployment that has published one.
async fn shop() -> anyhow::Result<(Testbed, PathBuf)> {
    let bed = Testbed::start().await?;
    let folder = bed.path("tree");
    publishable(&folder)?;
    bed.publish("tools", &folder).await?;
    Ok((bed, folder))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_python_pulls_through_a_booster() -> anyhow::Result<()> {
    let (bed, folder) = shop().await?;
    let _booster = bed.booster("b1").await?;
    let device = Device::enrolled(&bed, "py").await?;
    let program = command("check-in").arg(&device.home);
    let checked_in = parsed(&program.succeed().await?)?;
    let status = checked_in["status"].as_u64();
    ensure!(matches!(status, Some(200 | 204)), "{checked_in}");
    let first = device.pulls("one", &[], &folder).await?;
    let (_, bytes) = tree::size(&folder)?;
    // A hard link is a name of a file that was counted.
    let linked = folder.join("small/7.txt").metadata()?.len();
    ensure!(
        first["revision"] == 1 && first["bytes"] == bytes - linked,
        "{first}"
    );
    fs::write(folder.join("small-er"), fixture::noise(700_000, 9))?;
    let again = bed.publish("tools", &folder).await?;
    // A booster goes by a timestamp for five seconds.
    let mut pulls = 0;
    let pull = async || {
        pulls += 1;
        parsed(&device.pull(&format!("two-{pulls}"), &[]).succeed().await?)
    };
    let second = until(pull, |told| {
        told.as_ref().map_or(true, |told| told["revision"] == 2)
    });
    let second = second.await?;
    tree::compare(&folder, &device.target(&format!("two-{pulls}")))?;
    ensure!(
        second["files"] == again.files && second["revision"] == 2,
        "{second}"
    );
    for told in [first, second] {
        let of_the_booster = told["pack_bytes"]["booster b1"].as_u64() > Some(2 << 20);
        let alone = told["pack_bytes"].get("origin origin").is_none();
        let straight = told["bypasses"] == Value::Array(Vec::new());
        ensure!(of_the_booster && alone && straight, "{told}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_python_waits_for_an_operator() -> anyhow::Result<()> {
    let (bed, folder) = shop().await?;
    let join = bed.token(Role::Client, false).await?.reveal();
    let device = Device::of(&bed, "vetted");
    let refused = device.enrol(&join, "0").run().await?;
    ensure!(!refused.status.success(), "{}", refused.told());
    refused.must_say("waits for an operator")?;
    let key = fs::read(device.home.join("key.pem"))?;
    // It asks once more when its patience ends.
    let mut waits = device.enrol(&join, "10").start()?;
    waits.still_runs()?;
    let approved: DeviceView = bed.admin().post("/devices/vetted/approve", &()).await?;
    ensure!(approved.id == "vetted", "{approved:?}");
    waits.wait().await?.must_say("\"vetted\"")?;
    ensure!(
        key == fs::read(device.home.join("key.pem"))?,
        "it made another key"
    );
    device.pulls("one", &[], &folder).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_python_that_was_revoked_is_let_in_nowhere() -> anyhow::Result<()> {
    let (bed, folder) = shop().await?;
    let _booster = bed.booster("b1").await?;
    let device = Device::enrolled(&bed, "py").await?;
    device.pulls("one", &[], &folder).await?;
    bed.revoke("py").await?;
    // The booster hears of it a moment later, and the target is there once it has let it in.
    let mut pulls = 0;
    let refused = async || {
        pulls += 1;
        let ended = device.pull(&format!("late-{pulls}"), &[]).run().await?;
        ensure!(!ended.status.success(), "it was let in: {}", ended.told());
        Ok(ended)
    };
    let refused = until(refused, Result::is_ok).await?;
    let alerts = refused
        .everything()
        .matches("ALERT_CERTIFICATE_REVOKED")
        .count();
    ensure!(alerts == 2, "want one of each source: {}", refused.told());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_python_goes_round_a_booster_that_was_revoked() -> anyhow::Result<()> {
    let (bed, folder) = shop().await?;
    let booster = bed.booster("b1").await?;
    bed.revoke("b1").await?;
    // Whoever enrols now has the list with that booster.
    let device = Device::enrolled(&bed, "py").await?;
    let address = format!("b1@{}", booster.local_addr());
    let told = device.pulls("one", &[address], &folder).await?;
    let reason = told["bypasses"][0]["reason"].to_string();
    ensure!(reason.contains("revocation: it is on the list"), "{told}");
    ensure!(
        told["pack_bytes"]["origin origin"].as_u64() > Some(0),
        "{told}"
    );
    Ok(())
}

/// A liar between that client and the origin.
struct Scene {
    bed: Testbed,
    device: Device,
    folder: PathBuf,
    liar: Liar,
    origin: Source,
}

impl Scene {
    async fn set() -> anyhow::Result<Self> {
        let (bed, folder) = shop().await?;
        let device = Device::enrolled(&bed, "py").await?;
        let data = bed.enrol_booster("liar").await?;
        let join = bed.join(Role::Client).await?;
        let party = Party::of(&data, &join, &bed.clock()).await?;
        let at = bed.origin().addresses().content.to_string();
        let calls = || party.source(Role::Origin, "origin", at.clone());
        let (liar, origin) = (Liar::start(&party, calls()?).await?, calls()?);
        Ok(Self {
            bed,
            device,
            folder,
            liar,
            origin,
        })
    }

    /// Lies to the client; `check` is what it names, and nothing if there is nothing to name.
    async fn check(&self, name: &str, lie: Lie, check: Option<&str>) -> anyhow::Result<()> {
        self.liar.set(lie);
        let at = [format!("liar@{}", self.liar.address())];
        let told = self.device.pulls(name, &at, &self.folder).await?;
        let bypasses = told["bypasses"].as_array().context("a list")?;
        let from_origin = told["pack_bytes"].get("origin origin").is_some();
        ensure!(from_origin == check.is_some(), "{name}: {told}");
        match (check, &bypasses[..]) {
            (None, []) => Ok(()),
            (Some(check), [bypass]) => {
                let named = bypass["source"] == "booster liar"
                    && bypass["reason"].to_string().contains(check);
                ensure!(named, "{name}: want {check:?} in {told}");
                Ok(())
            }
            _other => anyhow::bail!("{name}: {told}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_python_believes_no_liar() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    scene.check("honest", Lie::None, None).await?;
    scene
        .check("flip", Lie::FlipByte, Some("frame: the digest"))
        .await?;
    scene
        .check("short", Lie::Truncate, Some("pack: the length"))
        .await?;
    let Fetched::New { bytes: old, .. } = scene.origin.timestamp(None).await? else {
        anyhow::bail!("nothing was asked that could be unchanged")
    };
    fs::write(scene.folder.join("new"), b"news")?;
    scene.bed.publish("tools", &scene.folder).await?;
    scene.check("news", Lie::None, None).await?;
    let lie = Lie::OldTimestamp(old);
    scene.check("old", lie, Some("timestamp: rollback")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_python_tells_nothing_to_one_without_the_pinned_root() -> anyhow::Result<()> {
    let bed = Testbed::start().await?;
    let pair = self_signed(&bed.path("nobody"), "nobody").await?;
    // Whoever answers has a bag in order, of another deployment.
    let anybody = Curl::plain(&format!("https://{}", bed.origin().addresses().enrol));
    let path = "/.well-known/est/cacerts";
    let bag = anybody.and(["--insecure"]).get(path).await?.body;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bag.len());
    let server = openssl("s_server -accept 127.0.0.1:0 -naccept 1 -cert")
        .arg(&pair.cert)
        .arg("-key")
        .arg(&pair.key)
        .open_input([head.into_bytes(), bag].concat())
        .start()?;
    let place = |said: &String| Some(said.split_once("ACCEPT ")?.1.lines().next()?.to_owned());
    let said = async || server.said_in_all().unwrap_or_default();
    let said = until(said, |said| said.ends_with('\n') && place(said).is_some()).await;
    let at = place(&said).context("it says where it listens")?;
    let join = Join {
        pin: [7; 32],
        token: Some(Token::new([5; Token::BYTES])),
        addresses: vec![at],
    };
    let device = Device::of(&bed, "secretive");
    let refused = device.enrol(&join.reveal(), "60").run().await?;
    ensure!(!refused.status.success(), "{}", refused.told());
    refused.must_say("pin: no certificate in the bag has the pinned key")?;
    let heard = async || server.said_in_all().unwrap_or_default();
    let heard = until(heard, |heard| heard.contains("CONNECTION CLOSED")).await;
    ensure!(heard.contains(&format!("GET {path} HTTP/1.1")), "{heard}");
    let token = join.token.context("it has one")?.reveal();
    for secret in ["Authorization", "POST", "pkcs10", device.id, &token] {
        ensure!(!heard.contains(secret), "it said {secret}: {heard}");
    }
    Ok(())
}
