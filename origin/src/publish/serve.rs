//! The admin socket's routes for content: publishes, filesets, gc.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use content::index::ROOT_BYTES_MAX;
use content::pack::PACK_BYTES_MAX;
use content::{FilesetName, RevisionNumber};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::BodyExt as _;
use protocol::{Code, Fault};
use serde::{Deserialize, Serialize};
use service::Report;
use service::unix::RequestBody;
use tracing::{info, warn};

use super::intake::{Intake, PublishError};
use super::messages::{Begin, Begun, decode_have, encode_missing};
use crate::admin::{AdminContent, BODY_BYTES_MAX, to_its_end};
use crate::api::reply::{Body, Reply, fault, full};
use crate::gc::Collected;
use crate::ledger::{commit, filesets};

#[cfg(test)]
mod tests;

// The longest bodies must fit through the socket.
const _: () = assert!(ROOT_BYTES_MAX <= BODY_BYTES_MAX && PACK_BYTES_MAX <= BODY_BYTES_MAX);

/// `GET /filesets`: one of them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FilesetRow {
    /// Its name.
    pub name: String,
    /// The current revision; none if it has none yet.
    pub current: Option<u64>,
    /// How many revisions it retains.
    pub keep: u32,
    /// Those that are retained, in rising order.
    pub revisions: Vec<RevisionRow>,
}

/// One revision of a fileset.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RevisionRow {
    /// Its number.
    pub revision: u64,
    /// The digest of its index root.
    pub root: String,
    /// Paths.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of the packs that hold them.
    pub packs_bytes: u64,
    /// Bytes of index packs, index root, locator and statement.
    pub metadata_bytes: u64,
    /// When it was published, in Unix seconds.
    pub created: i64,
}

/// `PUT /filesets/{name}/keep`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Keep {
    /// How many revisions to retain: 1 to 1000.
    pub keep: u32,
}

/// `POST /gc`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Gc {
    /// Only say what would be removed.
    pub dry_run: bool,
    /// First read every pack, and forget those that are not what their headers say. Nothing is
    /// read in a dry run.
    #[serde(default)]
    pub verify: bool,
}

impl AdminContent for Intake {
    fn answer<'a>(
        &'a self,
        request: Request<RequestBody>,
    ) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(answer(self, request))
    }
}

async fn answer(intake: &Intake, request: Request<RequestBody>) -> Reply {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let method = request.method().clone();
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            return fault(&Fault::new(
                Code::TooLarge,
                "the body is too long, or broke off",
            ));
        }
    };
    let answered = match (&method, &parts[..]) {
        (&Method::POST, ["publishes"]) => begin(intake, &body).await,
        (&Method::POST, ["publishes", number, "chunks"]) => have(intake, number, &body).await,
        (&Method::PUT, ["publishes", number, "packs"]) => match publish_number(number) {
            Ok(number) => intake
                .pack(number, body)
                .await
                .map(|()| json(&()))
                .map_err(told),
            Err(fault) => Err(fault),
        },
        (&Method::POST, ["publishes", number, "commit"]) => settle(intake, number, &body).await,
        (&Method::DELETE, ["publishes", number]) => match publish_number(number) {
            Ok(number) => intake
                .abandon(number)
                .await
                .map(|()| json(&()))
                .map_err(told),
            Err(fault) => Err(fault),
        },
        (&Method::GET, ["filesets"]) => list(intake, None).await,
        (&Method::GET, ["filesets", name]) => match name.parse() {
            Ok(name) => list(intake, Some(name)).await,
            Err(error) => Err(Fault::new(Code::BadRequest, error.to_string())),
        },
        (&Method::PUT, ["filesets", name, "keep"]) => keep(intake, name, &body).await,
        (&Method::POST, ["gc"]) => gc(intake, &body).await,
        (_, _) => Err(Fault::new(Code::NotFound, "nothing is at this path")),
    };
    answered.unwrap_or_else(|refusal| fault(&refusal))
}

async fn begin(intake: &Intake, body: &[u8]) -> Result<Reply, Fault> {
    let begin: Begin = parse(body)?;
    let fileset: FilesetName = begin
        .fileset
        .parse()
        .map_err(|error| Fault::new(Code::BadRequest, format!("{error}")))?;
    let publish = intake.begin(&fileset).await.map_err(told)?;
    Ok(json(&Begun { publish }))
}

async fn have(intake: &Intake, number: &str, body: &[u8]) -> Result<Reply, Fault> {
    let malformed = || Fault::new(Code::BadRequest, "want chunk ids and lengths");
    let chunks = decode_have(body).ok_or_else(malformed)?;
    let missing = intake
        .have(publish_number(number)?, &chunks)
        .await
        .map_err(told)?;
    Ok(Response::new(full(encode_missing(&missing))))
}

async fn settle(intake: &Intake, number: &str, body: &[u8]) -> Result<Reply, Fault> {
    let (number, root, at_work) = (publish_number(number)?, body.to_vec(), intake.clone());
    let commit = async move {
        let committed = at_work.commit(number, &root).await.map_err(told)?;
        if !committed.unchanged {
            info!(fileset = %committed.fileset, revision = committed.revision, "published");
        }
        Ok(json(&committed))
    };
    to_its_end(&intake.spawner, "commit", commit).await?
}

