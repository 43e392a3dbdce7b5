//! Connections on loopback.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use content::{Digest, FilesetName, PackId};
use http::header::{AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderValue, IF_NONE_MATCH, RANGE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use protocol::{ByteRange, CheckInAnswer, Code, Fault, Hello, Route};

use crate::{Body, BoxError, Session, respond};

mod alerts;
mod batched;
mod calls;
mod enrol;
mod http2;
mod listen;
mod relay;
mod rest;
mod servers;

/// A pack's worth of bytes in which each place is known by its value.
fn pack_bytes() -> Vec<u8> {
    (0..PACK_BYTES).map(|at| (at % 251) as u8).collect()
}

const PACK_BYTES: usize = 1 << 20;

fn fileset(name: &str) -> FilesetName {
    name.parse().unwrap()
}

fn pack_id() -> PackId {
    PackId(Digest::of(b"pack"))
}

/// Answers as a party does that has one pack. The name of the fileset says how.
async fn serve(request: Request<Incoming>, _: Arc<Session>) -> Response<Body> {
    match Route::parse(request.uri().path()) {
        Ok(Route::Hello) => respond::bytes(StatusCode::OK, "application/json", hello().encode()),
        Ok(Route::Timestamp) => {
            if request.headers().get(IF_NONE_MATCH) == Some(&HeaderValue::from_static("\"t1\"")) {
                return respond::status(StatusCode::NOT_MODIFIED);
            }
            let mut response = respond::bytes(StatusCode::OK, protocol::STATEMENT_TYPE, "stamp");
            response
                .headers_mut()
                .insert(ETAG, HeaderValue::from_static("\"t1\""));
            response
        }
        Ok(Route::Statement(_)) => {
            respond::bytes(StatusCode::OK, protocol::STATEMENT_TYPE, vec![7; 1000])
        }
        Ok(Route::CheckIn) => {
            let answer = CheckInAnswer::in_seconds(60);
            respond::bytes(StatusCode::OK, "application/json", answer.encode())
        }
        Ok(Route::Pack(name, _)) => pack(&request, name.as_str()),
        Ok(_) | Err(_) => respond::fault(&Fault::new(Code::NotFound, "nothing is here")),
    }
}

fn pack(request: &Request<Incoming>, name: &str) -> Response<Body> {
    let bytes = pack_bytes();
    let field = request
        .headers()
        .get(RANGE)
        .and_then(|field| field.to_str().ok());
    let (range, status) = match ByteRange::parse(field, bytes.len() as u64).unwrap() {
        ByteRange::Part(range) => (range, StatusCode::PARTIAL_CONTENT),
        ByteRange::Whole => (0..bytes.len() as u64, StatusCode::OK),
    };
    let part = Bytes::from(bytes).slice(range.start as usize..range.end as usize);
    let length = part.len() as u64;
    let parts: Vec<Result<Bytes, BoxError>> = part
        .chunks(100_000)
        .map(|part| Ok(Bytes::copy_from_slice(part)))
        .collect();
    let all = futures_util::stream::iter(parts);
    use futures_util::StreamExt;
    let body = match name {
        "whole" => Body::stream(all, Some(length)),
        "short" => Body::stream(all.take(3), Some(length)),
        "broken" => {
            let error = futures_util::stream::iter([Err("disk".into())]);
            Body::stream(all.take(3).chain(error), Some(length))
        }
        "slow" => Body::stream(
            all.take(3).chain(futures_util::stream::pending()),
            Some(length),
        ),
        "endless" => endless(),
        "unmeasured" => Body::stream(all, None),
        _ => return respond::fault(&Fault::new(Code::UnknownFileset, "no such fileset")),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if status == StatusCode::PARTIAL_CONTENT {
        let field = format!("bytes {}-{}/{PACK_BYTES}", range.start, range.end - 1);
        response
            .headers_mut()
            .insert(CONTENT_RANGE, HeaderValue::from_str(&field).unwrap());
    }
    response
}

/// Eight MiB, some bytes every few milliseconds: longer than any test.
fn endless() -> Body {
    let stream = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Ok(Bytes::from_static(&[0; 100])), ()))
    });
    Body::stream(stream, Some(8 << 20))
}

fn hello() -> Hello {
    Hello {
        deployment: "acme".to_owned(),
        role: "booster".to_owned(),
        id: "oslo".to_owned(),
        protocol_min: 1,
        protocol_max: 1,
        time: 0,
    }
}

fn has_secret(request: &Request<Incoming>) -> bool {
    request.headers().contains_key(AUTHORIZATION)
}
