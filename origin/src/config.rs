//! The origin's settings, and the file that an operator writes.

mod check;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::config::{HostPort, Listen, LoadError, Period};
use certs::name::Role;
use protocol::PROTOCOL_VERSION;
use serde::Deserialize;
use service::logs;

use check::{check_connections, check_every, check_interval, check_life, check_rate, check_retry};

/// What the origin is told: usable as it stands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Raw")]
pub struct Config {
    certificates: Certificates,
    check_in_interval: Duration,
    smart_groups_every: Duration,
    connections_max: usize,
    content: Listener,
    data: PathBuf,
    enrol: Enrol,
    log: Log,
    ops: SocketAddr,
    stop_grace: Duration,
}

/// A listener, and where others reach it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where others reach it. Empty: at the host of `init`, on the port that it listens on.
    pub addresses: Vec<HostPort>,
}

/// How enrolment is guarded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enrol {
    /// Its listener.
    pub listener: Listener,
    /// Whether somebody without a token may ask to be approved.
    pub accept_without_token: bool,
    /// The most requests that wait for a decision.
    pub pending_max: u32,
    /// The most of them from one address without a token.
    pub pending_per_address_max: u32,
    /// How long a request waits that is not repeated.
    pub pending_ttl: Duration,
    /// How long who waits is told to wait before asking again.
    pub retry_after: Duration,
    /// How long after the end of its certificate a device may come back with the same key and
    /// nobody's look.
    pub return_grace: Duration,
    /// The lowest version of the protocol that a party may speak.
    pub protocol_min: u32,
    /// How many requests for a certificate one address may make in a second, in the long run.
    pub rate_per_address: u32,
    /// How many at once.
    pub burst_per_address: u32,
}

/// How long what is signed lives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificates {
    /// A booster's certificate.
    pub booster: Duration,
    /// A client's certificate.
    pub client: Duration,
    /// A CRL: how long a branch can go without a new one.
    pub crl: Duration,
    /// How long a new CA is announced before it issues.
    pub overlap: Duration,
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
        let certificates = RawCertificates::default();
        Self {
            certificates: Certificates {
                booster: certificates.booster.0,
                client: certificates.client.0,
                crl: certificates.crl.0,
                overlap: certificates.overlap.0,
            },
            check_in_interval: RawCheckIn::default().interval.0,
            smart_groups_every: RawSmartGroups::default().every.0,
            connections_max: RawContent::default().connections.into(),
            content: RawContent::default().into(),
            data,
            enrol: RawEnrol::default().into(),
            log: RawLog::default().into(),
            ops: RawOps::default().listen.0,
            stop_grace: STOP_GRACE,
        }
    }

    /// The defaults with the data folder `data`, listening on loopback only, on ports that the
    /// system chooses: for tests and demonstrations.
    #[must_use]
    pub fn on_loopback(data: PathBuf) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Self::with_data(data);
        config.content.listen = any;
        config.enrol.listener.listen = any;
        config.ops = any;
        config
    }

    /// Where everything is kept: keys, ledger, packs, admin socket.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// How often a device is told to check in, give or take a tenth.
    #[must_use]
    pub fn check_in_interval(&self) -> Duration {
        self.check_in_interval
    }

    /// How often devices are held against rules on what changes with time.
    #[must_use]
    pub fn smart_groups_every(&self) -> Duration {
        self.smart_groups_every
    }

    /// Connections at a time on the listener for content; those beyond wait.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// The listener for content, over mutual TLS.
    #[must_use]
    pub fn content(&self) -> &Listener {
        &self.content
    }

    /// Enrolment.
    #[must_use]
    pub fn enrol(&self) -> &Enrol {
        &self.enrol
    }

    /// How long what is signed lives.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Where operators look.
    #[must_use]
    pub fn ops(&self) -> SocketAddr {
        self.ops
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// How long what is under way may take after a stop was asked for.
    #[must_use]
    pub fn stop_grace(&self) -> Duration {
        self.stop_grace
    }
}

