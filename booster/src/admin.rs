//! Administration: what the program's other commands ask of the booster that runs, over
//! `DATA/admin.sock`, as HTTP with JSON.
//!
//! | Call | Does |
//! |---|---|
//! | `GET /status` | says how the booster is |
//! | `POST /pins` | sets a pin |
//! | `POST /pins/remove` | takes one away |

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use protocol::{Code, Fault};
use serde::{Deserialize, Serialize};
use service::Report;
use service::unix::RequestBody;
use transport::admin::told;
use transport::{Body, respond};

use crate::catalogue::Catalogue;
use crate::pins::{Pin, PinError, Pins};
use crate::status::Status;

/// Answers calls on the admin socket.
pub(crate) struct Admin {
    /// What is named.
    pub(crate) catalogue: Catalogue,
    /// What is pinned.
    pub(crate) pins: Pins,
    /// Says how the booster is.
    pub(crate) status: Box<dyn Fn() -> Status + Send + Sync>,
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
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let answered = match (request.method(), &parts[..]) {
            (&Method::GET, ["status"]) => json(&(self.status)()),
            (&Method::POST, ["pins"]) => self.pin(request, true).await,
            (&Method::POST, ["pins", "remove"]) => self.pin(request, false).await,
            (_, _) => Err(Fault::new(Code::NotFound, "there is no such call")),
        };
        answered.unwrap_or_else(|refusal| respond::fault(&refusal))
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

/// The longest body of a call.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;
