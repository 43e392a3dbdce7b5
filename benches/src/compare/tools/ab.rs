//! ApacheBench: a new connection for each request, and so a full handshake.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::super::child;
use super::super::ground::{Ground, identity_pem, path};
use super::super::needs;
use super::super::peers::Server;
use super::super::point::Point;
use super::Seen;

pub(super) fn load(
    ground: &Ground,
    point: &Point,
    server: &Server,
    seconds: u32,
) -> anyhow::Result<Seen> {
    let program = needs::find("ab").context("cannot find ab")?;
    let (identity, tls) = (
        identity_pem(ground.folder(), &ground.client())?,
        tls(ground)?,
    );
    let quantiles = ground.folder().join("ab.csv");
    let object = server.paths(ground, point.object())?;
    let object = object.first().context("the object has no packs")?;
    let (seconds_text, connections) = (seconds.to_string(), point.connections().to_string());
    let url = format!("https://127.0.0.1:{}{object}", server.port);
    let args = [
        "-q",
        "-d",
        "-c",
        &connections,
        "-s",
        "5",
        "-t",
        &seconds_text,
    ];
    // -t sets a number of requests too, so that -n must follow it.
    let rest = ["-n", "10000000", "-f", "TLS1.3", "-E", path(&identity)?];
    let last = ["-e", path(&quantiles)?, &url];
    let said = child::output(
        ground.args.stage.load_cpu,
        &program,
        [&args[..], &rest, &last].concat(),
        &[("OPENSSL_CONF", tls.as_os_str())],
        Duration::from_secs(u64::from(seconds) + 30),
    )?;
    let said = String::from_utf8_lossy(&said);
    let (p50_ms, p99_ms) = read_quantiles(&fs::read_to_string(&quantiles)?)
        .context("cannot understand its quantiles")?;
    read(&said, p50_ms, p99_ms).with_context(|| format!("cannot understand it: {said}"))
}

/// What it printed: lines of a name, a colon and a number.
fn read(said: &str, p50_ms: f64, p99_ms: f64) -> Option<Seen> {
    let number = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let errors = number("Failed requests:")? + number("Non-2xx responses:").unwrap_or(0.0);
    Some(Seen {
        bytes: number("HTML transferred:")? as u64,
        errors: errors as u64,
        first_error: (errors > 0.0).then(|| "ab says that requests failed".to_owned()),
        p50_ms,
        p99_ms,
        requests: number("Complete requests:")? as u64,
        seconds: number("Time taken for tests:")?,
    })
}

/// The second and the ninety-ninth part in a hundred of its table.
fn read_quantiles(table: &str) -> Option<(f64, f64)> {
    let at = |share: &str| {
        let line = table.lines().find_map(|line| line.strip_prefix(share))?;
        line.trim().parse().ok()
    };
    Some((at("50,")?, at("99,")?))
}

/// Settings of OpenSSL by which a client offers one cipher and one group.
fn tls(ground: &Ground) -> anyhow::Result<PathBuf> {
    let file = ground.folder().join("openssl.cnf");
    fs::write(
        &file,
        "openssl_conf = conf\n[conf]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n\
         [tls]\nCiphersuites = TLS_AES_128_GCM_SHA256\nGroups = X25519\n",
    )?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ab_prints_is_read() {
        let said = "Time taken for tests:   2.005 seconds\nComplete requests:      1716\n\
                    Failed requests:        1\nNon-2xx responses:      2\n\
                    HTML transferred:       7028736 bytes\n";
        let (p50, p99) =
            read_quantiles("Percentage served,Time in ms\n50,9.1\n99,12.25\n").unwrap();
        let seen = read(said, p50, p99).unwrap();
        assert_eq!(
            (seen.requests, seen.errors, seen.bytes),
            (1716, 3, 7_028_736)
        );
        assert_eq!(
            (seen.seconds, seen.p50_ms, seen.p99_ms),
            (2.005, 9.1, 12.25)
        );
        assert!(read("", 0.0, 0.0).is_none());
    }
}
