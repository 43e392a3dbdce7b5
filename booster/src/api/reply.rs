//! Answers, made.

use bytes::Bytes;
use content::Digest;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use protocol::{Code, Fault};
use service::metrics::IntCounter;
use transport::{Body, respond};

use super::text;

/// Something small that is here as a whole.
pub(super) struct Document {
    pub(super) bytes: Bytes,
    /// `Cache-Control`.
    pub(super) cache: &'static str,
    /// What names this state of it; none for what is never the same twice.
    pub(super) digest: Option<Digest>,
    pub(super) media_type: &'static str,
}

/// The name of a state: its digest in quotes (RFC 9110 §8.8.3).
pub(super) struct Etag([u8; 66]);

impl Etag {
    pub(super) fn of(digest: Digest) -> Self {
        let mut quoted = [b'"'; 66];
        quoted[1..65].copy_from_slice(&digest.hex_digits());
        Self(quoted)
    }

    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("digits and quotes are ASCII")
    }

    pub(super) fn value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).expect("digits and quotes are valid in a header")
    }
}

impl Document {
    /// The document, its head alone, or 304 if the asker has it.
    pub(super) fn answer(self, head: &Parts) -> Response<Body> {
        let length = self.bytes.len() as u64;
        let etag = self.digest.map(Etag::of);
        let mut response = match &etag {
            Some(etag) if has(head, etag) => respond::status(StatusCode::NOT_MODIFIED),
            Some(_) | None => {
                let body = if head.method == Method::HEAD {
                    Body::empty()
                } else {
                    Body::full(self.bytes)
                };
                let mut response = Response::new(body);
                let headers = response.headers_mut();
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
                response
            }
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(self.cache));
        if let Some(etag) = etag {
            headers.insert(ETAG, etag.value());
        }
        response
    }
}

/// A refusal.
pub(super) fn fault(told: &Fault) -> Response<Body> {
    let mut response = respond::fault(told);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if told.code == Code::MethodNotAllowed {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if matches!(told.code, Code::Busy | Code::TooMany) {
        headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    response
}

/// What is told to somebody who should have used the method `allowed` (RFC 9110 §15.5.6).
pub(super) fn wrong_method(allowed: &'static str) -> Response<Body> {
    let told = Fault::new(Code::MethodNotAllowed, format!("want {allowed}"));
    let mut response = fault(&told);
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Whether the asker has the state called `etag` (RFC 9110 §13.1.2: weak comparison).
pub(super) fn has(head: &Parts, etag: &Etag) -> bool {
    let is_it = |held: &str| held == "*" || held.trim_start_matches("W/") == etag.as_str();
    text(head, &IF_NONE_MATCH).is_some_and(|held| held.split(',').map(str::trim).any(is_it))
}

/// Counts the bytes of the body as they are sent.
pub(super) fn count(response: Response<Body>, sent: IntCounter) -> Response<Body> {
    response.map(|body| body.observed(move |bytes| sent.inc_by(bytes as u64)))
}

/// What every answer carries.
pub(super) fn finish(response: &mut Response<Body>) {
    let no_sniff = HeaderValue::from_static(NO_SNIFF);
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, no_sniff);
}

/// No guessing of types: content is what it is said to be.
pub(super) const NO_SNIFF: &str = "nosniff";

/// When to come back if there was too much to do.
const RETRY_AFTER_SECONDS: u64 = 5;