/// The same, as an operator writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    data: PathBuf,
    stop_grace: Option<Period>,
    #[serde(default)]
    content: RawContent,
    #[serde(default)]
    enrol: RawEnrol,
    #[serde(default)]
    certificates: RawCertificates,
    #[serde(default)]
    check_in: RawCheckIn,
    #[serde(default)]
    smart_groups: RawSmartGroups,
    #[serde(default)]
    ops: RawOps,
    #[serde(default)]
    log: RawLog,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawContent {
    listen: Listen,
    addresses: Vec<HostPort>,
    connections: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawEnrol {
    listen: Listen,
    addresses: Vec<HostPort>,
    accept_without_token: bool,
    pending_max: u32,
    pending_per_address_max: u32,
    pending_ttl: Period,
    retry_after: Period,
    return_grace: Period,
    protocol_min: u32,
    rate_per_address: u32,
    burst_per_address: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCertificates {
    booster: Period,
    client: Period,
    crl: Period,
    overlap: Period,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCheckIn {
    interval: Period,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSmartGroups {
    every: Period,
}

impl Default for RawSmartGroups {
    fn default() -> Self {
        Self {
            every: Period(Duration::from_secs(300)),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawOps {
    listen: Listen,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLog {
    format: logs::Format,
    filter: String,
}

impl Default for RawContent {
    fn default() -> Self {
        Self {
            listen: everywhere(7443),
            addresses: Vec::new(),
            connections: CONNECTIONS,
        }
    }
}

impl Default for RawCheckIn {
    fn default() -> Self {
        // As the field has it: what is committed is on its way within two minutes.
        Self {
            interval: Period(Duration::from_secs(120)),
        }
    }
}

impl Default for RawEnrol {
    fn default() -> Self {
        Self {
            listen: everywhere(7444),
            addresses: Vec::new(),
            accept_without_token: true,
            // A list that a person can still read through.
            pending_max: 1000,
            // A branch behind one address, without tokens; more at once should have one.
            pending_per_address_max: 32,
            pending_ttl: days(14),
            retry_after: Period(Duration::from_secs(60)),
            // A long holiday and the fortnight of the certificate itself.
            return_grace: days(30),
            protocol_min: 1,
            // A branch of hundreds behind a relay, all at once; to us, a hundredth of a core.
            rate_per_address: 50,
            burst_per_address: 500,
        }
    }
}

impl Default for RawCertificates {
    fn default() -> Self {
        // Renewed at half of it, so that an offline week harms nobody.
        let lifetime = |role| Period(certs::issue::default_lifetime(role));
        Self {
            booster: lifetime(Role::Booster),
            client: lifetime(Role::Client),
            crl: days(7),
            // A client's certificate, which it renews where it hears of a new CA, and a week.
            overlap: days(21),
        }
    }
}

impl Default for RawOps {
    fn default() -> Self {
        Self {
            listen: Listen(([127, 0, 0, 1], 7445).into()),
        }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            format: logs::Format::Text,
            filter: "info".to_owned(),
        }
    }
}

impl TryFrom<Raw> for Config {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let RawCertificates {
            booster,
            client,
            crl,
            overlap,
        } = raw.certificates;
        check_life("certificates.booster", booster)?;
        check_life("certificates.client", client)?;
        check_life("certificates.crl", crl)?;
        check_life("certificates.overlap", overlap)?;
        if !raw.data.is_absolute() {
            return Err(format!("`data` is {:?}: want an absolute path", raw.data));
        }
        if raw.enrol.pending_per_address_max > raw.enrol.pending_max {
            return Err("`enrol.pending_per_address_max` is over `enrol.pending_max`".to_owned());
        }
        check_connections(raw.content.connections)?;
        check_interval(raw.check_in.interval)?;
        check_every(raw.smart_groups.every)?;
        check_retry(raw.enrol.retry_after)?;
        check_rate("enrol.rate_per_address", raw.enrol.rate_per_address)?;
        check_rate("enrol.burst_per_address", raw.enrol.burst_per_address)?;
        if !(1..=PROTOCOL_VERSION).contains(&raw.enrol.protocol_min) {
            let (min, own) = (raw.enrol.protocol_min, PROTOCOL_VERSION);
            return Err(format!(
                "`enrol.protocol_min` is {min}: this release speaks 1 to {own}"
            ));
        }
        Ok(Self {
            certificates: Certificates {
                booster: booster.0,
                client: client.0,
                crl: crl.0,
                overlap: overlap.0,
            },
            check_in_interval: raw.check_in.interval.0,
            smart_groups_every: raw.smart_groups.every.0,
            connections_max: raw.content.connections.into(),
            content: raw.content.into(),
            data: raw.data,
            enrol: raw.enrol.into(),
            log: raw.log.into(),
            ops: raw.ops.listen.0,
            stop_grace: raw.stop_grace.map_or(STOP_GRACE, |grace| grace.0),
        })
    }
}

impl From<RawContent> for Listener {
    fn from(raw: RawContent) -> Self {
        Self {
            listen: raw.listen.0,
            addresses: raw.addresses,
        }
    }
}

impl From<RawEnrol> for Enrol {
    fn from(raw: RawEnrol) -> Self {
        Self {
            listener: Listener {
                listen: raw.listen.0,
                addresses: raw.addresses,
            },
            accept_without_token: raw.accept_without_token,
            pending_max: raw.pending_max,
            pending_per_address_max: raw.pending_per_address_max,
            pending_ttl: raw.pending_ttl.0,
            retry_after: raw.retry_after.0,
            return_grace: raw.return_grace.0,
            protocol_min: raw.protocol_min,
            rate_per_address: raw.rate_per_address,
            burst_per_address: raw.burst_per_address,
        }
    }
}

impl From<RawLog> for Log {
    fn from(raw: RawLog) -> Self {
        Self {
            format: raw.format,
            filter: raw.filter,
        }
    }
}

fn everywhere(port: u16) -> Listen {
    Listen((std::net::Ipv6Addr::UNSPECIFIED, port).into())
}

fn days(days: u64) -> Period {
    Period(Duration::from_secs(days * 86_400))
}

/// What a listener has if nothing else is said: see `transport::listen::Limits`.
const CONNECTIONS: u16 = 4096;
/// Shorter than a service manager's own patience (systemd: 90 s).
const STOP_GRACE: Duration = Duration::from_secs(30);
