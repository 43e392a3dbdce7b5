//! A site: its booster at work, and devices that enrol as their own program would.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use member::{EnrolRequest, Kind, enrol};
use protocol::Join;
use service::Clock;

use super::args::Args;
use super::ground::{Ground, PATIENCE, SERVING, addresses};
use super::page::Page;
use crate::compare::child::Running;
use crate::compare::{ANY_DISK, path};
use crate::load::CpuTime;

/// A booster at work.
pub(super) struct Booster {
    pub(super) id: String,
    ops: SocketAddr,
    running: Running,
}

/// What a booster has had so far: bytes of bodies from the origin, and seconds of the processor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    pub(super) packs: f64,
    pub(super) other: f64,
    pub(super) cpu: f64,
}

impl Booster {
    /// Enrols a booster for `site` and starts it.
    pub(super) async fn start(args: &Args, ground: &Ground, site: &str) -> anyhow::Result<Self> {
        let id = format!("b-{site}");
        let data = ground.folder().join(&id);
        let join = ground.join("booster", site, 1).await?;
        let _deployment = enrol_member(Kind::Booster, &data, &id, join).await?;
        let [content, enrol, ops] = addresses()?;
        let config = ground.folder().join(format!("{id}.toml"));
        let settings = format!(
            "data = {data:?}\ncontent.listen = \"{content}\"\nenrol.listen = \"{enrol}\"\n\
             ops.listen = \"{ops}\"\n{ANY_DISK}"
        );
        fs::write(&config, settings)?;
        let program = args.stage.program("larder-booster")?;
        let serve = ["serve", "--config", path(&config)?];
        let log = ground.folder().join(format!("{id}.log"));
        let mut running = Running::start(args.stage.server_cpu, &program, serve, &log)?;
        running.says(SERVING, PATIENCE)?;
        Ok(Self { id, ops, running })
    }

    /// What it has had so far.
    pub(super) async fn line(&self) -> anyhow::Result<Line> {
        let page = self.page().await?;
        let bytes = |kind: &str| page.sum(UPSTREAM, &format!("kind=\"{kind}\""));
        Ok(Line {
            packs: bytes("pack"),
            other: bytes("other"),
            cpu: self.cpu()?.as_secs_f64(),
        })
    }

    /// Its metrics.
    pub(super) async fn page(&self) -> anyhow::Result<Page> {
        Page::read(self.ops).await
    }

    /// The processor's time that it has taken since it started.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        let all = CpuTime::of_all(&[self.running.pid()])?;
        Ok(all.since(CpuTime::default()))
    }
}

/// Enrols one as its own program would; gives the deployment's name.
pub(super) async fn enrol_member(
    kind: Kind,
    data: &Path,
    id: &str,
    join: Join,
) -> anyhow::Result<String> {
    let request = EnrolRequest {
        id: Some(id.parse()?),
        patience: PATIENCE,
        ..EnrolRequest::new(kind, data.to_owned(), join)
    };
    let done = Box::pin(enrol(request, &Clock::system(), |_| {})).await;
    Ok(done
        .with_context(|| format!("cannot enrol {id}"))?
        .deployment)
}

const UPSTREAM: &str = "larder_booster_upstream_bytes_total";
