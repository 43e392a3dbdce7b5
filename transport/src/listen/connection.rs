//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use certs::tls::Capture;
use certs::{Peer, RefusalReason};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use protocol::{Code, Fault};
use rustls::Error as TlsError;
use service::{CancellationToken, Spawner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::in_flight::{Answer, InFlight};
use super::session::Session;
use super::{Handshake, Refused, Shared};
use crate::body::BoxError;
use crate::io::{
    Activity, Batched, Driven, InlineExecutor, InlineStreams, Quiet, Watched, captured, keep_alive,
};
use crate::places::Places;
use crate::respond;

pub(super) async fn accept_all(
    listener: TcpListener,
    shared: Arc<Shared>,
    spawner: Spawner,
    stop: CancellationToken,
) {
    let limits = &shared.settings.limits;
    let places = Places::new(limits.connections_max, limits.per_address_max);
    while let Some((stream, remote, place)) = places.next(&listener, &stop).await {
        let shared = Arc::clone(&shared);
        let started = spawner.start_bare(|stop| async move {
            let _place = place;
            shared.metrics.open.fetch_add(1, Ordering::Relaxed);
            let _open = Open {
                shared: Arc::clone(&shared),
            };
            converse(stream, remote, &shared, stop).await;
        });
        if !started {
            return;
        }
    }
}

/// Counts a connection as open, however its task ends.
struct Open {
    shared: Arc<Shared>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.metrics.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn converse(
    stream: TcpStream,
    remote: SocketAddr,
    shared: &Arc<Shared>,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%remote, %error, "cannot set TCP_NODELAY");
    }
    if let Err(error) = keep_alive(&stream) {
        debug!(%remote, %error, "cannot keep the connection alive");
    }
    let activity = Arc::new(Activity::new(&shared.metrics.traffic));
    let stream = Watched::new(stream, Arc::clone(&activity));
    // A handshake has no right to delay the end: whoever is in it has been promised nothing.
    let accepted = tokio::select! {
        // In a box, which goes when it is over: its state is no part of a connection's.
        accepted = Box::pin(shake_hands(stream, remote, shared)) => accepted,
        () = stop.cancelled() => None,
    };
    if let Some((stream, http2, peer)) = accepted {
        let registered = shared.sessions.register(
            peer,
            remote,
            http2,
            &shared.settings.limits,
            Arc::clone(&activity),
        );
        let session = registered.session();
        // Gate 2: a list that came between the handshake's look-up and the registration has
        // gone past both.
        match shared.judge(session, shared.settings.clock.now()) {
            Ok(()) => {
                shared.metrics.accepted.fetch_add(1, Ordering::Relaxed);
                shared.sink.accepted(session);
                serve(stream, http2, session, shared, stop).await;
            }
            Err(reason) => shared.put_out(session, reason, Handshake::Registered),
        }
    }
}

/// The TLS handshake: what to speak over, whether that is HTTP/2, and with whom. Who fails it is
/// reported, and told why before the connection closes.
async fn shake_hands(
    stream: Watched,
    remote: SocketAddr,
    shared: &Shared,
) -> Option<(Batched, bool, Option<Peer>)> {
    let capture = Capture::default();
    let acceptor = TlsAcceptor::from(Arc::clone(&shared.settings.tls));
    let handshake = captured(&capture, acceptor.accept(stream).into_fallible());
    let error = match timeout(shared.settings.limits.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => {
            stream.get_ref().0.acknowledge();
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            return Some((Batched::new(stream), http2, capture.take().peer));
        }
        Ok(Err((error, stream))) => {
            linger(stream).await;
            Some(error)
        }
        Err(_) => None,
    };
    let evidence = capture.take().evidence;
    let library = error
        .as_ref()
        .and_then(|error| error.get_ref()?.downcast_ref::<TlsError>());
    // What our verifier said is more exact than what the library made of it.
    let reason = evidence
        .as_ref()
        .and_then(|evidence| evidence.reason)
        .or_else(|| library.map(RefusalReason::of_error));
    let refused = Refused {
        remote,
        by_peer: matches!(library, Some(TlsError::AlertReceived(_))),
        reason: reason.unwrap_or(RefusalReason::Protocol),
        stage: Handshake::Failed,
        possession_proved: evidence
            .as_ref()
            .is_some_and(|evidence| evidence.possession_proved),
        evidence,
        peer: None,
    };
    debug!(%remote, reason = %refused.reason, "refused a handshake");
    shared.refuse(&refused);
    None
}

/// Closes a connection in such a way that the alert on it arrives: a socket that is closed
/// with unread bytes in it sends a reset, which overtakes what was sent before.
async fn linger(mut stream: Watched) {
    let drain = async {
        stream.shutdown().await?;
        let mut scratch = [0; 4096];
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            match stream.read(&mut scratch).await? {
                0 => break,
                got => left = left.saturating_sub(got),
            }
        }
        Ok::<(), std::io::Error>(())
    };
    match timeout(LINGER_MAX, drain).await {
        // Whether it ended well is the peer's business.
        Ok(_) | Err(_) => {}
    }
}

async fn serve(
    stream: Batched,
    http2: bool,
    session: &Arc<Session>,
    shared: &Arc<Shared>,
    stop: CancellationToken,
) {
    let ended = Quiet::new(session.ended().cancelled_owned());
    let leave = Quiet::new(leave(session, stop));
    // In a box, so that nobody needs room for what he does not speak.
    let spoken: Pin<Box<dyn Future<Output = _> + Send>> = if http2 {
        Box::pin(speak_http2(&stream, session, shared, leave))
    } else {
        Box::pin(speak_http1(&stream, session, shared, leave))
    };
    let outcome = tokio::select! {
        outcome = spoken => outcome,
        () = ended => Ok(()),
    };
    if let Err(error) = outcome {
        debug!(remote = %session.remote(), %error, "a connection broke");
    }
}

