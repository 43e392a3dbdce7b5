//! The server: where it is, who it must be, and how to speak TLS with it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use certs::{CaCert, Identity, Role, pem};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::CONNECT_TIMEOUT;
use super::args::{Args, HttpVersion, Suite, read_bounded};
use super::line::Line;

/// A server to load.
#[derive(Clone)]
pub(super) struct Target {
    address: SocketAddr,
    /// The host and port that requests name.
    authority: String,
    http: HttpVersion,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Target {
    /// Finds out where the server is, and refuses to go to another machine unasked.
    pub(super) async fn find(args: &Args) -> anyhow::Result<Self> {
        let tls = tls(args)?;
        let (host, place) = match &args.server {
            Some(server) => named(server, &roots(args)?)?,
            None => {
                let (host, port) = args.authority()?;
                let place = match &args.connect {
                    Some(place) => place.clone(),
                    None if host.contains(':') => format!("[{host}]:{port}"),
                    None => format!("{host}:{port}"),
                };
                (host, place)
            }
        };
        let port = place.rsplit_once(':').map_or("443", |(_, port)| port);
        let mut found = lookup_host(&place)
            .await
            .with_context(|| format!("cannot find {place}"))?;
        let address = found
            .next()
            .with_context(|| format!("cannot find {place}"))?;
        ensure!(
            args.allow_remote || address.ip().is_loopback(),
            "cannot load {address}: it is another machine; say --allow-remote if it is yours"
        );
        Ok(Self {
            address,
            authority: match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            },
            http: args.http,
            name: ServerName::try_from(host.clone())
                .with_context(|| format!("cannot use the host {host}"))?,
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }

    /// Opens a connection, up to the point where requests can be sent.
    pub(super) async fn connect(&self) -> anyhow::Result<Line> {
        self.connect_from(None).await
    }

    /// The same, from an address of this machine.
    pub(super) async fn connect_from(&self, from: Option<IpAddr>) -> anyhow::Result<Line> {
        let connect = async {
            let stream = self.shake_hands(from).await?;
            Line::new(stream, self.http, self.authority.clone()).await
        };
        let connected = timeout(CONNECT_TIMEOUT, connect).await;
        connected
            .context("no answer in ten seconds")
            .flatten()
            .with_context(|| format!("cannot connect to {}", self.address))
    }

    async fn shake_hands(&self, from: Option<IpAddr>) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = match from {
            None => TcpStream::connect(self.address).await?,
            Some(from) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind((from, 0).into())?;
                socket.connect(self.address).await?
            }
        };
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(self.name.clone(), stream).await?;
        let agreed = stream.get_ref().1.alpn_protocol();
        if self.http == HttpVersion::Two && agreed != Some(b"h2") {
            bail!("the server does not speak HTTP/2");
        }
        Ok(stream)
    }
}

/// The synthetic name of the party `ID@HOST:PORT`, and where it is.
fn named(server: &str, roots: &[Vec<u8>]) -> anyhow::Result<(String, String)> {
    let (id, place) = server
        .split_once('@')
        .with_context(|| format!("cannot use {server}: want ID@HOST:PORT"))?;
    let root = roots.first().context("cannot find a root certificate")?;
    let root = CaCert::parse(root).context("cannot use the root certificate")?;
    let identity = Identity {
        deployment: root.deployment().clone(),
        // Origin and boosters have names of the same form.
        role: Role::Booster,
        id: id.parse().with_context(|| format!("cannot use {server}"))?,
    };
    let name = identity.dns().context("cannot find a name for it")?;
    Ok((name, place.to_owned()))
}

/// The certificates to trust.
fn roots(args: &Args) -> anyhow::Result<Vec<Vec<u8>>> {
    let path = match (&args.cacert, &args.data) {
        (Some(path), _) => path.clone(),
        (None, Some(data)) => data.join("identity/roots.pem"),
        (None, None) => bail!("cannot tell whom to trust: want --cacert, or --data"),
    };
    let text = read_bounded(&path, PEM_BYTES_MAX)?;
    pem::to_certs(&String::from_utf8_lossy(&text))
        .with_context(|| format!("cannot use {}", path.display()))
}

fn tls(args: &Args) -> anyhow::Result<ClientConfig> {
    let mut anchors = RootCertStore::empty();
    for root in roots(args)? {
        anchors
            .add(CertificateDer::from(root))
            .context("cannot use a CA certificate")?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider(args.suite)))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(anchors);
    let own = match (&args.cert, &args.key, &args.data) {
        (Some(cert), Some(key), _) => Some((cert.clone(), key.clone())),
        (_, _, Some(data)) => {
            let identity = data.join("identity");
            Some((identity.join("cert.pem"), identity.join("key.pem")))
        }
        (_, _, None) => None,
    };
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(chain(&cert)?, private_key(&key)?)
            .with_context(|| format!("cannot use {}", cert.display()))?,
    };
    config.alpn_protocols = vec![match args.http {
        HttpVersion::One => b"http/1.1".to_vec(),
        HttpVersion::Two => b"h2".to_vec(),
    }];
    // Every handshake is a whole one, with foreign servers as with ours.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn provider(suite: Suite) -> CryptoProvider {
    let provider = aws_lc_rs::default_provider();
    match suite {
        Suite::Usual => provider,
        Suite::Aes128X25519 => CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..provider
        },
    }
}

fn chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let text = read_bounded(path, PEM_BYTES_MAX)?;
    let certs = pem::to_certs(&String::from_utf8_lossy(&text))
        .with_context(|| format!("cannot use {}", path.display()))?;
    Ok(certs.into_iter().map(CertificateDer::from).collect())
}

fn private_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let text = read_bounded(path, PEM_BYTES_MAX)?;
    PrivateKeyDer::from_pem_slice(&text).with_context(|| format!("cannot use {}", path.display()))
}

/// Hundreds of certificates.
const PEM_BYTES_MAX: u64 = 1 << 20;
