//! A stream that remembers why the peer ended it.
//!
//! A TLS 1.3 client is done with its handshake before the server has looked at its
//! certificate. If it goes on writing while the server refuses it, the write fails, and the
//! alert that says why is still unread: so on a failed write, read before giving up.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Alert;
use crate::call::alert_in;

#[derive(Debug)]
pub(super) struct Tap<S> {
    alert: Alert,
    /// Why writing failed, while the reason is being looked for.
    failed: Option<io::Error>,
    stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Tap<S> {
    pub(super) fn new(stream: S, alert: Alert) -> Self {
        Self {
            alert,
            failed: None,
            stream,
        }
    }

    fn note(&self, error: &io::Error) {
        if let Some(alert) = alert_in(error) {
            // The first one counts: later errors are its echoes.
            self.alert.get_or_init(|| alert);
        }
    }

    /// Passes on the outcome of a write, or reads on to learn why it failed.
    fn settle<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(error)) => {
                self.note(&error);
                self.failed = Some(error);
                self.find_out(cx).map(Err)
            }
            other @ (Poll::Ready(Ok(_)) | Poll::Pending) => other,
        }
    }

    fn find_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut scratch = [0; 1024];
        // The server may have said something before it hung up: a few KiB at most.
        for _ in 0..READS_MAX {
            if self.alert.get().is_some() {
                break;
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => break,
                Ok(()) => {}
                Err(error) => {
                    self.note(&error);
                    break;
                }
            }
        }
        let error = self.failed.take();
        Poll::Ready(error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &polled {
            self.note(error);
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.failed.is_some() {
            return self.find_out(cx).map(Err);
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.settle(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.failed.is_some() {
            return self.find_out(cx).map(Err);
        }
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.settle(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const READS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::AlertDescription;
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Fails to write, and has an alert to be read behind some other bytes.
    struct Refusing {
        reads: usize,
    }

    impl AsyncRead for Refusing {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.reads += 1;
            if self.reads < 3 {
                buffer.put_slice(b"late");
                return Poll::Ready(Ok(()));
            }
            let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRevoked);
            Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, alert)))
        }
    }

    impl AsyncWrite for Refusing {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn p17_a_failed_write_reads_on_until_it_knows_why() {
        let alert = Alert::default();
        let mut tap = Tap::new(Refusing { reads: 0 }, Arc::clone(&alert));
        let error = tap.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(alert.get(), Some(&AlertDescription::CertificateRevoked));
    }
}
