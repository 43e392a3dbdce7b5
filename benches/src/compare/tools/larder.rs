//! `larder-load`, in this process.

use clap::Parser as _;

use super::super::ground::{Ground, SERVER_ID, path};
use super::super::peers::Server;
use super::super::point::{Point, What};
use super::{Amount, Seen};
use crate::load::{self, HttpVersion};

pub(super) fn load(
    ground: &Ground,
    point: &Point,
    server: &Server,
    amount: Amount,
) -> anyhow::Result<Seen> {
    let (http, connections) = match point.what {
        What::Get {
            http, connections, ..
        } => (http, connections),
        What::Handshake { .. } => (HttpVersion::One, 1),
    };
    let client = ground.client();
    let mut args: Vec<String> = ["larder-load", "--threads", "1", "--suite", "aes128-x25519"]
        .map(str::to_owned)
        .to_vec();
    let mut option = |name: &str, value: String| args.extend([format!("--{name}"), value]);
    option("data", path(&client)?.to_owned());
    option("server", format!("{SERVER_ID}@127.0.0.1:{}", server.port));
    option("http", http.to_string());
    option("connections", connections.to_string());
    match amount {
        Amount::Requests(requests) => option("requests", requests.to_string()),
        Amount::Seconds(seconds) => option("duration", seconds.to_string()),
    }
    args.extend(server.paths(ground, point.object())?);
    let summary = load::run(load::Args::try_parse_from(args)?)?;
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
