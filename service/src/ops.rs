//! The listener for operators and their machines: `/live`, `/ready`, `/health`, `/metrics`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use thiserror::Error;
use tokio::net::TcpListener;
use tracing::error;

use crate::http1::{self, Limits};
use crate::metrics::Registry;
use crate::report::Report;
use crate::tasks::{Drained, Tasks};

/// Whether the program can do its work now, as the sum of named checks. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<&'static str, Finding>>>,
}

/// What a check has found.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Finding {
    /// The program does its work, with a restriction that an operator should know of.
    Degraded(String),
    /// It does not.
    Failing(String),
    /// Nothing is wrong.
    Well,
}

/// One of the checks that make up [`Health`]. It fails until it is told that all is well.
#[derive(Clone, Debug)]
pub struct Check {
    health: Health,
    name: &'static str,
}

/// The operators' listener.
#[derive(Debug)]
pub struct Ops {
    address: SocketAddr,
    tasks: Tasks,
}

/// Why the listener cannot be opened.
#[derive(Debug, Error)]
#[error("cannot listen for operators on {address}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// A scraper, an orchestrator and a person or two: more is a mistake or an attack.
const LIMITS: Limits = Limits {
    connections_max: 32,
    life_max: Duration::from_secs(10),
};

impl Health {
    /// No checks yet: well.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the check called `name`, failing with "not yet checked".
    #[must_use]
    pub fn check(&self, name: &'static str) -> Check {
        let check = Check {
            health: self.clone(),
            name,
        };
        check.fail("not yet checked");
        check
    }

    /// Not ready from now on, because the program is stopping.
    pub fn stopping(&self) {
        let why = "the program is stopping".to_owned();
        self.lock().insert("stopping", Finding::Failing(why));
    }

    /// Each failing check with its reason, sorted by name. Empty means ready.
    #[must_use]
    pub fn failing(&self) -> Vec<(&'static str, String)> {
        self.found(|finding| match finding {
            Finding::Failing(why) => Some(why),
            Finding::Degraded(_) | Finding::Well => None,
        })
    }

    /// Each check that passes with a restriction, and which, sorted by name.
    #[must_use]
    pub fn degraded(&self) -> Vec<(&'static str, String)> {
        self.found(|finding| match finding {
            Finding::Degraded(why) => Some(why),
            Finding::Failing(_) | Finding::Well => None,
        })
    }

