//! Bodies of messages.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Whatever went wrong while a body was being made.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The body of a response or request: nothing, some bytes, or a stream of them.
///
/// A stream that fails, or that does not yield exactly the length that was promised, aborts
/// its connection. It never ends short: a reader must not take a broken body for a whole one.
pub struct Body {
    inner: Inner,
    /// Is told how many bytes each piece has.
    observer: Option<Observer>,
}

type Observer = Box<dyn Fn(usize) + Send>;

enum Inner {
    Full(Bytes),
    Stream {
        stream: BoxStream,
        left: Option<u64>,
    },
}

type BoxStream = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

impl Body {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// These bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self {
            inner: Inner::Full(bytes.into()),
            observer: None,
        }
    }

    /// What `stream` yields: `length` bytes in all, if that is known, and then
    /// `Content-Length` says so.
    #[must_use]
    pub fn stream(
        stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
        length: Option<u64>,
    ) -> Self {
        Self {
            inner: Inner::Stream {
                stream: Box::pin(stream),
                left: length,
            },
            observer: None,
        }
    }

    /// The same; `observer` is told how many bytes each piece has as it is taken.
    #[must_use]
    pub fn observed(self, observer: impl Fn(usize) + Send + 'static) -> Self {
        Self {
            observer: Some(Box::new(observer)),
            ..self
        }
    }

    /// What arrives at `receiver`. To break off, send an error: a sender that is dropped ends
    /// the body, which is a failure too if `length` has not been reached.
    #[must_use]
    pub fn channel(receiver: mpsc::Receiver<Result<Bytes, BoxError>>, length: Option<u64>) -> Self {
        let mut receiver = receiver;
        let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        Self::stream(stream, length)
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner {
            Inner::Full(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Inner::Stream { left, .. } => write!(f, "Body(stream, {left:?} left)"),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = match &mut self.inner {
            Inner::Full(bytes) if bytes.is_empty() => None,
            Inner::Full(bytes) => Some(Ok(std::mem::take(bytes))),
            Inner::Stream { stream, left } => {
                let next = std::task::ready!(stream.as_mut().poll_next(cx));
                settle(next, left)
            }
        };
        if let (Some(Ok(chunk)), Some(observer)) = (&next, &self.observer) {
            observer(chunk.len());
        }
        Poll::Ready(next.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Full(bytes) => bytes.is_empty(),
            Inner::Stream { left, .. } => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream {
                left: Some(left), ..
            } => SizeHint::with_exact(*left),
            Inner::Stream { left: None, .. } => SizeHint::default(),
        }
    }
}

/// Holds a stream to its promise.
fn settle(
    next: Option<Result<Bytes, BoxError>>,
    left: &mut Option<u64>,
) -> Option<Result<Bytes, BoxError>> {
    match (next, left.as_mut()) {
        (Some(Ok(chunk)), Some(left)) => match left.checked_sub(chunk.len() as u64) {
            Some(rest) => {
                *left = rest;
                Some(Ok(chunk))
            }
            None => Some(Err(Box::new(WrongLength::Long))),
        },
        (None, Some(&mut left)) if left > 0 => Some(Err(Box::new(WrongLength::Short { left }))),
        (next, _) => next,
    }
}

/// A body that breaks its promise.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
enum WrongLength {
    #[error("cannot send more than was promised")]
    Long,
    #[error("cannot end a body with {left} bytes missing")]
    Short { left: u64 },
}

/// Reads a whole body of at most `bytes_max` bytes, each 16 KiB of it, and the rest, within `idle`.
///
/// # Errors
///
/// Fails as soon as the body says that it is longer, or turns out to be; if it breaks off; or
/// if the peer falls silent, or as good as silent.
pub async fn read_body<B>(body: B, bytes_max: usize, idle: Duration) -> Result<Bytes, ReadBodyError>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let mut body = body;
    let promised = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if promised > bytes_max {
        return Err(ReadBodyError::TooLong { bytes_max });
    }
    let mut bytes = BytesMut::with_capacity(promised);
    let (mut due, mut counted) = (Instant::now() + idle, 0);
    loop {
        let frame = match timeout_at(due, body.frame()).await {
            // A body that is always ready, with next to nothing, would never be timed out.
            Ok(Some(Ok(_))) if Instant::now() > due => return Err(ReadBodyError::Silent),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Err(ReadBodyError::Broken {
                    source: error.into(),
                });
            }
            Ok(None) => return Ok(bytes.freeze()),
            Err(_) => return Err(ReadBodyError::Silent),
        };
        // Trailers are of no use to us.
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > bytes_max {
                return Err(ReadBodyError::TooLong { bytes_max });
            }
            bytes.extend_from_slice(&data);
        }
        if bytes.len() - counted >= STRIDE_BYTES {
            counted = bytes.len();
            due = Instant::now() + idle;
        }
    }
}

