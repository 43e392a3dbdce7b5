//! The calls of a publisher over the admin socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use content::{ChunkId, ChunkRef, FilesetName};
use http::{Method, Request, Response};
use http_body_util::Full;
use protocol::Fault;
use serde::de::DeserializeOwned;
use service::unix::{CallError, Patience, call};
use thiserror::Error;

use crate::publish::messages::{Begin, Begun, Committed, decode_missing, encode_have};

/// A publish that is under way.
#[derive(Debug)]
pub(super) struct Calls {
    socket: PathBuf,
    publish: i64,
}

/// Why the origin did not take something.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// It answered what nobody understands.
    #[error("cannot understand the origin's answer; is it of the same release?")]
    Answer,
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It refused.
    #[error("the origin refused: {fault}")]
    Refused {
        /// What it said.
        fault: Fault,
    },
}

/// How long the publisher may be silent: well below the time after which it is taken for dead.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(20);

impl Calls {
    pub(super) async fn begin(socket: &Path, fileset: &FilesetName) -> Result<Self, SendError> {
        let begin = Begin {
            fileset: fileset.to_string(),
        };
        let body = serde_json::to_vec(&begin).expect("a name always encodes");
        let answer = ask(socket, Method::POST, "/publishes", body.into(), SHORT).await?;
        let begun: Begun = parse(&answer)?;
        Ok(Self {
            socket: socket.to_owned(),
            publish: begun.publish,
        })
    }

    /// Which of `chunks` the origin wants to be sent.
    pub(super) async fn have(&self, chunks: &[ChunkRef]) -> Result<Vec<ChunkId>, SendError> {
        let body = encode_have(chunks);
        let answer = self.ask(Method::POST, "chunks", body.into(), SHORT).await?;
        decode_missing(answer.body()).ok_or(SendError::Answer)
    }

    /// Says that the publisher is alive.
    pub(super) async fn alive(&self) -> Result<(), SendError> {
        self.have(&[]).await.map(drop)
    }

    pub(super) async fn pack(&self, bytes: Vec<u8>) -> Result<(), SendError> {
        self.ask(Method::PUT, "packs", bytes.into(), SHORT)
            .await
            .map(drop)
    }

    pub(super) async fn commit(&self, root: Vec<u8>) -> Result<Committed, SendError> {
        let answer = self.ask(Method::POST, "commit", root.into(), LONG).await?;
        parse(&answer)
    }

    pub(super) async fn abandon(&self) -> Result<(), SendError> {
        self.ask(Method::DELETE, "", Bytes::new(), SHORT)
            .await
            .map(drop)
    }

    async fn ask(
        &self,
        method: Method,
        step: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Response<Bytes>, SendError> {
        let path = format!("/publishes/{}/{step}", self.publish);
        ask(
            &self.socket,
            method,
            path.trim_end_matches('/'),
            body,
            deadline,
        )
        .await
    }
}

async fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    body: Bytes,
    deadline: Duration,
) -> Result<Response<Bytes>, SendError> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "admin")
        .body(Full::new(body))
        .expect("our own paths make requests");
    let patience = Patience {
        answer_bytes_max: ANSWER_BYTES_MAX,
        deadline,
    };
    let answer = call(socket, request, patience).await?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let fault = Fault::decode(answer.body()).ok_or(SendError::Answer)?;
    Err(SendError::Refused { fault })
}

fn parse<T: DeserializeOwned>(answer: &Response<Bytes>) -> Result<T, SendError> {
    serde_json::from_slice(answer.body()).map_err(|_| SendError::Answer)
}

/// The longest answer is that to a `have?`: every chunk is to be sent.
const ANSWER_BYTES_MAX: usize = crate::publish::messages::HAVE_BYTES_MAX;
/// For a step that the origin does at once, on a busy disk.
const SHORT: Duration = Duration::from_secs(60);
/// For a commit, which reads the whole index and may pack much anew.
const LONG: Duration = Duration::from_secs(3600);
