//! How a device is: who it is, what it has verified, what is installed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use member::{Data, Identity, Kind, State};
use serde::Serialize;
use service::Clock;

use crate::install::record::Record;
use crate::pull::PullError;
use crate::session::SessionError;

/// What is known without asking anybody. Times are Unix seconds.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Status {
    /// Who this device is; none before enrolment.
    pub device: Option<DeviceStatus>,
    /// When the newest timestamp that was verified was made; none if there was none yet.
    pub verified_at: Option<i64>,
    /// The boosters that the deployment document lists.
    pub boosters: Vec<String>,
    /// What is installed, by target.
    pub installed: Vec<InstalledStatus>,
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

/// What is installed at one target.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct InstalledStatus {
    /// Where.
    pub target: PathBuf,
    /// The fileset.
    pub fileset: String,
    /// The revision.
    pub revision: u64,
}

/// Tells how the device of the folder `data` is.
///
/// # Errors
///
/// Fails if what is kept there cannot be read or is damaged.
pub fn status(data: &Path, clock: &Clock) -> Result<Status, PullError> {
    let data = Data::new(data, Kind::Client);
    let now = clock.now();
    let state = State::new(data.state());
    let identity = Identity::load(&data.identity(), Kind::Client, Duration::ZERO, now)
        .map_err(SessionError::Identity)?;
    let marks = state.marks().map_err(SessionError::State)?;
    let mut boosters = Vec::new();
    if let Some(identity) = &identity {
        state.load_crls(&identity.trust, now);
        let judge = transport::ContentJudge::new(Arc::clone(&identity.trust));
        if let Some(document) = state.document(&judge, now) {
            boosters.extend(document.boosters.iter().map(|booster| booster.id.clone()));
        }
    }
    let records = Record::list(&crate::session::installed(data.root()))
        .map_err(crate::install::TargetError::Record)?;
    let installed = records.iter().filter_map(|record| {
        let revision = record.installed()?;
        Some(InstalledStatus {
            target: record.target().to_owned(),
            fileset: revision.fileset().to_owned(),
            revision: revision.number().0,
        })
    });
    Ok(Status {
        device: identity.map(|identity| device(&identity, now)),
        verified_at: Some(marks.issued()).filter(|issued| *issued > 0),
        boosters,
        installed: installed.collect(),
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
        if let Some(at) = self.verified_at {
            write!(f, "\n  last word    of the origin from {}", time(at))?;
        }
        if !self.boosters.is_empty() {
            write!(f, "\n  boosters     {}", self.boosters.join(", "))?;
        }
        for InstalledStatus {
            target,
            fileset,
            revision,
        } in &self.installed
        {
            write!(
                f,
                "\n  installed    {fileset}@{revision} at {}",
                target.display()
            )?;
        }
        Ok(())
    }
}

/// A time for people, in UTC.
fn time(at: i64) -> String {
    Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}
