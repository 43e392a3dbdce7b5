//! oha, which speaks HTTP/1.1 and HTTP/2 with a client certificate.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::super::child;
use super::super::ground::{Ground, path};
use super::super::needs;
use super::super::peers::Server;
use super::super::point::{Point, What};
use super::Seen;
use crate::load::HttpVersion;

pub(super) fn load(
    ground: &Ground,
    point: &Point,
    server: &Server,
    seconds: u32,
) -> anyhow::Result<Seen> {
    let What::Get {
        http, connections, ..
    } = point.what
    else {
        anyhow::bail!("it is for objects only")
    };
    let program = needs::find("oha").context("cannot find oha")?;
    let name = Ground::server_name();
    let paths = server.paths(ground, point.object())?;
    let urls = ground.folder().join("urls");
    let url = |path: &String| format!("https://{name}{path}\n");
    std::fs::write(&urls, paths.iter().map(url).collect::<String>())?;
    let identity = ground.client().join("identity");
    let (roots, cert) = (identity.join("roots.pem"), identity.join("cert.pem"));
    let key = identity.join("key.pem");
    let (connections, duration) = (connections.to_string(), format!("{seconds}s"));
    let to = format!("{name}:443:127.0.0.1:{}", server.port);
    let mut args = vec![
        "--no-tui",
        "--output-format",
        "json",
        "--worker-threads",
        "1",
    ];
    // What is under way at the end is waited for: it counts whole answers only.
    args.extend([
        "-w",
        "-z",
        &duration,
        "-c",
        &connections,
        "--connect-to",
        &to,
    ]);
    args.extend(["--cacert", path(&roots)?, "--cert", path(&cert)?]);
    args.extend(["--key", path(&key)?, "--disable-compression"]);
    if http == HttpVersion::Two {
        args.extend(["--http2", "-p", "1"]);
    }
    args.extend(["--urls-from-file", path(&urls)?]);
    let patience = Duration::from_secs(u64::from(seconds) + 30);
    let said = child::output(ground.args.stage.load_cpu, &program, args, &[], patience)?;
    let said: Value = serde_json::from_slice(&said).context("cannot understand it")?;
    read(&said).with_context(|| format!("cannot understand it: {said}"))
}

fn read(said: &Value) -> anyhow::Result<Seen> {
    let number = |name: &str| {
        let value = said.pointer(name).and_then(Value::as_f64);
        value.with_context(|| format!("it does not say {name}"))
    };
    let count = |name: &str, good: fn(&str) -> bool| -> u64 {
        let of = said.pointer(name).and_then(Value::as_object);
        let counted = of.into_iter().flatten().filter(|(key, _)| good(key));
        counted.filter_map(|(_, value)| value.as_u64()).sum()
    };
    let requests = count("/statusCodeDistribution", |code| code.starts_with('2'));
    let bad = count("/statusCodeDistribution", |code| !code.starts_with('2'));
    let broken = count("/errorDistribution", |_| true);
    ensure!(requests > 0, "no request was answered");
    Ok(Seen {
        bytes: number("/summary/totalData")? as u64,
        errors: bad + broken,
        first_error: (bad + broken > 0).then(|| "oha says that requests failed".to_owned()),
        p50_ms: number("/latencyPercentiles/p50")? * 1e3,
        p99_ms: number("/latencyPercentiles/p99")? * 1e3,
        requests,
        seconds: number("/summary/total")?,
    })
}
