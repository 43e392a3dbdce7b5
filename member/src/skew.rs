//! Whether the clock of this machine is right, as far as that can be told.
//!
//! Two things tell: what the origin has vouched for before, than which it cannot be earlier; and
//! the origin itself, asked over TLS what time it is. Neither ever moves the clock that we judge
//! by forward: a clock that is ahead refuses more than it should, until somebody sets it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use certs::RefusalReason;
use certs::tls::Expected;
use certs::trust::Revocation;
use config::Period;
use content::durable::{self, Disk as _, RealDisk};
use serde::{Deserialize, Serialize};
use service::Clock;
use tracing::warn;
use transport::source::CallLimits;
use transport::{CallError, ContentJudge, Refusals, Source, SourceSettings};

use crate::data::Data;
use crate::identity::Identity;
use crate::kind::Kind;
use crate::open::Glance;

/// How far the clock of this machine was from the origin's.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Skew {
    /// The origin's time when they were compared, in Unix seconds.
    pub compared_at: i64,
    /// By how many seconds ours was ahead; negative if it was behind.
    pub seconds: i64,
}

impl Skew {
    /// Whether it is more than certificates, lists and statements allow for.
    #[must_use]
    pub fn is_large(self) -> bool {
        self.seconds.abs() > SKEW_SECONDS_MAX
    }

    /// Reads what [`Skew::keep`] has left in the folder `state`; none if that cannot be used.
    #[must_use]
    pub fn kept(state: &Path) -> Option<Self> {
        let bytes = RealDisk.read(&path(state), FILE_BYTES_MAX).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Keeps it in the folder `state`, for `status`; that it cannot be kept harms nothing else.
    pub fn keep(self, state: &Path) {
        let text = serde_json::to_vec(&self).expect("numbers always encode");
        if let Err(error) = durable::write(&RealDisk, &path(state), &text, 0o600) {
            warn!(%error, "cannot keep how far the clock of this machine is off");
        }
    }

    /// Tells the log, and the origin if somebody takes it there.
    pub fn tell(self, refusals: &Refusals) {
        warn!("the clock of this machine is {self}: set it");
        refusals.notice("clock_skew", &self.to_string());
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = Period(Duration::from_secs(self.seconds.unsigned_abs()));
        let way = if self.seconds < 0 {
            "behind"
        } else {
            "ahead of"
        };
        write!(f, "{by} {way} the origin's")
    }
}

/// What is known of the clock of this machine. Times are Unix seconds.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClockStatus {
    /// What it says.
    pub system_at: i64,
    /// The time by which certificates, lists and statements are judged.
    pub judged_at: i64,
    /// How far it was from the origin's when the two were compared last; none if they never were,
    /// or if it has been set back since.
    pub skew: Option<Skew>,
    /// Whether there is a root in date by it: without one, nobody can be judged.
    pub has_root: bool,
}

impl ClockStatus {
    /// What `clock`, which has the floor of a member, and the last comparison come to.
    #[must_use]
    pub fn new(clock: &Clock, skew: Option<Skew>, has_root: bool) -> Self {
        let system_at = clock.told();
        // One that said more than it says now has been set since.
        let set_back = |skew: &Skew| {
            let then = skew.compared_at.saturating_add(skew.seconds);
            system_at < then.saturating_sub(SKEW_SECONDS_MAX)
        };
        Self {
            system_at,
            judged_at: clock.now(),
            skew: skew.filter(|skew| !set_back(skew)),
            has_root,
        }
    }

    /// What is wrong with it, and what that means; none if nothing is known to be.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let says = format!("says {}", time(self.system_at));
        if self.system_at < self.judged_at.saturating_sub(SKEW_SECONDS_MAX) {
            let judged = time(self.judged_at);
            return Some(format!(
                "{says}, and it is {judged} at least, by which all is judged: set it"
            ));
        }
        if let Some(skew) = self.skew.filter(|skew| skew.is_large()) {
            return Some(format!("{says}, {skew}: set it"));
        }
        (!self.has_root).then(|| {
            format!("{says}, when no root that we know is in date: nobody can be judged; set it")
        })
    }
}

/// Asks the origin of `identity`, at its enrolment listener at `addresses`, what time it is, and
/// holds the clock of this machine against it. None if it cannot be asked.
///
/// It must show a certificate of the origin that counts at some time from `proven_at` (Unix
/// seconds) on, the latest that the origin has vouched for; at which, our clock does not decide.
pub async fn compare(
    identity: &Identity,
    addresses: &[String],
    clock: &Clock,
    proven_at: i64,
) -> Option<Skew> {
    for step in 0..STEPS_MAX {
        let at = proven_at.saturating_add(step * STEP_SECONDS);
        let source = source(identity, addresses, at)?;
        match source.hello().await {
            Ok(hello) => {
                return Some(Skew {
                    compared_at: hello.time,
                    seconds: clock.told().saturating_sub(hello.time),
                });
            }
            // The certificate that it has now is younger than that.
            Err(CallError::Distrusted {
                reason: RefusalReason::NotYetValid,
                ..
            }) => {}
            Err(_) => return None,
        }
    }
    None
}

