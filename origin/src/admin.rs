//! Administration: what the program's other commands ask of the one that serves, over
//! `DATA/admin.sock`, as HTTP with JSON.
//!
//! | Call | Does |
//! |---|---|
//! | `GET /devices?state=S&after=ID` | lists devices, a page at a time |
//! | `GET /devices/ID` | shows one |
//! | `POST /devices/ID/approve`, `…/deny` | decides about one |
//! | `POST /devices/ID/revoke` | ends one |
//! | `GET /devices/ID/inventory` | shows what one says of itself |
//! | `GET /devices/ID/log` | shows the end of the log that it was asked for |
//! | `GET /devices/ID/holds` | shows what one should hold, and what it said |
//! | `POST /devices/ID/command` | asks something of one |
//! | `POST /revocations` | ends many, or none |
//! | `GET /tokens?after=ID` | lists tokens, a page at a time |
//! | `POST /authority/reload` | takes up what was changed of the CAs |
//! | `POST /tokens` | makes a token and its join string |
//! | `POST /tokens/ID/revoke` | makes one worth nothing |
//! | `GET /reports?within=S&limit=N&reason=R&reporter=ROLE/ID` | lists what was reported |
//! | `POST /inventories` | lists what devices say of themselves, by a rule, a page at a time |
//! | `/groups/…`, `/model/…`, `/models/…` | goes to [`calls`] |
//! | everything else | goes to [`AdminContent`] |

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use certs::DeviceId;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response};
use protocol::{Code, CommandKind, Fault};
use serde::Serialize;
use service::Spawner;
use service::unix::{PeerUser, RequestBody};
use tokio::sync::oneshot;

use transport::admin::told;
pub use transport::admin::{AdminClient, AdminError, SOCKET_FILE};

use crate::api::{Body, Reply, fault, full};
use crate::audit::{Actor, acting_for};
use crate::fleet::{Fleet, FleetError, Revocation, Verdict};
use crate::inventory::Inventories;
use crate::ledger::devices::Stage;
use crate::ledger::tokens::TokenId;
use crate::manifests::Manifests;
use crate::metrics::Metrics;
use crate::model::{Models, calls};
use crate::reports::{Query, Reports};

/// The longest body of a call: a publish sends packs, of 8 MiB at most, one at a time.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// The longest body of a call that is answered here.
const SMALL_BODY_BYTES_MAX: usize = 64 << 10;

/// Answers the calls about content: publish, filesets, gc. The seam for whoever implements them.
pub trait AdminContent: Send + Sync + 'static {
    /// Answers a call. Its body is bounded by [`BODY_BYTES_MAX`].
    fn answer<'a>(
        &'a self,
        request: Request<RequestBody>,
    ) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;
}

/// An origin without content: it knows no such calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAdminContent;

impl AdminContent for NoAdminContent {
    fn answer<'a>(
        &'a self,
        _request: Request<RequestBody>,
    ) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(async { nowhere() })
    }
}

/// Answers calls on the admin socket. Cloning shares it.
#[derive(Clone)]
pub struct Admin {
    /// Publish, filesets, gc.
    pub content: Arc<dyn AdminContent>,
    /// Devices and tokens.
    pub fleet: Fleet,
    /// What devices say of themselves.
    pub inventories: Inventories,
    /// What each device should hold.
    pub manifests: Manifests,
    /// What is counted.
    pub metrics: Metrics,
    /// Who should hold what.
    pub models: Models,
    /// What was reported.
    pub reports: Reports,
    /// Where decisions run to their end, even if the operator's program goes away.
    pub spawner: Spawner,
}

impl Admin {
    /// Answers one call, and does what it asks on behalf of whoever called.
    pub async fn answer(&self, request: Request<RequestBody>) -> Reply {
        let peer = request.extensions().get::<PeerUser>().copied();
        acting_for(Actor::operator(peer), self.answer_call(request)).await
    }

