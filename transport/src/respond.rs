//! Answers that every handler gives.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use protocol::{Fault, PROBLEM_JSON};

use crate::body::Body;

/// A refusal, with its status.
#[must_use]
pub fn fault(fault: &Fault) -> Response<Body> {
    bytes(fault.code.status(), PROBLEM_JSON, fault.encode())
}

/// Bytes of a media type.
#[must_use]
pub fn bytes(
    status: StatusCode,
    media_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// A status, and nothing else.
#[must_use]
pub fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
