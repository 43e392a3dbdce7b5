//! Answers, made.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use protocol::{Fault, PROBLEM_JSON};

/// The body of an answer.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

/// An answer.
pub type Reply = Response<Body>;

/// A body that is in memory.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A refusal.
#[must_use]
pub fn fault(fault: &Fault) -> Reply {
    let mut reply = Response::new(full(fault.encode()));
    *reply.status_mut() = fault.code.status();
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if fault.code == protocol::Code::Unauthorised {
        let challenge = HeaderValue::from_static("Basic realm=\"larder\"");
        headers.insert(http::header::WWW_AUTHENTICATE, challenge);
    }
    reply
}

/// A document with its entity tag, or 304 if the asker has it.
#[must_use]
pub fn document(
    bytes: impl Into<Bytes>,
    kind: &'static str,
    tag: &str,
    asked: &HeaderMap,
) -> Reply {
    let tag = HeaderValue::from_str(&format!("\"{tag}\"")).expect("tags are hexadecimal digits");
    let has_it = asked
        .get_all(IF_NONE_MATCH)
        .iter()
        .any(|held| lists(held, &tag));
    let mut reply = Response::new(full(if has_it { Bytes::new() } else { bytes.into() }));
    if has_it {
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ETAG, tag);
    reply
}

/// Whether the list `held` (RFC 9110 §13.1.2) has `tag` in it, weak or strong.
fn lists(held: &HeaderValue, tag: &HeaderValue) -> bool {
    let Ok(held) = held.to_str() else {
        return false;
    };
    held.split(',')
        .map(str::trim)
        .any(|held| held == "*" || held.trim_start_matches("W/").as_bytes() == tag.as_bytes())
}
