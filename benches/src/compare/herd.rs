//! Clients that all ask at once for what nobody has asked for yet, over a thin line.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use content::{Digest, PackId};
use serde::Serialize;

use super::child;
use super::ground::{Ground, path};
use super::peers::{Kind, Server, backend};
use super::point::{Object, Point};
use super::tools;
use crate::load::{Drained, Herd, Until};

/// One herd at one server.
#[derive(Clone, Debug, Serialize)]
pub struct Stampede {
    /// What was measured.
    pub point: String,
    /// At whom.
    pub server: Kind,
    /// In which round.
    pub round: u32,
    /// Bytes that crossed the line, all headers included, by the object's bytes.
    pub line_ratio: f64,
    /// Bytes of packs that the booster says it got, by the packs' bytes.
    pub pack_ratio: Option<f64>,
    /// Seconds until one client alone had checked its first frame, in a run of its own.
    pub alone_first_seconds: f64,
    /// Seconds until half of the clients had checked theirs.
    pub first_p50_seconds: f64,
    /// Seconds until 99 of a hundred had.
    pub first_p99_seconds: f64,
    /// Seconds that the line took for what crossed it, but for the first and the last thousandth.
    pub line_seconds: f64,
    /// Seconds until the last client had all.
    pub all_seconds: f64,
    /// Seconds that one curl took for the same bytes over the same line, without a cache.
    pub curl_seconds: f64,
    /// CPU seconds of the server.
    pub cpu_seconds: f64,
    /// Clients that did not get all.
    pub failed: usize,
    /// Why the first of them did not.
    pub first_failure: Option<String>,
    /// The most memory that its processes have had, in bytes.
    pub peak_bytes: u64,
}

/// What a herd is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kindred {
    pub(super) clients: u16,
    pub(super) mbit: u32,
    pub(super) object: Object,
    pub(super) slow: bool,
}

impl fmt::Display for Stampede {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "round {} {:<22} {:<12} all {:.1} s ({:.3} of curl), first p99 {:.2} s (alone {:.2}), \
             line {:.3} in {:.1} s, peak {} MiB",
            self.round,
            self.point,
            self.server,
            self.all_seconds,
            self.all_seconds / self.curl_seconds,
            self.first_p99_seconds,
            self.alone_first_seconds,
            self.line_ratio,
            self.line_seconds,
            self.peak_bytes >> 20
        )?;
        match &self.first_failure {
            Some(why) => write!(f, ", {} FAILED: {why}", self.failed),
            None => Ok(()),
        }
    }
}

/// Starts a server with an empty cache twice: for one client alone, then for a herd.
pub(super) fn measure(
    ground: &Ground,
    point: &Point,
    kindred: Kindred,
    kind: Kind,
    curl_seconds: f64,
    round: u32,
) -> anyhow::Result<Stampede> {
    let object = ground.object(kindred.object)?;
    let link = ground.link()?;
    let patience = patience(kindred);
    let packs = object.packs.iter().map(|path| pack_id(path));
    let herd = Herd {
        clients: kindred.clients,
        packs: packs.collect::<anyhow::Result<_>>()?,
        thorough: 2,
        slow: kindred.slow.then_some(SLOW),
        patience,
        until: Until::All,
    };
    let alone = Herd {
        clients: 1,
        slow: None,
        until: Until::FirstFrame,
        ..herd.clone()
    };
    link.limit(None)?;
    let server = Server::start(kind, ground, 0)?;
    link.limit(Some(kindred.mbit))?;
    let alone = tools::drain(ground, point, &server, &alone)?.into_iter();
    let alone = alone.collect::<anyhow::Result<Vec<Drained>>>();
    let alone = alone.context("one client alone")?;
    drop(server);

    link.limit(None)?;
    let server = Server::start(kind, ground, 0)?;
    link.limit(Some(kindred.mbit))?;
    let before = server.cpu()?;
    let (drained, carried) = link.watch(|| tools::drain(ground, point, &server, &herd))?;
    let drained = drained?;
    let cpu = server.cpu_since(before)?;
    let peak_bytes = server.peak()?;
    let (drained, failures) = sort(drained, object.bytes);
    if drained.is_empty() {
        bail!("not one client got all: {}", failures.join("; "));
    }
    let first = quantiles(&drained, |one| one.first_frame);
    let all = quantiles(&drained, |one| one.all);
    Ok(Stampede {
        point: point.to_string(),
        server: kind,
        round,
        line_ratio: carried.bytes as f64 / object.bytes as f64,
        line_seconds: carried.within.as_secs_f64(),
        pack_ratio: server
            .pack_bytes()?
            .map(|got| got as f64 / object.bytes as f64),
        alone_first_seconds: quantiles(&alone, |one| one.first_frame).at(1.0),
        first_p50_seconds: first.at(0.5),
        first_p99_seconds: first.at(0.99),
        all_seconds: all.at(1.0),
        curl_seconds,
        cpu_seconds: cpu.as_secs_f64(),
        failed: failures.len(),
        first_failure: failures.into_iter().next(),
        peak_bytes,
    })
}

