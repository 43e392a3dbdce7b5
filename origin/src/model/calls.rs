//! What operators' programs ask about the model, over the admin socket.
//!
//! | Call | Does |
//! |---|---|
//! | `GET /model/drafts`, `GET /model/drafts/D` | lists drafts, shows one |
//! | `GET /model/drafts/D/says?key=K` | what the draft, or else the model, says under a key |
//! | `GET /model/drafts/D/diff` | what it would come to |
//! | `POST /model/drafts/D/edits` | puts and removes keys; begins the draft |
//! | `POST /model/drafts/D/rebase`, `…/discard` | lets it stand on the current model; forgets it |
//! | `POST /model/drafts/D/commit` | makes it the next model |
//! | `POST /model/rollback` | makes an old model the next |
//! | `PUT /model/scripts` | keeps a script |
//! | `GET /groups`, `GET /groups/NAME` | lists groups, shows one |
//! | `GET /models?before=N` | lists models |
//! | `GET /models/N?after=KEY`, `GET /models/current?after=KEY` | shows one |

use content::statement::Manifest;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Limited};
use protocol::{Code, Fault};
use serde::{Deserialize, Serialize};
use service::Spawner;
use service::unix::RequestBody;
use transport::admin::told;

use super::desk::Models;
use super::error::ModelError;
use super::view::Edit;
use crate::admin::{BODY_BYTES_MAX, json, to_its_end};
use crate::api::{Reply, fault};

/// Why a model is made.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// For those who come after.
    pub message: String,
}

/// Which model is to hold again.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Its number.
    pub model: u64,
    /// Why.
    pub message: String,
}

/// The longest body of a call that is no edit.
const SMALL_BODY_BYTES_MAX: usize = 64 << 10;

/// Answers a call whose path has the `parts`, if it is one about the model.
pub async fn answer(
    models: &Models,
    spawner: &Spawner,
    parts: &[&str],
    request: Request<RequestBody>,
) -> Reply {
    let method = request.method().clone();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let answered = match (&method, parts) {
        (&Method::GET, ["model", "drafts"]) => reply(models.drafts().await),
        (&Method::GET, ["model", "drafts", name]) => reply(models.draft(name).await),
        (&Method::GET, ["model", "drafts", name, "says"]) => {
            let key = query.strip_prefix("key=").unwrap_or_default();
            reply(models.said(name, key).await)
        }
        (&Method::GET, ["model", "drafts", name, "diff"]) => reply(models.diff(name).await),
        (&Method::POST, ["model", "drafts", name, verb]) => {
            change(models, spawner, name, verb, request).await
        }
        (&Method::POST, ["model", "rollback"]) => rollback(models, spawner, request).await,
        (&Method::GET, ["groups"]) => reply(models.groups().await),
        (&Method::GET, ["groups", name]) => reply(models.group(name).await),
        (&Method::PUT, ["model", "scripts"]) => keep_script(models, request).await,
        (&Method::GET, ["models"]) => {
            let before = query.strip_prefix("before=").map(str::parse).transpose();
            match before {
                Ok(before) => reply(models.list(before).await),
                Err(_) => Err(bad("want before=NUMBER")),
            }
        }
        (&Method::GET, ["models", number]) => {
            let after = query.strip_prefix("after=").unwrap_or_default();
            match *number {
                "current" => reply(models.show(None, after).await),
                number => match number.parse() {
                    Ok(number) => reply(models.show(Some(number), after).await),
                    Err(_) => Err(bad("a model is named by its number")),
                },
            }
        }
        (_, _) => Err(Fault::new(Code::NotFound, "there is no such call")),
    };
    answered.unwrap_or_else(|refusal| fault(&refusal))
}

async fn change(
    models: &Models,
    spawner: &Spawner,
    name: &str,
    verb: &str,
    request: Request<RequestBody>,
) -> Result<Reply, Fault> {
    match verb {
        "edits" => {
            let edits: Vec<Edit> = told(request, BODY_BYTES_MAX).await?;
            reply(models.edit(name, &edits).await)
        }
        "rebase" => reply(models.rebase(name).await),
        "discard" => reply(models.discard(name).await),
        "commit" => {
            let Reason { message } = told(request, SMALL_BODY_BYTES_MAX).await?;
            let (models, name) = (models.clone(), name.to_owned());
            let work = async move { models.commit(&name, &message).await };
            reply(to_its_end(spawner, "model", work).await?)
        }
        _ => Err(Fault::new(Code::NotFound, "there is no such call")),
    }
}

async fn rollback(
    models: &Models,
    spawner: &Spawner,
    request: Request<RequestBody>,
) -> Result<Reply, Fault> {
    let Rollback { model, message } = told(request, SMALL_BODY_BYTES_MAX).await?;
    let models = models.clone();
    let work = async move { models.rollback(model, &message).await };
    reply(to_its_end(spawner, "model", work).await?)
}

async fn keep_script(models: &Models, request: Request<RequestBody>) -> Result<Reply, Fault> {
    let max = Manifest::SCRIPT_BYTES_MAX as usize;
    let body = Limited::new(request.into_body(), max).collect().await;
    let body = body.map_err(|_| Fault::new(Code::TooLarge, "a script has at most 1 MiB"))?;
    reply(models.keep_script(&body.to_bytes()).await)
}

fn reply<T: Serialize>(answer: Result<T, ModelError>) -> Result<Reply, Fault> {
    answer
        .map(|answer| json(&answer))
        .map_err(|error| error.fault())
}

fn bad(told: &str) -> Fault {
    Fault::new(Code::BadRequest, told)
}
