//! The booster's settings, and the file that an operator writes.

mod raw;
mod wan;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::config::{HostPort, LoadError, Period};
use content::pack::PACK_BYTES_MAX;
use serde::Deserialize;
use service::logs;

use crate::cache::Limits;
use crate::upstream::Parent;
use crate::wan::Schedule;
use raw::{Raw, RawCache, RawContent, RawEnrol, RawLog, RawOps, RawRevocation, RawUpstream};

/// What the booster is told: usable as it stands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Raw")]
pub struct Config {
    boosters: bool,
    cache: Limits,
    check_ins: bool,
    connections_max: usize,
    content: Listener,
    crl_grace: Duration,
    crl_poll: Duration,
    data: PathBuf,
    enrol: Listener,
    log: Log,
    ops: SocketAddr,
    parents: Vec<Parent>,
    stop_grace: Duration,
    wan: Schedule,
}

/// A listener, and where others reach it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where others reach it. Empty: to be found out.
    pub addresses: Vec<HostPort>,
}

/// The log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    /// Text or JSON.
    pub format: logs::Format,
    /// What is let through.
    pub filter: String,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read or used; the error names the line and the key.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        ::config::load(path)
    }

    /// The defaults, with the data folder `data`.
    #[must_use]
    pub fn with_data(data: PathBuf) -> Self {
        let raw = Raw {
            data,
            stop_grace: None,
            content: RawContent::default(),
            enrol: RawEnrol::default(),
            cache: RawCache::default(),
            revocation: RawRevocation::default(),
            upstream: RawUpstream::default(),
            ops: RawOps::default(),
            log: RawLog::default(),
            wan: wan::RawWan::default(),
        };
        let wan = Schedule::try_from(wan::RawWan::default()).expect("the defaults can be used");
        Self::from_raw(raw, wan)
    }

    /// The defaults with the data folder `data`, listening on loopback only, on ports that the
    /// system chooses: for tests and demonstrations.
    #[must_use]
    pub fn on_loopback(data: PathBuf) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Self::with_data(data);
        config.content.listen = any;
        config.enrol.listen = any;
        config.ops = any;
        // Whose disk it is has decided how full it may be.
        config.cache.free_percent_min = 0;
        config
    }

    /// The same, with other limits of the cache.
    #[must_use]
    pub fn with_cache(self, cache: Limits) -> Self {
        Self { cache, ..self }
    }

    /// The same, asking for revocation lists at another interval.
    #[must_use]
    pub fn with_crl_poll(self, crl_poll: Duration) -> Self {
        Self { crl_poll, ..self }
    }

    /// The same, asking these boosters before the origin, in this order.
    #[must_use]
    pub fn with_parents(self, parents: Vec<Parent>) -> Self {
        Self { parents, ..self }
    }

    /// The same, putting up with revocation lists that are overdue by so much.
    #[must_use]
    pub fn with_crl_grace(self, crl_grace: Duration) -> Self {
        Self { crl_grace, ..self }
    }

    /// The same, letting other boosters fetch here.
    #[must_use]
    pub fn with_boosters(self) -> Self {
        Self {
            boosters: true,
            ..self
        }
    }

    /// Whether devices check in and wait here.
    #[must_use]
    pub fn check_ins(&self) -> bool {
        self.check_ins
    }

    /// Whether other boosters may fetch here.
    #[must_use]
    pub fn boosters(&self) -> bool {
        self.boosters
    }

    /// Limits of the cache.
    #[must_use]
    pub fn cache(&self) -> Limits {
        self.cache
    }

    /// Connections of clients at a time; those beyond wait.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// The listener for content, over mutual TLS.
    #[must_use]
    pub fn content(&self) -> &Listener {
        &self.content
    }

    /// For how long an overdue revocation list still lets in clients that were seen before.
    #[must_use]
    pub fn crl_grace(&self) -> Duration {
        self.crl_grace
    }

    /// How often revocation lists are asked for.
    #[must_use]
    pub fn crl_poll(&self) -> Duration {
        self.crl_poll
    }

    /// Where everything is kept: identity, state, cache.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The relay of the origin's enrolment listener.
    #[must_use]
    pub fn enrol(&self) -> &Listener {
        &self.enrol
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Where operators look.
    #[must_use]
    pub fn ops(&self) -> SocketAddr {
        self.ops
    }

    /// The boosters that are asked before the origin, in this order.
    #[must_use]
    pub fn parents(&self) -> &[Parent] {
        &self.parents
    }

    /// How much of the line to the origin may be taken, and when.
    #[must_use]
    pub fn wan(&self) -> &Schedule {
        &self.wan
    }

    /// The same, with other limits of the line.
    #[must_use]
    pub fn with_wan(self, wan: Schedule) -> Self {
        Self { wan, ..self }
    }

    /// How long what is under way may take after a stop was asked for.
    #[must_use]
    pub fn stop_grace(&self) -> Duration {
        self.stop_grace
    }

    fn from_raw(raw: Raw, wan: Schedule) -> Self {
        let RawContent {
            listen,
            addresses,
            connections,
            boosters,
            check_ins,
        } = raw.content;
        let content = Listener {
            listen: listen.0,
            addresses,
        };
        let RawEnrol { listen, addresses } = raw.enrol;
        let enrol = Listener {
            listen: listen.0,
            addresses,
        };
        Self {
            boosters,
            cache: Limits {
                disk_bytes_max: raw.cache.disk.0,
                fill_bytes_max: raw.cache.fill_memory.map_or_else(fill_share, |it| it.0),
                fills_max: usize::from(raw.cache.fills),
                memory_bytes_max: raw.cache.memory.map_or_else(memory_share, |it| it.0),
                scrub_bytes_per_second: raw.cache.scrub_rate.0,
                scrub_period: raw.cache.scrub.0,
                stall: raw.cache.stall.0,
                free_percent_min: raw.cache.free_percent,
                ..Limits::default()
            },
            check_ins,
            connections_max: usize::from(connections),
            content,
            crl_grace: raw.revocation.grace.0,
            crl_poll: raw.revocation.poll.0,
            data: raw.data,
            enrol,
            log: Log {
                format: raw.log.format,
                filter: raw.log.filter,
            },
            ops: raw.ops.listen.0,
            parents: raw.upstream.parents,
            stop_grace: raw.stop_grace.map_or(STOP_GRACE, |grace| grace.0),
            wan,
        }
    }
}