/// Those who got all that has `bytes` bytes, and why the others did not.
fn sort(drained: Vec<anyhow::Result<Drained>>, bytes: u64) -> (Vec<Drained>, Vec<String>) {
    let (mut good, mut failures) = (Vec::new(), Vec::new());
    for one in drained {
        match one {
            Ok(one) if one.bytes == bytes => good.push(one),
            Ok(one) => failures.push(format!("{} of {bytes} bytes came", one.bytes)),
            Err(failure) => failures.push(format!("{failure:#}")),
        }
    }
    (good, failures)
}

/// How long one curl takes for the object over the line, from a plain nginx.
pub(super) fn curl(ground: &Ground, kindred: Kindred) -> anyhow::Result<f64> {
    let link = ground.link()?;
    link.limit(None)?;
    let (_backend, address) = backend::start(ground)?;
    link.limit(Some(kindred.mbit))?;
    let sink = ground.folder().join("curl.out");
    let url = format!("http://{address}/{}", kindred.object.name);
    let args = ["-sS", "--fail", "-o", path(&sink)?, &url];
    let cpu = ground.args.stage.load_cpu;
    let began = Instant::now();
    child::output(cpu, Path::new("curl"), args, &[], patience(kindred))?;
    Ok(began.elapsed().as_secs_f64())
}

/// Ten times as long as the line needs, and a minute.
fn patience(kindred: Kindred) -> Duration {
    let ideal = kindred.object.bytes as f64 * 8.0 / f64::from(kindred.mbit) / 1e6;
    Duration::from_secs_f64(ideal * 10.0 + 60.0)
}

fn pack_id(path: &str) -> anyhow::Result<PackId> {
    let (_, id) = path
        .rsplit_once('/')
        .context("a pack's path has its name")?;
    Ok(PackId(Digest::from_hex(id)?))
}

struct Quantiles(Vec<Duration>);

fn quantiles(drained: &[Drained], of: fn(&Drained) -> Duration) -> Quantiles {
    let mut times: Vec<Duration> = drained.iter().map(of).collect();
    times.sort_unstable();
    Quantiles(times)
}

impl Quantiles {
    /// Seconds within which that share was done.
    fn at(&self, share: f64) -> f64 {
        let place = (share * self.0.len() as f64).ceil().max(1.0) as usize;
        self.0[place - 1].as_secs_f64()
    }
}

/// Writes a table of all herds.
pub(super) fn write(herds: &[Stampede], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if herds.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "\n| herd | server | all s | line s | of curl | first p50, p99 s | p99 by alone | pack bytes \
         | line bytes | CPU s | peak MiB | failed |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for herd in herds {
        let packs = herd.pack_ratio;
        writeln!(
            f,
            "| {} | {} | {:.2} | {:.2} | {:.3} | {:.2}, {:.2} | {:.2} | {} | {:.3} | {:.1} | {} | {} |",
            herd.point,
            herd.server,
            herd.all_seconds,
            herd.line_seconds,
            herd.all_seconds / herd.curl_seconds,
            herd.first_p50_seconds,
            herd.first_p99_seconds,
            herd.first_p99_seconds / herd.alone_first_seconds,
            packs.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.4}")),
            herd.line_ratio,
            herd.cpu_seconds,
            herd.peak_bytes >> 20,
            herd.failed
        )?;
    }
    Ok(())
}

/// What somebody slow takes: a megabyte a second.
const SLOW: u64 = 1_000_000;
