//! One device on the wire: a key of its own, a connection, a check-in.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use content::Digest;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use protocol::{CheckIn, CheckInAnswer, CurrentManifest, Fault, FilesetResult, Held};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// A device that has enrolled.
pub(super) struct Device {
    pub(super) id: String,
    pub(super) tls: Arc<ClientConfig>,
    /// Its address on loopback: a listener takes only so many connections from one.
    pub(super) from: Ipv4Addr,
    /// What it goes by.
    pub(super) held: Option<CurrentManifest>,
}

/// A listener, and under what name it must answer.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) at: SocketAddr,
    pub(super) host: String,
    pub(super) name: ServerName<'static>,
}

/// A connection. Dropping it ends it.
pub(super) struct Line {
    host: String,
    sender: SendRequest<Full<Bytes>>,
    _task: JoinSet<()>,
}

/// What came of a check-in.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    /// Nothing has changed.
    Nothing,
    /// What the origin says.
    News(CheckInAnswer),
}

impl Device {
    /// Its check-in's body.
    pub(super) fn check_in(&self, results: Vec<FilesetResult>) -> Bytes {
        let held = self.held.as_ref();
        let check_in = CheckIn {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            booster: None,
            held: Some(Held {
                model: held.map_or(0, |held| held.model),
                manifest: held.map(|held| held.digest),
                capabilities: Vec::new(),
                results,
                done: Vec::new(),
                inventory: None,
            }),
        };
        check_in.encode().into()
    }

    pub(super) async fn connect(&self, place: &Place) -> anyhow::Result<Line> {
        Line::open(place, Arc::clone(&self.tls), self.from).await
    }

    /// Checks in on a new connection, and gets its manifest if it is another one.
    pub(super) async fn visit(&mut self, place: &Place) -> anyhow::Result<Heard> {
        let mut line = self.connect(place).await?;
        let heard = line.check_in(self.check_in(Vec::new())).await?;
        if let Heard::News(answer) = &heard
            && let Some(manifest) = &answer.manifest
            && self.held.as_ref() != Some(manifest)
        {
            line.manifest(&manifest.digest).await?;
            self.held = Some(manifest.clone());
        }
        Ok(heard)
    }
}

impl Line {
    pub(super) async fn open(
        place: &Place,
        tls: Arc<ClientConfig>,
        from: Ipv4Addr,
    ) -> anyhow::Result<Self> {
        let opening = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((from, 0).into())?;
            let stream = socket.connect(place.at).await?;
            stream.set_nodelay(true)?;
            let stream = TlsConnector::from(tls)
                .connect(place.name.clone(), stream)
                .await?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let mut task = JoinSet::new();
            task.spawn(async move {
                // How it ended shows in what was under way.
                drop(connection.await);
            });
            anyhow::Ok(Self {
                host: place.host.clone(),
                sender,
                _task: task,
            })
        };
        timeout(PATIENCE, opening)
            .await
            .context("no connection in time")?
    }

    /// Asks, and reads the whole answer.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let asking = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?;
            anyhow::Ok((head.status, body.to_bytes()))
        };
        timeout(PATIENCE, asking)
            .await
            .context("no answer in time")?
    }

    /// Sends a check-in.
    pub(super) async fn check_in(&mut self, body: Bytes) -> anyhow::Result<Heard> {
        let headers = [
            ("content-type", "application/json"),
            ("larder-protocol", "1"),
        ];
        let asked = self.ask(Method::POST, "/v1/check-in", &headers, body);
        match asked.await? {
            (StatusCode::NO_CONTENT, _) => Ok(Heard::Nothing),
            (StatusCode::OK, body) => {
                let answer = CheckInAnswer::decode(&body).context("that is no answer")?;
                Ok(Heard::News(answer))
            }
            (status, body) => {
                let fault = Fault::decode(&body).map(|fault| fault.to_string());
                bail!("refused: {status} {}", fault.unwrap_or_default())
            }
        }
    }

    /// Gets a manifest, and holds it against its name.
    async fn manifest(&mut self, digest: &Digest) -> anyhow::Result<()> {
        let path = format!("/v1/statements/{digest}");
        let (status, body) = self.ask(Method::GET, &path, &[], Bytes::new()).await?;
        ensure!(status.is_success(), "cannot get a manifest: {status}");
        ensure!(Digest::of(&body) == *digest, "another manifest came");
        Ok(())
    }

    /// Whether the other side has ended it.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// For a connection, and for an answer: long, so that a slow one is seen and not hidden.
const PATIENCE: Duration = Duration::from_secs(30);
const BODY_BYTES_MAX: usize = 4 << 20;
