//! A second revision for devices behind boosters: each hears of it at its check-in, pulls it with the
//! client's own code into a folder of its own, and says so.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use certs::{keyfile, pem};
use client::{PullReport, PullRequest};
use content::RevisionNumber;
use member::Kind;
use origin::manifests::view::Holds;
use protocol::{FilesetResult, FilesetState, SourceBytes};
use serde::Serialize;
use serde_json::json;
use service::Clock;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::args::Args;
use super::device::{Device, Heard, Place};
use super::enrol::Tls;
use super::ground::Ground;
use super::page::caught_up;
use super::site::{Booster, Line, enrol_member};

/// A second revision for devices behind boosters.
#[derive(Clone, Debug, Serialize)]
pub struct Rolled {
    /// What the diff had said: devices that change, bytes over all lines.
    pub predicted: (u64, u64),
    /// Seconds from the commit until the last device had said that it is active.
    pub seconds: f64,
    /// Bytes of the packs that were new.
    pub pack_bytes: u64,
    /// Bytes from the origin to all boosters.
    pub line_bytes: u64,
    /// Those by the packs' bytes and the number of boosters.
    pub line_ratio: f64,
    /// Bytes over the origin's content listener for one device: check-ins, manifests, and what it
    /// fetched from there; TLS included, boosters' lines too.
    pub origin_bytes_each: f64,
    /// Site by site.
    pub sites: Vec<SiteDone>,
}

/// One site.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SiteDone {
    /// Its name.
    pub site: String,
    /// Devices.
    pub devices: usize,
    /// Devices of which the origin has heard that the second revision is active.
    pub done: usize,
    /// Packs' bytes that its booster had from the origin.
    pub line_pack_bytes: u64,
    /// All else that it had from there.
    pub line_other_bytes: u64,
    /// Seconds of CPU time that its booster took.
    pub cpu_seconds: f64,
    /// Bytes that devices had from the site's booster.
    pub from_booster: u64,
    /// Bytes that they had from the origin itself.
    pub from_origin: u64,
    /// Bytes from anybody else.
    pub from_others: u64,
}

/// A device behind a booster.
pub(super) struct Member {
    device: Device,
    pub(super) data: PathBuf,
    site: String,
    target: PathBuf,
}

/// Plays it.
pub(super) async fn play(args: &Args, ground: &Ground) -> anyhow::Result<Rolled> {
    let sites: Vec<String> = (1..=args.boosters)
        .map(|number| format!("s{number}"))
        .collect();
    let mut boosters = Vec::new();
    for site in &sites {
        boosters.push(Booster::start(args, ground, site).await?);
    }
    let place = ground.content()?;
    let mut members = enrol_all(args, ground, &sites).await?;
    ground.publish(FILESET, args.megabytes, 101)?;
    ground.commit(FILESET, 1, &sites, json!({})).await?;
    members = converge(members, &place, 1).await?;
    let (before, packs) = (lines(&boosters).await?, ground.pack_bytes()?);
    ground.publish(FILESET, args.megabytes, 102)?;
    let pack_bytes = ground.pack_bytes()? - packs;
    let at_origin = ground.content_bytes().await?;
    let began = Instant::now();
    let (diff, made) = ground.commit(FILESET, 2, &[], json!({})).await?;
    ensure!(
        made.devices == members.len() as u64,
        "want all of {}",
        members.len()
    );
    let members = converge(members, &place, 2).await?;
    let seconds = began.elapsed().as_secs_f64();
    let at_origin = ground.content_bytes().await? - at_origin;
    let after = lines(&boosters).await?;
    let mut table = Vec::new();
    for (index, site) in sites.iter().enumerate() {
        let line = (before[index], after[index]);
        table.push(look(ground, &members, site, &boosters[index], line).await?);
    }
    let line_bytes: u64 = table
        .iter()
        .map(|site| site.line_pack_bytes + site.line_other_bytes)
        .sum();
    let expected = pack_bytes as f64 * boosters.len() as f64;
    Ok(Rolled {
        predicted: (diff.devices, diff.line_bytes),
        seconds,
        pack_bytes,
        line_bytes,
        line_ratio: line_bytes as f64 / expected,
        origin_bytes_each: at_origin / members.len() as f64,
        sites: table,
    })
}

async fn lines(boosters: &[Booster]) -> anyhow::Result<Vec<Line>> {
    caught_up().await;
    let mut lines = Vec::new();
    for booster in boosters {
        lines.push(booster.line().await?);
    }
    Ok(lines)
}

/// Enrols the devices of all sites, each as its own program would.
pub(super) async fn enrol_all(
    args: &Args,
    ground: &Ground,
    sites: &[String],
) -> anyhow::Result<Vec<Member>> {
    let tls = Tls::new(ground)?;
    std::fs::create_dir_all(ground.folder().join("targets"))?;
    let mut members = Vec::new();
    for site in sites {
        let join = ground.join("client", site, args.per_site).await?;
        let mut enrolling = JoinSet::new();
        for number in 0..args.per_site {
            let id = format!("{site}-{number:03}");
            let (data, join) = (ground.folder().join("clients").join(&id), join.clone());
            enrolling.spawn(async move {
                let _deployment = enrol_member(Kind::Client, &data, &id, join).await?;
                anyhow::Ok((id, data))
            });
        }
        while let Some(enrolled) = enrolling.join_next().await {
            let (id, data) = enrolled??;
            let identity = data.join("identity");
            let key = keyfile::load(&identity.join("key.pem"))?;
            let chain = pem::to_certs(&std::fs::read_to_string(identity.join("cert.pem"))?)?;
            let leaf = chain.into_iter().next().context("a chain has a leaf")?;
            let device = Device {
                id,
                tls: tls.config(Some((leaf, &key)))?,
                from: std::net::Ipv4Addr::LOCALHOST,
                held: None,
            };
            // Not within the data folder, which is the client's own.
            let target = ground.folder().join("targets").join(&device.id);
            members.push(Member {
                device,
                target,
                data,
                site: site.clone(),
            });
        }
    }
    Ok(members)
}

