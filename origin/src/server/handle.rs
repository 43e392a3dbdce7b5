//! From a connection to the API and back.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use certs::{Peer, Role};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyDataStream;
use hyper::body::{Body as _, Incoming};
use protocol::{Code, ENROL_BODY_BYTES_MAX, Fault, Inventory, Relayed, Route};
use service::unix::RequestBody;
use tokio::sync::OwnedSemaphorePermit;
use transport::{Body, BoxError, ReadBodyError, Session, hear};

use super::Parts;
use crate::api::{ContentRequest, EnrolRequest, Reply, fault};

/// An answer on its way.
type Answer<T> = BoxFuture<'static, T>;

/// How long a body may fall silent.
const BODY_IDLE: Duration = Duration::from_secs(10);

/// Answers on the admin socket.
pub(super) fn admin(parts: Arc<OnceLock<Parts>>) -> impl Fn(Request<RequestBody>) -> Answer<Reply> {
    move |request| {
        let parts = Arc::clone(&parts);
        Box::pin(async move {
            match parts.get() {
                Some(parts) => parts.admin.answer(request).await,
                None => starting(),
            }
        })
    }
}

/// Answers on the enrolment listener.
pub(super) fn enrol(
    parts: Arc<OnceLock<Parts>>,
) -> impl Fn(Request<Incoming>, Arc<Session>) -> Answer<Response<Body>> {
    move |request, session| {
        let parts = Arc::clone(&parts);
        Box::pin(async move {
            let Some(parts) = parts.get() else {
                return travelling(starting());
            };
            let (address, peer) = (
                session.remote().ip().to_canonical(),
                session.peer().cloned(),
            );
            let (head, body) = request.into_parts();
            if let Err(refusal) = parts.api.admit(&head, address, peer.as_ref()).await {
                return travelling(refusal);
            }
            let request = Request::from_parts(head, body);
            // A device without another way sends its inventory through its booster's relay.
            let room = match peer.as_ref().map(|peer| room(parts, &request, peer)) {
                None => None,
                Some(Ok(room)) => room,
                Some(Err(refusal)) => return travelling(fault(&refusal)),
            };
            let most = match &room {
                Some(_) => Inventory::BYTES_MAX,
                None => ENROL_BODY_BYTES_MAX,
            };
            let (head, body) = match whole(request, most).await {
                Ok(request) => request,
                Err(refusal) => return travelling(fault(&refusal)),
            };
            travelling(
                parts
                    .api
                    .answer_enrol(EnrolRequest {
                        head,
                        body,
                        address,
                        peer,
                    })
                    .await,
            )
        })
    }
}

/// Answers on the content listener.
pub(super) fn content(
    parts: Arc<OnceLock<Parts>>,
) -> impl Fn(Request<Incoming>, Arc<Session>) -> Answer<Response<Body>> {
    move |request, session| {
        let parts = Arc::clone(&parts);
        Box::pin(async move {
            let Some(parts) = parts.get() else {
                return travelling(starting());
            };
            let Some(peer) = session.peer().cloned() else {
                let refusal = Fault::new(Code::Forbidden, "content needs a certificate");
                return travelling(fault(&refusal));
            };
            let room = match room(parts, &request, &peer) {
                Ok(room) => room,
                Err(refusal) => return travelling(fault(&refusal)),
            };
            let most = match &room {
                Some(_) => Inventory::BYTES_MAX,
                None if peer.role() == Role::Booster => Relayed::BYTES_MAX,
                None => ENROL_BODY_BYTES_MAX,
            };
            match whole(request, most).await {
                Ok((head, body)) => {
                    let request = ContentRequest { head, body, peer };
                    travelling(parts.api.answer_content(request).await)
                }
                Err(refusal) => travelling(fault(&refusal)),
            }
        })
    }
}

/// Room for a long body, if it is an inventory or a log: the other bodies are small.
fn room(
    parts: &Parts,
    request: &Request<Incoming>,
    peer: &Peer,
) -> Result<Option<OwnedSemaphorePermit>, Fault> {
    let route = Route::parse(request.uri().path());
    if peer.role() != Role::Client || !matches!(route, Ok(Route::Inventory | Route::Log)) {
        return Ok(None);
    }
    let room = parts.api.inventories.enter();
    let full = || Fault::new(Code::Busy, "as many inventories and logs come as may");
    room.ok_or_else(full).map(Some)
}

/// A request with its body, which has at most `most` bytes.
async fn whole(
    request: Request<Incoming>,
    most: usize,
) -> Result<(http::request::Parts, Bytes), Fault> {
    let (head, body) = request.into_parts();
    match hear(body, most, BODY_IDLE).await {
        Ok(body) => Ok((head, body)),
        Err(ReadBodyError::TooLong { .. }) => {
            Err(Fault::new(Code::TooLarge, "the body is too long"))
        }
        Err(_) => Err(Fault::new(Code::BadRequest, "the body broke off")),
    }
}

/// The answer as a listener sends it.
fn travelling(reply: Reply) -> Response<Body> {
    reply.map(|body| {
        let length = body.size_hint().exact();
        if length == Some(0) {
            return Body::empty();
        }
        let bytes = BodyDataStream::new(body).map(|part| part.map_err(BoxError::from));
        Body::stream(bytes, length)
    })
}

fn starting() -> Reply {
    let mut reply = fault(&Fault::new(Code::Busy, "the origin is starting"));
    reply
        .headers_mut()
        .insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}
