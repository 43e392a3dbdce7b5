//! Devices that come at their interval while things change: a commit for all of them, new devices,
//! some that were set up anew, and some that are revoked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use origin::fleet::Revocation;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::args::Args;
use super::device::{Device, Place};
use super::devices::Fleet;
use super::enrol;
use super::ground::Ground;
use super::report::{Row, Took};
use super::steady::Life;
use super::storm::FILESET;

/// Check-ins while things change.
#[derive(Clone, Debug, Serialize)]
pub struct Changed {
    /// Devices, those that come and go not counted.
    pub devices: usize,
    /// Seconds that it took.
    pub seconds: f64,
    /// Check-ins that were answered.
    pub check_ins: u64,
    /// From the first packet of a connection to the whole answer, and the manifest if there was one.
    pub latency_ms: Took,
    /// Visits that came to nothing.
    pub failed: u64,
    /// Why the first of them did.
    pub first_failure: Option<String>,
    /// How long the commit took, the look at what it comes to included.
    pub commit_seconds: f64,
    /// When devices had come for what the commit brought, counted from its end, in seconds: half of
    /// them, and the last.
    pub came_seconds: (f64, f64),
    /// Devices that did not come for it in time.
    pub behind: usize,
    /// New devices that had their manifest at their first visit.
    pub enrolled: usize,
    /// How long it took them all together, from making their keys.
    pub enrolled_seconds: f64,
    /// What became of the revoked.
    pub revoked: Revoked,
}

/// Devices that were revoked.
#[derive(Clone, Debug, Serialize)]
pub struct Revoked {
    /// How many.
    pub devices: usize,
    /// How long the call took.
    pub call_seconds: f64,
    /// When the connections of those who were there had been ended, counted from the call.
    pub ended_seconds: f64,
    /// How many were let in afterwards.
    pub let_in: usize,
}

/// What happened meanwhile.
struct Script {
    commit: (f64, Instant),
    /// The model that it made.
    model: u64,
    enrolled: Vec<Device>,
    enrolled_seconds: f64,
    revoked: Revoked,
}

/// Has devices come at their interval, until all have come once after the commit.
pub(super) async fn play(
    args: &Args,
    ground: &Ground,
    fleet: &mut Fleet,
) -> anyhow::Result<Changed> {
    ground.publish(FILESET, 1, 2)?;
    let few = (fleet.devices.len() / 50).clamp(2, 200);
    let mut out = fleet.devices.split_off(fleet.devices.len() - few);
    let began = Instant::now();
    let settle = Duration::from_secs_f64(f64::from(args.interval) * 0.1);
    let life = Life {
        // A hundredth: more than any fleet has, so that it shows.
        forgets: Some(100),
        interval: args.interval.into(),
        place: fleet.place.clone(),
        end: Arc::default(),
    };
    let place = fleet.place.clone();
    let script = async {
        sleep(settle).await;
        let happened = happen(ground, &place, &mut out, few).await;
        // Whoever came just before the commit comes again within 1.1 of the interval.
        let rest = Duration::from_secs_f64(f64::from(args.interval) * 1.2);
        let committed = happened
            .as_ref()
            .map_or_else(|_| Instant::now(), |it| it.commit.1);
        // It is set here alone, and once.
        life.end.get_or_init(|| committed + rest);
        happened
    };
    let (sums, script) = tokio::join!(life.live(&mut fleet.devices), script);
    let (sums, script) = (sums?, script?);
    let (commit_seconds, committed) = script.commit;
    let mut came: Vec<f64> = sums
        .moved
        .iter()
        .map(|at| at.saturating_duration_since(committed).as_secs_f64())
        .collect();
    came.sort_by(f64::total_cmp);
    let at = |index: usize| came.get(index).copied().unwrap_or(f64::NAN);
    let changed = Changed {
        devices: fleet.devices.len(),
        seconds: began.elapsed().as_secs_f64(),
        check_ins: sums.took.count(),
        latency_ms: Took::of(&sums.took),
        failed: sums.failed,
        first_failure: sums.first_failure,
        commit_seconds,
        came_seconds: (at(came.len() / 2), at(came.len().saturating_sub(1))),
        behind: behind(&fleet.devices, script.model),
        enrolled: script.enrolled.len(),
        enrolled_seconds: script.enrolled_seconds,
        revoked: script.revoked,
    };
    fleet.devices.extend(script.enrolled);
    Ok(changed)
}

