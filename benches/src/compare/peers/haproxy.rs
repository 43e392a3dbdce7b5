//! HAProxy with its small cache. It keeps no object over 2 GiB, and collapses no requests.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

use super::super::child::Running;
use super::super::ground::{Ground, free_port, identity_pem, path};
use super::super::needs;
use super::backend;

pub(super) fn start(ground: &Ground, entries: u32) -> anyhow::Result<(Vec<Running>, u16)> {
    let (backend, origin) = backend::start(ground)?;
    let (place, port) = (ground.place("haproxy")?, free_port()?);
    let pem = identity_pem(&place, &ground.booster())?;
    let roots = ground.booster().join("identity/roots.pem");
    let lists = ground.lists(entries)?;
    let file = place.join("haproxy.cfg");
    // It reckons with two files for each connection: more than may be open, if each asked at once.
    let settings = format!(
        r#"global
    maxconn 10100
    no strict-limits
    nbthread 1
    tune.bufsize 65536
    ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
    ssl-default-bind-curves X25519:P-256
    tune.ssl.cachesize 0
defaults
    mode http
    timeout connect 10s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 600s
cache all
    total-max-size 512
    max-object-size 134217728
    max-age 86400
frontend tls
    bind 127.0.0.1:{port} ssl crt {} ca-file {} crl-file {} verify required alpn h2,http/1.1
    default_backend origin
backend origin
    http-request cache-use all
    http-response cache-store all
    server origin {origin}
"#,
        pem.display(),
        roots.display(),
        lists.display()
    );
    fs::write(&file, settings)?;
    let program = needs::find("haproxy").context("cannot find haproxy")?;
    let args = ["-db", "-f", path(&file)?];
    let cpu = ground.args.stage.server_cpu;
    let mut running = Running::start(cpu, &program, args, &place.join("log"))?;
    running.listens(port, Duration::from_secs(30))?;
    Ok((vec![running, backend], port))
}
