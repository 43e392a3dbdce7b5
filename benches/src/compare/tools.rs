//! The load tools, ours and other people's.

mod ab;
mod larder;
mod oha;

pub(super) use larder::{drain, hold, packs, ways};

use std::fmt;

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

use super::args::Args;
use super::ground::Ground;
use super::machine;
use super::peers::Server;
use super::point::{Point, What};
use super::table::Sample;

/// A load tool.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// Ours.
    LarderLoad,
    /// oha, in Rust: its TLS prefers AES-256.
    Oha,
    /// ApacheBench, in C over OpenSSL.
    Ab,
}

/// What a tool saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) bytes: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) requests: u64,
    pub(super) seconds: f64,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::LarderLoad => "larder-load",
            Self::Oha => "oha",
            Self::Ab => "ab",
        })
    }
}

/// Loads one server at one point once.
pub(super) fn measure(
    args: &Args,
    ground: &Ground,
    point: &Point,
    server: &Server,
    tool: Tool,
) -> anyhow::Result<Sample> {
    let before = server.cpu()?;
    let seen = match tool {
        Tool::LarderLoad => larder::load(ground, point, server, Amount::Seconds(args.seconds)),
        Tool::Oha => oha::load(ground, point, server, args.seconds),
        Tool::Ab => ab::load(ground, point, server, args.seconds),
    };
    let seen = seen.with_context(|| format!("cannot use {tool}"))?;
    let cpu = server.cpu_since(before)?;
    Ok(Sample {
        bytes: seen.bytes,
        cpu_seconds: cpu.as_secs_f64(),
        errors: seen.errors,
        first_error: seen.first_error,
        load_average: machine::load_average(),
        object_bytes: ground.object(point.object())?.bytes,
        p50_ms: seen.p50_ms,
        p99_ms: seen.p99_ms,
        point: point.to_string(),
        requests: seen.requests,
        round: 0,
        seconds: seen.seconds,
        server: server.kind,
        tool,
        whole_requests: matches!(point.what, What::Handshake { .. }),
    })
}

/// Asks for each object at least once, so that it is cached.
pub(super) fn warm(ground: &Ground, point: &Point, server: &Server) -> anyhow::Result<()> {
    let objects = server.paths(ground, point.object())?.len() as u64;
    let seen = larder::load(ground, point, server, Amount::Requests(objects.max(8) * 2))?;
    match seen.first_error {
        Some(error) => Err(anyhow::anyhow!(error)),
        None => Ok(()),
    }
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amount {
    Requests(u64),
    Seconds(u32),
}
