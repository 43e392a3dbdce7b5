//! What a fleet stands on: an origin at work.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use certs::pem;
use member::Kind;
use origin::admin::AdminClient;
use origin::fleet::{NewToken, TokenCreated};
use origin::model::calls::Reason;
use origin::model::view::{Committed, Diff, DraftView, Edit};
use protocol::Join;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::args::Args;
use super::device::Place;
use super::page::{Page, caught_up};
use super::site::enrol_member;
use crate::compare::child::{self, Running};
use crate::compare::{free_port, noise, path, proc};
use crate::load::CpuTime;

/// The origin, and the folder of the run.
pub(super) struct Ground {
    args: Args,
    config: PathBuf,
    /// The issuing CA of clients, and the roots.
    pub(super) chain: (Vec<u8>, Vec<Vec<u8>>),
    addresses: [SocketAddr; 3],
    host: String,
    /// None only while it is started again.
    origin: Option<Running>,
    pub(super) origin_id: String,
    /// Goes last.
    work: TempDir,
}

impl Ground {
    /// Makes a deployment whose origin lets in as many as come.
    pub(super) async fn lay(args: &Args) -> anyhow::Result<Self> {
        let mut builder = tempfile::Builder::new();
        let work = builder
            .prefix("larder-fleetsim-")
            .tempdir_in(&args.stage.work);
        let work = work.context("cannot make a folder for the run")?;
        let addresses = addresses()?;
        let config = work.path().join("origin.toml");
        fs::write(&config, settings(args, work.path(), addresses, MANY))?;
        let program = args.stage.program("larder-origin")?;
        let init = ["init", "--json", "--address", "127.0.0.1", "--name", "sim"];
        let init = [&init[..], &["--config", path(&config)?]].concat();
        let said = child::output(args.stage.server_cpu, &program, init, &[], PATIENCE)?;
        let said: Value = serde_json::from_slice(&said).context("cannot understand `init`")?;
        let join = said["client"]["join"].as_str();
        let join: Join = join.context("`init` made no token for a client")?.parse()?;
        let origin = serve(args, &config, work.path())?;
        // One device that enrols as all do finds out whom to trust.
        let first = work.path().join("first");
        let deployment = enrol_member(Kind::Client, &first, "first", join).await?;
        let file = |name: &str| fs::read_to_string(first.join("identity").join(name));
        let own = pem::to_certs(&file("cert.pem")?)?;
        let issuing = own.into_iter().nth(1);
        let issuing = issuing.context("a chain has two certificates")?;
        let roots = pem::to_certs(&file("roots.pem")?)?;
        let joined: Value = serde_json::from_str(&file("join.json")?)?;
        let id = joined["origin"].as_str();
        let id = id.context("join.json names the origin")?;
        Ok(Self {
            args: args.clone(),
            config,
            chain: (issuing, roots),
            addresses,
            host: format!("{id}.{deployment}.larder.internal"),
            origin: Some(origin),
            origin_id: id.to_owned(),
            work,
        })
    }

    /// Stops the origin and starts it again, with as many connections as it comes with.
    pub(super) fn start_again(&mut self) -> anyhow::Result<()> {
        let settings = settings(&self.args, self.folder(), self.addresses, USUAL);
        fs::write(&self.config, settings)?;
        // Ends the first before there is a second.
        self.origin = None;
        self.origin = Some(serve(&self.args, &self.config, self.folder())?);
        Ok(())
    }

    pub(super) fn folder(&self) -> &Path {
        self.work.path()
    }

    pub(super) fn admin(&self) -> AdminClient {
        AdminClient::new(&self.folder().join("origin"))
    }

    /// Its listener for content.
    pub(super) fn content(&self) -> anyhow::Result<Place> {
        self.place(self.addresses[0])
    }

    /// Its listener for enrolment.
    pub(super) fn enrolment(&self) -> anyhow::Result<Place> {
        self.place(self.addresses[1])
    }

    fn place(&self, at: SocketAddr) -> anyhow::Result<Place> {
        Ok(Place {
            at,
            host: self.host.clone(),
            name: ServerName::try_from(self.host.clone())?,
        })
    }

    fn pid(&self) -> anyhow::Result<u32> {
        let origin = self.origin.as_ref().context("the origin is not there")?;
        Ok(origin.pid())
    }

    /// The processor's time that the origin has taken.
    pub(super) fn cpu(&self) -> anyhow::Result<CpuTime> {
        CpuTime::of_all(&[self.pid()?])
    }

    /// The most memory that it has had, in bytes.
    pub(super) fn peak_bytes(&self) -> anyhow::Result<u64> {
        proc::peak(self.pid()?)
    }

    /// Its metrics, once they tell of all that has been.
    pub(super) async fn page(&self) -> anyhow::Result<Page> {
        caught_up().await;
        Page::read(self.addresses[2]).await
    }

    /// What has crossed the origin's content listener, TLS included.
    pub(super) async fn content_bytes(&self) -> anyhow::Result<f64> {
        let page = self.page().await?;
        let names = ["received", "sent"].map(|way| format!("larder_origin_http_{way}_bytes_total"));
        let sums = names
            .iter()
            .map(|name| page.sum(name, "listener=\"content\""));
        Ok(sums.sum())
    }