/// [`compare`] for the member of the data folder at `root`, whatever its clock allows otherwise;
/// keeps what comes of it for `status`.
pub async fn look(root: &Path, kind: Kind, clock: &Clock) -> Option<Skew> {
    let (root, own) = (root.to_owned(), clock.clone());
    let glance = tokio::task::spawn_blocking(move || {
        let glance = Glance::of(&root, kind, Duration::ZERO, &own).ok()?;
        Some((glance, Data::new(&root, kind).state()))
    });
    let (glance, state) = glance.await.ok()??;
    let identity = glance.identity?;
    let mut addresses = identity.joined.addresses.clone();
    let judge = ContentJudge::new(Arc::clone(&identity.trust));
    if let Some(document) = glance.state.document(&judge, glance.proven_at) {
        let others = document.origin.enrol_addresses.iter();
        let new: Vec<_> = others.filter(|it| !addresses.contains(it)).collect();
        addresses.extend(new.into_iter().cloned());
    }
    let skew = compare(&identity, &addresses, clock, glance.proven_at).await?;
    let kept = tokio::task::spawn_blocking(move || skew.keep(&state));
    // That it was not kept has been logged, unless the runtime is ending.
    let _ended = kept.await.is_err();
    Some(skew)
}

fn source(identity: &Identity, addresses: &[String], at: i64) -> Option<Source> {
    let offset = at.saturating_sub(Clock::system().now());
    let settings = SourceSettings {
        addresses: addresses.to_vec(),
        expected: Expected::Exactly(identity.origin.clone()),
        revocation: Revocation::BestEffort,
        trust: Arc::clone(&identity.trust),
        own: None,
        clock: Clock::fixed_offset(Arc::new(AtomicI64::new(offset))),
        http2: false,
        limits: LIMITS,
        refusals: None,
    };
    Source::new(settings).ok()
}

fn path(state: &Path) -> PathBuf {
    state.join("clock.json")
}

/// A time for people, in UTC.
pub(crate) fn time(at: i64) -> String {
    jiff::Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}

/// What certificates, lists and timestamps allow for.
const SKEW_SECONDS_MAX: i64 = certs::crl::SKEW_MAX.as_secs() as i64;
/// Two numbers.
const FILE_BYTES_MAX: u64 = 1024;
/// Half of the life of an origin's certificate, which is 30 days and renewed at half of it: one of
/// two steps falls into it.
const STEP_SECONDS: i64 = 14 * 86_400;
/// A device that slept for a year finds out.
const STEPS_MAX: i64 = 27;
/// A person waits for what failed already.
const LIMITS: CallLimits = CallLimits {
    connect_timeout: Duration::from_secs(5),
    call_timeout: Duration::from_secs(5),
    pack_head_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(5),
    bulk_timeout: Duration::from_secs(5),
};

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn check(system_at: i64, skew: Option<Skew>, has_root: bool, expected: &[&str]) {
        let offset = system_at - Clock::system().now();
        let clock = Clock::fixed_offset(Arc::new(AtomicI64::new(offset))).floored(NOW);
        let trouble = ClockStatus::new(&clock, skew, has_root).trouble();
        let told = trouble.clone().unwrap_or_default();
        assert_eq!(trouble.is_none(), expected.is_empty(), "{trouble:?}");
        for part in expected {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_clock_is_said() {
        let skew = |seconds| {
            Some(Skew {
                compared_at: NOW,
                seconds,
            })
        };
        check(NOW + 60, None, true, &[]);
        check(NOW + 60, skew(500), true, &[]);
        check(
            5,
            None,
            true,
            &["says 1970-01-01T", "2027-01-15T", "set it"],
        );
        check(NOW + 7200, skew(7200), true, &["2h ahead of the origin's"]);
        check(NOW + 60, skew(-3600), true, &["1h behind the origin's"]);
        // It has been set since.
        check(NOW + 60, skew(7200), true, &[]);
        check(4_070_908_800, None, false, &["2099-01-01T", "no root"]);
    }

    #[test]
    fn a_comparison_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Skew::kept(folder.path()), None);
        let skew = Skew {
            compared_at: NOW,
            seconds: -5,
        };
        skew.keep(folder.path());
        assert_eq!(Skew::kept(folder.path()), Some(skew));
        std::fs::write(path(folder.path()), "{").unwrap();
        assert_eq!(Skew::kept(folder.path()), None);
    }
}
