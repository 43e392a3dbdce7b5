//! Connectors: from a list of addresses to an HTTP connection with the party expected.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use certs::tls::{Capture, CertCell, Evidence, Expected};
use certs::trust::Revocation;
use certs::{Peer, RefusalReason, Trust};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use service::{Clock, Tasks};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use crate::body::Body;
use crate::call::{CallError, Meter, alert_in};
use crate::io::{
    Activity, CONNECTION_WINDOW_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, OwnedExecutor,
    STREAM_WINDOW_BYTES, Streams, Watched, captured,
};
use crate::refusals::Refusals;

mod paced;
mod pool;
mod tap;

pub use paced::Pace;
use paced::Paced;
use pool::Pool;
use tap::Tap;

/// How a connector judges those whom it has reached, also after the handshake.
pub(crate) struct Judgement {
    pub(crate) trust: Arc<Trust>,
    pub(crate) revocation: Revocation,
    pub(crate) clock: Clock,
    pub(crate) expected: Expected,
    /// Our own certificate, if we show one.
    pub(crate) own: Option<Arc<CertCell>>,
    /// Who hears of those whom we turn from.
    pub(crate) refusals: Option<Refusals>,
}

/// Opens connections to one party, and keeps some of them for the next call.
pub(crate) struct Connector {
    addresses: ArcSwap<Vec<String>>,
    connect_timeout: Duration,
    http2: bool,
    /// `None` on first contact, when there is nothing to judge by.
    judgement: Option<Judgement>,
    meter: Arc<Meter>,
    name: ServerName<'static>,
    pace: Option<Arc<dyn Pace>>,
    pool: Arc<Pool>,
    /// Owns the connections: they end when this does.
    tasks: Tasks,
    tls: TlsConnector,
}

/// A connection, for the time of one call.
pub(crate) struct Lease {
    alert: Alert,
    peer: Option<Peer>,
    reused: bool,
    sender: Sender,
    shown: Shown,
    /// Who answered, where nobody is judged yet.
    stranger: Option<Box<Stranger>>,
}

/// Somebody who has shown a certificate, and held its key, on a connection where nobody is judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stranger {
    /// Where it was.
    pub remote: SocketAddr,
    /// What it showed.
    pub evidence: Evidence,
}

/// Which of our certificates a connection was opened with, by the first and the last second of its
/// life. The other side judges us by that one for as long as the connection lives.
pub(crate) type Shown = Option<(i64, i64)>;

