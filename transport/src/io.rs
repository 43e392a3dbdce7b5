//! Streams that are watched, and tasks that belong to one connection.

mod batched;
mod inline;
mod quiet;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use certs::tls::Capture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use batched::{Batched, Driven};
pub(crate) use inline::{Call, InlineExecutor, InlineStreams, own_end};
pub(crate) use quiet::Quiet;

/// Bytes that went over some TCP connections, all together.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes received.
    pub received_bytes: AtomicU64,
    /// Bytes sent.
    pub sent_bytes: AtomicU64,
}

/// What has moved over one TCP connection, and how it is to end.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    received: AtomicU64,
    reset: AtomicBool,
    sent: AtomicU64,
    traffic: Arc<Traffic>,
}

impl Activity {
    /// Of a connection that counts towards `traffic`.
    pub(crate) fn new(traffic: &Arc<Traffic>) -> Self {
        Self {
            traffic: Arc::clone(traffic),
            ..Self::default()
        }
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Changes whenever anything moves.
    pub(crate) fn moved(&self) -> u64 {
        self.received().wrapping_add(self.sent())
    }

    /// Lets the connection end with a reset: what the kernel still holds is thrown away.
    pub(crate) fn reset_on_close(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }
}

/// A TCP stream that keeps an [`Activity`].
#[derive(Debug)]
pub(crate) struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Watched {
    pub(crate) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    /// Acknowledges at once what has been read. A peer whose Nagle's algorithm holds its first
    /// request back until its part of the handshake is acknowledged would wait 40 ms otherwise,
    /// since we have nothing to say then: no tickets.
    pub(crate) fn acknowledge(&self) {
        // Without it, that peer waits, and no other.
        #[cfg(target_os = "linux")]
        self.stream.set_quickack(true).unwrap_or_default();
    }
}

impl Watched {
    /// Ready once there may be something to read, or an end.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(cx)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.activity.reset.load(Ordering::Relaxed) {
            // A socket that cannot be set is closed in the common way.
            self.stream.set_zero_linger().unwrap_or_default();
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let got = buffer.filled().len() - before;
        let Activity {
            received, traffic, ..
        } = &*self.activity;
        note(got, received, &traffic.received_bytes);
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        note_sent(&self.activity, &polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        note_sent(&self.activity, &polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn note_sent(activity: &Activity, polled: &Poll<io::Result<usize>>) {
    if let Poll::Ready(Ok(sent)) = polled {
        note(*sent, &activity.sent, &activity.traffic.sent_bytes);
    }
}

/// Counts bytes on `one` connection, which nobody else counts on, and on all of them.
fn note(bytes: usize, one: &AtomicU64, all: &AtomicU64) {
    if bytes > 0 {
        let before = one.load(Ordering::Relaxed);
        one.store(before.wrapping_add(bytes as u64), Ordering::Relaxed);
        all.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Lets the kernel find out that the peer has vanished while nothing is sent, over either HTTP. Pings
/// of HTTP/2 would find the same for a lock and a look at the clock with every frame. A peer that
/// vanishes while something is on its way to it leaves an answer untaken, which has a bound of its
/// own (`Limits::stall_timeout`).
pub(crate) fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE_INTERVAL)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE_TIMEOUT / KEEP_ALIVE_PROBES)?;
    sockopt::set_tcp_keepcnt(stream, KEEP_ALIVE_PROBES)?;
    sockopt::set_socket_keepalive(stream, true)?;
    Ok(())
}

/// Runs a handshake whose verifiers write into `capture`, whichever thread polls it.
pub(crate) async fn captured<F: Future + Unpin>(capture: &Capture, mut handshake: F) -> F::Output {
    poll_fn(|cx| capture.enter(|| Pin::new(&mut handshake).poll(cx))).await
}

/// Starts what one HTTP/2 connection of a caller consists of.
#[derive(Clone, Default)]
pub(crate) struct OwnedExecutor(Arc<Mutex<Vec<Part>>>);

type Part = Pin<Box<dyn Future<Output = ()> + Send>>;

impl OwnedExecutor {
    fn started(&self) -> MutexGuard<'_, Vec<Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> hyper::rt::Executor<F> for OwnedExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, part: F) {
        self.started().push(Box::pin(part));
    }
}

/// The parts of one HTTP/2 connection of a caller, which end when this is dropped.
///
/// They take turns on one task. On tasks of their own, one part sends a request while another reads
/// the answer and the farewell that comes with it; and when the first then looks whether the
/// connection is still good, it sees the farewell and throws the answer away.
#[derive(Default)]
pub(crate) struct Streams {
    executor: OwnedExecutor,
    set: FuturesUnordered<Part>,
}

impl Streams {
    /// What starts them.
    pub(crate) fn executor(&self) -> OwnedExecutor {
        self.executor.clone()
    }

