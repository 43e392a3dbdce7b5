//! What is asked for by its digest: a device's own manifest, a booster's list, what everybody may
//! read, or a script; and whether a device may read a fileset's packs.

use certs::Peer;
use content::{Digest, FilesetName};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use protocol::{Code, Fault, ROSTER_TYPE, Route, STATEMENT_TYPE};
use service::Report;
use tracing::error;

use super::content::ContentApi;
use super::reply::{Reply, fault, full};
use crate::ledger::LedgerError;
use crate::manifests::Manifests;

/// Scripts are bytes: nobody is to run or show them because of their type.
const SCRIPT_TYPE: &str = "application/octet-stream";

/// `GET /v1/statements/{digest}` of `peer`. What is another device's is not there.
pub(super) async fn answer(
    manifests: &Manifests,
    content: &dyn ContentApi,
    peer: &Peer,
    digest: Digest,
    head: &Parts,
) -> Reply {
    match manifests.envelope(peer, digest).await {
        Ok(Some(envelope)) => return private(envelope, STATEMENT_TYPE, head),
        Ok(None) => {}
        Err(failure) => return failed(&failure),
    }
    if let Some(list) = manifests.list(peer, digest) {
        return private(list, ROSTER_TYPE, head);
    }
    let reply = content.answer(Route::Statement(digest), head).await;
    if reply.status() != StatusCode::NOT_FOUND {
        return reply;
    }
    match manifests.script(peer, digest).await {
        Ok(Some(script)) => private(script, SCRIPT_TYPE, head),
        Ok(None) => reply,
        Err(failure) => failed(&failure),
    }
}

/// Refuses the packs of `fileset` to a `peer` that may not read them.
pub(super) async fn admit(
    manifests: &Manifests,
    peer: &Peer,
    fileset: &FilesetName,
) -> Result<(), Reply> {
    match manifests.may_read(peer, fileset).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(fault(&Fault::new(
            Code::Forbidden,
            "the manifest of this device does not name that fileset",
        ))),
        Err(failure) => {
            error!(error = %Report(&failure), "cannot tell who may read a fileset");
            let told = "the origin cannot tell at the moment who may read that";
            Err(fault(&Fault::new(Code::Internal, told)))
        }
    }
}

/// What no cache on the way may keep, or its head alone.
fn private(bytes: Vec<u8>, kind: &'static str, head: &Parts) -> Reply {
    let length = HeaderValue::from(bytes.len());
    let is_head = head.method == Method::HEAD;
    let mut reply = Response::new(full(if is_head { Vec::new() } else { bytes }));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    reply
}

fn failed(failure: &LedgerError) -> Reply {
    error!(error = %Report(failure), "cannot answer for content");
    let told = "the origin cannot read that at the moment";
    fault(&Fault::new(Code::Internal, told))
}
