//! How a booster is: by its own word if it runs, by what it left if it does not.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use member::{ClockStatus, Glance, Identity, Kind, OpenError};
use serde::{Deserialize, Serialize};
use service::Clock;
use service::unix::{CallError, Patience, call};
use thiserror::Error;
use transport::admin::SOCKET_FILE;

use crate::Config;
use crate::cache::scrub::ScrubStatus;
use crate::offline::Outlook;
use crate::pins::Pin;
use crate::revocation::ca_label;

/// How a booster is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Status {
    /// What is known of the clock of its machine.
    pub clock: ClockStatus,
    /// Until when its certificate counts, in Unix seconds.
    pub certificate_expires: i64,
    /// Where it serves content; none if it does not run.
    pub content: Option<String>,
    /// Its deployment.
    pub deployment: String,
    /// Where it relays enrolment; none if it does not run.
    pub enrol: Option<String>,
    /// What works with a restriction: names of checks, and reasons.
    pub degraded: Vec<(String, String)>,
    /// What is not well: names of checks, and reasons.
    pub failing: Vec<(String, String)>,
    /// What it is called.
    pub id: String,
    /// Revocation lists in force: kind of CA, number, next update in Unix seconds.
    pub lists: Vec<ListStatus>,
    /// How far it can tell who has been revoked, and what will happen when.
    pub revocation: Outlook,
    /// Where operators look; none if it does not run.
    pub ops: Option<String>,
    /// What is pinned, as `NAME` or `NAME@N`; none if it does not run.
    pub pins: Option<Vec<Pin>>,
    /// Whether it runs.
    pub running: bool,
    /// How the scrub stands; none if it does not run.
    pub scrub: Option<ScrubStatus>,
    /// Bytes of the cache; none if it does not run.
    pub stored_bytes: Option<u64>,
    /// Until when the last timestamp holds, in Unix seconds; none if it has none that does.
    pub timestamp_expires: Option<i64>,
}

/// One revocation list.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ListStatus {
    /// Of which CA: `root`, `node`, `client` or `content`.
    pub ca: String,
    /// When the next is due, in Unix seconds.
    pub next_update: i64,
    /// Its number.
    pub number: u64,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.running {
            "running"
        } else {
            "not running"
        };
        writeln!(f, "{} in {}: {state}", self.id, self.deployment)?;
        write!(f, "certificate  until {}", day(self.certificate_expires))?;
        for list in &self.lists {
            let (ca, number, next) = (&list.ca, list.number, day(list.next_update));
            write!(f, "\nlist         {ca} {number}, next by {next}")?;
        }
        write!(f, "\nrevocation   {}", self.revocation)?;
        if let Some(expires) = self.timestamp_expires {
            write!(f, "\ntimestamp    holds until {}", day(expires))?;
        }
        let places = [
            ("content", &self.content),
            ("enrolment", &self.enrol),
            ("operators", &self.ops),
        ];
        for (what, place) in places {
            if let Some(place) = place {
                write!(f, "\n{what:<12} {place}")?;
            }
        }
        if let Some(bytes) = self.stored_bytes {
            write!(f, "\ncache        {}", config::Bytes(bytes))?;
        }
        if let Some(scrub) = &self.scrub {
            write!(f, "\nscrub        {scrub}")?;
        }
        for pin in self.pins.iter().flatten() {
            write!(f, "\npinned       {pin}")?;
        }
        if let Some(trouble) = self.clock.trouble() {
            write!(f, "\nclock        {trouble}")?;
        }
        for (check, why) in &self.degraded {
            write!(f, "\ndegraded     {check}: {why}")?;
        }
        for (check, why) in &self.failing {
            write!(f, "\nfailing      {check}: {why}")?;
        }
        Ok(())
    }
}

/// Tells how the booster with these settings is.
///
/// # Errors
///
/// Fails if it has not enrolled, or if what it left cannot be used.
pub async fn status(config: &Config, clock: &Clock) -> Result<Status, StatusError> {
    let request = Request::get("/status")
        .body(Full::<Bytes>::default())
        .expect("a constant request is in order");
    match call(&config.data().join(SOCKET_FILE), request, PATIENCE).await {
        Ok(answer) => serde_json::from_slice(answer.body()).map_err(|_| StatusError::Answer),
        Err(CallError::Connect { .. }) => at_rest(config, clock),
        Err(source) => Err(StatusError::Call { source }),
    }
}

/// What one that does not run left behind.
fn at_rest(config: &Config, clock: &Clock) -> Result<Status, StatusError> {
    let grace = config.crl_grace();
    let glance = Glance::of(config.data(), Kind::Booster, grace, clock)?;
    let identity = glance.identity.ok_or(StatusError::NotEnrolled)?;
    let outlook = Outlook::of(&identity.trust, grace, glance.clock.now());
    Ok(Status {
        content: None,
        enrol: None,
        degraded: Vec::new(),
        failing: Vec::new(),
        ops: None,
        pins: None,
        running: false,
        scrub: None,
        stored_bytes: None,
        timestamp_expires: None,
        ..of_identity(&identity, outlook, glance.clock_status)
    })
}

/// What the identity alone says, as of one that runs.
pub(crate) fn of_identity(identity: &Identity, revocation: Outlook, clock: ClockStatus) -> Status {
    let trust = &identity.trust;
    let cas = trust.roots().into_iter().chain(trust.issuing_cas());
    let lists = cas.filter_map(|ca| {
        let crl = trust.crls().current(ca.id())?;
        let kind = ca_label(ca.kind());
        Some(ListStatus {
            ca: kind.to_owned(),
            next_update: crl.next_update(),
            number: crl.number(),
        })
    });
    Status {
        clock,
        certificate_expires: identity.expires(),
        content: None,
        deployment: identity.name.deployment.to_string(),
        enrol: None,
        degraded: Vec::new(),
        failing: Vec::new(),
        id: identity.name.id.to_string(),
        lists: lists.collect(),
        revocation,
        ops: None,
        pins: None,
        running: true,
        scrub: None,
        stored_bytes: None,
        timestamp_expires: None,
    }
}

/// Why it cannot be told.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StatusError {
    /// What answered is no booster of this release.
    #[error("cannot understand the booster's answer: is it of another release?")]
    Answer,
    /// It runs, but does not answer.
    #[error("cannot ask the booster that runs")]
    Call {
        /// Why.
        source: CallError,
    },
    /// What it left cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It has not enrolled.
    #[error("cannot find a booster there: run larder-booster enrol first")]
    NotEnrolled,
}

impl fmt::Display for ScrubStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.began {
            None => f.write_str("off")?,
            Some(began) => write!(f, "{} % of the round of {}", self.percent, day(began))?,
        }
        if let Some(finished) = self.finished {
            write!(f, ", last whole round {}", day(finished))?;
        }
        if self.damaged > 0 {
            write!(f, "; {} damaged, {} repaired", self.damaged, self.repaired)?;
        }
        Ok(())
    }
}

pub(crate) fn day(at: i64) -> String {
    jiff::Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}

const PATIENCE: Patience = Patience {
    answer_bytes_max: 256 << 10,
    deadline: Duration::from_secs(5),
};
