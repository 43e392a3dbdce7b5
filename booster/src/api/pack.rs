//! Answers with packs: whole or in part, from the cache or while they come.

use std::sync::LazyLock;

use content::{FilesetName, PackId};
use futures_util::stream;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use protocol::{ByteRange, CACHE_IMMUTABLE, Code, Fault, PACK_TYPE};
use service::Report;
use tracing::{debug, warn};
use transport::{Body, BoxError, respond};

use super::reply::Etag;
use super::{Api, not_cached, reply, text, told, value};
use crate::cache::{Asker, Extent, FillError, How, Reader};
use crate::offline::Phase;

impl Api {
    /// Answers for a pack. The head goes out once the pack's own header has been checked.
    pub(super) async fn pack(
        &self,
        fileset: &FilesetName,
        id: PackId,
        head: &Parts,
        asker: Asker,
        phase: Phase,
    ) -> Result<Response<Body>, Fault> {
        let entry = self
            .catalogue
            .pack(fileset, id, asker)
            .await
            .map_err(told)?;
        let etag = Etag::of(id.0);
        if reply::has(head, &etag) {
            let mut response = respond::status(StatusCode::NOT_MODIFIED);
            let headers = response.headers_mut();
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(CACHE_IMMUTABLE));
            headers.insert(ETAG, etag.value());
            return Ok(response);
        }
        let total = u64::from(entry.total_bytes);
        let range = match wanted(head, &etag, total) {
            Ok(range) => range,
            Err(length) => return Ok(outside(length)),
        };
        if head.method == Method::HEAD {
            let here = self.cache.has_pack(id);
            let status = if here { HIT } else { MISS };
            return Ok(whole_or_part(&range, total, &etag, status, Body::empty()));
        }
        if is_doubted(head) {
            let again = self.cache.doubt(id);
            debug!(pack = ?id, again, "a client doubts a pack");
        }
        let (from, end) = bounds(&range, total);
        let extent = if (from, end) == (0, total) {
            Extent::Whole
        } else {
            Extent::Part
        };
        let served = match phase {
            Phase::Fresh => {
                let served = self.cache.pack(fileset, entry, extent, asker);
                served.await.map(Some)
            }
            Phase::Grace | Phase::Closed => self.cache.pack_at_hand(entry, extent, asker).await,
        };
        let served = served.map_err(fault)?.ok_or_else(not_cached)?;
        self.cache.used(id, asker);
        let status = status(served.how());
        let reader = served.reader(from, end);
        let body = match reader.all_at_hand() {
            Some(all) => Body::full(all),
            None => Body::stream(stream(reader), Some(end - from)),
        };
        Ok(whole_or_part(&range, total, &etag, status, body))
    }
}

/// The part that is asked for, or the length outside of which it lies.
fn wanted(head: &Parts, etag: &Etag, total: u64) -> Result<ByteRange, u64> {
    // RFC 9110 §13.1.5: a range counts only for the state that the asker has; a pack has one.
    let same = text(head, &IF_RANGE).is_none_or(|held| held == etag.as_str());
    let range = text(head, &RANGE).filter(|_| same);
    ByteRange::parse(range, total).map_err(|outside| outside.length)
}

fn bounds(range: &ByteRange, total: u64) -> (u64, u64) {
    match range {
        ByteRange::Part(part) => (part.start, part.end),
        ByteRange::Whole => (0, total),
    }
}

/// An answer with all or part of a pack, or with its head alone.
fn whole_or_part(
    range: &ByteRange,
    total: u64,
    etag: &Etag,
    status: &'static str,
    body: Body,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.headers_mut() = HEAD.clone();
    let (from, end) = bounds(range, total);
    if matches!(range, ByteRange::Part(_)) {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let part = format!("bytes {from}-{}/{total}", end - 1);
        response.headers_mut().insert(CONTENT_RANGE, value(&part));
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - from));
    headers.insert(ETAG, etag.value());
    if status != HIT {
        headers.insert(CACHE_STATUS, HeaderValue::from_static(status));
    }
    response
}

fn outside(total: u64) -> Response<Body> {
    let what = format!("the range lies outside of the {total} bytes");
    let mut response = reply::fault(&Fault::new(Code::RangeNotSatisfiable, what));
    let range = value(&format!("bytes */{total}"));
    response.headers_mut().insert(CONTENT_RANGE, range);
    response
}

/// How it was found, in the words of RFC 9211.
fn status(how: How) -> &'static str {
    match how {
        How::Disk | How::Memory => HIT,
        How::Fill {
            collapsed: false,
            stored: false,
        } => MISS,
        How::Fill {
            collapsed: false,
            stored: true,
        } => "larder-booster; fwd=miss; stored",
        How::Fill {
            collapsed: true,
            stored: false,
        } => "larder-booster; fwd=miss; collapsed",
        How::Fill {
            collapsed: true,
            stored: true,
        } => "larder-booster; fwd=miss; stored; collapsed",
    }
}

/// Whether the client does not want what a cache believes (RFC 9111 §5.2.1.4).
fn is_doubted(head: &Parts) -> bool {
    let is_it = |directive: &str| directive.eq_ignore_ascii_case("no-cache");
    text(head, &CACHE_CONTROL).is_some_and(|control| control.split(',').map(str::trim).any(is_it))
}

/// The bytes as they come. If reading breaks off, so does the body: it never ends short.
fn stream(reader: Reader) -> impl futures_util::Stream<Item = Result<bytes::Bytes, BoxError>> {
    stream::try_unfold(reader, |mut reader| async move {
        match reader.next().await {
            Ok(piece) => Ok(piece.map(|piece| (piece, reader))),
            Err(failure) => {
                debug!(left = reader.left(), error = %Report(&failure), "a pack broke off");
                Err(BoxError::from(failure))
            }
        }
    })
}

/// What the peer is told of a fill that failed before its pack's header had come.
fn fault(failure: FillError) -> Fault {
    let (code, detail) = match &failure {
        FillError::Aborted | FillError::Cancelled | FillError::Stopping => {
            (Code::Busy, "the booster is stopping")
        }
        FillError::Busy
        | FillError::Disk { .. }
        | FillError::PutOff
        | FillError::TooSlow
        | FillError::Unkept => (Code::Busy, "the booster has too much to do"),
        FillError::Unverified { .. } | FillError::Upstream { .. } => (
            Code::UpstreamUnavailable,
            "the booster cannot get it from the origin",
        ),
    };
    warn!(error = %Report(&failure), "cannot answer with a pack");
    Fault::new(code, detail)
}

/// The head of an answer with a pack that was here, but for what differs from pack to pack: to copy
/// one takes fewer instructions than to make one.
static HEAD: LazyLock<HeaderMap> = LazyLock::new(|| {
    let same = [
        (ACCEPT_RANGES, "bytes"),
        (CACHE_CONTROL, CACHE_IMMUTABLE),
        (CACHE_STATUS, HIT),
        // Overwritten, both.
        (CONTENT_LENGTH, "0"),
        (ETAG, ""),
        (CONTENT_TYPE, PACK_TYPE),
        (X_CONTENT_TYPE_OPTIONS, reply::NO_SNIFF),
    ];
    let same = same.map(|(name, value)| (name, HeaderValue::from_static(value)));
    HeaderMap::from_iter(same)
});
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const HIT: &str = "larder-booster; hit";
const MISS: &str = "larder-booster; fwd=miss";