    /// A join string for so many devices of a group.
    pub(super) async fn join(&self, role: &str, group: &str, uses: u32) -> anyhow::Result<Join> {
        let new = NewToken {
            role: role.to_owned(),
            auto_approve: true,
            group: Some(group.to_owned()),
            device: None,
            uses,
            ttl_seconds: 86_400,
        };
        let made: TokenCreated = self.admin().post("/tokens", &new).await?;
        Ok(made.join.parse()?)
    }

    /// Publishes `megabytes` of files that differ for each `seed` as the next revision.
    pub(super) fn publish(&self, name: &str, megabytes: u32, seed: u64) -> anyhow::Result<()> {
        let folder = self.folder().join("source").join(format!("{name}-{seed}"));
        fs::create_dir_all(&folder)?;
        for part in 0..megabytes {
            let bytes = noise(1 << 20, seed * 1000 + u64::from(part));
            fs::write(folder.join(format!("{part:03}")), bytes)?;
        }
        let program = self.args.stage.program("larder-origin")?;
        let publish = [
            "publish",
            name,
            path(&folder)?,
            "--config",
            path(&self.config)?,
        ];
        child::output(self.args.stage.server_cpu, &program, publish, &[], PATIENCE).map(drop)
    }

    /// Bytes of all packs that the origin has.
    pub(super) fn pack_bytes(&self) -> anyhow::Result<u64> {
        let (mut folders, mut bytes) = (vec![self.folder().join("origin/packs")], 0);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let (path, found) = {
                    let entry = entry?;
                    (entry.path(), entry.metadata()?)
                };
                if found.is_dir() {
                    folders.push(path);
                } else {
                    bytes += found.len();
                }
            }
        }
        Ok(bytes)
    }

    /// Says in a draft that every device of `groups` holds that revision, as `association` says,
    /// looks at what that comes to, and commits it. A later revision needs no groups.
    pub(super) async fn commit(
        &self,
        name: &str,
        revision: u64,
        groups: &[String],
        association: Value,
    ) -> anyhow::Result<(Diff, Committed)> {
        let edit = |key: String, says: Value| Edit {
            key,
            says: Some(says),
        };
        let target = format!("/opt/{name}");
        let spec = json!({"revision": revision, "target": target, "mode": "tree"});
        let mut edits = vec![edit(format!("fileset/{name}"), spec)];
        if revision == 1 {
            for group in groups {
                if group != "all" {
                    edits.push(edit(format!("group/{group}"), json!({})));
                }
                let key = format!("association/{name}/group/{group}");
                edits.push(edit(key, association.clone()));
            }
        }
        let admin = self.admin();
        let draft = format!("/model/drafts/{name}-{revision}");
        let _begun: DraftView = admin.post(&format!("{draft}/edits"), &edits).await?;
        let diff: Diff = admin.get(&format!("{draft}/diff")).await?;
        ensure!(diff.offenders.is_empty(), "{:?}", diff.offenders);
        let message = "the next one".to_owned();
        let reason = Reason { message };
        let made: Committed = admin.post(&format!("{draft}/commit"), &reason).await?;
        ensure!(
            made.devices == diff.devices,
            "the diff had said {}",
            diff.devices
        );
        Ok((diff, made))
    }
}

/// Three addresses that nobody has: for content, enrolment, and operators.
pub(super) fn addresses() -> anyhow::Result<[SocketAddr; 3]> {
    let any = || anyhow::Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?)));
    Ok([any()?, any()?, any()?])
}

/// The origin's settings, with room for so many connections.
fn settings(args: &Args, folder: &Path, addresses: [SocketAddr; 3], connections: u32) -> String {
    let [content, enrol, ops] = addresses;
    let (data, interval) = (folder.join("origin"), args.interval.max(INTERVAL_MIN));
    // What one address may ask for is not what is looked at here: all come from this machine.
    format!(
        "data = {data:?}\ncontent.listen = \"{content}\"\ncontent.connections = {connections}\n\
         enrol.listen = \"{enrol}\"\nenrol.rate_per_address = 100000\n\
         enrol.burst_per_address = 100000\nops.listen = \"{ops}\"\n\
         check_in.interval = \"{interval}s\"\nlog.filter = \"warn\"\n"
    )
}

fn serve(args: &Args, config: &Path, folder: &Path) -> anyhow::Result<Running> {
    let program = args.stage.program("larder-origin")?;
    let serve = ["serve", "--config", path(config)?];
    let log = folder.join("origin.log");
    let mut origin = Running::start(args.stage.server_cpu, &program, serve, &log)?;
    origin.says(SERVING, PATIENCE)?;
    Ok(origin)
}

/// What our programs print once they serve.
pub(super) const SERVING: &str = ": content ";
/// How long a step of ours may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// What `check_in.interval` may be at least, in seconds.
pub(super) const INTERVAL_MIN: u32 = 15;
/// Connections, so that every device can keep one.
const MANY: u32 = 60_000;
/// Connections, as the origin has them if nothing else is said.
const USUAL: u32 = 4096;
