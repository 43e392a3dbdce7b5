//! Everybody at once: the first visits, as many at a time as are good for the origin; and the hour
//! after an outage, in which nobody waits for anybody.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::devices::Fleet;
use super::ground::Ground;
use super::per_second;
use super::report::{Row, Took};
use crate::load::Histogram;

/// First visits: a connection, a check-in, and a manifest that is made meanwhile.
#[derive(Clone, Debug, Serialize)]
pub struct First {
    /// Devices.
    pub devices: usize,
    /// Those in a second.
    pub per_second: f64,
    /// The origin's CPU time for one, in microseconds.
    pub cpu_us_each: f64,
    /// Bytes over TCP for one, both ways, TLS included.
    pub bytes_each: f64,
    /// From the first packet to the last of the manifest.
    pub latency_ms: Took,
}

/// Everybody at once, after the origin has started again.
#[derive(Clone, Debug, Serialize)]
pub struct Stormed {
    /// Devices.
    pub devices: usize,
    /// Seconds until the last was served.
    pub seconds: f64,
    /// Devices that were served in a second.
    pub per_second: f64,
    /// The origin's CPU time for one, handshakes that came to nothing included, in microseconds.
    pub cpu_us_each: f64,
    /// The most memory that the origin has had, in bytes.
    pub peak_bytes: u64,
    /// When devices were served, counted from the beginning.
    pub served_ms: Took,
    /// Visits that came to nothing and were made again.
    pub failed: u64,
    /// Why the first of them did.
    pub first_failure: Option<String>,
}

/// Publishes and commits what all should hold, and lets everybody come.
pub(super) async fn first(ground: &Ground, fleet: &mut Fleet) -> anyhow::Result<First> {
    ground.publish(FILESET, 1, 1)?;
    let all = ["all".to_owned()];
    ground.commit(FILESET, 1, &all, json!({})).await?;
    let (before, cpu) = (ground.content_bytes().await?, ground.cpu()?);
    let began = Instant::now();
    let took = fleet.all_come(AT_A_TIME).await?;
    let (took_all, cpu) = (began.elapsed(), ground.cpu()?.since(cpu));
    let bytes = ground.content_bytes().await? - before;
    let count = took.count();
    Ok(First {
        devices: fleet.devices.len(),
        per_second: per_second(count, took_all),
        cpu_us_each: cpu.as_secs_f64() * 1e6 / count as f64,
        bytes_each: bytes / count as f64,
        latency_ms: Took::of(&took),
    })
}

/// Starts the origin again, and has everybody come at once. Who is not served comes again after
/// some seconds.
pub(super) async fn play(ground: &mut Ground, fleet: &mut Fleet) -> anyhow::Result<Stormed> {
    ground.start_again()?;
    let cpu = ground.cpu()?;
    let began = Instant::now();
    let mut visits = JoinSet::new();
    for mut device in std::mem::take(&mut fleet.devices) {
        let place = fleet.place.clone();
        visits.spawn(async move {
            let (mut failed, mut first_failure) = (0_u64, None);
            while let Err(failure) = device.visit(&place).await {
                failed += 1;
                let told = format!("{failure:#}");
                ensure!(began.elapsed() < SERVED_BY, "{}: {told}", device.id);
                first_failure.get_or_insert(told);
                sleep(Duration::from_secs_f64(1.0 + fastrand::f64() * 4.0)).await;
            }
            anyhow::Ok((device, began.elapsed(), failed, first_failure))
        });
    }
    let (mut served, mut failed, mut first_failure) = (Histogram::default(), 0, None);
    while let Some(visit) = visits.join_next().await {
        let (device, after, times, why) = visit?.context("somebody is not served")?;
        served.record(after);
        failed += times;
        first_failure = first_failure.or(why);
        fleet.devices.push(device);
    }
    let cpu = ground.cpu()?.since(cpu);
    let count = served.count();
    Ok(Stormed {
        devices: fleet.devices.len(),
        seconds: began.elapsed().as_secs_f64(),
        per_second: per_second(count, began.elapsed()),
        cpu_us_each: cpu.as_secs_f64() * 1e6 / count as f64,
        peak_bytes: ground.peak_bytes()?,
        served_ms: Took::of(&served),
        failed,
        first_failure,
    })
}

impl First {
    pub(super) fn row(&self) -> Row {
        Row {
            scene: "first visits",
            visits: self.devices as u64,
            per_second: self.per_second,
            cpu_us_each: Some(self.cpu_us_each),
            bytes_each: Some(self.bytes_each),
            took: self.latency_ms,
        }
    }
}

impl Stormed {
    pub(super) fn row(&self) -> Row {
        Row {
            scene: "storm",
            visits: self.devices as u64,
            per_second: self.per_second,
            cpu_us_each: Some(self.cpu_us_each),
            bytes_each: None,
            took: self.served_ms,
        }
    }
}

impl fmt::Display for Stormed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "storm: {} devices at once, all served after {:.1} s; the origin had {} MiB at most; \
             {} visits came to nothing and were made again",
            self.devices,
            self.seconds,
            self.peak_bytes >> 20,
            self.failed
        )?;
        let mut failure = self.first_failure.iter();
        failure.try_for_each(|failure| write!(f, ", the first: {failure}"))
    }
}

/// What all devices hold.
pub(super) const FILESET: &str = "fleet";
/// First visits at a time.
const AT_A_TIME: usize = 64;
/// Who is not served by then counts as lost.
const SERVED_BY: Duration = Duration::from_secs(90);