impl TryFrom<Raw> for Config {
    type Error = String;

    fn try_from(mut raw: Raw) -> Result<Self, String> {
        if !raw.data.is_absolute() {
            return Err(format!("`data` is {:?}: want an absolute path", raw.data));
        }
        let RawCache {
            disk,
            memory,
            fills,
            fill_memory,
            stall,
            scrub,
            scrub_rate,
            free_percent,
        } = raw.cache;
        if free_percent > 90 {
            return Err(format!(
                "`cache.free_percent` is {free_percent}: want 0 to 90"
            ));
        }
        if raw.content.connections == 0 {
            return Err("`content.connections` is 0: want at least one".to_owned());
        }
        if disk.0 < PACK_BYTES_MAX as u64 {
            return Err(format!(
                "`cache.disk` is {disk}: want at least one pack, 8 MiB"
            ));
        }
        if let Some(memory) = memory.filter(|memory| *memory > disk) {
            return Err(format!(
                "`cache.memory` is {memory}, over `cache.disk` ({disk})"
            ));
        }
        if let Some(memory) = fill_memory.filter(|memory| memory.0 < PACK_BYTES_MAX as u64) {
            return Err(format!(
                "`cache.fill_memory` is {memory}: want at least one pack, 8 MiB"
            ));
        }
        if !(1..=FILLS_MAX).contains(&fills) {
            return Err(format!("`cache.fills` is {fills}: want 1 to {FILLS_MAX}"));
        }
        let parents = raw.upstream.parents.len();
        if parents > PARENTS_MAX {
            return Err(format!(
                "`upstream.parents` has {parents} entries: want at most {PARENTS_MAX}"
            ));
        }
        check("cache.stall", stall, STALL_MIN, STALL_MAX)?;
        if !scrub.0.is_zero() {
            check("cache.scrub", scrub, SCRUB_MIN, SCRUB_MAX)?;
        }
        if scrub_rate.0 < SCRUB_RATE_MIN {
            return Err(format!(
                "`cache.scrub_rate` is {scrub_rate}: want at least 64 KiB in a second"
            ));
        }
        check(
            "revocation.grace",
            raw.revocation.grace,
            Duration::ZERO,
            GRACE_MAX,
        )?;
        check("revocation.poll", raw.revocation.poll, POLL_MIN, POLL_MAX)?;
        let wan = Schedule::try_from(std::mem::take(&mut raw.wan))?;
        Ok(Self::from_raw(raw, wan))
    }
}

fn check(key: &str, period: Period, min: Duration, max: Duration) -> Result<(), String> {
    if (min..=max).contains(&period.0) {
        return Ok(());
    }
    let (min, max) = (Period(min), Period(max));
    Err(format!("`{key}` is {period}: want {min} to {max}"))
}

/// An eighth of what the process may take, within bounds that keep the booster below 256 MiB.
fn memory_share() -> u64 {
    share(8 << 20, 96 << 20)
}

/// The same for fills: at the most as many as a source is ever asked for at a time.
fn fill_share() -> u64 {
    share(PACK_BYTES_MAX as u64, 64 << 20)
}

fn share(min: u64, max: u64) -> u64 {
    let limit = service::memory::limit().unwrap_or_default();
    (limit / 8).clamp(min, max)
}

/// More only make a reader wait longer when all of them are gone.
const PARENTS_MAX: usize = 8;
/// More than a source is ever asked for at a time is of no use while there are few sources.
const FILLS_MAX: u16 = 64;
/// Less, and a line that loses packets looks dead.
const STALL_MIN: Duration = Duration::from_secs(1);
/// More, and a reader gives up before we do.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Less is a benchmark of the disk.
const SCRUB_MIN: Duration = Duration::from_secs(3600);
/// What a disk does in a year is found out by clients first.
const SCRUB_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Less takes minutes for a pack.
const SCRUB_RATE_MIN: u64 = 64 << 10;
/// Once a second is more than the origin wants to hear from each booster.
const POLL_MIN: Duration = Duration::from_secs(1);
/// A revoked device should not go on for longer than this.
const POLL_MAX: Duration = Duration::from_secs(3600);
/// After a month no client has a certificate in date that we have not seen refused by then.
const GRACE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Shorter than a service manager's own patience (systemd: 90 s).
const STOP_GRACE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
