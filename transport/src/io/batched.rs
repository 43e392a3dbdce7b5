//! TLS that is written in large pieces.
//!
//! HTTP/2 hands over a frame at a time and asks for a flush after each, and a library that obeys
//! pays a system call, and a second TLS record of nine bytes, for every 16 KiB. So what HTTP writes
//! is sealed and kept back here, up to [`BATCH_BYTES`], and goes out when that much is there, or
//! when HTTP has nothing more to do for now: whoever drives HTTP sees to that ([`Batched::drive`]).

use std::future::{pending, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::Watched;
use crate::body::BoxError;

/// One side of a TLS connection whose handshake is over. Cloning shares it: HTTP reads and writes
/// one, whoever drives HTTP flushes the other.
#[derive(Clone, Debug)]
pub(crate) struct Batched(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// Whether HTTP has more to write than there was room for.
    blocked: bool,
    stream: TlsStream<Watched>,
    /// Plain bytes that are sealed and not written yet, as if none of a batch had been.
    sealed: usize,
    /// Plain bytes that are not sealed yet: too few for a record of their own.
    tail: Vec<u8>,
    /// What HTTP had read and not looked at when it was put away.
    unread: Bytes,
}

/// How far a connection came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Driven {
    /// It has nothing under way, and may be put away until its peer says something.
    AtRest,
    /// To its end.
    Ended,
}

impl Batched {
    pub(crate) fn new(mut stream: TlsStream<Watched>) -> Self {
        // What is kept back is bounded here.
        stream.get_mut().1.set_buffer_limit(None);
        Self(Arc::new(Mutex::new(Inner {
            blocked: false,
            stream,
            sealed: 0,
            tail: Vec::new(),
            unread: Bytes::new(),
        })))
    }