    fn found(&self, why: impl Fn(&Finding) -> Option<&String>) -> Vec<(&'static str, String)> {
        let checks = self.lock();
        let found = checks.iter();
        found
            .filter_map(|(name, finding)| Some((*name, why(finding)?.clone())))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Finding>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Check {
    /// All is well.
    pub fn pass(&self) {
        self.find(Finding::Well);
    }

    /// The program does its work with a restriction: `reason` is for the operator. True if that is
    /// news.
    pub fn degrade(&self, reason: impl Into<String>) -> bool {
        self.find(Finding::Degraded(reason.into()))
    }

    /// Something is wrong: `reason` is for the operator. True if that is news, and worth a line
    /// in the log.
    pub fn fail(&self, reason: impl Into<String>) -> bool {
        self.find(Finding::Failing(reason.into()))
    }

    fn find(&self, finding: Finding) -> bool {
        let before = self.health.lock().insert(self.name, finding.clone());
        before != Some(finding)
    }
}

impl Ops {
    /// Listens on `address` and shows `health` and the numbers of `registry`.
    ///
    /// # Errors
    ///
    /// Fails if the address cannot be listened on.
    pub async fn bind(
        address: SocketAddr,
        health: Health,
        registry: Registry,
    ) -> Result<Self, BindError> {
        let fail = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let tasks = Tasks::new();
        http1::serve(&tasks, listener, LIMITS, move |request| {
            let answer = answer(request.method(), request.uri().path(), &health, &registry);
            async move { answer }
        });
        Ok(Self { address, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits until a part ended that should not have, and names it.
    pub async fn any_ended(&self) -> &'static str {
        self.tasks.any_ended().await
    }

    /// Stops listening. Do it last: an operator wants to see the drain.
    pub async fn drain(self, grace: Duration) -> Drained {
        self.tasks.drain(grace).await
    }
}

fn answer(
    method: &Method,
    path: &str,
    health: &Health,
    registry: &Registry,
) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        refusal
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match path {
        "/live" => text(StatusCode::OK, "live\n"),
        "/ready" => ready(health),
        "/health" => in_words(health),
        "/metrics" => match registry.page() {
            Ok(page) => text(StatusCode::OK, page),
            Err(failure) => {
                error!(error = %Report(&failure), "cannot show the metrics");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "cannot show the metrics\n",
                )
            }
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "here are /health, /live, /metrics and /ready\n",
        ),
    }
}

fn ready(health: &Health) -> Response<Full<Bytes>> {
    let failing = health.failing();
    if failing.is_empty() {
        return text(StatusCode::OK, format!("ready\n{}", lines(health)));
    }
    text(StatusCode::SERVICE_UNAVAILABLE, lines(health))
}

/// How the program is, in a word, and why.
fn in_words(health: &Health) -> Response<Full<Bytes>> {
    let (status, word) = if !health.failing().is_empty() {
        (StatusCode::SERVICE_UNAVAILABLE, "failing")
    } else if !health.degraded().is_empty() {
        (StatusCode::OK, "degraded")
    } else {
        (StatusCode::OK, "well")
    };
    text(status, format!("{word}\n{}", lines(health)))
}

/// A line for each check that has found something: what is failing first.
fn lines(health: &Health) -> String {
    let failing = health.failing().into_iter();
    let failing = failing.map(|(name, why)| format!("{name}: {why}\n"));
    let degraded = health.degraded().into_iter();
    let degraded = degraded.map(|(name, why)| format!("{name}: degraded: {why}\n"));
    failing.chain(degraded).collect()
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // The version names Prometheus' text format; the other pages are plain text all the same.
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn check(ops: &Ops, path: &str, expected: Expect) {
        let answer = ask(
            ops.local_addr(),
            &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
        )
        .await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        expected.assert_eq(&format!("{status} {body}"));
    }

    #[tokio::test]
    async fn readiness_is_the_sum_of_the_checks() {
        let health = Health::new();
        let registry = Registry::new("larder_test");
        registry.gauge("files", "Files now.").unwrap().set(3);
        let ops = Ops::bind(([127, 0, 0, 1], 0).into(), health.clone(), registry)
            .await
            .unwrap();
        let disk = health.check("disk");
        check(&ops, "/live", expect!["200 live\n"]).await;
        check(&ops, "/ready", expect!["503 disk: not yet checked\n"]).await;
        disk.pass();
        check(&ops, "/ready", expect!["200 ready\n"]).await;
        check(&ops, "/health", expect!["200 well\n"]).await;
        assert!(disk.degrade("slow") && !disk.degrade("slow"));
        check(&ops, "/ready", expect!["200 ready\ndisk: degraded: slow\n"]).await;
        check(
            &ops,
            "/health",
            expect!["200 degraded\ndisk: degraded: slow\n"],
        )
        .await;
        disk.fail("full");
        check(&ops, "/health", expect!["503 failing\ndisk: full\n"]).await;
        health.stopping();
        check(
            &ops,
            "/ready",
            expect!["503 disk: full\nstopping: the program is stopping\n"],
        )
        .await;
        check(
            &ops,
            "/secret",
            expect!["404 here are /health, /live, /metrics and /ready\n"],
        )
        .await;
        let page = "200 # HELP larder_test_files Files now.\n# TYPE larder_test_files gauge\n";
        let answer = ask(ops.local_addr(), "GET /metrics HTTP/1.0\r\n\r\n").await;
        assert!(
            answer.ends_with(&format!("{}larder_test_files 3\n", &page[4..])),
            "{answer}"
        );
        assert_eq!(ops.drain(Duration::from_secs(10)).await, Drained::InTime);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_no_head_is_cut_off() {
        let address = ([127, 0, 0, 1], 0).into();
        let ops = Ops::bind(address, Health::new(), Registry::new("x"))
            .await
            .unwrap();
        let answer = ask(ops.local_addr(), "GET /live").await;
        assert!(answer.is_empty() || answer.contains(" 408 "), "{answer}");
    }
}
