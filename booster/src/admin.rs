//! Administration: what the program's other commands ask of the booster that runs, over
//! `DATA/admin.sock`, as HTTP with JSON.
//!
//! | Call | Does |
//! |---|---|
//! | `GET /status` | says how the booster is |
//! | `GET /cache?after=NAME&limit=N` | lists filesets, a page at a time, and the sum of everything |
//! | `GET /cache/NAME?after=ID&limit=N` | lists the packs of one that are here, a page at a time |
//! | `POST /cache/evict` | gives up a fileset or a pack, a slice at a time |
//! | `POST /cache/verify` | looks at everything, a fileset or a pack, a slice at a time |
//! | `POST /pins` | sets a pin |
//! | `POST /pins/remove` | takes one away |

pub mod evict;
pub mod list;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use content::{Digest, FilesetName, PackId};
use http::{Method, Request, Response, StatusCode};
use protocol::{Code, Fault};
use serde::{Deserialize, Serialize};
use service::unix::RequestBody;
use service::{CancellationToken, Clock, Report};
use transport::admin::told;
use transport::{Body, respond};

use crate::cache::Cache;
use crate::cache::scrub::Scrubber;
use crate::catalogue::Catalogue;
use crate::pins::{Pin, PinError, Pins};
use crate::status::Status;

/// Answers calls on the admin socket.
pub(crate) struct Admin {
    /// What is kept.
    pub(crate) cache: Cache,
    /// What is named.
    pub(crate) catalogue: Catalogue,
    /// By which things are said to have been used.
    pub(crate) clock: Clock,
    /// What is pinned.
    pub(crate) pins: Pins,
    /// Who looks at files.
    pub(crate) scrubber: Scrubber,
    /// Says how the booster is.
    pub(crate) status: Box<dyn Fn() -> Status + Send + Sync>,
    /// That the booster stops.
    pub(crate) stop: CancellationToken,
}

/// Which pin is meant.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PinWish {
    /// `NAME` or `NAME@N`.
    pub pin: Pin,
}

/// What became of a pin.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Pinned {
    /// Whether anything has changed.
    pub changed: bool,
    /// Whether the origin is known to have it now: a pin of something else waits for it.
    pub known: bool,
    /// `NAME` or `NAME@N`.
    pub pin: Pin,
    /// Everything that is pinned now.
    pub pins: Vec<Pin>,
}

type Reply = Response<Body>;

impl Admin {
    /// Answers one call.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<RequestBody>) -> Reply {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let answered = match (request.method(), &parts[..]) {
            (&Method::GET, ["status"]) => json(&(self.status)()),
            (&Method::GET, ["cache"]) => self.answer_list(&query).await,
            (&Method::GET, ["cache", name]) => self.answer_packs(name, &query).await,
            (&Method::POST, ["cache", "evict"]) => match told(request, BODY_BYTES_MAX).await {
                Ok(slice) => self.evict(&slice).await.and_then(|done| json(&done)),
                Err(refusal) => Err(refusal),
            },
            (&Method::POST, ["cache", "verify"]) => match told(request, BODY_BYTES_MAX).await {
                Ok(slice) => self.verify(&slice).await.and_then(|done| json(&done)),
                Err(refusal) => Err(refusal),
            },
            (&Method::POST, ["pins"]) => self.pin(request, true).await,
            (&Method::POST, ["pins", "remove"]) => self.pin(request, false).await,
            (_, _) => Err(Fault::new(Code::NotFound, "there is no such call")),
        };
        answered.unwrap_or_else(|refusal| respond::fault(&refusal))
    }

    async fn answer_list(&self, query: &str) -> Result<Reply, Fault> {
        let (after, limit) = page(query)?;
        json(&self.list(after, limit).await)
    }

    async fn answer_packs(&self, name: &str, query: &str) -> Result<Reply, Fault> {
        let bad = |what: String| Fault::new(Code::BadRequest, what);
        let fileset = name.parse::<FilesetName>();
        let fileset = fileset.map_err(|error| bad(error.to_string()))?;
        let (after, limit) = page(query)?;
        let after = match after {
            "" => None,
            digest => {
                let digest = digest.parse::<Digest>();
                Some(PackId(digest.map_err(|error| bad(error.to_string()))?))
            }
        };
        json(&self.packs(&fileset, after, limit).await?)
    }

    async fn pin(&self, request: Request<RequestBody>, wanted: bool) -> Result<Reply, Fault> {
        let PinWish { pin } = told(request, BODY_BYTES_MAX).await?;
        let changed = if wanted {
            self.pins.add(pin.clone()).await
        } else {
            self.pins.remove(pin.clone()).await
        };
        json(&Pinned {
            changed: changed.map_err(refused)?,
            known: self.catalogue.has(&pin),
            pin,
            pins: self.pins.wanted().into_iter().collect(),
        })
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}

/// From where on and how many.
fn page(query: &str) -> Result<(&str, usize), Fault> {
    let (mut after, mut limit) = ("", PAGE_MAX);
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match (key, value.parse::<usize>()) {
            ("after", _) => after = value,
            ("limit", Ok(wanted)) if wanted > 0 => limit = wanted.min(PAGE_MAX),
            (_, _) => {
                let told = format!("cannot use {key}={value}");
                return Err(Fault::new(Code::BadRequest, told));
            }
        }
    }
    Ok((after, limit))
}

/// That there is no such fileset, and how to see which there are.
fn no_such_fileset(name: &FilesetName) -> Fault {
    let told = format!("no fileset {name} is published: see cache list");
    Fault::new(Code::UnknownFileset, told)
}

fn refused(failure: PinError) -> Fault {
    let code = match &failure {
        PinError::Io { .. } | PinError::Unusable { .. } => Code::Internal,
        PinError::Stopping => Code::Busy,
        PinError::TooMany => Code::Conflict,
    };
    Fault::new(code, Report(&failure).to_string())
}

fn json(answer: &impl Serialize) -> Result<Reply, Fault> {
    let body = serde_json::to_vec(answer);
    let body = body.map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
    Ok(respond::bytes(StatusCode::OK, "application/json", body))
}

/// The most rows of an answer.
pub const PAGE_MAX: usize = 1000;
/// The longest body of a call.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;
