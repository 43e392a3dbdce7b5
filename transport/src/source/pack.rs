//! Packs on their way in.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use content::pack::PACK_BYTES_MAX;
use content::{FilesetName, PackId};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderName, RANGE};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use protocol::Route;
use tokio::time::{Instant, timeout_at};

use super::{Reply, Source, finish, text};
use crate::call::{CallError, Meter};
use crate::connect::Returnable;

/// A pack, or part of one, as it arrives. Nothing of it has been verified.
///
/// Whatever was promised arrives, or an error does: an end is never mistaken.
pub struct PackBody {
    body: Incoming,
    cache_status: Option<String>,
    /// Taken when it is given back, or when the body broke.
    connection: Option<Returnable>,
    deadline: Instant,
    idle: Duration,
    left: u64,
    meter: Arc<Meter>,
    range: Range<u64>,
    total: u64,
}

impl PackBody {
    /// Which bytes of the pack arrive.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// How long the whole pack is, by the server's word.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// What a cache on the way said of itself (RFC 9211).
    #[must_use]
    pub fn cache_status(&self) -> Option<&str> {
        self.cache_status.as_deref()
    }

    /// The next bytes; `None` once all that was promised has arrived. Safe to drop while it
    /// waits.
    ///
    /// # Errors
    ///
    /// Fails if the body breaks off, ends early, turns out longer, or takes too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if self.connection.is_none() {
                return if self.left == 0 {
                    Ok(None)
                } else {
                    Err(CallError::bad("it is broken"))
                };
            }
            let deadline = self.deadline.min(Instant::now() + self.idle);
            let Ok(frame) = timeout_at(deadline, self.body.frame()).await else {
                return Err(self.fail(CallError::Timeout {
                    step: "read the pack",
                }));
            };
            match frame {
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else {
                        continue;
                    };
                    let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
                        return Err(self.fail(CallError::bad("the pack is longer than promised")));
                    };
                    self.left = left;
                    self.meter
                        .pack_bytes
                        .fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    if !bytes.is_empty() {
                        return Ok(Some(bytes));
                    }
                }
                Some(Err(error)) => {
                    let alert = self.connection.as_ref().and_then(Returnable::alert);
                    return Err(self.fail(CallError::of_broken(error.into(), alert)));
                }
                None if self.left > 0 => {
                    return Err(self.fail(CallError::bad("the pack is shorter than promised")));
                }
                None => {
                    if let Some(connection) = self.connection.take() {
                        connection.give_back();
                    }
                }
            }
        }
    }

    fn fail(&mut self, error: CallError) -> CallError {
        let connection = self.connection.take();
        if let (Some(connection), CallError::Timeout { .. }) = (connection, &error) {
            connection.give_up();
        }
        // Never 0, so that asking again is an error again.
        self.left = self.left.max(1);
        self.meter.failures.fetch_add(1, Ordering::Relaxed);
        error
    }
}

impl fmt::Debug for PackBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackBody")
            .field("range", &self.range)
            .field("total", &self.total)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

pub(super) async fn fetch(
    source: &Source,
    fileset: &FilesetName,
    id: &PackId,
    range: Option<Range<u64>>,
    no_cache: bool,
) -> Result<PackBody, CallError> {
    if range.as_ref().is_some_and(Range::is_empty) {
        return Err(CallError::bad("an empty range holds nothing"));
    }
    let path = Route::Pack(fileset.clone(), *id).to_string();
    let make = || {
        let mut request = source.connector.request(&path);
        if let Some(range) = &range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        if no_cache {
            request = request.header(CACHE_CONTROL, "no-cache");
        }
        finish(request, Bytes::new())
    };
    let now = Instant::now();
    let reply = source
        .send(make, now + source.limits.pack_head_timeout)
        .await?;
    let (sent, total) = extent(&reply, range.as_ref())?;
    let Reply {
        head,
        connection,
        idle,
        meter,
    } = reply;
    Ok(PackBody {
        cache_status: text(head.headers(), &CACHE_STATUS),
        body: head.into_body(),
        connection: Some(connection),
        deadline: now + source.limits.bulk_timeout,
        idle,
        left: sent.end - sent.start,
        meter,
        range: sent,
        total,
    })
}

/// Which bytes are promised, and of how many: what was asked for, or an error.
fn extent(reply: &Reply, asked: Option<&Range<u64>>) -> Result<(Range<u64>, u64), CallError> {
    let headers = reply.head.headers();
    let length: u64 = text(headers, &CONTENT_LENGTH)
        .and_then(|length| length.parse().ok())
        .ok_or_else(|| CallError::bad("a pack without a length"))?;
    let (range, total) = match (reply.head.status(), asked) {
        (StatusCode::OK, None) => (0..length, length),
        (StatusCode::PARTIAL_CONTENT, Some(asked)) => {
            let (range, total) = content_range(headers)
                .ok_or_else(|| CallError::bad("a part without a Content-Range"))?;
            // The end may be nearer than asked: the pack may be shorter.
            if range.start != asked.start || range.end != asked.end.min(total) {
                return Err(CallError::bad("another part than the one asked for"));
            }
            (range, total)
        }
        (status, _) => return Err(CallError::bad(format!("status {status}"))),
    };
    if range.end - range.start != length {
        return Err(CallError::bad("a part of another length than its range"));
    }
    if total > PACK_BYTES_MAX as u64 {
        return Err(CallError::TooLong {
            bytes_max: PACK_BYTES_MAX as u64,
        });
    }
    Ok((range, total))
}

/// Reads `bytes FIRST-LAST/TOTAL` (RFC 9110 §14.4).
fn content_range(headers: &HeaderMap) -> Option<(Range<u64>, u64)> {
    let field = text(headers, &CONTENT_RANGE)?;
    let (part, total) = field.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = part.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total: u64 = total.parse().ok()?;
    (first <= last && last < total).then(|| (first..last + 1, total))
}

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