    /// Polls `connection`, which takes requests, and the parts that it starts; says how it ended
    /// once the parts have ended too. When no more requests are taken, answers under way may still
    /// come, for as long as a call may last.
    pub(crate) async fn drive<C>(&mut self, connection: C) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let ended = {
            let mut connection = pin!(connection);
            let polled = poll_fn(|cx| {
                let ended = connection.as_mut().poll(cx);
                if ended.is_pending() {
                    let _none_left = self.poll_parts(cx);
                }
                ended
            });
            polled.await
        };
        let rest = poll_fn(|cx| self.poll_parts(cx));
        // Whoever waits for an answer gives up before that.
        let _late = timeout(ANSWER_MAX, rest).await.is_err();
        ended
    }

    /// Ready when there are none left.
    fn poll_parts(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.set.extend(self.executor.started().drain(..));
            match self.set.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) if self.executor.started().is_empty() => return Poll::Ready(()),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        // They hold the executor, and the executor holds those that were never polled.
        self.executor.started().clear();
    }
}

/// For callers: no call lasts longer (`CallLimits::bulk_timeout`).
const ANSWER_MAX: Duration = Duration::from_secs(1800);
/// For callers. A line of 1 Gbit/s at 60 ms holds 8 MiB: smaller windows would leave it idle.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Four such streams at full speed.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Finds peers that vanished without a word.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// A line may lose some.
const KEEP_ALIVE_PROBES: u32 = 4;

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::BodyExt as _;
    use hyper::client::conn::http2;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;
    use crate::body::Body;
    use crate::testing::SOON;

    /// Frames (RFC 9113 §6): settings, the head of an answer on stream 1 (":status: 200"), a farewell
    /// that counts it in, and the rest of the answer.
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const HEAD: &[u8] = &[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];
    const FAREWELL: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    const REST: &[u8] = b"\0\0\x02\0\x01\0\0\0\x01ok";
    /// What the head of a request on stream 1 looks like.
    const ASKED: &[u8] = &[1, 5, 0, 0, 0, 1];

    #[tokio::test]
    async fn a_peer_that_vanishes_is_found_within_a_minute() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let stream = stream.unwrap();
        keep_alive(&stream).unwrap();
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        let (idle, every) = (
            sockopt::tcp_keepidle(&stream),
            sockopt::tcp_keepintvl(&stream),
        );
        let probes = sockopt::tcp_keepcnt(&stream).unwrap();
        let found = idle.unwrap() + every.unwrap() * probes;
        assert_eq!(found, KEEP_ALIVE_INTERVAL + KEEP_ALIVE_TIMEOUT);
    }

    async fn hear(theirs: &mut DuplexStream, what: &[u8]) {
        let mut heard = Vec::new();
        while !heard.windows(what.len()).any(|part| part == what) {
            assert!(theirs.read_buf(&mut heard).await.unwrap() > 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_under_way_outlives_its_servers_farewell() {
        let (ours, mut theirs) = duplex(1 << 16);
        let mut streams = Streams::default();
        let begun = http2::Builder::new(streams.executor()).handshake(TokioIo::new(ours));
        let (mut sender, connection) = begun.await.unwrap();
        let get = || Request::get("https://x/").body(Body::empty()).unwrap();
        let spoken = async {
            let asked = sender.send_request(get());
            let answered = async {
                hear(&mut theirs, ASKED).await;
                let said = [SETTINGS, HEAD, FAREWELL].concat();
                theirs.write_all(&said).await.unwrap();
            };
            let (answer, ()) = tokio::join!(asked, answered);
            // Nothing more is to be had here, and whoever asks finds out.
            sender.send_request(get()).await.unwrap_err();
            sleep(Duration::from_secs(600)).await;
            theirs.write_all(REST).await.unwrap();
            let whole = answer.unwrap().into_body().collect();
            timeout(SOON, whole).await.unwrap().unwrap()
        };
        let (ended, body) = tokio::join!(streams.drive(connection), spoken);
        ended.unwrap();
        assert_eq!(body.to_bytes(), "ok");
    }
}
