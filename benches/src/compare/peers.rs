//! The servers that are compared, each with one worker on one CPU.

mod ats;
pub(super) mod backend;
mod booster;
mod haproxy;
mod nginx;
mod varnish;

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

use super::child::Running;
use super::ground::Ground;
use super::machine::said;
use super::needs;
use super::point::Object;
use super::proc;
use crate::load::CpuTime;

/// A kind of server.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// nginx, serving files: the yardstick.
    Nginx,
    /// nginx as a cache.
    NginxCache,
    /// Varnish behind hitch.
    Varnish,
    /// Apache Traffic Server.
    Ats,
    /// HAProxy with its cache.
    Haproxy,
    /// larder-booster.
    Booster,
}

/// A server at work.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) kind: Kind,
    /// Where it tells numbers.
    ops: Option<u16>,
    pub(super) port: u16,
    /// Its programs, and then who fills it, if that is one of its own.
    running: Vec<Running>,
}

impl Kind {
    /// Programs that it takes, and how to get them on Debian. All caches are filled from an nginx.
    pub(super) fn needs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Nginx | Self::NginxCache => &[NGINX],
            Self::Varnish => &[
                NGINX,
                ("varnishd", "apt-get install varnish"),
                ("hitch", "apt-get install hitch"),
            ],
            Self::Ats => &[NGINX, ("traffic_server", "apt-get install trafficserver")],
            Self::Haproxy => &[NGINX, ("haproxy", "apt-get install haproxy")],
            Self::Booster => &[],
        }
    }

    /// What its programs say that they are.
    pub(super) fn versions(self) -> Vec<String> {
        let version = |name: &str, arg: &str| {
            let program = needs::find(name).unwrap_or_else(|| name.into());
            said(&program.to_string_lossy(), &[arg])
        };
        match self {
            Self::Nginx => vec![version("nginx", "-v")],
            Self::NginxCache => Vec::new(),
            Self::Varnish => vec![version("varnishd", "-V"), version("hitch", "--version")],
            Self::Ats => vec![version("traffic_server", "-V")],
            Self::Haproxy => vec![version("haproxy", "-v")],
            Self::Booster => vec![format!("larder-booster {}", env!("CARGO_PKG_VERSION"))],
        }
    }

    /// Whether it can be asked to check a list of so many entries. OpenSSL reads the whole list
    /// in each handshake, 50 ms with a million: nginx shows that for all who use it. hitch checks
    /// none at all, and Traffic Server is told of none here.
    pub(super) fn can_check(self, entries: u32) -> bool {
        match self {
            Self::Booster | Self::Nginx => true,
            Self::Ats | Self::Haproxy | Self::NginxCache | Self::Varnish => entries == 0,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ats => "ats",
            Self::Booster => "booster",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::NginxCache => "nginx-cache",
            Self::Varnish => "varnish",
        })
    }
}

const NGINX: (&str, &str) = ("nginx", "apt-get install nginx-light");

impl Server {
    /// Starts it, with a list of so many entries.
    pub(super) fn start(kind: Kind, ground: &Ground, entries: u32) -> anyhow::Result<Self> {
        let mut ops = None;
        let (running, port) = match kind {
            Kind::Booster => {
                let (running, port, numbers) = booster::start(ground, entries)?;
                ops = Some(numbers);
                (running, port)
            }
            Kind::Ats => ats::start(ground)?,
            Kind::Haproxy => haproxy::start(ground, entries)?,
            Kind::Nginx => nginx::start(ground, entries)?,
            Kind::NginxCache => nginx::start_cache(ground, entries)?,
            Kind::Varnish => varnish::start(ground)?,
        };
        Ok(Self {
            kind,
            ops,
            port,
            running,
        })
    }

    /// Paths to ask for to get `object`.
    pub(super) fn paths(&self, ground: &Ground, object: Object) -> anyhow::Result<Vec<String>> {
        match self.kind {
            Kind::Booster => Ok(ground.object(object)?.packs.clone()),
            Kind::Ats | Kind::Haproxy | Kind::Nginx | Kind::NginxCache | Kind::Varnish => {
                Ok(vec![format!("/{}", object.name)])
            }
        }
    }

    /// CPU time so far of all its processes.
    pub(super) fn cpu(&self) -> anyhow::Result<CpuTime> {
        let pids: Vec<u32> = self.families();
        CpuTime::of_all(&pids)
    }

    /// What they took since `before`.
    pub(super) fn cpu_since(&self, before: CpuTime) -> anyhow::Result<Duration> {
        Ok(self.cpu()?.since(before))
    }

    /// Memory of all its processes, in bytes.
    pub(super) fn pss(&self) -> anyhow::Result<u64> {
        self.own().map(|running| proc::pss(running.pid())).sum()
    }

    /// The most memory that its processes have had, in bytes.
    pub(super) fn peak(&self) -> anyhow::Result<u64> {
        self.own().map(|running| proc::peak(running.pid())).sum()
    }

    /// Bytes of packs that it says have come from upstream: only ours says so.
    pub(super) fn pack_bytes(&self) -> anyhow::Result<Option<u64>> {
        let Some(port) = self.ops else {
            return Ok(None);
        };
        let bytes = number(port, "larder_booster_upstream_pack_bytes_total ")?;
        Ok(Some(bytes as u64))
    }

    /// Its own programs: who fills it does not count.
    fn own(&self) -> impl Iterator<Item = &Running> {
        let fillers = match self.kind {
            Kind::Booster | Kind::Nginx => 0,
            Kind::Ats | Kind::Haproxy | Kind::NginxCache | Kind::Varnish => 1,
        };
        self.running.iter().take(self.running.len() - fillers)
    }

    fn families(&self) -> Vec<u32> {
        let families = self
            .running
            .iter()
            .map(|running| proc::family(running.pid()));
        families.flatten().collect()
    }
}

/// A number of the program whose operators' listener is on that port, by its whole name and a space;
/// 0 if it has not been counted yet.
pub(super) fn number(port: u16, name: &str) -> anyhow::Result<f64> {
    let text = scrape(port)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.map(|line| line.trim().parse()).transpose();
    Ok(value
        .with_context(|| format!("cannot understand {name}"))?
        .unwrap_or(0.0))
}

/// The numbers of the program whose operators' listener is on that port.
fn scrape(port: u16) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.take(1 << 20).read_to_string(&mut text)?;
    Ok(text)
}
