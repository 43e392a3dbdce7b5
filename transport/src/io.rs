//! Streams that are watched, and tasks that belong to one connection.

mod batched;
mod inline;

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use certs::tls::Capture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub(crate) use batched::{Batched, Driven};
pub(crate) use inline::{Call, InlineExecutor, InlineStreams, own_end};

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
        let got = (buffer.filled().len() - before) as u64;
        self.activity.received.fetch_add(got, Ordering::Relaxed);
        let traffic = &self.activity.traffic;
        traffic.received_bytes.fetch_add(got, Ordering::Relaxed);
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
        activity.sent.fetch_add(*sent as u64, Ordering::Relaxed);
        activity
            .traffic
            .sent_bytes
            .fetch_add(*sent as u64, Ordering::Relaxed);
    }
}

/// Runs a handshake whose verifiers write into `capture`, whichever thread polls it.
pub(crate) async fn captured<F: Future + Unpin>(capture: &Capture, mut handshake: F) -> F::Output {
    std::future::poll_fn(|cx| capture.enter(|| Pin::new(&mut handshake).poll(cx))).await
}

/// Starts the tasks of one HTTP/2 connection, all of which end with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnedExecutor(Arc<Mutex<JoinSet<()>>>);

impl<F> hyper::rt::Executor<F> for OwnedExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A set keeps what has finished until it is asked.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move { drop(task.await) });
    }
}

/// The streams of one HTTP/2 connection, which end when this is dropped. Tasks hold the executor
/// and the executor holds them, so that dropping executors alone would end nothing.
#[derive(Debug, Default)]
pub(crate) struct Streams(OwnedExecutor);

impl Streams {
    /// What starts them.
    pub(crate) fn executor(&self) -> OwnedExecutor {
        self.0.clone()
    }

    /// Waits, once the connection has ended, until what had arrived before is handed on.
    pub(crate) async fn settle(&self) {
        let mut tasks = {
            let mut tasks = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        let all = async { while tasks.join_next().await.is_some() {} };
        // Those that are not done by then have nothing left to wait for: they end with the set.
        let _late = timeout(SETTLE_MAX, all).await.is_err();
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        let mut tasks = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.abort_all();
    }
}

/// Without a connection there is nothing to wait for but a turn on the processor.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// For callers. A line of 1 Gbit/s at 60 ms holds 8 MiB: smaller windows would leave it idle.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Four such streams at full speed.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Finds peers that vanished without a word.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
