//! `larder-load`, in this process.

use std::path::Path;

use clap::Parser as _;

use super::super::ground::{Ground, SERVER_ID, path};
use super::super::peers::Server;
use super::super::point::{Point, What};
use super::{Amount, Seen};
use crate::load::{self, Drained, Herd, HttpVersion};

pub(super) fn load(
    ground: &Ground,
    point: &Point,
    server: &Server,
    amount: Amount,
) -> anyhow::Result<Seen> {
    let mut options = vec![("connections", point.connections().to_string())];
    options.push(match amount {
        Amount::Requests(requests) => ("requests", requests.to_string()),
        Amount::Seconds(seconds) => ("duration", seconds.to_string()),
    });
    let summary = load::run(args(ground, point, server, options)?)?;
    Ok(Seen {
        bytes: summary.bytes,
        errors: summary.errors,
        first_error: summary.first_error,
        p50_ms: summary.latency_ms.p50,
        p99_ms: summary.latency_ms.p99,
        requests: summary.requests,
        seconds: summary.seconds,
    })
}

/// Holds so many connections while `then` is done.
pub(in super::super) fn hold<T>(
    ground: &Ground,
    point: &Point,
    server: &Server,
    connections: u32,
    then: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let args = args(ground, point, server, Vec::new())?;
    load::hold(&args, connections, then)
}

/// Has a herd fetch the point's object.
pub(in super::super) fn drain(
    ground: &Ground,
    point: &Point,
    server: &Server,
    herd: &Herd,
) -> anyhow::Result<Vec<anyhow::Result<Drained>>> {
    load::drain(&args(ground, point, server, Vec::new())?, herd)
}

/// The paths of the packs of a fileset, in order, by the booster on that port.
pub(in super::super) fn packs(
    client: &Path,
    port: u16,
    fileset: &str,
) -> anyhow::Result<Vec<String>> {
    load::packs(&way(client, port, fileset, HttpVersion::One)?)
}

/// How to get a fileset from the booster on that port: over each version of HTTP.
pub(in super::super) fn ways(
    client: &Path,
    port: u16,
    fileset: &str,
) -> anyhow::Result<Vec<load::Args>> {
    let versions = [HttpVersion::One, HttpVersion::Two].into_iter();
    versions
        .map(|http| way(client, port, fileset, http))
        .collect()
}

fn way(client: &Path, port: u16, fileset: &str, http: HttpVersion) -> anyhow::Result<load::Args> {
    let (server, http) = (format!("{SERVER_ID}@127.0.0.1:{port}"), http.to_string());
    let data = path(client)?;
    let server = ["larder-load", "--data", data, "--server", &server];
    let args = server
        .into_iter()
        .chain(["--fileset", fileset, "--http", &http]);
    Ok(load::Args::try_parse_from(args)?)
}

fn args(
    ground: &Ground,
    point: &Point,
    server: &Server,
    options: Vec<(&str, String)>,
) -> anyhow::Result<load::Args> {
    let http = match point.what {
        What::Get { http, .. } | What::Memory { http, .. } => http,
        What::Handshake { .. } | What::Herd { .. } => HttpVersion::One,
    };
    let client = ground.client();
    let mut args: Vec<String> = ["larder-load", "--threads", "1", "--suite", "aes128-x25519"]
        .map(str::to_owned)
        .to_vec();
    let fixed = [
        ("data", path(&client)?.to_owned()),
        ("server", format!("{SERVER_ID}@127.0.0.1:{}", server.port)),
        ("http", http.to_string()),
    ];
    for (name, value) in fixed.into_iter().chain(options) {
        args.extend([format!("--{name}"), value]);
    }
    args.extend(server.paths(ground, point.object())?);
    Ok(load::Args::try_parse_from(args)?)
}