    /// Waits until there may be something to read, which takes no buffer.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.lock().poll_readable(cx)).await
    }

    /// Ends a connection on which nothing is under way.
    pub(crate) async fn close(&self) -> io::Result<()> {
        poll_fn(|cx| self.lock().close(cx)).await
    }

    /// Gives back what HTTP has read before it was put away.
    pub(crate) fn put_back(&self, unread: Bytes) {
        self.lock().unread = unread;
    }

    /// Polls `connection`, which reads and writes this, to its end, and writes out what it leaves
    /// behind whenever it has nothing more to do for now.
    pub(crate) async fn drive<C>(&self, connection: Pin<&mut C>) -> Result<(), BoxError>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        self.drive_until(connection, pending()).await.map(|_| ())
    }

    /// The same, until `rest` is over and nothing is left to be written.
    pub(crate) async fn drive_until<C>(
        &self,
        mut connection: Pin<&mut C>,
        rest: impl Future<Output = ()>,
    ) -> Result<Driven, BoxError>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut rest = pin!(rest);
        poll_fn(|cx| {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                let ended = ended.map(|()| Driven::Ended);
                return Poll::Ready(ended.map_err(BoxError::from));
            }
            match self.flush_now(cx) {
                // HTTP would not hear of it before it writes again.
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            ready!(rest.as_mut().poll(cx));
            if self.lock().is_drained() {
                Poll::Ready(Ok(Driven::AtRest))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Writes out all that is kept back.
    pub(super) fn flush_now(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().flush(cx)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A connection on which something panicked is not used any more.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Takes as much of `slices` as there is room for, and seals what fills records.
    fn take(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        // At least one record: see `is_full`.
        let room = BATCH_BYTES - self.sealed;
        let there = match self.tail.len() + offered {
            there if there > room => room - room % RECORD_BYTES,
            there => there,
        };
        let rest = there % RECORD_BYTES;
        // Sealed now, all of it in whole records but for the last.
        let sealing = if rest <= TAIL_BYTES {
            there - rest
        } else {
            there
        };
        let taken = there - self.tail.len();
        if sealing == 0 {
            copy(slices, 0, taken, &mut self.tail);
            return Ok(taken);
        }
        let fresh = sealing.saturating_sub(self.tail.len());
        let room = slices.len() + 1 + fresh / COPY_BYTES;
        let mut parts: Vec<IoSlice<'_>> = Vec::with_capacity(room);
        parts.push(IoSlice::new(&self.tail));
        let mut left = fresh;
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            left -= part.len();
            parts.extend(part.chunks(COPY_BYTES).map(IoSlice::new));
        }
        let sealed = io::Write::write_vectored(&mut self.stream.get_mut().1.writer(), &parts)?;
        debug_assert_eq!(sealed, sealing, "the library has no limit of its own");
        self.sealed += sealed;
        self.tail.clear();
        copy(slices, fresh, taken, &mut self.tail);
        Ok(taken)
    }

    /// Whether another record would be more than a batch.
    fn is_full(&self) -> bool {
        self.sealed + RECORD_BYTES > BATCH_BYTES
    }

    /// Writes out all that is sealed.
    fn write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (io, tls) = self.stream.get_mut();
        while tls.wants_write() {
            let mut writer = Writer { io, cx };
            match tls.write_tls(&mut writer) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.sealed = 0;
        Poll::Ready(Ok(()))
    }

    /// Whether everything that HTTP has to say has gone out.
    fn is_drained(&self) -> bool {
        let sealed = self.sealed > 0 || self.stream.get_ref().1.wants_write();
        !self.blocked && !sealed && self.tail.is_empty()
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (io, tls) = self.stream.get_ref();
        if self.unread.is_empty() && tls.wants_read() {
            io.poll_read_ready(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.tail.is_empty() {
            let mut writer = self.stream.get_mut().1.writer();
            io::Write::write_all(&mut writer, &self.tail)?;
            self.sealed += self.tail.len();
            // An idle connection holds no buffer of ours.
            self.tail = Vec::new();
        }
        self.write_out(cx)
    }
}

/// Appends the bytes `from..to` of what `slices` are together.
fn copy(slices: &[IoSlice<'_>], from: usize, to: usize, tail: &mut Vec<u8>) {
    tail.reserve(to - from);
    let mut at = 0;
    for slice in slices {
        let start = from.clamp(at, at + slice.len()) - at;
        let end = to.clamp(at, at + slice.len()) - at;
        tail.extend_from_slice(&slice[start..end]);
        at += slice.len();
    }
}

impl AsyncRead for Batched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        if inner.unread.is_empty() {
            return Pin::new(&mut inner.stream).poll_read(cx, buffer);
        }
        let length = inner.unread.len().min(buffer.remaining());
        buffer.put_slice(&inner.unread.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Batched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        if inner.is_full() {
            inner.blocked = true;
            ready!(inner.write_out(cx))?;
        }
        inner.blocked = false;
        Poll::Ready(inner.take(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: [`Batched::drive`] flushes, less often.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().close(cx)
    }
}

/// What the library writes to.
struct Writer<'a, 'b> {
    io: &'a mut Watched,
    cx: &'a mut Context<'b>,
}

impl io::Write for Writer<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let io = Pin::new(&mut *self.io);
        let written = match slices {
            // The system's call for one piece costs a little less.
            [one] => io.poll_write(self.cx, one),
            more => io.poll_write_vectored(self.cx, more),
        };
        match written {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sealed and kept back at most. Half of it costs as much; twice as much is given back to the system
/// by the allocator and mapped anew each time, which doubles the cost of a byte.
const BATCH_BYTES: usize = 256 << 10;
/// What is copied in one go, by us or into a record by the library. Longer copies are one instruction
/// on x86 (`rep movsb`, from 2112 bytes on in glibc), which on AMD's Zen takes 13 times as long when
/// the target lies up to 63 bytes behind the source within a page: a record's bytes come after its
/// header of five in a buffer that begins with a page, as those of a file do.
const COPY_BYTES: usize = 2 << 10;
/// Plain bytes of a full TLS record (RFC 8446 §5.1).
const RECORD_BYTES: usize = 16 << 10;
/// What fills no record waits for more if it is no more than this: copying it, which happens in one
/// go, costs less than a record of its own.
const TAIL_BYTES: usize = COPY_BYTES / 2;
