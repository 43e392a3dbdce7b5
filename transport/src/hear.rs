//! The bodies of requests, read so that whoever sends too much hears of it.
//!
//! A server may answer before it has read all (RFC 9110 §10.1.1, RFC 9113 §8.1), and then the rest
//! is in the way: over HTTP/1.1 a connection that is closed with unread bytes in it is reset, which
//! overtakes the answer; over HTTP/2 our reset blames nobody and comes after the answer, and yet
//! curl 7.88 reports it in the answer's stead. So the rest is heard out first, within bounds.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::body::{BoxError, ReadBodyError, read_body};

/// Reads the body of a request as [`read_body`] does. Of one that is too long, up to
/// 2 MiB more are read and thrown away, for at most two seconds.
///
/// # Errors
///
/// Fails as [`read_body`] does.
pub async fn hear<B>(body: B, bytes_max: usize, idle: Duration) -> Result<Bytes, ReadBodyError>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let mut body = body;
    let read = read_body(&mut body, bytes_max, idle).await;
    if let Err(ReadBodyError::TooLong { .. }) = read {
        let _late = timeout(HEARD_MAX, hear_out(body)).await.is_err();
    }
    read
}

async fn hear_out<B: HttpBody<Data = Bytes> + Unpin>(body: B) {
    let (mut body, mut left) = (body, HEARD_BYTES_MAX);
    while let Some(Ok(frame)) = body.frame().await {
        let got = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(got) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Of the longest bodies that are sent by mistake, all; for us, two milliseconds of decrypting.
const HEARD_BYTES_MAX: usize = 2 << 20;
/// A megabyte at 5 Mbit/s.
const HEARD_MAX: Duration = Duration::from_secs(2);