    async fn answer_call(&self, request: Request<RequestBody>) -> Reply {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (request.method(), &parts[..]) {
            (&Method::GET, ["devices"]) => {
                let query = request.uri().query().unwrap_or_default();
                self.list(query).await
            }
            (&Method::GET, ["devices", id]) => match id.parse::<DeviceId>() {
                Ok(id) => reply(self.fleet.show(&id).await),
                Err(error) => fault(&Fault::new(Code::BadRequest, error.to_string())),
            },
            (&Method::GET, ["devices", id, "holds"]) => self.holds(id).await,
            (&Method::GET, ["devices", id, "inventory"]) => self.inventory(id).await,
            (&Method::GET, ["devices", id, "log"]) => self.log(id).await,
            (&Method::POST, ["devices", id, "command"]) => {
                let id = (*id).to_owned();
                self.command(&id, request).await
            }
            (_, ["groups" | "model" | "models", ..]) => {
                calls::answer(&self.models, &self.spawner, &parts, request).await
            }
            (&Method::POST, ["devices", id, "revoke"]) => {
                let id = (*id).to_owned();
                self.revoke(&id, request).await
            }
            (&Method::POST, ["devices", id, verb]) => self.decide(id, verb).await,
            (&Method::POST, ["inventories"]) => self.find_inventories(request).await,
            (&Method::POST, ["revocations"]) => self.revoke_all(request).await,
            (&Method::GET, ["tokens"]) => {
                let query = request.uri().query().unwrap_or_default();
                self.list_tokens(query).await
            }
            (&Method::POST, ["authority", "reload"]) => self.reload_authority().await,
            (&Method::POST, ["tokens"]) => self.create_token(request).await,
            (&Method::POST, ["tokens", id, "revoke"]) => match id.parse::<TokenId>() {
                Ok(id) => reply(self.fleet.revoke_token(id).await),
                Err(error) => fault(&Fault::new(Code::BadRequest, error.to_string())),
            },
            (&Method::GET, ["reports"]) => {
                let query = request.uri().query().unwrap_or_default();
                self.reports(query).await
            }
            (_, ["devices" | "reports" | "revocations" | "tokens", ..]) => nowhere(),
            (_, _) => self.content.answer(request).await,
        }
    }

    async fn list(&self, query: &str) -> Reply {
        let (mut stage, mut after) = (None, "");
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match (key, value.parse::<Stage>()) {
                ("state", Ok(found)) => stage = Some(found),
                ("after", _) => after = value,
                (_, _) => {
                    return fault(&Fault::new(
                        Code::BadRequest,
                        format!("cannot use {key}={value}"),
                    ));
                }
            }
        }
        reply(self.fleet.list(stage, after).await)
    }

    async fn holds(&self, id: &str) -> Reply {
        let id = match id.parse::<DeviceId>() {
            Ok(id) => id,
            Err(error) => return fault(&Fault::new(Code::BadRequest, error.to_string())),
        };
        match self.manifests.holds(&id).await {
            Ok(holds) => json(&holds),
            Err(refusal) => fault(&refusal.fault()),
        }
    }

    async fn inventory(&self, id: &str) -> Reply {
        match id.parse::<DeviceId>() {
            Ok(id) => match self.inventories.show(&id).await {
                Ok(shown) => json(&shown),
                Err(refusal) => fault(&refusal),
            },
            Err(error) => fault(&Fault::new(Code::BadRequest, error.to_string())),
        }
    }

    async fn log(&self, id: &str) -> Reply {
        match id.parse::<DeviceId>() {
            Ok(id) => match self.inventories.show_log(&id).await {
                Ok(shown) => json(&shown),
                Err(refusal) => fault(&refusal),
            },
            Err(error) => fault(&Fault::new(Code::BadRequest, error.to_string())),
        }
    }

    async fn find_inventories(&self, request: Request<RequestBody>) -> Reply {
        let wanted = match told(request, SMALL_BODY_BYTES_MAX).await {
            Ok(wanted) => wanted,
            Err(refusal) => return fault(&refusal),
        };
        match self.inventories.find(&wanted).await {
            Ok(found) => json(&found),
            Err(refusal) => fault(&refusal),
        }
    }

    async fn command(&self, id: &str, request: Request<RequestBody>) -> Reply {
        let id = match id.parse::<DeviceId>() {
            Ok(id) => id,
            Err(error) => return fault(&Fault::new(Code::BadRequest, error.to_string())),
        };
        let what: CommandKind = match told(request, SMALL_BODY_BYTES_MAX).await {
            Ok(what) => what,
            Err(refusal) => return fault(&refusal),
        };
        if what == CommandKind::Unknown {
            return fault(&Fault::new(Code::BadRequest, "want verify, renew or log"));
        }
        match self.manifests.ask(&id, what).await {
            Ok(asked) => json(&asked),
            Err(refusal) => fault(&refusal.fault()),
        }
    }

    async fn reports(&self, query: &str) -> Reply {
        let mut wanted = Query::default();
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match (key, value.parse::<u32>()) {
                ("within", Ok(seconds)) => wanted.since = self.reports.now() - i64::from(seconds),
                ("limit", Ok(limit)) => wanted.limit = Some(limit),
                ("reason", _) => wanted.reason = Some(value.to_owned()),
                ("reporter", _) => wanted.reporter = Some(value.to_owned()),
                (_, _) => {
                    let told = format!("cannot use {key}={value}");
                    return fault(&Fault::new(Code::BadRequest, told));
                }
            }
        }
        match self.reports.list(&wanted).await {
            Ok(reports) => json(&reports),
            Err(failure) => {
                let told = service::Report(&failure).to_string();
                fault(&Fault::new(Code::Internal, told))
            }
        }
    }

    async fn list_tokens(&self, query: &str) -> Reply {
        let after = match query.strip_prefix("after=") {
            None | Some("") => None,
            Some(id) => match id.parse::<TokenId>() {
                Ok(id) => Some(id),
                Err(error) => return fault(&Fault::new(Code::BadRequest, error.to_string())),
            },
        };
        reply(self.fleet.list_tokens(after).await)
    }

    async fn decide(&self, id: &str, verb: &str) -> Reply {
        let all = [Verdict::Approve, Verdict::Deny, Verdict::Revoke];
        let verdict = all.into_iter().find(|verdict| verdict.as_str() == verb);
        match (id.parse::<DeviceId>(), verdict) {
            (Ok(id), Some(verdict)) => {
                self.metrics.decided(verdict.as_str());
                self.to_its_end(id, verdict).await
            }
            (Err(error), Some(_)) => fault(&Fault::new(Code::BadRequest, error.to_string())),
            (_, None) => nowhere(),
        }
    }

    async fn revoke(&self, id: &str, request: Request<RequestBody>) -> Reply {
        let id = match id.parse::<DeviceId>() {
            Ok(id) => id,
            Err(error) => return fault(&Fault::new(Code::BadRequest, error.to_string())),
        };
        // Whoever has no reason to give says `null`.
        let wish: Option<Revocation> = match told(request, SMALL_BODY_BYTES_MAX).await {
            Ok(wish) => wish,
            Err(refusal) => return fault(&refusal),
        };
        self.metrics.decided(Verdict::Revoke.as_str());
        let fleet = self.fleet.clone();
        let revoke = async move {
            let reason = wish.and_then(|wish| wish.reason);
            fleet.revoke(&id, reason.as_deref()).await
        };
        match to_its_end(&self.spawner, "decide", revoke).await {
            Ok(revoked) => reply(revoked),
            Err(stopping) => fault(&stopping),
        }
    }

    async fn revoke_all(&self, request: Request<RequestBody>) -> Reply {
        let wish: Revocation = match told(request, BODY_BYTES_MAX).await {
            Ok(wish) => wish,
            Err(refusal) => return fault(&refusal),
        };
        self.metrics.decided(Verdict::Revoke.as_str());
        let fleet = self.fleet.clone();
        let revoke = async move { fleet.revoke_all(&wish).await };
        match to_its_end(&self.spawner, "decide", revoke).await {
            Ok(revoked) => reply(revoked),
            Err(stopping) => fault(&stopping),
        }
    }

    /// Decides in a task of its own: half a revocation would be none.
    async fn to_its_end(&self, id: DeviceId, verdict: Verdict) -> Reply {
        let fleet = self.fleet.clone();
        let decide = async move { fleet.decide(&id, verdict).await };
        match to_its_end(&self.spawner, "decide", decide).await {
            Ok(decided) => reply(decided),
            Err(stopping) => fault(&stopping),
        }
    }

    async fn reload_authority(&self) -> Reply {
        let fleet = self.fleet.clone();
        let reload = async move { fleet.reload_authority().await };
        match to_its_end(&self.spawner, "reload", reload).await {
            Ok(done) => reply(done),
            Err(stopping) => fault(&stopping),
        }
    }

    async fn create_token(&self, request: Request<RequestBody>) -> Reply {
        match told(request, SMALL_BODY_BYTES_MAX).await {
            Ok(new) => reply(self.fleet.create_token(&new).await),
            Err(refusal) => fault(&refusal),
        }
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("fleet", &self.fleet)
            .finish_non_exhaustive()
    }
}

