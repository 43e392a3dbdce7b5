//! What the booster answers: the content calls of the protocol, out of cache and catalogue.

mod device;
mod pack;
mod reply;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use certs::{IssuerId, Trust};
use content::Digest;
use content::statement::Statement;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use protocol::{
    CACHE_IMMUTABLE, CACHE_SHORT, CRL_TYPE, Code, Fault, Hello, PROTOCOL_VERSION, ROOT_TYPE, Route,
    STATEMENT_TYPE,
};
use service::{Clock, Report};
use tracing::{debug, warn};
use transport::Body;

use crate::cache::{Asker, Cache};
use crate::catalogue::{Catalogue, CatalogueError};
use crate::metrics::Metrics;
use crate::offline::Phase;
use crate::roster::Rosters;
use reply::Document;

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct From {
    /// For the cache.
    pub(crate) asker: Asker,
    /// The id of a client; none of a booster.
    pub(crate) device: Option<String>,
}

/// Everything that the booster answers. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) cache: Cache,
    pub(crate) catalogue: Catalogue,
    pub(crate) clock: Clock,
    pub(crate) deployment: String,
    pub(crate) id: String,
    pub(crate) metrics: Metrics,
    /// What holds for devices; none where there is no origin.
    pub(crate) rosters: Option<Rosters>,
    pub(crate) trust: Arc<Trust>,
}

impl Api {
    /// Answers a request of `from`, whose certificate has been accepted, if it is `admitted`.
    pub(crate) async fn answer(
        &self,
        from: &From,
        admitted: Result<Phase, Fault>,
        head: &Parts,
        body: Bytes,
    ) -> Response<Body> {
        let (kind, answered) = match (Route::parse(head.uri.path()), admitted) {
            (Ok(route), Ok(phase)) => {
                let kind = route.kind();
                (kind, self.to(from, route, head, body, phase).await)
            }
            (Ok(route), Err(told)) => (route.kind(), Err(told)),
            (Err(_), Err(told)) => ("none", Err(told)),
            (Err(failure), Ok(_)) => {
                let told = Fault::new(Code::NotFound, failure.to_string());
                ("none", Err(told))
            }
        };
        let mut response = answered.unwrap_or_else(|told| reply::fault(&told));
        let status = response.status();
        debug!(route = kind, status = status.as_u16(), "answered");
        let metrics = &self.metrics;
        // Hits are what there is most of: their counters are at hand, and their heads are made.
        if kind == "pack" && status == StatusCode::OK {
            metrics.packs_sent.inc();
            return reply::count(response, metrics.pack_bytes.clone());
        }
        reply::finish(&mut response);
        let requests = &metrics.requests;
        requests.with_label_values(&[kind, status.as_str()]).inc();
        reply::count(response, metrics.response_bytes.with_label_values(&[kind]))
    }

    /// Answers what `from` asks by `route`: what is for it alone, or else for everybody.
    async fn to(
        &self,
        from: &From,
        route: Route,
        head: &Parts,
        body: Bytes,
        phase: Phase,
    ) -> Result<Response<Body>, Fault> {
        if let Some(answer) = self.for_device(from, &route, head, &body).await? {
            return Ok(answer);
        }
        match self.route(&route, head, from.asker, phase).await {
            Err(told) if told.code == Code::NotFound => {
                let private = Box::pin(self.private(from, &route, head, phase)).await;
                private.ok_or(told)
            }
            answered => answered,
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a new route is nothing here until somebody answers it"
    )]
    async fn route(
        &self,
        route: &Route,
        head: &Parts,
        asker: Asker,
        phase: Phase,
    ) -> Result<Response<Body>, Fault> {
        if head.method != Method::GET && head.method != Method::HEAD {
            return Err(Fault::new(Code::MethodNotAllowed, "want GET or HEAD"));
        }
        match route {
            Route::Crl(issuer) => self.crl(*issuer, head),
            Route::Deployment => self.deployment(head).await,
            Route::Hello => Ok(self.hello(head)),
            Route::Pack(fileset, id) => self.pack(fileset, *id, head, asker, phase).await,
            Route::Snapshot(digest) | Route::Statement(digest) => {
                self.object(*digest, head, phase).await
            }
            Route::Timestamp => self.timestamp(head).await,
            // Enrolment is relayed on a listener of its own; what else there is goes to the origin.
            _ => Err(Fault::new(Code::NotFound, "nothing is at this path")),
        }
    }

