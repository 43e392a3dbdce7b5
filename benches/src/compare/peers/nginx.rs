//! nginx, tuned.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::super::child::Running;
use super::super::ground::{Ground, free_port};
use super::super::needs;
use super::backend;

/// Serving files.
pub(super) fn start(ground: &Ground, entries: u32) -> anyhow::Result<(Vec<Running>, u16)> {
    let root = format!("root {};", ground.www().display());
    let (running, port) = start_with(ground, entries, "", &root)?;
    Ok((vec![running], port))
}

/// As a cache.
pub(super) fn start_cache(ground: &Ground, entries: u32) -> anyhow::Result<(Vec<Running>, u16)> {
    let (backend, origin) = backend::start(ground)?;
    let cache = ground.place("nginx-cache")?;
    let zone = format!(
        "proxy_cache_path {} levels=1:2 keys_zone=all:1m max_size=4g inactive=30d \
         use_temp_path=off;",
        cache.display()
    );
    let location = format!(
        "location / {{ proxy_pass http://{origin}; proxy_cache all; \
         proxy_cache_lock on; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}"
    );
    let (running, port) = start_with(ground, entries, &zone, &location)?;
    Ok((vec![running, backend], port))
}

fn start_with(
    ground: &Ground,
    entries: u32,
    zone: &str,
    location: &str,
) -> anyhow::Result<(Running, u16)> {
    let place = ground.place("nginx")?;
    let port = free_port()?;
    let lists = ground.lists(entries)?;
    let file = place.join("nginx.conf");
    fs::write(
        &file,
        settings(ground, &place, &lists, port, zone, location),
    )?;
    let program = needs::find("nginx").context("cannot find nginx")?;
    let args = [
        "-e".as_ref(),
        "stderr".as_ref(),
        "-p".as_ref(),
        place.as_os_str(),
    ];
    let args = args.into_iter().chain(["-c".as_ref(), file.as_os_str()]);
    let cpu = ground.args.stage.server_cpu;
    let mut running = Running::start(cpu, &program, args, &place.join("log"))?;
    // A list of a million entries takes it a second.
    running.listens(port, Duration::from_secs(30))?;
    Ok((running, port))
}

/// One worker, no log, file handles kept, connections that never end, no resumption.
fn settings(
    ground: &Ground,
    place: &Path,
    lists: &Path,
    port: u16,
    zone: &str,
    location: &str,
) -> String {
    let (place, lists) = (place.display(), lists.display());
    let identity = ground.booster().join("identity");
    let identity = identity.display();
    format!(
        r#"
daemon off;
user root root;
worker_processes 1;
worker_rlimit_nofile 20000;
error_log stderr error;
pid {place}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    fastcgi_temp_path {place}/fastcgi;
    proxy_temp_path {place}/proxy;
    scgi_temp_path {place}/scgi;
    uwsgi_temp_path {place}/uwsgi;
    default_type application/octet-stream;
    sendfile on;
    tcp_nodelay on;
    tcp_nopush on;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    open_file_cache max=1000 inactive=600s;
    open_file_cache_valid 600s;
    http2_chunk_size 16k;
    ssl_protocols TLSv1.3;
    ssl_ecdh_curve X25519:prime256v1;
    ssl_session_cache off;
    ssl_session_tickets off;
    ssl_buffer_size 16k;
    ssl_certificate {identity}/cert.pem;
    ssl_certificate_key {identity}/key.pem;
    ssl_client_certificate {identity}/roots.pem;
    ssl_verify_client on;
    ssl_verify_depth 2;
    ssl_crl {lists};
    {zone}
    server {{
        listen 127.0.0.1:{port} ssl http2 backlog=4096;
        {location}
    }}
}}
"#
    )
}
