//! A small plain HTTP/1.1 server for listeners that only this machine's people use.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::tasks::{Spawner, Tasks};
use crate::unix::PeerUser;

/// Where connections come from.
pub(crate) trait Accept: Send + 'static {
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    fn accept_one(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;

    /// Who is at the other end, as far as the system vouches for it.
    fn peer(io: &Self::Io) -> Option<PeerUser>;
}

impl Accept for TcpListener {
    type Io = tokio::net::TcpStream;

    async fn accept_one(&self) -> io::Result<Self::Io> {
        self.accept().await.map(|(stream, _)| stream)
    }

    fn peer(_: &Self::Io) -> Option<PeerUser> {
        None
    }
}

impl Accept for UnixListener {
    type Io = tokio::net::UnixStream;

    async fn accept_one(&self) -> io::Result<Self::Io> {
        self.accept().await.map(|(stream, _)| stream)
    }

    fn peer(io: &Self::Io) -> Option<PeerUser> {
        let uid = io.peer_cred().ok()?.uid();
        Some(PeerUser { uid })
    }
}

/// What one listener allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at a time; more wait in the system's queue.
    pub(crate) connections_max: usize,
    /// How long a connection may last from its first byte to its last.
    pub(crate) life_max: Duration,
}

/// How long a peer may take to send the head of a request.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long to wait when the system has no more descriptors for us: long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections in a task of `tasks` until they drain, one request each.
pub(crate) fn serve<L, H, F, B>(tasks: &Tasks, listener: L, limits: Limits, handler: H)
where
    L: Accept + Sync,
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let spawner = tasks.spawner();
    let handler = Arc::new(handler);
    tasks.start("accept", move |stop| async move {
        let accepting = accept_all(&listener, limits, &spawner, &handler);
        // Dropping the loop in mid-accept loses no connection that was counted.
        tokio::select! {
            () = accepting => {}
            () = stop.cancelled() => {}
        }
    });
}

async fn accept_all<L, H, F, B>(listener: &L, limits: Limits, spawner: &Spawner, handler: &Arc<H>)
where
    L: Accept,
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let places = Arc::new(Semaphore::new(limits.connections_max));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let io = match listener.accept_one().await {
            Ok(io) => io,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (handler, peer) = (Arc::clone(handler), L::peer(&io));
        let started = spawner.start_brief("connection", |stop| async move {
            let _place = place;
            if timeout(limits.life_max, converse(io, peer, handler, stop))
                .await
                .is_err()
            {
                debug!("a connection was cut off: too slow");
            }
        });
        if !started {
            return;
        }
    }
}

async fn converse<I, H, F, B>(
    io: I,
    peer: Option<PeerUser>,
    handler: Arc<H>,
    stop: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let service = service_fn(|mut request: Request<Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection broke");
    }
}
