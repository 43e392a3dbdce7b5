//! Answers, made.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use protocol::{Fault, PROBLEM_JSON};

/// The body of an answer.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

/// An answer.
pub type Reply = Response<Body>;

/// Long bodies that are on their way: who asks for the same at the same time gets the same bytes,
/// so that many slow readers of a list of 42 MB cost no more memory than one.
#[derive(Clone, Debug, Default)]
pub struct UnderWay {
    bodies: Arc<Mutex<BTreeMap<String, Weak<Vec<u8>>>>>,
}

impl UnderWay {
    /// The body called `tag`, which `make` makes if nobody is reading it.
    pub fn share(&self, tag: &str, make: impl FnOnce() -> Vec<u8>) -> Bytes {
        // Held while it is made: who comes meanwhile waits for this one.
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let body = bodies.get(tag).and_then(Weak::upgrade).unwrap_or_else(|| {
            bodies.retain(|_, body| body.strong_count() > 0);
            let body = Arc::new(make());
            bodies.insert(tag.to_owned(), Arc::downgrade(&body));
            body
        });
        Bytes::from_owner(Shared(body))
    }
}

/// What keeps a body for as long as somebody reads it.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

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

/// A refusal of somebody who comes too fast, and may come again after `wait`.
#[must_use]
pub fn too_many(told: &str, wait: Duration) -> Reply {
    let mut reply = fault(&Fault::new(protocol::Code::TooMany, told));
    let wait = crate::enrol::retry_after(wait);
    reply.headers_mut().insert(RETRY_AFTER, wait);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_the_same_at_the_same_time_reads_the_same_bytes() {
        let under_way = UnderWay::default();
        let made = |byte: u8| move || vec![byte; 3];
        let [first, other] = [("a", 1), ("b", 2)].map(|(tag, byte)| {
            let body = under_way.share(tag, made(byte));
            assert_eq!(body, [byte; 3].as_slice());
            body
        });
        let again = under_way.share("a", || unreachable!("it is on its way"));
        assert_eq!(again.as_ptr(), first.as_ptr());
        drop((first, again));
        // Nobody reads it any more, so nobody kept it.
        assert_eq!(under_way.share("a", made(3)), [3; 3].as_slice());
        drop(other);
    }
}