/// A commit, then new devices, then `out` are revoked.
async fn happen(
    ground: &Ground,
    place: &Place,
    out: &mut [Device],
    few: usize,
) -> anyhow::Result<Script> {
    let began = Instant::now();
    let (_, made) = ground.commit(FILESET, 2, &[], json!({})).await?;
    let commit = (began.elapsed().as_secs_f64(), Instant::now());
    let began = Instant::now();
    let mut enrolled = enrol::many(ground, "n", u32::try_from(few)?).await?;
    for device in &mut enrolled {
        let visit = device.visit(place).await;
        visit.with_context(|| format!("{} is turned away", device.id))?;
        ensure!(device.held.is_some(), "{} has no manifest", device.id);
    }
    let enrolled_seconds = began.elapsed().as_secs_f64();
    let revoked = revoke(ground, place, out).await?;
    Ok(Script {
        commit,
        model: made.model,
        enrolled,
        enrolled_seconds,
        revoked,
    })
}

/// How many go by a manifest that was made before that model.
fn behind(devices: &[Device], model: u64) -> usize {
    let of = |device: &Device| device.held.as_ref().map_or(0, |held| held.model);
    devices.iter().filter(|device| of(device) < model).count()
}

/// Revokes `out`, of whom some are connected, and sees that they are out.
async fn revoke(ground: &Ground, place: &Place, out: &mut [Device]) -> anyhow::Result<Revoked> {
    let mut lines = Vec::new();
    for device in out.iter().take(CONNECTED) {
        let mut line = device.connect(place).await?;
        line.check_in(device.check_in(Vec::new())).await?;
        lines.push(line);
    }
    let revocation = Revocation {
        devices: out.iter().map(|device| device.id.clone()).collect(),
        reason: None,
    };
    let began = Instant::now();
    let _done: Value = ground.admin().post("/revocations", &revocation).await?;
    let call_seconds = began.elapsed().as_secs_f64();
    while lines.iter().any(|line| !line.is_closed()) {
        ensure!(began.elapsed() < OUT_BY, "somebody revoked is still there");
        sleep(LOOK).await;
    }
    let ended_seconds = began.elapsed().as_secs_f64();
    let mut let_in = 0;
    for device in out.iter_mut() {
        let_in += usize::from(device.visit(place).await.is_ok());
    }
    Ok(Revoked {
        devices: out.len(),
        call_seconds,
        ended_seconds,
        let_in,
    })
}

impl Changed {
    /// Whether everybody was served as they should be.
    pub(super) fn is_good(&self) -> bool {
        self.failed == 0 && self.behind == 0 && self.revoked.let_in == 0
    }
}

impl Changed {
    pub(super) fn row(&self) -> Row {
        Row {
            scene: "change",
            visits: self.check_ins,
            per_second: self.check_ins as f64 / self.seconds,
            // The origin does much else meanwhile.
            cpu_us_each: None,
            bytes_each: None,
            took: self.latency_ms,
        }
    }
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (half, last) = self.came_seconds;
        write!(
            f,
            "change: {} devices for {:.0} s, {} visits failed\n  \
             commit for all in {:.2} s; half of them came for it within {half:.1} s, the last \
             within {last:.1} s, {} did not\n  {} new ones enrolled and had their manifest within \
             {:.1} s\n  revoked {} in {:.2} s, connections ended after {:.2} s, {} let in \
             afterwards",
            self.devices,
            self.seconds,
            self.failed,
            self.commit_seconds,
            self.behind,
            self.enrolled,
            self.enrolled_seconds,
            self.revoked.devices,
            self.revoked.call_seconds,
            self.revoked.ended_seconds,
            self.revoked.let_in
        )?;
        let mut failure = self.first_failure.iter();
        failure.try_for_each(|failure| write!(f, "\n  the first failure: {failure}"))
    }
}

/// Of the revoked, so many are connected when it happens.
const CONNECTED: usize = 50;
/// A session that is revoked ends within a second; a machine that does much else gets some more.
const OUT_BY: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);