/// Why a body was not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadBodyError {
    /// It broke off.
    #[error("cannot read the body to its end")]
    Broken {
        /// Why.
        source: BoxError,
    },
    /// Too little came for too long.
    #[error("cannot wait any longer for the rest of the body")]
    Silent,
    /// It is longer than allowed.
    #[error("cannot take a body of more than {bytes_max} bytes")]
    TooLong {
        /// The bound.
        bytes_max: usize,
    },
}

/// As much as an HTTP/2 frame holds by default (RFC 9113 §4.2): what comes or goes in less than
/// this does not count as getting on.
pub(crate) const STRIDE_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(
        parts: Vec<Result<&'static str, &'static str>>,
        length: Option<u64>,
        want: Result<&str, &str>,
    ) {
        let parts = parts
            .into_iter()
            .map(|part| part.map(Bytes::from).map_err(BoxError::from));
        let body = Body::stream(futures_util::stream::iter(parts), length);
        assert_eq!(body.size_hint().exact(), length);
        match (read_body(body, 10, Duration::from_secs(1)).await, want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(got), Err(want)) => {
                let chain = format!("{got}: {:?}", got.source().map(ToString::to_string));
                assert!(chain.contains(want), "{chain}");
            }
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }

    #[tokio::test]
    async fn a_stream_keeps_its_promise_or_fails() {
        check(vec![Ok("ab"), Ok("cd")], Some(4), Ok("abcd")).await;
        check(vec![Ok("ab"), Ok("cd")], None, Ok("abcd")).await;
        check(vec![Ok("ab")], Some(4), Err("2 bytes missing")).await;
        check(vec![Ok("abcde")], Some(4), Err("more than was promised")).await;
        check(vec![Ok("ab"), Err("disk")], Some(4), Err("disk")).await;
        check(vec![Ok("0123456789a")], None, Err("more than 10 bytes")).await;
        check(vec![], Some(11), Err("more than 10 bytes")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_body_is_given_up() {
        let body = Body::stream(futures_util::stream::pending(), None);
        let got = read_body(body, 10, Duration::from_secs(1)).await;
        assert!(matches!(got, Err(ReadBodyError::Silent)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up() {
        let trickle = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some((Ok(Bytes::from("x")), ()))
        });
        let (body, idle) = (Body::stream(trickle, None), Duration::from_secs(1));
        let got = read_body(body, 1000, idle).await;
        assert!(matches!(got, Err(ReadBodyError::Silent)), "{got:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_body_may_take_its_time() {
        let parts = futures_util::stream::unfold(0, |part| async move {
            tokio::time::sleep(Duration::from_millis(900)).await;
            (part < 9).then(|| (Ok(Bytes::from(vec![0; STRIDE_BYTES])), part + 1))
        });
        let (body, idle) = (Body::stream(parts, None), Duration::from_secs(1));
        let got = read_body(body, 9 * STRIDE_BYTES, idle).await;
        assert_eq!(got.unwrap().len(), 9 * STRIDE_BYTES);
    }

    #[tokio::test]
    async fn a_sender_that_goes_away_does_not_end_a_body_short() {
        let (sender, receiver) = mpsc::channel(2);
        sender.send(Ok(Bytes::from("ab"))).await.unwrap();
        drop(sender);
        let body = Body::channel(receiver, Some(3));
        let got = read_body(body, 10, Duration::from_secs(1)).await;
        assert!(matches!(got, Err(ReadBodyError::Broken { .. })), "{got:?}");
    }
}
