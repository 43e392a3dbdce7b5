//! A plain nginx from which caches are filled: what it says may be kept for ever.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

use super::super::child::Running;
use super::super::ground::{Ground, free_port, path};
use super::super::needs;

/// Starts one, on the load's CPU; gives its address and port.
pub(in super::super) fn start(ground: &Ground) -> anyhow::Result<(Running, String)> {
    let (place, port) = (ground.place("backend")?, free_port()?);
    let file = place.join("nginx.conf");
    let (folder, address) = (place.display(), ground.origin_address());
    let www = ground.www();
    let root = www.display();
    let settings = format!(
        r#"
daemon off;
user root root;
worker_processes 1;
error_log stderr error;
pid {folder}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    fastcgi_temp_path {folder}/fastcgi;
    proxy_temp_path {folder}/proxy;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    default_type application/octet-stream;
    sendfile on;
    add_header Cache-Control "public, max-age=31536000, immutable";
    server {{
        listen {address}:{port};
        root {root};
    }}
}}
"#
    );
    fs::write(&file, settings)?;
    let program = needs::find("nginx").context("cannot find nginx")?;
    let args = ["-e", "stderr", "-c", path(&file)?];
    let mut running = ground.start_afar(&program, &args, &place.join("log"))?;
    running.listens_at(address, port, Duration::from_secs(10))?;
    Ok((running, format!("{address}:{port}")))
}
