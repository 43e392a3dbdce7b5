//! What can be typed after `larder-load`.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, ValueEnum, value_parser};
use content::FilesetName;
use http::Uri;

/// Load an HTTPS server as fast as it answers, and say how fast that was
///
/// What to ask for: URLs, a list of them, or all packs of a fileset. All lie on one server.
#[derive(Clone, Debug, Parser)]
#[command(name = "larder-load", version)]
pub struct Args {
    /// Objects to ask for in turn, all of them on one server, https:// and no other scheme
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,

    /// A file of further URLs, or of paths on the same server, one a line
    #[arg(long, value_name = "FILE")]
    pub object_list: Option<PathBuf>,

    /// Ask for all packs of this fileset's current revision; wants --data and --server
    #[arg(long, value_name = "NAME", requires = "data", requires = "server",
          conflicts_with_all = ["urls", "object_list"])]
    pub fileset: Option<FilesetName>,

    /// The data folder of an enrolled client, for its key and certificate and its root
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// A booster or the origin of that client's deployment
    #[arg(long, value_name = "ID@HOST:PORT", requires = "data")]
    pub server: Option<String>,

    /// Trust servers under these CA certificates (PEM), and no others
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,

    /// Show this certificate, followed by those above it (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,

    /// The key to it (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,

    /// Connect here, and still expect the host of the URLs
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "server")]
    pub connect: Option<String>,

    /// Connections at a time
    #[arg(long, default_value = "16", value_parser = value_parser!(u16).range(1..=4096))]
    pub connections: u16,

    /// The version of HTTP
    #[arg(long, value_enum, default_value = "1.1")]
    pub http: HttpVersion,

    /// Cipher and key exchange that are offered
    #[arg(long, value_enum, default_value = "usual")]
    pub suite: Suite,

    /// Requests at a time on each connection (HTTP/2 only)
    #[arg(long, default_value = "1", value_parser = value_parser!(u16).range(1..=256))]
    pub streams: u16,

    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "10",
          value_parser = value_parser!(u32).range(1..=3600))]
    pub duration: u32,

    /// Stop after so many requests, if that is sooner
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=100_000_000))]
    pub requests: Option<u64>,

    /// Give up a request after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60",
          value_parser = value_parser!(u32).range(1..=3600))]
    pub timeout: u32,

    /// Threads of the load generator itself
    #[arg(long, value_name = "N", default_value = "2")]
    pub threads: NonZeroU16,

    /// Process of the server, to measure its CPU time; give it again for each of its processes
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,

    /// Load a server on another machine
    #[arg(long)]
    pub allow_remote: bool,

    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[value(name = "1.1")]
    One,
    /// HTTP/2.
    #[value(name = "2")]
    Two,
}

/// What a TLS client offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Suite {
    /// What the library offers by itself.
    Usual,
    /// TLS_AES_128_GCM_SHA256 and X25519 and nothing else: what every server has, so that all do
    /// the same work.
    #[value(name = "aes128-x25519")]
    Aes128X25519,
}

impl fmt::Display for HttpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "1.1",
            Self::Two => "2",
        })
    }
}

impl Args {
    /// The URLs that were typed or listed, and the paths that were listed.
    fn objects(&self) -> anyhow::Result<Vec<String>> {
        let mut objects = self.urls.clone();
        if let Some(path) = &self.object_list {
            let list = read_bounded(path, LIST_BYTES_MAX)?;
            let list = String::from_utf8(list).context("cannot use a list that is not UTF-8")?;
            let lines = list.lines().map(str::trim);
            let named = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            objects.extend(named.map(str::to_owned));
        }
        Ok(objects)
    }

    /// Host and port of the URLs.
    pub(super) fn authority(&self) -> anyhow::Result<(String, u16)> {
        let mut found = None;
        for object in self.objects()?.iter().filter(|text| !text.starts_with('/')) {
            let uri: Uri = object
                .parse()
                .with_context(|| format!("cannot use {object}"))?;
            ensure!(
                uri.scheme_str() == Some("https"),
                "cannot use {object}: want https://"
            );
            let host = uri
                .host()
                .with_context(|| format!("cannot use {object}: it has no host"))?;
            let host = host.trim_matches(['[', ']']).to_owned();
            let server = (host, uri.port_u16().unwrap_or(443));
            if found.as_ref().is_some_and(|found| *found != server) {
                bail!(
                    "cannot load two servers at once: {object} lies on another than those before"
                );
            }
            found = Some(server);
        }
        found.context("cannot tell which server to load: want a URL, or --fileset")
    }

    /// Paths of the objects.
    pub(super) fn paths(&self) -> anyhow::Result<Vec<String>> {
        let path = |object: &String| {
            let uri: Uri = object
                .parse()
                .with_context(|| format!("cannot use {object}"))?;
            Ok(uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned())
        };
        self.objects()?.iter().map(path).collect()
    }
}

/// All of a file that is not longer than `bytes_max`.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let failed = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(failed)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .with_context(failed)?;
    ensure!(
        bytes.len() as u64 <= bytes_max,
        "{}: over {bytes_max} bytes",
        failed()
    );
    Ok(bytes)
}

/// Half a million paths of packs.
const LIST_BYTES_MAX: u64 = 64 << 20;