async fn list(intake: &Intake, name: Option<FilesetName>) -> Result<Reply, Fault> {
    let rows = rows(intake, name.as_ref())
        .await
        .map_err(|error| told(error.into()))?;
    match name {
        Some(name) if rows.is_empty() => Err(Fault::new(
            Code::UnknownFileset,
            format!("there is no fileset {name}"),
        )),
        Some(_) | None => Ok(json(&rows)),
    }
}

async fn rows(
    intake: &Intake,
    name: Option<&FilesetName>,
) -> Result<Vec<FilesetRow>, crate::ledger::LedgerError> {
    let mut db = intake.catalogue.authority().ledger().read().await?;
    let filesets = filesets::list(&mut db).await?;
    let mut rows = Vec::new();
    for fileset in filesets
        .into_iter()
        .filter(|it| name.is_none_or(|name| *name == it.name))
    {
        let revisions = filesets::revisions(&mut db, Some(&fileset.name)).await?;
        let current = revisions.last().map(|last| last.number);
        rows.push(FilesetRow {
            name: fileset.name.to_string(),
            current: current.map(|RevisionNumber(number)| number),
            keep: fileset.keep,
            revisions: revisions.iter().map(row).collect(),
        });
    }
    Ok(rows)
}

fn row(revision: &filesets::Revision) -> RevisionRow {
    RevisionRow {
        revision: revision.number.0,
        root: revision.root.to_string(),
        entries: revision.entries,
        files: revision.files,
        bytes: revision.size,
        packs_bytes: revision.packs_bytes,
        metadata_bytes: revision.metadata_bytes,
        created: revision.created_at,
    }
}

async fn keep(intake: &Intake, name: &str, body: &[u8]) -> Result<Reply, Fault> {
    let name: FilesetName = name
        .parse()
        .map_err(|error| Fault::new(Code::BadRequest, format!("{error}")))?;
    let Keep { keep } = parse(body)?;
    if !(1..=KEEP_MAX).contains(&keep) {
        let told = format!("a fileset retains 1 to {KEEP_MAX} revisions, not {keep}");
        return Err(Fault::new(Code::BadRequest, told));
    }
    let (at_work, fileset) = (intake.clone(), name.clone());
    let retain = async move { at_work.retain(&fileset, keep).await.map_err(told) };
    if to_its_end(&intake.spawner, "retain", retain).await?? {
        list(intake, Some(name)).await
    } else {
        Err(Fault::new(
            Code::UnknownFileset,
            format!("there is no fileset {name}"),
        ))
    }
}

async fn gc(intake: &Intake, body: &[u8]) -> Result<Reply, Fault> {
    let Gc { dry_run, verify } = parse(body)?;
    let at_work = intake.clone();
    let collect = async move {
        let bad = match verify && !dry_run {
            true => at_work.verify().await.map_err(told)?.gone,
            false => 0,
        };
        let mut collected = at_work.collect(dry_run).await.map_err(told)?;
        collected.bad = bad;
        let Collected { packs, bytes, .. } = collected;
        info!(packs, bytes, dry_run, "gc");
        Ok(json(&collected))
    };
    to_its_end(&intake.spawner, "gc", collect).await?
}

impl Intake {
    /// Says how many revisions `name` retains; false if there is no such fileset.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn retain(&self, name: &FilesetName, keep: u32) -> Result<bool, PublishError> {
        let mut tx = self.catalogue.authority().ledger().write().await?;
        let known = filesets::set_keep(&mut tx, name, keep).await?;
        filesets::prune(&mut tx).await?;
        crate::ledger::packs::mark(&mut tx, self.now()).await?;
        commit(tx).await?;
        self.catalogue.changed();
        Ok(known)
    }
}

fn publish_number(text: &str) -> Result<i64, Fault> {
    text.parse()
        .map_err(|_| Fault::new(Code::BadRequest, "a publish is named by its number"))
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| Fault::new(Code::BadRequest, error.to_string()))
}

/// What the one at the socket is told, who administers this origin and may know why.
fn told(error: PublishError) -> Fault {
    let code = match &error {
        PublishError::Conflict { .. } => Code::Conflict,
        PublishError::Gone { .. } => Code::NotFound,
        PublishError::Pack { .. } => Code::BadRequest,
        PublishError::Commit { .. }
        | PublishError::Ledger(_)
        | PublishError::Stopping(_)
        | PublishError::Store { .. } => {
            warn!(error = %Report(&error), "a publish failed");
            Code::Internal
        }
    };
    Fault::new(code, Report(&error).to_string())
}

fn json<T: Serialize>(value: &T) -> Reply {
    let bytes = serde_json::to_vec(value).expect("our own answers always encode");
    let mut reply: Response<Body> = Response::new(full(Bytes::from(bytes)));
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// The most revisions that a fileset retains: as many as a snapshot may list.
const KEEP_MAX: u32 = 1000;
