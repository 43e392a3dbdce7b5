//! How a device is: who it is, what it has verified, what is installed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use content::statement::{Statement, Timestamp};
use member::{ClockStatus, Glance, Identity, Kind};
use serde::Serialize;
use service::Clock;

use crate::agent::{AgentStatus, agent_status};
use crate::catalogue::over;
use crate::install::record::Record;
use crate::pull::PullError;
use crate::session::SessionError;

/// What is known without asking anybody. Times are Unix seconds.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Status {
    /// What is known of the clock of this machine.
    pub clock: ClockStatus,
    /// Who this device is; none before enrolment.
    pub device: Option<DeviceStatus>,
    /// When the newest timestamp that was verified was made; none if there was none yet.
    pub verified_at: Option<i64>,
    /// The newest timestamp that was verified; none if there was none yet.
    pub timestamp: Option<TimestampStatus>,
    /// The boosters that the deployment document lists.
    pub boosters: Vec<String>,
    /// What is installed, by target.
    pub installed: Vec<InstalledStatus>,
    /// What the agent knows; none if it has never run.
    pub agent: Option<AgentStatus>,
}

/// Who a device is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DeviceStatus {
    /// The deployment.
    pub deployment: String,
    /// What it is called.
    pub id: String,
    /// SHA-256 of its public key, in groups of four digits.
    pub fingerprint: String,
    /// From when on its certificate counts.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
    /// Whether that is over.
    pub expired: bool,
}

/// How long the newest timestamp counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct TimestampStatus {
    /// When it ends.
    pub expires: i64,
    /// Until when it counts if nobody has a newer one: that, and the grace of the settings.
    pub counts_until: i64,
    /// What that comes to now.
    pub state: TimestampState,
}

/// What the newest timestamp is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestampState {
    /// It holds.
    Fresh,
    /// It has ended, and counts if nobody has a newer one.
    Grace,
    /// It counts no more: nothing is installed without a newer one.
    Closed,
}

/// What is installed at one target.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct InstalledStatus {
    /// Where.
    pub target: PathBuf,
    /// The fileset.
    pub fileset: String,
    /// The revision.
    pub revision: u64,
    /// Whether others may have files there too.
    pub shared: bool,
}

/// Tells how the device of the folder `data` is. A timestamp counts for `grace` after its end.
///
/// # Errors
///
/// Fails if what is kept there cannot be read or is damaged.
pub fn status(data: &Path, grace: Duration, clock: &Clock) -> Result<Status, PullError> {
    let Glance {
        clock,
        clock_status,
        identity,
        state,
        ..
    } = Glance::of(data, Kind::Client, grace, clock).map_err(SessionError::Open)?;
    let now = clock.now();
    let marks = state.marks().map_err(SessionError::State)?;
    let (mut boosters, mut last) = (Vec::new(), None);
    if let Some(identity) = &identity {
        let judge = transport::ContentJudge::new(Arc::clone(&identity.trust));
        if let Some(document) = state.document(&judge, now) {
            boosters.extend(document.boosters.iter().map(|booster| booster.id.clone()));
        }
        // Judged at its own time: that it was good when it came is what it is kept for.
        let at = marks.issued();
        let envelope = state.timestamp();
        let opened = envelope.map(|envelope| Statement::<Timestamp>::open(&envelope, &judge, at));
        last = opened.and_then(Result::ok);
    }
    let records = Record::list(&crate::session::installed(data))
        .map_err(crate::install::TargetError::Record)?;
    let installed = records.iter().filter_map(|record| {
        let revision = record.installed()?;
        Some(InstalledStatus {
            target: record.target().to_owned(),
            fileset: revision.fileset().to_owned(),
            revision: revision.number().0,
            shared: record.is_shared(),
        })
    });
    Ok(Status {
        clock: clock_status,
        device: identity.map(|identity| device(&identity, now)),
        verified_at: Some(marks.issued()).filter(|issued| *issued > 0),
        timestamp: last.map(|last| timestamp(&last, grace, now)),
        boosters,
        installed: installed.collect(),
        agent: agent_status(data, now)?,
    })
}

fn device(identity: &Identity, now: i64) -> DeviceStatus {
    let (not_before, not_after) = identity.cell.validity().unwrap_or_default();
    DeviceStatus {
        deployment: identity.joined.deployment.clone(),
        id: identity.joined.id.clone(),
        fingerprint: identity.key.fingerprint(),
        not_before,
        not_after,
        expired: now >= not_after,
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            None => write!(f, "not enrolled")?,
            Some(device) => {
                let DeviceStatus { deployment, id, .. } = device;
                writeln!(f, "{id} in {deployment}")?;
                writeln!(f, "  key          {}", device.fingerprint)?;
                let over = if device.expired { " (over)" } else { "" };
                write!(f, "  certified    until {}{over}", time(device.not_after))?;
            }
        }
        if let Some(trouble) = self.clock.trouble() {
            write!(f, "\n  clock        {trouble}")?;
        }
        if let Some(at) = self.verified_at {
            write!(f, "\n  last word    of the origin from {}", time(at))?;
        }
        if let Some(timestamp) = &self.timestamp {
            write!(f, "\n  {timestamp}")?;
        }
        if !self.boosters.is_empty() {
            write!(f, "\n  boosters     {}", self.boosters.join(", "))?;
        }
        for InstalledStatus {
            target,
            fileset,
            revision,
            shared,
        } in &self.installed
        {
            let way = if *shared { "merged into" } else { "at" };
            write!(
                f,
                "\n  installed    {fileset}@{revision} {way} {}",
                target.display()
            )?;
        }
        if let Some(agent) = &self.agent {
            write!(f, "{agent}")?;
        }
        Ok(())
    }
}

impl fmt::Display for TimestampStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expires, counts_until) = (time(self.expires), time(self.counts_until));
        match self.state {
            TimestampState::Fresh => write!(f, "timestamp    holds until {expires}"),
            TimestampState::Grace => write!(
                f,
                "timestamp    ended {expires}; counts until {counts_until} if nobody has a newer one"
            ),
            TimestampState::Closed => write!(
                f,
                "timestamp    ended {expires}; nothing is installed without a newer one"
            ),
        }
    }
}

fn timestamp(last: &Timestamp, grace: Duration, now: i64) -> TimestampStatus {
    let counts_until = over(last.expires, grace);
    TimestampStatus {
        expires: last.expires,
        counts_until,
        state: if now < last.expires {
            TimestampState::Fresh
        } else if now < counts_until {
            TimestampState::Grace
        } else {
            TimestampState::Closed
        },
    }
}

/// A time for people, in UTC.
pub(crate) fn time(at: i64) -> String {
    jiff::Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}
