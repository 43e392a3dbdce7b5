//! Listeners: TLS, then HTTP/1.1 or HTTP/2, with a say in who stays.
//!
//! There are three gates besides the handshake, because a TLS session outlives its
//! certificate: a session is looked up again right after it has been registered (so that a
//! revocation between the two is not missed), at every request, and whenever a revocation list
//! changes or a second has passed.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use certs::tls::Evidence;
use certs::{Peer, RefusalReason, Trust};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use service::{Clock, Drained, Tasks};
use thiserror::Error;
use tokio::net::TcpListener;

use crate::body::Body;

mod connection;
mod in_flight;
mod metrics;
mod session;

pub use metrics::ListenMetrics;
pub use session::Session;
use session::Sessions;

/// What a listener needs.
pub struct ListenSettings {
    /// Who may connect: see `certs::tls::server_config`.
    pub tls: Arc<rustls::ServerConfig>,
    /// By which sessions are judged after the handshake.
    pub trust: Arc<Trust>,
    /// By which certificates run out.
    pub clock: Clock,
    /// How much is too much.
    pub limits: Limits,
}

/// The bounds of one listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Connections at a time, handshakes included; more wait in the system's queue.
    pub connections_max: usize,
    /// Those of them that may come from one address (IPv6: one /64); more are turned away.
    pub per_address_max: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long the head of a request may take, from its first byte, and how soon after the
    /// handshake the first must come. HTTP/1.1 only.
    pub header_timeout: Duration,
    /// How long a connection may be kept without a request. It is asked to leave then, and has
    /// as long again to do so.
    pub idle_timeout: Duration,
    /// How long a reader may take over 16 KiB of an answer that are there for it. Its HTTP/2
    /// stream is reset then, or its connection ended.
    pub stall_timeout: Duration,
    /// How long a reader may be kept waiting: from a request's head to the first byte of its
    /// answer, and from one byte to the next. The request's own body is part of that.
    pub work_timeout: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams_max: u32,
    /// Requests of one connection that its peer may give up before they are answered, within
    /// half a second. Such do not count towards `streams_max` any more, and yet made work.
    pub given_up_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Each costs up to some 40 KiB of TLS and HTTP buffers, less when it is idle: 4096 are
            // 160 MiB, and 1 GiB more if all of them send bodies that nobody reads.
            connections_max: 4096,
            // A whole branch may stand behind one address, and still nobody has all places.
            per_address_max: 2048,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(300),
            // Whatever work there is has shorter bounds of its own, and no caller of ours stays
            // for longer (`CallLimits::bulk_timeout`).
            work_timeout: Duration::from_secs(1800),
            streams_max: 256,
            // All of them at a time, four times over.
            given_up_max: 1024,
        }
    }
}

/// Where a party was when it was refused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Handshake {
    /// Before it had one: nothing that it sent was read.
    Failed,
    /// Between the handshake and the first request: revoked in that moment.
    Registered,
    /// In a session that had been accepted.
    InSession,
}

/// Somebody who was refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// From where.
    pub remote: SocketAddr,
    /// Whether it was the other side that turned from us: then it knows why, and `reason` does not.
    pub by_peer: bool,
    /// Why.
    pub reason: RefusalReason,
    /// How far it had come.
    pub stage: Handshake,
    /// Whether it proved that it holds the key of the certificate that it showed.
    pub possession_proved: bool,
    /// The certificate that it showed in a handshake that failed, if it came to that.
    pub evidence: Option<Evidence>,
    /// Who it was, if that was established.
    pub peer: Option<Peer>,
}

/// Is told who came and who was turned away. Called on the connection's task: be quick.
pub trait HandshakeSink: Send + Sync {
    /// A session has begun.
    fn accepted(&self, session: &Session) {
        let _ = session;
    }

    /// Somebody was refused, or put out.
    fn refused(&self, refused: &Refused) {
        let _ = refused;
    }
}

/// Hears nothing.
impl HandshakeSink for () {}

/// Answers requests.
type Handler =
    dyn Fn(Request<Incoming>, Arc<Session>) -> BoxFuture<'static, Response<Body>> + Send + Sync;

/// A listener at work.
pub struct Listener {
    local_addr: SocketAddr,
    metrics: Arc<ListenMetrics>,
    sessions: Arc<Sessions>,
    tasks: Tasks,
}

/// What the tasks of one listener share.
struct Shared {
    handler: Box<Handler>,
    metrics: Arc<ListenMetrics>,
    sessions: Arc<Sessions>,
    settings: ListenSettings,
    sink: Arc<dyn HandshakeSink>,
}

impl Listener {
    /// Listens on `addr`; with port 0, on a port that the system picks. Requests go to
    /// `handler`, news of handshakes to `sink`.
    ///
    /// A handler's future is dropped when its peer goes away or is put out: what must run to
    /// its end belongs into a task of the caller's.
    ///
    /// # Errors
    ///
    /// Fails if the address cannot be listened on.
    pub async fn bind<H, F>(
        addr: SocketAddr,
        settings: ListenSettings,
        handler: H,
        sink: Arc<dyn HandshakeSink>,
    ) -> Result<Self, BindError>
    where
        H: Fn(Request<Incoming>, Arc<Session>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let failed = |source| BindError { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let sessions = Arc::new(Sessions::default());
        let metrics = Arc::new(ListenMetrics::default());
        sessions.watch(&settings.trust);
        let shared = Arc::new(Shared {
            handler: Box::new(move |request, session| Box::pin(handler(request, session))),
            metrics: Arc::clone(&metrics),
            sessions: Arc::clone(&sessions),
            settings,
            sink,
        });
        let tasks = Tasks::new();
        let spawner = tasks.spawner();
        tasks.start("accept", {
            let shared = Arc::clone(&shared);
            |stop| connection::accept_all(listener, shared, spawner, stop)
        });
        tasks.start("sessions", |stop| session::keep_house(shared, stop));
        Ok(Self {
            local_addr,
            metrics,
            sessions,
            tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Its numbers.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ListenMetrics> {
        &self.metrics
    }

    /// The sessions that are open now.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.all()
    }

    /// Waits until a part of it ends by itself, which is a failure, and names that part.
    pub async fn any_ended(&self) -> &'static str {
        self.tasks.any_ended().await
    }

    /// Stops accepting, lets the requests under way end for at most `grace`, and cuts off
    /// the rest.
    pub async fn drain(self, grace: Duration) -> Drained {
        self.tasks.drain(grace).await
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

/// An address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {addr}")]
pub struct BindError {
    /// The address.
    pub addr: SocketAddr,
    /// Why not.
    pub source: io::Error,
}
