//! Answers for content: timestamps, snapshots, statements and packs.

use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use content::{FilesetName, PackId};
use futures_util::stream;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE,
    RANGE,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use protocol::{
    ByteRange, CACHE_IMMUTABLE, CACHE_SHORT, Code, Fault, PACK_TYPE, ROOT_TYPE, Route,
    STATEMENT_TYPE,
};
use service::Report;
use tracing::error;

use super::Catalogue;
use crate::api::content::ContentApi;
use crate::api::reply::{Body, Reply, document, fault, full};
use crate::ledger::filesets::{self, ObjectKind};
use crate::ledger::packs;

impl ContentApi for Catalogue {
    fn answer<'a>(
        &'a self,
        route: Route,
        head: &'a Parts,
    ) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(async move {
            match self.reply(route, head).await {
                Ok(reply) => reply,
                Err(failure) => {
                    error!(error = %Report(failure.as_ref()), "cannot answer for content");
                    fault(&Fault::new(
                        Code::Internal,
                        "the origin cannot read that at the moment",
                    ))
                }
            }
        })
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Catalogue {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a new route is nothing here until somebody answers it"
    )]
    async fn reply(&self, route: Route, head: &Parts) -> Result<Reply, Failure> {
        match route {
            Route::Timestamp => {
                let sealed = self.timestamp().await?;
                let tag = sealed.digest.hex();
                let mut reply = document(sealed.envelope, STATEMENT_TYPE, &tag, &head.headers);
                set(&mut reply, CACHE_CONTROL, CACHE_SHORT);
                Ok(reply)
            }
            Route::Snapshot(digest) => Ok(match self.snapshot(digest) {
                Some(bytes) => immutable(bytes, STATEMENT_TYPE, &digest.hex(), head),
                None => unknown("no such snapshot, or no longer: ask for the timestamp again"),
            }),
            Route::Statement(digest) => {
                let mut db = self.authority().ledger().read().await?;
                let kinds = [ObjectKind::Revision, ObjectKind::Locator, ObjectKind::Root];
                Ok(match filesets::object(&mut db, digest, &kinds).await? {
                    Some((ObjectKind::Root, bytes)) => {
                        immutable(bytes, ROOT_TYPE, &digest.hex(), head)
                    }
                    Some((ObjectKind::Locator | ObjectKind::Revision, bytes)) => {
                        immutable(bytes, STATEMENT_TYPE, &digest.hex(), head)
                    }
                    None => unknown("no such statement, or no longer"),
                })
            }
            Route::Pack(fileset, id) => self.pack(&fileset, id, head).await,
            _ => Ok(unknown("nothing is at this path")),
        }
    }

    async fn pack(&self, name: &FilesetName, id: PackId, head: &Parts) -> Result<Reply, Failure> {
        let mut db = self.authority().ledger().read().await?;
        let known = packs::serves(&mut db, name.as_str(), id).await?;
        drop(db);
        if !known {
            let told = "no revision of that fileset needs such a pack";
            return Ok(fault(&Fault::new(Code::UnknownPack, told)));
        }
        let path = self.packs().path(id);
        let opened = tokio::task::spawn_blocking(move || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Ok::<_, io::Error>((Arc::new(file), length))
        });
        let (file, length) = opened.await??;
        Ok(part(file, length, &id.0.hex(), head))
    }
}

/// The pack in `file`, or the part of it that is asked for.
fn part(file: Arc<File>, length: u64, tag: &str, head: &Parts) -> Reply {
    let tag = format!("\"{tag}\"");
    let has_it = document(
        Bytes::new(),
        PACK_TYPE,
        tag.trim_matches('"'),
        &head.headers,
    );
    if has_it.status() == StatusCode::NOT_MODIFIED {
        return has_it;
    }
    // A range of another version of the body is worth nothing: RFC 9110 §13.1.5.
    let same = head
        .headers
        .get(IF_RANGE)
        .is_none_or(|held| held.as_bytes() == tag.as_bytes());
    let range = head
        .headers
        .get(RANGE)
        .filter(|_| same)
        .and_then(|range| range.to_str().ok());
    let mut reply = match ByteRange::parse(range, length) {
        Ok(ByteRange::Whole) => body(file, 0..length, head),
        Ok(ByteRange::Part(part)) => {
            let shown = format!("bytes {}-{}/{length}", part.start, part.end - 1);
            let mut reply = body(file, part, head);
            *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
            set(&mut reply, CONTENT_RANGE, &shown);
            reply
        }
        Err(error) => {
            let mut reply = fault(&Fault::new(Code::RangeNotSatisfiable, error.to_string()));
            set(&mut reply, CONTENT_RANGE, &format!("bytes */{length}"));
            return reply;
        }
    };
    set(&mut reply, CONTENT_TYPE, PACK_TYPE);
    set(&mut reply, CACHE_CONTROL, CACHE_IMMUTABLE);
    set(&mut reply, ACCEPT_RANGES, "bytes");
    set(&mut reply, ETAG, &tag);
    reply
}

fn body(file: Arc<File>, range: Range<u64>, head: &Parts) -> Reply {
    let length = HeaderValue::from(range.end - range.start);
    let body = if head.method == Method::HEAD {
        full(Bytes::new())
    } else {
        pieces(file, range)
    };
    let mut reply = Response::new(body);
    reply.headers_mut().insert(CONTENT_LENGTH, length);
    reply
}

/// The bytes of `range`, read off the runtime, a piece ahead of the peer at most.
fn pieces(file: Arc<File>, range: Range<u64>) -> Body {
    let read = stream::try_unfold((file, range), |(file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let end = range.end.min(range.start + PIECE_BYTES);
        let from = Arc::clone(&file);
        let piece = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; (end - range.start) as usize];
            from.read_exact_at(&mut piece, range.start).map(|()| piece)
        });
        let piece = piece.await.map_err(io::Error::other)??;
        Ok(Some((
            Frame::data(Bytes::from(piece)),
            (file, end..range.end),
        )))
    });
    StreamBody::new(read).boxed_unsync()
}

fn immutable(bytes: impl Into<Bytes>, kind: &'static str, tag: &str, head: &Parts) -> Reply {
    let mut reply = document(bytes, kind, tag, &head.headers);
    set(&mut reply, CACHE_CONTROL, CACHE_IMMUTABLE);
    reply
}

fn unknown(told: &str) -> Reply {
    fault(&Fault::new(Code::NotFound, told))
}

fn set(reply: &mut Reply, name: http::HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("our own header values are plain text");
    reply.headers_mut().insert(name, value);
}

/// How much is read at once: few system calls, little memory a reader.
const PIECE_BYTES: u64 = 256 << 10;
