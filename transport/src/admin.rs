//! Administration: what a program's other commands ask of the one that serves, over
//! `DATA/admin.sock`, as HTTP with JSON. What there is to ask, each program says itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body;
use protocol::{Code, Fault};
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::unix::{self, CallError, Patience, RequestBody};
use thiserror::Error;

/// The socket within the data folder.
pub const SOCKET_FILE: &str = "admin.sock";

/// Calls the program that serves a data folder.
#[derive(Clone, Debug)]
pub struct AdminClient {
    socket: PathBuf,
}

/// Why a call brought nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The call did not get through.
    #[error("cannot ask the program that serves there")]
    Call(#[from] CallError),
    /// The answer makes no sense: another release runs there.
    #[error("cannot read the answer: does another release run there?")]
    Malformed(#[source] serde_json::Error),
    /// The program refused.
    #[error("{0}")]
    Refused(String),
    /// The request could not be made.
    #[error("cannot make the call")]
    Request(#[source] http::Error),
}

/// A page of a thousand devices has some 500 bytes each.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Long enough for a revocation on a CRL of a million entries on a slow disk.
const DEADLINE: Duration = Duration::from_secs(60);

impl AdminClient {
    /// For the program that serves the data folder `data`.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self {
            socket: data.join(SOCKET_FILE),
        }
    }

    /// `GET path`.
    ///
    /// # Errors
    ///
    /// Fails if nobody answers, or if the program refuses.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        self.json(Method::GET, path, Bytes::new(), DEADLINE).await
    }

    /// `POST path` with `body` as JSON.
    ///
    /// # Errors
    ///
    /// Fails if nobody answers, or if the program refuses.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, AdminError> {
        self.post_within(path, body, DEADLINE).await
    }

    /// `POST path` with `body` as JSON, for work that may take as long as `deadline`.
    ///
    /// # Errors
    ///
    /// Fails if nobody answers, or if the program refuses.
    pub async fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        deadline: Duration,
    ) -> Result<T, AdminError> {
        let body = serde_json::to_vec(body).map_err(AdminError::Malformed)?;
        self.json(Method::POST, path, body.into(), deadline).await
    }

    /// Sends any request, waiting for its answer for at most `deadline`; the answer's body.
    ///
    /// # Errors
    ///
    /// Fails if nobody answers, or if the program refuses.
    pub async fn send<B>(
        &self,
        request: Request<B>,
        deadline: Duration,
    ) -> Result<Bytes, AdminError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let patience = Patience {
            answer_bytes_max: ANSWER_BYTES_MAX,
            deadline,
        };
        let answer = unix::call(&self.socket, request, patience).await?;
        if answer.status() == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let told = Fault::decode(answer.body()).map(|fault| fault.detail);
        Err(AdminError::Refused(
            told.unwrap_or_else(|| answer.status().to_string()),
        ))
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<T, AdminError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(AdminError::Request)?;
        let answer = self.send(request, deadline).await?;
        serde_json::from_slice(&answer).map_err(AdminError::Malformed)
    }
}

/// What a call says in its body, which may have `bytes_max`.
///
/// # Errors
///
/// Fails if it is longer, or says something else.
pub async fn told<T: DeserializeOwned>(
    request: Request<RequestBody>,
    bytes_max: usize,
) -> Result<T, Fault> {
    let body = Limited::new(request.into_body(), bytes_max).collect().await;
    let body = body.map_err(|_| Fault::new(Code::TooLarge, "the call is too long"))?;
    let told = serde_json::from_slice(&body.to_bytes());
    told.map_err(|error| Fault::new(Code::BadRequest, error.to_string()))
}
