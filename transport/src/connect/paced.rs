//! A connection that is read no faster than somebody allows.
//!
//! What is not read fills the windows of the sender's side, which then rests: that is how a limit
//! reaches it without a word of any protocol.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Says how fast connections may be read, all those together that share it.
pub trait Pace: fmt::Debug + Send + Sync + 'static {
    /// Takes note of `bytes` that came, and says how long to rest before more is read. Rests of
    /// over a few seconds look like a line that is dead.
    fn came(&self, bytes: usize) -> Duration;
}

/// Reads at a pace; writes as ever.
#[derive(Debug)]
pub(super) struct Paced<S> {
    pace: Option<Arc<dyn Pace>>,
    /// Until when nothing is read.
    rest: Option<Pin<Box<Sleep>>>,
    stream: S,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, pace: Option<Arc<dyn Pace>>) -> Self {
        Self {
            pace,
            rest: None,
            stream,
        }
    }

    fn rest(&mut self, pause: Duration) {
        if pause.is_zero() {
            self.rest = None;
            return;
        }
        let until = Instant::now() + pause;
        match &mut self.rest {
            Some(rest) => rest.as_mut().reset(until),
            None => self.rest = Some(Box::pin(sleep_until(until))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(pace) = self.pace.clone() else {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        };
        if let Some(rest) = &mut self.rest {
            ready!(rest.as_mut().poll(cx));
        }
        // Whoever has room for megabytes would get them at once.
        let room = buffer.remaining().min(READ_BYTES_MAX);
        let mut some = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut some))?;
        let came = some.filled().len();
        buffer.advance(came);
        let pause = pace.came(came);
        self.rest(pause);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The plaintext of a TLS record (RFC 8446 §5.1): at the slowest pace that is allowed, half a
/// second's worth.
const READ_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// A second for every KiB.
    #[derive(Debug)]
    struct Slow;

    impl Pace for Slow {
        fn came(&self, bytes: usize) -> Duration {
            Duration::from_secs(bytes as u64 / 1024)
        }
    }

    async fn check(pace: Option<Arc<dyn Pace>>, expected: Duration) {
        let (ours, mut theirs) = duplex(1 << 20);
        let sent: Vec<u8> = (0..64 << 10).map(|at| at as u8).collect();
        theirs.write_all(&sent).await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut paced = Paced::new(ours, pace);
        let begun = Instant::now();
        let mut got = Vec::with_capacity(1 << 20);
        paced.read_to_end(&mut got).await.unwrap();
        assert!(got == sent);
        assert_eq!(begun.elapsed().as_secs(), expected.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_is_rested_for_and_arrives_whole() {
        check(Some(Arc::new(Slow)), Duration::from_secs(64)).await;
        check(None, Duration::ZERO).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_with_much_room_does_not_get_it_all_at_once() {
        let (ours, mut theirs) = duplex(1 << 20);
        theirs.write_all(&[7; 100_000]).await.unwrap();
        let mut paced = Paced::new(ours, Some(Arc::new(Slow) as Arc<dyn Pace>));
        let mut room = vec![0; 100_000];
        assert_eq!(paced.read(&mut room).await.unwrap(), READ_BYTES_MAX);
    }
}