/// The alert that ended a connection, once there was one.
pub(crate) type Alert = Arc<OnceLock<AlertDescription>>;

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Connector {
    pub(crate) fn new(
        addresses: Vec<String>,
        expected: &Expected,
        mut tls: ClientConfig,
        judgement: Option<Judgement>,
        http2: bool,
        connect_timeout: Duration,
        meter: Arc<Meter>,
    ) -> Self {
        // What is offered is what is spoken: no guessing afterwards.
        tls.alpn_protocols = vec![if http2 {
            b"h2".to_vec()
        } else {
            b"http/1.1".to_vec()
        }];
        Self {
            addresses: ArcSwap::from_pointee(addresses),
            connect_timeout,
            http2,
            judgement,
            meter,
            name: expected.server_name(),
            pace: None,
            pool: Arc::default(),
            tasks: Tasks::new(),
            tls: TlsConnector::from(Arc::new(tls)),
        }
    }

    /// The same, with connections that are read at a pace.
    pub(crate) fn paced(self, pace: Arc<dyn Pace>) -> Self {
        Self {
            pace: Some(pace),
            ..self
        }
    }

    pub(crate) fn addresses(&self) -> Arc<Vec<String>> {
        self.addresses.load_full()
    }

    pub(crate) fn set_addresses(&self, addresses: Vec<String>) {
        self.addresses.store(Arc::new(addresses));
    }

    /// What belongs into a request for `path`, depending on the version spoken.
    pub(crate) fn request(&self, path: &str) -> http::request::Builder {
        let host = self.name.to_str();
        let request = if self.http2 {
            Request::builder()
                .version(http::Version::HTTP_2)
                .uri(format!("https://{host}{path}"))
        } else {
            Request::builder()
                .uri(path)
                .header(http::header::HOST, host.as_ref())
        };
        request.header(protocol::VERSION_HEADER, protocol::PROTOCOL_VERSION)
    }

    /// Sends what `make` makes, and waits for the head of the answer until `deadline`. If a
    /// connection from the pool turns out to be dead, a fresh one is tried: what is sent must
    /// bear being sent twice.
    pub(crate) async fn exchange(
        &self,
        make: impl Fn() -> Request<Body>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Returnable), CallError> {
        let mut fresh = false;
        loop {
            let mut lease = self.lease(fresh, deadline).await?;
            let Ok(sent) = timeout_at(deadline, lease.send(make())).await else {
                // It may have gone dumb, which nobody else would find out before TCP does.
                self.pool.clear();
                return Err(CallError::Timeout {
                    step: "get an answer",
                });
            };
            match sent {
                Ok(response) => {
                    let back = Returnable {
                        lease,
                        pool: Arc::clone(&self.pool),
                    };
                    return Ok((response, back));
                }
                Err(error) if lease.reused && lease.alert.get().is_none() => {
                    debug!(%error, "a connection from the pool was dead");
                    fresh = true;
                }
                Err(error) => {
                    return Err(CallError::of_broken(
                        error.into(),
                        lease.alert.get().copied(),
                    ));
                }
            }
        }
    }

    async fn lease(&self, fresh: bool, deadline: Instant) -> Result<Lease, CallError> {
        let shown = self.shown();
        if fresh {
            self.pool.clear();
        } else if let Some(lease) = self.pool.take(shown).await {
            if self.may_speak_to(lease.peer.as_ref()).is_ok() {
                return Ok(lease);
            }
            // Whoever it was is not to be spoken to any more: let a handshake say why.
            self.pool.clear();
        }
        let deadline = deadline.min(Instant::now() + self.connect_timeout);
        let mut lease = self.dial(deadline).await?;
        // Of two, the older one: to take a new connection for an old one costs a handshake.
        lease.shown = shown;
        if let Sender::Http2(sender) = &lease.sender {
            let (alert, peer) = (Arc::clone(&lease.alert), lease.peer.clone());
            self.pool.share(sender.clone(), alert, peer, shown);
        }
        Ok(lease)
    }

    fn shown(&self) -> Shown {
        self.judgement.as_ref()?.own.as_ref()?.validity()
    }

    fn may_speak_to(&self, peer: Option<&Peer>) -> Result<(), RefusalReason> {
        match (&self.judgement, peer) {
            (Some(judge), Some(peer)) => {
                judge
                    .trust
                    .check_with(peer, judge.revocation, judge.clock.now())
            }
            (Some(_), None) => Err(RefusalReason::NoCertificate),
            (None, _) => Ok(()),
        }
    }

    /// Tries one address after the other until one answers. Only a connection that cannot be
    /// had leads to the next address: whoever answers and fails the handshake is an answer.
    async fn dial(&self, deadline: Instant) -> Result<Lease, CallError> {
        let addresses = self.addresses();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no address is known");
        for (index, address) in addresses.iter().enumerate() {
            // Each address gets its share of the time that is left.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return self.shake_hands(stream, deadline).await,
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(CallError::Unreachable {
            addresses: addresses.join(", "),
            source: last,
        })
    }

    async fn shake_hands(&self, stream: TcpStream, deadline: Instant) -> Result<Lease, CallError> {
        stream
            .set_nodelay(true)
            .map_err(|source| CallError::Tls { source })?;
        let remote = stream.peer_addr();
        let stream = Watched::new(stream, Arc::new(Activity::default()));
        let capture = Capture::default();
        let handshake = captured(&capture, self.tls.connect(self.name.clone(), stream));
        let shaken = timeout_at(deadline, handshake)
            .await
            .map_err(|_| CallError::Timeout {
                step: "shake hands",
            })?;
        let captured = capture.take();
        let seen = captured.evidence;
        let stream = shaken
            .map_err(|error| failed_handshake(error, seen.clone()))
            .inspect_err(|error| self.note(error, remote.as_ref().ok()))?;
        self.meter.connections.fetch_add(1, Ordering::Relaxed);
        let speaking = timeout_at(deadline, self.speak(stream, captured.peer)).await;
        let mut lease = speaking.map_err(|_| CallError::Timeout {
            step: "shake hands",
        })??;
        if let (None, Ok(remote), Some(evidence)) = (&self.judgement, remote, seen) {
            lease.stranger = Some(Box::new(Stranger { remote, evidence }));
        }
        Ok(lease)
    }

    /// Passes it on if we have turned from the server.
    fn note(&self, error: &CallError, remote: Option<&SocketAddr>) {
        if let CallError::Distrusted { reason, evidence } = error
            && let Some(judge) = &self.judgement
            && let (Some(refusals), Some(remote)) = (&judge.refusals, remote)
        {
            refusals.note_server(*remote, &judge.expected, *reason, evidence.as_deref());
        }
    }

    async fn speak(
        &self,
        stream: TlsStream<Watched>,
        peer: Option<Peer>,
    ) -> Result<Lease, CallError> {
        let agreed = stream.get_ref().1.alpn_protocol();
        if self.http2 && agreed != Some(b"h2") {
            return Err(CallError::bad("the server does not speak HTTP/2"));
        }
        let alert = Alert::default();
        let paced = Paced::new(stream, self.pace.clone());
        let io = TokioIo::new(Tap::new(paced, Arc::clone(&alert)));
        let broken = |error: hyper::Error| CallError::of_broken(error.into(), alert.get().copied());
        let sender = if self.http2 {
            let mut streams = Streams::default();
            let (sender, connection) = http2_builder(&streams)
                .handshake(io)
                .await
                .map_err(broken)?;
            self.tasks.start_brief("http2", |stop| async move {
                tokio::select! {
                    ended = streams.drive(connection) => note(ended),
                    () = stop.cancelled() => {}
                }
            });
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::Builder::new().handshake(io).await.map_err(broken)?;
            self.tasks.start_brief("http1", |stop| async move {
                tokio::select! {
                    ended = connection => note(ended),
                    () = stop.cancelled() => {}
                }
            });
            Sender::Http1(sender)
        };
        Ok(Lease {
            alert,
            peer,
            reused: false,
            sender,
            shown: None,
            stranger: None,
        })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("name", &self.name)
            .field("addresses", &self.addresses())
            .finish_non_exhaustive()
    }
}

impl Lease {
    async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

/// A connection that is in use until its answer has been read to the end. Dropped before,
/// an HTTP/1.1 connection closes: what is left of its answer is of no use to the next call.
pub(crate) struct Returnable {
    lease: Lease,
    pool: Arc<Pool>,
}

impl Returnable {
    /// The answer has been read: the connection may serve the next call.
    pub(crate) fn give_back(self) {
        if let Sender::Http1(sender) = self.lease.sender {
            let Lease {
                alert, peer, shown, ..
            } = self.lease;
            self.pool.put(sender, alert, peer, shown);
        }
    }

    /// The answer took too long: the next call gets a connection that is not the same.
    pub(crate) fn give_up(self) {
        self.pool.clear();
    }

    pub(crate) fn alert(&self) -> Option<AlertDescription> {
        self.lease.alert.get().copied()
    }

    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.lease.peer.as_ref()
    }

    pub(crate) fn stranger(&self) -> Option<&Stranger> {
        self.lease.stranger.as_deref()
    }
}

/// What a handshake that failed means.
fn failed_handshake(error: io::Error, evidence: Option<Evidence>) -> CallError {
    if let Some(alert) = alert_in(&error) {
        return CallError::Refused {
            reason: RefusalReason::of_alert(alert),
        };
    }
    match evidence.as_ref().and_then(|evidence| evidence.reason) {
        Some(reason) => CallError::Distrusted {
            reason,
            evidence: evidence.map(Box::new),
        },
        // What speaks no TLS will not learn it by tomorrow; what hung up may come back.
        None if error.kind() == io::ErrorKind::InvalidData => CallError::Tls { source: error },
        None => CallError::Broken {
            source: error.into(),
        },
    }
}

fn http2_builder(streams: &Streams) -> http2::Builder<OwnedExecutor> {
    let mut builder = http2::Builder::new(streams.executor());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder
}

fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        debug!(%error, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};
    use tokio::time::timeout;

    use super::*;
    use crate::testing::SOON;

    /// cas.md 19: with windows of 64 KiB, a line of 60 ms carries 9 Mbit/s, however fast it is.
    #[tokio::test]
    async fn b19_the_windows_we_grant_hold_what_is_under_way_on_a_long_fast_line() {
        let (ours, mut theirs) = duplex(1 << 16);
        let mut streams = Streams::default();
        let begun = http2_builder(&streams).handshake(TokioIo::new(ours)).await;
        let (sender, connection) = begun.unwrap();
        let _open = Sender::Http2(sender);
        // A stream's window stands in the first settings (RFC 9113 §6.5.2), the connection's in an
        // update of stream 0 (§6.9), on top of 65,535 bytes.
        let (mut said, mut windows) = (Vec::new(), None);
        let read = async {
            while windows.is_none() {
                theirs.read_buf(&mut said).await.unwrap();
                let behind = |what: &[u8]| {
                    let at = said.windows(what.len()).position(|it| it == what)?;
                    let number = said.get(at + what.len()..at + what.len() + 4)?;
                    Some(u64::from(u32::from_be_bytes(number.try_into().unwrap())))
                };
                windows = behind(&[0, 4]).zip(behind(&[0, 0, 4, 8, 0, 0, 0, 0, 0]));
            }
        };
        tokio::select! {
            ended = streams.drive(connection) => panic!("{ended:?}"),
            read = timeout(SOON, read) => read.unwrap(),
        }
        let (stream, whole) = windows.unwrap();
        let under_way = 1_000_000_000 / 8 * 60 / 1000;
        assert!(stream >= under_way, "a stream: {stream}");
        assert!(whole + 65_535 >= 4 * under_way, "a connection: {whole}");
    }
}