    fn hello(&self, head: &Parts) -> Response<Body> {
        let hello = Hello {
            deployment: self.deployment.clone(),
            role: "booster".to_owned(),
            id: self.id.clone(),
            protocol_min: PROTOCOL_VERSION,
            protocol_max: PROTOCOL_VERSION,
            time: self.clock.now(),
        };
        let document = Document {
            bytes: hello.encode().into(),
            cache: "no-store",
            digest: None,
            media_type: "application/json",
        };
        document.answer(head)
    }

    fn crl(&self, issuer: [u8; 32], head: &Parts) -> Result<Response<Body>, Fault> {
        let crl = self.trust.crls().current(IssuerId::from_bytes(issuer));
        let crl = crl.ok_or_else(|| Fault::new(Code::NotFound, "no such issuer"))?;
        let document = Document {
            bytes: crl.der().into_owned().into(),
            cache: "no-cache",
            digest: Some(Digest::from_raw(*crl.digest())),
            media_type: CRL_TYPE,
        };
        Ok(document.answer(head))
    }

    async fn timestamp(&self, head: &Parts) -> Result<Response<Body>, Fault> {
        // How long past its end a timestamp counts is the client's to decide.
        let view = match self.catalogue.current().await {
            Ok(view) => view,
            Err(failure) => self.catalogue.last_known().ok_or_else(|| told(failure))?,
        };
        let document = Document {
            bytes: view.envelope.clone(),
            cache: CACHE_SHORT,
            digest: Some(view.timestamp.digest()),
            media_type: STATEMENT_TYPE,
        };
        Ok(document.answer(head))
    }

    async fn deployment(&self, head: &Parts) -> Result<Response<Body>, Fault> {
        // Asked for together with the timestamp. If that fails, the last one still says who is who.
        if let Err(failure) = self.catalogue.current().await {
            debug!(error = %Report(&*failure), "serving the last deployment document");
        }
        let document = self.catalogue.document().borrow().clone();
        let document = document.ok_or_else(|| {
            let what = "the deployment document has not been fetched yet";
            Fault::new(Code::UpstreamUnavailable, what)
        })?;
        let answer = Document {
            bytes: document.envelope.clone(),
            cache: "no-cache",
            digest: Some(Statement::digest(&document.statement)),
            media_type: STATEMENT_TYPE,
        };
        Ok(answer.answer(head))
    }

    async fn object(
        &self,
        digest: Digest,
        head: &Parts,
        phase: Phase,
    ) -> Result<Response<Body>, Fault> {
        if phase != Phase::Fresh && !self.cache.has_object(digest) {
            return Err(not_cached());
        }
        let bytes = self.catalogue.object(digest).await.map_err(told)?;
        // An envelope is JSON, an index root CBOR.
        let media_type = if bytes.first() == Some(&b'{') {
            STATEMENT_TYPE
        } else {
            ROOT_TYPE
        };
        let document = Document {
            bytes,
            cache: CACHE_IMMUTABLE,
            digest: Some(digest),
            media_type,
        };
        Ok(document.answer(head))
    }
}

/// What the peer is told of a failure. What went wrong upstream is for the log.
fn told(failure: Arc<CatalogueError>) -> Fault {
    let (code, detail) = match *failure {
        CatalogueError::NotNamed => (Code::NotFound, "nothing of that name is known"),
        CatalogueError::Stopping => (Code::Busy, "the booster is stopping"),
        CatalogueError::UnknownFileset => (Code::UnknownFileset, "there is no such fileset"),
        CatalogueError::UnknownPack => {
            (Code::UnknownPack, "no revision that is kept has that pack")
        }
        CatalogueError::State { .. } => (Code::Internal, "the booster cannot keep its state"),
        CatalogueError::Bad { .. }
        | CatalogueError::Lists { .. }
        | CatalogueError::Marks { .. }
        | CatalogueError::Upstream { .. } => (
            Code::UpstreamUnavailable,
            "the booster cannot get it from the origin",
        ),
    };
    if matches!(code, Code::Internal | Code::UpstreamUnavailable) {
        warn!(error = %Report(&*failure), "cannot answer");
    }
    Fault::new(code, detail)
}

/// What the peer is told of something that is not cached, while nothing is fetched.
fn not_cached() -> Fault {
    let detail = "the booster has not got it, and fetches nothing while its revocation lists are \
                  overdue";
    Fault::new(Code::UpstreamUnavailable, detail)
}

/// A header's text, if it is text.
fn text<'a>(head: &'a Parts, name: &header::HeaderName) -> Option<&'a str> {
    head.headers.get(name).and_then(|value| value.to_str().ok())
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("what we write is valid in a header")
}