/// Does `work` in a task of its own called `name`, to its end even if whoever asked goes away.
///
/// # Errors
///
/// Fails if the origin stops first.
pub(crate) async fn to_its_end<T: Send + 'static>(
    spawner: &Spawner,
    name: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Fault> {
    let (tell, told) = oneshot::channel();
    let work = acting_for(Actor::acting(), work);
    spawner.start_brief(name, |_| async move {
        // Whoever asked may have gone: then nobody is told.
        let _unheard = tell.send(work.await);
    });
    let stopping = |_| Fault::new(Code::Busy, "the origin is stopping");
    told.await.map_err(stopping)
}

/// `answer` as JSON.
pub fn json<T: Serialize>(answer: &T) -> Reply {
    match serde_json::to_vec(answer) {
        Ok(body) => {
            let mut reply: Response<Body> = Response::new(full(body));
            let kind = HeaderValue::from_static("application/json");
            reply.headers_mut().insert(CONTENT_TYPE, kind);
            reply
        }
        Err(error) => fault(&Fault::new(Code::Internal, error.to_string())),
    }
}

fn reply<T: Serialize>(answer: Result<T, FleetError>) -> Reply {
    match answer {
        Ok(answer) => json(&answer),
        Err(refusal) => fault(&refusal.fault()),
    }
}

fn nowhere() -> Reply {
    fault(&Fault::new(Code::NotFound, "there is no such call"))
}
