//! The settings file, as an operator writes it, and what holds where it says nothing.

use std::path::PathBuf;
use std::time::Duration;

use ::config::{Bytes, HostPort, Listen, Period};
use serde::Deserialize;
use service::logs;

use super::wan::RawWan;
use crate::cache::Limits;
use crate::upstream::Parent;

/// The same, as an operator writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) data: PathBuf,
    pub(super) stop_grace: Option<Period>,
    #[serde(default)]
    pub(super) content: RawContent,
    #[serde(default)]
    pub(super) enrol: RawEnrol,
    #[serde(default)]
    pub(super) cache: RawCache,
    #[serde(default)]
    pub(super) revocation: RawRevocation,
    #[serde(default)]
    pub(super) upstream: RawUpstream,
    #[serde(default)]
    pub(super) ops: RawOps,
    #[serde(default)]
    pub(super) log: RawLog,
    #[serde(default)]
    pub(super) wan: RawWan,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawContent {
    pub(super) listen: Listen,
    pub(super) addresses: Vec<HostPort>,
    pub(super) connections: u16,
    pub(super) boosters: bool,
    pub(super) check_ins: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawEnrol {
    pub(super) listen: Listen,
    pub(super) addresses: Vec<HostPort>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCache {
    pub(super) disk: Bytes,
    pub(super) free_percent: u8,
    pub(super) memory: Option<Bytes>,
    pub(super) fills: u16,
    pub(super) fill_memory: Option<Bytes>,
    pub(super) stall: Period,
    pub(super) scrub: Period,
    pub(super) scrub_rate: Bytes,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRevocation {
    pub(super) grace: Period,
    pub(super) poll: Period,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawUpstream {
    pub(super) parents: Vec<Parent>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawOps {
    pub(super) listen: Listen,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) format: logs::Format,
    pub(super) filter: String,
}

impl Default for RawContent {
    fn default() -> Self {
        Self {
            listen: everywhere(7543),
            addresses: Vec::new(),
            connections: 4096,
            boosters: false,
            check_ins: true,
        }
    }
}

impl Default for RawEnrol {
    fn default() -> Self {
        Self {
            listen: everywhere(7544),
            addresses: Vec::new(),
        }
    }
}

impl Default for RawCache {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            disk: Bytes(limits.disk_bytes_max),
            free_percent: limits.free_percent_min,
            memory: None,
            fills: 16,
            fill_memory: None,
            stall: Period(limits.stall),
            scrub: Period(limits.scrub_period),
            scrub_rate: Bytes(limits.scrub_bytes_per_second),
        }
    }
}

impl Default for RawRevocation {
    fn default() -> Self {
        Self {
            grace: Period(Duration::ZERO),
            poll: Period(Duration::from_secs(60)),
        }
    }
}

impl Default for RawOps {
    fn default() -> Self {
        Self {
            listen: Listen(([127, 0, 0, 1], 7545).into()),
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

fn everywhere(port: u16) -> Listen {
    Listen((std::net::Ipv6Addr::UNSPECIFIED, port).into())
}
