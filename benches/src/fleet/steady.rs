//! Devices that come at their interval, each time over a new connection, while nothing changes.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::args::Args;
use super::device::{Device, Heard, Place};
use super::devices::Fleet;
use super::ground::Ground;
use super::report::{Row, Took};
use crate::load::Histogram;

/// Check-ins at the interval.
#[derive(Clone, Debug, Serialize)]
pub struct Steady {
    /// Devices.
    pub devices: usize,
    /// Seconds between two check-ins of one.
    pub interval: u32,
    /// Seconds that it took.
    pub seconds: f64,
    /// Check-ins that were answered.
    pub check_ins: u64,
    /// Those in a second.
    pub per_second: f64,
    /// The origin's CPU time for one, handshake included, in microseconds.
    pub cpu_us_each: f64,
    /// Of one CPU, how much the origin took.
    pub cpu_percent: f64,
    /// Bytes over TCP for one, both ways, TLS included.
    pub bytes_each: f64,
    /// From the first packet of a connection to the whole answer.
    pub latency_ms: Took,
    /// How many of them heard of something: there is nothing.
    pub news: u64,
    /// Visits that came to nothing.
    pub failed: u64,
    /// Why the first of them did.
    pub first_failure: Option<String>,
}

/// What became of one visit.
pub(super) struct Visit {
    began: Instant,
    /// It had a manifest, and has another one now.
    is_moved: bool,
    outcome: anyhow::Result<Heard>,
    took: Duration,
}

/// What became of all.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) failed: u64,
    pub(super) first_failure: Option<String>,
    /// When those visits began that brought another manifest.
    pub(super) moved: Vec<Instant>,
    pub(super) news: u64,
    pub(super) took: Histogram,
}

/// How devices come, for a time.
#[derive(Clone)]
pub(super) struct Life {
    /// One in so many visits is of a device that was set up anew, and knows nothing any more.
    pub(super) forgets: Option<u32>,
    pub(super) interval: f64,
    pub(super) place: Place,
    /// None has it before it is said.
    pub(super) end: Arc<OnceLock<Instant>>,
}

/// Has all devices come at their interval.
pub(super) async fn play(
    args: &Args,
    ground: &Ground,
    fleet: &mut Fleet,
) -> anyhow::Result<Steady> {
    let (before, cpu) = (ground.content_bytes().await?, ground.cpu()?);
    let began = Instant::now();
    let life = Life {
        forgets: None,
        interval: args.interval.into(),
        place: fleet.place.clone(),
        end: Arc::new((began + Duration::from_secs(args.seconds.into())).into()),
    };
    let sums = life.live(&mut fleet.devices).await?;
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), ground.cpu()?.since(cpu));
    let bytes = ground.content_bytes().await? - before;
    let count = sums.took.count() as f64;
    Ok(Steady {
        devices: fleet.devices.len(),
        interval: args.interval,
        seconds,
        check_ins: sums.took.count(),
        per_second: count / seconds,
        cpu_us_each: cpu.as_secs_f64() * 1e6 / count,
        cpu_percent: cpu.as_secs_f64() * 100.0 / seconds,
        bytes_each: bytes / count,
        latency_ms: Took::of(&sums.took),
        news: sums.news,
        failed: sums.failed,
        first_failure: sums.first_failure,
    })
}

impl Life {
    /// Has `devices` live until the end.
    pub(super) async fn live(&self, devices: &mut Vec<Device>) -> anyhow::Result<Sums> {
        let (tell, mut told) = mpsc::channel(1024);
        let mut lives = JoinSet::new();
        for device in std::mem::take(devices) {
            lives.spawn(self.clone().of(device, tell.clone()));
        }
        drop(tell);
        let mut sums = Sums::default();
        while let Some(visit) = told.recv().await {
            sums.add(visit);
        }
        while let Some(device) = lives.join_next().await {
            devices.push(device?);
        }
        devices.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(sums)
    }

    /// One device's life.
    async fn of(self, mut device: Device, tell: mpsc::Sender<Visit>) -> Device {
        let mut due = Instant::now() + Duration::from_secs_f64(self.interval * fastrand::f64());
        while self.end.get().is_none_or(|end| due < *end) {
            sleep_until(due).await;
            if self
                .forgets
                .is_some_and(|one_in| fastrand::u32(..one_in) == 0)
            {
                device.held = None;
            }
            let had = device.held.clone();
            let began = Instant::now();
            let outcome = device.visit(&self.place).await;
            let visit = Visit {
                began,
                is_moved: had.is_some() && had != device.held,
                outcome,
                took: began.elapsed(),
            };
            if tell.send(visit).await.is_err() {
                break;
            }
            // As the agent does it.
            due += Duration::from_secs_f64(self.interval * (0.9 + fastrand::f64() / 5.0));
        }
        device
    }
}

impl Sums {
    fn add(&mut self, visit: Visit) {
        match visit.outcome {
            Ok(heard) => {
                self.took.record(visit.took);
                self.news += u64::from(heard != Heard::Nothing);
            }
            Err(failure) => {
                self.failed += 1;
                let told = || format!("{failure:#}");
                self.first_failure.get_or_insert_with(told);
            }
        }
        self.moved.extend(visit.is_moved.then_some(visit.began));
    }
}

impl Steady {
    pub(super) fn row(&self) -> Row {
        Row {
            scene: "steady",
            visits: self.check_ins,
            per_second: self.per_second,
            cpu_us_each: Some(self.cpu_us_each),
            bytes_each: Some(self.bytes_each),
            took: self.latency_ms,
        }
    }
}

impl fmt::Display for Steady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "steady: {} devices every {} s for {:.0} s, each time over a new connection; the \
             origin took {:.1} % of a CPU; {} heard news, {} failed",
            self.devices, self.interval, self.seconds, self.cpu_percent, self.news, self.failed
        )?;
        let mut failure = self.first_failure.iter();
        failure.try_for_each(|failure| write!(f, ", the first: {failure}"))
    }
}