async fn speak_http2(
    stream: &Batched,
    session: &Arc<Session>,
    shared: &Arc<Shared>,
    leave: impl Future<Output = ()>,
) -> Result<(), BoxError> {
    let service = service_fn(|request| {
        let (session, shared) = (Arc::clone(session), Arc::clone(shared));
        async move {
            // On the stream's own time, so that it is known what ends it.
            let in_flight = session.request();
            answer(request, in_flight, session, shared).await
        }
    });
    let mut streams = InlineStreams::default();
    let io = TokioIo::new(stream.clone());
    // In a box: what pins a future where it stands has room for it twice.
    let mut connection = Box::pin(http2_builder(shared, &streams).serve_connection(io, service));
    tokio::select! {
        outcome = streams.drive(connection.as_mut(), stream) => return outcome,
        () = leave => {}
    }
    connection.as_mut().graceful_shutdown();
    streams.drive(connection.as_mut(), stream).await
}

/// Keeps nothing of HTTP, whose buffers are most of what a connection takes, while the peer has
/// nothing to say.
async fn speak_http1(
    stream: &Batched,
    session: &Arc<Session>,
    shared: &Arc<Shared>,
    leave: impl Future<Output = ()>,
) -> Result<(), BoxError> {
    let mut leave = pin!(leave);
    loop {
        tokio::select! {
            readable = stream.readable() => readable?,
            () = leave.as_mut() => return Ok(stream.close().await?),
        }
        // Counted as soon as HTTP hands it over: what is under way is not put away.
        let service = service_fn(|request| {
            answer(
                request,
                session.request(),
                Arc::clone(session),
                Arc::clone(shared),
            )
        });
        let io = TokioIo::new(stream.clone());
        let mut connection = http1_builder().serve_connection(io, service);
        let rest = poll_fn(|cx| session.poll_rest(cx));
        let driven = tokio::select! {
            driven = stream.drive_until(Pin::new(&mut connection), rest) => driven,
            () = leave.as_mut() => {
                Pin::new(&mut connection).graceful_shutdown();
                let ended = stream.drive(Pin::new(&mut connection)).await;
                ended.map(|()| Driven::Ended)
            }
        };
        match driven? {
            Driven::Ended => return Ok(()),
            Driven::AtRest => {
                shared.metrics.rests.fetch_add(1, Ordering::Relaxed);
                stream.put_back(connection.into_parts().read_buf);
            }
        }
    }
}

/// Resolves when the connection should end as soon as it decently can.
async fn leave(session: &Session, stop: CancellationToken) {
    let retiring = session.retiring();
    tokio::select! {
        () = stop.cancelled() => {}
        () = retiring.cancelled() => {}
    }
}

async fn answer(
    request: Request<Incoming>,
    in_flight: Arc<InFlight>,
    session: Arc<Session>,
    shared: Arc<Shared>,
) -> Result<Response<Answer>, Infallible> {
    shared.metrics.requests.fetch_add(1, Ordering::Relaxed);
    let response = match shared.judge(&session, shared.settings.clock.now()) {
        Ok(()) => (shared.handler)(request, session).await,
        Err(reason) => {
            // The housekeeper puts it out at once; this much it may still hear.
            let fault = farewell(reason);
            shared.report(&session, reason, Handshake::InSession);
            session.retire();
            respond::fault(&fault)
        }
    };
    Ok(response.map(|body| Answer::new(body, in_flight)))
}

/// What a peer is told that was let in and has to go.
fn farewell(reason: RefusalReason) -> Fault {
    match reason {
        RefusalReason::Revoked => Fault::new(Code::Revoked, "the certificate is revoked"),
        RefusalReason::Expired => Fault::new(Code::Forbidden, "the certificate has expired"),
        RefusalReason::NotYetValid
        | RefusalReason::UnknownIssuer
        | RefusalReason::BadSignature
        | RefusalReason::WrongEku
        | RefusalReason::WrongRole
        | RefusalReason::NoCertificate
        | RefusalReason::CrlStale
        | RefusalReason::NameMismatch
        | RefusalReason::Protocol => Fault::new(
            Code::Busy,
            "cannot tell whether the certificate still holds",
        ),
    }
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The housekeeper bounds heads and idleness apart; hyper knows one bound for both.
        .header_read_timeout(None)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEADER_LIST_BYTES_MAX as usize)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    builder
}

fn http2_builder(shared: &Shared, streams: &InlineStreams) -> http2::Builder<InlineExecutor> {
    let mut builder = http2::Builder::new(streams.executor());
    builder
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(shared.settings.limits.streams_max)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES);
    builder
}

/// How long, and for how many bytes, a refused peer is heard out so that it hears us. A
/// client that pushes a request body early pushes about a megabyte.
const LINGER_MAX: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 2 << 20;
/// Ours send five.
const HEADERS_MAX: usize = 64;
/// Holds a head, and one piece of a body on its way out.
const HTTP1_BUFFER_BYTES: usize = 256 << 10;
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// The longest body of a request that any of us takes; what nobody reads is kept up to here.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// Four of them: whoever sends more at a time waits.
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// What a stream may hold for a reader that is slower than we are.
const SEND_BUFFER_BYTES: usize = 256 << 10;