/// Everybody goes on until it holds that revision.
async fn converge(
    members: Vec<Member>,
    place: &Place,
    revision: u64,
) -> anyhow::Result<Vec<Member>> {
    let places = Arc::new(Semaphore::new(PULLS));
    let mut going = JoinSet::new();
    for mut member in members {
        let (place, places) = (place.clone(), Arc::clone(&places));
        going.spawn(async move {
            // They come within some seconds of each other, as by the agent's news and waits.
            sleep(Duration::from_secs_f64(fastrand::f64() * SPREAD_SECONDS)).await;
            let _place = places.acquire_owned().await;
            let id = member.device.id.clone();
            let done = member.go(&place, revision).await;
            done.with_context(|| format!("{id} has failed"))?;
            anyhow::Ok(member)
        });
    }
    let mut done = Vec::new();
    while let Some(member) = going.join_next().await {
        done.push(member??);
    }
    Ok(done)
}

impl Member {
    /// Hears, pulls, installs, and says so.
    async fn go(&mut self, place: &Place, revision: u64) -> anyhow::Result<()> {
        let heard = self.device.visit(place).await?;
        ensure!(heard != Heard::Nothing, "it has heard of nothing");
        let fileset = FILESET.parse()?;
        let request = PullRequest {
            number: Some(RevisionNumber(revision)),
            site: Some(self.site.clone()),
            ..PullRequest::new(self.data.clone(), fileset, self.target.clone())
        };
        let pulled = Box::pin(client::pull(request, &Clock::system())).await?;
        ensure!(pulled.bypasses.is_empty(), "{:?}", pulled.bypasses);
        let mut line = self.device.connect(place).await?;
        let results = vec![result(&pulled)?];
        line.check_in(self.device.check_in(results)).await?;
        Ok(())
    }
}

fn result(pulled: &PullReport) -> anyhow::Result<FilesetResult> {
    let sources = pulled.sources.iter().map(|it| SourceBytes {
        // "booster b-s1": the role is known by the id.
        id: it.source.rsplit(' ').next().unwrap_or_default().to_owned(),
        bytes: it.pack_bytes + it.other_bytes,
    });
    Ok(FilesetResult {
        fileset: FILESET.parse()?,
        revision: pulled.revision,
        state: FilesetState::Active,
        at: Clock::system().now(),
        note: String::new(),
        sources: sources.collect(),
    })
}

/// What the origin knows of the devices of one site.
async fn look(
    ground: &Ground,
    members: &[Member],
    site: &str,
    booster: &Booster,
    (before, after): (Line, Line),
) -> anyhow::Result<SiteDone> {
    let mut seen = SiteDone {
        site: site.to_owned(),
        line_pack_bytes: (after.packs - before.packs) as u64,
        line_other_bytes: (after.other - before.other) as u64,
        cpu_seconds: after.cpu - before.cpu,
        ..SiteDone::default()
    };
    for member in members.iter().filter(|member| member.site == site) {
        seen.devices += 1;
        let path = format!("/devices/{}/holds", member.device.id);
        let holds: Holds = ground.admin().get(&path).await?;
        for said in holds.results.iter().map(|result| &result.said) {
            if said.revision != 2 || said.state != FilesetState::Active {
                continue;
            }
            seen.done += 1;
            for source in &said.sources {
                if source.id == booster.id {
                    seen.from_booster += source.bytes;
                } else if source.id == ground.origin_id {
                    seen.from_origin += source.bytes;
                } else {
                    seen.from_others += source.bytes;
                }
            }
        }
    }
    Ok(seen)
}

impl Rolled {
    /// Whether all have it, and nobody had it from elsewhere.
    pub(super) fn is_good(&self) -> bool {
        let all = self.sites.iter().all(|site| site.done == site.devices);
        let elsewhere: u64 = self.sites.iter().map(|site| site.from_others).sum();
        all && elsewhere == 0
    }
}

impl fmt::Display for Rolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (devices, bytes) = self.predicted;
        writeln!(
            f,
            "roll-out: {devices} devices and {bytes} bytes over all lines were predicted; all done \
             after {:.1} s",
            self.seconds
        )?;
        writeln!(
            f,
            "  {} bytes of new packs, {} from the origin to {} boosters: {:.4}; \
             {:.0} bytes at the origin for each device",
            self.pack_bytes,
            self.line_bytes,
            self.sites.len(),
            self.line_ratio,
            self.origin_bytes_each
        )?;
        write!(
            f,
            "  {:<8} {:>9} {:>12} {:>10} {:>14} {:>12} {:>8} {:>6}",
            "site", "done", "line: packs", "else", "from booster", "from origin", "others", "CPU s"
        )?;
        for site in &self.sites {
            let done = format!("{}/{}", site.done, site.devices);
            write!(
                f,
                "\n  {:<8} {done:>9} {:>12} {:>10} {:>14} {:>12} {:>8} {:>6.2}",
                site.site,
                site.line_pack_bytes,
                site.line_other_bytes,
                site.from_booster,
                site.from_origin,
                site.from_others,
                site.cpu_seconds
            )?;
        }
        Ok(())
    }
}

/// What is rolled out.
const FILESET: &str = "rollout";
/// Pulls at a time: this machine is one, and they are as many.
const PULLS: usize = 32;
/// Over how many seconds devices hear of it.
const SPREAD_SECONDS: f64 = 5.0;
