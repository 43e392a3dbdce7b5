//! A stock nginx as a cache in front of an origin.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::curl::host;
use crate::program::{Program, Running};

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// Somebody else may take the port between our choice and its bind: not three times in a row.
const TRIES: u32 = 3;

/// An nginx at work. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Nginx {
    pub(crate) base: String,
    _running: Running,
}

impl Nginx {
    /// In front of the party `id` at `address`, with the certificate of the enrolled party whose
    /// data folder is `data`; it keeps its own things in `folder`.
    pub(crate) async fn start(
        folder: &Path,
        data: &Path,
        id: &str,
        address: SocketAddr,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut failure = None;
        for _ in 0..TRIES {
            let port = free_port()?;
            fs::write(
                folder.join("nginx.conf"),
                settings(folder, data, id, address, port),
            )?;
            match Self::on(folder, port).await {
                Ok(nginx) => return Ok(nginx),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("it was tried at least once")?)
    }

    async fn on(folder: &Path, port: u16) -> anyhow::Result<Self> {
        let mut running = Program::new("nginx")
            .args(["-e", "stderr", "-p"])
            .arg(folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .start()?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            running.still_runs()?;
            ensure!(
                Instant::now() < deadline,
                "it does not listen: {}",
                running.said()?
            );
            sleep(Duration::from_millis(10)).await;
        }
        // If somebody else has the port, nginx gives up and says so.
        running.still_runs()?;
        Ok(Self {
            base: format!("http://127.0.0.1:{port}"),
            _running: running,
        })
    }
}

fn free_port() -> anyhow::Result<u16> {
    let chosen = TcpListener::bind("127.0.0.1:0")?;
    Ok(chosen.local_addr()?.port())
}

/// What an operator would write, but for the folders and the port.
fn settings(folder: &Path, data: &Path, id: &str, address: SocketAddr, port: u16) -> String {
    let (folder, name) = (folder.display(), host(id));
    let identity = data.join("identity");
    let identity = identity.display();
    format!(
        r#"
daemon off;
# Its folder is below one that only we may enter.
user root root;
worker_processes 1;
error_log stderr info;
pid {folder}/nginx.pid;
events {{ worker_connections 128; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    fastcgi_temp_path {folder}/fastcgi;
    proxy_temp_path {folder}/proxy;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=packs:1m max_size=1g
                     inactive=30d use_temp_path=off;
    server {{
        listen 127.0.0.1:{port};
        location ~ "^/v1/filesets/[^/]+/packs/(?<pack>[0-9a-f]{{64}})$" {{
            proxy_pass https://{address};
            proxy_http_version 1.1;
            proxy_set_header Host {name};
            proxy_set_header Connection "";
            proxy_ssl_certificate {identity}/cert.pem;
            proxy_ssl_certificate_key {identity}/key.pem;
            proxy_ssl_name {name};
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_server_name on;
            proxy_ssl_trusted_certificate {identity}/roots.pem;
            proxy_ssl_verify on;
            proxy_ssl_verify_depth 2;
            # The name of a pack says all: whatever the fileset, the bytes are the same.
            proxy_cache packs;
            proxy_cache_key $pack;
            proxy_cache_lock on;
            add_header X-Cache-Status $upstream_cache_status always;
        }}
    }}
}}
"#
    )
}
