//! Unchanged check-ins over connections that stay: what one costs the origin.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::args::Args;
use super::device::{Heard, Line};
use super::devices::Fleet;
use super::ground::Ground;
use super::report::{Row, Took};
use crate::load::Histogram;

/// Check-ins over connections that stay.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// Check-ins under way at a time.
    pub at_a_time: u32,
    /// Connections, each of a device of its own.
    pub connections: usize,
    /// Check-ins, all unchanged.
    pub check_ins: u64,
    /// Those in a second.
    pub per_second: f64,
    /// The origin's CPU time for one, in microseconds.
    pub cpu_us_each: f64,
    /// Bytes over TCP for one, both ways, TLS included.
    pub bytes_each: f64,
    /// From sending to the whole answer.
    pub latency_ms: Took,
    /// The most memory that the origin has had, in bytes.
    pub peak_bytes: u64,
}

/// Opens the connections, and checks in on all of them, round after round.
pub(super) async fn play(args: &Args, ground: &Ground, fleet: &Fleet) -> anyhow::Result<Kept> {
    let mut lines = open(fleet).await?;
    let (before, cpu) = (ground.content_bytes().await?, ground.cpu()?);
    let began = Instant::now();
    let mut took = Histogram::default();
    for _ in 0..args.rounds {
        lines = round(fleet, lines, args.at_a_time, &mut took).await?;
    }
    let (seconds, cpu) = (began.elapsed(), ground.cpu()?.since(cpu));
    let bytes = ground.content_bytes().await? - before;
    let lost = lines.iter().filter(|(_, line)| line.is_closed()).count();
    ensure!(lost == 0, "the origin ended {lost} connections");
    let count = took.count() as f64;
    Ok(Kept {
        at_a_time: args.at_a_time,
        connections: lines.len(),
        check_ins: took.count(),
        per_second: count / seconds.as_secs_f64(),
        cpu_us_each: cpu.as_secs_f64() * 1e6 / count,
        bytes_each: bytes / count,
        latency_ms: Took::of(&took),
        peak_bytes: ground.peak_bytes()?,
    })
}

type Lines = Vec<(usize, Line)>;

async fn open(fleet: &Fleet) -> anyhow::Result<Lines> {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    let mut opening = JoinSet::new();
    for (index, device) in fleet.devices.iter().enumerate() {
        let (places, place) = (Arc::clone(&places), fleet.place.clone());
        let (tls, from) = (Arc::clone(&device.tls), device.from);
        opening.spawn(async move {
            let _place = places.acquire_owned().await;
            Ok::<_, anyhow::Error>((index, Line::open(&place, tls, from).await?))
        });
    }
    let mut lines = Vec::new();
    while let Some(line) = opening.join_next().await {
        lines.push(line??);
    }
    Ok(lines)
}

/// One check-in on each connection.
async fn round(
    fleet: &Fleet,
    lines: Lines,
    at_a_time: u32,
    took: &mut Histogram,
) -> anyhow::Result<Lines> {
    let places = Arc::new(Semaphore::new(at_a_time as usize));
    let mut asking = JoinSet::new();
    for (index, mut line) in lines {
        let device = &fleet.devices[index];
        let (places, body, id) = (
            Arc::clone(&places),
            device.check_in(Vec::new()),
            device.id.clone(),
        );
        asking.spawn(async move {
            let _place = places.acquire_owned().await;
            let began = Instant::now();
            let heard = line.check_in(body).await.with_context(|| id.clone())?;
            ensure!(heard == Heard::Nothing, "{id} hears {heard:?}");
            anyhow::Ok((index, line, began.elapsed()))
        });
    }
    let mut kept = Vec::new();
    while let Some(asked) = asking.join_next().await {
        let (index, line, elapsed) = asked??;
        took.record(elapsed);
        kept.push((index, line));
    }
    Ok(kept)
}

impl Kept {
    pub(super) fn row(&self) -> Row {
        Row {
            scene: "kept",
            visits: self.check_ins,
            per_second: self.per_second,
            cpu_us_each: Some(self.cpu_us_each),
            bytes_each: Some(self.bytes_each),
            took: self.latency_ms,
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kept: over {} connections, {} under way at a time; the origin had {} MiB at most",
            self.connections,
            self.at_a_time,
            self.peak_bytes >> 20
        )
    }
}

/// Handshakes at a time.
const HANDSHAKES: usize = 32;
