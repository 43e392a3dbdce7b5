//! The servers that are compared, each with one worker on one CPU.

mod booster;
mod nginx;

use std::fmt;
use std::time::Duration;

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
    /// larder-booster.
    Booster,
}

/// A server at work.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) kind: Kind,
    pub(super) port: u16,
    /// Its programs.
    running: Vec<Running>,
}

impl Kind {
    /// Programs that it takes, and how to get them on Debian.
    pub(super) fn needs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Nginx => &[("nginx", "apt-get install nginx-light")],
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
            Self::Booster => vec![format!("larder-booster {}", env!("CARGO_PKG_VERSION"))],
        }
    }

    /// Whether it can be asked to check a list of so many entries. OpenSSL reads the whole list
    /// in each handshake: 50 ms with a million.
    pub(super) fn can_check(self, _entries: u32) -> bool {
        match self {
            Self::Booster | Self::Nginx => true,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Booster => "booster",
            Self::Nginx => "nginx",
        })
    }
}

impl Server {
    /// Starts it, with a list of so many entries.
    pub(super) fn start(kind: Kind, ground: &Ground, entries: u32) -> anyhow::Result<Self> {
        let (running, port) = match kind {
            Kind::Booster => booster::start(ground, entries)?,
            Kind::Nginx => nginx::start(ground, entries)?,
        };
        Ok(Self {
            kind,
            port,
            running,
        })
    }

    /// Paths to ask for to get `object`.
    pub(super) fn paths(&self, ground: &Ground, object: Object) -> anyhow::Result<Vec<String>> {
        match self.kind {
            Kind::Booster => Ok(ground.object(object)?.packs.clone()),
            Kind::Nginx => Ok(vec![format!("/{}", object.name)]),
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

    fn families(&self) -> Vec<u32> {
        let families = self
            .running
            .iter()
            .map(|running| proc::family(running.pid()));
        families.flatten().collect()
    }
}
